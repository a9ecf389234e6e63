//! Section 3: what is a beat, what is none, and what becomes of a silent command.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::diagnose::hang;
use crate::harness::*;
use crate::tree::brood;

/// A puppet with a heartbeat `hb` in the test's directory.
pub fn beating(timeout: &str, more: &[&str]) -> Setup {
    let options = [
        "--enable-heartbeat",
        "--heartbeat-file",
        "hb",
        "--timeout",
        timeout,
    ];
    let options: Vec<_> = options.iter().chain(more).copied().collect();
    Setup::puppet(&options)
}

/// Long enough that a busy machine, which may be late by a tenth of it, changes no verdict.
pub const TIMEOUT: Duration = Duration::from_secs(4);

/// Whether `command`, done half a timeout after the launch, counts as a beat: then the timeout
/// counts from it, else from the launch. `before` is done at once.
fn is_beat(before: &[&str], command: &str) -> bool {
    let launched = Instant::now();
    let mut run = beating("4", &[]).start();
    run.ready();
    for command in before {
        run.tell(command);
    }
    let_pass(TIMEOUT / 2);
    let done = Instant::now();
    run.tell(command);
    // Its silence counts from the launch or from the command, which are half a timeout apart.
    let late = run.hangs_after(launched, TIMEOUT);
    let counted = late > TIMEOUT / 4;
    // Noticed when it happened, not only by the look at the deadline.
    assert!(
        late < TIMEOUT - TIMEOUT / 4,
        "noticed {late:?} after the launch"
    );
    assert!(!counted || done.elapsed() >= TIMEOUT, "early");
    counted
}

macro_rules! beats {
    ($($name:ident: $before:expr, $command:expr => $is:expr;)*) => {
        $(#[test] fn $name() { assert_eq!(is_beat(&$before, $command), $is); })*
    };
}

beats! {
    a_creation_is_a_beat: [], "beat" => true;
    a_write_is_a_beat: ["beat"], "beat" => true;
    an_append_is_a_beat: ["beat"], "append" => true;
    a_truncation_is_a_beat: ["beat"], "truncate" => true;
    a_touch_is_a_beat: ["beat"], "touch" => true;
    a_touch_into_the_past_is_a_beat: ["beat"], "touch-at 1000" => true;
    a_touch_into_the_future_is_a_beat: ["beat"], "touch-at 99999999999" => true;
    a_write_without_a_close_is_a_beat: ["poke"], "poke" => true;
    a_replacement_by_rename_is_a_beat: ["beat"], "rename" => true;
    a_second_replacement_by_rename_is_a_beat: ["beat", "rename", "rename"], "rename" => true;
    a_write_after_a_replacement_is_a_beat: ["beat", "rename"], "beat" => true;
    a_creation_after_a_removal_is_a_beat: ["beat", "delete"], "beat" => true;
    a_reading_is_no_beat: ["beat"], "read" => false;
    a_chmod_is_no_beat: ["beat"], "chmod" => false;
    a_removal_is_no_beat: ["beat"], "delete" => false;
    a_neighbours_file_is_no_beat: ["beat"], "neighbour" => false;
    a_neighbours_file_is_no_beat_while_ours_is_missing: [], "neighbour" => false;
}

#[test]
fn a_mode_that_changes_all_the_time_hides_no_hang() {
    let options = [
        "--enable-heartbeat",
        "--heartbeat-file",
        "hb",
        "--timeout",
        "4",
    ];
    let words = options.iter().map(OsString::from);
    let mut run = Setup::new(words.chain([hang().into(), "chmod".into()])).start();
    run.said("hung");
    let hung = Instant::now();
    let (at, _) = run.logged_at(&["heartbeat timeout pid"]);
    let after = at - hung;
    assert!(after < TIMEOUT * 3 / 2, "{after:?}");
}

/// A beating puppet whose file is a link; the link, and what it leads to.
pub fn linked(timeout: &str) -> (Setup, PathBuf, PathBuf) {
    let setup = beating(timeout, &[]);
    let [link, target] = ["hb", "target"].map(|name| setup.directory().join(name));
    fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    (setup, link, target)
}

#[test]
fn a_beat_through_a_symbolic_link_counts() {
    let (setup, _, target) = linked("4");
    let mut run = setup.start();
    run.ready();
    let_pass(TIMEOUT / 2);
    let done = Instant::now();
    fs::write(&target, "x").unwrap();
    let late = run.hangs_after(done, TIMEOUT);
    assert!(late < TIMEOUT / 4, "the watch was blind for {late:?}");
}

#[test]
fn a_file_made_again_while_the_watcher_slept_is_watched() {
    let mut run = beating("4", &[]).start();
    run.ready();
    run.tell("beat");
    // The watcher comes to see it when all is over: nothing was ever missing.
    run.signal(Signal::SIGSTOP);
    run.tell("delete");
    // After a moment the new file may even have the inode number of the old one.
    let_pass(Duration::from_millis(200));
    run.tell("beat");
    run.signal(Signal::SIGCONT);
    let_pass(TIMEOUT / 2);
    let done = Instant::now();
    run.tell("beat");
    let late = run.hangs_after(done, TIMEOUT);
    assert!(late < TIMEOUT / 4, "the watch was blind for {late:?}");
}

/// The one test of the promise 'never early, and late by at most 1 % and 10 ms'. Under load a
/// single try may be late, all five may not; early is wrong each time.
#[test]
fn a_hang_is_found_when_it_is_due() {
    let timeout = Duration::from_secs(1);
    let lateness = (0..5).map(|_| {
        let mut run = beating("1", &[]).start();
        run.ready();
        let before = Instant::now();
        run.tell("beat");
        let after = Instant::now();
        let (at, _) = run.logged_at(&["heartbeat timeout"]);
        assert!(at - before >= timeout, "early");
        (at - after).saturating_sub(timeout)
    });
    let best = lateness.min().unwrap();
    assert!(best <= Duration::from_millis(20), "{best:?} late");
}

#[test]
fn the_first_timeout_counts_from_the_initial_check_delay() {
    let mut run = beating("0.2", &["--initial-check-delay", "0.8"]).start();
    let started = run.logged(&["started"]);
    let found = run.logged(&["heartbeat timeout"]);
    let after = between(&started, &found);
    assert!(after >= 0.999, "{after}");
}

#[test]
fn a_file_left_over_from_before_is_no_sign_of_life() {
    let setup = beating("0.3", &[]);
    let file = setup.directory().join("hb");
    fs::write(&file, "old").unwrap();
    let future = std::time::SystemTime::now() + Duration::from_secs(86_400);
    fs::File::open(&file).unwrap().set_modified(future).unwrap();
    let mut run = setup.start();
    run.logged(&["heartbeat timeout"]);
    run.signal(Signal::SIGTERM);
    run.code();
    assert!(file.exists(), "it never beat, so it is not ours to remove");
}

#[test]
fn a_hung_command_is_restarted_even_if_it_exits_0_when_told_to() {
    let options = [
        "--enable-heartbeat",
        "--heartbeat-file",
        "hb",
        "--timeout",
        "0.2",
    ];
    let brood = brood().to_str().unwrap();
    let command = ["--backoff-factor", "0.01", brood, "heeds"];
    let words = options.iter().chain(&command);
    let mut run = Setup::new(words).start();
    run.logged(&["INFO", "exited", "code=0"]);
    run.logged(&["restarting restart=1/unlimited"]);
    run.logged(&["started", "run=2"]);
}

#[test]
fn giving_up_on_a_hang_answers_124() {
    let mut run = beating("0.1", &["--max-restarts", "1", "--backoff-factor", "0.01"]).start();
    assert_eq!(run.code(), 124);
    assert!(run.log().contains("giving up restarts=1 code=124"));
}

#[test]
fn a_command_that_is_stopped_from_outside_is_silent_and_can_still_be_ended() {
    let options = ["--backoff-factor", "0.01", "--grace-period", "2"];
    let mut run = beating("0.5", &options).start();
    let pid = run.ready();
    run.tell("trap TERM");
    run.tell("beat");
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    run.logged(&["heartbeat timeout"]);
    // It can answer SIGTERM only when it is continued.
    run.said("got SIGTERM");
    run.ready();
}

#[test]
fn beats_that_wait_are_taken_before_the_deadline_is_judged() {
    let mut run = beating("5", &[]).start();
    run.ready();
    run.tell("trap USR1");
    let launched = Instant::now();
    // Across the deadline, by less than the tenth of the timeout that would be excused anyway.
    let_pass(Duration::from_millis(4700));
    run.signal(Signal::SIGSTOP);
    run.tell("beat");
    let_pass(Duration::from_millis(5200).saturating_sub(launched.elapsed()));
    run.signal(Signal::SIGCONT);
    run.signal(Signal::SIGUSR1);
    run.logged(&["signal name=SIGUSR1"]);
    run.said("got SIGUSR1");
    run.send("exit 0");
    assert_eq!(run.code(), 0);
    assert!(!run.log().contains("heartbeat timeout"));
}

#[test]
fn what_was_frozen_together_with_us_gets_one_more_timeout() {
    let mut run = beating("1", &[]).start();
    let pid = run.ready();
    run.tell("beat");
    let command = Pid::from_raw(pid);
    run.signal(Signal::SIGSTOP);
    kill(command, Signal::SIGSTOP).unwrap();
    let_pass(Duration::from_secs(3));
    kill(command, Signal::SIGCONT).unwrap();
    run.signal(Signal::SIGCONT);
    let thawed = Instant::now();
    let (at, _) = run.logged_at(&["heartbeat timeout"]);
    let after = at - thawed;
    assert!(after >= Duration::from_millis(990), "{after:?}");
    assert!(
        after < Duration::from_secs(2),
        "{after:?}: hung, and found within two timeouts"
    );
}

#[test]
fn the_command_finds_file_and_timeout_in_its_environment() {
    let mut run = beating("0.25", &[]).start();
    run.ready();
    run.send("env HEARTBEAT_FILE");
    let file = fs::canonicalize(run.directory.path()).unwrap().join("hb");
    let told = run.said("env HEARTBEAT_FILE");
    let told = told.strip_prefix("env HEARTBEAT_FILE=").unwrap().to_owned();
    assert_eq!(
        fs::canonicalize(Path::new(&told).parent().unwrap())
            .unwrap()
            .join("hb"),
        file
    );
    assert!(told.starts_with('/'), "{told}");
    run.send("env HEARTBEAT_TIMEOUT");
    assert!(run.said("env HEARTBEAT_TIMEOUT").ends_with("=0.25"));

    let mut run = Setup::puppet(&[]).start();
    run.ready();
    run.send("env HEARTBEAT_FILE");
    assert!(run.said("env HEARTBEAT_FILE").ends_with("unset"));
    run.send("env HEARTBEAT_TIMEOUT");
    assert!(run.said("env HEARTBEAT_TIMEOUT").ends_with("unset"));
}

#[test]
fn the_default_file_is_heartbeat_txt_here() {
    let mut run = Setup::puppet(&["--enable-heartbeat"]).start();
    run.ready();
    run.tell("beat");
    assert!(run.directory.join("heartbeat.txt").exists());
}
