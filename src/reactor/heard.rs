//! What was heard since the last turn, as events of the machine: signals, children, beats.

use mio::Token;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{ANSWER, NOTIFY, Reactor, SIGNALS};
use crate::child::Reaped;
use crate::clock;
use crate::error::Error;
use crate::signals::{Heard, Origin};
use crate::supervisor::Event;

impl Reactor {
    /// In a fixed order: requests to stop, then what the command said, ends, and beats; the timeout comes
    /// after all of them, so that a waiting beat wins over its deadline.
    pub(super) fn what_happened(&mut self, ready: &[Token]) -> Result<Vec<Event>, Error> {
        let mut happened = Vec::new();
        let mut ends = self.command.has_more;
        let mut continued = false;
        if ready.contains(&SIGNALS) {
            for heard in self.signals.take() {
                match heard {
                    Heard::Stop(_, origin) | Heard::Forward(_, origin) | Heard::Suspend(origin)
                        if self.is_the_commands_own(&origin) =>
                    {
                        log::debug!("the command signalled its own group");
                    }
                    Heard::Stop(signal, origin) => {
                        let by_terminal = origin == Origin::Kernel;
                        if self.echo.is_copy(clock::now(), signal, by_terminal) {
                            continue;
                        }
                        if by_terminal && self.shares_group {
                            self.interrupted = Some(signal);
                        }
                        // A hangup is no question.
                        let asked = signal != Signal::SIGHUP;
                        let told = asked && self.has_told_the_command(&origin);
                        happened.push(Event::Stop { signal, told });
                    }
                    Heard::Forward(Signal::SIGCONT, _) => {
                        self.echo.continued();
                        continued = true;
                    }
                    Heard::Forward(_, origin) if self.has_told_the_command(&origin) => {}
                    Heard::Forward(signal, _) => happened.push(Event::Forward { signal }),
                    Heard::Suspend(origin) => {
                        let told = self.has_told_the_command(&origin);
                        self.ctrl_z = told.then(clock::now);
                        happened.push(Event::Suspend { told });
                    }
                    Heard::Child => ends = true,
                }
            }
        }
        if let Some(signal) = self.echo.none_after_all(clock::now()) {
            let told = false;
            happened.push(Event::Stop { signal, told });
        }
        if ready.contains(&NOTIFY) || self.notify.as_ref().is_some_and(|notify| notify.has_more) {
            self.hear_the_command(&mut happened, 1);
        }
        // It may have been told by whoever told us, or has been stopped again since.
        continued &= !std::mem::take(&mut self.resumed);
        if ends || continued {
            continued &= !self.hear_of_children(&mut happened)?;
        }
        if continued {
            let signal = Signal::SIGCONT;
            happened.push(Event::Forward { signal });
        }
        happened.extend(self.news_of_beats());
        Ok(happened)
    }

    /// What became of our children; whether the command goes where the terminal puts it: continued, or
    /// stopped once more.
    pub(super) fn hear_of_children(&mut self, happened: &mut Vec<Event>) -> Result<bool, Error> {
        let mut follows = false;
        for reaped in self.command.reap().map_err(Error::system("wait"))? {
            match reaped {
                Reaped::Command { ended, leftovers } => {
                    happened.push(Event::Exited { ended, leftovers });
                    if self.is_ctrl_z_unanswered() {
                        // It was about to end: then it is ours to answer.
                        happened.push(Event::Suspend { told: true });
                    }
                }
                Reaped::Helper(ended) => self.hook_over(ended),
                Reaped::Leftovers => happened.push(Event::Cleared),
                Reaped::Continued => follows |= self.shares_group,
                Reaped::Stopped(signal) => {
                    if self.shares_group && self.is_of_the_terminal(signal) {
                        follows = true;
                        happened.extend(self.news_of_beats());
                        happened.push(Event::Paused { signal });
                    }
                }
            }
        }
        Ok(follows)
    }

    /// Whether a stop by this signal is the terminal's (tty(4), signal(7)); some programs stop themselves
    /// by SIGSTOP when they have heard Ctrl-Z.
    fn is_of_the_terminal(&self, signal: Signal) -> bool {
        matches!(signal, Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU)
            || self.is_ctrl_z_unanswered()
    }

    fn is_ctrl_z_unanswered(&self) -> bool {
        self.ctrl_z.is_some_and(|at| clock::now() - at < ANSWER)
    }

    /// Stops with the command, until both are continued.
    pub(super) fn suspend(&mut self) -> Result<Vec<Event>, Error> {
        log::logger().flush();
        self.ctrl_z = None;
        if let Some(terminal) = &mut self.terminal {
            terminal.suspend(self.command.pid());
        }
        let mut happened = vec![Event::Resumed];
        // Nobody but us was continued; or nobody could stop, for there is no shell to continue us.
        if !self.hear_of_children(&mut happened)? {
            self.command.forward(Signal::SIGCONT);
        }
        // What continued us is dealt with.
        self.resumed = true;
        Ok(happened)
    }

    /// Whether the command, which is in our process group, has signalled all of it (`kill 0`): that is
    /// for its own, and not for us.
    fn is_the_commands_own(&self, origin: &Origin) -> bool {
        let of_the_command = |sender: &Pid| self.command.is_neighbour(*sender);
        match origin {
            Origin::Processes(senders) => {
                self.shares_group && !senders.is_empty() && senders.iter().all(of_the_command)
            }
            Origin::Kernel => false,
        }
    }

    /// Whether the terminal has sent this to the command, too.
    fn has_told_the_command(&self, origin: &Origin) -> bool {
        *origin == Origin::Kernel && self.command.is_in_our_group()
    }

    pub(super) fn restore_terminal(&self) {
        if let Some(terminal) = &self.terminal
            && self.shares_group
        {
            terminal.restore();
        }
    }

    pub(super) fn news_of_beats(&mut self) -> Option<Event> {
        let last = self.pulse.last()?;
        if self.told.replace(last) == Some(last) {
            return None;
        }
        Some(Event::Beat { at: last })
    }
}
