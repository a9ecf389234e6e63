//! Section 9: what a command says by the sd_notify protocol.

use std::ffi::OsString;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::*;

/// A puppet that may notify, with these options besides; what the instance is called.
fn notifying(options: &[&str]) -> (Run, String) {
    let name = new_name();
    let words = ["--sd-notify", "--name", &name].into_iter();
    let words: Vec<_> = words.chain(options.iter().copied()).collect();
    (Setup::puppet(&words).start(), name)
}

/// The socket of a puppet that is ready.
fn socket_of(run: &mut Run) -> PathBuf {
    run.send("env NOTIFY_SOCKET");
    let line = run.said("env NOTIFY_SOCKET=");
    line.split_once('=').unwrap().1.into()
}

#[test]
fn a_beat_by_the_socket_moves_the_deadline() {
    let (mut run, _) = notifying(&["--timeout", "2"]);
    run.ready();
    let_pass(Duration::from_millis(1000));
    let beat = Instant::now();
    run.tell("notify WATCHDOG=1");
    let late = run.hangs_after(beat, Duration::from_secs(2));
    assert!(late < Duration::from_millis(800), "noticed {late:?} late");
}

#[test]
fn without_a_word_the_start_may_take_the_delay_and_the_timeout() {
    let launched = Instant::now();
    let (mut run, name) = notifying(&["--timeout", "1", "--initial-check-delay", "1.5"]);
    run.ready();
    assert_eq!(instance(&name)["state"], "starting");
    run.logged(&["heartbeat timeout"]);
    assert!(launched.elapsed() >= Duration::from_millis(2500), "early");
}

#[test]
fn the_deadline_counts_from_ready() {
    let (mut run, name) = notifying(&["--timeout", "1", "--initial-check-delay", "1000"]);
    run.ready();
    let ready = Instant::now();
    run.tell("notify READY=1\\nSTATUS=at your service");
    let shown = instance(&name);
    assert_eq!(
        [&shown["state"], &shown["status"]],
        ["running", "at your service"]
    );
    run.hangs_after(ready, Duration::from_secs(1));
    // What the last run said of itself is not the next one's.
    run.ready();
    let shown = instance(&name);
    assert_eq!([&shown["state"], &shown["status"]], ["starting", ""]);
}

#[test]
fn a_command_that_says_it_hangs_is_believed_at_once() {
    let (mut run, _) = notifying(&["--timeout", "1000"]);
    run.ready();
    run.send("notify WATCHDOG=trigger");
    run.logged(&["heartbeat timeout", "timeout=1000.000s"]);
    run.logged(&["stopping", "reason=\"heartbeat timeout\""]);
    run.logged(&["restarting restart=1/unlimited"]);
}

#[test]
fn a_timeout_that_the_command_sets_holds_for_its_run() {
    let (mut run, name) = notifying(&["--timeout", "1000", "--backoff-factor", "0"]);
    run.ready();
    let set = Instant::now();
    run.tell("notify READY=1\\nWATCHDOG_USEC=700000");
    assert_eq!(instance(&name)["heartbeat"]["timeout_s"], 0.7);
    run.hangs_after(set, Duration::from_millis(700));
    run.ready();
    assert_eq!(instance(&name)["heartbeat"]["timeout_s"], 1000.0);
    // No deadline at all, as for systemd.
    run.tell("notify WATCHDOG_USEC=0");
    assert_eq!(instance(&name)["heartbeat"]["timeout_s"], Value::Null);
}

#[test]
fn a_start_that_needs_more_time_gets_it_until_it_is_ready() {
    let launched = Instant::now();
    let (mut run, _) = notifying(&["--timeout", "1.5"]);
    run.ready();
    run.tell("notify EXTEND_TIMEOUT_USEC=2500000");
    run.logged(&["heartbeat timeout"]);
    assert!(launched.elapsed() >= Duration::from_millis(2500), "early");
    run.ready();
    let ready = Instant::now();
    // Once it is ready there is nothing to be extended.
    run.tell("notify EXTEND_TIMEOUT_USEC=1000000000");
    run.tell("notify READY=1");
    run.tell("notify EXTEND_TIMEOUT_USEC=1000000000");
    run.hangs_after(ready, Duration::from_millis(1500));
}

#[test]
fn a_stop_that_needs_more_time_gets_it() {
    let (mut run, _) = notifying(&["--timeout", "1000", "--grace-period", "0.7"]);
    run.ready();
    run.tell("trap TERM");
    run.signal(Signal::SIGTERM);
    run.said("got SIGTERM");
    run.tell("notify EXTEND_TIMEOUT_USEC=1000000000");
    let_pass(Duration::from_millis(1000));
    run.send("exit 0");
    assert_eq!(run.code(), 0);
    assert!(!run.log().contains("killing"), "{}", run.log());
}

#[test]
fn a_command_that_ends_by_itself_says_so_and_has_the_grace_for_it() {
    let (mut run, name) = notifying(&["--timeout", "1", "--grace-period", "2"]);
    run.ready();
    let ending = Instant::now();
    run.tell("notify STOPPING=1");
    assert_eq!(instance(&name)["state"], "stopping");
    run.logged(&["heartbeat timeout"]);
    assert!(ending.elapsed() >= Duration::from_secs(2), "early");
}

#[test]
fn beats_of_a_file_and_of_the_socket_count_alike() {
    let options = [
        "--enable-heartbeat",
        "--heartbeat-file",
        "hb",
        "--timeout",
        "1.5",
    ];
    let (mut run, name) = notifying(&options);
    run.ready();
    let start = Instant::now();
    let mut beat = start;
    for word in ["beat", "notify WATCHDOG=1"].iter().cycle() {
        beat = Instant::now();
        run.tell(word);
        let_pass(Duration::from_millis(400));
        if start.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    let heartbeat = &instance(&name)["heartbeat"];
    assert!(
        heartbeat["file"].as_str().unwrap().ends_with("/hb"),
        "{heartbeat}"
    );
    assert!(
        heartbeat["tightest_margin_s"].as_f64().unwrap() > 0.1,
        "{heartbeat}"
    );
    run.hangs_after(beat, Duration::from_millis(1500));
}

#[test]
fn the_command_finds_the_socket_and_the_timeout_and_no_number_of_a_process() {
    let setup = Setup::puppet(&["--sd-notify", "--timeout", "2.5"]);
    let theirs = [
        ("NOTIFY_SOCKET", "/nowhere"),
        ("WATCHDOG_PID", "1"),
        ("WATCHDOG_USEC", "7"),
    ];
    let setup = theirs
        .into_iter()
        .fold(setup, |setup, (name, value)| setup.env(name, value));
    let mut run = setup.start();
    run.ready();
    assert!(socket_of(&mut run).is_absolute());
    for (name, line) in [
        ("WATCHDOG_USEC", "env WATCHDOG_USEC=2500000"),
        ("WATCHDOG_PID", "env WATCHDOG_PID unset"),
        ("HEARTBEAT_FILE", "env HEARTBEAT_FILE unset"),
    ] {
        run.send(&format!("env {name}"));
        assert_eq!(run.said(&format!("env {name}")), line);
    }
}

#[test]
fn what_makes_no_sense_is_dropped_and_counted_and_closes_nothing() {
    let (mut run, name) = notifying(&["--timeout", "1000"]);
    run.ready();
    let socket = socket_of(&mut run);
    let sender = UnixDatagram::unbound().unwrap();
    let long = vec![b'x'; 65_536];
    let bad: [&[u8]; 4] = [
        b"WATCHDOG=trigger\xff",
        b"WATCHDOG=trigger\0x",
        &long[..4097],
        &long,
    ];
    for message in bad {
        sender.send_to(message, &socket).unwrap();
    }
    // What is merely unknown is no offence.
    sender.send_to(b"", &socket).unwrap();
    sender
        .send_to(b"MAINPID=1\nnonsense\nX=1", &socket)
        .unwrap();
    assert_eq!(instance(&name)["notify_dropped"], bad.len());
    run.tell("notify READY=1");
    assert_eq!(instance(&name)["state"], "running");
}

/// Sends `text` from a process of another user, `count` times.
fn sent_by_a_stranger(socket: &Path, text: &str, count: u32) -> Command {
    let script = "import os, socket, sys
os.setuid(65534)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[3])): s.sendto(sys.argv[2].encode(), sys.argv[1])";
    let mut python = Command::new("python3");
    python
        .args(["-c", script])
        .arg(socket)
        .arg(text)
        .arg(count.to_string());
    python
}

#[test]
fn a_strangers_message_is_dropped_and_counted() {
    if !is_root() {
        return;
    }
    let (mut run, name) = notifying(&["--timeout", "1000"]);
    run.ready();
    let socket = socket_of(&mut run);
    let status = sent_by_a_stranger(&socket, "WATCHDOG=trigger", 3)
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(instance(&name)["notify_dropped"], 3);
    assert_eq!(instance(&name)["state"], "starting");
}

#[test]
fn a_strangers_flood_is_in_nobodys_way() {
    if !is_root() {
        return;
    }
    let (mut run, name) = notifying(&["--timeout", "3"]);
    run.ready();
    run.tell("notify READY=1");
    let socket = socket_of(&mut run);
    let mut flood = sent_by_a_stranger(&socket, "WATCHDOG=trigger", 100_000)
        .spawn()
        .unwrap();
    let start = Instant::now();
    while flood.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(5) {
        run.tell("notify WATCHDOG=1");
        let_pass(Duration::from_millis(300));
    }
    let shown = instance(&name);
    assert_eq!(
        [&shown["state"], &shown["run"]],
        [&json!("running"), &json!(1)]
    );
    assert!(shown["notify_dropped"].as_u64().unwrap() > 1000, "{shown}");
    let _ = flood.kill();
    let _ = flood.wait();
}

#[test]
fn a_command_that_became_another_user_is_heard() {
    if !is_root() {
        return;
    }
    let script = "import os, socket, time
os.setuid(65534)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])
print('said', flush=True)
time.sleep(1000)";
    let name = new_name();
    let words = ["--sd-notify", "--name", &name, "python3", "-c", script];
    let mut run = Setup::new(words).start();
    run.said("said");
    assert_eq!(instance(&name)["state"], "running");
}

/// A client that nobody here wrote: it says that it is ready and what it does, and beats; then it hangs.
fn is_understood(words: &[&str]) {
    let name = new_name();
    let options = [
        "--sd-notify",
        "--name",
        &name,
        "--timeout",
        "2",
        "--initial-check-delay",
        "100",
    ];
    let mut run = Setup::new(options.iter().chain(words)).start();
    run.said("beaten");
    let shown = instance(&name);
    assert_eq!([&shown["state"], &shown["status"]], ["running", "hello"]);
    assert!(!shown["heartbeat"]["last_beat_s"].is_null(), "{shown}");
    assert_eq!(shown["notify_dropped"], 0);
    run.logged(&["heartbeat timeout"]);
}

#[test]
fn systemd_notify_in_a_shell_script_is_understood() {
    if there_is("systemd-notify") {
        // It waits for its barrier, and is gone when its message is read.
        let script =
            "systemd-notify --ready --status=hello && systemd-notify WATCHDOG=1 && echo beaten
            sleep 1000";
        is_understood(&["sh", "-c", script]);
    }
}

#[test]
fn the_python_module_sdnotify_is_understood() {
    if there_is_module("sdnotify") {
        let script = "import sdnotify, time
n = sdnotify.SystemdNotifier(debug=True)
n.notify('READY=1'); n.notify('STATUS=hello'); n.notify('WATCHDOG=1')
print('beaten', flush=True); time.sleep(1000)";
        is_understood(&["python3", "-c", script]);
    }
}

#[test]
fn the_python_module_systemd_watchdog_is_understood() {
    if there_is_module("systemd_watchdog") {
        let script = "import systemd_watchdog, time
w = systemd_watchdog.WatchDog()
assert w.is_enabled and w.timeout == 2000000, w.timeout
w.ready(); w.status('hello'); w.notify()
print('beaten', flush=True); time.sleep(1000)";
        is_understood(&["python3", "-c", script]);
    }
}

#[test]
fn the_rust_crate_sd_notify_is_understood() {
    let program = puppet().into_os_string().into_string().unwrap();
    let lines = "notify READY=1\\nSTATUS=hello\\nWATCHDOG=1";
    is_understood(&[&program, lines, "env beaten"]);
}

#[test]
fn the_sockets_directory_goes_with_the_supervisor_and_a_killed_ones_with_the_next() {
    let setup = Setup::puppet(&["--sd-notify", "--timeout", "1000"]);
    let (mut killed, _) = notifying(&["--timeout", "1000"]);
    killed.ready();
    let stale = socket_of(&mut killed);
    killed.signal(Signal::SIGKILL);
    gone(killed.pid());
    killed.code();
    // (Any of the other tests may have cleared it away by now.)
    let mut run = setup.start();
    run.ready();
    let socket = socket_of(&mut run);
    assert!(!stale.parent().unwrap().exists(), "{stale:?}");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
    assert!(!socket.parent().unwrap().exists(), "{socket:?}");
}

/// There each supervisor has the same process id: 1.
#[test]
fn what_was_left_by_the_first_process_of_a_container_is_cleared_by_the_next() {
    let namespace = "--user --map-root-user --pid --fork --kill-child --mount-proc";
    let start = || {
        let script = "echo address $NOTIFY_SOCKET; exec sleep 1000";
        let words = namespace.split(' ').chain([supervisor().to_str().unwrap()]);
        let words = words.chain(["--sd-notify", "--timeout", "1000", "sh", "-c", script]);
        let mut run = Setup::of("unshare".as_ref(), words).start();
        let line = run.said("address ");
        let socket = PathBuf::from(line.split_once(' ').unwrap().1);
        (run, socket.parent().unwrap().to_owned())
    };
    let (mut killed, stale) = start();
    killed.signal(Signal::SIGKILL);
    killed.code();
    let (run, fresh) = start();
    assert!(fresh.exists() && fresh != stale);
    assert!(eventually(|| !stale.exists()), "{stale:?}");
    drop(run);
    let _ = fs::remove_dir_all(fresh);
}

#[test]
fn where_nothing_can_be_written_the_socket_has_a_name_instead_of_a_place() {
    let words: [OsString; 4] = [
        "--sd-notify".into(),
        "sh".into(),
        "-c".into(),
        "echo address $NOTIFY_SOCKET; exec sleep 1000".into(),
    ];
    let prepare =
        "mount --make-rprivate /; mount -t tmpfs -o ro none /run; mount -t tmpfs -o ro none /mnt";
    let setup = Setup::inside(prepare, words).env("TMPDIR", "/mnt");
    let mut run = setup.start();
    let line = run.said("address ");
    assert!(line.starts_with("address @supervisor-notify-"), "{line}");
}

#[test]
fn a_descriptor_that_comes_along_is_not_kept() {
    let (mut run, _) = notifying(&["--timeout", "1000"]);
    run.ready();
    let script = "import array, os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
r, w = os.pipe()
for _ in range(100):
    s.sendmsg([b'FDSTORE=1'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [w]))], 0, os.sys.argv[1])
os.close(w)
assert os.read(r, 1) == b''";
    let count = || {
        fs::read_dir(format!("/proc/{}/fd", run.pid()))
            .unwrap()
            .count()
    };
    let before = count();
    let socket = {
        run.send("env NOTIFY_SOCKET");
        run.said("env NOTIFY_SOCKET=")
            .split_once('=')
            .unwrap()
            .1
            .to_owned()
    };
    let count = || {
        fs::read_dir(format!("/proc/{}/fd", run.pid()))
            .unwrap()
            .count()
    };
    // It ends when all of its descriptors were closed.
    let status = Command::new("python3")
        .args(["-c", script, &socket])
        .status()
        .unwrap();
    assert!(status.success());
    assert!(eventually(|| count() <= before), "{} of {before}", count());
}
