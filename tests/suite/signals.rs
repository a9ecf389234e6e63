//! Section 6: signals in every state, and in any number.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::*;

/// Kilobytes of memory that are the supervisor's alone.
fn dirty(pid: i32) -> i64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup
        .lines()
        .find(|line| line.starts_with("Private_Dirty:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

const FORWARDED: [Signal; 4] = [
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

fn storm(run: &Run) {
    for number in 0..10_000 {
        run.signal(FORWARDED[number % FORWARDED.len()]);
    }
}

#[test]
fn a_storm_of_signals_costs_no_memory_and_loses_no_stop_request() {
    let mut run = Setup::scripted(&["--log-level", "warn"], &["trap USR1 USR2"]).start();
    run.said("did trap");
    // Once before, so that what is needed for it is there.
    storm(&run);
    let pid = run.pid();
    let idle = |run: &mut Run| {
        run.tell("group");
        (dirty(pid), descriptors(pid))
    };
    let before = idle(&mut run);
    storm(&run);
    let after = idle(&mut run);
    assert!((after.0 - before.0).abs() <= 8, "{before:?} {after:?}");
    assert_eq!(before.1, after.1);
    // In the midst of another one.
    std::thread::scope(|scope| {
        let noise =
            scope.spawn(
                || {
                    while kill(Pid::from_raw(pid), Signal::SIGUSR1).is_ok() && alive(pid) {}
                },
            );
        run.signal(Signal::SIGTERM);
        noise.join().unwrap();
    });
    assert_eq!(run.code(), 0);
}

#[test]
fn a_storm_of_stop_requests_is_a_second_one_and_no_more() {
    let mut run = Setup::scripted(&["--grace-period", "1000"], &["trap TERM"]).start();
    run.said("did trap");
    for _ in 0..10_000 {
        if kill(Pid::from_raw(run.pid()), Signal::SIGTERM).is_err() || !alive(run.pid()) {
            break;
        }
    }
    assert_eq!(run.code(), 137);
    let log = run.log();
    assert_eq!(log.matches("killing").count(), 1, "{log}");
}

#[test]
fn while_the_command_is_stopping_signals_are_still_forwarded() {
    let mut run = Setup::scripted(&["--grace-period", "1000"], &["trap TERM USR2"]).start();
    run.said("did trap");
    run.signal(Signal::SIGTERM);
    run.said("got SIGTERM");
    run.signal(Signal::SIGUSR2);
    run.said("got SIGUSR2");
    run.send("exit 5");
    assert_eq!(run.code(), 0);
}

#[test]
fn a_stop_while_leftovers_are_cleared_ends_when_they_are_gone() {
    let options = ["--grace-period", "0.5", "--backoff-factor", "0"];
    let mut run = Setup::puppet(&options).start();
    run.ready();
    run.send("stubborn-child");
    let child = number_in(&run.said("deaf "));
    run.send("exit 1");
    run.logged(&["reason=leftovers"]);
    run.signal(Signal::SIGINT);
    run.logged(&["signal name=SIGINT action=stop"]);
    assert_eq!(run.code(), 130);
    assert!(!alive(child));
    assert!(run.log().contains("runs=1"));
}

#[test]
fn signals_that_come_while_it_starts_are_not_lost() {
    // From the first moment on: either it is the caller's signal still, or it is heard.
    for round in 0..30 {
        let run = Setup::puppet(&["--grace-period", "5"]).start();
        let pid = run.pid();
        assert!(eventually(|| handles(pid, Signal::SIGTERM)), "{round}");
        run.signal(Signal::SIGTERM);
        let mut run = run;
        assert_eq!(run.code(), 0, "{}", run.log());
        assert!(run.log().contains("finished code=0"));
    }
}
