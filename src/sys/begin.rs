//! What std does before it calls `main`, as far as this program needs it: where the C library calls us
//! itself, std is not asked to. What it does besides (it finds the bounds of the stack by reading
//! `/proc/self/maps`, and prepares to explain that the stack has overflowed) is a tenth of our start.

use nix::libc::{self, c_int};
use nix::sys::signal::Signal;

use super::ignore;

/// Call it first of all.
///
/// Opens what is closed of the standard descriptors, or something of ours would get its number, and the
/// command's output; and ignores SIGPIPE, for a reader of our log that goes away is not our end.
pub fn begin() {
    for standard in 0..=2 {
        // SAFETY: F_GETFD only asks; the paths are strings of C; nothing else is open yet, so that the
        // lowest number that is free is this one (open(2)).
        let descriptor: c_int = unsafe {
            match libc::fcntl(standard, libc::F_GETFD) {
                -1 => match libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) {
                    // Nothing can be written to it either. The command finds it closed, as we did.
                    -1 => libc::open(c"/".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC),
                    null => null,
                },
                _ => standard,
            }
        };
        debug_assert_eq!(descriptor, standard);
    }
    ignore(Signal::SIGPIPE);
}
