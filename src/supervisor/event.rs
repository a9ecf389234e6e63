//! What goes into the machine and what comes out of it, as plain data.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

#[cfg(doc)]
use super::Supervisor;
use crate::exit::{Ended, Exit};
use crate::report::Report;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// [`Action::Spawn`] succeeded.
    Spawned {
        /// The command's process id.
        pid: i32,
    },
    /// [`Action::Spawn`] failed.
    SpawnFailed {
        /// In what way.
        kind: SpawnFailure,
        /// The system's words.
        error: String,
    },
    /// The heartbeat file changed.
    Beat {
        /// When, on the monotonic clock.
        at: Instant,
    },
    /// [`Action::Look`] was done; a change that it found has been told as a beat.
    Looked {
        /// What it found may be one, which a second look a moment later tells.
        in_doubt: bool,
    },
    /// The command's process has ended and is reaped.
    Exited {
        /// How.
        ended: Ended,
        /// Whether others of its tree are left.
        leftovers: bool,
    },
    /// Of what the command left behind, nothing is left.
    Cleared,
    /// A signal asks for the end: SIGTERM, SIGINT, SIGQUIT, or SIGHUP from a closed terminal.
    Stop {
        /// Which.
        signal: Signal,
        /// Whether the terminal has sent it to the command, too, which gets the grace to heed it.
        told: bool,
    },
    /// The terminal stopped the command: Ctrl-Z, or it read from the background.
    Paused {
        /// By which signal.
        signal: Signal,
    },
    /// SIGTSTP reached us, and the command itself too if `told`.
    Suspend {
        /// Whether it did.
        told: bool,
    },
    /// [`Action::Suspend`] is over: we were continued.
    Resumed,
    /// What the command has said of itself (`sd_notify(3)`), a beat apart.
    Notified(Notice),
    /// What somebody wants of us (contract, section 11), a stop apart.
    Asked(Wish),
    /// A signal that is meant for the command.
    Forward {
        /// Which.
        signal: Signal,
    },
    /// [`Supervisor::deadline`] has come.
    Timeout,
}

/// What a command says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It is ready: the deadline counts from here.
    Ready,
    /// It wants this timeout for the rest of its run; None: no deadline.
    Timeout(Option<Duration>),
    /// It needs more time to start, or to end.
    Extend(Duration),
    /// It is ending by itself.
    Ending,
    /// It hangs.
    Hung,
}

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A new run now, which is no failure of the old one.
    Restart,
    /// The heartbeat's deadline shall wait.
    Hold,
    /// It shall wait no longer.
    Release,
}

/// Why a command could not be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnFailure {
    /// It, or its interpreter, does not exist.
    NotFound,
    /// It exists and can't be executed.
    NotExecutable,
    /// The system can't just now: no process, no memory, the file being written.
    Temporary,
}

impl SpawnFailure {
    /// The code of giving up on it.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Self::NotFound => Exit::NOT_FOUND,
            Self::NotExecutable | Self::Temporary => Exit::CANNOT_EXECUTE,
        }
    }
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Launch the command; answer with `Spawned` or `SpawnFailed`.
    Spawn,
    /// This signal (SIGTERM, or for a hung command another), and SIGCONT after it, to the command and
    /// everything that it started, but to nobody twice in a run.
    Terminate(Signal),
    /// Tell what the command's processes are doing: it hangs, and nobody has been told to end yet.
    Diagnose,
    /// SIGKILL to the same; answer with `Cleared` where nothing was left to be killed.
    Kill,
    /// This signal to the command's own process.
    Forward(Signal),
    /// Stop this process until it is continued, as the shell expects of a job; answer with `Resumed`.
    Suspend,
    /// Look at the heartbeat file; answer with `Beat` where it changed, and `Looked`.
    Look,
    /// Tell it.
    Report(Report),
    /// Everything is over.
    Finish {
        /// The supervisor's exit code.
        exit: Exit,
        /// How often the command was launched.
        runs: u64,
        /// How long the supervisor ran.
        uptime: Duration,
        /// Whether somebody asked for it.
        stopped: bool,
    },
}
