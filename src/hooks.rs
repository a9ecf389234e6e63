//! Which command of the user's is to be run for which event, and when (contract, section 12). Pure, as the
//! machine is: time is an argument, and what is to be done is the answer.
//!
//! Hooks run beside supervision: one at a time, each for so long, and what finds no room in the queue is
//! counted.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};

use crate::report::Report;

/// So many may wait.
const QUEUE: usize = 16;
/// So long one may run; and so long all together when everything else is over.
const LIMIT: Duration = Duration::from_secs(10);
/// So long the one for giving up may run.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(60);
/// So long one that was killed is waited for: it may sleep uninterruptibly.
const SETTLE: Duration = Duration::from_secs(1);
/// So much of a value is handed on, in bytes.
const LONGEST_VALUE: usize = 16_384;
/// What went wrong is told so often at most.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Which option's command it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// `--on-event`.
    Event,
    /// `--on-give-up`.
    GiveUp,
}

/// One run of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Whose command.
    pub which: Which,
    /// The event's name.
    pub event: &'static str,
    /// What its environment has besides.
    pub variables: Vec<(String, OsString)>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Start this one; nothing else runs.
    Start(Job),
    /// Kill the one that runs: its time is over.
    Kill,
}

/// The hooks that wait, and the one that runs.
#[derive(Debug, Default)]
pub struct Hooks {
    on_event: bool,
    on_give_up: bool,
    queue: VecDeque<Job>,
    running: Option<Running>,
    give_up: Option<Job>,
    /// Everything else is over; what waits may wait until then.
    closing: Option<Instant>,
    /// A signal has asked for the end before; or since.
    is_stopped: bool,
    hurried: bool,
    trouble: Trouble,
    /// When it was last told of.
    told: Option<Instant>,
}

/// How many hooks did not do what they were to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Found no room in the queue, or no time at the end.
    pub dropped: u64,
    /// Ended with another code than 0, or could not be started.
    pub failed: u64,
    /// Took too long.
    pub killed: u64,
}

#[derive(Debug)]
struct Running {
    /// Its time is over then; or, when it was killed, our patience.
    until: Instant,
    which: Which,
    killed: bool,
}

impl Hooks {
    /// With these commands, or without.
    #[must_use]
    pub fn new(on_event: bool, on_give_up: bool) -> Self {
        Self {
            on_event,
            on_give_up,
            ..Self::default()
        }
    }

    /// Takes an event, of the instance `name` that supervises `command`.
    pub fn take(&mut self, report: &Report, name: &str, command: &[OsString]) {
        let is_giving_up = matches!(report, Report::GivingUp { .. });
        let is_for_hooks = is_giving_up
            || matches!(
                report,
                Report::Started { .. } | Report::Exited { .. } | Report::HeartbeatTimeout { .. }
            );
        if !is_for_hooks || !(self.on_event || self.on_give_up) {
            return;
        }
        let job = |which| Job {
            which,
            event: report.event(),
            variables: variables(report, name, command),
        };
        if is_giving_up && self.on_give_up {
            self.give_up = Some(job(Which::GiveUp));
        }
        if self.on_event {
            if self.queue.len() < QUEUE {
                self.queue.push_back(job(Which::Event));
            } else {
                self.trouble.dropped += 1;
            }
        }
    }

    /// Everything else is over, because a signal asked for it or not: from `now` on what waits has a limited
    /// time, all together.
    pub fn close(&mut self, now: Instant, is_stopped: bool) {
        self.is_stopped = is_stopped;
        self.closing.get_or_insert(now + LIMIT);
    }

    /// Whether somebody has asked for the end.
    #[must_use]
    pub fn is_asked_to_end(&self) -> bool {
        self.hurried || self.is_stopped
    }

    /// Everything else is over, and somebody wants us to end: the hooks of events are not waited for, and at
    /// the second time none is. What is done about it, in a word.
    pub fn hurry(&mut self, now: Instant) -> &'static str {
        let again = self.is_asked_to_end();
        self.hurried = true;
        self.trouble.dropped += self.queue.len() as u64;
        self.queue.clear();
        if again {
            self.trouble.dropped += u64::from(self.give_up.take().is_some());
        }
        if let Some(running) = &mut self.running
            && !running.killed
            && (again || running.which == Which::Event)
        {
            running.until = now;
        }
        if again { "kill" } else { "stop" }
    }

    /// What is to be done at `now`; ask again until it is nothing.
    #[must_use]
    pub fn step(&mut self, now: Instant) -> Option<Step> {
        if let Some(running) = &mut self.running {
            if now < running.until {
                return None;
            }
            if !running.killed {
                running.until = now + SETTLE;
                running.killed = true;
                return Some(Step::Kill);
            }
            self.over(false);
        }
        if self.closing.is_some_and(|until| until <= now) {
            self.trouble.dropped += self.queue.len() as u64;
            self.queue.clear();
        }
        let (job, limit) = match self.queue.pop_front() {
            Some(job) => (job, LIMIT),
            None if self.closing.is_some() => (self.give_up.take()?, GIVE_UP_LIMIT),
            None => return None,
        };
        let mut until = now + limit;
        if let (Which::Event, Some(end)) = (job.which, self.closing) {
            until = until.min(end);
        }
        self.running = Some(Running {
            until,
            which: job.which,
            killed: false,
        });
        Some(Step::Start(job))
    }

    /// The one that ran is over, well or not.
    pub fn over(&mut self, well: bool) {
        match self.running.take() {
            Some(running) if running.killed => self.trouble.killed += 1,
            Some(_) if !well => self.trouble.failed += 1,
            Some(_) | None => {}
        }
    }

    /// When [`Hooks::step`] is to be asked next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let running = self.running.as_ref().map(|running| running.until);
        let told = self.told.filter(|_| self.trouble != Trouble::default());
        let told = told.map(|told| told + TOLD_EVERY);
        [running, told].into_iter().flatten().min()
    }

    /// Whether there is nothing left to wait for.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.running.is_none() && self.queue.is_empty() && self.give_up.is_none()
    }

    /// What went wrong, where that is to be told at `now`.
    #[must_use]
    pub fn trouble(&mut self, now: Instant) -> Option<Trouble> {
        let soon = self.told.is_some_and(|told| now < told + TOLD_EVERY);
        let is_last = self.closing.is_some() && self.is_done();
        if self.trouble == Trouble::default() || soon && !is_last {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.trouble))
    }
}

fn variables(report: &Report, name: &str, command: &[OsString]) -> Vec<(String, OsString)> {
    let fields = report.fields(command).into_iter().map(|(key, value)| {
        let key = key.to_uppercase();
        // A longer one could not be handed on (execve(2), E2BIG).
        let bytes = value.plain().into_vec().into_iter().take(LONGEST_VALUE);
        let value = OsString::from_vec(bytes.collect());
        (format!("SUPERVISOR_EVENT_{key}"), value)
    });
    let event = ("SUPERVISOR_EVENT".to_owned(), report.event().into());
    let name = ("SUPERVISOR_EVENT_NAME".to_owned(), name.into());
    [event, name].into_iter().chain(fields).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Ended, Exit};

    const S: Duration = Duration::from_secs(1);

    fn started(run: u64) -> Report {
        Report::Started { pid: 42, run }
    }

    fn giving_up() -> Report {
        Report::GivingUp {
            restarts: 3,
            code: Exit(7),
        }
    }

    fn both() -> (Hooks, Instant) {
        (Hooks::new(true, true), crate::clock::now())
    }

    fn take(hooks: &mut Hooks, report: &Report) {
        hooks.take(report, "web", &["sh".into()]);
    }

    /// The event of the job that is to be started now.
    fn starts(hooks: &mut Hooks, now: Instant) -> Option<(Which, &'static str)> {
        match hooks.step(now)? {
            Step::Start(job) => Some((job.which, job.event)),
            Step::Kill => panic!("killed"),
        }
    }

    #[test]
    fn one_runs_at_a_time_in_the_order_of_the_events() {
        let (mut hooks, now) = both();
        assert_eq!((hooks.step(now), hooks.deadline()), (None, None));
        let exited = Report::Exited {
            pid: 42,
            ended: Ended::Code(0),
            uptime: S,
            margin: None,
        };
        for report in [started(1), exited] {
            take(&mut hooks, &report);
        }
        assert_eq!(starts(&mut hooks, now), Some((Which::Event, "started")));
        assert_eq!(hooks.step(now), None);
        assert_eq!(hooks.deadline(), Some(now + LIMIT));
        hooks.over(true);
        assert_eq!(starts(&mut hooks, now), Some((Which::Event, "exited")));
        hooks.over(true);
        assert!(hooks.is_done());
    }

    #[test]
    fn only_the_events_of_the_contract_are_for_hooks_and_only_where_there_are_any() {
        let (mut hooks, _) = both();
        let signal = Report::LeftBehind { pid: 42 };
        take(&mut hooks, &signal);
        assert!(hooks.is_done());
        let mut none = Hooks::new(false, false);
        take(&mut none, &giving_up());
        assert!(none.is_done());
        let mut at_the_end = Hooks::new(false, true);
        take(&mut at_the_end, &started(1));
        assert!(at_the_end.is_done());
    }

    #[test]
    fn one_that_takes_too_long_is_killed_once_and_waited_for_a_moment() {
        let (mut hooks, now) = both();
        for run in 1..=2 {
            take(&mut hooks, &started(run));
        }
        assert!(hooks.step(now).is_some());
        assert_eq!(hooks.step(now + LIMIT - S), None);
        assert_eq!(hooks.step(now + LIMIT), Some(Step::Kill));
        assert_eq!(hooks.step(now + LIMIT), None);
        // It can't die, and the next one has its turn.
        let then = now + LIMIT + SETTLE;
        assert!(starts(&mut hooks, then).is_some());
        let trouble = hooks.trouble(then).unwrap();
        assert_eq!((trouble.killed, trouble.failed), (1, 0));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_at_once_and_then_not_often() {
        let (mut hooks, now) = both();
        for run in 0..QUEUE as u64 + 5 {
            take(&mut hooks, &started(run));
        }
        assert_eq!(hooks.trouble(now).unwrap().dropped, 5);
        take(&mut hooks, &started(99));
        assert_eq!(hooks.trouble(now + S), None);
        assert_eq!(hooks.deadline(), Some(now + TOLD_EVERY));
        assert_eq!(hooks.trouble(now + TOLD_EVERY).unwrap().dropped, 1);
        assert_eq!(hooks.trouble(now + TOLD_EVERY * 2), None);
    }

    #[test]
    fn at_the_end_what_waits_has_ten_seconds_all_together_and_giving_up_sixty() {
        let (mut hooks, now) = both();
        for run in 1..=3 {
            take(&mut hooks, &started(run));
        }
        take(&mut hooks, &giving_up());
        assert!(hooks.step(now).is_some());
        hooks.close(now + S, false);
        let end = now + S + LIMIT;
        hooks.over(true);
        assert!(starts(&mut hooks, now + S * 9).is_some());
        assert_eq!(hooks.deadline(), Some(end), "not ten seconds of its own");
        assert_eq!(hooks.step(end), Some(Step::Kill));
        hooks.over(true);
        assert_eq!(starts(&mut hooks, end), Some((Which::GiveUp, "giving up")));
        assert_eq!(hooks.deadline(), Some(end + GIVE_UP_LIMIT));
        hooks.over(true);
        assert!(hooks.is_done());
        let trouble = hooks.trouble(end).unwrap();
        assert_eq!((trouble.dropped, trouble.killed), (2, 1));
    }

    #[test]
    fn giving_up_has_its_turn_last_and_not_before_the_end() {
        let (mut hooks, now) = both();
        take(&mut hooks, &giving_up());
        assert_eq!(starts(&mut hooks, now), Some((Which::Event, "giving up")));
        hooks.over(true);
        assert_eq!(hooks.step(now), None);
        assert!(!hooks.is_done());
        hooks.close(now, false);
        assert_eq!(starts(&mut hooks, now), Some((Which::GiveUp, "giving up")));
    }

    #[test]
    fn who_asks_for_the_end_waits_for_giving_up_alone_and_the_second_time_for_nothing() {
        let (mut hooks, now) = both();
        take(&mut hooks, &started(1));
        take(&mut hooks, &giving_up());
        assert!(hooks.step(now).is_some());
        hooks.close(now, false);
        assert_eq!(hooks.hurry(now + S), "stop");
        assert_eq!(hooks.step(now + S), Some(Step::Kill));
        hooks.over(true);
        assert_eq!(
            starts(&mut hooks, now + S),
            Some((Which::GiveUp, "giving up"))
        );
        assert_eq!(hooks.hurry(now + S * 2), "kill");
        assert_eq!(hooks.step(now + S * 2), Some(Step::Kill));
        hooks.over(true);
        assert!(hooks.is_done());
    }

    #[test]
    fn after_a_stop_by_a_signal_the_next_one_is_the_second() {
        let (mut hooks, now) = both();
        take(&mut hooks, &started(1));
        assert!(hooks.step(now).is_some());
        hooks.close(now, true);
        assert_eq!(hooks.hurry(now), "kill");
        assert_eq!(hooks.step(now), Some(Step::Kill));
    }

    #[test]
    fn a_hook_finds_the_fields_of_its_event() {
        let (mut hooks, now) = both();
        take(&mut hooks, &giving_up());
        let Some(Step::Start(job)) = hooks.step(now) else {
            panic!("nothing to start");
        };
        let expected = [
            ("SUPERVISOR_EVENT", "giving up"),
            ("SUPERVISOR_EVENT_NAME", "web"),
            ("SUPERVISOR_EVENT_RESTARTS", "3"),
            ("SUPERVISOR_EVENT_CODE", "7"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.into()));
        assert_eq!(job.variables, expected);
    }
}
