//! The one poll loop: takes the clock, delivers what happened, performs what the machine answers.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::child::{self, Command, Reaped};
use crate::clock;
use crate::config::Config;
use crate::echo::Echo;
use crate::error::Error;
use crate::exit::Exit;
use crate::flood::Flood;
use crate::heartbeat::Heartbeat;
use crate::logging;
use crate::report::Report;
use crate::signals::{Control, Heard, Origin, Signals};
use crate::supervisor::{Action, Event, SpawnFailure, Supervisor};
use crate::terminal::Terminal;
use crate::text::Quoted;

const SIGNALS: Token = Token(0);

/// A program that handles Ctrl-Z stops itself within this time.
const ANSWER: Duration = Duration::from_secs(1);

/// Where an argument of the command says this, the heartbeat file's path takes its place.
const PLACEHOLDER: &[u8] = b"{heartbeat-file}";

/// Supervises until there is nothing left to supervise.
///
/// # Errors
/// Where supervision can't begin, or can't go on; then the command's tree has been killed.
pub fn run(config: Config) -> Result<Ending, Error> {
    let mut reactor = Reactor::new(&config)?;
    if !config.without_effect.is_empty() {
        log::warn!(
            "without effect options={} hint=\"they need --enable-heartbeat\"",
            Quoted::text(&config.without_effect.join(" "))
        );
    }
    let (mut machine, first) = Supervisor::new(config.policy, seed(), clock::now());
    let outcome = reactor.supervise(&mut machine, first);
    if outcome.is_err() {
        // The loop is broken: the last thing it can do is to leave no orphan.
        reactor.command.kill();
    }
    reactor.restore_terminal();
    let exit = outcome?;
    let by = reactor.interrupted.filter(|signal| {
        exit == Exit::of_signal(*signal as i32) && Terminal::is_shared_with_caller()
    });
    Ok(Ending { exit, by })
}

/// How this process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Its exit code.
    pub exit: Exit,
    /// By this signal, which gives a shell the same code: the terminal has sent it to the script that
    /// called us, too, and some shells go on unless their child dies of it.
    pub by: Option<Signal>,
}

struct Reactor {
    poll: Poll,
    signals: Signals,
    command: Command,
    heartbeat: Option<Heartbeat>,
    /// The last beat that the machine was told of.
    told: Option<Instant>,
    flood: Flood,
    terminal: Option<Terminal>,
    /// The command is in our process group, because of the terminal.
    shares_group: bool,
    /// Ctrl-C or Ctrl-\, where a terminal sent it.
    interrupted: Option<Signal>,
    echo: Echo,
    /// When the terminal last told the command to stop for a while.
    ctrl_z: Option<Instant>,
    /// We were continued, and the SIGCONT that did it is still to be heard.
    resumed: bool,
    /// The command as the log shows it.
    shown: Vec<OsString>,
}

impl Reactor {
    fn new(config: &Config) -> Result<Self, Error> {
        let poll = Poll::new().map_err(Error::system("event loop"))?;
        let terminal = Terminal::open();
        let shares_group = terminal.is_some() && child::can_share_group();
        let control = match terminal {
            None => Control::Without,
            Some(_) if shares_group => Control::Shared,
            Some(_) => Control::Apart,
        };
        let signals = Signals::new(poll.registry(), SIGNALS, control)
            .map_err(Error::system("signal handlers"))?;
        let heartbeat = match &config.heartbeat_file {
            Some(path) => Some(Heartbeat::open(path)?),
            None => None,
        };
        let path = heartbeat.as_ref().map(Heartbeat::path);
        let argv: Vec<_> = config
            .command
            .iter()
            .map(|arg| fill_in(arg, path))
            .collect();
        let command = Command::new(
            &argv,
            &environment(config, path),
            signals.mask,
            signals.changed.clone(),
            config.keep_descendants,
            shares_group,
        )
        .map_err(Error::system("command"))?;
        Ok(Self {
            poll,
            signals,
            command,
            heartbeat,
            told: None,
            flood: Flood::new(log::max_level(), clock::now()),
            terminal,
            shares_group,
            interrupted: None,
            echo: Echo::default(),
            ctrl_z: None,
            resumed: false,
            shown: argv,
        })
    }

    fn supervise(&mut self, machine: &mut Supervisor, first: Vec<Action>) -> Result<Exit, Error> {
        let mut events = Events::with_capacity(8);
        if let Some(exit) = self.perform(machine, first)? {
            return Ok(exit);
        }
        loop {
            let others = [self.flood.deadline(), self.echo.deadline()];
            let deadlines = others.into_iter().chain([machine.deadline()]).flatten();
            let mut timeout = deadlines
                .min()
                .map(|due| due.saturating_duration_since(clock::now()));
            if self.command.has_more {
                timeout = Some(Duration::ZERO);
            }
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(Error::system("event loop"))?,
            }
            let now = clock::now();
            for event in self.what_happened(&events)? {
                if let Some(exit) = self.deliver(machine, event)? {
                    return Ok(exit);
                }
            }
            // A deadline that came only while these were dealt with waits for what happened meanwhile.
            if machine.deadline().is_some_and(|due| due <= now)
                && let Some(exit) = self.deliver(machine, Event::Timeout)?
            {
                return Ok(exit);
            }
            let told = self.flood.due(clock::now());
            self.write(&told);
        }
    }

    /// In a fixed order: requests to stop, then ends, then beats; the timeout comes after all of them,
    /// so that a waiting beat wins over its deadline.
    fn what_happened(&mut self, events: &Events) -> Result<Vec<Event>, Error> {
        let mut happened = Vec::new();
        let mut ends = self.command.has_more;
        let mut continued = false;
        if events.iter().any(|event| event.token() == SIGNALS) {
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
    fn hear_of_children(&mut self, happened: &mut Vec<Event>) -> Result<bool, Error> {
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
    fn suspend(&mut self) -> Result<Vec<Event>, Error> {
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

    fn restore_terminal(&self) {
        if let Some(terminal) = &self.terminal
            && self.shares_group
        {
            terminal.restore();
        }
    }

    fn news_of_beats(&mut self) -> Option<Event> {
        let last = self.heartbeat.as_ref()?.last_beat()?;
        if self.told.replace(last) == Some(last) {
            return None;
        }
        Some(Event::Beat { at: last })
    }

    fn deliver(&mut self, machine: &mut Supervisor, event: Event) -> Result<Option<Exit>, Error> {
        if matches!(event, Event::Exited { .. } | Event::Cleared) {
            // Who died in the midst of it has left it as it was: raw, and deaf to Ctrl-C.
            self.restore_terminal();
        }
        let actions = machine.handle(clock::now(), event);
        self.perform(machine, actions)
    }

    /// Performs actions; what they come to goes in again as events, until there is no more to do.
    fn perform(
        &mut self,
        machine: &mut Supervisor,
        actions: Vec<Action>,
    ) -> Result<Option<Exit>, Error> {
        let mut todo = VecDeque::from(actions);
        while let Some(action) = todo.pop_front() {
            let mut answers = Vec::new();
            match action {
                Action::Spawn => answers.push(self.spawn()),
                Action::Terminate => self.command.terminate(),
                Action::Kill => match self.command.kill() {
                    Some((pid, processes)) => self.report(Report::Killing { pid, processes }),
                    None if self.command.is_gone() => answers.push(Event::Cleared),
                    // What is left will be heard of, or is not to be found.
                    None => {}
                },
                Action::Forward(signal) => self.command.forward(signal),
                Action::Suspend => answers.extend(self.suspend()?),
                Action::Look => {
                    if let Some(heartbeat) = &self.heartbeat {
                        heartbeat.last_look();
                    }
                    answers.extend(self.news_of_beats());
                    answers.push(Event::Looked);
                }
                Action::Report(report) => self.report(report),
                Action::Finish { exit, runs, uptime } => {
                    // What it has to say comes before the last line.
                    if let Some(heartbeat) = self.heartbeat.take() {
                        heartbeat.close();
                    }
                    // Nor may it be the one for which there is no room.
                    log::logger().flush();
                    self.report(Report::Finished {
                        code: exit,
                        runs,
                        uptime,
                    });
                    return Ok(Some(exit));
                }
            }
            for answer in answers {
                todo.extend(machine.handle(clock::now(), answer));
            }
        }
        Ok(None)
    }

    fn spawn(&mut self) -> Event {
        // What changed until now is none of this run's doing.
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.look();
        }
        match self.command.spawn() {
            Ok(pid) => Event::Spawned { pid },
            Err(error) => Event::SpawnFailed {
                kind: kind_of(&error),
                error: error.to_string(),
            },
        }
    }

    fn report(&mut self, report: Report) {
        let told = self.flood.take(clock::now(), report);
        self.write(&told);
    }

    fn write(&mut self, told: &[Report]) {
        logging::left_out(self.flood.left_out());
        for report in told {
            log::log!(report.level(), "{}", report.line(&self.shown));
        }
    }
}

/// Not found is what can't be there; not executable what never will be; all else may pass.
fn kind_of(error: &io::Error) -> SpawnFailure {
    match error.raw_os_error() {
        Some(libc::ENOENT) => SpawnFailure::NotFound,
        Some(
            libc::EACCES
            | libc::EPERM
            | libc::ENOEXEC
            | libc::EISDIR
            | libc::ELOOP
            | libc::ENAMETOOLONG
            | libc::E2BIG
            | libc::EINVAL,
        ) => SpawnFailure::NotExecutable,
        _ => SpawnFailure::Temporary,
    }
}

/// The caller's environment without our own options, and with the heartbeat's two variables.
fn environment(config: &Config, heartbeat_file: Option<&Path>) -> Vec<(OsString, OsString)> {
    const FILE: &str = "HEARTBEAT_FILE";
    const TIMEOUT: &str = "HEARTBEAT_TIMEOUT";
    let heartbeat = config.policy.heartbeat.zip(heartbeat_file);
    let replaced = |name: &OsStr| heartbeat.is_some() && (name == FILE || name == TIMEOUT);
    let mut variables: Vec<_> = std::env::vars_os()
        .filter(|(name, _)| !config.own_variables.contains(name) && !replaced(name))
        .collect();
    if let Some((heartbeat, path)) = heartbeat {
        let timeout = heartbeat.timeout.as_secs_f64().to_string();
        variables.push((FILE.into(), path.into()));
        variables.push((TIMEOUT.into(), timeout.into()));
    }
    variables
}

/// `arg` with the heartbeat file's path wherever it has the placeholder. Only with a heartbeat.
fn fill_in(arg: &OsStr, path: Option<&Path>) -> OsString {
    let (mut rest, mut filled) = (arg.as_bytes(), Vec::new());
    if let Some(path) = path {
        while let Some(at) = rest
            .windows(PLACEHOLDER.len())
            .position(|window| window == PLACEHOLDER)
        {
            filled.extend_from_slice(&rest[..at]);
            filled.extend_from_slice(path.as_os_str().as_bytes());
            rest = &rest[at + PLACEHOLDER.len()..];
        }
    }
    filled.extend_from_slice(rest);
    OsString::from_vec(filled)
}

/// A number that differs from instance to instance, so that a crowd does not restart in step.
fn seed() -> u64 {
    RandomState::new().hash_one(0u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_takes_the_place_of_each_placeholder() {
        let path = Some(Path::new("/run/hb"));
        for (arg, filled) in [
            ("{heartbeat-file}", "/run/hb"),
            ("--beat={heartbeat-file}", "--beat=/run/hb"),
            ("{heartbeat-file}:{heartbeat-file}!", "/run/hb:/run/hb!"),
            ("{heartbeat}", "{heartbeat}"),
            ("", ""),
        ] {
            assert_eq!(fill_in(OsStr::new(arg), path), filled);
            assert_eq!(fill_in(OsStr::new(arg), None), arg);
        }
    }
}
