//! Where lines go, and how they get there without anybody waiting.
//!
//! `O_NONBLOCK` is no property of a descriptor but of what it has open (open(2)), which the command
//! shares with us: it must not be set on the stderr that we were given. So, by what stderr is:
//!
//! * a pipe or a terminal is opened a second time, with flags of its own; a terminal also turns away who
//!   does not wait while somebody else is writing, so there we wait for that, for a moment;
//! * a socket takes each message with `MSG_DONTWAIT`; systemd's journal is told its priority, too;
//! * a regular file has no reader to wait for; one that was named is opened again where its name no longer
//!   leads to it (it was rotated), so that nobody need tell us: the signals that others take for that are
//!   the command's, which may die of them;
//! * for a pipe or a terminal that may not be opened again (another user's, or there is no `/proc`) a
//!   thread does the waiting: poll(2) promises room for a byte there, not for a line.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
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

/// So long a write to a terminal waits for who is writing there, and so often: it may be the next
/// writer's turn. Another writer takes microseconds, if it is not held itself (Ctrl-S): then it is not
/// waited for again until something has been written.
const TURN: Duration = Duration::from_millis(50);
const TURNS: usize = 50;

/// Where the log goes. A write takes what there is room for at once, and is an error where there is
/// none.
pub enum Sink {
    /// Opened by us: nobody else is hurt by its flags.
    Own(File),
    /// The same, a regular file that was named.
    Named(Named),
    /// The same, a terminal.
    Terminal {
        /// The terminal.
        file: File,
        /// The last line was turned away though it waited.
        held: bool,
    },
    /// The stderr that we were given, which is a socket.
    Socket {
        /// systemd's journal is at its other end.
        journal: bool,
    },
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

/// A log file, and which one it is.
pub struct Named {
    path: PathBuf,
    file: File,
    identity: Identity,
}

/// Device and inode.
#[derive(PartialEq)]
struct Identity(u64, u64);

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
        Self::open(path).map_err(|source| Error::LogFile {
            path: path.to_owned(),
            source,
        })
    }

    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        let file = without_waiting(&mut options).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Ok(Self::Own(file));
        }
        Ok(Self::Named(Named {
            path: path.to_owned(),
            file,
            identity: Identity::of(&found),
        }))
    }

    /// Our stderr. Lines that its thread can't write are counted in `lost`.
    #[must_use]
    pub fn stderr(lost: &'static AtomicU64) -> Self {
        let found = fstat(io::stderr());
        let mode = found.map_or(0, |found| found.st_mode);
        let kind = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFSOCK {
            // Which stream that is, as systemd.exec(5) says it.
            let stream = found.map(|found| format!("{}:{}", found.st_dev, found.st_ino).into());
            let journal = std::env::var_os("JOURNAL_STREAM");
            return Self::Socket {
                journal: journal.is_some() && journal == stream.ok(),
            };
        }
        if kind == SFlag::S_IFIFO || kind == SFlag::S_IFCHR {
            let again = without_waiting(OpenOptions::new().write(true)).open("/proc/self/fd/2");
            let writer = None;
            return match again {
                Ok(file) if file.is_terminal() => Self::Terminal { file, held: false },
                Ok(file) => Self::Own(file),
                Err(_) => Self::Aside { writer, lost },
            };
        }
        Self::Plain
    }
}

impl Identity {
    fn of(found: &Metadata) -> Self {
        Self(found.dev(), found.ino())
    }
}

impl Named {
    /// Goes on where the name leads now. Where nothing can be opened there, in what is open.
    fn follow(&mut self) {
        let found = fs::metadata(&self.path);
        if found.is_ok_and(|found| Identity::of(&found) == self.identity) {
            return;
        }
        if let Ok(Sink::Named(now)) = Sink::open(&self.path) {
            *self = now;
        }
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

/// Writes to a terminal, after others who are writing there.
fn write_in_turn(
    mut file: &File,
    bytes: &[u8],
    turns: usize,
    patience: Duration,
) -> io::Result<usize> {
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    for _ in 0..turns {
        match file.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
        let mut asked = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut asked, patience) == Ok(0) {
            break;
        }
    }
    file.write(bytes)
}

/// What the journal takes for the priority of a line and off it (sd-daemon(3)): the level stands after
/// the time. What has none is said before there is a log, and is an error.
fn priority(line: &[u8]) -> &'static str {
    let level = line.iter().skip_while(|&&byte| byte != b' ').nth(1);
    match level {
        Some(b'W') => "<4>",
        Some(b'I') => "<6>",
        Some(b'D') => "<7>",
        _ => "<3>",
    }
}

impl Lines for Sink {
    fn put(&mut self, bytes: &[u8], stands_for: u64) -> io::Result<usize> {
        let stderr = io::stderr();
        match self {
            Self::Own(file) => file.write(bytes),
            Self::Named(log) => {
                log.follow();
                log.file.write(bytes)
            }
            Self::Terminal { file, held } => {
                let turns = if *held { 0 } else { TURNS };
                let written = write_in_turn(file, bytes, turns, TURN);
                *held = written.is_err();
                written
            }
            Self::Socket { journal } => {
                let prefix = if *journal { priority(bytes) } else { "" };
                let whole = [prefix.as_bytes(), bytes].concat();
                // (SIGPIPE is ignored from our beginning on.)
                let sent = send(stderr.as_raw_fd(), &whole, MsgFlags::MSG_DONTWAIT)?;
                Ok(sent.saturating_sub(prefix.len()))
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

#[cfg(test)]
mod tests {
    use std::io::Read;

    use nix::pty::openpty;

    use super::*;

    /// A terminal in which somebody writes more than it takes, and so keeps others out until its reader
    /// has read some of it: its two ends, as the log has it open, and that writer.
    fn busy_terminal() -> (File, File, thread::JoinHandle<()>) {
        let pty = openpty(None, None).unwrap();
        let (master, slave) = (File::from(pty.master), File::from(pty.slave));
        let path = format!("/proc/self/fd/{}", slave.as_raw_fd());
        let again = without_waiting(OpenOptions::new().write(true)).open(path);
        let ours = again.unwrap();
        let theirs = thread::spawn(move || drop((&slave).write_all(&[b'x'; 0x1_0000])));
        // It fills up.
        while (&ours).write(b"").is_ok() && poll_out(&ours) {
            thread::yield_now();
        }
        (master, ours, theirs)
    }

    fn poll_out(file: &File) -> bool {
        let mut asked = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
        poll(&mut asked, PollTimeout::ZERO) != Ok(0)
    }

    #[test]
    fn a_line_waits_for_who_is_writing_to_the_terminal_at_the_same_moment() {
        let (mut master, ours, theirs) = busy_terminal();
        let turned_away = write_in_turn(&ours, b"a line", 0, Duration::ZERO);
        assert_eq!(turned_away.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let reader = thread::spawn(move || {
            let (mut seen, mut bytes) = (Vec::new(), [0; 4096]);
            while !seen.ends_with(b"a line") {
                let count = master.read(&mut bytes).unwrap();
                seen.extend_from_slice(&bytes[..count]);
            }
        });
        let written = write_in_turn(&ours, b"a line", 100_000, Duration::from_secs(30));
        assert_eq!(written.unwrap(), 6);
        theirs.join().unwrap();
        reader.join().unwrap();
    }

    #[test]
    fn a_terminal_that_is_held_turns_lines_away_and_is_known_to() {
        let (master, ours, theirs) = busy_terminal();
        let mut sink = Sink::Terminal {
            file: ours,
            held: false,
        };
        for _ in 0..2 {
            let outcome = sink.put(b"a line", 1);
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert!(matches!(sink, Sink::Terminal { held: true, .. }));
        }
        // Its end is the end of whoever writes there.
        drop(master);
        let _ = theirs.join();
    }
}
