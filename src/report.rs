//! What there is to tell: the events of the log (contract, section 7), as plain data.
//!
//! The policy says *what* happened, the reactor writes it down. The text of an event is its
//! [`Display`](fmt::Display).

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use log::Level;
use nix::sys::signal::Signal;

use crate::exit::{Ended, Exit};
use crate::text::Quoted;

/// Why a command is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its heartbeat fell silent.
    Heartbeat,
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

    /// The text, for a supervisor of `command` (argv, shown where the event names it).
    #[must_use]
    pub fn line<'a>(&'a self, command: &'a [OsString]) -> Line<'a> {
        Line {
            report: self,
            command,
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
        match self.report {
            Report::Started { pid, run } => {
                let command = Quoted::command(self.command);
                write!(f, "started pid={pid} run={run} command={command}")
            }
            Report::Exited { pid, ended, uptime } => {
                write!(f, "exited pid={pid} ")?;
                match *ended {
                    Ended::Code(code) => write!(f, "code={code}")?,
                    Ended::Signal { number, core } => {
                        write!(f, "signal={}", Name(number))?;
                        if core {
                            f.write_str(" core=yes")?;
                        }
                    }
                }
                write!(f, " uptime={}", Seconds(*uptime))
            }
            Report::HeartbeatTimeout {
                pid,
                silent,
                timeout,
            } => write!(
                f,
                "heartbeat timeout pid={pid} silent={} timeout={}",
                Seconds(*silent),
                Seconds(*timeout)
            ),
            Report::Stopping { pid, reason, grace } => {
                write!(f, "stopping pid={pid} reason=")?;
                match *reason {
                    Reason::Heartbeat => f.write_str("\"heartbeat timeout\"")?,
                    Reason::Signal(signal) => f.write_str(signal.as_str())?,
                    Reason::Leftovers => f.write_str("leftovers")?,
                }
                write!(f, " grace={}", Seconds(*grace))
            }
            Report::Killing { pid, processes } => {
                write!(f, "killing pid={pid} processes={processes}")
            }
            Report::LeftBehind { pid } => write!(f, "leftovers remain pid={pid}"),
            Report::Restarting {
                restart,
                limit,
                delay,
            } => {
                write!(f, "restarting restart={restart}/")?;
                match limit {
                    Some(limit) => write!(f, "{limit}")?,
                    None => f.write_str("unlimited")?,
                }
                write!(f, " delay={}", Seconds(*delay))
            }
            Report::GivingUp { restarts, code } => {
                write!(f, "giving up restarts={restarts} code={}", code.0)
            }
            Report::StartFailed { error } => write!(
                f,
                "start failed command={} error={}",
                Quoted::command(self.command),
                Quoted::text(error)
            ),
            Report::Signal { signal, action } => {
                write!(f, "signal name={} action={action}", signal.as_str())
            }
            Report::Finished { code, runs, uptime } => write!(
                f,
                "finished code={} runs={runs} uptime={}",
                code.0,
                Seconds(*uptime)
            ),
        }
    }
}

/// A signal by its name, or by its number where it has none (the real-time signals).
struct Name(i32);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

/// A duration as the log shows it: `3.214s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        write!(f, "{seconds}.{millis:03}s")
    }
}
