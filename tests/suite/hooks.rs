//! Section 12: commands of the user's for events, beside supervision and never in its way.

use std::fs;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::harness::*;
use crate::tree::brood;

/// What a hook says goes to this file in the test's directory.
const SAYS: &str =
    "env | grep ^SUPERVISOR_EVENT | sort > said.$$; cat said.$$ >> said; echo . >> said";

/// What the hooks have said, event by event, once there are so many.
fn said(run: &Run, count: usize) -> Vec<String> {
    let path = run.directory.join("said");
    let mut text = String::new();
    assert!(
        eventually(|| {
            text = fs::read_to_string(&path).unwrap_or_default();
            text.matches("\n.\n").count() >= count
        }),
        "{text}\n{}",
        run.log_so_far()
    );
    text.split_terminator("\n.\n").map(str::to_owned).collect()
}

fn words<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let shell = ["sh", "-c", script];
    options.iter().copied().chain(shell).collect()
}

#[test]
fn each_event_runs_the_command_with_its_fields() {
    let options = [
        "--on-event",
        SAYS,
        "--name",
        "hooked",
        "--max-restarts",
        "1",
        "--backoff-factor",
        "0",
    ];
    let mut run = Setup::new(words(&options, "exit 7")).start();
    assert_eq!(run.code(), 7);
    let said = said(&run, 5);
    let first = said[0].lines().collect::<Vec<_>>();
    assert_eq!(first[0], "SUPERVISOR_EVENT=started");
    assert_eq!(first[1], "SUPERVISOR_EVENT_COMMAND=sh -c exit 7");
    assert_eq!(first[2], "SUPERVISOR_EVENT_NAME=hooked");
    assert!(first[3].starts_with("SUPERVISOR_EVENT_PID="));
    assert_eq!(first[4], "SUPERVISOR_EVENT_RUN=1");
    let events: Vec<_> = said
        .iter()
        .map(|said| said.lines().next().unwrap())
        .collect();
    let event = |name: &str| format!("SUPERVISOR_EVENT={name}");
    let expected = ["started", "exited", "started", "exited", "giving up"].map(event);
    assert_eq!(events, expected);
    for part in ["SUPERVISOR_EVENT_CODE=7", "SUPERVISOR_EVENT_UPTIME=0."] {
        assert!(said[1].contains(part), "{}", said[1]);
    }
    assert!(
        said[4].contains("SUPERVISOR_EVENT_RESTARTS=1"),
        "{}",
        said[4]
    );
}

#[test]
fn a_hang_is_an_event_and_a_signal_a_field() {
    let options = [
        "--on-event",
        SAYS,
        "--sd-notify",
        "--timeout",
        "0.5",
        "--max-restarts",
        "0",
    ];
    let mut run = Setup::new(words(&options, "exec sleep 1000")).start();
    assert_eq!(run.code(), 124);
    let said = said(&run, 4);
    assert!(
        said[1].starts_with("SUPERVISOR_EVENT=heartbeat timeout"),
        "{}",
        said[1]
    );
    assert!(
        said[1].contains("SUPERVISOR_EVENT_TIMEOUT=0.500"),
        "{}",
        said[1]
    );
    assert!(
        said[2].contains("SUPERVISOR_EVENT_SIGNAL=SIGTERM"),
        "{}",
        said[2]
    );
}

#[test]
fn a_hook_has_the_callers_environment_without_our_options_and_no_file_of_the_commands() {
    let script = "env > seen.new; ls -l /proc/self/fd >> seen.new; mv seen.new seen";
    let mut run = Setup::new(words(&["--on-event", script], "exec sleep 1000"))
        .env("SUPERVISOR_MAX_RESTARTS", "7")
        .env("NOTIFY_SOCKET", "/nowhere")
        .env("MINE", "yes")
        .start();
    let path = run.directory.join("seen");
    assert!(eventually(|| path.exists()), "{}", run.log_so_far());
    let seen = fs::read_to_string(path).unwrap();
    assert!(seen.contains("MINE=yes"), "{seen}");
    for none in [
        "MAX_RESTARTS",
        "NOTIFY_SOCKET",
        "socket:",
        "anon_inode",
        ".sock",
    ] {
        assert!(!seen.contains(none), "{none} in {seen}");
    }
    for null in ["0 -> /dev/null", "2 -> /dev/null"] {
        assert!(seen.contains(null), "{seen}");
    }
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
}

/// Hooks that do what they can to be in the way: none of it delays the command.
#[test]
fn a_hook_that_hangs_or_fails_or_floods_changes_nothing_for_the_command() {
    for hook in [
        "trap '' TERM; sleep 1000",
        "exit 3",
        "kill -9 $$",
        "yes; yes >&2",
        "cat; sleep 1000",
        "sleep 1000 & sleep 1000 & exit 0",
        "/no/such/program",
    ] {
        let options = [
            "--on-event",
            hook,
            "--backoff-factor",
            "0",
            "--max-restarts",
            "20",
        ];
        let mut run = Setup::new(words(&options, "read line; exit 1")).start();
        let start = Instant::now();
        for _ in 0..=20 {
            run.logged(&["started"]);
            run.send("go");
        }
        run.logged(&["giving up"]);
        // Twenty runs, in less than the time of one hook.
        assert!(start.elapsed().as_secs() < 8, "{hook}");
        // Nobody wants to wait for the rest.
        run.signal(Signal::SIGTERM);
        assert_eq!(run.code(), 1, "{hook}\n{}", run.log());
        let log = run.log();
        assert!(!log.contains("leftovers"), "{hook}\n{log}");
    }
}

#[test]
fn there_is_one_at_a_time_and_a_queue_of_sixteen() {
    let hook =
        "mkdir running || echo two at once >> wrong; sleep 0.1; rmdir running; echo x >> count";
    let options = [
        "--on-event",
        hook,
        "--backoff-factor",
        "0",
        "--max-restarts",
        "99",
    ];
    let mut run = Setup::new(words(&options, "exit 1")).start();
    let dropped = run.logged(&["WARN", "hooks dropped="]);
    assert_eq!(run.code(), 1);
    let file = |name: &str| fs::read_to_string(run.directory.join(name)).unwrap_or_default();
    assert_eq!(file("wrong"), "");
    let done = file("count").lines().count();
    let log = run.log();
    let lines = log.lines().filter(|line| line.contains("hooks dropped="));
    let dropped_in_all: usize = lines
        .map(|line| field(line, "dropped").parse::<usize>().unwrap())
        .sum();
    // Started and exited of a hundred runs, and giving up.
    assert_eq!(done + dropped_in_all, 201, "{dropped}\n{log}");
    assert!((17..60).contains(&done), "{done}");
    assert!(
        log.lines()
            .filter(|line| line.contains("hooks dropped="))
            .count()
            <= 2,
        "{log}"
    );
    assert!(log.lines().last().unwrap().contains("finished"), "{log}");
}

#[test]
fn a_hook_has_ten_seconds_and_its_whole_group_ends_with_it() {
    let hook = "[ $SUPERVISOR_EVENT = started ] || exit 0
        trap '' TERM; sleep 1000 & echo $! > grandchild; echo $$ > hook.new; mv hook.new hook; wait; sleep 1000";
    let mut run = Setup::new(words(&["--on-event", hook], "exec sleep 1000")).start();
    let pid = |name: &str| {
        fs::read_to_string(run.directory.join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    assert!(eventually(|| pid("hook").is_some()));
    let pids: [i32; 2] = ["hook", "grandchild"].map(|name| pid(name).unwrap());
    let start = Instant::now();
    pids.into_iter().for_each(gone);
    let lasted = start.elapsed().as_secs_f64();
    assert!((8.0..20.0).contains(&lasted), "{lasted}");
    run.logged(&["WARN", "hooks dropped=0 failed=0 killed=1"]);
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
}

#[test]
fn a_hooks_processes_are_not_the_commands_nor_the_reverse() {
    // A hook runs while the command, deaf, is stopped; each is left to its own end.
    let hook = "[ \"$SUPERVISOR_EVENT\" = started ] || exit 0
        trap 'echo told >> told' TERM
        echo $$ > hook.new; mv hook.new hook; while [ ! -e go ]; do sleep 0.05; done; echo done > done";
    let script = "trap '' TERM; echo ready; sleep 1000";
    let options = ["--on-event", hook, "--grace-period", "0.3"];
    let mut run = Setup::new(words(&options, script)).start();
    run.said("ready");
    assert!(eventually(|| run.directory.join("hook").exists()));
    run.signal(Signal::SIGTERM);
    // The shell and its sleep; not the hook and its sleep.
    run.logged(&["killing", "processes=2"]);
    run.logged(&["exited", "signal=SIGKILL"]);
    fs::write(run.directory.join("go"), "").unwrap();
    assert_eq!(run.code(), 137);
    assert!(run.directory.join("done").exists(), "it was waited for");
    assert!(!run.directory.join("told").exists(), "it was told to end");
}

#[test]
fn the_next_run_does_not_wait_for_a_hook() {
    let hook = "echo $$ >> hooks; sleep 1000";
    let options = ["--on-event", hook, "--backoff-factor", "0"];
    let mut run = Setup::new(words(&options, "sleep 1000 & read line; exit 1")).start();
    run.logged(&["started"]);
    assert!(eventually(|| run.directory.join("hooks").exists()));
    run.send("go");
    // It leaves something behind, which is cleared away though a hook lives.
    let exited = run.logged(&["exited"]);
    run.logged(&["stopping", "reason=leftovers"]);
    let started = run.logged(&["started"]);
    assert!(between(&exited, &started) < 3.0, "{started}");
}

/// Its environment, by which a hook's daemon is known, is empty for a moment of an exec.
#[test]
fn a_hooks_daemon_that_executes_something_at_this_moment_is_not_taken_for_a_leftover() {
    let daemon = format!("setsid {} execs & echo $! > daemon", brood().display());
    let hook = format!("[ $SUPERVISOR_EVENT != started ] || [ -e daemon ] || {{ {daemon}; }}");
    let script = "while ! [ -s daemon ]; do sleep 0.01; done; echo >> runs; exit 1";
    let options = [
        "--on-event",
        &hook,
        "--backoff-factor",
        "0",
        "--grace-period",
        "1000",
    ];
    let mut run = Setup::new(words(&options, script)).start();
    let text = |name: &str| fs::read_to_string(run.directory.join(name)).unwrap_or_default();
    assert!(eventually(|| text("runs").len() >= 300));
    let daemon = text("daemon").trim().parse().unwrap();
    assert!(alive(daemon), "{}", run.log());
    run.signal(Signal::SIGTERM);
    run.signal(Signal::SIGTERM);
    run.code();
    gone(daemon);
}

/// A hook's daemon is none of the command's, and has the hook's time.
#[test]
fn a_hook_that_leaves_its_group_delays_nothing_and_does_not_outlive_its_time() {
    let hook = "[ $SUPERVISOR_EVENT = started ] || { echo > next; exit 0; }
        setsid sh -c 'trap \"\" TERM; echo $$ >> daemons; while :; do sleep 1; done' & exit 0";
    let options = [
        "--on-event",
        hook,
        "--backoff-factor",
        "0",
        "--grace-period",
        "1000",
    ];
    let mut run = Setup::new(words(&options, "read line; exit 1")).start();
    run.logged(&["started"]);
    let daemons = run.directory.join("daemons");
    let pid = || -> Option<i32> { fs::read_to_string(&daemons).ok()?.trim().parse().ok() };
    assert!(eventually(|| pid().is_some()));
    let daemon = pid().unwrap();
    run.send("go");
    run.logged(&["exited"]);
    // Nor is it taken for a leftover of the command's.
    run.logged(&["started"]);
    assert!(alive(daemon), "{}", run.log());
    // But it has the hook's place, too.
    assert!(!run.directory.join("next").exists());
    assert!(
        !run.log_so_far().contains("leftovers"),
        "{}",
        run.log_so_far()
    );
    run.signal(Signal::SIGTERM);
    run.send("go");
    run.signal(Signal::SIGTERM);
    run.code();
    gone(daemon);
}

#[test]
fn a_hook_whose_last_process_hides_is_over() {
    // Nothing announces that it leaves its group.
    let hook = "[ $SUPERVISOR_EVENT = started ] || { echo > next; exit 0; }
        (sleep 0.3; exec env -i PATH=\"$PATH\" setsid sleep 1000) & exit 0";
    let options = ["--on-event", hook, "--backoff-factor", "0"];
    let mut run = Setup::new(words(&options, "read line; exit 1")).start();
    run.logged(&["started"]);
    let start = Instant::now();
    run.send("go");
    run.logged(&["exited"]);
    assert!(eventually(|| run.directory.join("next").exists()));
    assert!(start.elapsed().as_secs() < 9, "{:?}", start.elapsed());
}

#[test]
fn a_hook_that_hides_is_not_left_behind() {
    let hook = "env -i PATH=\"$PATH\" setsid -f sh -c 'echo $$ >> hidden; exec sleep 1000'";
    let options = [
        "--on-event",
        hook,
        "--on-give-up",
        hook,
        "--max-restarts",
        "0",
    ];
    let mut run = Setup::new(words(&options, "exit 5")).start();
    assert_eq!(run.code(), 5);
    let hidden = fs::read_to_string(run.directory.join("hidden")).unwrap();
    for pid in hidden.lines() {
        gone(pid.parse().unwrap());
    }
}

#[test]
fn a_reboot_that_signals_everybody_does_not_end_the_hook_that_asked_for_it() {
    let hook = "sleep 1; echo done > done";
    let options = ["--on-give-up", hook, "--max-restarts", "0"];
    let mut run = Setup::new(words(&options, "exit 5")).start();
    run.logged(&["giving up"]);
    let_pass(std::time::Duration::from_millis(200));
    run.signal(Signal::SIGTERM);
    run.logged(&["signal name=SIGTERM action=stop"]);
    assert_eq!(run.code(), 5);
    assert!(run.directory.join("done").exists());
    assert!(
        run.log().lines().last().unwrap().contains("uptime=1."),
        "{}",
        run.log()
    );
}

#[test]
fn giving_up_is_waited_for_and_its_exit_code_changes_nothing() {
    let hook = "env > env; sleep 1; echo over > over; exit 9";
    let options = ["--on-give-up", hook, "--max-restarts", "0"];
    let mut run = Setup::new(words(&options, "exit 5")).start();
    assert_eq!(run.code(), 5);
    let read = |name: &str| fs::read_to_string(run.directory.join(name)).unwrap();
    assert_eq!(read("over"), "over\n");
    assert!(read("env").contains("SUPERVISOR_EVENT=giving up"));
    assert!(read("env").contains("SUPERVISOR_EVENT_CODE=5"));
    // Not where it did not give up.
    let (code, _) = Setup::new(words(&options, "exit 0")).finish();
    assert_eq!(code, 0);
}

#[test]
fn nobody_has_to_wait_for_hooks_who_does_not_want_to() {
    let options = [
        "--on-event",
        "sleep 1000",
        "--on-give-up",
        "sleep 1000",
        "--max-restarts",
        "0",
    ];
    let mut run = Setup::new(words(&options, "exit 5")).start();
    run.logged(&["giving up"]);
    let start = Instant::now();
    // The first one is for the hooks of events, the second one for giving up.
    for action in ["stop", "kill"] {
        run.signal(Signal::SIGTERM);
        run.logged(&["signal name=SIGTERM", &format!("action={action}")]);
        let_pass(std::time::Duration::from_millis(200));
    }
    assert_eq!(run.code(), 5);
    assert!(start.elapsed().as_secs() < 5);
    assert!(run.log().contains("hooks dropped="), "{}", run.log());
}

#[test]
fn as_the_first_process_it_runs_hooks_too() {
    let hook = "echo $SUPERVISOR_EVENT >> seen";
    let options = [
        "--on-event",
        hook,
        "--on-give-up",
        "echo last >> seen",
        "--max-restarts",
        "0",
    ];
    let namespace = [
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ];
    let binary = supervisor().to_str().unwrap();
    let words = namespace
        .into_iter()
        .chain([binary])
        .chain(words(&options, "exit 5"));
    let mut run = Setup::of("unshare".as_ref(), words).start();
    assert_eq!(run.code(), 5);
    let seen = fs::read_to_string(run.directory.join("seen")).unwrap();
    assert_eq!(seen, "started\nexited\ngiving up\nlast\n");
}
