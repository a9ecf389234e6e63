//! The one module with `unsafe`: what no safe interface offers as it is needed.
//!
//! * **Launching.** `std::process::Command` empties the signal mask of the child, where the command
//!   is to start with the caller's; its `execvp` hands a file without `#!` to a shell, where the
//!   command is never given to one; and between its fork and exec our handlers still run in the
//!   child, so that a signal to the group would be swallowed there. So: [`spawn`].
//! * **Reaping.** nix refuses the status of a child that a real-time signal killed, after having
//!   reaped it. So: [`wait_any`].
//! * **Signalling who is not our child.** Its number may be somebody else's by the time of the call;
//!   a pidfd is not. So: [`PidFd`].
//! * **Memory.** Giving back what is not needed any more: [`return_memory`].
//! * **Who sent a message.** nix refuses the credentials where a descriptor came along, and would have us
//!   take that: [`receive`].
//! * **Signals.** Asking for a disposition, ignoring one, and dying or stopping of one as who never
//!   handled it: [`is_ignored`], [`ignore`], [`die_of`], [`suspend`]. And who sent one, which
//!   signal-hook does not tell without a queue of fixed length: [`note_senders`].
//! * **Unwinding**, which a release build does not do: `unwind`.
#![expect(unsafe_code, reason = "each block says why it is sound")]

#[cfg(target_os = "linux")]
mod datagram;
mod signals;
#[cfg(all(target_os = "linux", panic = "abort"))]
mod unwind;

use std::ffi::{CString, OsStr, c_char};
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read};
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
#[cfg(target_os = "linux")]
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::{ForkResult, Pid};

#[cfg(target_os = "linux")]
pub use datagram::receive;
pub use signals::{Senders, die_of, ignore, is_ignored, note_senders, suspend};

/// A command ready to be executed, any number of times: all that `execve(2)` needs, laid out before
/// the fork, because after it nothing may be allocated.
pub struct Image {
    /// Where the program may be, in this order (one place, or one for each directory of `PATH`).
    candidates: Vec<CString>,
    argv: CStrings,
    envp: CStrings,
    /// The signal mask that the command starts with.
    mask: SigSet,
    /// What takes the place of its standard input, output and error; None: ours.
    silence: Option<File>,
}

/// Strings and the null-terminated array of pointers to them that C wants.
struct CStrings {
    pointers: Vec<*const c_char>,
    /// What the pointers point to: never changed, so never moved.
    _strings: Vec<CString>,
}

impl CStrings {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr());
        Self {
            pointers: pointers.chain([ptr::null()]).collect(),
            _strings: strings,
        }
    }
}

impl Image {
    /// `candidates`, `argv` and `environment` (each `NAME=value`) as the system will see them.
    ///
    /// # Errors
    /// `InvalidInput` where one of them holds a NUL byte.
    pub fn new<S: AsRef<OsStr>>(
        candidates: &[S],
        argv: &[S],
        environment: &[S],
        mask: SigSet,
    ) -> io::Result<Self> {
        Ok(Self {
            candidates: c_strings(candidates)?,
            argv: CStrings::new(c_strings(argv)?),
            envp: CStrings::new(c_strings(environment)?),
            mask,
            silence: None,
        })
    }

    /// The same with nothing to read from and nothing to write to.
    ///
    /// # Errors
    /// Where `/dev/null` can't be opened.
    pub fn silent(mut self) -> io::Result<Self> {
        let null = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        self.silence = Some(null);
        Ok(self)
    }

    /// The signal mask that the command starts with.
    #[must_use]
    pub fn mask(&self) -> SigSet {
        self.mask
    }
}

fn c_strings<S: AsRef<OsStr>>(strings: &[S]) -> io::Result<Vec<CString>> {
    let all = strings.iter().map(|s| CString::new(s.as_ref().as_bytes()));
    all.collect::<Result<_, _>>().map_err(io::Error::from)
}

/// Launches the command, in a process group of its own or in ours, to be sent SIGTERM when this thread
/// dies (Linux, prctl(2) `PR_SET_PDEATHSIG`: so call it from the main thread). `to_default` are the
/// signals whose disposition here is not the command's. Returns when the command has been executed, or
/// could not be.
///
/// # Errors
/// That of `pipe`, `fork` or, from the child, of `execve`: `ENOENT` if no candidate was found,
/// `EACCES` if one was but may not be executed.
pub fn spawn(image: &Image, to_default: &[Signal], own_group: bool) -> io::Result<Pid> {
    let (report, reporter) = io::pipe()?;
    let parent = nix::unistd::getpid();
    // No handler of ours may run in the child: it would take a signal that is the command's.
    let ours = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: other threads may exist, so the child may only make async-signal-safe calls
    // (fork(2), signal-safety(7)). `become_command` does: it allocates nothing, takes no lock,
    // never returns and never unwinds.
    let forked = unsafe { nix::unistd::fork() };
    if matches!(forked, Ok(ForkResult::Child)) {
        become_command(image, to_default, own_group, parent, &reporter);
    }
    drop(reporter);
    let launched = match forked {
        Ok(ForkResult::Parent { child }) => match read_errno(report, child, ours) {
            None => Ok(child),
            // It is about to exit, and is reaped like any other.
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        },
        Ok(ForkResult::Child) => Err(io::ErrorKind::Other.into()),
        Err(errno) => Err(errno.into()),
    };
    // Can't fail: the mask comes from the system.
    let _ = ours.thread_set_mask();
    launched
}

/// What the child has to say: nothing once it has been executed, for the pipe closes with that; nor
/// where it was stopped before (Ctrl-Z), for then it is there, and its fate is heard of as its end.
/// This waits as long as the system takes to load the program, as vfork(2) would.
fn read_errno(mut report: PipeReader, child: Pid, mask: SigSet) -> Option<i32> {
    if is_stopped_first(&report, child, mask) {
        return None;
    }
    let mut errno = [0; size_of::<i32>()];
    // EINTR is retried by `read_exact`; a short read is a child that was killed, and is reaped as such.
    let read = report.read_exact(&mut errno);
    read.is_ok().then(|| i32::from_ne_bytes(errno))
}

/// Waits until there is something to be read, or the child was stopped. That is told by a SIGCHLD, which
/// is blocked until now and by `mask` no more, so that it can't come just before.
#[cfg(target_os = "linux")]
fn is_stopped_first(report: &PipeReader, child: Pid, mask: SigSet) -> bool {
    let mut readable = [PollFd::new(report.as_fd(), PollFlags::POLLIN)];
    while nix::poll::ppoll(&mut readable, None, Some(mask)) == Err(Errno::EINTR) {
        if has_been(child, libc::WSTOPPED) {
            return true;
        }
    }
    false
}

/// Elsewhere the command has a group of its own, and no terminal stops it on the way.
#[cfg(not(target_os = "linux"))]
fn is_stopped_first(_: &PipeReader, _: Pid, _: SigSet) -> bool {
    false
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

/// The child's side of [`spawn`].
fn become_command(
    image: &Image,
    to_default: &[Signal],
    own_group: bool,
    parent: Pid,
    reporter: &PipeWriter,
) -> ! {
    let errno = exec(image, to_default, own_group, parent);
    exit_with(reporter.as_raw_fd(), errno)
}

fn exec(image: &Image, to_default: &[Signal], own_group: bool, parent: Pid) -> Errno {
    if own_group && let Err(errno) = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0)) {
        return errno;
    }
    #[cfg(target_os = "linux")]
    {
        // Where it can't be had the command still runs.
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM);
        let parent_now = nix::unistd::getppid();
        // 0: we are in a pid namespace of our own, and it is outside (`unshare --pid`).
        if parent_now != parent && parent_now.as_raw() != 0 {
            // The supervisor died in between, and its death will not be told again.
            return Errno::ESRCH;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
    // std ignores SIGPIPE for itself. The rest keeps what the caller set.
    for signal in to_default.iter().chain(&[Signal::SIGPIPE]) {
        // SAFETY: signal(2) with SIG_DFL installs no code; it is async-signal-safe.
        unsafe { libc::signal(*signal as i32, libc::SIG_DFL) };
    }
    if let Err(errno) = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&image.mask), None) {
        return errno;
    }
    if let Some(null) = &image.silence {
        for standard in 0..=2 {
            // SAFETY: dup2(2) is async-signal-safe, and `null` is open.
            if unsafe { libc::dup2(null.as_raw_fd(), standard) } < 0 {
                return Errno::last();
            }
        }
    }
    // As execvp(3): on to the next directory where nothing is found, the directory can't be reached
    // (a network file system) or nothing may be executed; the last is remembered. Never to a shell.
    let mut outcome = Errno::ENOENT;
    for candidate in &image.candidates {
        let (argv, envp) = (image.argv.pointers.as_ptr(), image.envp.pointers.as_ptr());
        // SAFETY: both arrays end with a null pointer, and what they point to lives in `image`.
        unsafe { libc::execve(candidate.as_ptr(), argv, envp) };
        let errno = Errno::last();
        if matches!(errno, Errno::EACCES | Errno::ENAMETOOLONG) {
            outcome = errno;
        } else if !matches!(
            errno,
            Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT
        ) {
            return errno;
        }
    }
    outcome
}

/// Tells the parent why and exits, without being stopped on the way. A plain `exit` would run the parent's exit handlers.
fn exit_with(reporter: RawFd, errno: Errno) -> ! {
    let bytes = (errno as i32).to_ne_bytes();
    let _ = SigSet::all().thread_block();
    // SAFETY: `bytes` is valid for its length, `reporter` is open; both calls are
    // async-signal-safe. If the write fails, so has the parent.
    unsafe {
        libc::write(reporter, bytes.as_ptr().cast(), bytes.len());
        libc::_exit(127)
    }
}

/// Gives back to the system what the command line needed and nothing needs any more (malloc_trim(3)); and
/// from now on, when it is freed, what is large, as the buffer of a directory that is read (32 kB), which on
/// the heap would be dirty memory for ever (mallopt(3)).
#[cfg(target_env = "gnu")]
pub fn return_memory() {
    const LARGE: i32 = 16_384;
    // SAFETY: both touch nothing but the allocator's own parameters and free memory.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::malloc_trim(0);
    }
}

/// Others have no such calls.
#[cfg(not(target_env = "gnu"))]
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
