//! Sections 4 and 6: nothing that the command started is left behind, wherever it hid, and nobody
//! else is ever signalled.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::harness::*;
use crate::limits::{refuse, with_faults};

/// `tests/brood.c`, built once.
pub fn brood() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| compile("tests/brood.c", "brood", &["-pthread"]))
}

/// `supervisor` with these options and this brood. All of them carry the test's mark.
fn with_brood(options: &[&str], kind: &[&str]) -> Setup {
    let words = options.iter().copied();
    let words = words.chain([brood().to_str().unwrap()]);
    marked(Setup::new(words.chain(kind.iter().copied())))
}

fn marked(setup: Setup) -> Setup {
    let mark = setup.directory().path().to_owned();
    setup.env("BROOD", mark)
}

/// The living processes that carry the mark of this run, but the supervisor. (A thread tells it, too,
/// where the first one has ended before the others.)
fn living(run: &Run) -> Vec<i32> {
    let mark = format!("BROOD={}\0", run.directory.path().display());
    let has_mark = |thread: PathBuf| {
        let environ = fs::read(thread.join("environ")).unwrap_or_default();
        let mut windows = environ.windows(mark.len());
        windows.any(|window| window == mark.as_bytes())
    };
    let in_directory = |path: PathBuf| {
        let entries = fs::read_dir(path).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path()))
    };
    let mut found: Vec<i32> = in_directory("/proc".into())
        .filter(|process| in_directory(process.join("task")).any(has_mark))
        .filter_map(|process| process.file_name()?.to_str()?.parse().ok())
        .filter(|pid| *pid != run.pid())
        .collect();
    found.sort_unstable();
    found
}

const HIDING: [&[&str]; 5] = [
    &["daemon"],
    &["group"],
    &["chain", "50"],
    &["flat", "20"],
    &["thread"],
];

#[test]
fn a_stop_reaches_everything_wherever_it_hid() {
    for kind in HIDING {
        let mut run = with_brood(&["--grace-period", "1000"], kind).start();
        run.said("brood ready");
        assert!(living(&run).len() > 1, "{kind:?}");
        run.signal(Signal::SIGTERM);
        assert_eq!(run.code(), 0, "{kind:?}");
        assert_eq!(living(&run), [0; 0], "{kind:?}");
    }
}

#[test]
fn what_does_not_obey_is_killed_wherever_it_hid() {
    for kind in HIDING {
        let kind: Vec<&str> = kind.iter().copied().chain(["deaf"]).collect();
        // Long enough for the command itself, which heeds SIGTERM, on a busy machine.
        let mut run = with_brood(&["--grace-period", "0.7"], &kind).start();
        run.said("brood ready");
        run.signal(Signal::SIGTERM);
        run.logged(&["exited", "signal=SIGTERM"]);
        let killing = run.logged(&["killing"]);
        assert_eq!(run.code(), 0, "{kind:?}");
        assert_eq!(living(&run), [0; 0], "{kind:?}");
        let expected = match kind[0] {
            "chain" => "50",
            "flat" => "20",
            _ => "1",
        };
        assert_eq!(field(&killing, "processes"), expected, "{kind:?}");
    }
}

#[test]
fn after_a_crash_everything_is_gone_before_the_next_run() {
    for kind in HIDING {
        let kind: Vec<&str> = kind.iter().copied().chain(["deaf", "exit"]).collect();
        let options = [
            "--grace-period",
            "0.1",
            "--backoff-factor",
            "0",
            "--max-restarts",
            "2",
        ];
        let mut run = with_brood(&options, &kind).start();
        for _ in 0..3 {
            run.said("brood ready");
            run.logged(&["exited", "code=1"]);
            run.logged(&["reason=leftovers"]);
            run.logged(&["killing"]);
        }
        assert_eq!(run.code(), 1, "{kind:?}");
        assert_eq!(living(&run), [0; 0], "{kind:?}");
        assert!(!run.log().contains("remain"), "{}", run.log());
    }
}

#[test]
fn nothing_of_a_run_is_left_when_the_next_one_starts() {
    // The command itself says how many processes there are when it starts.
    let script = "set -- /proc/[0-9]*; echo there are $#; exec \"$0\" daemon deaf exit";
    let options = ["--grace-period", "0.05", "--backoff-factor", "0"];
    let limit = ["--max-restarts", "3", "sh", "-c", script];
    let words = options.into_iter().chain(limit);
    let mut run = in_namespace(words.chain([brood().to_str().unwrap()])).start();
    for _ in 0..4 {
        // The first of the namespace, the supervisor, itself.
        assert_eq!(run.said("there are "), "there are 3");
    }
    assert_eq!(run.said("code "), "code 1 processes 1");
}

#[test]
fn with_keep_descendants_a_daemon_outlives_a_stop() {
    let options = ["--keep-descendants", "--log-file", "log"];
    let mut run = with_brood(&options, &["daemon"]).start();
    let command = number_in(&run.said("brood ready"));
    let daemon: Vec<i32> = living(&run)
        .into_iter()
        .filter(|pid| *pid != command)
        .collect();
    assert_eq!(daemon.len(), 1);
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
    assert_eq!(living(&run), daemon);
    kill(Pid::from_raw(daemon[0]), Signal::SIGKILL).unwrap();
}

/// To prove that the tests above could fail.
#[test]
fn without_a_subreaper_a_daemon_survives_and_a_warning_says_so() {
    let words = ["--log-file", "log", brood().to_str().unwrap(), "daemon"];
    let setup = with_faults(marked(Setup::new(words)));
    refuse(setup.directory(), "subreaper", Errno::EINVAL);
    let mut run = setup.start();
    run.said("brood ready");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
    let left = living(&run);
    assert_eq!(left.len(), 1);
    kill(Pid::from_raw(left[0]), Signal::SIGKILL).unwrap();
    let log = fs::read_to_string(run.directory.join("log")).unwrap();
    assert!(
        log.contains("WARN [SUPERVISOR] orphans not adopted"),
        "{log}"
    );
}

#[test]
fn processes_that_were_there_before_survive_everything() {
    // A shell's background jobs become our children when the shell executes us in its place. Two of
    // them start something and end while we run, one a neighbour in our group and one a daemon: these
    // orphans become our children, too.
    let job = "sh -c 'echo a job; read line < go; $0 sleep 1000 & echo orphan $!'";
    let script = format!(
        "mkfifo go start; sleep 1000 & {job} env & {job} setsid & read line < start; exec \"$@\""
    );
    let options = ["--grace-period", "0.05", "--backoff-factor", "0"];
    let rest = ["--max-restarts", "2", "--log-file", "log"];
    let brood = [brood().to_str().unwrap(), "daemon", "deaf", "exit"];
    let words = ["-c", &script, "sh", supervisor().to_str().unwrap()];
    let words = words.into_iter().chain(options).chain(rest).chain(brood);
    let mut run = marked(Setup::of("sh".as_ref(), words)).start();
    run.said("a job");
    run.said("a job");
    fs::write(run.directory.join("start"), "go\n").unwrap();
    run.said("brood ready");
    let mut go = fs::OpenOptions::new()
        .append(true)
        .open(run.directory.join("go"))
        .unwrap();
    std::io::Write::write_all(&mut go, b"go\ngo\n").unwrap();
    let orphans = [0; 2].map(|_| number_in(&run.said("orphan ")));
    assert_eq!(run.code(), 1);
    let left = living(&run);
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(
        orphans.iter().all(|orphan| left.contains(orphan)),
        "{orphans:?} {left:?}"
    );
    for pid in left {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn nobody_is_told_to_end_twice() {
    // A child that says how often, and a daemon whose parent is long gone.
    let script = "$0 counts child & setsid $0 counts daemon & wait";
    let brood = brood().to_str().unwrap();
    let mut run = Setup::new(["--grace-period", "0.5", "sh", "-c", script, brood]).start();
    run.said("listens");
    run.said("listens");
    run.signal(Signal::SIGTERM);
    run.logged(&["killing"]);
    assert_eq!(run.code(), 0);
    for who in ["told child", "told daemon"] {
        let output = run.output();
        assert_eq!(output.matches(who).count(), 1, "{output}");
    }
}

#[test]
fn who_is_forked_while_the_command_ends_is_told_too() {
    let words = ["--grace-period", "1000", brood().to_str().unwrap(), "late"];
    let mut run = Setup::new(words).start();
    run.said("listens");
    nix::unistd::mkfifo(&run.directory.join("go"), Mode::S_IRWXU).unwrap();
    run.signal(Signal::SIGTERM);
    run.said("late");
    fs::write(run.directory.join("go"), "go\n").unwrap();
    run.said("told");
    assert_eq!(run.code(), 0);
}

/// `script` becomes a brood that `saves`, and so many say that they listen.
fn a_helper_is_spared(prepare: &str, options: &[&str], script: &str, listeners: usize) {
    let command = ["sh", "-c", script, brood().to_str().unwrap()];
    let words = ["--grace-period", "1000"].iter().chain(options);
    let words = words.chain(&command);
    let mut run = Setup::inside(prepare, words).start();
    nix::unistd::mkfifo(&run.directory.join("go"), Mode::S_IRWXU).unwrap();
    for _ in 0..listeners {
        run.said("listens");
    }
    run.signal(Signal::SIGTERM);
    run.said("late");
    // By then all have been told who are.
    run.logged(&["stopping"]);
    fs::write(run.directory.join("go"), "go\n").unwrap();
    assert_eq!(run.said("helper"), "helper saved", "{script}");
    assert_eq!(run.code(), 0);
}

/// Where the last process id that was given out can't be asked for.
const NO_NUMBERS: &str =
    "cd /proc/sys/kernel; [ ! -e ns_last_pid ] || mount --bind /dev/null ns_last_pid; cd -";

#[test]
fn what_the_command_starts_when_it_is_told_to_end_is_not_told() {
    let alone = "exec $0 saves";
    // It ends only when these have: they are told, while it lives.
    let with_others = "$0 heeds & setsid $0 heeds & exec $0 saves";
    for _ in 0..10 {
        a_helper_is_spared("true", &[], alone, 1);
        a_helper_is_spared("true", &[], with_others, 3);
    }
    for _ in 0..3 {
        a_helper_is_spared(NO_NUMBERS, &[], alone, 1);
        a_helper_is_spared(NO_NUMBERS, &[], with_others, 3);
        a_helper_is_spared("true", &["--keep-descendants"], alone, 1);
    }
}

#[test]
fn more_ends_than_are_taken_at_once_are_taken_one_after_another() {
    let script = "echo up; read line; exec \"$0\" orphans 700";
    let mut run = Setup::new(["sh", "-c", script, brood().to_str().unwrap()]).start();
    run.said("up");
    // They end while we do not run, so that all are announced at once.
    run.signal(Signal::SIGSTOP);
    run.send("go");
    let command = number_in(&run.said("brood ready"));
    let children = format!("/proc/{0}/task/{0}/children", run.pid());
    let count = || {
        fs::read_to_string(&children)
            .unwrap()
            .split_whitespace()
            .count()
    };
    assert!(eventually(|| count() > 256), "{}", count());
    run.signal(Signal::SIGCONT);
    assert!(eventually(|| count() == 1), "{}", count());
    assert!(alive(command));
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
}

#[test]
fn an_orphan_that_is_reaped_is_not_the_commands_end() {
    let mut run = with_brood(&[], &["orphans", "1000"]).start();
    let command = number_in(&run.said("brood ready"));
    // All of them are reaped while it runs.
    let children = format!("/proc/{0}/task/{0}/children", run.pid());
    let only = format!("{command} ");
    assert!(eventually(|| fs::read_to_string(&children).unwrap() == only));
    assert!(alive(command));
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
    let expected = ["started", "signal", "stopping", "exited", "finished"];
    assert_eq!(events(&run.log()), expected);
}

#[test]
fn a_thousand_processes_are_gone_300_ms_after_the_grace() {
    let mut run = with_brood(&["--grace-period", "0.5"], &["flat", "1000", "deaf"]).start();
    run.said("brood ready");
    run.signal(Signal::SIGTERM);
    let stopping = run.logged(&["stopping"]);
    let killing = run.logged(&["killing"]);
    assert_eq!(field(&killing, "processes"), "1000");
    let finished = run.logged(&["finished code=0"]);
    assert_eq!(run.code(), 0);
    assert_eq!(living(&run), [0; 0]);
    let took = between(&stopping, &finished) - 0.5;
    // Far more than what is promised for an idle machine: a thousand others run here.
    assert!(took < 8.0, "{took}\n{}", run.log());
}

/// `supervisor` with these words, as a child of the first process of a pid namespace, which tells its
/// exit code and how many processes are there then. Few numbers, where the kernel can limit them for a
/// namespace (Linux 6.14), so that a storm that is not ended fills nothing else.
fn in_namespace<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Setup {
    let script = "case $(uname -r) in
            [1-5].*|6.[0-9].*|6.1[0-3].*) ;;
            *) echo 1000 > /proc/sys/kernel/pid_max ;;
        esac
        \"$@\"
        code=$?; set -- /proc/[0-9]*; echo \"code $code processes $#\"";
    let unshare = [
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        script,
        "sh",
    ];
    let words = words.into_iter().map(|word| word.as_ref().to_owned());
    let unshare = unshare.iter().map(std::ffi::OsString::from);
    Setup::of(
        "unshare".as_ref(),
        unshare.chain([supervisor().into()]).chain(words),
    )
}

#[test]
fn processes_that_fork_while_they_are_killed_are_ended() {
    let options = ["--grace-period", "0.1", "--backoff-factor", "0"];
    let limit = ["--max-restarts", "2", brood().to_str().unwrap()];
    let words = options.into_iter().chain(limit);
    let mut run = in_namespace(words.chain(["comets", "8", "deaf", "exit"])).start();
    assert_eq!(run.said("code "), "code 1 processes 1");
    run.code();
    let log = run.log();
    assert_eq!(log.matches("killing").count(), 3, "{log}");
    assert!(!log.contains("remain"), "{log}");
}
