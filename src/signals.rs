//! Signals as events: signal-hook's self-pipe, readable in the reactor's poll.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use mio::{Interest, Registry, Token};
use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts;

use crate::sys;

/// Handled in any case. All others stay ignored where they were ignored at the start (`nohup`, a
/// script's background job), here and in the command.
const ALWAYS: [i32; 2] = [consts::SIGTERM, consts::SIGCHLD];
const UNLESS_IGNORED: [i32; 7] = [
    consts::SIGINT,
    consts::SIGQUIT,
    consts::SIGHUP,
    consts::SIGUSR1,
    consts::SIGUSR2,
    consts::SIGWINCH,
    consts::SIGCONT,
];

/// What a line of our own log could bring upon us: it is a write that fails (or not), and not our
/// end. A log that has grown to `ulimit -f`; a terminal whose background may not write (`stty tostop`).
const TO_OUR_LOG: [Signal; 2] = [Signal::SIGXFSZ, Signal::SIGTTOU];

/// A signal, by what it asks of us (contract, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Stop the command, then end.
    Stop(Signal),
    /// For the command.
    Forward(Signal),
    /// A child has ended.
    Child,
}

/// The registered signals.
pub struct Signals {
    pipe: signal_hook_mio::v1_0::Signals,
    /// Those whose disposition is not the caller's any more: the command gets the default.
    pub changed: Vec<Signal>,
    /// The mask that this process was started with, which is the command's due.
    pub mask: SigSet,
    /// A SIGHUP then says that the terminal was closed, not 'reload'.
    has_terminal: bool,
}

impl Signals {
    /// Registers the handlers and lets the signals through, even if the caller had blocked them.
    /// Call it before the first launch, or the end of a short command goes unheard.
    ///
    /// # Errors
    /// Where the pipe can't be had (descriptor limit).
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let mut changed: Vec<Signal> = ALWAYS
            .into_iter()
            .map(Signal::try_from)
            .chain(UNLESS_IGNORED.into_iter().map(Signal::try_from))
            .filter_map(Result::ok)
            .filter(|signal| ALWAYS.contains(&(*signal as i32)) || !sys::is_ignored(*signal))
            .collect();
        let mut pipe =
            signal_hook_mio::v1_0::Signals::new(changed.iter().map(|signal| *signal as i32))?;
        registry.register(&mut pipe, token, Interest::READABLE)?;
        let mask = SigSet::thread_get_mask()?;
        changed
            .iter()
            .copied()
            .collect::<SigSet>()
            .thread_unblock()?;
        for harmful in TO_OUR_LOG {
            if !sys::is_ignored(harmful) {
                sys::ignore(harmful);
                changed.push(harmful);
            }
        }
        Ok(Self {
            pipe,
            changed,
            mask,
            has_terminal: has_terminal(),
        })
    }

    /// What has arrived since the last call, requests to stop first and ends of children last.
    pub fn take(&mut self) -> Vec<Heard> {
        let arrived = self.pipe.pending();
        let has_terminal = self.has_terminal;
        let mut heard: Vec<_> = arrived
            .filter_map(|number| meaning(Signal::try_from(number).ok()?, has_terminal))
            .collect();
        heard.sort_by_key(|heard| match heard {
            Heard::Stop(_) => 0,
            Heard::Forward(_) => 1,
            Heard::Child => 2,
        });
        heard
    }
}

fn meaning(signal: Signal, has_terminal: bool) -> Option<Heard> {
    match signal as i32 {
        consts::SIGCHLD => Some(Heard::Child),
        consts::SIGTERM | consts::SIGINT | consts::SIGQUIT => Some(Heard::Stop(signal)),
        consts::SIGHUP if has_terminal => Some(Heard::Stop(signal)),
        consts::SIGHUP | consts::SIGUSR1 | consts::SIGUSR2 | consts::SIGWINCH | consts::SIGCONT => {
            Some(Heard::Forward(signal))
        }
        _ => None,
    }
}

/// Whether this process has a controlling terminal, which `/dev/tty` then opens (tty(4)).
fn has_terminal() -> bool {
    OpenOptions::new()
        .read(true)
        .custom_flags(O_NOCTTY | O_NONBLOCK)
        .open("/dev/tty")
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_means_stop_only_with_a_terminal() {
        let stop = Some(Heard::Stop(Signal::SIGHUP));
        assert_eq!(meaning(Signal::SIGHUP, true), stop);
        let reload = Some(Heard::Forward(Signal::SIGHUP));
        assert_eq!(meaning(Signal::SIGHUP, false), reload);
    }

    #[test]
    fn every_handled_signal_has_a_meaning() {
        for number in ALWAYS.into_iter().chain(UNLESS_IGNORED) {
            let signal = Signal::try_from(number).unwrap();
            assert!(meaning(signal, false).is_some(), "{signal}");
        }
    }
}
