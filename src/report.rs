//! What there is to tell: the events of the log (contract, section 7), as plain data.
//!
//! The policy says *what* happened, the reactor writes it down. The text of an event is its
//! [`Display`](fmt::Display).

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use log::Level;
use nix::sys::signal::Signal;

use crate::exit::{self, Ended, Exit};
use crate::text::{self, Quoted};

/// Why a command is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its heartbeat fell silent.
    Heartbeat,
    /// Somebody asked for a new run.
    Request,
    /// This signal asked for it.
    Signal(Signal),
    /// The command itself has ended; what it left behind is stopped.
    Leftovers,
}

/// One event of the log, with the fields that the contract gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// The command runs.
    Started {
        /// Its process id.
        pid: i32,
        /// Counts launches, from 1.
        run: u64,
    },
    /// The command has ended.
    Exited {
        /// Its process id, now reaped.
        pid: i32,
        /// How it ended.
        ended: Ended,
        /// How long it ran.
        uptime: Duration,
        /// The tightest margin of its beats, this run's and those before; None without a beat.
        margin: Option<Duration>,
    },
    /// No beat until the deadline.
    HeartbeatTimeout {
        /// The command's process id.
        pid: i32,
        /// How long ago the last sign of life was: the last beat of this run, or its launch.
        silent: Duration,
        /// `--timeout`.
        timeout: Duration,
    },
    /// SIGTERM (or, without grace, SIGKILL) is about to be sent.
    Stopping {
        /// The command's process id.
        pid: i32,
        /// Why.
        reason: Reason,
        /// How long it has.
        grace: Duration,
    },
    /// SIGKILL is about to be sent.
    Killing {
        /// The command's process id.
        pid: i32,
        /// How many processes are left.
        processes: usize,
    },
    /// SIGKILL was sent, and some of what the command left behind is there all the same (in an
    /// uninterruptible sleep, or not ours to signal).
    LeftBehind {
        /// The command's process id.
        pid: i32,
    },
    /// The command will be launched again.
    Restarting {
        /// Which consecutive restart this is, from 1.
        restart: u64,
        /// `--max-restarts`, None for ever.
        limit: Option<u64>,
        /// How long after the command's end.
        delay: Duration,
    },
    /// Somebody has asked for something.
    Request {
        /// `restart`, `stop`, `pause` or `resume`.
        action: &'static str,
        /// Who: a process id, 0 where it is not of our pid namespace.
        by: i32,
    },
    /// `--max-restarts` is used up.
    GivingUp {
        /// Consecutive restarts made.
        restarts: u64,
        /// The exit code that follows.
        code: Exit,
    },
    /// The command could not be launched.
    StartFailed {
        /// Why, as the system says it.
        error: String,
    },
    /// A signal arrived.
    Signal {
        /// Which.
        signal: Signal,
        /// `stop`, `kill`, `forward`, `suspend` or `ignore`.
        action: &'static str,
    },
    /// The last line.
    Finished {
        /// The supervisor's exit code.
        code: Exit,
        /// How often the command was launched.
        runs: u64,
        /// How long the supervisor ran.
        uptime: Duration,
    },
}

impl Report {
    /// The level at which it is logged.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Started { .. }
            | Self::Stopping { .. }
            | Self::Restarting { .. }
            | Self::Request { .. }
            | Self::Signal { .. }
            | Self::Finished { .. } => Level::Info,
            Self::Exited { ended, .. } if ended.is_success() => Level::Info,
            Self::Exited { .. }
            | Self::HeartbeatTimeout { .. }
            | Self::Killing { .. }
            | Self::LeftBehind { .. } => Level::Warn,
            Self::GivingUp { .. } | Self::StartFailed { .. } => Level::Error,
        }
    }

    /// What it is called.
    #[must_use]
    pub fn event(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Exited { .. } => "exited",
            Self::HeartbeatTimeout { .. } => "heartbeat timeout",
            Self::Stopping { .. } => "stopping",
            Self::Killing { .. } => "killing",
            Self::LeftBehind { .. } => "leftovers remain",
            Self::Restarting { .. } => "restarting",
            Self::GivingUp { .. } => "giving up",
            Self::StartFailed { .. } => "start failed",
            Self::Request { .. } => "request",
            Self::Signal { .. } => "signal",
            Self::Finished { .. } => "finished",
        }
    }

    /// What belongs to it, in this order, for a supervisor of `command` (argv).
    #[must_use]
    pub fn fields(&self, command: &[OsString]) -> Vec<(&'static str, Value)> {
        use Value::{Time, Word};
        let number = |number: &dyn fmt::Display| Word(number.to_string());
        match self {
            Self::Started { pid, run } => vec![
                ("pid", number(pid)),
                ("run", number(run)),
                ("command", Value::Text(text::joined(command))),
            ],
            Self::Exited {
                pid,
                ended,
                uptime,
                margin,
            } => {
                let mut fields = vec![("pid", number(pid))];
                match *ended {
                    Ended::Code(code) => fields.push(("code", number(&code))),
                    Ended::Signal {
                        number: signal,
                        core,
                    } => {
                        fields.push(("signal", number(&exit::SignalName(signal))));
                        fields.extend(core.then(|| ("core", Word("yes".into()))));
                    }
                }
                fields.push(("uptime", Time(*uptime)));
                fields.extend(margin.map(|margin| ("tightest_margin", Time(margin))));
                fields
            }
            Self::HeartbeatTimeout {
                pid,
                silent,
                timeout,
            } => vec![
                ("pid", number(pid)),
                ("silent", Time(*silent)),
                ("timeout", Time(*timeout)),
            ],
            Self::Stopping { pid, reason, grace } => vec![
                ("pid", number(pid)),
                ("reason", Word(reason.name().into())),
                ("grace", Time(*grace)),
            ],
            Self::Killing { pid, processes } => {
                vec![("pid", number(pid)), ("processes", number(processes))]
            }
            Self::LeftBehind { pid } => vec![("pid", number(pid))],
            Self::Restarting {
                restart,
                limit,
                delay,
            } => {
                let limit = limit.map_or("unlimited".into(), |limit| limit.to_string());
                vec![
                    ("restart", Word(format!("{restart}/{limit}"))),
                    ("delay", Time(*delay)),
                ]
            }
            Self::GivingUp { restarts, code } => {
                vec![("restarts", number(restarts)), ("code", number(&code.0))]
            }
            Self::StartFailed { error } => {
                let mut fields = vec![
                    ("command", Value::Text(text::joined(command))),
                    ("error", Word(error.clone())),
                ];
                // (The command is shown as two words would be.)
                if matches!(command, [word] if word.as_bytes().contains(&b' ')) {
                    let hint = "it was given as one word: leave out the quotes around it";
                    fields.push(("hint", Word(hint.into())));
                }
                fields
            }
            Self::Request { action, by } => {
                vec![("action", Word((*action).into())), ("by", number(by))]
            }
            Self::Signal { signal, action } => vec![
                ("name", Word(signal.as_str().into())),
                ("action", Word((*action).into())),
            ],
            Self::Finished { code, runs, uptime } => vec![
                ("code", number(&code.0)),
                ("runs", number(runs)),
                ("uptime", Time(*uptime)),
            ],
        }
    }

    /// The text, for a supervisor of `command` (argv, shown where the event names it).
    #[must_use]
    pub fn line<'a>(&'a self, command: &'a [OsString]) -> Line<'a> {
        Line {
            report: self,
            command,
        }
    }
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat timeout",
            Self::Request => "request",
            Self::Signal(signal) => signal.as_str(),
            Self::Leftovers => "leftovers",
        }
    }
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number, a name, a sentence.
    Word(String),
    /// What may hold any byte but NUL.
    Text(OsString),
    /// A duration.
    Time(Duration),
}

impl Value {
    /// As a program reads it: durations in seconds without a unit, nothing quoted.
    #[must_use]
    pub fn plain(&self) -> OsString {
        match self {
            Self::Word(word) => word.into(),
            Self::Text(text) => text.clone(),
            Self::Time(time) => text::seconds(*time).into(),
        }
    }
}

/// As the log shows it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "{}", Quoted::text(word)),
            Self::Text(text) => write!(f, "{}", Quoted::bytes(text.as_bytes())),
            Self::Time(time) => write!(f, "{}s", text::seconds(*time)),
        }
    }
}

/// A [`Report`] ready to be written.
pub struct Line<'a> {
    report: &'a Report,
    command: &'a [OsString],
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.report.event())?;
        for (key, value) in self.report.fields(self.command) {
            write!(f, " {key}={value}")?;
        }
        Ok(())
    }
}
