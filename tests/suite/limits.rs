//! The limits of the machine: whatever it refuses, supervision goes on, or does not begin and says why.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::harness::*;
use crate::heartbeat::beating;

/// `tests/faults.c`, built once.
fn faults() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| compile("tests/faults.c", "faults.so", &["-shared", "-fPIC"]))
}

/// Calls fail while a file with their name is in the test's directory.
pub fn with_faults(setup: Setup) -> Setup {
    let directory = setup.directory().path().to_owned();
    setup.env("FAULTS", directory).env("LD_PRELOAD", faults())
}

pub fn refuse(directory: &Directory, call: &str, errno: Errno) {
    fs::write(directory.join(call), (errno as i32).to_string()).unwrap();
}

#[test]
fn a_fork_that_is_refused_is_a_failed_run_and_not_the_end() {
    for (errno, text) in [
        (Errno::EAGAIN, "Resource temporarily unavailable"),
        (Errno::ENOMEM, "Cannot allocate memory"),
    ] {
        let options = ["--backoff-factor", "0.01", "--max-backoff", "0.02"];
        let setup = with_faults(Setup::puppet(&options));
        refuse(setup.directory(), "fork", errno);
        let mut run = setup.start();
        // The first launch, and one in the middle.
        for _ in 0..2 {
            run.logged(&["ERROR", "start failed", text]);
            run.logged(&["start failed", text]);
            fs::remove_file(run.directory.join("fork")).unwrap();
            run.ready();
            refuse(&run.directory, "fork", errno);
            run.send("exit 1");
        }
        run.logged(&["start failed", text]);
        run.signal(Signal::SIGTERM);
        assert_eq!(run.code(), 0);
    }
}

#[test]
fn where_there_is_no_memory_for_a_launch_it_is_a_failed_run_and_not_the_end() {
    let setup = with_faults(Setup::puppet(&["--backoff-factor", "0.01"]));
    refuse(setup.directory(), "memory", Errno::ENOMEM);
    let mut run = setup.start();
    run.logged(&["start failed", "Cannot allocate memory"]);
    fs::remove_file(run.directory.join("memory")).unwrap();
    run.ready();
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
}

#[test]
fn where_the_kernel_or_an_emulator_knows_no_vfork_a_launch_comes_to_the_same() {
    for (fault, value) in [
        ("clone", Errno::EINVAL),
        ("clone", Errno::ENOSYS),
        ("clone", Errno::EPERM),
        ("emulated", Errno::EPERM),
    ] {
        for (command, code) in [("false", 1), ("no-such-command", 127)] {
            let setup = with_faults(Setup::new([
                "--max-restarts",
                "1",
                "--backoff-factor",
                "0",
                command,
            ]));
            refuse(setup.directory(), fault, value);
            let mut run = setup.start();
            assert_eq!(run.code(), code, "{fault} {value}");
            let started = run.log().matches("started pid=").count();
            assert_eq!(started, if code == 1 { 2 } else { 0 }, "{fault} {value}");
        }
    }
}

/// Beats are looked for once per deadline: none is missed, and a hang is found a timeout later.
fn is_watched_by_looks(run: &mut Run) {
    // (One that can't be moved when the file is made is no watch.)
    let timeout = Duration::from_secs(2);
    run.logged(&[
        "WARN",
        "heartbeat events can't be had",
        "one look at the file per deadline",
    ]);
    run.ready();
    for _ in 0..5 {
        run.tell("beat");
        let_pass(timeout.mul_f64(0.4));
    }
    let before = Instant::now();
    run.tell("beat");
    let late = run.hangs_after(before, timeout);
    assert!(late < timeout + timeout / 4, "{late:?}");
    let log = run.log_so_far();
    assert_eq!(log.matches("events can't be had").count(), 1, "{log}");
    assert_eq!(log.matches("heartbeat timeout pid").count(), 1, "{log}");
}

#[test]
fn a_watcher_without_its_threads_looks_once_per_deadline() {
    for call in ["first_pthread_create", "pthread_create"] {
        let setup = with_faults(beating("2", &[]));
        refuse(setup.directory(), call, Errno::EAGAIN);
        let mut run = setup.start();
        is_watched_by_looks(&mut run);
        assert!(
            !run.log_so_far().contains("SendError"),
            "{call}: {}",
            run.log_so_far()
        );
        run.signal(Signal::SIGTERM);
        run.code();
    }
}

/// `cp -p` leaves size and modification time as they were: where no event tells, even a mark that a
/// chmod leaves, too, has to count.
#[test]
fn without_a_thread_a_write_that_sets_the_times_back_is_a_beat() {
    // In memory: a disk may keep `cp` waiting for longer than that.
    let file = format!(
        "--heartbeat-file=/dev/shm/supervisor-test-{}-cp",
        std::process::id()
    );
    let script = "hb=$HEARTBEAT_FILE; echo x > $hb.new; cp -p $hb.new $hb
        for i in 1 2 3 4 5 6 7 8 9; do cp -p $hb.new $hb; sleep 0.5; done; rm $hb.new";
    let options = ["--enable-heartbeat", &file, "--timeout=1.5"];
    let command = ["--max-restarts=0", "sh", "-c", script];
    let setup = with_faults(Setup::new(options.into_iter().chain(command)));
    refuse(setup.directory(), "first_pthread_create", Errno::EAGAIN);
    let (code, log) = setup.finish();
    assert_eq!(code, 0, "{log}");
}

/// What is changed below an overlay changes there, too, and no event tells.
#[test]
fn a_file_system_that_took_the_watch_and_tells_nothing_is_found_out() {
    let overlay = "mkdir top; mount -t tmpfs top top; mkdir top/lower top/upper top/work top/merged
        echo > top/upper/hb
        mount -t overlay -o lowerdir=top/lower,upperdir=top/upper,workdir=top/work overlay top/merged";
    let options = [
        "--enable-heartbeat",
        "--timeout=2",
        "--heartbeat-file=top/merged/hb",
    ];
    let puppet = puppet();
    let mut run = Setup::inside(overlay, options.iter().chain(&[puppet.to_str().unwrap()])).start();
    run.ready();
    for _ in 0..8 {
        run.tell("write top/upper/hb x");
        let_pass(Duration::from_millis(800));
    }
    let before = Instant::now();
    run.tell("write top/upper/hb x");
    let late = run.hangs_after(before, Duration::from_secs(2));
    assert!(late < Duration::from_millis(2500), "{late:?}");
    let log = run.log_so_far();
    assert_eq!(log.matches("events can't be had").count(), 1, "{log}");
    assert!(log.contains("no event tells"), "{log}");
}

#[test]
fn a_watch_that_is_refused_is_had_when_there_is_one_again() {
    let none = "echo 0 > /proc/sys/user/max_inotify_watches";
    let puppet = puppet();
    let words = [
        "--enable-heartbeat",
        "--heartbeat-file=hb",
        "--timeout=2",
        "--backoff-factor=0.01",
        puppet.to_str().unwrap(),
    ];
    let mut run = Setup::inside(none, words).start();
    is_watched_by_looks(&mut run);
    run.ready();
    run.tell("write /proc/sys/user/max_inotify_watches 100");
    // The first look that finds the file watches it, too.
    for _ in 0..4 {
        run.tell("beat");
        let_pass(Duration::from_millis(800));
    }
    let before = Instant::now();
    run.tell("beat");
    let late = run.hangs_after(before, Duration::from_secs(2));
    assert!(late < Duration::from_millis(500), "no watch for {late:?}");
}

/// The real limit, which does not bind root: no process and no thread beside the supervisor itself.
#[test]
fn a_user_without_processes_left_is_waited_for() {
    let words = [
        "--enable-heartbeat",
        "--heartbeat-file=hb",
        "--timeout=1",
        "--backoff-factor=0.05",
        "--max-backoff=0.1",
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6; do : > hb; sleep 0.5; done; exit 9",
    ];
    // The log is to be had without a thread.
    let limit = "resource.setrlimit(resource.RLIMIT_NPROC, (1, 100)); os.fchmod(2, 0o666)";
    // One who has no process yet.
    let user = 100_000 + std::process::id();
    let Some(setup) = Setup::as_user(user, limit, words) else {
        return;
    };
    fs::set_permissions(setup.directory().path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut run = setup.start();
    run.logged(&["heartbeat events can't be had"]);
    run.logged(&["start failed", "Resource temporarily unavailable"]);
    let pid = run.pid().to_string();
    let raised = Command::new("setpriv")
        .arg(format!("--reuid={user}"))
        .args(["prlimit", "--nproc=100:100", "--pid", &pid])
        .status();
    assert!(raised.unwrap().success());
    run.logged(&["started"]);
    run.logged(&["exited", "code=9"]);
    assert!(!run.log_so_far().contains("heartbeat timeout"));
}

#[test]
fn a_working_directory_that_was_removed_stops_nothing() {
    let script = "mkdir gone; cd gone; rmdir ../gone; exec \"$@\"";
    let words = ["-c", script, "sh", supervisor().to_str().unwrap()];
    let options = ["--backoff-factor=0.01", "--max-restarts=1"];
    let command = ["sh", "-c", "echo run; exit 6"];
    let all = words.iter().chain(&options).chain(&command);
    let mut run = Setup::of("sh".as_ref(), all).start();
    assert_eq!(run.code(), 6);
    assert_eq!(run.output(), "run\nrun\n");
    // A relative path has no meaning there, an absolute one has.
    for (file, code) in [("hb", 125), ("/dev/shm/supervisor-test-gone", 6)] {
        let heartbeat = ["--enable-heartbeat", "--heartbeat-file", file];
        let all = words
            .iter()
            .chain(&heartbeat)
            .chain(&options)
            .chain(&command);
        let (found, log) = Setup::of("sh".as_ref(), all).finish();
        assert_eq!(found, code, "{log}");
        if code == 125 {
            assert_eq!(log.lines().count(), 1, "{log}");
            assert!(
                log.contains("--heartbeat-file") && log.contains("absolute"),
                "{log}"
            );
        }
    }
}

#[test]
fn streams_that_are_closed_at_the_start_stop_nothing() {
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let script = format!("exec \"$@\" {closed}");
        let words = ["-c", &script, "sh", supervisor().to_str().unwrap()];
        let options = [
            "--enable-heartbeat",
            "--heartbeat-file=hb",
            "--backoff-factor=0.01",
        ];
        let command = ["sh", "-c", "echo >> runs; [ $(wc -l < runs) -gt 2 ]"];
        let mut run =
            Setup::of("sh".as_ref(), words.iter().chain(&options).chain(&command)).start();
        assert_eq!(run.code(), 0, "{closed}");
        let runs = fs::read_to_string(run.directory.join("runs")).unwrap();
        assert_eq!(runs.lines().count(), 3, "{closed}");
    }
}

/// The libraries that a program is linked to, and itself, put where they are into `root`.
fn install(program: &Path, root: &Directory) {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in libraries.map(Path::new).chain([program]) {
        let there = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::copy(file, there).unwrap();
    }
}

/// No `/proc`, no `/tmp`, no `/dev`, no `/etc`: a crash, what it leaves behind, a hang and a stop.
#[test]
fn a_bare_root_is_enough() {
    let root = Directory::new();
    install(supervisor(), &root);
    install(&puppet(), &root);
    let words = [
        "--user",
        "--map-root-user",
        "--root",
        root.path().to_str().unwrap(),
    ];
    let options = ["--enable-heartbeat", "--timeout=1", "--backoff-factor=0.01"];
    let names = [supervisor(), &puppet()].map(|path| path.to_str().unwrap().to_owned());
    let words = words.into_iter().chain([&*names[0]]).chain(options);
    let words = words.chain(["--heartbeat-file=/hb", "--grace-period=0.5", &names[1]]);
    let mut run = Setup::of("unshare".as_ref(), words).start();
    run.ready();
    run.tell("beat");
    run.logged(&["heartbeat timeout"]);
    run.ready();
    run.tell("child");
    run.send("exit 1");
    run.logged(&["stopping", "reason=leftovers"]);
    run.ready();
    run.tell("trap TERM");
    run.signal(Signal::SIGTERM);
    run.logged(&["killing"]);
    assert_eq!(run.code(), 137);
    assert!(!root.join("hb").exists(), "removed at the end");
}

#[test]
fn however_few_descriptors_there_are_the_command_is_launched() {
    let program = supervisor().display();
    for descriptors in 8..=16 {
        for more in ["", "--enable-heartbeat --heartbeat-file hb"] {
            let script = format!(
                "ulimit -n {descriptors}; exec {program} --max-restarts 0 {more} sh -c 'exit 7'"
            );
            let mut run = Setup::of("sh".as_ref(), ["-c", &script]).start();
            assert_eq!(run.code(), 7, "{descriptors} {more}");
        }
    }
}
