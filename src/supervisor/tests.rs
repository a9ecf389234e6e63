//! The machine against a clock that is moved by hand: no test here waits.

mod lives;
mod properties;
mod scenarios;
mod steered;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Action, Event, SpawnFailure, Supervisor};
use crate::config::{Heartbeat, Policy};
use crate::exit::{Ended, Exit};
use crate::report::Report;

/// The defaults of the contract, without heartbeat.
pub fn policy() -> Policy {
    Policy {
        grace: seconds(5),
        max_restarts: None,
        backoff_factor: seconds(1),
        max_backoff: seconds(3600),
        jitter: 0.0,
        reset_after: Some(seconds(60)),
        heartbeat: None,
        hang_signal: Signal::SIGTERM,
    }
}

fn with_heartbeat(timeout: u64, initial_delay: u64) -> Policy {
    Policy {
        heartbeat: Some(Heartbeat {
            timeout: seconds(timeout),
            initial_delay: seconds(initial_delay),
            says_ready: false,
        }),
        ..policy()
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A world around the machine: launches succeed (or fail as told), nobody dies by himself.
struct Sim {
    machine: Supervisor,
    start: Instant,
    now: Instant,
    /// What the next launches come to; empty: they succeed.
    failing: Vec<SpawnFailure>,
    /// Whether a look at the file finds a beat.
    changed_unseen: bool,
    /// Whether it may have found one.
    in_doubt: bool,
    pids: i32,
    /// All that was done since the last `take`, `Report`s as their first words.
    done: Vec<String>,
    exit: Option<Exit>,
}

impl Sim {
    fn new(policy: Policy) -> Self {
        let mut sim = Self::before_the_first_launch(policy);
        sim.perform(vec![Action::Spawn]);
        sim
    }

    fn before_the_first_launch(policy: Policy) -> Self {
        // Far from the beginning of the clock, so that a scenario may look back.
        let now = crate::clock::now() + seconds(1_000_000);
        let (machine, first) = Supervisor::new(policy, 1, now);
        assert_eq!(first, [Action::Spawn]);
        Self {
            machine,
            start: now,
            now,
            failing: Vec::new(),
            changed_unseen: false,
            in_doubt: false,
            pids: 100,
            done: Vec::new(),
            exit: None,
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Spawn => {
                    let answer = if self.failing.is_empty() {
                        self.done.push("spawn".into());
                        self.pids += 1;
                        Event::Spawned { pid: self.pids }
                    } else {
                        self.done.push("spawn failed".into());
                        Event::SpawnFailed {
                            kind: self.failing.remove(0),
                            error: "no".into(),
                        }
                    };
                    self.tell(answer);
                }
                Action::Look => {
                    if std::mem::take(&mut self.changed_unseen) {
                        self.tell(Event::Beat { at: self.now });
                    }
                    let in_doubt = std::mem::take(&mut self.in_doubt);
                    self.tell(Event::Looked { in_doubt });
                }
                Action::Terminate(signal) => {
                    let name = signal.as_str().trim_start_matches("SIG");
                    self.done.push(name.into());
                }
                Action::Diagnose => self.done.push("diagnose".into()),
                Action::Kill => self.done.push("KILL".into()),
                Action::Forward(signal) => self.done.push(format!("forward {signal}")),
                Action::Suspend => self.done.push("suspend".into()),
                Action::Report(report) => self.note(&report),
                Action::Finish { exit, .. } => {
                    assert_eq!(self.exit, None, "finished twice");
                    self.exit = Some(exit);
                }
            }
        }
    }

    fn note(&mut self, report: &Report) {
        match report {
            Report::Restarting { .. } | Report::GivingUp { .. } => {
                self.done.push(report.line(&[]).to_string());
            }
            Report::HeartbeatTimeout { .. } => self.done.push("hung".into()),
            Report::Started { .. }
            | Report::Exited { .. }
            | Report::Stopping { .. }
            | Report::Killing { .. }
            | Report::LeftBehind { .. }
            | Report::StartFailed { .. }
            | Report::Signal { .. }
            | Report::Request { .. }
            | Report::Finished { .. } => {}
        }
    }

    fn tell(&mut self, event: Event) {
        let actions = self.machine.handle(self.now, event);
        self.perform(actions);
    }

    /// Time passes, and every deadline on the way is kept to the nanosecond.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.machine.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.tell(Event::Timeout);
        }
        self.now = end;
    }

    /// Time passes in which the supervisor does not run.
    fn freeze(&mut self, time: Duration) {
        self.now += time;
        if self.machine.deadline().is_some_and(|due| due <= self.now) {
            self.tell(Event::Timeout);
        }
    }

    fn beat(&mut self) {
        self.tell(Event::Beat { at: self.now });
    }

    fn exits(&mut self, code: u8) {
        self.tell(Event::Exited {
            ended: Ended::Code(code),
            leftovers: false,
        });
    }

    fn exits_leaving_something(&mut self, code: u8) {
        self.tell(Event::Exited {
            ended: Ended::Code(code),
            leftovers: true,
        });
    }

    fn dies_of(&mut self, number: i32) {
        self.tell(Event::Exited {
            ended: Ended::Signal {
                number,
                core: false,
            },
            leftovers: false,
        });
    }

    fn signal(&mut self, signal: Signal) {
        let told = false;
        self.tell(Event::Stop { signal, told });
    }

    /// Typed at the terminal, so that the command gets it, too.
    fn typed(&mut self, signal: Signal) {
        let told = true;
        self.tell(Event::Stop { signal, told });
    }

    /// Ctrl-Z, and `fg` so much later.
    fn pauses(&mut self, time: Duration) {
        let signal = Signal::SIGTSTP;
        self.tell(Event::Paused { signal });
        self.now += time;
        self.tell(Event::Resumed);
    }

    /// What was done since the last call.
    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.done)
    }

    fn deadline(&self) -> Option<Duration> {
        self.machine.deadline().map(|due| due - self.start)
    }
}
