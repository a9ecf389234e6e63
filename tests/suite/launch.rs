//! How the command is launched, and the exit codes of a single run (sections 1, 2, 5 and 6).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::sys::signal::Signal;

use crate::harness::*;

#[test]
fn the_command_runs_in_the_callers_directory_with_the_callers_streams() {
    let setup = Setup::new([
        "sh",
        "-c",
        "pwd -P; readlink /proc/$$/fd/1; cat; echo err >&2",
    ]);
    let directory = fs::canonicalize(setup.directory().path()).unwrap();
    let out = directory.join("out");
    let mut run = setup.stdout(fs::File::create(&out).unwrap()).start();
    run.send("typed by the caller");
    run.close_stdin();
    assert_eq!(run.code(), 0);
    assert!(run.log().contains("err\n"));
    let expected = format!(
        "{}\n{}\ntyped by the caller\n",
        directory.display(),
        out.display()
    );
    assert_eq!(fs::read_to_string(out).unwrap(), expected);
}

#[test]
fn every_exit_code_comes_through() {
    for code in 0..=255 {
        let exit = format!("exit {code}");
        let (got, log) = Setup::new(["--max-restarts", "0", "sh", "-c", &exit]).finish();
        assert_eq!(got, code);
        assert!(log.contains(&format!(" code={code} uptime=")), "{log}");
        assert!(
            log.contains(&format!("finished code={code} runs=1")),
            "{log}"
        );
    }
}

#[test]
fn a_death_by_a_signal_answers_128_and_its_number() {
    let rows = [
        ("HUP", 1, "SIGHUP"),
        ("ILL", 4, "SIGILL"),
        ("ABRT", 6, "SIGABRT"),
        ("KILL", 9, "SIGKILL"),
        ("SEGV", 11, "SIGSEGV"),
        ("TERM", 15, "SIGTERM"),
        ("35", 35, "35"),
        ("64", 64, "64"),
    ];
    for (signal, number, name) in rows {
        let die = format!("kill -{signal} $$; sleep 60");
        let (code, log) = Setup::new(["--max-restarts", "0", "sh", "-c", &die]).finish();
        assert_eq!(code, 128 + number, "{log}");
        assert!(log.contains(&format!("signal={name} ")), "{log}");
    }
}

#[test]
fn a_command_that_is_not_there_is_127_at_once() {
    let directory = Directory::new();
    let script = directory.join("script");
    write_script(&script, "#!/no/such/interpreter\n");
    for command in [
        "no-such-command-anywhere",
        "/no/such/file",
        "",
        script.to_str().unwrap(),
    ] {
        let (code, log) = Setup::new([command]).finish();
        assert_eq!(code, 127, "{log}");
        assert_eq!(events(&log), ["start failed", "finished"], "{log}");
    }
}

#[test]
fn a_command_that_was_given_as_one_word_is_told_from_one_of_two() {
    for (words, hinted) in [
        (&["no-such-command now"][..], true),
        (&["no-such-command", "now"], false),
    ] {
        let (code, log) = Setup::new(words).finish();
        assert_eq!(code, 127, "{log}");
        assert!(log.contains("command=\"no-such-command now\""), "{log}");
        assert_eq!(log.contains("one word"), hinted, "{log}");
    }
}

#[test]
fn a_command_that_can_not_be_executed_is_126_at_once() {
    let directory = Directory::new();
    let plain = directory.join("plain");
    fs::write(&plain, "echo no shell was asked for\n").unwrap();
    let mode = |mode| fs::set_permissions(&plain, fs::Permissions::from_mode(mode)).unwrap();
    let plain = plain.to_str().unwrap();
    for (command, bits) in [(plain, 0o644), (plain, 0o755), ("/tmp", 0o755)] {
        mode(bits);
        let mut run = Setup::new([command]).start();
        assert_eq!(run.code(), 126, "{command} {bits:o}");
        assert_eq!(run.output(), "");
        assert_eq!(events(&run.log()), ["start failed", "finished"]);
    }
}

#[test]
fn a_path_entry_that_is_too_long_hides_nothing() {
    let path = format!("/{}:/usr/bin:/bin", "x".repeat(5000));
    let (code, _) = Setup::new(["true"]).env("PATH", path).finish();
    assert_eq!(code, 0);
}

#[test]
fn the_first_of_a_pid_namespace_may_be_the_command() {
    let program = supervisor().to_str().unwrap();
    let words = [
        "--user",
        "--map-root-user",
        "--pid",
        program,
        "--max-restarts",
        "0",
        "sh",
        "-c",
        "exit 4",
    ];
    let (code, log) = Setup::of("unshare".as_ref(), words).finish();
    assert_eq!(code, 4, "{log}");
}

#[test]
fn a_command_is_searched_in_path_as_a_shell_does() {
    let directory = Directory::new();
    let (first, second) = (directory.join("first"), directory.join("second"));
    for (place, mode) in [(&first, 0o644), (&second, 0o755)] {
        fs::create_dir(place).unwrap();
        fs::write(place.join("tool"), "#!/bin/sh\nexit 42\n").unwrap();
        fs::set_permissions(place.join("tool"), fs::Permissions::from_mode(mode)).unwrap();
    }
    let path = format!("{}:{}", first.display(), second.display());
    let (code, _) = Setup::new(["--max-restarts", "0", "tool"])
        .env("PATH", path)
        .finish();
    assert_eq!(code, 42, "the first is not executable: on to the next");
    let (code, _) = Setup::new(["tool"]).env("PATH", first).finish();
    assert_eq!(code, 126);
}

#[test]
fn a_busy_program_is_a_failed_run_and_not_the_end() {
    let setup = Setup::new(["--backoff-factor", "0.05", "./program"]);
    let program = setup.directory().join("program");
    fs::copy("/bin/true", &program).unwrap();
    let written_to = fs::OpenOptions::new().append(true).open(&program).unwrap();
    let mut run = setup.start();
    run.logged(&[
        "ERROR",
        "start failed",
        "command=./program",
        "Text file busy",
    ]);
    run.logged(&["restarting restart=1/unlimited"]);
    drop(written_to);
    assert_eq!(run.code(), 0);
}

#[test]
fn a_program_that_is_replaced_meanwhile_is_waited_for_and_counted() {
    for (vanishes, code) in [(true, 127), (false, 126)] {
        let options = [
            "--max-restarts",
            "3",
            "--backoff-factor",
            "0.01",
            "./program",
        ];
        let setup = Setup::new(options);
        let program = setup.directory().join("program");
        fs::copy(puppet(), &program).unwrap();
        let mut run = setup.start();
        run.ready();
        if vanishes {
            fs::remove_file(&program).unwrap();
        } else {
            fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
        }
        run.send("exit 1");
        assert_eq!(run.code(), code);
        let log = run.log();
        assert_eq!(log.matches("start failed").count(), 3, "{log}");
        assert!(log.contains("restarting restart=3/3"), "{log}");
        assert!(
            log.contains(&format!("giving up restarts=3 code={code}")),
            "{log}"
        );
    }
}

#[test]
fn the_command_leads_a_process_group_of_its_own() {
    let mut run = Setup::puppet(&[]).start();
    let pid = run.ready();
    run.send("group");
    assert_eq!(number_in(&run.said("group ")), pid);
}

#[test]
fn the_command_sees_no_descriptor_of_ours_and_all_of_the_callers() {
    // First the bare command, then the supervised one.
    let shell = r#"exec 7</dev/null; "$2" fds 'exit 0'; "$1" --enable-heartbeat "$2" fds 'exit 0'"#;
    let (program, command) = (supervisor().to_str().unwrap().to_owned(), puppet());
    let words = ["-c", shell, "sh", &program, command.to_str().unwrap()];
    let mut run = Setup::of("sh".as_ref(), words).start();
    let bare = run.said("fds ");
    assert!(bare.contains(" 7"), "{bare}");
    assert_eq!(run.said("fds "), bare);
}

/// A caller that ignores USR1, INT and TERM and has USR2, TERM and CHLD blocked, and runs
/// `supervisor` with these words. (Python, for a shell can't block signals.)
fn under_a_caller_with_signals_set(words: &[&str]) -> Run {
    let python = "import os, signal as s, sys\n\
        for n in (s.SIGUSR1, s.SIGINT, s.SIGTERM): s.signal(n, s.SIG_IGN)\n\
        s.pthread_sigmask(s.SIG_BLOCK, [s.SIGUSR2, s.SIGTERM, s.SIGCHLD])\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    let start = ["-c", python, supervisor().to_str().unwrap()];
    Setup::of("python3".as_ref(), start.iter().chain(words)).start()
}

#[test]
fn ignored_and_blocked_signals_are_the_commands_as_they_were_ours() {
    let words = ["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"];
    let mut run = under_a_caller_with_signals_set(&words);
    let bit = |signal: Signal| 1u64 << (signal as i32 - 1);
    let bits = |line: String| {
        let digits = line.split_whitespace().last().unwrap().to_owned();
        u64::from_str_radix(&digits, 16).unwrap()
    };
    let blocked = bits(run.said("SigBlk"));
    let expected = bit(Signal::SIGUSR2) | bit(Signal::SIGTERM) | bit(Signal::SIGCHLD);
    assert_eq!(blocked, expected, "{blocked:x}");
    let ignored = bits(run.said("SigIgn"));
    for (signal, is) in [
        (Signal::SIGUSR1, true),
        (Signal::SIGINT, true),
        (Signal::SIGTERM, false),
        (Signal::SIGPIPE, false),
        (Signal::SIGCHLD, false),
    ] {
        assert_eq!(ignored & bit(signal) != 0, is, "{signal} in {ignored:x}");
    }
    assert_eq!(run.code(), 0, "we hear SIGCHLD although it was blocked");
}

#[test]
fn an_ignored_sigint_stays_ignored_and_a_blocked_sigterm_is_heard() {
    let command = puppet();
    let mut run = under_a_caller_with_signals_set(&[command.to_str().unwrap()]);
    run.ready();
    run.signal(Signal::SIGINT);
    run.signal(Signal::SIGTERM);
    run.logged(&["signal name=SIGTERM action=stop"]);
    // The command has it blocked.
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 137);
    assert!(!run.log().contains("SIGINT"));
}

#[test]
fn nothing_that_was_inherited_is_closed_or_replaced() {
    let setup = Setup::new(["sh", "-c", "stat -L -c %i /dev/stdin"]);
    let input = setup.directory().join("input");
    fs::write(&input, "").unwrap();
    let inode = fs::metadata(&input).unwrap().ino();
    let words = format!(
        "exec \"$0\" sh -c 'stat -L -c %i /proc/self/fd/0' < {}",
        input.display()
    );
    let words = [
        "-c".into(),
        words,
        supervisor().to_str().unwrap().to_owned(),
    ];
    let mut run = Setup::of("sh".as_ref(), words).start();
    assert_eq!(run.code(), 0);
    assert_eq!(run.output(), format!("{inode}\n"));
}
