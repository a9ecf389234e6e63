//! The command's `NOTIFY_SOCKET` (contract, section 9): beats without a file. Anybody may write to it who
//! finds it, which is why each message's sender is looked at.

mod message;
#[cfg(target_os = "linux")]
mod place;

#[cfg(target_os = "linux")]
use std::cell::OnceCell;
use std::ffi::OsString;
use std::io;

use mio::{Registry, Token};
use nix::unistd::Pid;

#[cfg(target_os = "linux")]
use crate::sys;
pub use message::Message;

/// So many messages are taken at once: where they come faster, everything else has its turn, too.
#[cfg(target_os = "linux")]
const MESSAGES: usize = 64;

/// The socket, and what was thrown away.
pub struct NotifySocket {
    #[cfg(target_os = "linux")]
    socket: std::os::unix::net::UnixDatagram,
    #[cfg(target_os = "linux")]
    place: place::Place,
    /// Messages that were not acted upon: a stranger's, too long, or no text.
    pub dropped: u64,
    /// Not all that has come was taken.
    pub has_more: bool,
}

/// The command, by its process id, and whether `/proc` shows it: whose messages are taken besides root's and
/// our own user's.
pub type Command = Option<(Pid, bool)>;

#[cfg(target_os = "linux")]
impl NotifySocket {
    /// Opens it; `token` is told when there is something to take.
    ///
    /// # Errors
    /// Where no socket can be had (descriptor limit).
    pub fn open(registry: &Registry, token: Token) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        use mio::Interest;
        use nix::sys::socket::{setsockopt, sockopt};

        let (place, socket) = place::Place::bind()?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        let raw = socket.as_raw_fd();
        registry.register(&mut mio::unix::SourceFd(&raw), token, Interest::READABLE)?;
        Ok(Self {
            socket,
            place,
            dropped: 0,
            has_more: false,
        })
    }

    /// As it stands in `NOTIFY_SOCKET`.
    #[must_use]
    pub fn address(&self) -> OsString {
        self.place.address.clone()
    }

    /// What the command has said since the last call; or, where `has_more` is true then, some of it.
    pub fn take(&mut self, command: Command) -> Vec<Message> {
        let mut messages = Vec::new();
        // Asked for once at most: a stranger may send as fast as he can.
        let users = OnceCell::new();
        let is_known = |user: u32, process: i32| {
            user == 0
                || user == nix::unistd::geteuid().as_raw()
                || command.is_some_and(|(pid, is_seen)| {
                    let is_its = || users.get_or_init(|| users_of(pid)).contains(&user);
                    pid.as_raw() == process || is_seen && is_its()
                })
        };
        self.has_more = true;
        for _ in 0..MESSAGES {
            match self.receive(is_known) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => self.dropped += 1,
                Err(nix::errno::Errno::EINTR) => {}
                // Nothing more; nor is there anything that could be done about another failure.
                Err(_) => {
                    self.has_more = false;
                    break;
                }
            }
        }
        messages
    }

    /// One message, or None for one that does not count. A descriptor that comes with it (`BARRIER=1`) is
    /// closed by the kernel when the message is taken, which is what a barrier waits for.
    fn receive(&self, is_known: impl Fn(u32, i32) -> bool) -> nix::Result<Option<Message>> {
        // One more than the longest, so that a longer one shows.
        let mut bytes = [0; message::LONGEST + 1];
        let (length, sender) = sys::receive(&self.socket, &mut bytes)?;
        let known = sender.is_some_and(|(user, process)| is_known(user, process));
        Ok(known.then(|| Message::parse(&bytes[..length])).flatten())
    }
}

/// The real and the effective user of a process, and those that it can become again (`Uid:` of
/// proc_pid_status(5)). The kernel gives the real one for a sender's.
#[cfg(target_os = "linux")]
fn users_of(pid: Pid) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let users = users.into_iter().flat_map(str::split_whitespace);
    users.filter_map(|user| user.parse().ok()).collect()
}

/// There are no credentials to look at in the same way.
#[cfg(not(target_os = "linux"))]
impl NotifySocket {
    /// # Errors
    /// Always.
    pub fn open(_: &Registry, _: Token) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// None.
    #[must_use]
    pub fn address(&self) -> OsString {
        OsString::new()
    }

    /// Nothing.
    pub fn take(&mut self, _: Command) -> Vec<Message> {
        Vec::new()
    }
}
