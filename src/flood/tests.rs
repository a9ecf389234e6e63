//! The flood against a clock that is moved by hand.

use nix::sys::signal::Signal;

use super::*;
use crate::exit::{Ended, Exit};
use crate::report::Reason;

struct Log {
    flood: Flood,
    now: Instant,
    runs: u64,
    told: Vec<Report>,
}

impl Log {
    fn new() -> Self {
        Self::at(LevelFilter::Info)
    }

    fn at(level: LevelFilter) -> Self {
        let now = crate::clock::now();
        Self {
            flood: Flood::new(level, now),
            now,
            runs: 0,
            told: Vec::new(),
        }
    }

    fn report(&mut self, report: Report) {
        let told = self.flood.take(self.now, report);
        self.told.extend(told);
    }

    /// Time passes, and what is due is told when it is.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.flood.deadline().filter(|due| *due <= end) {
            self.now = due;
            let told = self.flood.due(due);
            self.told.extend(told);
        }
        self.now = end;
    }

    fn start(&mut self) {
        self.runs += 1;
        self.report(Report::Started {
            pid: 1,
            run: self.runs,
        });
    }

    /// A run of `length`, in three lines.
    fn run(&mut self, length: Duration) {
        self.start();
        self.pass(length);
        self.report(Report::Exited {
            pid: 1,
            ended: Ended::Code(1),
            uptime: length,
        });
        self.report(Report::Restarting {
            restart: self.runs,
            limit: None,
            delay: Duration::ZERO,
        });
    }

    fn signal(&mut self, action: &'static str) {
        let signal = Signal::SIGUSR1;
        self.report(Report::Signal { signal, action });
    }

    fn take(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.told)
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The sum of all counts, and how many other lines there are.
fn tally(told: &[Report]) -> (u64, usize) {
    let (mut left_out, mut lines) = (0, 0);
    for report in told {
        if let Report::LinesLeftOut { count } = report {
            assert_ne!(*count, 0);
            left_out += count;
        } else {
            lines += 1;
        }
    }
    (left_out, lines)
}

#[test]
fn a_burst_is_told_whole() {
    let mut log = Log::new();
    for _ in 0..BURST {
        log.run(millis(1));
    }
    assert_eq!(tally(&log.take()), (0, 3 * BURST as usize));
    assert_eq!(log.flood.deadline(), None);
}

#[test]
fn a_thousand_failures_a_minute_stay_readable_and_each_line_is_counted() {
    let mut log = Log::new();
    for _ in 0..1000 {
        log.run(millis(60));
    }
    // Among so many: a hundred runs, then twelve a minute, each with its count.
    let told = log.take();
    assert!((330..350).contains(&told.len()), "{}", told.len());
    log.report(Report::GivingUp {
        restarts: 1000,
        code: Exit(1),
    });
    let end = log.take();
    let (before, after) = (tally(&told), tally(&end));
    assert_eq!(before.0 + after.0 + (before.1 + after.1) as u64, 3001);
    assert!(matches!(end.last(), Some(Report::GivingUp { .. })));
}

#[test]
fn a_run_is_told_whole_or_not_at_all() {
    let mut log = Log::new();
    for _ in 0..1000 {
        log.run(millis(60));
    }
    let told = log.take();
    for (at, report) in told.iter().enumerate() {
        if matches!(report, Report::Started { .. }) {
            assert!(matches!(told[at + 1], Report::Exited { .. }));
            assert!(matches!(told[at + 2], Report::Restarting { .. }));
        }
    }
}

#[test]
fn a_run_that_lasts_is_told_when_it_has_lasted() {
    let mut log = Log::new();
    for _ in 0..BURST + 10 {
        log.run(Duration::ZERO);
    }
    log.take();
    log.start();
    assert_eq!(log.take(), []);
    log.pass(BRIEF - millis(1));
    assert_eq!(log.take(), []);
    log.pass(millis(1));
    let run = log.runs;
    let lines = [
        Report::LinesLeftOut { count: 30 },
        Report::Started { pid: 1, run },
    ];
    assert_eq!(log.take(), lines);
    assert_eq!(log.flood.deadline(), None);
    let stopping = Report::Stopping {
        pid: 1,
        reason: Reason::Heartbeat,
        grace: BRIEF,
    };
    log.report(stopping.clone());
    assert_eq!(log.take(), [stopping], "it is told to its end");
}

#[test]
fn runs_of_a_second_and_more_are_never_left_out() {
    let mut log = Log::new();
    for _ in 0..1000 {
        log.run(BRIEF);
    }
    assert_eq!(tally(&log.take()), (0, 3000));
}

#[test]
fn what_matters_is_told_at_once_after_all_that_led_to_it() {
    let mut log = Log::new();
    for _ in 0..BURST + 1 {
        log.run(Duration::ZERO);
    }
    log.take();
    log.start();
    log.signal("stop");
    let told = log.take();
    assert_eq!(tally(&told), (3, 2));
    assert!(matches!(told[0], Report::LinesLeftOut { .. }));
    assert!(matches!(told[1], Report::Started { .. }));
    assert!(matches!(told[2], Report::Signal { .. }));
}

#[test]
fn after_a_pause_a_burst_is_told_again() {
    let mut log = Log::new();
    for _ in 0..BURST * 2 {
        log.run(Duration::ZERO);
    }
    log.pass(EVERY * BURST);
    log.take();
    for _ in 0..BURST {
        log.run(Duration::ZERO);
    }
    assert_eq!(tally(&log.take()), (0, 3 * BURST as usize));
}

#[test]
fn signals_for_the_command_are_limited_and_a_stop_is_not() {
    let mut log = Log::new();
    for _ in 0..BURST + 20 {
        log.signal("forward");
    }
    assert_eq!(tally(&log.take()), (0, BURST as usize));
    log.pass(EVERY);
    assert_eq!(log.take(), [Report::LinesLeftOut { count: 20 }]);
    for _ in 0..1000 {
        log.signal("stop");
    }
    assert_eq!(tally(&log.take()), (0, 1000));
}

#[test]
fn what_the_log_does_not_show_is_not_counted_and_the_rest_is_limited_too() {
    let mut log = Log::at(LevelFilter::Warn);
    for _ in 0..BURST + 10 {
        log.run(Duration::ZERO);
    }
    log.pass(EVERY);
    // One line of each run; the last run, which is held when the time has passed, is told.
    assert_eq!(tally(&log.take()), (9, BURST as usize + 1));
    let mut quiet = Log::at(LevelFilter::Error);
    for _ in 0..BURST * 2 {
        quiet.run(Duration::ZERO);
    }
    quiet.pass(EVERY);
    assert_eq!(quiet.take(), []);
}
