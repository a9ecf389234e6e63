//! Section 1: the command line, the environment, and what is wrong with them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

use crate::harness::*;

fn output(words: &[&str]) -> Output {
    Command::new(supervisor()).args(words).output().unwrap()
}

/// One clear line on stderr, nothing on stdout, no panic.
fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty());
    assert!(text.starts_with("supervisor: "), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn bad_values_are_usage_errors_with_one_line() {
    for words in [
        &[][..],
        &["--timeout"],
        &["--no-such-option", "true"],
        &["-x", "true"],
        &["--timeout", "0", "true"],
        &["--timeout", "-2", "true"],
        &["--timeout", "nan", "true"],
        &["--timeout", "inf", "true"],
        &["--timeout", "1e300", "true"],
        &["--timeout", "1e10", "true"],
        &["--timeout", "soon", "true"],
        &["--timeout", "", "true"],
        &["--initial-check-delay", "-1", "true"],
        &["--initial-check-delay", "NaN", "true"],
        &["--grace-period", "-0.1", "true"],
        &["--grace-period", "infinity", "true"],
        &["--max-restarts", "-2", "true"],
        &["--max-restarts", "1.5", "true"],
        &["--max-restarts", "many", "true"],
        &["--max-restarts", "9223372036854775808", "true"],
        &["--max-restarts", "", "true"],
        &["--backoff-factor", "-1", "true"],
        &["--backoff-factor", "1e300", "true"],
        &["--max-backoff", "0", "true"],
        &["--max-backoff", "nan", "true"],
        &["--backoff-jitter", "1.01", "true"],
        &["--backoff-jitter", "-0.1", "true"],
        &["--backoff-jitter", "nan", "true"],
        &["--reset-after", "-1", "true"],
        &["--reset-after", "x", "true"],
        &["--log-level", "loud", "true"],
        &["--log-file", "", "true"],
        &["--heartbeat-file", "", "true"],
    ] {
        let option: Vec<_> = words.first().copied().into_iter().collect();
        assert_refused(&output(words), 2, &option);
    }
}

#[test]
fn a_check_says_what_a_start_would_and_touches_nothing() {
    let directory = Directory::new();
    let call = |words: &[&str], variable: (&str, &str)| {
        let mut call = Command::new(supervisor());
        call.args(words)
            .env(variable.0, variable.1)
            .current_dir(directory.path());
        call.env("SUPERVISOR_RUNTIME_DIR", directory.join("run"));
        call.output().unwrap()
    };
    let none = ("SUPERVISOR_OF_SOMETHING_ELSE", "");
    for (words, variable) in [
        (&["--timeot", "3", "true"][..], none),
        (&["--timeout", "0", "true"], none),
        (&["--timeout"], none),
        (&["--json", "true"], none),
        (&[], none),
        (&["true"], ("SUPERVISOR_TIMEOUT", "soon")),
    ] {
        let started = call(words, variable);
        let checked = call(&[&["--check"], words].concat(), variable);
        assert_refused(&checked, 2, &[]);
        assert_eq!(checked.stderr, started.stderr, "{words:?}");
    }
    let call_too = call(&["--check", "--list"], none);
    assert_refused(&call_too, 2, &["--check goes with a command"]);
    // Accepted, it says nothing and starts nothing, not even what a start would fail of.
    for (words, variable) in [
        (&["--check", "--", "touch", "made"][..], none),
        (
            &["--log-file", "log", "--check", "--timeout", "3", "touch"],
            none,
        ),
        (
            &["--check", "--enable-heartbeat", "--name", "web", "touch"],
            ("SUPERVISOR_TIMEOUT", "3"),
        ),
        (&["--check", "--heartbeat-file", "/", "/nowhere"], none),
    ] {
        let output = call(words, variable);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    // No variable turns a start into one.
    let output = call(&["sh", "-c", "echo started"], ("SUPERVISOR_CHECK", "1"));
    assert_eq!(output.stdout, b"started\n");
}

#[test]
fn help_and_version_go_to_stdout() {
    for (word, parts) in [
        (
            "--help",
            &["--enable-heartbeat", "--max-restarts <N>", "[default: 20]"][..],
        ),
        ("-h", &["Usage: supervisor [OPTIONS] <command> [args...]"]),
        ("--version", &[env!("CARGO_PKG_VERSION")]),
        ("-V", &["supervisor "]),
    ] {
        let output = output(&[word]);
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stderr.is_empty());
        let text = String::from_utf8(output.stdout).unwrap();
        for part in parts {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }
}

#[test]
fn the_version_names_the_commit_where_there_is_one() {
    // Not in a package, and not that of somebody else's checkout around it.
    if !project(".git").exists() {
        eprintln!("skipped: this is no checkout");
        return;
    }
    let mut git = Command::new("git");
    git.args(["rev-parse", "--short=12", "HEAD"])
        .current_dir(project(""));
    let head = git.output().ok().filter(|head| head.status.success());
    let head = head.map(|head| String::from_utf8(head.stdout).unwrap());
    let version = String::from_utf8(output(&["--version"]).stdout).unwrap();
    let plain = concat!("supervisor ", env!("CARGO_PKG_VERSION"));
    match head {
        Some(head) => assert!(version.starts_with(&format!("{plain} ({}", head.trim()))),
        None => assert_eq!(version, format!("{plain}\n")),
    }
}

#[test]
fn each_option_can_be_set_by_a_variable() {
    let (code, log) = Setup::scripted(&[], &["exit 4"])
        .env("SUPERVISOR_MAX_RESTARTS", "2")
        .env("SUPERVISOR_BACKOFF_FACTOR", "0.01")
        .env("SUPERVISOR_MAX_BACKOFF", "0.015")
        .env("SUPERVISOR_LOG_LEVEL", "info")
        .finish();
    assert_eq!(code, 4);
    assert!(log.contains("restart=1/2 delay=0.010s"), "{log}");
    assert!(log.contains("restart=2/2 delay=0.015s"), "{log}");
}

#[test]
fn the_command_line_wins_over_the_variable() {
    let (code, log) = Setup::scripted(&["--max-restarts", "0"], &["exit 4"])
        .env("SUPERVISOR_MAX_RESTARTS", "7")
        .finish();
    assert_eq!(code, 4);
    assert!(log.contains("giving up restarts=0"), "{log}");
}

#[test]
fn a_bad_variable_is_a_usage_error_that_names_it() {
    let output = Command::new(supervisor())
        .arg("true")
        .env("SUPERVISOR_TIMEOUT", "soon")
        .output()
        .unwrap();
    assert_refused(&output, 2, &["SUPERVISOR_TIMEOUT", "'soon'"]);
}

#[test]
fn a_flag_can_be_set_by_a_variable_that_does_not_say_no() {
    for (value, on) in [
        ("1", true),
        ("yes", true),
        ("0", false),
        ("off", false),
        ("", false),
    ] {
        let mut run = Setup::puppet(&["--heartbeat-file", "hb"])
            .env("SUPERVISOR_ENABLE_HEARTBEAT", value)
            .start();
        run.ready();
        run.send("env HEARTBEAT_FILE");
        let said = run.said("env HEARTBEAT_FILE");
        assert_eq!(!said.ends_with("unset"), on, "{value:?}: {said}");
    }
}

#[test]
fn the_command_does_not_inherit_our_variables() {
    let mut run = Setup::scripted(&[], &["environ"])
        .env("SUPERVISOR_MAX_RESTARTS", "3")
        .env("SUPERVISOR_ENABLE_HEARTBEAT", "0")
        .env("SUPERVISOR_OF_SOMETHING_ELSE", "stays")
        .start();
    run.said("did environ");
    run.send("exit 0");
    run.code();
    let seen = run.output();
    assert!(
        seen.contains("SUPERVISOR_OF_SOMETHING_ELSE=stays"),
        "{seen}"
    );
    assert!(!seen.contains("SUPERVISOR_MAX_RESTARTS"), "{seen}");
    assert!(!seen.contains("SUPERVISOR_ENABLE_HEARTBEAT"), "{seen}");
}

#[test]
fn arguments_reach_the_command_unchanged() {
    let words = [
        puppet().as_os_str(),
        OsStr::new("args"),
        OsStr::new("--timeout"),
        OsStr::new("--"),
        OsStr::new("two words"),
        OsStr::new(""),
        OsStr::new("$HOME;*"),
        OsStr::from_bytes(b"not\xffutf8"),
        OsStr::new("{heartbeat-file}"),
    ]
    .map(OsString::from);
    let mut run = Setup::new(words).start();
    assert_eq!(run.code(), 0);
    let expected = [
        "--timeout",
        "--",
        "two words",
        "",
        "$HOME;*",
        "not\\xffutf8",
        "{heartbeat-file}",
    ];
    let output = run.output();
    let said: Vec<_> = output.lines().collect();
    assert_eq!(said, expected.map(|arg| format!("arg {arg}")));
}

#[test]
fn the_heartbeat_file_takes_the_place_of_its_placeholder() {
    let program = puppet();
    let mut run = Setup::new([
        OsStr::new("--enable-heartbeat"),
        OsStr::new("--heartbeat-file=hb"),
        program.as_os_str(),
        OsStr::new("args"),
        OsStr::new("{heartbeat-file}"),
        OsStr::new("--beat={heartbeat-file}!"),
    ])
    .start();
    assert_eq!(run.code(), 0);
    let path = fs::canonicalize(run.directory.path()).unwrap().join("hb");
    let path = path.display();
    assert_eq!(run.output(), format!("arg {path}\narg --beat={path}!\n"));
}

#[test]
fn what_can_not_be_a_heartbeat_file_is_refused_and_left_alone() {
    let directory = Directory::new();
    let socket = directory.join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let fifo = directory.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let link = directory.join("link");
    std::os::unix::fs::symlink(&fifo, &link).unwrap();
    let round = directory.join("round");
    std::os::unix::fs::symlink(&round, &round).unwrap();
    for (path, found) in [
        (directory.path(), "a directory"),
        (&socket, "a socket"),
        (&fifo, "a FIFO"),
        (&link, "a FIFO"),
        ("/dev/null".as_ref(), "a device"),
        ("/".as_ref(), "a directory"),
        (&directory.join("new/"), "a directory"),
        (&round, "a loop of symbolic links"),
        (&directory.join("x".repeat(256)), "too long a name"),
    ] {
        let path = path.to_str().unwrap();
        let words = [
            "--enable-heartbeat",
            "--heartbeat-file",
            path,
            "touch",
            "/nowhere",
        ];
        assert_refused(&output(&words), 125, &[path, found, "regular file"]);
    }
    let mut left: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["fifo", "link", "round", "socket"]);
}

#[test]
fn a_log_file_that_can_not_be_opened_is_refused() {
    let directory = Directory::new();
    let fifo = directory.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let missing = directory.join("missing/log");
    for path in [directory.path(), &missing, &fifo] {
        let path = path.to_str().unwrap();
        assert_refused(
            &output(&["--log-file", path, "true"]),
            125,
            &["--log-file", path],
        );
    }
}

#[test]
fn heartbeat_options_without_heartbeat_are_one_warning() {
    let (code, log) = Setup::new(["--timeout", "3", "--heartbeat-file", "hb", "true"]).finish();
    assert_eq!(code, 0);
    let warnings: Vec<_> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("--heartbeat-file --timeout"), "{log}");

    let (_, log) = Setup::new(["true"]).env("SUPERVISOR_TIMEOUT", "3").finish();
    assert!(!log.contains("WARN"), "only on the command line: {log}");
}
