//! Launching the command; see the module above.

use std::ffi::{CStr, OsStr, c_char};
#[cfg(target_os = "linux")]
use std::ffi::{c_int, c_void};
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read};
#[cfg(target_os = "linux")]
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::libc;
#[cfg(target_os = "linux")]
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::{ForkResult, Pid};

use super::Environment;
#[cfg(target_os = "linux")]
use super::has_been;

/// A command ready to be executed, any number of times: all that `execve(2)` needs, laid out before
/// there is a child, in which nothing may be allocated.
pub struct Image {
    /// Where the program may be, in this order (one place, or one for each directory of `PATH`).
    candidates: CStrings,
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
    /// What the pointers point to, one string after the other: never changed, so never moved.
    _bytes: Vec<u8>,
}

impl CStrings {
    /// `lasting`, which are not copied, and then the others.
    ///
    /// # Errors
    /// `InvalidInput` where one of them holds a NUL byte.
    fn new<S: AsRef<OsStr>>(lasting: &[&'static CStr], others: &[S]) -> io::Result<Self> {
        let all = || others.iter().map(|string| string.as_ref().as_bytes());
        if all().any(|string| string.contains(&0)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut bytes = Vec::with_capacity(all().map(|string| string.len() + 1).sum());
        for string in all() {
            bytes.extend_from_slice(string);
            bytes.push(0);
        }
        let mut pointers = Vec::with_capacity(lasting.len() + others.len() + 1);
        pointers.extend(lasting.iter().map(|string| string.as_ptr()));
        let starts = bytes.split_inclusive(|byte| *byte == 0);
        pointers.extend(starts.map(|string| string.as_ptr().cast::<c_char>()));
        pointers.push(ptr::null());
        Ok(Self {
            pointers,
            _bytes: bytes,
        })
    }

    /// Without the null.
    fn each(&self) -> &[*const c_char] {
        &self.pointers[..self.pointers.len() - 1]
    }
}

impl Image {
    /// `candidates`, `argv` and `environment` as the system will see them.
    ///
    /// # Errors
    /// `InvalidInput` where one of them holds a NUL byte.
    pub fn new<S: AsRef<OsStr>>(
        candidates: &[S],
        argv: &[S],
        environment: &Environment,
        mask: SigSet,
    ) -> io::Result<Self> {
        Ok(Self {
            candidates: CStrings::new(&[], candidates)?,
            argv: CStrings::new(&[], argv)?,
            envp: CStrings::new(&environment.inherited, &environment.own)?,
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

/// Launches the command, in a process group of its own or in ours, to be sent SIGTERM when this thread
/// dies (Linux, prctl(2) `PR_SET_PDEATHSIG`: so call it from the main thread). `to_default` are the
/// signals whose disposition here is not the command's. Returns when the command has been executed, or
/// could not be.
///
/// # Errors
/// That of `pipe`, `clone` or `fork`, `ENOMEM` where there is no memory for it, or, from the child, that of
/// `execve`: `ENOENT` if no candidate was found, `EACCES` if one was but may not be executed.
pub fn spawn(image: &Image, to_default: &[Signal], own_group: bool) -> io::Result<Pid> {
    let channel = io::pipe();
    // No handler of ours may run in the child: it would take a signal that is the command's.
    let ours = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let plan = Plan {
        image,
        to_default,
        own_group,
        parent: nix::unistd::getpid(),
        outcome: AtomicI32::new(UNTOLD),
        reporter: channel.as_ref().ok().map(|(_, end)| end.as_raw_fd()),
    };
    let launched = bear(&plan);
    let outcome = plan.outcome.load(Ordering::Relaxed);
    let launched = launched.and_then(|child| {
        let failure = match (outcome, channel) {
            (UNTOLD, Ok((report, reporter))) => {
                drop(reporter);
                read_errno(report, child, ours)
            }
            (UNTOLD, Err(_)) | (EXECUTED, _) => None,
            (errno, _) => Some(errno),
        };
        match failure {
            None => Ok(child),
            // It is about to exit, and is reaped like any other.
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    });
    // Can't fail: the mask comes from the system.
    let _ = ours.thread_set_mask();
    launched
}

/// What the child is to do.
struct Plan<'a> {
    image: &'a Image,
    to_default: &'a [Signal],
    own_group: bool,
    parent: Pid,
    /// Where it tells what it failed at, if it is in our memory.
    outcome: AtomicI32,
    /// The same, if it is not: closed when it has been executed. None where no descriptors are left.
    reporter: Option<RawFd>,
}

/// Outcomes that are no error's number: it has not begun, or not in our memory; it has, and not failed.
const UNTOLD: i32 = -1;
const EXECUTED: i32 = 0;

/// The child. Not in our memory where it is to be in our own group, whose terminal could stop it on the way
/// (Ctrl-Z), and us with it; nor where that is refused, by a filter of system calls, or by an older kernel that is
/// to put it into another time namespace.
fn bear(plan: &Plan<'_>) -> io::Result<Pid> {
    #[cfg(target_os = "linux")]
    if plan.own_group {
        let born = bear_in_our_memory(plan);
        let has_no_room =
            |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM));
        if born.as_ref().err().is_none_or(has_no_room) {
            return born;
        }
    }
    if plan.reporter.is_none() {
        return Err(Errno::EMFILE.into());
    }
    // SAFETY: other threads may exist, so the child may only make async-signal-safe calls
    // (fork(2), signal-safety(7)). `become_command` does: it allocates nothing, takes no lock,
    // never returns and never unwinds.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => become_command(plan),
    }
}

/// As vfork(2) does: this thread waits, and the child uses our memory until it has been executed, so that no
/// page table is copied. (Who sends SIGSTOP to a child in its first microseconds stops us, too, until he
/// sends SIGCONT. Emulators, qemu-user and valgrind, make a fork of it.)
#[cfg(target_os = "linux")]
fn bear_in_our_memory(plan: &Plan<'_>) -> io::Result<Pid> {
    /// Bytes; none of what it calls needs a tenth of that.
    const STACK: usize = 0x1_0000;

    extern "C" fn run(plan: *mut c_void) -> c_int {
        // SAFETY: it is the plan below, which lives until the child is out of our memory.
        become_command(unsafe { &*plan.cast::<Plan<'_>>() })
    }

    let mut stack: Vec<u128> = Vec::new();
    let no_memory = |_| io::Error::from_raw_os_error(libc::ENOMEM);
    stack
        .try_reserve_exact(STACK / size_of::<u128>())
        .map_err(no_memory)?;
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child has a stack of its own (it grows downwards from `top`, which is aligned), and this
    // thread does not go on, nor is anything of it freed, before the child has been executed or has ended
    // (clone(2), CLONE_VFORK). Other threads may, so as after a fork it may only make async-signal-safe
    // calls: `become_command` allocates nothing, takes no lock, and neither returns nor unwinds. It changes
    // nothing that it shares with us but the outcome and the C library's own errno, which nobody here looks
    // at after this. Dispositions, mask and descriptors it has for itself.
    let child = unsafe {
        libc::clone(
            run,
            top.cast(),
            flags,
            ptr::from_ref(plan).cast_mut().cast(),
        )
    };
    Ok(Pid::from_raw(Errno::result(child)?))
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

/// Becomes the command; the number of the error that it failed with, which need not be one that has a name.
fn exec(plan: &Plan<'_>) -> i32 {
    let Plan { image, parent, .. } = *plan;
    if plan.own_group {
        if let Err(errno) = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0)) {
            return errno as i32;
        }
        forget_the_terminal();
    }
    #[cfg(target_os = "linux")]
    {
        // Where it can't be had the command still runs.
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM);
        let parent_now = nix::unistd::getppid();
        // 0: we are in a pid namespace of our own, and it is outside (`unshare --pid`).
        if parent_now != parent && parent_now.as_raw() != 0 {
            // The supervisor died in between, and its death will not be told again.
            return libc::ESRCH;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
    // SIGPIPE is ignored from our beginning on. The rest keeps what the caller set.
    for signal in plan.to_default.iter().chain(&[Signal::SIGPIPE]) {
        // SAFETY: signal(2) with SIG_DFL installs no code; it is async-signal-safe.
        unsafe { libc::signal(*signal as i32, libc::SIG_DFL) };
    }
    if let Err(errno) = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&image.mask), None) {
        return errno as i32;
    }
    if let Some(null) = &image.silence {
        for standard in 0..=2 {
            // SAFETY: dup2(2) is async-signal-safe, and `null` is open.
            if unsafe { libc::dup2(null.as_raw_fd(), standard) } < 0 {
                return Errno::last_raw();
            }
        }
    }
    // As execvp(3): on to the next directory where nothing is found, the directory can't be reached
    // (a network file system) or nothing may be executed; the last is remembered. Never to a shell.
    let mut outcome = libc::ENOENT;
    for candidate in image.candidates.each() {
        let (argv, envp) = (image.argv.pointers.as_ptr(), image.envp.pointers.as_ptr());
        // SAFETY: both arrays end with a null pointer, and what they point to lives in `image`.
        unsafe { libc::execve(*candidate, argv, envp) };
        let errno = Errno::last_raw();
        if matches!(errno, libc::EACCES | libc::ENAMETOOLONG) {
            outcome = errno;
        } else if !matches!(
            errno,
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT
        ) {
            return errno;
        }
    }
    outcome
}

/// What the terminal of the group that the child was born in has sent it until it left that (Ctrl-Z, Ctrl-C) is
/// not for it, and would stop or end it before it is executed: to ignore it takes it away.
fn forget_the_terminal() {
    for signal in [
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGHUP,
    ] {
        // SAFETY: signal(2) is async-signal-safe, and what is put back is what was there, in a child that
        // has all signals blocked.
        unsafe {
            let before = libc::signal(signal, libc::SIG_IGN);
            libc::signal(signal, before);
        }
    }
}

/// The child's side: executes the command, or tells the parent why not and exits. A plain `exit` would run
/// the parent's exit handlers.
fn become_command(plan: &Plan<'_>) -> ! {
    plan.outcome.store(EXECUTED, Ordering::Relaxed);
    let errno = exec(plan);
    plan.outcome.store(errno, Ordering::Relaxed);
    let bytes = errno.to_ne_bytes();
    // Not to be stopped on the way.
    let _ = SigSet::all().thread_block();
    // SAFETY: `bytes` is valid for its length, the descriptor is open; both calls are
    // async-signal-safe. If the write fails, so has the parent.
    unsafe {
        if let Some(reporter) = plan.reporter {
            libc::write(reporter, bytes.as_ptr().cast(), bytes.len());
        }
        libc::_exit(127)
    }
}
