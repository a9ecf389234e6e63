//! The one poll loop: takes the clock, delivers what happened, performs what the machine answers.

mod beside;
mod environment;
mod heard;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use nix::libc;
use nix::sys::signal::Signal;

use crate::child::{self, Command};
use crate::clock;
use crate::config::Config;
use crate::control::Control;
use crate::control::place::default_name;
use crate::diagnose::Diagnosis;
use crate::echo::Echo;
use crate::error::Error;
use crate::exit::Exit;
use crate::flood::Flood;
use crate::heartbeat::Heartbeat;
use crate::hooks::Hooks;
use crate::logging;
use crate::manager::Manager;
use crate::metrics::Metrics;
use crate::notify_socket::NotifySocket;
use crate::pulse::Pulse;
use crate::report::Report;
use crate::signals::{Control as TerminalControl, Signals};
use crate::supervisor::{Action, Event, SpawnFailure, Supervisor};
use crate::sys;
use crate::terminal::Terminal;
use crate::text::Quoted;
use beside::THOROUGHLY;

const SIGNALS: Token = Token(0);
const NOTIFY: Token = Token(1);
/// From here on tokens are those of the control socket and its clients.
const CONTROL: usize = 2;

/// A program that handles Ctrl-Z stops itself within this time.
const ANSWER: Duration = Duration::from_secs(1);

/// Supervises until there is nothing left to supervise.
///
/// # Errors
/// Where supervision can't begin, or can't go on; then the command's tree has been killed.
pub fn run(config: Config) -> Result<Ending, Error> {
    sys::share_one_heap();
    let mut reactor = Reactor::new(&config)?;
    if !config.without_effect.is_empty() {
        log::warn!(
            "without effect options={} hint=\"they need --enable-heartbeat or --sd-notify\"",
            Quoted::text(&config.without_effect.join(" "))
        );
    }
    let (mut machine, first) = Supervisor::new(config.policy, seed(), clock::now());
    let outcome = reactor.supervise(&mut machine, first);
    if outcome.is_err() {
        // The loop is broken: the last thing it can do is to leave no orphan.
        reactor.command.kill();
        reactor.command.kill_helper();
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
    /// By this signal, which gives a shell the same code: the terminal has sent it, and the shell that
    /// called us goes on with what it was doing unless its child dies of it.
    pub by: Option<Signal>,
}

struct Reactor {
    poll: Poll,
    signals: Signals,
    command: Command,
    heartbeat: Option<Heartbeat>,
    heartbeat_file: Option<PathBuf>,
    /// There is a file or a socket for beats.
    watches: bool,
    /// The beats, from the file or by the socket.
    pulse: Arc<Pulse>,
    notify: Option<NotifySocket>,
    /// What the command says of itself.
    said: String,
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
    /// What this instance is called.
    name: String,
    /// The command as the log shows it.
    shown: Vec<OsString>,
    control: Option<Control>,
    manager: Option<Manager>,
    metrics: Option<Metrics>,
    hooks: Hooks,
    /// When it is looked whether anything of a hook that has ended is left, and how long after the last look.
    linger: Option<(Instant, Duration)>,
    /// The commands of the hooks, and what is not for their environment.
    on_event: Option<OsString>,
    on_give_up: Option<OsString>,
    is_own_variable: fn(&OsStr) -> bool,
    /// Supervision is over, and this is left to be told.
    finished: Option<Finished>,
}

struct Finished {
    exit: Exit,
    runs: u64,
    /// When the machine was done, and how long it ran until then.
    uptime: (Instant, Duration),
}

impl Reactor {
    fn new(config: &Config) -> Result<Self, Error> {
        let poll = Poll::new().map_err(Error::system("event loop"))?;
        let terminal = Terminal::open();
        let shares_group = terminal.is_some() && child::can_share_group();
        let control = match terminal {
            None => TerminalControl::Without,
            Some(_) if shares_group => TerminalControl::Shared,
            Some(_) => TerminalControl::Apart,
        };
        let signals = Signals::new(poll.registry(), SIGNALS, control)
            .map_err(Error::system("signal handlers"))?;
        let name = config
            .name
            .clone()
            .unwrap_or_else(|| default_name(Path::new(&config.command[0]), std::process::id()));
        let control = Control::open(&name, config.name.is_none(), poll.registry(), CONTROL)?;
        let metrics = match &config.metrics_file {
            Some(path) => Some(Metrics::new(path, &name)?),
            None => None,
        };
        let pulse = Arc::default();
        let heartbeat = match &config.heartbeat_file {
            Some(path) => Some(Heartbeat::open(path, &pulse)?),
            None => None,
        };
        let notify = if config.sd_notify {
            let opened = NotifySocket::open(poll.registry(), NOTIFY);
            Some(opened.map_err(Error::system("--sd-notify"))?)
        } else {
            None
        };
        let path = heartbeat.as_ref().map(Heartbeat::path);
        let argv: Vec<_> = config
            .command
            .iter()
            .map(|arg| environment::fill_in(arg, path))
            .collect();
        let address = notify.as_ref().map(NotifySocket::address);
        let command = Command::new(
            &argv,
            environment::of_the_command(config, path, address),
            signals.mask,
            signals.changed.clone(),
            config.keep_descendants,
            shares_group,
        )
        .map_err(Error::system("command"))?;
        let hooks = Hooks::new(config.on_event.is_some(), config.on_give_up.is_some());
        Ok(Self {
            poll,
            signals,
            command,
            heartbeat_file: path.map(Path::to_owned),
            watches: config.policy.heartbeat.is_some(),
            heartbeat,
            pulse,
            notify,
            said: String::new(),
            told: None,
            flood: Flood::new(log::max_level(), clock::now()),
            terminal,
            shares_group,
            interrupted: None,
            echo: Echo::default(),
            ctrl_z: None,
            resumed: false,
            name,
            shown: argv,
            control,
            manager: Manager::of_the_environment(clock::now()),
            metrics,
            hooks,
            linger: None,
            on_event: config.on_event.clone(),
            on_give_up: config.on_give_up.clone(),
            is_own_variable: config.is_own_variable,
            finished: None,
        })
    }

    fn supervise(&mut self, machine: &mut Supervisor, first: Vec<Action>) -> Result<Exit, Error> {
        let mut events = Events::with_capacity(64);
        self.perform(machine, first)?;
        // What it took to come here is not needed again; the command runs already.
        sys::return_memory();
        loop {
            self.run_hooks();
            self.tell_others(machine);
            if self.hooks.is_done()
                && let Some(finished) = self.finished.take()
            {
                return Ok(self.finish(finished));
            }
            match self.poll.poll(&mut events, self.timeout(machine)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(Error::system("event loop"))?,
            }
            let now = clock::now();
            let ready: Vec<Token> = events.iter().map(mio::event::Event::token).collect();
            for event in self.what_happened(&ready)? {
                self.deliver(machine, event)?;
            }
            self.serve(machine, &ready)?;
            // A deadline that came only while these were dealt with waits for what happened meanwhile.
            if machine.deadline().is_some_and(|due| due <= now) {
                self.deliver(machine, Event::Timeout)?;
            }
            if let Some(manager) = &mut self.manager {
                manager.answer(now);
            }
            let told = self.flood.due(clock::now());
            self.write(&told);
        }
    }

    /// Until when there is nothing to be done.
    fn timeout(&self, machine: &Supervisor) -> Option<Duration> {
        let notify = self.notify.as_ref();
        let control = self.control.as_ref();
        let has_more = self.command.has_more
            || notify.is_some_and(|notify| notify.has_more)
            || control.is_some_and(|control| control.has_more);
        if has_more {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            machine.deadline(),
            self.flood.deadline(),
            self.echo.deadline(),
            self.hooks.deadline(),
            self.linger.map(|(at, _)| at),
            control.and_then(Control::deadline),
            self.manager.as_ref().and_then(Manager::deadline),
            self.metrics.as_ref().and_then(Metrics::deadline),
        ];
        let next = deadlines.into_iter().flatten().min();
        next.map(|due| due.saturating_duration_since(clock::now()))
    }

    fn deliver(&mut self, machine: &mut Supervisor, event: Event) -> Result<(), Error> {
        if matches!(event, Event::Exited { .. } | Event::Cleared) {
            // Who died in the midst of it has left it as it was: raw, and deaf to Ctrl-C.
            self.restore_terminal();
        }
        if let (Some(_), Event::Stop { signal, .. }) = (&self.finished, &event) {
            let signal = *signal;
            // The end of one terminal is told by the kernel and by the shell, and is no impatience.
            let action = if signal == Signal::SIGHUP && self.hooks.is_asked_to_end() {
                "ignore"
            } else {
                self.hooks.hurry(clock::now())
            };
            self.report(Report::Signal { signal, action });
        }
        let actions = machine.handle(clock::now(), event);
        self.perform(machine, actions)
    }

    /// Performs actions; what they come to goes in again as events, until there is no more to do.
    fn perform(&mut self, machine: &mut Supervisor, actions: Vec<Action>) -> Result<(), Error> {
        let mut todo = VecDeque::from(actions);
        while let Some(action) = todo.pop_front() {
            let mut answers = Vec::new();
            match action {
                Action::Spawn => answers.push(self.spawn()),
                Action::Terminate(signal) => self.command.terminate(signal),
                Action::Kill => match self.command.kill() {
                    Some((pid, processes)) => self.report(Report::Killing { pid, processes }),
                    None if self.command.is_gone() => answers.push(Event::Cleared),
                    // What is left will be heard of, or is not to be found.
                    None => {}
                },
                Action::Diagnose => {
                    if !self.flood.is_holding() {
                        let (command, diagnosis) = (&self.command, Diagnosis::begin());
                        command.name(|| diagnosis.has_room(), |pid| diagnosis.process(pid));
                        diagnosis.finish(command.is_listed());
                    }
                }
                Action::Forward(signal) => self.command.forward(signal),
                Action::Suspend => {
                    // What it was before is no measure for the first beat after it.
                    self.pulse.wait_from(None);
                    answers.extend(self.suspend()?);
                }
                Action::Look => {
                    let in_doubt = self.heartbeat.as_ref().is_some_and(Heartbeat::last_look);
                    self.hear_the_command(&mut answers, THOROUGHLY);
                    answers.extend(self.news_of_beats());
                    answers.push(Event::Looked { in_doubt });
                }
                Action::Report(report) => self.report(report),
                Action::Finish {
                    exit,
                    runs,
                    uptime,
                    stopped,
                } => {
                    // What it has to say comes before the last line.
                    if let Some(heartbeat) = self.heartbeat.take() {
                        heartbeat.close();
                    }
                    self.hooks.close(clock::now(), stopped);
                    let uptime = (clock::now(), uptime);
                    self.finished = Some(Finished { exit, runs, uptime });
                }
            }
            for answer in answers {
                todo.extend(machine.handle(clock::now(), answer));
            }
        }
        Ok(())
    }

    fn finish(&mut self, finished: Finished) -> Exit {
        let Finished { exit, runs, uptime } = finished;
        self.command.end_helpers();
        self.tell_of_hooks();
        // Nor may the last line be the one for which there is no room.
        log::logger().flush();
        self.report(Report::Finished {
            code: exit,
            runs,
            uptime: uptime.1 + (clock::now() - uptime.0),
        });
        if let Some(control) = self.control.take() {
            control.close(exit);
        }
        exit
    }

    fn spawn(&mut self) -> Event {
        // What changed until now is none of this run's doing.
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.look();
        }
        let mut stale = Vec::new();
        self.hear_the_command(&mut stale, THOROUGHLY);
        self.said.clear();
        match self.command.spawn() {
            Ok(pid) => Event::Spawned { pid },
            Err(error) => Event::SpawnFailed {
                kind: kind_of(&error),
                error: error.to_string(),
            },
        }
    }

    fn report(&mut self, mut report: Report) {
        if let Report::Exited { margin, .. } = &mut report {
            *margin = self.pulse.tightest_margin();
        }
        self.hooks.take(&report, &self.name, &self.shown);
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

/// A number that differs from instance to instance, so that a crowd does not restart in step.
fn seed() -> u64 {
    RandomState::new().hash_one(0u8)
}
