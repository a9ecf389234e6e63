//! The pure machine: every policy of the contract's sections 2 to 5, and nothing else. It has no
//! clock, no descriptor, no log and no process but those it is told of: an [`Event`] and the time
//! go in, [`Action`]s come out.

pub mod backoff;
mod event;
mod run;
mod seen;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::config::Policy;
use crate::exit::{Ended, Exit};
use crate::report::{Reason, Report};
use crate::status::{Cause, Counts};
use backoff::Rng;
pub use event::{Action, Event, Notice, SpawnFailure, Wish};
use run::{Run, Verdict};

/// How long the leftovers of a command may take to vanish after SIGKILL before they are no longer
/// waited for: one may sleep uninterruptibly, or be another user's by now.
const SETTLE: Duration = Duration::from_secs(5);

/// A state owns its data and its deadline; leaving it cancels the timer.
#[derive(Debug)]
enum State {
    /// `Spawn` was asked for and not answered yet.
    Starting {
        stop: Option<Signal>,
    },
    Running(Run),
    /// The command was told to end.
    Stopping {
        run: Run,
        stage: Stage,
        after: After,
    },
    /// The command has ended, not all that it left behind.
    Clearing {
        pid: i32,
        stage: Stage,
        then: Then,
    },
    /// Nothing runs until then.
    Backoff {
        until: Instant,
    },
    Finished,
}

/// How far a stop has got.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The terminal has sent its signal to the command (Ctrl-C); SIGTERM follows then.
    Asked { terminate_at: Instant },
    /// SIGTERM was sent; SIGKILL follows then.
    Terminating { kill_at: Instant },
    /// SIGKILL was sent; leftovers are waited for until then.
    Killed { until: Instant },
}

/// What follows the end of a command that was told to end.
#[derive(Clone, Copy, Debug)]
enum After {
    /// It was hung: a restart, whatever its exit code is.
    Hang,
    /// Somebody asked for a new run: a restart, and no failure.
    Request,
    /// This signal asked for the end of everything.
    Stop(Signal),
}

impl After {
    fn reason(self) -> Reason {
        match self {
            Self::Hang => Reason::Heartbeat,
            Self::Request => Reason::Request,
            Self::Stop(signal) => Reason::Signal(signal),
        }
    }
}

/// What follows when nothing of a run is left.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// The next run, not before then.
    Restart { until: Instant },
    /// The end of everything; `stopped` where a signal asked for it.
    Finish { exit: Exit, stopped: bool },
}

/// Decides what becomes of one command.
#[derive(Debug)]
pub struct Supervisor {
    policy: Policy,
    rng: Rng,
    born: Instant,
    /// Launches, failed ones too.
    runs: u64,
    /// The last launch that did not fail.
    launched: u64,
    /// Consecutive restarts made.
    restarts: u64,
    /// All of them.
    counts: Counts,
    last_exit: Option<Ended>,
    /// The last delay.
    delay: Duration,
    /// The heartbeat's deadline is held until it is released, over all runs.
    held: bool,
    state: State,
}

impl Supervisor {
    /// A supervisor at its first launch, and what it wants done. `seed` is for the jitter.
    #[must_use]
    pub fn new(policy: Policy, seed: u64, now: Instant) -> (Self, Vec<Action>) {
        let supervisor = Self {
            policy,
            rng: Rng::new(seed),
            born: now,
            runs: 1,
            launched: 0,
            restarts: 0,
            counts: Counts::default(),
            last_exit: None,
            delay: Duration::ZERO,
            held: false,
            state: State::Starting { stop: None },
        };
        (supervisor, vec![Action::Spawn])
    }

    /// When the next [`Event::Timeout`] is due; None: nothing to wait for but events.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Starting { .. } | State::Finished => None,
            State::Running(run) => run.deadline(),
            State::Stopping { stage, .. } => match stage {
                Stage::Asked { terminate_at } => Some(*terminate_at),
                Stage::Terminating { kill_at } => Some(*kill_at),
                // The command itself is our child: its end is always announced.
                Stage::Killed { .. } => None,
            },
            State::Clearing { stage, .. } => match stage {
                Stage::Asked { terminate_at: at } | Stage::Terminating { kill_at: at } => Some(*at),
                Stage::Killed { until } => Some(*until),
            },
            State::Backoff { until } => Some(*until),
        }
    }

    /// Takes one event at `now`, which never goes back, and says what is to be done about it.
    #[must_use]
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        if let Event::Asked(wish @ (Wish::Hold | Wish::Release)) = event {
            self.held = wish == Wish::Hold;
        }
        self.state = match std::mem::replace(&mut self.state, State::Finished) {
            State::Starting { stop } => self.starting(now, event, stop, &mut out),
            State::Running(run) => self.running(now, event, run, &mut out),
            State::Stopping { run, stage, after } => {
                self.stopping(now, event, (run, stage, after), &mut out)
            }
            State::Clearing { pid, stage, then } => {
                self.clearing(now, event, (pid, stage, then), &mut out)
            }
            State::Backoff { until } => self.backing_off(now, event, until, &mut out),
            State::Finished => State::Finished,
        };
        out
    }

    fn starting(
        &mut self,
        now: Instant,
        event: Event,
        stop: Option<Signal>,
        out: &mut Vec<Action>,
    ) -> State {
        match event {
            Event::Spawned { pid } => {
                out.push(Action::Report(Report::Started {
                    pid,
                    run: self.runs,
                }));
                self.launched = self.runs;
                let run = Run::new(pid, now, self.policy.heartbeat, self.held);
                match stop {
                    Some(signal) => self.stop(now, run, After::Stop(signal), false, out),
                    None => State::Running(run),
                }
            }
            Event::SpawnFailed { kind, error } => {
                out.push(Action::Report(Report::StartFailed { error }));
                let first = self.runs == 1;
                let then = match stop {
                    Some(signal) => stopped(signal, Exit::SUCCESS),
                    None if first && kind != SpawnFailure::Temporary => Then::Finish {
                        exit: kind.exit(),
                        stopped: false,
                    },
                    None => self.failed(now, Cause::Start, kind.exit(), Duration::ZERO, out),
                };
                self.proceed(now, then, out)
            }
            Event::Stop { signal, .. } => {
                out.push(heard(signal, "stop"));
                State::Starting {
                    stop: stop.or(Some(signal)),
                }
            }
            Event::Forward { signal } => {
                out.push(heard(signal, "ignore"));
                State::Starting { stop }
            }
            Event::Beat { .. }
            | Event::Looked { .. }
            | Event::Exited { .. }
            | Event::Cleared
            | Event::Paused { .. }
            | Event::Suspend { .. }
            | Event::Resumed
            | Event::Notified(_)
            | Event::Asked(_)
            | Event::Timeout => State::Starting { stop },
        }
    }

    fn running(
        &mut self,
        now: Instant,
        event: Event,
        mut run: Run,
        out: &mut Vec<Action>,
    ) -> State {
        match event {
            Event::Beat { at } => {
                run.beat(at);
                State::Running(run)
            }
            // The file itself is asked before the command is judged.
            Event::Timeout => {
                if run.deadline().is_some_and(|due| due <= now) {
                    out.push(Action::Look);
                }
                State::Running(run)
            }
            Event::Looked { in_doubt } => match run.judge(now, in_doubt) {
                Verdict::Healthy => State::Running(run),
                Verdict::Hung { silent, timeout } => self.hung(now, run, (silent, timeout), out),
            },
            Event::Notified(notice) => match notice {
                Notice::Ready => {
                    run.ready(now);
                    State::Running(run)
                }
                Notice::Timeout(timeout) => {
                    run.set_timeout(now, timeout);
                    State::Running(run)
                }
                Notice::Extend(by) => {
                    run.extend(now, by);
                    State::Running(run)
                }
                Notice::Ending => {
                    run.end(now, self.policy.grace);
                    State::Running(run)
                }
                Notice::Hung => match run.awaited() {
                    Some((_, timeout)) => {
                        let silent = run.silent(now);
                        self.hung(now, run, (silent, timeout), out)
                    }
                    // Somebody is looking at it; or it has asked not to be judged.
                    None => State::Running(run),
                },
            },
            Event::Asked(Wish::Restart) => self.stop(now, run, After::Request, false, out),
            Event::Asked(Wish::Hold | Wish::Release) => {
                run.hold(now, self.held);
                State::Running(run)
            }
            Event::Exited { ended, leftovers } => {
                let uptime = self.note_exit(now, &run, ended, out);
                let stage = leftovers.then(|| self.clear(now, run.pid, out));
                let then = if ended.is_success() {
                    Then::Finish {
                        exit: Exit::SUCCESS,
                        stopped: false,
                    }
                } else {
                    self.failed(now, cause_of(ended), ended.exit(), uptime, out)
                };
                self.ended(now, run.pid, stage, then, out)
            }
            Event::Stop { signal, told } => {
                out.push(heard(signal, "stop"));
                self.stop(now, run, After::Stop(signal), told, out)
            }
            Event::Forward { signal } => {
                out.extend([heard(signal, "forward"), Action::Forward(signal)]);
                State::Running(run)
            }
            Event::Paused { signal } => {
                run.pause(now);
                out.extend([heard(signal, "suspend"), Action::Suspend]);
                State::Running(run)
            }
            Event::Resumed => {
                run.resume(now);
                State::Running(run)
            }
            // Whether it stops is the command's decision, and ours follows.
            Event::Suspend { told } => {
                if !told {
                    out.push(Action::Forward(Signal::SIGTSTP));
                }
                State::Running(run)
            }
            Event::Spawned { .. } | Event::SpawnFailed { .. } | Event::Cleared => {
                State::Running(run)
            }
        }
    }

    fn stopping(
        &mut self,
        now: Instant,
        event: Event,
        (run, stage, after): (Run, Stage, After),
        out: &mut Vec<Action>,
    ) -> State {
        match event {
            Event::Exited { ended, leftovers } => {
                let uptime = self.note_exit(now, &run, ended, out);
                let then = match after {
                    After::Hang => self.failed(now, Cause::Heartbeat, Exit::TIMED_OUT, uptime, out),
                    After::Request => self.again(now, Duration::ZERO, Cause::Requested, out),
                    After::Stop(signal) => match stage {
                        Stage::Asked { .. } | Stage::Terminating { .. } => {
                            stopped(signal, Exit::SUCCESS)
                        }
                        Stage::Killed { .. } => stopped(signal, Exit::KILLED),
                    },
                };
                let stage = leftovers.then(|| match stage {
                    Stage::Asked { .. } => self.clear(now, run.pid, out),
                    Stage::Terminating { kill_at } => {
                        // To those who were born after the first.
                        out.push(Action::Terminate(self.first_signal(after.reason())));
                        // More time was for the command, not for them.
                        Stage::Terminating {
                            kill_at: kill_at.min(now + self.policy.grace),
                        }
                    }
                    Stage::Killed { .. } => Stage::Killed {
                        until: now + SETTLE,
                    },
                });
                self.ended(now, run.pid, stage, then, out)
            }
            Event::Stop { signal, .. } => {
                let (stage, after) = match after {
                    After::Hang | After::Request => {
                        out.push(heard(signal, "stop"));
                        (stage, After::Stop(signal))
                    }
                    After::Stop(first) => (impatient(now, signal, stage, out), After::Stop(first)),
                };
                State::Stopping { run, stage, after }
            }
            Event::Forward { signal } => {
                out.extend([heard(signal, "forward"), Action::Forward(signal)]);
                State::Stopping { run, stage, after }
            }
            Event::Timeout => {
                let stage = match stage {
                    Stage::Asked { terminate_at } if terminate_at <= now => {
                        self.terminate(now, run.pid, after.reason(), out)
                    }
                    Stage::Asked { .. } | Stage::Terminating { .. } | Stage::Killed { .. } => {
                        expired(now, stage, out)
                    }
                };
                State::Stopping { run, stage, after }
            }
            // In the way that systemd grants it (TimeoutStopSec=, `sd_notify(3)`).
            Event::Notified(Notice::Extend(by)) => {
                let stage = extended(now + by, stage);
                State::Stopping { run, stage, after }
            }
            Event::Asked(Wish::Restart) => {
                let after = match after {
                    After::Hang | After::Request => After::Request,
                    stop @ After::Stop(_) => stop,
                };
                State::Stopping { run, stage, after }
            }
            Event::Notified(Notice::Ready | Notice::Timeout(_) | Notice::Ending | Notice::Hung)
            | Event::Asked(Wish::Hold | Wish::Release) => State::Stopping { run, stage, after },
            // A command that is told to end is not waited for any longer because it sleeps.
            Event::Paused { .. }
            | Event::Suspend { .. }
            | Event::Resumed
            | Event::Spawned { .. }
            | Event::SpawnFailed { .. }
            | Event::Beat { .. }
            | Event::Looked { .. }
            | Event::Cleared => State::Stopping { run, stage, after },
        }
    }

    fn clearing(
        &mut self,
        now: Instant,
        event: Event,
        (pid, stage, then): (i32, Stage, Then),
        out: &mut Vec<Action>,
    ) -> State {
        match event {
            Event::Cleared => self.proceed(now, then, out),
            Event::Timeout => match stage {
                Stage::Killed { until } if until <= now => {
                    out.push(Action::Report(Report::LeftBehind { pid }));
                    self.proceed(now, then, out)
                }
                Stage::Killed { .. } | Stage::Asked { .. } | Stage::Terminating { .. } => {
                    State::Clearing {
                        pid,
                        stage: expired(now, stage, out),
                        then,
                    }
                }
            },
            Event::Stop { signal, .. } => {
                let exit = match then {
                    Then::Restart { .. } => Some(Exit::SUCCESS),
                    Then::Finish { exit, stopped } => (!stopped).then_some(exit),
                };
                let (stage, then) = match exit {
                    Some(exit) => {
                        out.push(heard(signal, "stop"));
                        (stage, stopped(signal, exit))
                    }
                    None => (impatient(now, signal, stage, out), then),
                };
                State::Clearing { pid, stage, then }
            }
            Event::Forward { signal } => {
                out.push(heard(signal, "ignore"));
                State::Clearing { pid, stage, then }
            }
            Event::Asked(Wish::Restart) => {
                let then = match then {
                    Then::Restart { .. } => Then::Restart { until: now },
                    finish @ Then::Finish { .. } => finish,
                };
                State::Clearing { pid, stage, then }
            }
            Event::Spawned { .. }
            | Event::SpawnFailed { .. }
            | Event::Beat { .. }
            | Event::Looked { .. }
            | Event::Exited { .. }
            | Event::Paused { .. }
            | Event::Suspend { .. }
            | Event::Notified(_)
            | Event::Asked(Wish::Hold | Wish::Release)
            | Event::Resumed => State::Clearing { pid, stage, then },
        }
    }

    fn backing_off(
        &mut self,
        now: Instant,
        event: Event,
        until: Instant,
        out: &mut Vec<Action>,
    ) -> State {
        match event {
            Event::Timeout if until <= now => {
                self.runs += 1;
                out.push(Action::Spawn);
                State::Starting { stop: None }
            }
            Event::Stop { signal, .. } => {
                out.push(heard(signal, "stop"));
                self.proceed(now, stopped(signal, Exit::SUCCESS), out)
            }
            Event::Suspend { .. } => {
                out.extend([heard(Signal::SIGTSTP, "suspend"), Action::Suspend]);
                State::Backoff { until }
            }
            Event::Forward { signal } => {
                out.push(heard(signal, "ignore"));
                State::Backoff { until }
            }
            Event::Asked(Wish::Restart) => State::Backoff { until: now },
            Event::Spawned { .. }
            | Event::SpawnFailed { .. }
            | Event::Beat { .. }
            | Event::Looked { .. }
            | Event::Exited { .. }
            | Event::Cleared
            | Event::Paused { .. }
            | Event::Resumed
            | Event::Notified(_)
            | Event::Asked(Wish::Hold | Wish::Release)
            | Event::Timeout => State::Backoff { until },
        }
    }

    /// It was silent for too long, or says itself that it hangs.
    fn hung(
        &self,
        now: Instant,
        run: Run,
        (silent, timeout): (Duration, Duration),
        out: &mut Vec<Action>,
    ) -> State {
        let pid = run.pid;
        let report = Report::HeartbeatTimeout {
            pid,
            silent,
            timeout,
        };
        out.extend([Action::Report(report), Action::Diagnose]);
        self.stop(now, run, After::Hang, false, out)
    }

    /// Tells the command to end, or leaves it to the terminal that has `told` it.
    fn stop(
        &self,
        now: Instant,
        run: Run,
        after: After,
        told: bool,
        out: &mut Vec<Action>,
    ) -> State {
        let (pid, grace, reason) = (run.pid, self.policy.grace, after.reason());
        let stage = if told && !grace.is_zero() {
            out.push(Action::Report(Report::Stopping { pid, reason, grace }));
            Stage::Asked {
                terminate_at: now + grace,
            }
        } else {
            self.terminate(now, pid, reason, out)
        };
        State::Stopping { run, stage, after }
    }

    /// Tells what the command left behind to end.
    fn clear(&self, now: Instant, pid: i32, out: &mut Vec<Action>) -> Stage {
        self.terminate(now, pid, Reason::Leftovers, out)
    }

    fn terminate(&self, now: Instant, pid: i32, reason: Reason, out: &mut Vec<Action>) -> Stage {
        let grace = self.policy.grace;
        out.push(Action::Report(Report::Stopping { pid, reason, grace }));
        let stage = Stage::Terminating {
            kill_at: now + grace,
        };
        let signal = self.first_signal(reason);
        if grace.is_zero() || signal == Signal::SIGKILL {
            return killed(now, stage, out);
        }
        // To act comes before telling of it, which takes longer; who hangs has time.
        let at = if reason == Reason::Heartbeat {
            out.len()
        } else {
            0
        };
        out.insert(at, Action::Terminate(signal));
        stage
    }

    fn first_signal(&self, reason: Reason) -> Signal {
        match reason {
            Reason::Heartbeat => self.policy.hang_signal,
            Reason::Request | Reason::Signal(_) | Reason::Leftovers => Signal::SIGTERM,
        }
    }

    /// After the command's end: on, or first clear away what is left.
    fn ended(
        &mut self,
        now: Instant,
        pid: i32,
        leftovers: Option<Stage>,
        then: Then,
        out: &mut Vec<Action>,
    ) -> State {
        match leftovers {
            Some(stage) => State::Clearing { pid, stage, then },
            None => self.proceed(now, then, out),
        }
    }

    /// Nothing of the last run is left.
    fn proceed(&mut self, now: Instant, then: Then, out: &mut Vec<Action>) -> State {
        match then {
            Then::Restart { until } => State::Backoff { until },
            Then::Finish { exit, stopped } => {
                out.push(Action::Finish {
                    exit,
                    stopped,
                    runs: self.runs,
                    uptime: now - self.born,
                });
                State::Finished
            }
        }
    }

    /// How long the run was.
    fn note_exit(
        &mut self,
        now: Instant,
        run: &Run,
        ended: Ended,
        out: &mut Vec<Action>,
    ) -> Duration {
        let uptime = now - run.started;
        self.last_exit = Some(ended);
        out.push(Action::Report(Report::Exited {
            pid: run.pid,
            ended,
            uptime,
            margin: None,
        }));
        uptime
    }

    /// A run of length `uptime` has failed, and `exit` is what giving up on it would answer.
    fn failed(
        &mut self,
        now: Instant,
        cause: Cause,
        exit: Exit,
        uptime: Duration,
        out: &mut Vec<Action>,
    ) -> Then {
        if self.policy.reset_after.is_some_and(|after| after <= uptime) {
            self.restarts = 0;
        }
        let limit = self.policy.max_restarts;
        if limit.is_some_and(|limit| limit <= self.restarts) {
            out.push(Action::Report(Report::GivingUp {
                restarts: self.restarts,
                code: exit,
            }));
            return Then::Finish {
                exit,
                stopped: false,
            };
        }
        let delay = backoff::delay(&self.policy, self.restarts);
        let delay = backoff::with_jitter(delay, self.policy.jitter, &mut self.rng);
        self.restarts = self.restarts.saturating_add(1);
        self.again(now, delay, cause, out)
    }

    fn again(
        &mut self,
        now: Instant,
        delay: Duration,
        cause: Cause,
        out: &mut Vec<Action>,
    ) -> Then {
        self.counts.count(cause);
        self.delay = delay;
        out.push(Action::Report(Report::Restarting {
            restart: self.restarts,
            limit: self.policy.max_restarts,
            delay,
        }));
        Then::Restart { until: now + delay }
    }
}

/// The end that `signal` asked for, where the command's part in it comes to `exit`.
fn stopped(signal: Signal, exit: Exit) -> Then {
    // However the command ended, a script that called us is to stop too.
    let interrupted = matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
    Then::Finish {
        exit: if interrupted {
            Exit::of_signal(signal as i32)
        } else {
            exit
        },
        stopped: true,
    }
}

fn heard(signal: Signal, action: &'static str) -> Action {
    Action::Report(Report::Signal { signal, action })
}

fn cause_of(ended: Ended) -> Cause {
    match ended {
        Ended::Code(_) => Cause::Exit,
        Ended::Signal { .. } => Cause::Signal,
    }
}

/// The same wish a second time: SIGKILL at once, and nothing more once that was sent. But the end of
/// one terminal is told by the kernel and by the shell, and is no impatience.
fn impatient(now: Instant, signal: Signal, stage: Stage, out: &mut Vec<Action>) -> Stage {
    if signal == Signal::SIGHUP {
        out.push(heard(signal, "ignore"));
        return stage;
    }
    let action = match stage {
        Stage::Asked { .. } | Stage::Terminating { .. } => "kill",
        Stage::Killed { .. } => "ignore",
    };
    out.push(heard(signal, action));
    killed(now, stage, out)
}

/// SIGKILL, where the grace is over.
fn expired(now: Instant, stage: Stage, out: &mut Vec<Action>) -> Stage {
    match stage {
        Stage::Terminating { kill_at } if kill_at <= now => killed(now, stage, out),
        Stage::Asked { .. } | Stage::Terminating { .. } | Stage::Killed { .. } => stage,
    }
}

/// Not before then.
fn extended(until: Instant, stage: Stage) -> Stage {
    match stage {
        Stage::Asked { terminate_at } => Stage::Asked {
            terminate_at: terminate_at.max(until),
        },
        Stage::Terminating { kill_at } => Stage::Terminating {
            kill_at: kill_at.max(until),
        },
        Stage::Killed { .. } => stage,
    }
}

/// SIGKILL now, once.
fn killed(now: Instant, stage: Stage, out: &mut Vec<Action>) -> Stage {
    match stage {
        Stage::Asked { .. } | Stage::Terminating { .. } => {
            out.push(Action::Kill);
            Stage::Killed {
                until: now + SETTLE,
            }
        }
        Stage::Killed { .. } => stage,
    }
}
