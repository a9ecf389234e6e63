//! Signals as no safe interface offers them; see the module above.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

use super::has_been;

/// Ignores `signal` in this process.
pub fn ignore(signal: Signal) {
    // SAFETY: signal(2) with SIG_IGN installs no code.
    unsafe { libc::signal(signal as i32, libc::SIG_IGN) };
}

/// Whether `signal` is ignored in this process.
#[must_use]
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: sigaction is plain data, for which zeroes are valid; with a null `act`, sigaction(2)
    // only writes the old one to the valid place that it is given.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal as i32, ptr::null(), &raw mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    }
}

/// Ends this process by `signal`, as if it had never been handled: a shell that waits for us then knows
/// that it was interrupted, too. Returns where that can't be (the first process of a pid namespace).
pub fn die_of(signal: Signal) {
    // It is not our core that anybody wants.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
    // SAFETY: signal(2) with SIG_DFL installs no code, raise(3) takes any number.
    unsafe {
        libc::signal(signal as i32, libc::SIG_DFL);
        libc::raise(signal as i32);
    }
}

/// Stops this process as SIGTSTP does where it is not handled, unless `child` has been continued by now, and
/// returns when it is continued. Returns at once where nobody could continue it: the kernel does not let
/// the members of an orphaned process group stop (setpgid(2)).
pub fn suspend(child: Option<Pid>) {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTSTP);
    // While it is blocked it waits, and a SIGCONT that comes meanwhile takes it away again.
    let _ = stop.thread_block();
    // SAFETY: sigaction is plain data, for which zeroes are valid; SIG_DFL and SIG_IGN install no code,
    // and the handler that is put back is the one that was there. raise(3) takes any number.
    unsafe {
        let (mut action, mut old): (libc::sigaction, libc::sigaction) = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGTSTP, &raw const action, &raw mut old);
        libc::raise(libc::SIGTSTP);
        if child.is_some_and(|child| has_been(child, libc::WCONTINUED)) {
            // To ignore it takes it away.
            action.sa_sigaction = libc::SIG_IGN;
            libc::sigaction(libc::SIGTSTP, &raw const action, ptr::null_mut());
        }
        let _ = stop.thread_unblock();
        libc::sigaction(libc::SIGTSTP, &raw const old, ptr::null_mut());
    }
}

/// Who sent a signal since the last [`Senders::take`].
pub struct Senders {
    kernel: AtomicBool,
    /// The processes that did, each once, then `NOBODY`.
    processes: [AtomicI32; SENDERS],
    /// There were more.
    more: AtomicBool,
}

const SENDERS: usize = 8;
const NOBODY: i32 = -1;

impl Senders {
    /// Nobody.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            kernel: AtomicBool::new(false),
            processes: [const { AtomicI32::new(NOBODY) }; SENDERS],
            more: AtomicBool::new(false),
        }
    }

    #[cfg(target_os = "linux")]
    fn note(&self, code: i32, process: impl Fn() -> i32) {
        if code == libc::SI_KERNEL {
            self.kernel.store(true, Ordering::Relaxed);
            return;
        }
        let process = process();
        let noted = self.processes.iter().any(|place| {
            let (now, relaxed) = (NOBODY, Ordering::Relaxed);
            let before = place.compare_exchange(now, process, relaxed, relaxed);
            before.is_ok() || before == Err(process)
        });
        if !noted {
            self.more.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the kernel itself (the terminal's driver) sent it; and the processes that did (0: one
    /// outside of our pid namespace), None where they were too many to be known.
    pub fn take(&self) -> (bool, Option<Vec<Pid>>) {
        let places = self.processes.iter();
        let taken = places.map(|place| place.swap(NOBODY, Ordering::Relaxed));
        let processes = taken.filter(|process| *process != NOBODY);
        let processes = processes.map(Pid::from_raw).collect();
        let kernel = self.kernel.swap(false, Ordering::Relaxed);
        let more = self.more.swap(false, Ordering::Relaxed);
        (kernel, (!more).then_some(processes))
    }
}

/// Has `senders` note who sends `signal`, from now on and before it is noticed in any other way.
///
/// # Errors
/// Those of sigaction(2).
#[cfg(target_os = "linux")]
pub fn note_senders(signal: Signal, senders: &'static Senders) -> io::Result<()> {
    let note = |info: &libc::siginfo_t| {
        // SAFETY: a signal that is not the kernel's has the sender in its info (sigaction(2)).
        senders.note(info.si_code, || unsafe { info.si_pid() });
    };
    // SAFETY: the action runs in the handler and must be async-signal-safe: it touches two atomics.
    unsafe { signal_hook_registry::register_sigaction(signal as i32, note) }.map(drop)
}

/// There it is not known.
#[cfg(not(target_os = "linux"))]
pub fn note_senders(_: Signal, _: &'static Senders) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn each_sender_is_known_once_while_there_are_few() {
        let senders = Senders::new();
        let some = |pids: &[i32]| Some(pids.iter().copied().map(Pid::from_raw).collect());
        assert_eq!(senders.take(), (false, some(&[])));
        for pid in [7, 7, 8, 7, 0] {
            senders.note(libc::SI_USER, || pid);
        }
        senders.note(libc::SI_KERNEL, || 9);
        assert_eq!(senders.take(), (true, some(&[7, 8, 0])));
        senders.note(libc::SI_TKILL, || 9);
        assert_eq!(senders.take(), (false, some(&[9])));
        for pid in 0..=SENDERS {
            senders.note(libc::SI_USER, || i32::try_from(pid).unwrap());
        }
        assert_eq!(senders.take(), (false, None));
        assert_eq!(senders.take(), (false, some(&[])));
    }
}
