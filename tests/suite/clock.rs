//! Section 3: only the monotonic clock decides.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::*;
use crate::heartbeat::{TIMEOUT, beating};
use crate::limits::with_faults;

/// libfaketime for programs with threads, where Debian puts it.
fn faketime() -> Option<PathBuf> {
    let places = fs::read_dir("/usr/lib").unwrap();
    let found = places
        .map(|place| place.unwrap().path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI is to have faketime");
        eprintln!("skipped: faketime is not installed");
    }
    found
}

/// Beats go on through `set`, and the hang after it is found when it is due.
fn changes_nothing(run: &mut Run, set: impl Fn(&mut Run, usize)) {
    run.ready();
    for step in 0..3 {
        for _ in 0..2 {
            run.tell("beat");
            let_pass(TIMEOUT.mul_f64(0.3));
        }
        set(run, step);
        run.tell("touch");
        let_pass(TIMEOUT.mul_f64(0.3));
    }
    let done = Instant::now();
    run.tell("beat");
    let late = run.hangs_after(done, TIMEOUT);
    assert!(late < TIMEOUT / 4, "noticed {late:?} late");
}

#[test]
fn a_wall_clock_set_by_a_day_changes_nothing() {
    let Some(library) = faketime() else { return };
    let setup = beating("4", &[]);
    let clock = setup.directory().join("clock");
    fs::write(&clock, "+0").unwrap();
    let mut run = setup
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        // What it is about is the clock, not the times of files.
        .env("NO_FAKE_STAT", "1")
        .start();
    let started = run.logged(&["started"]);
    changes_nothing(&mut run, |_, step| {
        fs::write(&clock, ["+1d", "-1d", "+1d"][step]).unwrap();
    });
    let last = run.log_so_far();
    let day = |line: &str| line[..10].to_owned();
    assert_ne!(
        day(&started),
        day(last.lines().last().unwrap()),
        "the clock was not set: {last}"
    );
}

/// While a device sleeps the clocks of the wall and of the boot go on, and the monotonic one stands
/// still (clock_gettime(2)): so does the deadline.
#[test]
fn time_that_the_device_slept_is_not_silence() {
    let mut run = with_faults(beating("4", &[])).start();
    let begun = Instant::now();
    let started = run.logged(&["started"]);
    changes_nothing(&mut run, |run, step| {
        // With the silence before it a little more than the timeout: too little to be excused as a
        // judge who comes late.
        let slept = 3 * (step + 1);
        fs::write(run.directory.join("slept"), slept.to_string()).unwrap();
        run.signal(Signal::SIGWINCH);
        run.logged(&["signal name=SIGWINCH"]);
    });
    let passed = begun.elapsed().as_secs_f64();
    let log = run.log_so_far();
    let slept = between(&started, log.lines().last().unwrap()) - passed;
    assert!((7.0..11.0).contains(&slept), "it slept {slept} s: {log}");
}

#[test]
fn file_times_far_from_now_are_beats_and_no_more() {
    let mut run = beating("4", &[]).start();
    changes_nothing(&mut run, |run, step| {
        let seconds = [1, 99_999_999_999_i64, 4_000_000_000][step];
        run.tell(&format!("touch-at {seconds}"));
        let_pass(Duration::from_millis(20));
    });
}
