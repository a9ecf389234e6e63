//! The controlling terminal: whether there is one, and that it is left as it was found.
//!
//! With a terminal the command stays in our process group. So it is in the foreground exactly when we
//! are, can read, is reached by Ctrl-C and Ctrl-Z as the bare command would be, and so are its neighbours
//! in a pipeline. Nothing here takes the foreground from anybody who lives.

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::sys::signal::killpg;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, getppid, getsid, tcgetpgrp, tcsetpgrp};

use crate::sys;

/// The terminal that controls this process.
pub struct Terminal {
    tty: File,
    /// Its modes when we were first seen in the foreground. In the background they are another's.
    modes: Option<Termios>,
    /// In a pipeline, and in a script's background (whose input is no terminal), they may be a
    /// neighbour's, who shares our foreground and sets them while we run.
    modes_are_ours: bool,
}

impl Terminal {
    /// The controlling terminal, which `/dev/tty` opens (tty(4)); None where there is none.
    #[must_use]
    pub fn open() -> Option<Self> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(O_NOCTTY | O_NONBLOCK);
        let mut terminal = Self {
            tty: options.open("/dev/tty").ok()?,
            modes: None,
            modes_are_ours: std::io::stdin().is_terminal() && !is_pipe(std::io::stdout()),
        };
        terminal.learn_modes();
        Some(terminal)
    }

    fn learn_modes(&mut self) {
        if self.modes.is_none() && tcgetpgrp(&self.tty) == Ok(getpgrp()) {
            self.modes = tcgetattr(&self.tty).ok();
        }
    }

    /// Stops this process, as Ctrl-Z does, until it is continued; unless the command has been continued
    /// meanwhile.
    pub fn suspend(&mut self, command: Option<Pid>) {
        sys::suspend(command);
        self.learn_modes();
    }

    /// Takes the foreground back where a group has it that is gone, and sets the modes as they were.
    /// Only if we had the foreground, and nobody else has it now. SIGTTOU has to be ignored.
    pub fn restore(&self) {
        let Some(modes) = &self.modes else { return };
        let (ours, Ok(foreground)) = (getpgrp(), tcgetpgrp(&self.tty)) else {
            return;
        };
        if foreground != ours {
            let is_gone = killpg(foreground, None) == Err(Errno::ESRCH);
            if !is_gone || tcsetpgrp(&self.tty, ours).is_err() {
                return;
            }
        }
        if self.modes_are_ours && tcgetattr(&self.tty).is_ok_and(|now| now != *modes) {
            // Not after the output has been written: that may be held (Ctrl-S). What fails is closed.
            let _ = tcsetattr(&self.tty, SetArg::TCSANOW, modes);
        }
    }

    /// Whether who called us is in our session: a script, which a Ctrl-C reaches, too, or the shell at the
    /// prompt, which goes on with its line or loop unless its child dies of it.
    #[must_use]
    pub fn is_shared_with_caller() -> bool {
        getsid(Some(getppid())) == getsid(None)
    }
}

fn is_pipe(end: impl AsFd) -> bool {
    let kind = fstat(end).map(|file| SFlag::from_bits_truncate(file.st_mode) & SFlag::S_IFMT);
    matches!(kind, Ok(SFlag::S_IFIFO | SFlag::S_IFSOCK))
}
