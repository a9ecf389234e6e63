//! Section 7: the log's lines, and that a log which can't be written stops nothing.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};

use nix::sys::signal::Signal;

use crate::harness::*;

/// `2026-11-23T10:00:00.123Z`, with digits where digits belong.
fn is_stamp(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00T00:00:00.000Z"
}

#[test]
fn every_line_has_stamp_level_prefix_event_and_fields() {
    let options = ["--max-restarts", "1", "--backoff-factor", "0.01"];
    let (_, log) = Setup::new(options.iter().chain(&["sh", "-c", "exit 3"])).finish();
    let lines: Vec<_> = log.lines().collect();
    let expected = [
        ("INFO", "started pid=# run=1 command=\"sh -c exit 3\""),
        ("WARN", "exited pid=# code=3 uptime=#.#s"),
        ("INFO", "restarting restart=1/1 delay=0.010s"),
        ("INFO", "started pid=# run=2 command=\"sh -c exit 3\""),
        ("WARN", "exited pid=# code=3 uptime=#.#s"),
        ("ERROR", "giving up restarts=1 code=3"),
        ("INFO", "finished code=3 runs=2 uptime=#.#s"),
    ];
    assert_eq!(lines.len(), expected.len(), "{log}");
    for (line, (level, event)) in lines.iter().zip(expected) {
        let (stamp, rest) = line.split_once(' ').unwrap();
        assert!(is_stamp(stamp), "{line}");
        let prefix = format!("{level} [SUPERVISOR] ");
        let text = rest
            .strip_prefix(&prefix)
            .unwrap_or_else(|| panic!("{line}"));
        let words: Vec<_> = text.split(' ').zip(event.split(' ')).collect();
        assert_eq!(words.len(), event.split(' ').count(), "{line}");
        for (word, wanted) in words {
            match wanted.split_once('#') {
                None => assert_eq!(word, wanted, "{line}"),
                Some((key, _)) => {
                    let value = word.strip_prefix(key).unwrap_or_else(|| panic!("{line}"));
                    assert!(value.trim_end_matches('s').parse::<f64>().is_ok(), "{line}");
                }
            }
        }
    }
}

#[test]
fn the_events_of_a_hang_and_of_a_stop() {
    let options = [
        "--enable-heartbeat",
        "--heartbeat-file",
        "hb",
        "--timeout",
        "0.2",
        "--grace-period",
        "0.2",
        "--backoff-factor",
        "0.01",
    ];
    let mut run = Setup::scripted(&options, &["trap TERM"]).start();
    let pid = run.ready();
    let line = run.logged(&["WARN", "heartbeat timeout"]);
    assert_eq!(field(&line, "pid"), pid.to_string());
    assert_eq!(field(&line, "timeout"), "0.200s");
    let silent: f64 = field(&line, "silent")
        .trim_end_matches('s')
        .parse()
        .unwrap();
    assert!(silent >= 0.2, "{line}");
    run.logged(&[
        "INFO",
        "stopping",
        "reason=\"heartbeat timeout\" grace=0.200s",
    ]);
    run.logged(&["WARN", "killing", &format!("pid={pid} processes=1")]);
    run.logged(&["WARN", "exited", "signal=SIGKILL"]);
    run.logged(&["INFO", "restarting restart=1/unlimited"]);
    run.logged(&["started", "run=2"]);
    run.signal(Signal::SIGTERM);
    run.logged(&["INFO", "signal name=SIGTERM action=stop"]);
    run.logged(&["INFO", "stopping", "reason=SIGTERM"]);
    run.code();
    let log = run.log();
    let last = log.lines().last().unwrap();
    assert!(last.contains("INFO [SUPERVISOR] finished code="), "{last}");
}

#[test]
fn no_name_can_forge_a_line() {
    let forged = "x\n2026-11-23T10:00:00.123Z INFO [SUPERVISOR] finished code=0";
    let (code, log) = Setup::new(["sh", "-c", ":", "\x1b[2Jx", "a\"b", forged]).finish();
    assert_eq!(code, 0);
    let line = log.lines().next().unwrap();
    let shown = r#"command="sh -c : \x1b[2Jx a\"b x\n2026-11-23T10:00:00.123Z INFO [SUPERVISOR] finished code=0""#;
    assert!(line.ends_with(shown), "{line}");
    assert_eq!(log.lines().count(), 3, "{log}");
}

#[test]
fn a_line_is_one_write_and_no_longer_than_a_pipe_takes_at_once() {
    // A datagram socket keeps writes apart.
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let long = "\x01".repeat(5000);
    let words = ["sh", "-c", "exec 2>/dev/null; exit 0", &long];
    let mut run = Setup::new(words).stderr(OwnedFd::from(theirs)).start();
    assert_eq!(run.code(), 0);
    ours.set_nonblocking(true).unwrap();
    let mut buffer = [0; 65536];
    let mut writes = 0;
    while let Ok(length) = ours.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(length <= 4096, "{length} bytes");
        assert!(is_stamp(&text[..24]), "{text}");
        assert_eq!(text.find('\n'), Some(text.len() - 1), "{text}");
        writes += 1;
    }
    assert_eq!(writes, 3);
}

#[test]
fn the_level_decides_what_is_told() {
    for (level, lines) in [("debug", 7), ("info", 7), ("warn", 3), ("error", 1)] {
        let options = [
            "--log-level",
            level,
            "--max-restarts",
            "1",
            "--backoff-factor",
            "0",
        ];
        let (code, log) = Setup::new(options.iter().chain(&["false"])).finish();
        assert_eq!(code, 1);
        assert_eq!(log.lines().count(), lines, "{level}: {log}");
    }
}

#[test]
fn a_log_file_is_appended_to_and_stderr_is_left_to_the_command() {
    let setup = Setup::new(["--log-file", "log", "sh", "-c", "echo mine >&2"]);
    let file = setup.directory().join("log");
    fs::write(&file, "before\n").unwrap();
    let (code, stderr) = {
        let mut run = setup.start();
        let code = run.code();
        let log = fs::read_to_string(&file).unwrap();
        assert!(log.starts_with("before\n"), "{log}");
        assert_eq!(events(&log), ["started", "exited", "finished"]);
        (code, run.log())
    };
    assert_eq!((code, stderr.as_str()), (0, "mine\n"));
}

#[test]
fn a_log_file_that_was_rotated_is_followed_without_a_signal() {
    let setup = Setup::puppet(&["--log-file", "d/log"]);
    fs::create_dir(setup.directory().join("d")).unwrap();
    let mut run = setup.start();
    run.ready();
    let log = |name: &str| run.directory.join(name);
    let read = |name: &str| fs::read_to_string(log(name)).unwrap_or_default();
    // The directory too, and a place where there can be no file: nothing is lost, where it was is gone on.
    let kept = |signal: Signal, name: &str, events: usize| {
        run.signal(signal);
        let there = || read(name).matches("signal name=").count() == events;
        assert!(eventually(there), "{name}: {}", read(name));
    };
    kept(Signal::SIGCONT, "d/log", 1);
    fs::rename(log("d/log"), log("d/log.1")).unwrap();
    kept(Signal::SIGCONT, "d/log", 1);
    assert_eq!(read("d/log.1").lines().count(), 2);
    fs::rename(log("d"), log("e")).unwrap();
    kept(Signal::SIGCONT, "e/log", 2);
    fs::create_dir_all(log("d/log")).unwrap();
    kept(Signal::SIGCONT, "e/log", 3);
    fs::remove_dir(log("d/log")).unwrap();
    kept(Signal::SIGCONT, "d/log", 1);
}

#[test]
fn logrotate_needs_to_send_nobody_a_signal() {
    if !there_is("logrotate") {
        return;
    }
    let mut run = Setup::puppet(&["--log-file", "web.log"]).start();
    run.ready();
    let directory = run.directory.path().to_owned();
    let log = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    assert!(eventually(|| log("web.log").contains("started")));
    let recipe = fs::read_to_string(project("scripts/recipes/logrotate/supervisor-fleet")).unwrap();
    let recipe = recipe.replace("/var/log/supervisor-fleet", directory.to_str().unwrap());
    let (configuration, state) = (directory.join("conf"), directory.join("state"));
    fs::write(&configuration, recipe).unwrap();
    fs::set_permissions(&configuration, fs::Permissions::from_mode(0o644)).unwrap();
    let mut rotate = std::process::Command::new("logrotate");
    rotate.arg("--force").arg("--state").arg(state);
    rotate.arg(configuration);
    let output = rotate.output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    assert!(directory.join("web.log.1.gz").exists());
    assert!(!directory.join("web.log").exists());
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
    assert!(log("web.log").contains("finished"));
}

#[test]
fn colours_are_for_terminals_without_no_color() {
    let (_, log) = Setup::new(["--max-restarts", "0", "false"]).finish();
    assert!(!log.contains('\x1b'), "a pipe is no terminal: {log}");
    for (no_color, coloured) in [(None, true), (Some("1"), false), (Some(""), true)] {
        let python =
            "import os, pty, sys\nsys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let program = supervisor().to_str().unwrap();
        let words = ["-c", python, program, "--max-restarts", "0", "false"];
        let mut setup = Setup::of("python3".as_ref(), words);
        if let Some(value) = no_color {
            setup = setup.env("NO_COLOR", value);
        }
        let mut run = setup.start();
        assert_eq!(run.code(), 1);
        let seen = run.output();
        assert!(seen.contains("giving up"), "{seen}");
        assert_eq!(
            seen.contains("\x1b[31mERROR\x1b[0m"),
            coloured,
            "{no_color:?}: {seen}"
        );
    }
}

/// Crashes are restarted and the right code comes out, whatever becomes of the log.
fn assert_supervises(shell_end: &str) {
    let script = format!("exec \"$0\" --max-restarts 3 --backoff-factor 0.01 \"$@\" {shell_end}");
    let words = [
        "-c".into(),
        script,
        supervisor().to_str().unwrap().to_owned(),
        "sh".into(),
        "-c".into(),
        "echo run; exit 5".into(),
    ];
    let mut run = Setup::of("sh".as_ref(), words).start();
    assert_eq!(run.code(), 5, "{shell_end}");
    assert_eq!(run.output(), "run\n".repeat(4), "{shell_end}");
}

#[test]
fn a_closed_stderr_stops_nothing() {
    assert_supervises("2>&-");
}

#[test]
fn a_full_disk_stops_nothing() {
    assert_supervises("2>/dev/full");
}

/// RLIMIT_FSIZE raises SIGXFSZ, which kills whoever does not expect it.
#[test]
fn a_log_that_may_not_grow_stops_nothing_and_the_command_has_its_sigxfsz() {
    let script = "ulimit -f 1; exec \"$0\" --log-file log --max-restarts 100 --backoff-factor 0 \
        grep -c 'SigIgn.*[1357]......$' /proc/self/status";
    let words = ["-c", script, supervisor().to_str().unwrap()];
    let mut run = Setup::of("sh".as_ref(), words).start();
    // grep finds no ignored SIGXFSZ (bit 24) and exits 1, a hundred times.
    assert_eq!(run.code(), 1);
    assert_eq!(run.output(), "0\n".repeat(101));
    assert!(fs::metadata(run.directory.join("log")).unwrap().len() <= 1024);
}

#[test]
fn a_log_file_on_a_full_disk_stops_nothing() {
    let options = [
        "--log-file",
        "/dev/full",
        "--max-restarts",
        "1",
        "--backoff-factor",
        "0",
    ];
    let (code, _) = Setup::scripted(&options, &["exit 6"]).finish();
    assert_eq!(code, 6);
}

#[test]
fn the_journal_is_told_the_priority_of_each_line_and_nobody_else() {
    for (which, prefixes) in [(0, ["<6>", "<4>", "<3>", "<6>"]), (1, ["20"; 4])] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let found = nix::sys::stat::fstat(&theirs).unwrap();
        let stream = format!("{}:{}", found.st_dev, found.st_ino + which);
        let mut run = Setup::scripted(&["--max-restarts", "0"], &["exit 7"])
            .env("JOURNAL_STREAM", stream)
            .stderr(OwnedFd::from(theirs))
            .start();
        assert_eq!(run.code(), 7);
        let log = std::io::read_to_string(ours).unwrap();
        assert_eq!(log.lines().count(), 4, "{log}");
        for (line, prefix) in log.lines().zip(prefixes) {
            assert!(line.starts_with(prefix), "{log}");
        }
    }
}

#[test]
fn a_reader_that_went_away_stops_nothing() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let options = ["--max-restarts", "2", "--backoff-factor", "0"];
    let mut run = Setup::scripted(&options, &["exit 7"])
        .stderr(OwnedFd::from(theirs))
        .start();
    drop(ours);
    assert_eq!(run.code(), 7);
    // The same for a pipe: EPIPE, and no SIGPIPE.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut run = Setup::scripted(&options, &["exit 8"])
        .stderr(writer)
        .start();
    drop(reader);
    assert_eq!(run.code(), 8);
}

#[test]
fn lines_that_were_lost_are_counted_when_the_log_flows_again() {
    // A FIFO whose reader goes away and comes back.
    let setup = Setup::new(["--log-file", "fifo", "--backoff-factor", "0.01", "./script"]);
    let file = |name: &str| setup.directory().join(name);
    let (fifo, script, runs, mark) = (file("fifo"), file("script"), file("runs"), file("go"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    write_script(
        &script,
        "#!/bin/sh\necho run >> runs\n[ -e go ] || exit 1\n",
    );
    let open = || {
        let mut options = fs::OpenOptions::new();
        options.read(true).custom_flags(nix::libc::O_NONBLOCK);
        options.open(&fifo).unwrap()
    };
    let run_count = || {
        fs::read_to_string(&runs)
            .unwrap_or_default()
            .lines()
            .count()
    };
    let reader = open();
    let mut run = setup.start();
    assert!(eventually(|| run_count() >= 1));
    drop(reader);
    let before = run_count();
    assert!(eventually(|| run_count() > before + 2));
    let mut reader = open();
    fs::write(&mark, "").unwrap();
    assert_eq!(run.code(), 0);
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    let told = log
        .lines()
        .find(|line| line.contains("WARN [SUPERVISOR] log lines dropped count="));
    let count: u32 = field(told.unwrap(), "count").parse().unwrap();
    assert!(count >= 3, "{log}");
    assert_eq!(events(&log).last().unwrap(), "finished");
}

#[test]
fn a_thousand_failures_stay_readable_and_each_line_is_counted() {
    let options = ["--max-restarts", "1000", "--backoff-factor", "0"];
    let (code, log) = Setup::new(options.iter().chain(&["false"])).finish();
    assert_eq!(code, 1);
    let (counts, lines): (Vec<_>, Vec<_>) = log
        .lines()
        .partition(|line| line.contains("WARN [SUPERVISOR] log lines dropped"));
    assert!((300..600).contains(&lines.len()), "{}", lines.len());
    let left_out: usize = counts
        .iter()
        .map(|line| field(line, "count").parse::<usize>().unwrap())
        .sum();
    // 1001 starts and exits, 1000 restarts, giving up, the last line.
    assert_eq!(lines.len() + left_out, 3004);
    assert!(lines[lines.len() - 2].contains("giving up restarts=1000 code=1"));
}

#[test]
fn a_run_that_lasts_is_told_after_a_flood_too() {
    let script = "echo >> runs; [ $(wc -l < runs) -le 150 ] && exit 1; echo up; exec sleep 1000";
    let words = ["--backoff-factor", "0", "sh", "-c", script];
    let mut run = Setup::new(words).start();
    run.said("up");
    run.logged(&["log lines dropped"]);
    run.logged(&["started", "run=151"]);
}
