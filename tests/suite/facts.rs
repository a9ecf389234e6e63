//! What tests wait for, and what they read out of a line.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

/// Far beyond anything that a healthy run needs, also with both cores busy.
pub const CEILING: Duration = Duration::from_secs(30);

/// What asks for the end, and our code where the command obeys.
pub const STOPS: [(Signal, i32); 3] = [
    (Signal::SIGTERM, 0),
    (Signal::SIGINT, 130),
    (Signal::SIGQUIT, 131),
];

/// Asks again and again until it is so, or the ceiling is reached; whether it is so.
pub fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    let ceiling = Instant::now() + CEILING;
    while !is_so() {
        if Instant::now() > ceiling {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    true
}

/// Not a wait for something: time that has to pass.
pub fn let_pass(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        std::thread::park_timeout(left);
    }
}

/// Whether the process exists and is no zombie.
pub fn alive(pid: i32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the name, which is in parentheses: proc_pid_stat(5).
        Ok(stat) => !stat.rsplit(") ").next().unwrap().starts_with(['Z', 'X']),
        Err(_) => false,
    }
}

/// Waits until the process is gone.
pub fn gone(pid: i32) {
    assert!(eventually(|| !alive(pid)), "process {pid} is still there");
}

/// What descends from the process.
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in list.split_whitespace().map(|pid| pid.parse().unwrap()) {
            found.push(child);
            found.extend(descendants(child));
        }
    }
    found
}

/// Whether the process handles this signal: proc_pid_status(5).
pub fn handles(pid: i32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("SigCgt:"));
    let digits = line.and_then(|line| line.split_whitespace().last());
    let bits = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    bits.unwrap_or(0) & (1 << (signal as i32 - 1)) != 0
}

/// The state of a process, as ps(1) shows it.
pub fn state(pid: i32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().chars().next().unwrap()
}

/// Whether it waits for signals like this one. (Some handle it before they know what to do about it: as
/// long as they run, that may be so.)
pub fn waits_for(pid: i32, signal: Signal) -> bool {
    handles(pid, signal)
        && (0..20).all(|_| {
            std::thread::park_timeout(Duration::from_millis(1));
            state(pid) == 'S'
        })
}

/// The last number in a line.
pub fn number_in(line: &str) -> i32 {
    line.rsplit(|c: char| !c.is_ascii_digit())
        .find(|word| !word.is_empty())
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no number in {line:?}"))
}

/// The value of a field of a line of the log.
pub fn field<'a>(line: &'a str, key: &str) -> &'a str {
    line.split(' ')
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {key}= in {line:?}"))
}

/// The events of a log, without their stamps and levels, fields cut off.
pub fn events(log: &str) -> Vec<String> {
    log.lines()
        .filter_map(|line| line.split_once("[SUPERVISOR] "))
        .map(|(_, event)| {
            let words = event.split(' ').take_while(|word| !word.contains('='));
            words.collect::<Vec<_>>().join(" ")
        })
        .collect()
}

/// The seconds from one line of the log to another, by their stamps: when they were written, however
/// late they are read here.
pub fn between(one: &str, other: &str) -> f64 {
    let time_of_day = |line: &str| {
        let number = |range: std::ops::Range<usize>| line[range].parse::<f64>().unwrap();
        number(11..13) * 3600.0 + number(14..16) * 60.0 + number(17..23)
    };
    (time_of_day(other) - time_of_day(one)).rem_euclid(86_400.0)
}
