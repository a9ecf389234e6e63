//! As the first process of a pid namespace, as in a container (sections 4 and 6).

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::*;
use crate::tree::brood;

const NAMESPACE: [&str; 5] = [
    "--user",
    "--map-root-user",
    "--pid",
    "--fork",
    "--kill-child",
];

/// `supervisor` with these words as PID 1; `proc` where `/proc` is to be the namespace's.
fn first<S: AsRef<std::ffi::OsStr>>(proc: Option<&str>, words: &[S]) -> Setup {
    let namespace = NAMESPACE
        .into_iter()
        .chain(proc)
        .map(std::ffi::OsString::from);
    let words = words.iter().map(|word| word.as_ref().to_owned());
    let words = namespace.chain([supervisor().into()]).chain(words);
    Setup::of("unshare".as_ref(), words)
}

/// Its number outside of the namespace.
fn outside(run: &Run) -> Pid {
    let children = format!("/proc/{0}/task/{0}/children", run.pid());
    let children = fs::read_to_string(children).unwrap();
    Pid::from_raw(children.trim().parse().unwrap())
}

#[test]
fn signals_work_as_for_everybody_else() {
    for (signal, code) in STOPS {
        let mut run = first(Some("--mount-proc"), &[puppet()]).start();
        run.ready();
        run.tell("trap USR1");
        kill(outside(&run), Signal::SIGUSR1).unwrap();
        run.said("got SIGUSR1");
        kill(outside(&run), signal).unwrap();
        assert_eq!(run.code(), code, "{signal}\n{}", run.log());
    }
}

#[test]
fn exit_codes_come_through() {
    let script = |code: &str| format!("exit {code}");
    for code in ["0", "1", "42", "255"] {
        let script = script(code);
        let words = ["--max-restarts", "0", "sh", "-c", &script];
        let (got, log) = first(Some("--mount-proc"), &words).finish();
        assert_eq!(got.to_string(), code, "{log}");
    }
    let (got, _) = first(Some("--mount-proc"), &["no-such-command-anywhere"]).finish();
    assert_eq!(got, 127);
}

#[test]
fn a_thousand_orphans_are_reaped_while_the_command_runs() {
    // The command itself looks until nobody is left but the first and itself.
    let script = "\"$0\" orphans 1000 & read go
        while set -- /proc/[0-9]*; [ $# -gt 3 ]; do :; done; echo left $#; kill -9 $!";
    let words = ["sh", "-c", script, brood().to_str().unwrap()];
    let mut run = first(Some("--mount-proc"), &words).start();
    run.said("brood ready");
    run.send("go");
    // The first, the command, and its child that started them.
    assert_eq!(run.said("left "), "left 3");
    assert_eq!(run.code(), 0);
}

#[test]
fn everything_is_told_to_end_before_the_namespace_ends() {
    let words = [
        "--grace-period",
        "0.1",
        brood().to_str().unwrap(),
        "daemon",
        "deaf",
    ];
    let mut run = first(Some("--mount-proc"), &words).start();
    run.said("brood ready");
    kill(outside(&run), Signal::SIGTERM).unwrap();
    run.logged(&["exited", "signal=SIGTERM"]);
    run.logged(&["killing", "processes=1"]);
    run.logged(&["finished code=0"]);
    assert_eq!(run.code(), 0);
}

#[test]
fn with_the_proc_of_another_namespace_nobody_in_it_is_touched() {
    // There our number 1 is init's, and its children are not ours.
    let words = [
        "--grace-period",
        "0.1",
        "--backoff-factor",
        "0",
        "--max-restarts",
        "1",
    ];
    let script = "trap '' TERM; sleep 1000 & exit 3";
    let words: Vec<&str> = words.into_iter().chain(["sh", "-c", script]).collect();
    let mut run = first(None, &words).start();
    assert_eq!(run.code(), 3);
    let log = run.log();
    // The group is known without it, and counts as one.
    let killed = log.lines().filter(|line| line.contains("killing"));
    let counts: Vec<_> = killed.map(|line| field(line, "processes")).collect();
    assert_eq!(counts, ["1", "1"], "{log}");
    assert!(
        !log.contains("not delivered") && !log.contains("remain"),
        "{log}"
    );
}
