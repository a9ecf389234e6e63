//! Section 12: the file that Prometheus reads.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::cost::idle_for;
use crate::harness::*;

/// The value of a metric, by the beginning of its line.
fn value(path: &Path, metric: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(metric))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Waits until it is so.
fn becomes(path: &Path, metric: &str, wanted: f64) {
    let is_so = || value(path, metric).is_some_and(|value| (value - wanted).abs() < 1e-9);
    assert!(
        eventually(is_so),
        "{metric} is {:?} in\n{:?}",
        value(path, metric),
        fs::read_to_string(path)
    );
}

fn restarts(reason: &str) -> String {
    format!("supervisor_restarts_total{{name=\"m\",reason=\"{reason}\"}}")
}

#[test]
fn the_file_shows_each_change() {
    let options = [
        "--metrics-file",
        "m.prom",
        "--name",
        "m",
        "--backoff-factor",
        "0.6",
    ];
    let more = ["--sd-notify", "--timeout", "1000"];
    let options: Vec<_> = options.into_iter().chain(more).collect();
    let setup = Setup::puppet(&options).env("SUPERVISOR_RUNTIME_DIR", "run");
    let path = setup.directory().join("m.prom");
    let mut run = setup.start();
    run.ready();
    becomes(&path, "supervisor_up{", 1.0);
    assert_eq!(value(&path, "supervisor_last_exit_code"), None);
    assert_eq!(value(&path, "supervisor_heartbeat_tightest"), None);
    let began = value(&path, "supervisor_command_start_time_seconds").unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs_f64();
    assert!((0.0..60.0).contains(&(now - began)), "{began} {now}");
    run.tell("notify WATCHDOG=1");
    becomes(&path, "supervisor_heartbeats_total{", 1.0);
    let margin = value(&path, "supervisor_heartbeat_tightest_margin_seconds").unwrap();
    assert!((900.0..1000.0).contains(&margin), "{margin}");
    run.send("exit 3");
    becomes(&path, "supervisor_up{", 0.0);
    becomes(&path, &restarts("exit"), 1.0);
    becomes(&path, "supervisor_last_exit_code{", 3.0);
    becomes(&path, "supervisor_backoff_delay_seconds{", 0.6);
    run.ready();
    becomes(&path, "supervisor_backoff_delay_seconds{", 0.0);
    assert!(value(&path, "supervisor_command_start_time_seconds").unwrap() > began);
    run.send("notify WATCHDOG=trigger");
    becomes(&path, &restarts("heartbeat"), 1.0);
    becomes(&path, "supervisor_last_exit_code{", 143.0);
    run.ready();
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
    assert_eq!(value(&path, "supervisor_up{"), Some(0.0));
    for reason in ["signal", "start", "requested"] {
        assert_eq!(value(&path, &restarts(reason)), Some(0.0), "{reason}");
    }
}

/// An instance that has failed and beaten once each, so that it has something to tell in each metric; where.
pub fn with_all_metrics() -> (Run, PathBuf) {
    let options = [
        "--metrics-file",
        "m.prom",
        "--sd-notify",
        "--timeout",
        "1000",
        "--backoff-factor",
        "0",
    ];
    let mut run = Setup::puppet(&options).start();
    run.ready();
    run.send("exit 1");
    run.ready();
    run.tell("notify WATCHDOG=1");
    let path = run.directory.join("m.prom");
    becomes(&path, "supervisor_heartbeats_total{", 1.0);
    (run, path)
}

#[test]
fn promtool_finds_nothing_wrong_with_it() {
    if !there_is("promtool") {
        return;
    }
    let (_run, path) = with_all_metrics();
    let mut promtool = Command::new("promtool");
    promtool
        .args(["check", "metrics"])
        .stdin(Stdio::from(fs::File::open(&path).unwrap()));
    let checked = promtool.output().unwrap();
    let said = [checked.stdout, checked.stderr].concat();
    assert!(
        checked.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("# TYPE").count(), 7, "{text}");
}

#[test]
fn it_is_replaced_whole_and_only_when_something_changed() {
    let setup = Setup::puppet(&["--metrics-file", "m.prom", "--backoff-factor", "0"]);
    let path = setup.directory().join("m.prom");
    let mut run = setup.start();
    run.ready();
    becomes(&path, "supervisor_up{", 1.0);
    let mark = || {
        fs::metadata(&path)
            .map(|file| (file.ino(), file.mtime(), file.mtime_nsec()))
            .unwrap()
    };
    idle_for(run.pid(), std::time::Duration::ZERO);
    let before = mark();
    // It wakes, and has nothing to say.
    run.signal(Signal::SIGWINCH);
    run.logged(&["signal name=SIGWINCH"]);
    idle_for(run.pid(), std::time::Duration::ZERO);
    assert_eq!(mark(), before);
    // Whoever has it open sees the old one whole.
    let old = fs::File::open(&path).unwrap();
    run.signal(Signal::SIGUSR2);
    run.ready();
    becomes(&path, "supervisor_last_exit_code{", 140.0);
    let text = std::io::read_to_string(old).unwrap();
    assert!(
        text.contains("supervisor_up{") && !text.contains("last_exit_code{"),
        "{text}"
    );
    // (It may be replaced at this moment.)
    let is_alone = || {
        let names = fs::read_dir(run.directory.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names == ["m.prom"]
    };
    assert!(eventually(is_alone), "nothing beside it");
}

#[test]
fn beats_alone_do_not_write_it_each_time() {
    let options = [
        "--metrics-file",
        "m.prom",
        "--sd-notify",
        "--timeout",
        "1000",
    ];
    let name = new_name();
    let setup = Setup::puppet(&[&options[..], &["--name", &name]].concat());
    let path = setup.directory().join("m.prom");
    let mut run = setup.start();
    run.ready();
    run.tell("notify READY=1");
    let mut written = std::collections::BTreeSet::new();
    for _ in 0..40 {
        run.tell("notify WATCHDOG=1");
        // Twice round the loop.
        instance(&name);
        instance(&name);
        let count = value(&path, "supervisor_heartbeats_total{").unwrap();
        written.insert(count.to_string());
    }
    // One that came nearer to its deadline than any before is news.
    assert!(written.len() < 25, "{written:?}");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
    assert_eq!(value(&path, "supervisor_heartbeats_total{"), Some(40.0));
}

#[test]
fn a_full_disk_costs_one_warning() {
    let words = [
        "--metrics-file",
        "/mnt/m.prom",
        "--backoff-factor",
        "0",
        "--max-restarts",
        "3",
        "false",
    ];
    let prepare = "mount --make-rprivate /; mount -t tmpfs -o size=4k none /mnt; dd if=/dev/zero of=/mnt/full 2>/dev/null || true";
    let (code, log) = Setup::inside(prepare, words).finish();
    assert_eq!(code, 1, "{log}");
    assert_eq!(log.matches("metrics not written").count(), 1, "{log}");
    assert!(
        log.contains("WARN [SUPERVISOR] metrics not written path=/mnt/m.prom error="),
        "{log}"
    );
}

#[test]
fn where_it_could_not_be_written_it_is_tried_again() {
    let mut run = Setup::puppet(&["--metrics-file", "later/m.prom"]).start();
    run.ready();
    run.logged(&["metrics not written"]);
    fs::create_dir(run.directory.join("later")).unwrap();
    becomes(&run.directory.join("later/m.prom"), "supervisor_up{", 1.0);
}

#[test]
fn a_fifo_in_its_way_is_not_waited_for() {
    let script = "mkfifo .m.prom.$$; exec \"$0\" \"$@\"";
    let binary = supervisor().to_str().unwrap();
    let words = ["-c", script, binary, "--metrics-file", "m.prom", "true"];
    let mut run = Setup::of("sh".as_ref(), words).start();
    assert_eq!(run.code(), 0);
    assert_eq!(
        value(&run.directory.join("m.prom"), "supervisor_up{"),
        Some(0.0)
    );
    assert!(!run.log().contains("not written"), "{}", run.log());
}

#[test]
fn what_is_no_file_is_not_replaced() {
    for path in ["/dev/null", "/dev/stdout", ".", "/"] {
        let (code, log) = Setup::new(["--metrics-file", path, "true"]).finish();
        assert_eq!(code, 125, "{path} {log}");
        assert!(log.contains("supervisor: --metrics-file"), "{log}");
    }
    // A link is not either, but what it leads to.
    let setup = Setup::new(["--metrics-file", "link", "true"]);
    let [link, target] = ["link", "target"].map(|name| setup.directory().join(name));
    fs::write(&target, "old").unwrap();
    std::os::unix::fs::symlink("target", &link).unwrap();
    let mut run = setup.start();
    assert_eq!(run.code(), 0);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(
        fs::read_to_string(&target)
            .unwrap()
            .contains("supervisor_up{")
    );
}
