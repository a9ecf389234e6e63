//! What goes on beside supervision: what the command says, who asks, hooks, metrics, a service manager.

use std::time::Duration;

use mio::Token;
use nix::sys::signal::Signal;

use super::{Reactor, environment};
use crate::clock;
use crate::control::protocol::{self, Instance, Request};
use crate::control::{Asked, Control};
use crate::error::Error;
use crate::exit::Ended;
use crate::hooks::{Job, Step, Which};
use crate::report::Report;
use crate::status::{Phase, Status};
use crate::supervisor::{Event, Notice, Supervisor, Wish};
use crate::text::Quoted;

/// Before a verdict: who floods the socket shall not hide a beat behind what he sends.
pub(super) const THOROUGHLY: usize = 16;

/// So long after the end of a hook it is looked for the first time whether anything of it is left.
const LINGER: Duration = Duration::from_millis(10);

impl Reactor {
    /// What the command has said on its socket; beats are noted, and told with those of the file.
    /// Not more than so many times as many as are taken at once.
    pub(super) fn hear_the_command(&mut self, happened: &mut Vec<Event>, rounds: usize) {
        let command = self
            .command
            .pid()
            .map(|pid| (pid, self.command.is_listed()));
        let Some(notify) = &mut self.notify else {
            return;
        };
        for _ in 0..rounds {
            for message in notify.take(command) {
                if message.beat {
                    self.pulse.beat(clock::now());
                }
                if let Some(said) = message.status {
                    self.said = said;
                }
                let notices = [
                    message.timeout.map(Notice::Timeout),
                    message.ready.then_some(Notice::Ready),
                    message.ending.then_some(Notice::Ending),
                    message.extend.map(Notice::Extend),
                    message.hung.then_some(Notice::Hung),
                ];
                happened.extend(notices.into_iter().flatten().map(Event::Notified));
            }
            if !notify.has_more {
                break;
            }
        }
    }

    /// Who asks for something is answered, or waits until it is so.
    pub(super) fn serve(&mut self, machine: &mut Supervisor, ready: &[Token]) -> Result<(), Error> {
        let now = clock::now();
        let Some(control) = &mut self.control else {
            return Ok(());
        };
        let ready: Vec<_> = ready
            .iter()
            .copied()
            .filter(|token| control.owns(*token))
            .collect();
        for asked in control.take(now, &ready) {
            self.serve_one(machine, &asked)?;
        }
        Ok(())
    }

    fn serve_one(&mut self, machine: &mut Supervisor, asked: &Asked) -> Result<(), Error> {
        let Asked {
            client,
            by,
            request,
        } = *asked;
        let before = machine.status();
        let is_over = before.is_ending;
        let wish = match request {
            Request::Status => None,
            // Twice is no impatience, as a second signal would be.
            Request::Stop
                if is_over && (self.finished.is_none() || self.hooks.is_asked_to_end()) =>
            {
                None
            }
            Request::Stop => Some(Event::Stop {
                signal: Signal::SIGTERM,
                told: false,
            }),
            Request::Restart if is_over => {
                self.answer(client, &protocol::refused("it is ending"));
                return Ok(());
            }
            Request::Restart => Some(Event::Asked(Wish::Restart)),
            Request::Pause => Some(Event::Asked(Wish::Hold)),
            Request::Resume => Some(Event::Asked(Wish::Release)),
        };
        if let Some(wish) = wish {
            let action = request.word();
            self.report(Report::Request { action, by });
            self.deliver(machine, wish)?;
        }
        match request {
            Request::Stop | Request::Restart => {
                if let Some(control) = &mut self.control {
                    control.wait(client, request, before.run);
                }
            }
            Request::Status | Request::Pause | Request::Resume => {
                let line = self.shown(machine);
                self.answer(client, &line);
            }
        }
        Ok(())
    }

    fn answer(&mut self, client: usize, line: &str) {
        if let Some(control) = &mut self.control {
            control.answer(client, line);
        }
    }

    fn shown(&self, machine: &Supervisor) -> String {
        let (status, now) = (machine.status(), clock::now());
        let instance = Instance {
            name: &self.name,
            command: &self.shown,
            pulse: self.watches.then_some(&*self.pulse),
            heartbeat_file: self.heartbeat_file.as_deref(),
            timeout: machine.timeout(),
            said: &self.said,
            dropped: self.notify.as_ref().map(|notify| notify.dropped),
        };
        protocol::shown(&instance, &status, now)
    }

    /// Tells everybody what is new who does not ask: the watcher from when a beat is waited for, the
    /// service manager, the file of metrics, and those who wait for a new run.
    pub(super) fn tell_others(&mut self, machine: &Supervisor) {
        self.pulse.wait_from(machine.awaited());
        let status = machine.status();
        if let Some(manager) = &mut self.manager {
            manager.tell(clock::now(), &status);
        }
        if let Some(metrics) = &mut self.metrics {
            let pulse = self.watches.then_some(&*self.pulse);
            metrics.write(clock::now(), &status, pulse);
        }
        let waiting = self.control.as_ref().map(Control::waiting);
        for (client, request, run) in waiting.unwrap_or_default() {
            if request == Request::Restart
                && let Some(line) = self.restarted(machine, &status, run)
            {
                self.answer(client, &line);
            }
        }
    }

    /// The answer to who waits for a run after `run`, once it can be given.
    fn restarted(&self, machine: &Supervisor, status: &Status, run: u64) -> Option<String> {
        if status.launched > run {
            return Some(self.shown(machine));
        }
        if status.is_ending {
            return Some(protocol::refused("it is ending"));
        }
        // A launch that failed waits for the next one.
        let failed = status.run > run && status.phase == Phase::Backoff;
        failed.then(|| protocol::refused("the command could not be launched"))
    }

    /// Starts, and ends, what is due.
    pub(super) fn run_hooks(&mut self) {
        self.look_for_lingering_hook();
        while let Some(step) = self.hooks.step(clock::now()) {
            match step {
                Step::Start(job) => self.start_hook(job),
                Step::Kill => self.command.kill_helper(),
            }
        }
        self.tell_of_hooks();
    }

    /// A few times while its time lasts, and each time after a longer while.
    fn look_for_lingering_hook(&mut self) {
        if !self.command.has_lingering_helper() {
            self.linger = None;
            return;
        }
        let now = clock::now();
        let (at, after) = *self.linger.get_or_insert((now + LINGER, LINGER));
        if at <= now {
            self.linger = Some((now + after * 4, after * 4));
            if let Some(ended) = self.command.helper_over() {
                self.linger = None;
                self.hook_over(ended);
            }
        }
    }

    fn start_hook(&mut self, job: Job) {
        let script = match job.which {
            Which::Event => &self.on_event,
            Which::GiveUp => &self.on_give_up,
        };
        let Some(script) = script else {
            return;
        };
        let mut environment = environment::inherited(self.is_own_variable);
        for (name, value) in &job.variables {
            environment.set(name, value.as_ref());
        }
        if let Err(error) = self.command.start_helper(script, environment) {
            log::debug!(
                "hook not started event={} error={}",
                Quoted::text(job.event),
                Quoted::text(&error.to_string())
            );
            self.hooks.over(false);
        }
    }

    /// The hook has ended.
    pub(super) fn hook_over(&mut self, ended: Ended) {
        self.hooks.over(ended.is_success());
    }

    /// One line for all that went wrong with hooks, and not often.
    pub(super) fn tell_of_hooks(&mut self) {
        if let Some(trouble) = self.hooks.trouble(clock::now()) {
            log::warn!(
                "hooks dropped={} failed={} killed={}",
                trouble.dropped,
                trouble.failed,
                trouble.killed
            );
        }
    }
}
