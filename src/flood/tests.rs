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
        while let Some(due) = self.flood.deadline().filter(|due| *due < end) {
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
            margin: None,
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

    /// How many lines were left out and how many told, since the last call.
    fn tally(&mut self) -> (u64, usize) {
        (self.flood.left_out(), self.take().len())
    }

    fn take(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.told)
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_burst_is_told_whole() {
    let mut log = Log::new();
    for _ in 0..BURST {
        log.run(millis(1));
    }
    assert_eq!(log.tally(), (0, 3 * BURST as usize));
    assert_eq!(log.flood.deadline(), None);
}

#[test]
fn a_thousand_failures_a_minute_stay_readable_and_each_line_is_counted() {
    let mut log = Log::new();
    for _ in 0..1000 {
        log.run(millis(60));
    }
    log.report(Report::GivingUp {
        restarts: 1000,
        code: Exit(1),
    });
    assert!(matches!(log.told.last(), Some(Report::GivingUp { .. })));
    let (left_out, told) = log.tally();
    // A hundred runs, and twelve a minute.
    assert!((330..350).contains(&told), "{told}");
    assert_eq!(left_out + told as u64, 3001);
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
    for _ in 0..BURST + 11 {
        log.run(Duration::ZERO);
    }
    log.tally();
    log.start();
    assert_eq!(log.tally(), (3, 0));
    log.pass(BRIEF);
    assert_eq!(log.take(), []);
    log.pass(millis(1));
    let run = log.runs;
    assert_eq!(log.take(), [Report::Started { pid: 1, run }]);
    assert_eq!(log.flood.deadline(), None);
    let stopping = Report::Stopping {
        pid: 1,
        reason: Reason::Heartbeat,
        grace: BRIEF,
    };
    log.report(stopping.clone());
    assert_eq!(log.take(), [stopping], "it is told to its end");
}

/// A stalled supervisor learns at one instant that a run has lasted, has ended, and that the next
/// one has begun.
#[test]
fn a_run_that_lasted_while_nobody_looked_is_told_too() {
    let mut log = Log::new();
    for _ in 0..BURST + 11 {
        log.run(Duration::ZERO);
    }
    log.start();
    log.tally();
    log.now += Duration::from_secs(60);
    log.report(Report::Exited {
        pid: 1,
        ended: Ended::Code(1),
        uptime: Duration::from_secs(60),
        margin: None,
    });
    assert_eq!(log.tally(), (0, 2));
}

#[test]
fn runs_of_a_second_and_more_are_never_left_out_nor_held() {
    let mut log = Log::new();
    for _ in 0..1000 {
        log.run(BRIEF);
        assert_eq!(log.flood.deadline(), None);
    }
    assert_eq!(log.tally(), (0, 3000));
}

#[test]
fn what_matters_is_told_at_once_after_the_run_that_led_to_it() {
    let mut log = Log::new();
    for _ in 0..BURST + 2 {
        log.run(Duration::ZERO);
    }
    log.start();
    assert!(log.flood.is_holding());
    log.tally();
    log.signal("stop");
    let told = log.take();
    assert!(matches!(told[0], Report::Started { .. }));
    assert!(matches!(told[1], Report::Signal { .. }));
}

#[test]
fn after_a_pause_a_burst_is_told_again() {
    let mut log = Log::new();
    for _ in 0..BURST * 2 {
        log.run(Duration::ZERO);
    }
    log.pass(EVERY * BURST);
    log.tally();
    for _ in 0..BURST {
        log.run(Duration::ZERO);
    }
    assert_eq!(log.tally(), (0, 3 * BURST as usize));
}

#[test]
fn signals_for_the_command_are_limited_and_a_stop_is_not() {
    let mut log = Log::new();
    for _ in 0..BURST + 20 {
        log.signal("forward");
    }
    assert_eq!(log.tally(), (20, BURST as usize));
    for _ in 0..1000 {
        log.signal("stop");
    }
    assert_eq!(log.tally(), (0, 1000));
}

#[test]
fn what_the_log_does_not_show_is_not_counted_and_the_rest_is_limited_too() {
    for (level, lines) in [(LevelFilter::Warn, 1), (LevelFilter::Error, 0)] {
        let mut log = Log::at(level);
        for _ in 0..BURST + 11 {
            log.run(Duration::ZERO);
        }
        // The first run is none too many, the last one is still held.
        let told = lines * (BURST as usize + 1);
        assert_eq!(log.tally(), (lines as u64 * 9, told));
    }
}
