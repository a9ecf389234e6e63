//! Section 10: what the log says of a command that hangs, before it is told to end.

use std::path::PathBuf;
use std::sync::LazyLock;

use crate::harness::*;

/// `tests/hang.c`, built once.
pub fn hang() -> PathBuf {
    static BUILT: LazyLock<PathBuf> =
        LazyLock::new(|| compile("tests/hang.c", "hang", &["-pthread"]));
    BUILT.clone()
}

/// The whole log of a command that hangs like that, which is given up on.
fn log_of(options: &[&str], how: &[&str]) -> String {
    let once = ["--sd-notify", "--timeout", "1", "--max-restarts", "0"];
    let program = hang().into_os_string().into_string().unwrap();
    let words = once
        .iter()
        .chain(options)
        .copied()
        .chain([program.as_str()]);
    let words: Vec<_> = words.chain(how.iter().copied()).collect();
    let mut run = Setup::new(words).start();
    run.said("hung");
    assert_eq!(run.code(), 124, "{}", run.log());
    run.log()
}

/// The lines that tell of it, which come between the verdict and the stop.
fn told(log: &str) -> Vec<&str> {
    let begun = log
        .lines()
        .skip_while(|line| !line.contains("heartbeat timeout pid="));
    let lines = begun
        .skip(1)
        .take_while(|line| !line.contains("stopping pid="));
    let lines: Vec<_> = lines.collect();
    let all = log
        .lines()
        .filter(|line| line.contains("WARN [SUPERVISOR] hung "));
    assert_eq!(lines, all.collect::<Vec<_>>(), "{log}");
    assert!(!lines.is_empty(), "{log}");
    lines
}

fn assert_tells(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
}

#[test]
fn a_thread_that_waits_for_a_mutex_is_seen_to() {
    let log = log_of(&[], &["futex"]);
    let lines = told(&log);
    assert_eq!(lines.len(), 2, "{log}");
    assert_tells(
        lines[0],
        &[
            "name=hang state=S",
            "syscall=futex",
            "threads=2",
            "rss=",
            "fds=",
            "wchan=futex",
        ],
    );
    // Its name can't forge a line.
    assert_tells(
        lines[1],
        &[" tid=", "name=\"stuck\\n here\"", "syscall=futex"],
    );
}

#[test]
fn a_read_from_a_pipe_shows_which() {
    let log = log_of(&[], &["pipe"]);
    assert_tells(told(&log)[0], &["state=S", "syscall=read fd=3 on=pipe:["]);
}

#[test]
fn a_busy_loop_is_seen_to_run() {
    let log = log_of(&[], &["loop"]);
    assert_tells(told(&log)[0], &["state=R", "wchan=none", "syscall=running"]);
}

#[test]
fn an_uninterruptible_sleep_is_seen_to_be_one() {
    let log = log_of(&["--grace-period", "0.1"], &["vfork"]);
    let lines = told(&log);
    assert_tells(lines[0], &["state=D", "syscall=vfork", "wchan="]);
    assert_tells(lines[1], &["state=S", "syscall=pause"]);
}

#[test]
fn of_many_as_many_are_told_of_as_fit() {
    for how in ["tree", "futex"] {
        let log = log_of(&["--grace-period", "0.1"], &[how, "300"]);
        let lines = told(&log);
        assert!((2..=64).contains(&lines.len()), "{}", lines.len());
        assert_tells(lines.last().unwrap(), &["hung and more"]);
    }
}

#[test]
fn of_a_hang_that_the_log_leaves_out_nothing_is_told() {
    let options = ["--sd-notify", "--timeout", "0.005", "--backoff-factor", "0"];
    let more = [
        "--grace-period",
        "0",
        "--max-restarts",
        "199",
        "sleep",
        "1000",
    ];
    let (code, log) = Setup::new(options.into_iter().chain(more)).finish();
    assert_eq!(code, 124, "{log}");
    let count = |part: &str| log.matches(part).count();
    assert!(count("heartbeat timeout pid") < 190, "{log}");
    assert!(
        count("SUPERVISOR] hung pid") <= count("heartbeat timeout pid") + 1,
        "{log}"
    );
}

#[test]
fn it_does_not_hold_up_the_stop() {
    // The one test of the time, 5 ms and what a build without optimization takes longer: on a busy machine
    // one try may be slow, all five are not.
    let tried = (0..5).map(|_| {
        let log = log_of(&["--grace-period", "0.1"], &["tree", "200"]);
        let line = |part: &str| log.lines().find(|line| line.contains(part)).unwrap();
        between(line("heartbeat timeout"), line("stopping"))
    });
    let best = tried.fold(f64::MAX, f64::min);
    assert!(best <= 0.0125, "{best} s");
}

#[test]
fn what_may_not_be_read_is_said_and_stops_nothing() {
    // A program whose owner may not look into it: proc(5), PR_SET_DUMPABLE.
    let script = "import ctypes, time
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
print('hung', flush=True); time.sleep(1000)";
    let words = [
        "--sd-notify",
        "--timeout",
        "3",
        "--max-restarts",
        "0",
        "python3",
        "-c",
        script,
    ];
    let Some(setup) = Setup::as_user(65534, "", words) else {
        return;
    };
    let mut run = setup.start();
    run.said("hung");
    assert_eq!(run.code(), 124);
    let log = run.log();
    assert_tells(
        told(&log)[0],
        &["name=python3 state=S", "syscall=denied", "fds="],
    );
}

#[test]
fn a_hang_signal_takes_the_place_of_sigterm_after_a_hang_alone() {
    let options = ["--sd-notify", "--timeout", "2", "--hang-signal", "USR2"];
    let mut run = Setup::scripted(&options, &["trap USR2 TERM"]).start();
    run.said("got SIGUSR2");
    run.send("exit 0");
    run.logged(&["restarting"]);
    run.ready();
    run.said("did trap");
    run.signal(nix::sys::signal::Signal::SIGTERM);
    run.said("got SIGTERM");
    run.send("exit 0");
    assert_eq!(run.code(), 0);
}

#[test]
fn a_hang_signal_that_is_not_heeded_is_followed_by_sigkill() {
    let options = ["--sd-notify", "--timeout", "2", "--hang-signal", "WINCH"];
    let more = ["--grace-period", "0.2", "--max-restarts", "0"];
    let options: Vec<_> = options.into_iter().chain(more).collect();
    let mut run = Setup::scripted(&options, &["trap TERM"]).start();
    run.logged(&["killing", "processes=1"]);
    run.logged(&["exited", "signal=SIGKILL"]);
    assert_eq!(run.code(), 124);
    assert!(!run.output().contains("got SIGTERM"));
}

#[test]
fn a_hang_signal_of_sigkill_needs_no_grace() {
    let options = ["--grace-period", "1000", "--hang-signal", "KILL"];
    let log = log_of(&options, &["pipe"]);
    assert!(
        log.contains("exited") && log.contains("signal=SIGKILL"),
        "{log}"
    );
}

#[test]
fn an_abort_leaves_a_core_where_the_machine_allows_it() {
    for (limit, dumped) in [("unlimited", true), ("0", false)] {
        let script = format!("ulimit -c {limit}; exec \"$0\" \"$@\"");
        let program = hang();
        let words = [
            "--sd-notify",
            "--timeout",
            "0.5",
            "--max-restarts",
            "0",
            "--hang-signal",
            "ABRT",
        ];
        let script = [
            "-c".to_owned(),
            script,
            supervisor().to_str().unwrap().to_owned(),
        ];
        let words = words.iter().map(|word| (*word).to_owned());
        let words = script
            .into_iter()
            .chain(words)
            .chain([program.to_str().unwrap().to_owned(), "pipe".into()]);
        let (code, log) = Setup::of("sh".as_ref(), words).finish();
        assert_eq!(code, 124, "{log}");
        let line = log.lines().find(|line| line.contains("exited")).unwrap();
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        // What a pipe takes is no affair of the limit (core(5)).
        if !pattern.starts_with('|') {
            assert_eq!(line.contains("signal=SIGABRT core=yes"), dumped, "{line}");
        }
    }
}
