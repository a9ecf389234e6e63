//! Signals as events: signal-hook's self-pipe, readable in the reactor's poll.

use std::io;

use mio::{Interest, Registry, Token};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use signal_hook::consts;

pub use crate::sys::die_of;
use crate::sys::{self, Senders};

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

/// Where the command shares our process group and its terminal: Ctrl-Z is heard, and where the command
/// reads from the background, its stop is ours (contract, section 6).
const IN_A_TERMINAL: i32 = consts::SIGTSTP;
const LEFT_TO_THE_COMMAND: Signal = Signal::SIGTTIN;

/// A signal, by what it asks of us (contract, section 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Stop the command, then end.
    Stop(Signal, Origin),
    /// For the command.
    Forward(Signal, Origin),
    /// Stop for a while, and the command too.
    Suspend(Origin),
    /// A child has ended, was stopped or continued.
    Child,
}

/// Who sent a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The kernel: the terminal's driver, for its whole foreground group.
    Kernel,
    /// These processes; none: they are not known.
    Processes(Vec<Pid>),
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
    /// Of each signal by its number; only where the terminal's own are to be told from others.
    senders: Option<&'static [Senders; 32]>,
}

/// Whether the command has a terminal, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// There is none.
    Without,
    /// There is one, and the command is in a process group of its own.
    Apart,
    /// There is one, and the command is in our process group.
    Shared,
}

impl Signals {
    /// Registers the handlers and lets the signals through, even if the caller had blocked them.
    /// Call it before the first launch, or the end of a short command goes unheard.
    ///
    /// # Errors
    /// Where the pipe can't be had (descriptor limit).
    pub fn new(registry: &Registry, token: Token, control: Control) -> io::Result<Self> {
        let shared = control == Control::Shared;
        let mut changed: Vec<Signal> = ALWAYS
            .into_iter()
            .chain(UNLESS_IGNORED)
            .chain(shared.then_some(IN_A_TERMINAL))
            .filter_map(|number| Signal::try_from(number).ok())
            .filter(|signal| ALWAYS.contains(&(*signal as i32)) || !sys::is_ignored(*signal))
            .collect();
        // Until all handlers are there, for what is heard by half of them would be lost.
        let mask = SigSet::thread_get_mask()?;
        let handled: SigSet = changed.iter().copied().collect();
        handled.thread_block()?;
        // Before the pipe's own handlers, so that who sent a signal is known when it is heard.
        let senders = shared.then(|| &*Box::leak(Box::new([const { Senders::new() }; 32])));
        if let Some(senders) = senders {
            for signal in &changed {
                sys::note_senders(*signal, &senders[*signal as usize])?;
            }
        }
        let mut pipe =
            signal_hook_mio::v1_0::Signals::new(changed.iter().map(|signal| *signal as i32))?;
        registry.register(&mut pipe, token, Interest::READABLE)?;
        handled.thread_unblock()?;
        let left = shared.then_some(LEFT_TO_THE_COMMAND);
        for ignored in TO_OUR_LOG.into_iter().chain(left) {
            if !sys::is_ignored(ignored) {
                sys::ignore(ignored);
                changed.push(ignored);
            }
        }
        Ok(Self {
            pipe,
            changed,
            mask,
            has_terminal: control != Control::Without,
            senders,
        })
    }

    /// What has arrived since the last call, requests to stop first and ends of children last.
    pub fn take(&mut self) -> Vec<Heard> {
        let arrived = self.pipe.pending();
        let (has_terminal, senders) = (self.has_terminal, self.senders);
        let mut heard: Vec<_> = arrived
            .filter_map(|number| Signal::try_from(number).ok())
            .flat_map(|signal| {
                let unknown = (false, Some(Vec::new()));
                let senders = senders.map_or(unknown, |all| all[signal as usize].take());
                origins(senders).filter_map(move |origin| meaning(signal, origin, has_terminal))
            })
            .collect();
        heard.sort_by_key(|heard| match heard {
            Heard::Stop(..) => 0,
            Heard::Forward(..) => 1,
            Heard::Suspend(_) => 2,
            Heard::Child => 3,
        });
        heard
    }
}

/// A signal that the terminal and a process sent has been sent twice.
fn origins((kernel, processes): (bool, Option<Vec<Pid>>)) -> impl Iterator<Item = Origin> {
    let kernel = kernel.then_some(Origin::Kernel);
    let processes = match processes {
        Some(none) if none.is_empty() && kernel.is_some() => None,
        some => Some(Origin::Processes(some.unwrap_or_default())),
    };
    kernel.into_iter().chain(processes)
}

fn meaning(signal: Signal, origin: Origin, has_terminal: bool) -> Option<Heard> {
    match signal as i32 {
        consts::SIGCHLD => Some(Heard::Child),
        consts::SIGTERM | consts::SIGINT | consts::SIGQUIT => Some(Heard::Stop(signal, origin)),
        consts::SIGHUP if has_terminal => Some(Heard::Stop(signal, origin)),
        consts::SIGHUP | consts::SIGUSR1 | consts::SIGUSR2 | consts::SIGWINCH | consts::SIGCONT => {
            Some(Heard::Forward(signal, origin))
        }
        consts::SIGTSTP => Some(Heard::Suspend(origin)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMEBODY: Origin = Origin::Processes(Vec::new());

    #[test]
    fn a_hangup_means_stop_only_with_a_terminal() {
        let stop = Some(Heard::Stop(Signal::SIGHUP, SOMEBODY));
        assert_eq!(meaning(Signal::SIGHUP, SOMEBODY, true), stop);
        let reload = Some(Heard::Forward(Signal::SIGHUP, SOMEBODY));
        assert_eq!(meaning(Signal::SIGHUP, SOMEBODY, false), reload);
    }

    #[test]
    fn every_handled_signal_has_a_meaning() {
        let handled = ALWAYS.into_iter().chain(UNLESS_IGNORED);
        for number in handled.chain([IN_A_TERMINAL]) {
            let signal = Signal::try_from(number).unwrap();
            assert!(meaning(signal, SOMEBODY, false).is_some(), "{signal}");
        }
    }

    #[test]
    fn who_is_not_known_is_somebody() {
        let seven = || Some(vec![Pid::from_raw(7)]);
        let by_seven = || Origin::Processes(vec![Pid::from_raw(7)]);
        let nobody = || Some(Vec::new());
        let rows = [
            ((false, nobody()), vec![SOMEBODY]),
            ((false, None), vec![SOMEBODY]),
            ((true, nobody()), vec![Origin::Kernel]),
            ((true, None), vec![Origin::Kernel, SOMEBODY]),
            ((false, seven()), vec![by_seven()]),
            ((true, seven()), vec![Origin::Kernel, by_seven()]),
        ];
        for (senders, expected) in rows {
            assert_eq!(origins(senders).collect::<Vec<_>>(), expected);
        }
    }
}
