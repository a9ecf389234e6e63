//! Section 8: what it costs while nothing happens, in counts.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::*;

/// A deadline that does not come in a test.
const HEARTBEAT: [&str; 5] = [
    "--enable-heartbeat",
    "--heartbeat-file",
    "hb",
    "--timeout",
    "100",
];

/// Context switches of each thread, wanted and unwanted: proc_pid_status(5).
fn switches(pid: i32) -> Vec<(String, u64)> {
    let mut threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|thread| {
            let status = fs::read_to_string(thread.join("status")).unwrap();
            let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
            let sum = counts.map(|line| {
                line.split_whitespace()
                    .last()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
            });
            (
                thread.file_name().unwrap().to_string_lossy().into_owned(),
                sum.sum(),
            )
        })
        .collect();
    threads.sort();
    threads
}

/// Waits until the counts stand still, then for `time`; what they were before and after.
pub fn idle_for(pid: i32, time: Duration) -> [Vec<(String, u64)>; 2] {
    let mut last = Vec::new();
    assert!(eventually(|| {
        // Longer than a thread that has something to do waits for a processor.
        let_pass(Duration::from_millis(200));
        let now = switches(pid);
        std::mem::replace(&mut last, now.clone()) == now
    }));
    let_pass(time);
    [last, switches(pid)]
}

#[test]
fn without_heartbeat_there_is_one_thread_and_it_sleeps() {
    let mut run = Setup::puppet(&[]).start();
    run.ready();
    let [before, after] = idle_for(run.pid(), Duration::from_secs(2));
    assert_eq!(before.len(), 1, "{before:?}");
    assert_eq!(before, after);
    let maps = fs::read_dir(format!("/proc/{}/fd", run.pid())).unwrap();
    let inotify = maps
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .any(|link| link.to_string_lossy().contains("inotify"));
    assert!(!inotify, "there is a watcher");
}

#[test]
fn signals_are_the_main_threads_alone() {
    let mut run = Setup::puppet(&["--enable-heartbeat", "--heartbeat-file", "hb"]).start();
    run.ready();
    // While it launches, the main thread has them blocked, too.
    run.logged(&["started"]);
    let threads = fs::read_dir(format!("/proc/{}/task", run.pid())).unwrap();
    let mut blocked: Vec<u64> = threads
        .map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap())
        .map(|status| {
            let line = status.lines().find(|line| line.starts_with("SigBlk:"));
            u64::from_str_radix(line.unwrap().split_whitespace().last().unwrap(), 16).unwrap()
        })
        .collect();
    blocked.sort_unstable();
    assert_eq!(blocked.len(), 3);
    assert_eq!(blocked[0], 0, "the main thread");
    // SIGHUP to SIGSYS, but for the two that nobody can block.
    let all = 0x7fff_ffff & !(1 << (9 - 1)) & !(1 << (19 - 1));
    assert!(
        blocked[1..].iter().all(|set| set & all == all),
        "{blocked:x?}"
    );
}

#[test]
fn with_heartbeat_all_threads_sleep_between_events() {
    let mut run = Setup::puppet(&HEARTBEAT).start();
    run.ready();
    run.tell("beat");
    let [before, after] = idle_for(run.pid(), Duration::from_secs(2));
    // The main loop, notify's, and the one that moves the watch.
    assert_eq!(before.len(), 3, "{before:?}");
    assert_eq!(before, after);
}

#[test]
fn beats_do_not_wake_the_main_loop() {
    let mut run = Setup::puppet(&HEARTBEAT).start();
    run.ready();
    run.tell("beat");
    let [before, _] = idle_for(run.pid(), Duration::ZERO);
    for _ in 0..100 {
        run.tell("beat");
        // Nor does it have to move the watch.
        run.tell("rename");
    }
    let [_, after] = idle_for(run.pid(), Duration::ZERO);
    let main = run.pid().to_string();
    let of = |threads: &[(String, u64)], is_main: bool| -> u64 {
        let wanted = threads.iter().filter(|(id, _)| (*id == main) == is_main);
        wanted.map(|(_, count)| count).sum()
    };
    // Once or twice it may go to sleep only now, on a busy machine; a wake-up a beat would be 200.
    let woken = of(&after, true) - of(&before, true);
    assert!(woken <= 2, "the main loop woke {woken} times");
    assert!(
        of(&after, false) - of(&before, false) >= 20,
        "the watcher saw them"
    );
}

#[test]
fn beats_that_come_fast_wake_the_watcher_less_often_than_they_come() {
    let mut run = Setup::puppet(&HEARTBEAT).start();
    run.ready();
    run.tell("beat");
    let [before, _] = idle_for(run.pid(), Duration::ZERO);
    for _ in 0..300 {
        run.tell("beat");
    }
    let [_, after] = idle_for(run.pid(), Duration::ZERO);
    let sum = |threads: &[(String, u64)]| threads.iter().map(|(_, count)| count).sum::<u64>();
    let woken = sum(&after) - sum(&before);
    // Each of its own would be 300; and a rest takes a tenth of a second, in which come some dozen.
    assert!(woken < 150, "{woken} times for 300 beats");
}

#[test]
fn the_main_loop_wakes_at_most_once_per_timeout() {
    let timeout = Duration::from_millis(1500);
    let options = [
        "--enable-heartbeat",
        "--heartbeat-file",
        "hb",
        "--timeout",
        "1.5",
    ];
    let mut run = Setup::puppet(&options).start();
    run.ready();
    run.tell("beat");
    // Being pushed off the processor by others is no wake-up: only those that were wanted count.
    let woken = |pid: i32| -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{pid}/status")).unwrap();
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.unwrap().trim().parse().unwrap()
    };
    // The first beat made the file, and the watch was moved to it.
    idle_for(run.pid(), Duration::ZERO);
    let before = woken(run.pid());
    let start = Instant::now();
    while start.elapsed() < timeout * 4 {
        run.tell("beat");
        let_pass(Duration::from_millis(20));
    }
    let count = woken(run.pid()) - before;
    let timeouts = start.elapsed().as_secs_f64() / timeout.as_secs_f64();
    assert!(
        count as f64 <= timeouts + 2.0,
        "{count} in {timeouts:.1} timeouts"
    );
    assert!(count >= 3, "{count}: it does wake at its deadlines");
}

#[test]
fn a_hundred_restarts_leave_threads_and_descriptors_as_they_were() {
    let options = [
        "--backoff-factor",
        "0",
        "--enable-heartbeat",
        "--heartbeat-file",
        "hb",
        "--timeout",
        "100",
    ];
    let mut run = Setup::puppet(&options).start();
    let count = |pid: i32, what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    run.ready();
    run.logged(&["started"]);
    let before = [count(run.pid(), "task"), count(run.pid(), "fd")];
    for _ in 0..100 {
        run.tell("beat");
        run.send("exit 1");
        run.ready();
        run.logged(&["started"]);
    }
    assert_eq!(before, [count(run.pid(), "task"), count(run.pid(), "fd")]);
}

#[test]
fn with_everything_on_all_threads_sleep_between_events() {
    let options = [
        "--enable-heartbeat",
        "--heartbeat-file",
        "hb",
        "--sd-notify",
        "--timeout",
        "100",
        "--on-event",
        "true",
        "--on-give-up",
        "true",
        "--metrics-file",
        "m.prom",
    ];
    let name = new_name();
    let mut run = Setup::puppet(&[&options[..], &["--name", &name]].concat()).start();
    run.ready();
    run.tell("beat");
    run.tell("notify READY=1\\nWATCHDOG=1");
    instance(&name);
    let [before, after] = idle_for(run.pid(), Duration::from_secs(2));
    assert_eq!(before.len(), 3, "{before:?}");
    assert_eq!(before, after);
}
