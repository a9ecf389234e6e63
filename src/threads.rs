//! Threads beside the main one, which alone handles signals.

use nix::sys::signal::{SigSet, SigmaskHow};

/// Does this with all signals blocked. A thread that is started by it inherits that: then no signal ever
/// goes there, but interrupts what the main thread waits for, and no handler runs twice at a time.
pub fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let started = start();
    if let Ok(before) = before {
        // Can't fail: the mask comes from the system.
        let _ = before.thread_set_mask();
    }
    started
}
