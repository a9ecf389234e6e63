//! Where lines go, and how they get there without ever waiting.
//!
//! `O_NONBLOCK` is no property of a descriptor but of what it has open (open(2)), which the command
//! shares with us: it must not be set on the stderr that we were given. So, by what stderr is:
//!
//! * a pipe or a terminal is opened a second time, with flags of its own;
//! * a socket takes each message with `MSG_DONTWAIT`;
//! * a regular file has no reader to wait for;
//! * a pipe or terminal that may not be opened again (another user's, or there is no `/proc`) is
//!   asked each time whether it has room.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};

use crate::error::Error;
use crate::sys;

/// Where the log goes. A write takes what there is room for at once, and is an error where there is
/// none.
pub enum Sink {
    /// Opened by us: nobody else is hurt by its flags.
    Own(File),
    /// The stderr that we were given, which is a socket.
    Socket,
    /// The same, with nobody at its other end.
    Plain,
    /// The same, a pipe or a terminal that can't be opened again.
    Shared,
}

impl Sink {
    /// The file at `path`, for appending.
    ///
    /// # Errors
    /// [`Error::LogFile`] where it can't be opened.
    pub fn file(path: &Path) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        let opened = without_waiting(&mut options).open(path);
        opened.map(Self::Own).map_err(|source| Error::LogFile {
            path: path.to_owned(),
            source,
        })
    }

    /// Our stderr.
    #[must_use]
    pub fn stderr() -> Self {
        let mode = fstat(io::stderr()).map_or(0, |found| found.st_mode);
        let kind = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFSOCK {
            return Self::Socket;
        }
        if kind == SFlag::S_IFIFO || kind == SFlag::S_IFCHR {
            let again = without_waiting(OpenOptions::new().write(true)).open("/proc/self/fd/2");
            return again.map_or(Self::Shared, Self::Own);
        }
        Self::Plain
    }
}

/// A FIFO without a reader is not waited for, and a terminal does not become ours.
fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(O_NONBLOCK | O_NOCTTY)
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        match self {
            Self::Own(file) => file.write(bytes),
            Self::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                Ok(send(stderr.as_raw_fd(), bytes, flags)?)
            }
            Self::Plain => Ok(nix::unistd::write(&stderr, bytes)?),
            Self::Shared => match sys::write_now(stderr.as_fd(), bytes) {
                // What can't be told not to wait is asked first.
                None if has_room(&stderr)? => Ok(nix::unistd::write(&stderr, bytes)?),
                None => Err(io::ErrorKind::WouldBlock.into()),
                Some(outcome) => outcome,
            },
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a line would be taken, or refused, at once. (A pipe with room takes a line in one piece.)
fn has_room(stderr: &io::Stderr) -> io::Result<bool> {
    let mut asked = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    Ok(poll(&mut asked, PollTimeout::ZERO)? > 0)
}
