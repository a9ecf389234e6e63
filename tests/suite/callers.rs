//! What starts us: each as its users do, and it finds what it expects of a program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::*;

/// Another supervisor's service directory, whose run script puts us in its place.
struct Service {
    directory: Directory,
    daemon: Child,
}

impl Service {
    fn new(daemon: &str) -> Self {
        let directory = Directory::new();
        let path = directory.path().display();
        let (program, command) = (supervisor().display(), puppet());
        let run = format!(
            "#!/bin/sh\ncd {path}\nexec {program} --log-file log {} < /dev/null > output\n",
            command.display()
        );
        let service = directory.join("service");
        fs::create_dir(&service).unwrap();
        write_script(&service.join("run"), &run);
        let daemon = Command::new(daemon).arg(&service).spawn().unwrap();
        Self { directory, daemon }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn logged(&self, text: &str, times: usize) {
        let there = || self.log().matches(text).count() >= times;
        assert!(eventually(there), "no {text} in\n{}", self.log());
    }

    fn command(&self, run: usize) -> i32 {
        self.logged("started", run);
        let log = self.log();
        let line = log
            .lines()
            .filter(|line| line.contains("started"))
            .nth(run - 1);
        field(line.unwrap(), "pid").parse().unwrap()
    }

    /// Has `control` tell the daemon something.
    fn tell(&self, control: &[&str]) {
        let service = self.directory.join("service");
        let done = Command::new(control[0])
            .args(&control[1..])
            .arg(service)
            .status();
        assert!(done.unwrap().success(), "{control:?}");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn runsv_stops_us_and_starts_us_again() {
    if !there_is("runsv") {
        return;
    }
    let mut service = Service::new("runsv");
    let command = service.command(1);
    service.tell(&["sv", "-v", "down"]);
    gone(command);
    service.logged("finished code=0", 1);
    service.tell(&["sv", "-v", "up"]);
    let command = service.command(2);
    service.tell(&["sv", "-v", "exit"]);
    gone(command);
    service.logged("finished code=0", 2);
    assert!(service.daemon.wait().unwrap().success());
}

#[test]
fn s6_supervise_stops_us_and_starts_us_again() {
    if !there_is("s6-supervise") {
        return;
    }
    let mut service = Service::new("s6-supervise");
    let command = service.command(1);
    // TERM, then CONT; `-r`: and up again.
    service.tell(&["s6-svc", "-r"]);
    gone(command);
    let command = service.command(2);
    service.tell(&["s6-svc", "-xd"]);
    gone(command);
    service.logged("finished code=0", 2);
    assert!(service.daemon.wait().unwrap().success());
}

/// A pid file, and what one of two programs that keep one is told.
fn with_pidfile(program: &str, before: &[&str], after: &[&str], pidfile: &Path) {
    let mut command = Command::new(program);
    command
        .args(before)
        .arg("--pidfile")
        .arg(pidfile)
        .args(after);
    command
        .env("RC_SVCNAME", "supervisor-test")
        .stdin(Stdio::null());
    assert!(command.status().unwrap().success(), "{program} {before:?}");
}

fn started_by(log: &Path) -> i32 {
    let there = || fs::read_to_string(log).is_ok_and(|log| log.contains("started"));
    assert!(eventually(there));
    let log = fs::read_to_string(log).unwrap();
    field(log.lines().next().unwrap(), "pid").parse().unwrap()
}

fn ended_well(log: &Path, command: i32) {
    gone(command);
    let there = || fs::read_to_string(log).is_ok_and(|log| log.contains("finished code=0"));
    assert!(eventually(there), "{:?}", fs::read_to_string(log));
}

#[test]
fn supervise_daemon_starts_and_stops_us() {
    if !there_is("supervise-daemon") {
        return;
    }
    if !nix::unistd::geteuid().is_root() || !Path::new("/run/openrc").exists() {
        eprintln!("skipped: it takes root and /run/openrc to write OpenRC's state");
        assert!(std::env::var_os("CI").is_none(), "CI is to have both");
        return;
    }
    let directory = Directory::new();
    let (pidfile, log) = (directory.join("pid"), directory.join("log"));
    let (program, command) = (supervisor().to_str().unwrap(), puppet());
    let words = [
        program,
        "--",
        "--log-file",
        log.to_str().unwrap(),
        command.to_str().unwrap(),
    ];
    with_pidfile(
        "supervise-daemon",
        &["supervisor-test", "--start"],
        &words,
        &pidfile,
    );
    let command = started_by(&log);
    // Told before it listens, it would end without us.
    let listens = || {
        let daemon = fs::read_to_string(&pidfile).unwrap_or_default();
        let daemon = daemon.trim().parse();
        daemon.is_ok_and(|daemon| waits_for(daemon, Signal::SIGTERM))
    };
    assert!(eventually(listens));
    with_pidfile(
        "supervise-daemon",
        &["supervisor-test", "--stop"],
        &[],
        &pidfile,
    );
    ended_well(&log, command);
}

#[test]
fn start_stop_daemon_starts_and_stops_us() {
    if !there_is("start-stop-daemon") {
        return;
    }
    let directory = Directory::new();
    let (pidfile, log) = (directory.join("pid"), directory.join("log"));
    let (program, command) = (supervisor().to_str().unwrap(), puppet());
    let words = ["--exec", program, "--", "--log-file", log.to_str().unwrap()];
    let words: Vec<&str> = words
        .into_iter()
        .chain([command.to_str().unwrap()])
        .collect();
    let start = ["--start", "--background", "--make-pidfile"];
    with_pidfile("start-stop-daemon", &start, &words, &pidfile);
    let command = started_by(&log);
    with_pidfile(
        "start-stop-daemon",
        &["--stop", "--retry", "TERM/20"],
        &[],
        &pidfile,
    );
    ended_well(&log, command);
}

/// `program` with these words, and then `supervisor` with the puppet.
fn called_by(program: &str, words: &[&str], options: &[&str]) -> Setup {
    let (own, command): (PathBuf, PathBuf) = (supervisor().into(), puppet());
    let words = words.iter().map(|word| word.into());
    let options = options.iter().map(|word| word.into());
    let all: Vec<PathBuf> = words.chain([own]).chain(options).chain([command]).collect();
    Setup::of(program.as_ref(), all)
}

#[test]
fn under_nohup_a_hangup_is_not_heard() {
    let mut run = called_by("nohup", &[], &[]).start();
    let command = run.ready();
    run.signal(Signal::SIGHUP);
    kill(Pid::from_raw(command), Signal::SIGHUP).unwrap();
    run.tell("group");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
    assert!(!run.log().contains("SIGHUP"));
}

#[test]
fn timeout_ends_us_and_everything() {
    let mut run = called_by("timeout", &["1"], &["--grace-period", "0.2"]).start();
    let command = run.ready();
    run.send("stubborn-child");
    let child = number_in(&run.said("deaf "));
    run.logged(&["signal name=SIGTERM action=stop"]);
    // Its own code; it waits for us, and we for the child's end by SIGKILL.
    assert_eq!(run.code(), 124);
    assert!(!alive(command) && !alive(child));
}

#[test]
fn timeout_leaves_us_the_grace() {
    // It tells us, then its group, in which we are, too; and then both to continue.
    for _ in 0..20 {
        let mut run = called_by("timeout", &["--preserve-status", "1000"], &[]).start();
        run.ready();
        run.tell("trap TERM");
        assert!(eventually(|| waits_for(run.pid(), Signal::SIGTERM)));
        run.signal(Signal::SIGTERM);
        run.said("got SIGTERM");
        run.logged(&["signal name=SIGCONT action=forward"]);
        run.send("exit 3");
        assert_eq!(run.code(), 0, "{}", run.log());
        assert!(!run.log().contains("killing"), "{}", run.log());
    }
}

#[test]
fn with_an_empty_environment_it_runs() {
    let mut run = called_by("env", &["-i"], &[]).start();
    run.ready();
    run.send("exit 0");
    assert_eq!(run.code(), 0);
    let program = supervisor().to_str().unwrap();
    // Found in the default search path.
    let (code, log) = Setup::of("env".as_ref(), ["-i", program, "true"]).finish();
    assert_eq!(code, 0, "{log}");
}

#[test]
fn xargs_runs_many_at_a_time_and_learns_which_failed() {
    let program = supervisor().display();
    let each = format!("{program} --max-restarts 0 sh -c 'exit {{}}'");
    for (codes, expected) in [("0 0 0 0 0 0", 0), ("0 0 3 0", 123)] {
        let script = format!("printf '%s\\n' {codes} | xargs -P 4 -I {{}} {each}");
        let (code, log) = Setup::of("sh".as_ref(), ["-c", &script]).finish();
        assert_eq!(code, expected, "{log}");
        let runs = codes.split(' ').count();
        assert_eq!(log.matches("finished").count(), runs, "{log}");
    }
}

#[test]
fn one_of_us_may_run_another() {
    let program = supervisor().to_str().unwrap();
    let once = ["--max-restarts", "0", "--grace-period", "0.2"];
    let mut run = called_by(program, &once, &once).start();
    run.ready();
    run.send("stubborn-child");
    let child = number_in(&run.said("deaf "));
    run.send("exit 7");
    // The inner one clears away, the outer one passes its code on.
    assert_eq!(run.code(), 7);
    assert!(!alive(child));
    assert_eq!(run.log().matches("finished code=7").count(), 2);

    let mut run = called_by(program, &[], &[]).start();
    let command = run.ready();
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
    assert!(!alive(command));
}
