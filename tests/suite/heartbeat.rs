//! Section 3: what is a beat, what is none, and what becomes of a silent command.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::*;

/// A puppet with a heartbeat `hb` in the test's directory.
fn beating(timeout: &str, more: &[&str]) -> Setup {
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
const TIMEOUT: Duration = Duration::from_secs(4);

/// Whether `command`, done half a timeout after the launch, counts as a beat: then the timeout
/// counts from it, else from the launch. `before` is done at once.
fn is_beat(before: &[&str], command: &str) -> bool {
    let mut run = beating("4", &[]).start();
    run.ready();
    for command in before {
        run.tell(command);
    }
    let launched = Instant::now();
    let_pass(TIMEOUT / 2);
    let done = Instant::now();
    run.tell(command);
    let (at, line) = run.logged_at(&["heartbeat timeout"]);
    let counted = at - done >= TIMEOUT;
    let silent: f64 = field(&line, "silent")
        .trim_end_matches('s')
        .parse()
        .unwrap();
    assert!(silent >= TIMEOUT.as_secs_f64(), "{line}");
    // Noticed when it happened, not only by the look at the deadline.
    let from = if counted { done } else { launched };
    assert!(at - from < TIMEOUT + TIMEOUT / 4, "{:?}", at - from);
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
fn a_beat_through_a_symbolic_link_counts() {
    let setup = beating("4", &[]);
    let (link, target) = (
        setup.directory().join("hb"),
        setup.directory().join("target"),
    );
    fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let mut run = setup.start();
    run.ready();
    let_pass(TIMEOUT / 2);
    let done = Instant::now();
    fs::write(&target, "x").unwrap();
    let (at, _) = run.logged_at(&["heartbeat timeout"]);
    assert!(at - done >= TIMEOUT);
    assert!(at - done < TIMEOUT + TIMEOUT / 4, "found in time");
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
    let (at, _) = run.logged_at(&["heartbeat timeout"]);
    assert!(at - done >= TIMEOUT, "{:?}", at - done);
    assert!(at - done < TIMEOUT + TIMEOUT / 4, "the watch was blind");
}

#[test]
fn a_beat_that_no_event_announced_is_found_by_the_last_look() {
    let setup = beating("1", &[]);
    let file = |name: &str| setup.directory().join(name);
    let (link, new) = (file("hb"), file("new"));
    for (name, target) in [("hb", "first"), ("new", "second")] {
        fs::write(file(target), "").unwrap();
        std::os::unix::fs::symlink(file(target), file(name)).unwrap();
    }
    let mut run = setup.start();
    run.ready();
    let (started, _) = run.logged_at(&["started"]);
    // The watch is on the file behind the link, which does not notice that the link is replaced.
    fs::rename(new, link).unwrap();
    let (at, _) = run.logged_at(&["heartbeat timeout"]);
    assert!(
        at - started >= Duration::from_millis(1990),
        "{:?}",
        at - started
    );
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
    let (started, _) = run.logged_at(&["started"]);
    let (at, _) = run.logged_at(&["heartbeat timeout"]);
    assert!(
        at - started >= Duration::from_millis(990),
        "{:?}",
        at - started
    );
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
    let script = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let command = ["--backoff-factor", "0.01", "sh", "-c", script];
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

#[test]
fn a_file_that_beat_is_removed_at_the_end_and_the_lock_too() {
    let mut run = beating("20", &[]).start();
    run.ready();
    run.tell("beat");
    assert!(run.directory.join(".hb.lock").exists());
    run.send("exit 0");
    assert_eq!(run.code(), 0);
    let left: Vec<_> = fs::read_dir(run.directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_last_beat_that_nobody_had_the_time_to_notice_still_makes_the_file_ours() {
    let options = ["--enable-heartbeat", "--heartbeat-file", "hb"];
    let words = options.iter().chain(&["sh", "-c", ": > hb"]);
    let mut run = Setup::new(words).start();
    assert_eq!(run.code(), 0);
    assert!(!run.directory.join("hb").exists());
}

#[test]
fn of_a_symbolic_link_only_the_link_is_removed() {
    let setup = beating("20", &[]);
    let (link, target) = (
        setup.directory().join("hb"),
        setup.directory().join("target"),
    );
    fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let mut run = setup.start();
    run.ready();
    run.tell("beat");
    run.send("exit 0");
    assert_eq!(run.code(), 0);
    assert!(target.exists() && fs::symlink_metadata(&link).is_err());
}

#[test]
fn a_second_supervisor_on_the_same_file_is_refused() {
    let mut first = beating("20", &[]).start();
    first.ready();
    let directory = first.directory.path();
    let name = directory.file_name().unwrap();
    for spelling in [
        directory.join("hb"),
        directory.join("../").join(name).join("./hb"),
    ] {
        let words = [
            "--enable-heartbeat",
            "--heartbeat-file",
            spelling.to_str().unwrap(),
            "true",
        ];
        let (code, said) = Setup::new(words).finish();
        assert_eq!(code, 125);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("supervisor: "), "{said}");
        assert!(said.contains(&format!("pid {}", first.pid())), "{said}");
    }
    assert!(
        directory.join(".hb.lock").exists(),
        "it is still the first one's"
    );
    first.send("exit 0");
    assert_eq!(first.code(), 0);
}

#[test]
fn a_lock_left_by_a_killed_supervisor_holds_nobody_up() {
    let setup = beating("20", &[]);
    let file = setup.directory().join("hb");
    let mut killed = setup.start();
    let pid = killed.ready();
    killed.signal(Signal::SIGKILL);
    assert_eq!(killed.code(), 1009);
    let lock = killed.directory.join(".hb.lock");
    assert!(lock.exists());
    let words = [
        "--enable-heartbeat",
        "--heartbeat-file",
        file.to_str().unwrap(),
        "true",
    ];
    let (code, log) = Setup::new(words).finish();
    assert_eq!(code, 0, "{log}");
    assert!(!lock.exists());
    gone(pid);
}

#[test]
fn the_lock_is_for_its_owner_only_and_a_later_one_is_anothers() {
    let mut first = beating("20", &[]).start();
    first.ready();
    let lock = first.directory.join(".hb.lock");
    let mode = fs::metadata(&lock).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // As if the directory had been made anew, and another supervisor had come.
    fs::remove_file(&lock).unwrap();
    fs::write(&lock, "").unwrap();
    first.send("exit 0");
    assert_eq!(first.code(), 0);
    assert!(lock.exists());
}

#[test]
fn a_directory_that_can_not_be_written_costs_the_guard_and_one_warning() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it takes root to become somebody else");
        assert!(std::env::var_os("CI").is_none(), "CI is to run it as root");
        return;
    }
    let directory = Directory::new();
    let program = directory.join("supervisor");
    fs::copy(supervisor(), &program).unwrap();
    fs::write(directory.join("hb"), "").unwrap();
    fs::set_permissions(directory.join("hb"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let python = "import os, sys; os.setuid(65534); os.execv(sys.argv[1], sys.argv[1:])";
    let file = directory.join("hb");
    let words = [
        "-c",
        python,
        program.to_str().unwrap(),
        "--enable-heartbeat",
        "--heartbeat-file",
        file.to_str().unwrap(),
        "sh",
        "-c",
        "echo > \"$HEARTBEAT_FILE\"",
    ];
    let (code, log) = Setup::of("python3".as_ref(), words).finish();
    assert_eq!(code, 0, "{log}");
    assert_eq!(
        log.matches("not guarded against a second supervisor")
            .count(),
        1
    );
    let warned = log.find("heartbeat file not removed").expect(&log);
    assert!(
        warned < log.find("finished code=0").unwrap(),
        "the last line is the last: {log}"
    );
    assert_eq!(log.lines().count(), log.matches("[SUPERVISOR]").count());
}

#[test]
fn a_file_whose_mode_alone_changed_is_not_ours_to_remove() {
    for _ in 0..20 {
        let setup = Setup::new([
            "--enable-heartbeat",
            "--heartbeat-file",
            "hb",
            "chmod",
            "600",
            "hb",
        ]);
        let file = setup.directory().join("hb");
        fs::write(&file, "precious").unwrap();
        let mut run = setup.start();
        assert_eq!(run.code(), 0);
        assert!(file.exists());
    }
}

/// Killed at any moment, also between a fork and its exec.
#[test]
fn a_supervisor_that_is_killed_while_it_restarts_leaves_no_lock_behind() {
    for round in 0..30 {
        let options = [
            "--enable-heartbeat",
            "--heartbeat-file",
            "hb",
            "--backoff-factor",
            "0",
        ];
        let mut killed = Setup::new(options.iter().chain(&["false"])).start();
        killed.logged(&["started", "run=3"]);
        let_pass(Duration::from_micros(round * 137));
        killed.signal(Signal::SIGKILL);
        assert_eq!(killed.code(), 1009);
        let file = killed.directory.join("hb");
        let words = [
            "--enable-heartbeat",
            "--heartbeat-file",
            file.to_str().unwrap(),
            "true",
        ];
        let (code, log) = Setup::new(words).finish();
        assert_eq!(code, 0, "{log}");
    }
}

/// A Python program that does `body` for five seconds, under a timeout of two.
fn survives(file: &str, body: &str) {
    let program = format!(
        "import os, shutil, time\n\
         end = time.monotonic() + 5\n\
         while time.monotonic() < end:\n    {body}"
    );
    let options = [
        "--enable-heartbeat",
        "--timeout",
        "2",
        "--max-restarts",
        "0",
    ];
    let command = ["--heartbeat-file", file, "python3", "-c", &program];
    let (code, log) = Setup::new(options.iter().chain(&command)).finish();
    assert_eq!(code, 0, "{log}");
}

#[test]
fn beats_count_while_the_directory_is_removed_and_made_again() {
    let body = "shutil.rmtree('d', True); os.mkdir('d'); open('d/hb', 'w').close()";
    survives("d/hb", body);
}

#[test]
fn files_that_are_made_and_removed_at_once_are_beats() {
    survives(
        "hb",
        "open('hb', 'w').close(); os.remove('hb'); time.sleep(0.2)",
    );
}

#[test]
fn a_lock_is_never_followed_through_a_link() {
    let setup = beating("20", &[]);
    let (lock, precious) = (
        setup.directory().join(".hb.lock"),
        setup.directory().join("precious"),
    );
    std::os::unix::fs::symlink(&precious, &lock).unwrap();
    let mut run = setup.start();
    run.logged(&["WARN", "not guarded against a second supervisor"]);
    run.ready();
    run.send("exit 0");
    assert_eq!(run.code(), 0);
    assert!(!precious.exists(), "made through the link");
}

#[test]
fn a_missing_directory_is_waited_for() {
    let options = [
        "--enable-heartbeat",
        "--heartbeat-file",
        "a/b/c/d/e/f/hb",
        "--timeout",
        "4",
    ];
    let mut run = Setup::puppet(&options).start();
    run.logged(&[
        "WARN",
        "not guarded against a second supervisor",
        "a/b/c/d/e/f/hb",
    ]);
    run.ready();
    fs::create_dir_all(run.directory.join("a/b/c/d/e/f")).unwrap();
    run.tell("beat");
    let_pass(TIMEOUT / 2);
    let done = Instant::now();
    run.tell("beat");
    let (at, _) = run.logged_at(&["heartbeat timeout"]);
    assert!(at - done >= TIMEOUT);
    assert!(at - done < TIMEOUT + TIMEOUT / 4, "found in time");
}

/// A puppet whose supervisor is refused an inotify instance: none is allowed in a user namespace
/// of its own (namespaces(7), /proc/sys/user).
fn without_events(timeout: &str) -> Run {
    let limit = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let (program, command) = (supervisor().to_str().unwrap().to_owned(), puppet());
    let words = [
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        limit,
        "sh",
        &program,
        "--enable-heartbeat",
        "--heartbeat-file=hb",
        "--timeout",
        timeout,
        command.to_str().unwrap(),
    ];
    Setup::of("unshare".as_ref(), words).start()
}

#[test]
fn without_events_one_look_per_deadline_decides() {
    let mut run = without_events("1");
    run.logged(&[
        "WARN",
        "heartbeat events can't be had",
        "one look at the file per deadline",
    ]);
    run.ready();
    for _ in 0..8 {
        run.tell("beat");
        let_pass(Duration::from_millis(400));
    }
    let before = Instant::now();
    run.tell("beat");
    let (at, _) = run.logged_at(&["heartbeat timeout"]);
    let late = (at - before).saturating_sub(Duration::from_secs(1));
    assert!(at - before >= Duration::from_secs(1), "early");
    assert!(
        late < Duration::from_millis(1500),
        "{late:?}: at most one timeout late"
    );
    run.signal(Signal::SIGTERM);
    run.code();
    let log = run.log();
    assert_eq!(log.matches("events can't be had").count(), 1, "{log}");
    assert_eq!(log.matches("heartbeat timeout pid").count(), 1, "{log}");
}

#[test]
fn without_events_a_beat_of_the_run_before_does_not_count_for_the_next() {
    let mut run = without_events("3");
    run.ready();
    run.tell("beat");
    run.send("exit 1");
    run.ready();
    run.logged(&["heartbeat timeout"]);
    let line = run.logged(&["exited"]);
    let uptime: f64 = field(&line, "uptime")
        .trim_end_matches('s')
        .parse()
        .unwrap();
    assert!((3.0..4.5).contains(&uptime), "{line}");
}

#[test]
fn a_file_on_a_disk_is_mentioned_and_one_in_memory_is_not() {
    for (path, mentioned) in [("/dev/shm", false), (env!("CARGO_TARGET_TMPDIR"), true)] {
        let file = format!("{path}/supervisor-test-{}", std::process::id());
        let words = ["--enable-heartbeat", "--heartbeat-file", &file, "true"];
        let (code, log) = Setup::new(words).finish();
        assert_eq!(code, 0);
        let told = log.contains("INFO [SUPERVISOR] heartbeat file is not in memory");
        assert_eq!(told, mentioned, "{log}");
    }
}
