//! The one module with `unsafe`: what no safe interface offers as it is needed. And the one that knows in
//! what other systems differ from Linux, as far as the difference is not a whole room of its own
//! (`notify_socket`) or a table (`diagnose`): `differences`.
//!
//! * **Launching.** `std::process::Command` empties the signal mask of the child, where the command
//!   is to start with the caller's; its `execvp` hands a file without `#!` to a shell, where the
//!   command is never given to one; and before its exec our handlers still run in the
//!   child, so that a signal to the group would be swallowed there. So: [`spawn`], with an [`Environment`].
//! * **Reaping.** nix refuses the status of a child that a real-time signal killed, after having
//!   reaped it. So: [`wait_any`].
//! * **Signalling who is not our child.** Its number may be somebody else's by the time of the call;
//!   a pidfd is not. So: [`PidFd`].
//! * **Memory.** Not taking what is not needed, and giving back what is not any more: [`share_one_heap`],
//!   [`return_memory`].
//! * **Who sent a message.** nix refuses the credentials where a descriptor came along, and would have us
//!   take that: [`receive`].
//! * **Signals.** Asking for a disposition, ignoring one, and dying or stopping of one as who never
//!   handled it: [`is_ignored`], [`ignore`], [`die_of`], [`suspend`]. And who sent one, which
//!   signal-hook does not tell without a queue of fixed length: [`note_senders`].
//! * **Beginning** without std's own beginning: [`begin()`].
//! * **Unwinding**, which a release build does not do: `unwind`.
#![expect(unsafe_code, reason = "each block says why it is sound")]

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod begin;
#[cfg(target_os = "linux")]
mod datagram;
mod differences;
mod environment;
mod launch;
mod signals;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    not(target_arch = "arm"),
    panic = "abort",
    any(not(target_feature = "crt-static"), edge)
))]
mod unwind;

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
#[cfg(target_os = "linux")]
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
#[cfg(target_os = "linux")]
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use begin::begin;
#[cfg(target_os = "linux")]
pub use datagram::receive;
pub use differences::{LISTS_DESCENDANTS, abstract_address, adopt_orphans, is_in_memory, peer};
pub use environment::Environment;
pub use launch::{Image, spawn};
pub use signals::{Senders, die_of, ignore, is_ignored, note_senders, suspend};

/// Has all threads use one heap (mallopt(3)): they allocate little, and a heap of its own is two pages for each
/// of them. Call it before the first one is started.
#[cfg(target_env = "gnu")]
pub fn share_one_heap() {
    // SAFETY: it sets one of the allocator's own parameters.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Others have no such call.
#[cfg(not(target_env = "gnu"))]
pub fn share_one_heap() {}

/// Gives back to the system what the start needed and nothing needs any more: of the heap (malloc_trim(3)),
/// and of the stack (madvise(2)). And from now on, when it is freed, what is large, as the buffer of a
/// directory that is read (32 kB), which on the heap would be dirty memory for ever (mallopt(3)).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[inline(never)]
pub fn return_memory() {
    const LARGE: u16 = 16_384;
    /// Bytes: more than the frames of this function and of the call have.
    const OURS: usize = 4096;
    /// Bytes: the deepest of the start was not half as deep.
    const DEPTH: usize = 0x1_0000;
    /// Bytes: no page is smaller, and where one is larger the call refuses to begin in its midst.
    const PAGE: usize = 4096;
    let here = 0u8;
    let below = ((&raw const here).addr() - OURS) & !(PAGE - 1);
    let bottom = (&raw const here).with_addr(below - DEPTH).cast_mut();
    // SAFETY: the first two touch nothing but the allocator's own parameters and free memory. The stack
    // grows downwards: below this frame nothing is alive.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE.into());
        libc::malloc_trim(0);
        libc::madvise(bottom.cast(), DEPTH, libc::MADV_DONTNEED);
    }
    // The heap ends where it is used now. What little is allocated later must not fail where there is no
    // memory for the command: the allocator asks for 128 kB beyond this (M_TOP_PAD), which nobody touches.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(
        (LARGE / 2).into(),
    )));
}

/// Others have no such calls.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn return_memory() {}

/// What there is to be heard of our children.
pub enum Waited {
    /// This one has ended, and is reaped; or it was stopped, or continued.
    Child(Pid, ExitStatus),
    /// Nothing for now; there are children.
    Nothing,
    /// There is no child at all.
    Childless,
}

/// The next thing to be heard of any child, whoever's it was.
///
/// # Errors
/// Those of waitpid(2), apart from `ECHILD` and `EINTR`.
pub fn wait_any() -> io::Result<Waited> {
    match wait(-1, libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED) {
        Ok(Some((pid, status))) => Ok(Waited::Child(pid, status)),
        Ok(None) => Ok(Waited::Nothing),
        Err(Errno::ECHILD) => Ok(Waited::Childless),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the child has been stopped (`WSTOPPED`) or continued (`WCONTINUED`), and [`wait_any`] has not
/// told it yet.
#[cfg(target_os = "linux")]
fn has_been(child: Pid, what: i32) -> bool {
    let options = what | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: siginfo_t is plain data, for which zeroes are valid, and `info` a valid place for one.
    // Where there is nothing to tell the kernel leaves the number at zero (waitid(2)).
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let id = child.as_raw().cast_unsigned();
        libc::waitid(libc::P_PID, id, &raw mut info, options) == 0 && info.si_signo != 0
    }
}

/// There it is not needed.
#[cfg(not(target_os = "linux"))]
fn has_been(_: Pid, _: i32) -> bool {
    false
}

/// Whether this process has children, living or not: in the group `group`, or (None) at all.
#[cfg(target_os = "linux")]
#[must_use]
pub fn has_children(group: Option<Pid>) -> bool {
    let (kind, id) = group.map_or((libc::P_ALL, 0), |group| (libc::P_PGID, group.as_raw()));
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: siginfo_t is plain data, for which zeroes are valid, and `info` a valid place for one.
    // WNOWAIT: nothing is reaped.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(kind, id.cast_unsigned(), &raw mut info, options) == 0
    }
}

/// Elsewhere orphans are not ours, so that nothing could be told from it.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn has_children(_: Option<Pid>) -> bool {
    false
}

/// A process by a handle that never comes to mean another (pidfd_open(2), Linux 5.3).
#[cfg(target_os = "linux")]
pub struct PidFd(OwnedFd);

#[cfg(target_os = "linux")]
impl PidFd {
    /// The process that has this number now.
    ///
    /// # Errors
    /// `ESRCH` where there is none, `ENOSYS` on an older kernel, `EMFILE`.
    pub fn open(pid: Pid) -> nix::Result<Self> {
        // SAFETY: two integers go in; what comes out is a descriptor of our own, or -1.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
        let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
        // SAFETY: it was just opened, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends it `signal`; None: only asks whether it is there, be it as a zombie.
    ///
    /// # Errors
    /// Those of kill(2): `ESRCH` once it has been reaped.
    pub fn signal(&self, signal: Option<Signal>) -> nix::Result<()> {
        let number = signal.map_or(0, |signal| signal as i32);
        let (fd, info) = (self.0.as_raw_fd(), ptr::null::<libc::siginfo_t>());
        // SAFETY: the descriptor is open; without an info the kernel makes up kill(2)'s.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, info, 0) };
        Errno::result(sent).map(drop)
    }
}

/// Waits for the end of a process, at most so long. One that is no more, or can't be held, is not waited for.
#[cfg(target_os = "linux")]
pub fn await_end(pid: Pid, patience: Duration) {
    if let Ok(process) = PidFd::open(pid) {
        // Readable when it has ended (pidfd_open(2)).
        let mut ended = [PollFd::new(process.0.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
        let _ = nix::poll::poll(&mut ended, patience);
    }
}

/// There it is not waited for.
#[cfg(not(target_os = "linux"))]
pub fn await_end(_: Pid, _: Duration) {}

/// There is none.
#[cfg(not(target_os = "linux"))]
pub enum PidFd {}

#[cfg(not(target_os = "linux"))]
impl PidFd {
    /// # Errors
    /// `ENOSYS`.
    pub fn open(_: Pid) -> nix::Result<Self> {
        Err(Errno::ENOSYS)
    }

    /// # Errors
    /// Never.
    pub fn signal(&self, _: Option<Signal>) -> nix::Result<()> {
        match *self {}
    }
}

fn wait(pid: libc::pid_t, options: i32) -> nix::Result<Option<(Pid, ExitStatus)>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the status.
        match unsafe { libc::waitpid(pid, &raw mut status, options) } {
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Err(Errno::last()),
            0 => return Ok(None),
            reaped => {
                let status = ExitStatus::from_raw(status);
                return Ok(Some((Pid::from_raw(reaped), status)));
            }
        }
    }
}
