//! The events' texts.

use super::*;

/// Every row of the contract's table of events, with its level and its fields.
#[test]
fn every_event_has_the_level_and_the_fields_of_the_contract() {
    let ms = Duration::from_millis;
    let command = ["python3".into(), "client.py".into()];
    let rows = [
        (
            Report::Started { pid: 4242, run: 1 },
            Level::Info,
            "started pid=4242 run=1 command=\"python3 client.py\"",
        ),
        (
            Report::Exited {
                pid: 4242,
                ended: Ended::Code(1),
                uptime: ms(3214),
                margin: None,
            },
            Level::Warn,
            "exited pid=4242 code=1 uptime=3.214s",
        ),
        (
            Report::Exited {
                pid: 1,
                ended: Ended::Code(0),
                uptime: ms(1),
                margin: None,
            },
            Level::Info,
            "exited pid=1 code=0 uptime=0.001s",
        ),
        (
            Report::Exited {
                pid: 1,
                ended: Ended::Signal {
                    number: 11,
                    core: true,
                },
                uptime: ms(60_000),
                margin: None,
            },
            Level::Warn,
            "exited pid=1 signal=SIGSEGV core=yes uptime=60.000s",
        ),
        (
            Report::Exited {
                pid: 1,
                ended: Ended::Signal {
                    number: 35,
                    core: false,
                },
                uptime: ms(0),
                margin: None,
            },
            Level::Warn,
            "exited pid=1 signal=35 uptime=0.000s",
        ),
        (
            Report::HeartbeatTimeout {
                pid: 1,
                silent: ms(20_003),
                timeout: ms(20_000),
            },
            Level::Warn,
            "heartbeat timeout pid=1 silent=20.003s timeout=20.000s",
        ),
        (
            Report::Stopping {
                pid: 1,
                reason: Reason::Heartbeat,
                grace: ms(5000),
            },
            Level::Info,
            "stopping pid=1 reason=\"heartbeat timeout\" grace=5.000s",
        ),
        (
            Report::Stopping {
                pid: 1,
                reason: Reason::Signal(Signal::SIGTERM),
                grace: ms(250),
            },
            Level::Info,
            "stopping pid=1 reason=SIGTERM grace=0.250s",
        ),
        (
            Report::Stopping {
                pid: 1,
                reason: Reason::Leftovers,
                grace: ms(5000),
            },
            Level::Info,
            "stopping pid=1 reason=leftovers grace=5.000s",
        ),
        (
            Report::Killing {
                pid: 1,
                processes: 3,
            },
            Level::Warn,
            "killing pid=1 processes=3",
        ),
        (
            Report::LeftBehind { pid: 1 },
            Level::Warn,
            "leftovers remain pid=1",
        ),
        (
            Report::Restarting {
                restart: 1,
                limit: Some(5),
                delay: ms(1000),
            },
            Level::Info,
            "restarting restart=1/5 delay=1.000s",
        ),
        (
            Report::Restarting {
                restart: 7,
                limit: None,
                delay: ms(64_000),
            },
            Level::Info,
            "restarting restart=7/unlimited delay=64.000s",
        ),
        (
            Report::GivingUp {
                restarts: 5,
                code: Exit::TIMED_OUT,
            },
            Level::Error,
            "giving up restarts=5 code=124",
        ),
        (
            Report::StartFailed {
                error: "No such file".into(),
            },
            Level::Error,
            "start failed command=\"python3 client.py\" error=\"No such file\"",
        ),
        (
            Report::Signal {
                signal: Signal::SIGTERM,
                action: "stop",
            },
            Level::Info,
            "signal name=SIGTERM action=stop",
        ),
        (
            Report::Finished {
                code: Exit(0),
                runs: 3,
                uptime: ms(12_345),
            },
            Level::Info,
            "finished code=0 runs=3 uptime=12.345s",
        ),
    ];
    for (report, level, line) in rows {
        assert_eq!(report.level(), level, "{report:?}");
        assert_eq!(report.line(&command).to_string(), line);
    }
}
