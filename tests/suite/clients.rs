//! The example clients, and the five scenarios of the test client, under the supervisor.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::*;

/// `supervisor` with `options`, and the test client playing `scenario` fifty times as fast.
fn scenario(options: &[&str], scenario: &[&str]) -> Setup {
    let client = project("scripts/test_client.py");
    let heartbeat = [
        "--enable-heartbeat",
        "--heartbeat-file",
        "hb",
        "--backoff-factor",
        "0.01",
    ];
    let words = heartbeat.iter().chain(options).chain(&["python3"]);
    let words = words.map(Into::into);
    let scenario = scenario.iter().map(Into::into);
    Setup::new(words.chain([client.into_os_string()]).chain(scenario))
        .env("TEST_CLIENT_SPEED", "50")
}

#[test]
fn scenario_normal_finishes() {
    let (code, log) = scenario(&["--timeout", "10"], &["normal", "0.5"]).finish();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("finished code=0 runs=1"), "{log}");
}

#[test]
fn scenario_crash_periodic_is_restarted() {
    let options = ["--timeout", "10", "--max-restarts", "2"];
    // One in five pauses ends in a crash: in 100 s it comes, three times.
    let (code, log) = scenario(&options, &["crash_periodic", "100"]).finish();
    assert_eq!(code, 1, "{log}");
    assert_eq!(log.matches("code=1 uptime").count(), 3, "{log}");
    assert!(log.contains("giving up restarts=2 code=1"), "{log}");
}

#[test]
fn scenario_hang_is_found_and_restarted() {
    let mut run = scenario(&["--timeout", "4"], &["hang"]).start();
    run.logged(&["no more beats"]);
    run.logged(&["heartbeat timeout"]);
    // It exits 0 on SIGTERM, and was hung all the same.
    run.logged(&["INFO", "exited", "code=0"]);
    run.logged(&["started"]);
    run.logged(&["INFO:root:beat"]);
    assert!(
        !run.directory.join("hang").exists(),
        "a scenario is no file"
    );
}

#[test]
fn scenario_sigterm_test_ends_gracefully() {
    let mut run = scenario(&["--timeout", "10"], &["sigterm_test"]).start();
    run.logged(&["INFO:root:beat"]);
    run.signal(Signal::SIGTERM);
    run.logged(&["SIGTERM received"]);
    run.logged(&["exited", "code=0"]);
    assert_eq!(run.code(), 0);
}

#[test]
fn scenario_long_request_needs_a_timeout_that_is_longer() {
    let (code, log) = scenario(&["--timeout", "30"], &["long_request", "0.5"]).finish();
    assert_eq!(code, 0, "{log}");
    let options = ["--timeout", "1", "--max-restarts", "0"];
    let (code, log) = scenario(&options, &["long_request", "60"]).finish();
    assert_eq!(code, 124, "{log}");
}

#[test]
fn two_supervisors_with_a_file_each_do_not_meet() {
    let client = project("scripts/client.py");
    let client = client.to_str().unwrap();
    let directory = Directory::new();
    let mut runs = ["app1", "app2"].map(|name| {
        let file = directory.join(name);
        let file = file.to_str().unwrap().to_owned();
        let words = [
            "--enable-heartbeat",
            "--heartbeat-file",
            &file,
            // Python may begin a sleep of 5 s just when the signal has been noted.
            "--grace-period",
            "20",
            "python3",
            client,
            "{heartbeat-file}",
        ];
        (Setup::new(words).start(), file)
    });
    for (run, file) in &mut runs {
        run.logged(&["beat written to", file]);
        run.signal(Signal::SIGTERM);
        assert_eq!(run.code(), 0);
        assert!(!Path::new(file).exists());
    }
}

/// Runs an example: it works, it beats before its timeout is over, and it stops when told to.
fn assert_beats(words: &[&Path]) {
    let options = [
        "--enable-heartbeat",
        "--heartbeat-file",
        "hb",
        "--timeout",
        "20",
    ];
    let words = options.iter().map(Path::new).chain(words.iter().copied());
    let mut run = Setup::new(words).start();
    run.said("working");
    let file = run.directory.join("hb");
    assert!(eventually(|| file.exists()), "no beat");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
    assert!(!run.log().contains("heartbeat timeout"));
}

#[test]
fn the_python_example_beats() {
    let client = project("scripts/client.py");
    let mut run = Setup::new([
        Path::new("--enable-heartbeat"),
        Path::new("--heartbeat-file=hb"),
        Path::new("python3"),
        &client,
    ])
    .start();
    run.logged(&["beat written to", "/hb"]);
}

#[test]
fn the_shell_example_beats() {
    assert_beats(&[Path::new("sh"), &project("scripts/clients/heartbeat.sh")]);
}

#[test]
fn the_node_example_beats() {
    if there_is("node") {
        assert_beats(&[Path::new("node"), &project("scripts/clients/heartbeat.js")]);
    }
}

fn assert_compiles_and_beats(compiler: &str, arguments: &[&str], source: &str) {
    let directory = Directory::new();
    let program: PathBuf = directory.join("example");
    let status = Command::new(compiler)
        .args(arguments)
        .arg("-o")
        .arg(&program)
        .arg(project(source))
        .status();
    assert!(status.unwrap().success());
    assert_beats(&[&program]);
}

#[test]
fn the_c_example_beats() {
    if there_is("gcc") {
        let flags = ["-Wall", "-Wextra", "-Werror", "-O2"];
        assert_compiles_and_beats("gcc", &flags, "scripts/clients/heartbeat.c");
    }
}

#[test]
fn the_rust_example_beats() {
    let flags = ["--edition", "2021", "-D", "warnings"];
    assert_compiles_and_beats("rustc", &flags, "scripts/clients/heartbeat.rs");
}
