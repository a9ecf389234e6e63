//! Where lines go, and how they get there without anybody waiting.
//!
//! `O_NONBLOCK` is no property of a descriptor but of what it has open (open(2)), which the command
//! shares with us: it must not be set on the stderr that we were given. So, by what stderr is:
//!
//! * a pipe or a terminal is opened a second time, with flags of its own;
//! * a socket takes each message with `MSG_DONTWAIT`;
//! * a regular file has no reader to wait for;
//! * for a pipe or a terminal that may not be opened again (another user's, or there is no `/proc`) a
//!   thread does the waiting: poll(2) promises room for a byte there, not for a line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};

use crate::error::Error;

/// So many lines may wait for the thread.
const QUEUE: usize = 64;

/// So long the end waits for what is in the queue.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where the log goes. A write takes what there is room for at once, and is an error where there is
/// none.
pub enum Sink {
    /// Opened by us: nobody else is hurt by its flags.
    Own(File),
    /// The stderr that we were given, which is a socket.
    Socket,
    /// The same, with nobody at its other end.
    Plain,
    /// The same, written by a thread; none yet, or none to be had, which may pass.
    Aside {
        /// To the thread.
        writer: Option<SyncSender<Message>>,
        /// Where it counts the lines that it can't write.
        lost: &'static AtomicU64,
    },
}

/// What the thread is told.
pub enum Message {
    /// Write this.
    Line(Vec<u8>),
    /// Say when you have come here.
    Flush(SyncSender<()>),
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

    /// Our stderr. Lines that its thread can't write are counted in `lost`.
    #[must_use]
    pub fn stderr(lost: &'static AtomicU64) -> Self {
        let mode = fstat(io::stderr()).map_or(0, |found| found.st_mode);
        let kind = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFSOCK {
            return Self::Socket;
        }
        if kind == SFlag::S_IFIFO || kind == SFlag::S_IFCHR {
            let again = without_waiting(OpenOptions::new().write(true)).open("/proc/self/fd/2");
            let writer = None;
            return again.map_or(Self::Aside { writer, lost }, Self::Own);
        }
        Self::Plain
    }
}

/// Starts the thread.
fn aside(lost: &'static AtomicU64) -> io::Result<SyncSender<Message>> {
    let (sender, receiver) = sync_channel(QUEUE);
    let writer = thread::Builder::new().name("log".to_owned());
    writer.spawn(move || write_aside(&receiver, lost))?;
    Ok(sender)
}

/// A FIFO without a reader is not waited for, and a terminal does not become ours.
fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(O_NONBLOCK | O_NOCTTY)
}

/// The thread's work, until the process ends.
fn write_aside(messages: &Receiver<Message>, lost: &AtomicU64) {
    for message in messages {
        match message {
            Message::Line(line) => {
                if io::stderr().write_all(&line).is_err() {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            Message::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
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
            Self::Aside { writer, lost } => {
                let writer = match writer {
                    Some(writer) => writer,
                    missing => missing.insert(aside(lost)?),
                };
                match writer.try_send(Message::Line(bytes.to_vec())) {
                    Ok(()) => Ok(bytes.len()),
                    Err(_) => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Gives the thread a moment for what it has not written yet.
    fn flush(&mut self) -> io::Result<()> {
        if let Self::Aside {
            writer: Some(writer),
            ..
        } = self
        {
            let (sender, done) = sync_channel(1);
            if writer.try_send(Message::Flush(sender)).is_ok() {
                let _ = done.recv_timeout(FAREWELL);
            }
        }
        Ok(())
    }
}
