//! How a command ended, and the exit codes that the supervisor answers with (contract, section 5).

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use nix::sys::signal::Signal;

/// The supervisor's own exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// The command finished, or was stopped on request within its grace period.
    pub const SUCCESS: Self = Self(0);
    /// `--status` and its like: an instance that does not answer, or can't do what it is asked.
    pub const NO_ANSWER: Self = Self(1);
    /// `--status`: the command is not running, or not healthy.
    pub const NOT_RUNNING: Self = Self(3);
    /// `--status` and its like: no instance has this name.
    pub const UNKNOWN: Self = Self(4);
    /// The command line or an environment variable is wrong.
    pub const USAGE: Self = Self(2);
    /// Giving up: the last run was a heartbeat timeout (as in `timeout(1)`).
    pub const TIMED_OUT: Self = Self(124);
    /// The supervisor itself failed.
    pub const FAILED: Self = Self(125);
    /// The command was found but can't be executed.
    pub const CANNOT_EXECUTE: Self = Self(126);
    /// The command was not found.
    pub const NOT_FOUND: Self = Self(127);
    /// A requested stop had to end in SIGKILL.
    pub const KILLED: Self = Self(137);

    /// `128 + number`, the shell's code for a death by signal `number` (1 to 64).
    #[must_use]
    pub fn of_signal(number: i32) -> Self {
        Self(u8::try_from(128 + number).unwrap_or(u8::MAX))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// How the command's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code, 0 to 255.
    Code(u8),
    /// A signal ended it.
    Signal {
        /// The signal's number, 1 to 64.
        number: i32,
        /// Whether a core was dumped.
        core: bool,
    },
}

impl Ended {
    /// Whether it exited with code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    /// The code with which the supervisor gives up after this end.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Self::Code(code) => Exit(code),
            Self::Signal { number, .. } => Exit::of_signal(number),
        }
    }
}

/// A signal by its name, or by its number where it has none (the real-time signals).
pub struct SignalName(pub i32);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        match status.signal() {
            Some(number) => Self::Signal {
                number,
                core: status.core_dumped(),
            },
            // wait(2): the low 8 bits of what was given to exit(3).
            None => Self::Code(status.code().unwrap_or(0).to_le_bytes()[0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_status_becomes_its_shell_code() {
        for code in 0..=255u8 {
            let ended = Ended::from(ExitStatus::from_raw(i32::from(code) << 8));
            assert_eq!(ended, Ended::Code(code));
            assert_eq!(ended.exit(), Exit(code));
        }
        for number in 1..=64u8 {
            let ended = Ended::from(ExitStatus::from_raw(i32::from(number) | 0x80));
            assert_eq!(ended.exit(), Exit(128 + number));
            assert!(matches!(ended, Ended::Signal { core: true, .. }));
        }
    }
}
