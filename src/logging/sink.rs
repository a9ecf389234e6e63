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
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};

use crate::threads::without_signals;

use super::line::Lines;
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
        writer: Option<Writer>,
        /// Where it counts the lines that it can't write.
        lost: &'static AtomicU64,
    },
}

/// The thread, from outside.
pub struct Writer {
    messages: Sender<Message>,
    /// How many lines wait.
    waiting: Arc<AtomicUsize>,
}

/// What the thread is told.
enum Message {
    /// Write this, which stands for so many lines.
    Line(Vec<u8>, u64),
    /// Say when you have come here.
    Flush(Sender<()>),
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

impl Writer {
    fn start(lost: &'static AtomicU64) -> io::Result<Self> {
        let (messages, receiver) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&waiting);
        let thread = thread::Builder::new().name("log".to_owned());
        without_signals(|| thread.spawn(move || write_aside(&receiver, &theirs, lost)))?;
        Ok(Self { messages, waiting })
    }

    fn write(&self, line: &[u8], stands_for: u64) -> io::Result<usize> {
        if self.waiting.load(Ordering::Acquire) >= QUEUE {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let sent = self.messages.send(Message::Line(line.to_vec(), stands_for));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(line.len())
    }

    /// Gives it a moment for what it has not written yet.
    fn flush(&self) {
        let (sender, done) = channel();
        if self.messages.send(Message::Flush(sender)).is_ok() {
            let _ = done.recv_timeout(FAREWELL);
        }
    }
}

/// A FIFO without a reader is not waited for, and a terminal does not become ours.
fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(O_NONBLOCK | O_NOCTTY)
}

/// The thread's work, until the process ends.
fn write_aside(messages: &Receiver<Message>, waiting: &AtomicUsize, lost: &AtomicU64) {
    for message in messages {
        match message {
            Message::Line(line, stands_for) => {
                if write_whole(&line).is_err() {
                    lost.fetch_add(stands_for, Ordering::Relaxed);
                }
                waiting.fetch_sub(1, Ordering::AcqRel);
            }
            Message::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

/// Waits as long as it takes, also where the command has made its stderr, and ours, non-blocking.
fn write_whole(mut line: &[u8]) -> nix::Result<()> {
    let stderr = io::stderr();
    while !line.is_empty() {
        match nix::unistd::write(&stderr, line) {
            Ok(written) => line = &line[written..],
            Err(Errno::EAGAIN) => {
                let mut asked = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
                poll(&mut asked, PollTimeout::NONE)?;
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

impl Lines for Sink {
    fn put(&mut self, bytes: &[u8], stands_for: u64) -> io::Result<usize> {
        let stderr = io::stderr();
        match self {
            Self::Own(file) => file.write(bytes),
            Self::Socket => {
                // (std ignores SIGPIPE for us.)
                let flags = MsgFlags::MSG_DONTWAIT;
                Ok(send(stderr.as_raw_fd(), bytes, flags)?)
            }
            Self::Plain => Ok(nix::unistd::write(&stderr, bytes)?),
            Self::Aside { writer, lost } => match writer {
                Some(writer) => writer.write(bytes, stands_for),
                missing => missing
                    .insert(Writer::start(lost)?)
                    .write(bytes, stands_for),
            },
        }
    }

    fn finish(&mut self) {
        if let Self::Aside { writer, .. } = self {
            writer.iter().for_each(Writer::flush);
        }
    }
}
