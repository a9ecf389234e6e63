//! The descendants of this process, from `/proc` (Linux): as whose children they stand there, and
//! how to signal each without ever meeting a stranger.
//!
//! We are a subreaper, so every process that descends from the command descends from us, whatever
//! group or session it moved to and whoever of its parents has died. A child of ours keeps its number
//! until we reap it. Any other number can be given out again between being read and being used: so the
//! process is held by a pidfd first, and then looked at again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;
use std::vec::IntoIter;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

use super::mark::{is_marked, mark};
use super::stat::Stat;
use crate::sys::{LISTS_DESCENDANTS, PidFd};

/// Bytes: some ten thousand children of one thread.
const LONGEST_LIST: u64 = 0x1_0000;

/// A process as it was when it was looked at.
pub struct Process {
    pub pid: Pid,
    parent: Pid,
    pub group: Pid,
    /// Clock ticks since the machine's start. Number and start together mean one process for ever.
    started: u64,
    /// It has ended and only waits to be reaped.
    pub dead: bool,
    handle: Handle,
}

/// A process for good: number and start.
pub type Id = (Pid, u64);

enum Handle {
    /// A child of ours, which nobody else can reap.
    Child,
    Held(PidFd),
    /// There are no pidfds here (before Linux 5.3), or no descriptor is left.
    Number,
}

impl Handle {
    /// Of a process that is no child of ours; nothing where there is none.
    fn of(pid: Pid) -> Option<Self> {
        match PidFd::open(pid) {
            Ok(process) => Some(Self::Held(process)),
            Err(Errno::ESRCH) => None,
            Err(_) => Some(Self::Number),
        }
    }
}

impl Process {
    pub fn id(&self) -> Id {
        (self.pid, self.started)
    }

    pub fn is_child(&self) -> bool {
        matches!(self.handle, Handle::Child)
    }

    /// # Errors
    /// Those of kill(2).
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        match &self.handle {
            Handle::Held(process) => process.signal(Some(signal)),
            Handle::Child | Handle::Number => kill(self.pid, signal),
        }
    }

    /// The same, not held: there may be more processes than descriptors.
    pub fn let_go(&self) -> Self {
        let handle = if self.is_child() {
            Handle::Child
        } else {
            Handle::Number
        };
        Self { handle, ..*self }
    }

    /// The same, to be signalled; or nothing where its number is another's by now.
    pub fn held_again(&self) -> Option<Self> {
        let handle = if self.is_child() {
            Handle::Child
        } else {
            Handle::of(self.pid)?
        };
        // By its start: what is held may be another already.
        self.is_there().then_some(Self { handle, ..*self })
    }

    /// Whether its number still is its own.
    fn is_there(&self) -> bool {
        match &self.handle {
            Handle::Child => true,
            Handle::Held(process) => process.signal(None) != Err(Errno::ESRCH),
            Handle::Number => Stat::read(self.pid).is_some_and(|stat| stat.started == self.started),
        }
    }

    /// The process `pid` that stands among the children of `parent`, or among ours (None); or
    /// nothing where by now it is neither's.
    fn find(pid: Pid, parent: Option<&Self>) -> Option<Self> {
        let handle = match parent {
            None => Handle::Child,
            Some(_) => Handle::of(pid)?,
        };
        // One that became another user's may be hidden (`hidepid`); a child of ours it is all the same.
        let stat = Stat::read(pid).or_else(|| parent.is_none().then(Stat::hidden))?;
        let found = Self {
            pid,
            parent: stat.parent,
            group: stat.group,
            started: stat.started,
            dead: stat.dead,
            handle,
        };
        let ours = match parent {
            // Also where the parent died meanwhile.
            _ if found.parent == getpid() => true,
            None => false,
            Some(parent) => found.parent == parent.pid && parent.is_there(),
        };
        ours.then_some(found)
    }
}

/// Where a process's children are read.
enum Listing {
    /// `/proc/PID/task/TID/children`.
    Files,
    /// The kernel was built without these files (`CONFIG_PROC_CHILDREN`): the parents of all
    /// processes, read once.
    Parents(BTreeMap<Pid, Vec<Pid>>),
}

impl Listing {
    fn new() -> Self {
        static HAS_FILES: OnceLock<bool> = OnceLock::new();
        if *HAS_FILES.get_or_init(|| fs::exists(own_children()).unwrap_or(false)) {
            return Self::Files;
        }
        let mut children: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
        for pid in numbers("/proc") {
            if let Some(stat) = Stat::read(pid) {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        Self::Parents(children)
    }

    /// Ours.
    fn own(&self) -> Vec<Pid> {
        match self {
            // All that we start or adopt are our first thread's.
            Self::Files => read_children(&own_children()),
            Self::Parents(_) => self.of(getpid()),
        }
    }

    fn of(&self, pid: Pid) -> Vec<Pid> {
        match self {
            Self::Files => {
                // Any thread may have forked.
                let tasks = format!("/proc/{pid}/task");
                let mut all = Vec::new();
                for thread in numbers(&tasks) {
                    all.extend(read_children(&format!("{tasks}/{thread}/children")));
                }
                all
            }
            Self::Parents(children) => children.get(&pid).cloned().unwrap_or_default(),
        }
    }
}

fn own_children() -> String {
    let me = getpid();
    format!("/proc/{me}/task/{me}/children")
}

/// A list of children. Where more are born than are read it would have no end, so it is given one.
fn read_children(path: &str) -> Vec<Pid> {
    let mut list = Vec::with_capacity(4096);
    if let Ok(file) = File::open(path) {
        // What was read before an error is what there is.
        let _ = file.take(LONGEST_LIST).read_to_end(&mut list);
    }
    // A blank follows each number: what follows the last may have been cut off.
    let numbers = list.split(|byte| *byte == b' ').rev().skip(1);
    let numbers = numbers.filter_map(|number| std::str::from_utf8(number).ok()?.parse().ok());
    numbers.map(Pid::from_raw).collect()
}

/// The entries of a directory that are numbers.
fn numbers(directory: &str) -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
}

/// Whether the descendants can be known: on Linux, where `/proc` is there and numbers processes as
/// we do. (In a pid namespace of our own it may still be that of another.)
pub fn is_listed() -> bool {
    if !LISTS_DESCENDANTS {
        return false;
    }
    let me = fs::read_link("/proc/self").ok();
    me.is_some_and(|me| me.to_str() == Some(&getpid().to_string()))
}

/// Processes that descend from us and were there before the command: the background jobs of a
/// shell that executed us in its own place. They, and what they start, are none of our business.
#[derive(Default)]
pub struct Strangers {
    known: BTreeSet<Id>,
    /// What stands in the command's environment, and in that of whatever it starts, where there are
    /// strangers: an orphan of theirs becomes a child of ours just as one of the command's does.
    mark: Vec<u8>,
    /// The group of the command, if it has one of its own. (Some overwrite their environment with
    /// their title; not many of them leave their group.)
    pub group: Option<Pid>,
    /// The groups of helpers of ours that run beside the command.
    pub helpers: Vec<Pid>,
    /// What stands in a helper's environment, and in that of whatever it starts; nothing where none was
    /// started yet. So its orphans are not taken for the command's.
    pub helpers_mark: Vec<u8>,
    /// Who was once seen to have that: it stays so, also in the midst of an exec.
    orphans: RefCell<BTreeSet<Id>>,
    /// What of earlier helpers can't be killed, and is nobody's any more.
    pub abandoned: BTreeSet<Id>,
}

impl Strangers {
    /// Those that there are now.
    pub fn find() -> Self {
        let mut found = Self::default();
        found.remember();
        if found.are_there() {
            found.mark = mark("SUPERVISED_BY");
        }
        found
    }

    /// What a helper needs in its environment, `NAME=value`.
    pub fn helpers_mark(&mut self) -> OsString {
        if self.helpers_mark.is_empty() {
            self.helpers_mark = mark("SUPERVISOR_HOOK_OF");
        }
        OsString::from_vec(self.helpers_mark.clone())
    }

    /// Whoever there is now is one, too.
    pub fn remember(&mut self) {
        visit(&Self::default(), |process| {
            self.known.insert(process.id());
        });
    }

    pub fn are_there(&self) -> bool {
        !self.known.is_empty()
    }

    /// What the command needs in its environment, `NAME=value`.
    pub fn mark(&self) -> Option<OsString> {
        let needed = !self.mark.is_empty();
        needed.then(|| OsString::from_vec(self.mark.clone()))
    }

    fn has(&self, process: &Process) -> bool {
        if self.known.contains(&process.id()) || self.is_helpers(process) {
            return true;
        }
        // An orphan that is not the command's.
        !self.mark.is_empty() && self.is_foreign(process) && !is_marked(process.pid, &self.mark)
    }

    /// Whether it is a helper, or an orphan of one. (Not who descends from it and has a parent there.)
    fn is_helpers(&self, process: &Process) -> bool {
        self.helpers.contains(&process.group)
            || !self.helpers_mark.is_empty() && self.is_foreign(process) && self.is_orphan(process)
    }

    fn is_orphan(&self, process: &Process) -> bool {
        /// Those that have died are kept as well: so many, then it is begun anew.
        const MANY: usize = 1024;
        let mut orphans = self.orphans.borrow_mut();
        if orphans.contains(&process.id()) {
            return true;
        }
        let is_one = is_marked(process.pid, &self.helpers_mark);
        if is_one {
            if orphans.len() == MANY {
                orphans.clear();
            }
            orphans.insert(process.id());
        }
        is_one
    }

    /// Whether it is a child of ours outside of the command's group.
    fn is_foreign(&self, process: &Process) -> bool {
        process.parent == getpid() && Some(process.group) != self.group
    }
}

/// The process id that was given out last in our pid namespace; nothing where the kernel was built without
/// `CONFIG_CHECKPOINT_RESTORE`, or hides it.
pub fn last_born() -> Option<Pid> {
    let mut last = [0; 16];
    let mut file = File::open("/proc/sys/kernel/ns_last_pid").ok()?;
    let length = file.read(&mut last).ok()?;
    let last = std::str::from_utf8(&last[..length]).ok()?;
    last.trim_end().parse().ok().map(Pid::from_raw)
}

/// Whether `pid` was given out after `last`, as far as to `now`: in order, and after the greatest the
/// smallest.
pub fn is_born_since(pid: Pid, last: Pid, now: Pid) -> bool {
    if last <= now {
        last < pid && pid <= now
    } else {
        last < pid || pid <= now
    }
}

/// Visits every descendant of this process but the strangers and theirs, parents before their
/// children. Those that are born or adopted meanwhile may be missed: visit again until nobody new is met.
pub fn visit(strangers: &Strangers, visitor: impl FnMut(&Process)) {
    walk(|process, _| !strangers.has(process), visitor);
}

/// The same, of helpers and all that descends from them.
pub fn visit_helpers(strangers: &Strangers, visitor: impl FnMut(&Process)) {
    walk(
        |process, is_child| !is_child || strangers.is_helpers(process),
        visitor,
    );
}

/// Visits those descendants that are `chosen`, and theirs. (Children of ours come with `true`.)
fn walk(chosen: impl Fn(&Process, bool) -> bool, mut visitor: impl FnMut(&Process)) {
    let listing = Listing::new();
    let mut path: Vec<(Option<Process>, IntoIter<Pid>)> = Vec::new();
    path.push((None, listing.own().into_iter()));
    while let Some((parent, children)) = path.last_mut() {
        let Some(pid) = children.next() else {
            path.pop();
            continue;
        };
        let Some(process) = Process::find(pid, parent.as_ref()) else {
            continue;
        };
        if !chosen(&process, parent.is_none()) {
            continue;
        }
        // Read before the visitor, who may be its end.
        let below = listing.of(pid);
        visitor(&process);
        if !below.is_empty() {
            path.push((Some(process), below.into_iter()));
        }
    }
}

/// Whether there is a helper, or what one left behind.
pub fn has_helpers(strangers: &Strangers) -> bool {
    let own = Listing::new().own().into_iter();
    let mut own = own.filter_map(|pid| Process::find(pid, None));
    own.any(|it| strangers.is_helpers(&it) && !strangers.abandoned.contains(&it.id()))
}

/// Names `command`, then those below it and its orphans, for as long as `goes_on`: only to look at them, for
/// a number may be another's by then. Where the kernel has no lists of children it is `command` alone.
pub fn name(
    strangers: &Strangers,
    command: Pid,
    mut goes_on: impl FnMut() -> bool,
    mut visitor: impl FnMut(Pid),
) {
    let mut next = VecDeque::from([command]);
    let mut orphans = true;
    while goes_on() {
        let Some(pid) = next.pop_front() else {
            if !std::mem::take(&mut orphans) {
                return;
            }
            for pid in read_children(&own_children()) {
                if !goes_on() {
                    return;
                }
                let other = Process::find(pid, None).filter(|other| !strangers.has(other));
                next.extend(other.map(|other| other.pid).filter(|pid| *pid != command));
            }
            continue;
        };
        visitor(pid);
        let tasks = format!("/proc/{pid}/task");
        for thread in numbers(&tasks) {
            if !goes_on() {
                return;
            }
            next.extend(read_children(&format!("{tasks}/{thread}/children")));
        }
    }
}

/// Whether `pid` descends from this process.
pub fn is_descendant(mut pid: Pid) -> bool {
    while let Some(stat) = Stat::read(pid) {
        if stat.parent == getpid() {
            return true;
        }
        pid = stat.parent;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> (std::process::Child, Pid) {
        let mut command = std::process::Command::new("sleep");
        let child = command.arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        (child, pid)
    }

    #[test]
    fn who_is_no_child_of_that_parent_is_not_found() {
        let (mut child, pid) = sleeper();
        let child_of_ours = Process::find(pid, None).unwrap();
        assert!(child_of_ours.is_child() && !child_of_ours.dead);
        // The first process there is descends neither from us nor from our child.
        let first = Pid::from_raw(1);
        assert!(Process::find(first, None).is_none());
        assert!(Process::find(first, Some(&child_of_ours)).is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn who_was_let_go_is_found_again_by_number_and_start() {
        let (mut child, pid) = sleeper();
        let of = |started| Process {
            started,
            handle: Handle::Number,
            ..Process::find(pid, None).unwrap()
        };
        let started = Process::find(pid, None).unwrap().started;
        let again = of(started).held_again().unwrap();
        assert!(matches!(again.handle, Handle::Held(_) | Handle::Number));
        // The number of another.
        assert!(of(started + 1).held_again().is_none());
        let let_go = again.let_go();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(let_go.held_again().is_none());
    }

    #[test]
    fn numbers_are_given_out_in_order_and_then_from_the_beginning() {
        for (pid, last, now, is) in [
            (7, 7, 7, false),
            (8, 7, 7, false),
            (8, 7, 9, true),
            (9, 7, 9, true),
            (10, 7, 9, false),
            (7, 7, 9, false),
            (99, 98, 3, true),
            (3, 98, 3, true),
            (4, 98, 3, false),
            (98, 98, 3, false),
        ] {
            let [pid, last, now] = [pid, last, now].map(Pid::from_raw);
            assert_eq!(is_born_since(pid, last, now), is, "{pid} {last} {now}");
        }
    }

    #[test]
    fn a_process_that_is_held_is_never_taken_for_another() {
        let (mut child, pid) = sleeper();
        let held = PidFd::open(pid).unwrap();
        assert_eq!(held.signal(None), Ok(()));
        assert_eq!(held.signal(Some(Signal::SIGKILL)), Ok(()));
        child.wait().unwrap();
        assert_eq!(held.signal(None), Err(Errno::ESRCH));
        assert!(matches!(PidFd::open(pid), Err(Errno::ESRCH)));
    }
}
