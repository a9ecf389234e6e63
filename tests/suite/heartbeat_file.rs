//! Section 3: the file itself, the claim to it, and what stands in its way.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::*;
use crate::heartbeat::{TIMEOUT, beating, linked};

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

/// Exit code and log of a supervisor of `true` on this file.
fn true_on(file: &Path) -> (i32, String) {
    let options = ["--enable-heartbeat", "--heartbeat-file"].map(OsStr::new);
    let words = options
        .into_iter()
        .chain([file.as_os_str(), OsStr::new("true")]);
    Setup::new(words).finish()
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
    let (setup, link, target) = linked("20");
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
        let (code, said) = true_on(&spelling);
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
    let (code, log) = true_on(&file);
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
    first.tell("beat");
    let file = first.directory.join("hb");
    let named = [
        "--enable-heartbeat",
        "--heartbeat-file",
        file.to_str().unwrap(),
    ];
    let mut second = Setup::puppet(&named).start();
    second.ready();
    first.send("exit 0");
    assert_eq!(first.code(), 0);
    assert!(lock.exists() && file.exists());
    second.send("exit 0");
    assert_eq!(second.code(), 0);
    assert!(!lock.exists());
}

#[test]
fn a_file_in_a_directory_that_was_made_anew_is_removed_too() {
    let script = "rm -r d; mkdir d; echo > $HEARTBEAT_FILE";
    let options = ["--enable-heartbeat", "--heartbeat-file=d/hb"];
    let setup = Setup::new(options.into_iter().chain(["sh", "-c", script]));
    let directory = setup.directory().join("d");
    fs::create_dir(&directory).unwrap();
    let mut run = setup.start();
    assert_eq!(run.code(), 0);
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0, "{}", run.log());
}

#[test]
fn a_directory_that_can_not_be_written_costs_the_guard_and_one_warning() {
    let options = ["--enable-heartbeat", "--heartbeat-file=hb"];
    let words = options
        .iter()
        .chain(&["sh", "-c", "echo > $HEARTBEAT_FILE"]);
    let Some(setup) = Setup::as_user(65534, "", words) else {
        return;
    };
    let file = setup.directory().join("hb");
    fs::write(&file, "").unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
    let (code, log) = setup.finish();
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
        let (code, log) = true_on(&file);
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
    let late = run.hangs_after(done, TIMEOUT);
    assert!(late < TIMEOUT / 4, "the watch was blind for {late:?}");
}

/// A puppet whose supervisor is refused an inotify instance: none is allowed in a user namespace
/// of its own (namespaces(7), /proc/sys/user).
fn without_events(timeout: &str) -> Run {
    let options = [
        "--enable-heartbeat",
        "--heartbeat-file=hb",
        "--timeout",
        timeout,
    ];
    let limit = "echo 0 > /proc/sys/user/max_inotify_instances";
    Setup::inside(limit, options.iter().chain(&[puppet().to_str().unwrap()])).start()
}

#[test]
fn without_events_one_look_per_deadline_decides() {
    let mut run = without_events("1");
    run.logged(&[
        "WARN",
        "heartbeat events can't be had",
        "one look at the file per deadline",
        "fs.inotify.max_user_instances",
    ]);
    run.ready();
    for _ in 0..8 {
        run.tell("beat");
        let_pass(Duration::from_millis(400));
    }
    let before = Instant::now();
    run.tell("beat");
    let late = run.hangs_after(before, Duration::from_secs(1));
    assert!(
        late < Duration::from_millis(1250),
        "at most one timeout: {late:?}"
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
        let (code, log) = true_on(Path::new(&file));
        assert_eq!(code, 0);
        let told = log.contains("INFO [SUPERVISOR] heartbeat file is not in memory");
        assert_eq!(told, mentioned, "{log}");
    }
}
