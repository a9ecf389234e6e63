//! What there is to tell: the events of the log (contract, section 7), as plain data.
//!
//! The policy says *what* happened, the reactor writes it down. The text of an event is its
//! [`Display`](fmt::Display).

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use log::Level;
use nix::sys::signal::Signal;

use crate::exit::{Ended, Exit};
use crate::text::Quoted;

/// Why a command is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its heartbeat fell silent.
    Heartbeat,
    /// This signal asked for it.
    Signal(Signal),
    /// The command itself has ended; what it left behind is stopped.
    Leftovers,
}

/// One event of the log, with the fields that the contract gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// The command runs.
    Started {
        /// Its process id.
        pid: i32,
        /// Counts launches, from 1.
        run: u64,
    },
    /// The command has ended.
    Exited {
        /// Its process id, now reaped.
        pid: i32,
        /// How it ended.
        ended: Ended,
        /// How long it ran.
        uptime: Duration,
    },
    /// No beat until the deadline.
    HeartbeatTimeout {
        /// The command's process id.
        pid: i32,
        /// How long ago the last sign of life was: the last beat of this run, or its launch.
        silent: Duration,
        /// `--timeout`.
        timeout: Duration,
    },
    /// SIGTERM (or, without grace, SIGKILL) is about to be sent.
    Stopping {
        /// The command's process id.
        pid: i32,
        /// Why.
        reason: Reason,
        /// How long it has.
        grace: Duration,
    },
    /// SIGKILL is about to be sent.
    Killing {
        /// The command's process id.
        pid: i32,
        /// How many processes are left.
        processes: usize,
    },
    /// SIGKILL was sent, and some of what the command left behind is there all the same (in an
    /// uninterruptible sleep, or not ours to signal).
    LeftBehind {
        /// The command's process id.
        pid: i32,
    },
    /// The command will be launched again.
    Restarting {
        /// Which consecutive restart this is, from 1.
        restart: u64,
        /// `--max-restarts`, None for ever.
        limit: Option<u64>,
        /// How long after the command's end.
        delay: Duration,
    },
    /// `--max-restarts` is used up.
    GivingUp {
        /// Consecutive restarts made.
        restarts: u64,
        /// The exit code that follows.
        code: Exit,
    },
    /// The command could not be launched.
    StartFailed {
        /// Why, as the system says it.
        error: String,
    },
    /// A signal arrived.
    Signal {
        /// Which.
        signal: Signal,
        /// `stop`, `kill`, `forward` or `ignore`.
        action: &'static str,
    },
    /// The last line.
    Finished {
        /// The supervisor's exit code.
        code: Exit,
        /// How often the command was launched.
        runs: u64,
        /// How long the supervisor ran.
        uptime: Duration,
    },
}

impl Report {
    /// The level at which it is logged.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Started { .. }
            | Self::Stopping { .. }
            | Self::Restarting { .. }
            | Self::Signal { .. }
            | Self::Finished { .. } => Level::Info,
            Self::Exited { ended, .. } if ended.is_success() => Level::Info,
            Self::Exited { .. }
            | Self::HeartbeatTimeout { .. }
            | Self::Killing { .. }
            | Self::LeftBehind { .. } => Level::Warn,
            Self::GivingUp { .. } | Self::StartFailed { .. } => Level::Error,
        }
    }

    /// The text, for a supervisor of `command` (argv, shown where the event names it).
    #[must_use]
    pub fn line<'a>(&'a self, command: &'a [OsString]) -> Line<'a> {
        Line {
            report: self,
            command,
        }
    }
}

/// A [`Report`] ready to be written.
pub struct Line<'a> {
    report: &'a Report,
    command: &'a [OsString],
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.report {
            Report::Started { pid, run } => {
                let command = Quoted::command(self.command);
                write!(f, "started pid={pid} run={run} command={command}")
            }
            Report::Exited { pid, ended, uptime } => {
                write!(f, "exited pid={pid} ")?;
                match *ended {
                    Ended::Code(code) => write!(f, "code={code}")?,
                    Ended::Signal { number, core } => {
                        write!(f, "signal={}", Name(number))?;
                        if core {
                            f.write_str(" core=yes")?;
                        }
                    }
                }
                write!(f, " uptime={}", Seconds(*uptime))
            }
            Report::HeartbeatTimeout {
                pid,
                silent,
                timeout,
            } => write!(
                f,
                "heartbeat timeout pid={pid} silent={} timeout={}",
                Seconds(*silent),
                Seconds(*timeout)
            ),
            Report::Stopping { pid, reason, grace } => {
                write!(f, "stopping pid={pid} reason=")?;
                match *reason {
                    Reason::Heartbeat => f.write_str("\"heartbeat timeout\"")?,
                    Reason::Signal(signal) => f.write_str(signal.as_str())?,
                    Reason::Leftovers => f.write_str("leftovers")?,
                }
                write!(f, " grace={}", Seconds(*grace))
            }
            Report::Killing { pid, processes } => {
                write!(f, "killing pid={pid} processes={processes}")
            }
            Report::LeftBehind { pid } => write!(f, "leftovers remain pid={pid}"),
            Report::Restarting {
                restart,
                limit,
                delay,
            } => {
                write!(f, "restarting restart={restart}/")?;
                match limit {
                    Some(limit) => write!(f, "{limit}")?,
                    None => f.write_str("unlimited")?,
                }
                write!(f, " delay={}", Seconds(*delay))
            }
            Report::GivingUp { restarts, code } => {
                write!(f, "giving up restarts={restarts} code={}", code.0)
            }
            Report::StartFailed { error } => write!(
                f,
                "start failed command={} error={}",
                Quoted::command(self.command),
                Quoted::text(error)
            ),
            Report::Signal { signal, action } => {
                write!(f, "signal name={} action={action}", signal.as_str())
            }
            Report::Finished { code, runs, uptime } => write!(
                f,
                "finished code={} runs={runs} uptime={}",
                code.0,
                Seconds(*uptime)
            ),
        }
    }
}

/// A signal by its name, or by its number where it has none (the real-time signals).
struct Name(i32);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

/// A duration as the log shows it: `3.214s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        write!(f, "{seconds}.{millis:03}s")
    }
}

#[cfg(test)]
mod tests {
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
                },
                Level::Warn,
                "exited pid=4242 code=1 uptime=3.214s",
            ),
            (
                Report::Exited {
                    pid: 1,
                    ended: Ended::Code(0),
                    uptime: ms(1),
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
}
