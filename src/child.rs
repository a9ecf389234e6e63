//! The command as a process, and all that descends from it: launching, signalling, reaping.

mod helper;
mod kin;
mod mark;
mod stat;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::{Pid, getpgid, getpgrp};

use crate::exit::Ended;
use crate::sys::{self, Environment, Image, Waited};
use crate::text::Quoted;
use helper::Helper;
use kin::{Id, Process, Strangers};

/// What `execvp(3)` searches where `PATH` is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// How often at most the descendants are gone through to be killed at once, until no new one is met.
/// Who forks faster than that is met again when the first of those that were killed are reaped.
const ROUNDS: usize = 4;

/// How many ends are taken at once: where processes end as fast as they are reaped, everything else
/// has its turn, too.
const ENDS: usize = 256;

/// The command, whether it runs or not, and its descendants.
pub struct Command {
    image: Image,
    /// Signals that are to have their default disposition in the command.
    to_default: Vec<Signal>,
    /// Whether its descendants can be known.
    listed: bool,
    /// There are children that are not the command's, and it is not known which.
    unknown_strangers: bool,
    /// The group that it shares with us; None: it leads one of its own.
    shared_group: Option<Pid>,
    keep_descendants: bool,
    /// Orphans of the command become our children.
    adopts: bool,
    strangers: Strangers,
    tree: Tree,
    /// The process id of the last run, also when it is over. Not to be signalled.
    last: Option<Pid>,
    told: Told,
    /// What became of the command itself, until it is told.
    news: Vec<News>,
    helper: Option<Helper>,
    /// Not all that ended has been asked for.
    pub has_more: bool,
}

/// What there is of the command. Its process id stands here only while it is not reaped, or to name
/// the group that others of it may still be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tree {
    Gone,
    /// The command itself lives.
    Alive(Pid),
    /// The command is reaped, not all that it started.
    Leftovers(Pid),
}

/// What waitpid says of the command itself.
#[derive(Clone, Copy)]
enum News {
    Ended(Ended),
    Stopped(Signal),
    Continued,
}

impl From<ExitStatus> for News {
    fn from(status: ExitStatus) -> Self {
        let stopped = status.stopped_signal().map(Signal::try_from);
        match stopped {
            Some(Ok(signal)) => Self::Stopped(signal),
            // By a real-time signal, which nothing but a debugger does.
            Some(Err(_)) => Self::Stopped(Signal::SIGSTOP),
            None if status.continued() => Self::Continued,
            None => Self::Ended(Ended::from(status)),
        }
    }
}

/// Who has been told to end in this run, and how.
#[derive(Default)]
struct Told {
    /// The last word: SIGTERM, say, or SIGKILL.
    word: Option<Signal>,
    /// Who has heard it.
    who: BTreeSet<Id>,
    /// So many more are to be reaped until it is asked who is left to be killed.
    until_next: usize,
}

/// What [`Command::reap`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// The command itself has ended.
    Command {
        /// How.
        ended: Ended,
        /// Whether others of its tree are left.
        leftovers: bool,
    },
    /// The last of what it left behind is gone.
    Leftovers,
    /// The command was stopped by this signal; it can be continued.
    Stopped(Signal),
    /// The command was continued.
    Continued,
    /// The helper has ended, like that, and all of its group.
    Helper(Ended),
}

impl Command {
    /// Prepares `argv` (never empty) to be launched with `environment` and the
    /// signal mask `mask`. Also makes this process the one to which orphans of the command
    /// are re-parented (Linux, prctl(2) `PR_SET_CHILD_SUBREAPER`). Those who descend from this
    /// process already are never signalled. With `share_group` it stays in our process group, which
    /// takes [`can_share_group`].
    ///
    /// # Errors
    /// Where a string holds a NUL byte, which nothing that came from the system does.
    pub fn new(
        argv: &[OsString],
        mut environment: Environment,
        mask: SigSet,
        to_default: Vec<Signal>,
        keep_descendants: bool,
        share_group: bool,
    ) -> io::Result<Self> {
        let shared_group = share_group.then(getpgrp);
        let path = environment.get("PATH").unwrap_or(OsStr::new(DEFAULT_PATH));
        let candidates = candidates(&argv[0], path);
        let listed = kin::is_listed();
        let has_children = sys::has_children(None);
        let strangers = if listed && has_children {
            Strangers::find()
        } else {
            Strangers::default()
        };
        if let Some(mark) = strangers.mark() {
            environment.add(mark);
        }
        Ok(Self {
            image: Image::new(&candidates, argv, &environment, mask)?,
            to_default,
            listed,
            unknown_strangers: has_children && !listed,
            shared_group,
            keep_descendants,
            adopts: become_subreaper(),
            strangers,
            tree: Tree::Gone,
            last: None,
            told: Told::default(),
            news: Vec::new(),
            helper: None,
            has_more: false,
        })
    }

    /// Launches it. Returns when it has been executed.
    ///
    /// # Errors
    /// Those of clone(2) and execve(2).
    pub fn spawn(&mut self) -> io::Result<i32> {
        if self.keep_descendants && self.shared_group.is_some() {
            // What is kept is in our group, as the next run will be.
            self.strangers.remember();
        }
        let pid = sys::spawn(&self.image, &self.to_default, self.shared_group.is_none())?;
        self.tree = Tree::Alive(pid);
        self.last = Some(pid);
        self.told = Told::default();
        if self.shared_group.is_none() {
            self.strangers.group = Some(pid);
        }
        Ok(pid.as_raw())
    }

    /// Reaps everything that has ended, the command's or an orphan's that was re-parented to us.
    /// SIGCHLD announces any number of them at once, so they are asked for until there is none; or,
    /// where `has_more` is true then, in a next call.
    ///
    /// # Errors
    /// Those of waitpid(2).
    pub fn reap(&mut self) -> io::Result<Vec<Reaped>> {
        let before = self.tree;
        let (reaped, childless) = self.take_ends()?;
        if let Tree::Leftovers(pid) = self.tree
            && (self.keep_descendants || self.has_gone(pid, childless))
        {
            self.tree = Tree::Gone;
        }
        self.go_on_killing(reaped);
        let leftovers = self.tree != Tree::Gone;
        let is_cleared = self.news.is_empty() && before != self.tree;
        let news = self.news.drain(..).map(|news| match news {
            News::Ended(ended) => Reaped::Command { ended, leftovers },
            News::Stopped(signal) => Reaped::Stopped(signal),
            News::Continued => Reaped::Continued,
        });
        let mut reaped: Vec<_> = news
            .chain(is_cleared.then_some(Reaped::Leftovers))
            .collect();
        reaped.extend(self.helper_over().map(Reaped::Helper));
        Ok(reaped)
    }

    /// Takes so many at most; how many it were, and whether there is no child left.
    fn take_ends(&mut self) -> io::Result<(usize, bool)> {
        for reaped in 0..ENDS {
            match sys::wait_any()? {
                Waited::Child(pid, status) if self.tree == Tree::Alive(pid) => {
                    let news = News::from(status);
                    if matches!(news, News::Ended(_)) {
                        self.tree = Tree::Leftovers(pid);
                    }
                    self.news.push(news);
                }
                Waited::Child(pid, status) => self.note_helper(pid, status),
                nothing @ (Waited::Nothing | Waited::Childless) => {
                    self.has_more = false;
                    return Ok((reaped, matches!(nothing, Waited::Childless)));
                }
            }
        }
        self.has_more = true;
        Ok((ENDS, false))
    }

    /// Whether nothing is left of the command, which had the process id `pid`.
    fn has_gone(&self, pid: Pid, childless: bool) -> bool {
        if !self.adopts {
            // The group is all that there is to ask.
            return killpg(pid, None) == Err(Errno::ESRCH);
        }
        let had_helpers = !self.strangers.helpers_mark.is_empty();
        if self.unknown_strangers || had_helpers && !self.listed {
            return !sys::has_children(Some(pid));
        }
        // Every orphan of it is our child; and so may be those who were there before, and helpers.
        let are_others = self.strangers.are_there() || had_helpers;
        childless || are_others && self.is_nobody_left()
    }

    fn is_nobody_left(&self) -> bool {
        let mut left = 0;
        kin::visit(&self.strangers, |_| left += 1);
        left == 0
    }

    /// `word` (SIGTERM, most often) to the command and everything that it started, as far as they were not
    /// told that before in this run; and SIGCONT, for a stopped process must be able to die. Not to those who
    /// are born after it: they may be the command's way to end.
    pub fn terminate(&mut self, word: Signal) {
        self.tell(word);
    }

    /// SIGKILL to the same, and until nothing is left to everyone whom [`Command::reap`] still meets.
    /// The command's process id, and how many were told.
    pub fn kill(&mut self) -> Option<(i32, usize)> {
        let (Tree::Alive(pid) | Tree::Leftovers(pid)) = self.tree else {
            return None;
        };
        // The command is there, though it may not be seen.
        let at_least = usize::from(self.tree == Tree::Alive(pid));
        let told = self.tell(Signal::SIGKILL).max(at_least);
        (told > 0).then_some((pid.as_raw(), told))
    }

    /// Whether nothing is left of the last run.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.tree == Tree::Gone
    }

    /// `signal` to the command's own process, if it lives.
    pub fn forward(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            tolerate(kill(pid, signal));
        }
    }

    /// Whether a signal to our process group has reached the command itself.
    #[must_use]
    pub fn is_in_our_group(&self) -> bool {
        let shares = |pid| getpgid(Some(pid)) == Ok(getpgrp());
        self.shared_group.is_some() && self.pid().is_some_and(shares)
    }

    /// Whether `pid` is the command or a descendant, and in our process group; or the last run, which is
    /// over.
    #[must_use]
    pub fn is_neighbour(&self, pid: Pid) -> bool {
        match getpgid(Some(pid)) {
            Ok(group) => group == getpgrp() && kin::is_descendant(pid),
            Err(_) => self.last == Some(pid),
        }
    }

    /// The command's process id, if it lives.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        match self.tree {
            Tree::Alive(pid) => Some(pid),
            Tree::Gone | Tree::Leftovers(_) => None,
        }
    }

    /// Names the command's processes, itself first, for as long as `goes_on`; where they can't be known, none.
    pub fn name(&self, goes_on: impl FnMut() -> bool, visitor: impl FnMut(Pid)) {
        if let (Some(pid), true) = (self.pid(), self.listed) {
            kin::name(&self.strangers, pid, goes_on, visitor);
        }
    }

    /// Whether `/proc` shows the command, and not another process that has its number elsewhere.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// How many have been told `word` who had not been.
    fn tell(&mut self, word: Signal) -> usize {
        let (Tree::Alive(pid) | Tree::Leftovers(pid)) = self.tree else {
            return 0;
        };
        if self.told.word.replace(word) != Some(word) {
            self.told.who.clear();
        }
        if !self.listed {
            return self.tell_unlisted(pid, word);
        }
        if word != Signal::SIGKILL {
            return self.tell_who_is_there(pid, word);
        }
        let count = self.tell_everybody(pid, word);
        // In one go, so that nobody in the group can fork away; and last, so that they could be counted.
        if self.owns_group(pid) {
            tolerate(killpg(pid, word));
        }
        count
    }

    fn tell_command(&self, word: Signal) {
        for signal in with_continue(word) {
            self.forward(signal);
        }
    }

    /// Not those who are born after the command has heard it: it may start something to end cleanly, which is
    /// not to be told at its birth. That is told when the command has ended, as a leftover.
    fn tell_who_is_there(&mut self, pid: Pid, word: Signal) -> usize {
        // The command first: a shell that saw its child die of it would go on with its next line. And most
        // often it is all there is, so others are looked for when it has heard it, and who is new is known by
        // the numbers. Where these can't be asked, and where its orphans may be kept, they are looked for
        // before; who is forked meanwhile is missed.
        let last = (!self.keep_descendants).then(kin::last_born).flatten();
        let mut there = if last.is_none() {
            self.untold(pid)
        } else {
            Vec::new()
        };
        let command = self.pid();
        self.tell_command(word);
        if let Some(last) = last {
            // On our processor it would end only when we wait for it: let it, and nobody is left to look for.
            thread::yield_now();
            there = self.untold(pid);
            let now = kin::last_born().unwrap_or(last);
            there.retain(|process| {
                let is_new = kin::is_born_since(process.pid, last, now);
                if is_new {
                    self.told.who.remove(&process.id());
                }
                !is_new
            });
        }
        for process in there.iter().filter(|process| Some(process.pid) != command) {
            let Some(process) = process.held_again() else {
                continue;
            };
            for signal in with_continue(word) {
                tolerate(process.signal(signal));
            }
        }
        there.len()
    }

    /// Those who have not heard the last word. They are to hear it now.
    fn untold(&mut self, pid: Pid) -> Vec<Process> {
        let mut untold = Vec::new();
        if !self.is_childless() {
            self.meet(pid, |process| untold.push(process.let_go()));
        }
        untold
    }

    /// Those who have ended only hide the others; and if nobody is left, that is all. What can't be waited
    /// for, and what was heard, `reap` tells.
    fn is_childless(&mut self) -> bool {
        let taken = self.take_ends();
        self.has_more = true;
        taken.is_ok_and(|(_, childless)| childless)
    }

    /// Goes through the tree until there is nobody new, or so often.
    fn tell_everybody(&mut self, pid: Pid, word: Signal) -> usize {
        let mut count = 0;
        for _ in 0..ROUNDS {
            if self.is_childless() {
                break;
            }
            let mut new = 0;
            let children = self.meet(pid, |process| {
                new += 1;
                count += usize::from(!process.dead);
                tolerate(process.signal(word));
            });
            self.told.until_next = (children / 2).max(1);
            if new == 0 {
                break;
            }
        }
        count
    }

    /// Visits those who have not heard the last word, and notes that they have; how many children we have.
    fn meet(&mut self, pid: Pid, mut visitor: impl FnMut(&Process)) -> usize {
        let mut children = 0;
        kin::visit(&self.strangers, |process| {
            children += usize::from(process.is_child());
            let in_group = process.group == self.shared_group.unwrap_or(pid);
            let is_kept = self.keep_descendants && !in_group && process.pid != pid;
            if !is_kept && self.told.who.insert(process.id()) {
                visitor(process);
            }
        });
        children
    }

    /// Where the descendants can't be known there is the group, and the command itself, which may have
    /// left it.
    fn tell_unlisted(&mut self, pid: Pid, word: Signal) -> usize {
        let mut is_group = self.owns_group(pid);
        for signal in with_continue(word) {
            if is_group {
                let outcome = killpg(pid, signal);
                is_group = outcome != Err(Errno::ESRCH);
                tolerate(outcome);
            }
        }
        if !is_group {
            self.tell_command(word);
        }
        if !is_group && self.tree == Tree::Leftovers(pid) && !self.adopts {
            self.tree = Tree::Gone;
        }
        usize::from(is_group)
    }

    /// Whether the group `pid` is the command's for sure: the number may be another's once nobody of
    /// the command is in it.
    fn owns_group(&self, pid: Pid) -> bool {
        if self.shared_group.is_some() {
            return false;
        }
        match self.tree {
            Tree::Gone => false,
            Tree::Alive(_) => true,
            Tree::Leftovers(_) if self.adopts => sys::has_children(Some(pid)),
            Tree::Leftovers(_) => true,
        }
    }

    /// While everybody is being killed: who forked in time, or was adopted without being seen, is met
    /// when some of the others have been reaped. Half of them each time, for each time all are asked.
    fn go_on_killing(&mut self, reaped: usize) {
        if self.told.word != Some(Signal::SIGKILL) || self.tree == Tree::Gone {
            return;
        }
        self.told.until_next = self.told.until_next.saturating_sub(reaped);
        if self.told.until_next == 0 {
            self.tell(Signal::SIGKILL);
        }
    }
}

/// Whether the command could share our process group: its descendants are then only to be known by
/// being listed.
#[must_use]
pub fn can_share_group() -> bool {
    kin::is_listed()
}

/// From now on orphans among our descendants are re-parented to us, as they else are to init; whether
/// it is so.
fn become_subreaper() -> bool {
    sys::adopt_orphans().unwrap_or_else(|errno| {
        log::warn!(
            "orphans not adopted error={} hint=\"what leaves the command's process group may stay behind\"",
            Quoted::text(errno.desc())
        );
        false
    })
}

/// A stopped process hears SIGTERM only when it is continued. SIGKILL needs no help.
fn with_continue(word: Signal) -> impl Iterator<Item = Signal> {
    let help = (word != Signal::SIGKILL).then_some(Signal::SIGCONT);
    [word].into_iter().chain(help)
}

/// Who is gone needs no signal. Whom we may not signal (a program that became another user) has to
/// be waited for, and somebody has to know.
fn tolerate(outcome: nix::Result<()>) {
    match outcome {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => log::warn!("signal not delivered error={}", Quoted::text(errno.desc())),
    }
}

/// Where `program` may be: itself if it holds a slash, else in each directory of `path`, of which
/// an empty one is the current directory (execvp(3)).
fn candidates(program: &OsStr, path: &OsStr) -> Vec<OsString> {
    let program = program.as_bytes();
    if program.contains(&b'/') || program.is_empty() {
        return vec![OsString::from_vec(program.to_vec())];
    }
    path.as_bytes()
        .split(|&b| b == b':')
        .map(|directory| match directory {
            b"" => program.to_vec(),
            directory => [directory, b"/", program].concat(),
        })
        .map(OsString::from_vec)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_searched_in_each_directory_of_path() {
        let all = candidates(OsStr::new("ls"), OsStr::new("/bin::/usr/bin"));
        assert_eq!(all, ["/bin/ls", "ls", "/usr/bin/ls"]);
    }

    #[test]
    fn a_program_with_a_slash_is_not_searched() {
        for program in ["./ls", "/bin/ls", "a/b", ""] {
            let all = candidates(OsStr::new(program), OsStr::new("/bin"));
            assert_eq!(all, [program]);
        }
    }
}
