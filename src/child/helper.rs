//! A process that we run for ourselves, beside the command: a hook. It leads a process group of its own, and
//! has a mark in its environment for who leaves that group: so it, and what it starts, is told from what the
//! command started. It is over when all of that is gone.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::kin::Id;
use super::{Command, News, ROUNDS, kin, tolerate};
use crate::exit::Ended;
use crate::sys::{self, Environment, Image};

/// One that runs.
pub struct Helper {
    /// Its process id, and that of its group.
    pid: Pid,
    /// How it ended. Others of it may be left.
    ended: Option<Ended>,
    /// Who of it has been killed, once that is wanted.
    killed: Option<BTreeSet<Id>>,
}

/// What gives words to be executed a meaning.
const SHELL: &str = "/bin/sh";

impl Command {
    /// Has the shell run `script` with `environment`, and with nothing to read or to write to: neither
    /// its thirst nor its flood is the command's. [`Command::reap`] tells of its end.
    ///
    /// # Errors
    /// Those of clone(2) and execve(2); and where there is no `/dev/null`.
    pub fn start_helper(&mut self, script: &OsStr, mut environment: Environment) -> io::Result<()> {
        self.abandon_helper();
        environment.add(self.strangers.helpers_mark());
        let argv: [OsString; 3] = [SHELL.into(), "-c".into(), script.into()];
        let image = Image::new(&argv[..1], &argv, &environment, self.image.mask())?.silent()?;
        let pid = sys::spawn(&image, &self.to_default, true)?;
        self.strangers.helpers.push(pid);
        self.helper = Some(Helper {
            pid,
            ended: None,
            killed: None,
        });
        Ok(())
    }

    /// SIGKILL to the helper and everything that it started.
    pub fn kill_helper(&mut self) {
        let Some(helper) = &mut self.helper else {
            return;
        };
        let first = helper.killed.is_none();
        let killed = helper.killed.get_or_insert_default();
        for _ in 0..if self.listed { ROUNDS } else { 0 } {
            let before = killed.len();
            kin::visit_helpers(&self.strangers, |process| {
                if killed.insert(process.id()) {
                    tolerate(process.signal(Signal::SIGKILL));
                }
            });
            if killed.len() == before {
                break;
            }
        }
        if first && (helper.ended.is_none() || is_in_use(helper.pid, self.adopts)) {
            tolerate(killpg(helper.pid, Signal::SIGKILL));
        }
    }

    /// The end: of what there is below us then nothing is the command's. So it is a helper's that has emptied
    /// its environment and left its session, and that nothing else tells.
    pub fn end_helpers(&self) {
        let had_helpers = !self.strangers.helpers_mark.is_empty();
        if had_helpers && self.listed && !self.keep_descendants {
            kin::visit(&self.strangers, |process| {
                tolerate(process.signal(Signal::SIGKILL));
            });
        }
    }

    /// What is left of a helper that was killed, and can't die or is another user's by now, is not counted
    /// against the next one.
    fn abandon_helper(&mut self) {
        if self.helper.take().is_some() && self.listed {
            let mut left = BTreeSet::new();
            kin::visit_helpers(&self.strangers, |process| {
                left.insert(process.id());
            });
            self.strangers.abandoned.extend(left);
        }
    }

    /// Notes the end of a child that is not the command.
    pub(super) fn note_helper(&mut self, pid: Pid, status: ExitStatus) {
        if let Some(helper) = &mut self.helper
            && helper.pid == pid
            && let News::Ended(ended) = News::from(status)
        {
            helper.ended = Some(ended);
        }
    }

    /// Whether the helper has ended, and something of it is left: when that leaves its group and hides, which
    /// nothing announces, [`Command::helper_over`] is to be asked.
    #[must_use]
    pub fn has_lingering_helper(&self) -> bool {
        let helper = self.helper.as_ref();
        helper.is_some_and(|helper| helper.ended.is_some())
    }

    /// How the helper ended, once nothing of it is left.
    pub fn helper_over(&mut self) -> Option<Ended> {
        // One that could not be killed in time may be among them.
        let adopts = self.adopts;
        self.strangers
            .helpers
            .retain(|group| is_in_use(*group, adopts));
        let helper = self.helper.as_ref()?;
        let ended = helper.ended?;
        let is_left = self.strangers.helpers.contains(&helper.pid)
            || self.listed && kin::has_helpers(&self.strangers);
        if is_left {
            if helper.killed.is_some() {
                // Who was born meanwhile.
                self.kill_helper();
            }
            return None;
        }
        self.helper = None;
        Some(ended)
    }
}

/// Whether a helper's group is still there. Its number may be another's once nobody is left in it who is our
/// child.
fn is_in_use(group: Pid, adopts: bool) -> bool {
    if adopts {
        return sys::has_children(Some(group));
    }
    killpg(group, None) != Err(Errno::ESRCH)
}
