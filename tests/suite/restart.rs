//! Section 2: restarts, their delays, their count.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::*;

#[test]
fn a_failing_command_is_restarted_and_a_succeeding_one_is_not() {
    let mut run = Setup::puppet(&["--backoff-factor", "0.01"]).start();
    let first = run.ready();
    run.send("exit 3");
    let second = run.ready();
    assert_ne!(first, second);
    kill(Pid::from_raw(second), Signal::SIGKILL).unwrap();
    run.ready();
    run.send("exit 0");
    assert_eq!(run.code(), 0);
    let expected = [
        "started",
        "exited",
        "restarting",
        "started",
        "exited",
        "restarting",
        "started",
        "exited",
        "finished",
    ];
    assert_eq!(events(&run.log()), expected);
}

#[test]
fn delays_double_up_to_the_cap() {
    let options = [
        "--max-restarts",
        "4",
        "--backoff-factor",
        "0.02",
        "--max-backoff",
        "0.1",
    ];
    let (code, log) = Setup::scripted(&options, &["exit 9"]).finish();
    assert_eq!(code, 9);
    for (restart, delay) in [(1, "0.020s"), (2, "0.040s"), (3, "0.080s"), (4, "0.100s")] {
        let line = format!("restarting restart={restart}/4 delay={delay}");
        assert!(log.contains(&line), "{line} in {log}");
    }
}

/// The one test of the promise that the delay is kept: not shorter, and not much longer.
#[test]
fn the_delay_is_what_the_log_says() {
    let mut run = Setup::puppet(&["--backoff-factor", "0.5"]).start();
    run.ready();
    run.send("exit 1");
    let exited = run.logged(&["exited"]);
    let started = run.logged(&["started", "run=2"]);
    let delay = between(&exited, &started);
    assert!((0.499..1.5).contains(&delay), "{delay}");
}

#[test]
fn the_default_delay_is_one_second_and_there_is_no_limit() {
    let mut run = Setup::scripted(&[], &["exit 1"]).start();
    run.logged(&["restarting restart=1/unlimited delay=1.000s"]);
}

#[test]
fn without_a_factor_there_is_no_delay() {
    let options = ["--max-restarts", "50", "--backoff-factor", "0"];
    let (code, log) = Setup::scripted(&options, &["exit 2"]).finish();
    assert_eq!(code, 2);
    assert_eq!(log.matches("delay=0.000s").count(), 50);
    assert!(log.contains("finished code=2 runs=51"), "{log}");
}

#[test]
fn jitter_is_added_on_top_of_the_cap() {
    let options = [
        "--max-restarts",
        "10",
        "--backoff-factor",
        "0.1",
        "--max-backoff",
        "0.1",
        "--backoff-jitter",
        "1",
    ];
    let (_, log) = Setup::scripted(&options, &["exit 2"]).finish();
    let delays: Vec<f64> = log
        .lines()
        .filter(|line| line.contains("restarting"))
        .map(|line| field(line, "delay").trim_end_matches('s').parse().unwrap())
        .collect();
    assert_eq!(delays.len(), 10);
    assert!(
        delays.iter().all(|delay| (0.1..=0.2).contains(delay)),
        "{delays:?}"
    );
    assert!(delays.iter().any(|delay| *delay != delays[0]), "{delays:?}");
}

#[test]
fn a_run_of_reset_after_seconds_starts_the_count_again() {
    let options = [
        "--max-restarts",
        "1",
        "--backoff-factor",
        "0.01",
        "--reset-after",
        "0.3",
    ];
    let mut run = Setup::puppet(&options).start();
    for _ in 0..3 {
        run.ready();
        let_pass(Duration::from_millis(350));
        run.send("exit 1");
        run.logged(&["restarting restart=1/1"]);
    }
}

#[test]
fn after_the_last_restart_the_next_failure_gives_up() {
    let options = ["--max-restarts", "2", "--backoff-factor", "0"];
    let mut run = Setup::puppet(&options).start();
    for code in [5, 6, 7] {
        run.ready();
        run.send(&format!("exit {code}"));
    }
    assert_eq!(run.code(), 7);
    let log = run.log();
    assert!(
        log.contains("ERROR [SUPERVISOR] giving up restarts=2 code=7"),
        "{log}"
    );
    assert!(log.contains("finished code=7 runs=3"), "{log}");
}
