//! The command as a process: launching it, signalling it and what it started, reaping.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};

use crate::exit::Ended;
use crate::sys::{self, Image};
use crate::text::Quoted;

/// What `execvp(3)` searches where `PATH` is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The command, whether it runs or not.
pub struct Command {
    image: Image,
    /// Signals that are to have their default disposition in the command.
    to_default: Vec<Signal>,
    keep_descendants: bool,
    tree: Tree,
}

/// Which processes there are. A process id stands here only while it is not reaped, or while other
/// processes of its group keep it from being given out again: so no signal ever meets a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tree {
    Gone,
    /// The command itself lives; it leads the group.
    Alive(Pid),
    /// The command is reaped, others of its group are not gone.
    Leftovers(Pid),
}

/// What [`Command::reap`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// The command itself has ended.
    Command {
        /// How.
        ended: Ended,
        /// Whether others of its group are left.
        leftovers: bool,
    },
    /// The last of what it left behind is gone.
    Leftovers,
}

impl Command {
    /// Prepares `argv` (never empty) to be launched with `environment`, each variable as a pair,
    /// and the signal mask `mask`. Also makes this process the one to which orphans of the command
    /// are re-parented (Linux, prctl(2) `PR_SET_CHILD_SUBREAPER`), so that their end is announced.
    ///
    /// # Errors
    /// Where a string holds a NUL byte, which nothing that came from the system does.
    pub fn new(
        argv: &[OsString],
        environment: &[(OsString, OsString)],
        mask: SigSet,
        to_default: Vec<Signal>,
        keep_descendants: bool,
    ) -> io::Result<Self> {
        let path = environment.iter().find(|(name, _)| name == "PATH");
        let path = path.map_or(OsStr::new(DEFAULT_PATH), |(_, path)| path.as_os_str());
        let pairs: Vec<OsString> = environment
            .iter()
            .map(|(name, value)| [name.as_os_str(), value].join(OsStr::new("=")))
            .collect();
        #[cfg(target_os = "linux")]
        if let Err(errno) = nix::sys::prctl::set_child_subreaper(true) {
            log::debug!("no subreaper error={}", Quoted::text(errno.desc()));
        }
        Ok(Self {
            image: Image::new(&candidates(&argv[0], path), argv, &pairs, mask)?,
            to_default,
            keep_descendants,
            tree: Tree::Gone,
        })
    }

    /// Launches it. Returns when it has been executed.
    ///
    /// # Errors
    /// Those of fork(2) and execve(2).
    pub fn spawn(&mut self) -> io::Result<i32> {
        let pid = sys::spawn(&self.image, &self.to_default)?;
        self.tree = Tree::Alive(pid);
        Ok(pid.as_raw())
    }

    /// Reaps everything that has ended, the command's or an orphan's that was re-parented to us.
    /// SIGCHLD announces any number of them at once, so all of them are asked for.
    ///
    /// # Errors
    /// Those of waitpid(2).
    pub fn reap(&mut self) -> io::Result<Vec<Reaped>> {
        let before = self.tree;
        let mut command = None;
        while let Some((pid, status)) = sys::wait_any()? {
            if self.tree == Tree::Alive(pid) {
                self.tree = Tree::Leftovers(pid);
                command = Some(Ended::from(status));
            }
        }
        if let Tree::Leftovers(pid) = self.tree
            && (self.keep_descendants || !is_group(pid))
        {
            self.tree = Tree::Gone;
        }
        let leftovers = self.tree != Tree::Gone;
        Ok(match command {
            Some(ended) => vec![Reaped::Command { ended, leftovers }],
            None if before != self.tree => vec![Reaped::Leftovers],
            None => Vec::new(),
        })
    }

    /// SIGTERM to everything in the group, and SIGCONT, for a stopped process must be able to die.
    pub fn terminate(&self) {
        self.signal_all(Signal::SIGTERM);
        self.signal_all(Signal::SIGCONT);
    }

    /// SIGKILL to everything in the group.
    pub fn kill(&self) {
        self.signal_all(Signal::SIGKILL);
    }

    /// The command's process id, and how many processes [`Command::kill`] would reach. None where
    /// nothing is left: not every end of a leftover is announced to us, and a group that was empty
    /// for a moment may be a stranger's by now.
    pub fn members(&mut self) -> Option<(i32, usize)> {
        match self.tree {
            Tree::Gone => None,
            // The command itself is there, though it may have left its group.
            Tree::Alive(group) => Some((group.as_raw(), members(group).len().max(1))),
            Tree::Leftovers(group) => {
                let left = members(group).into_iter().filter(|pid| descends(*pid));
                let count = left.count();
                if count == 0 {
                    self.tree = Tree::Gone;
                }
                (count > 0).then_some((group.as_raw(), count))
            }
        }
    }

    /// `signal` to the command's own process, if it lives.
    pub fn forward(&self, signal: Signal) {
        if let Tree::Alive(pid) = self.tree {
            tolerate(kill(pid, signal));
        }
    }

    fn signal_all(&self, signal: Signal) {
        match self.tree {
            Tree::Gone => {}
            // A command that has left its group is still to be reached.
            Tree::Alive(pid) => match killpg(pid, signal) {
                Err(Errno::ESRCH) => tolerate(kill(pid, signal)),
                other => tolerate(other),
            },
            Tree::Leftovers(group) => tolerate(killpg(group, signal)),
        }
    }
}

/// Who is gone needs no signal. Whom we may not signal (a program that became another user) has to
/// be waited for, and somebody has to know.
fn tolerate(outcome: nix::Result<()>) {
    match outcome {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => log::warn!("signal not delivered error={}", Quoted::text(errno.desc())),
    }
}

/// Whether a process of this group exists.
fn is_group(group: Pid) -> bool {
    killpg(group, None) != Err(Errno::ESRCH)
}

/// The group's processes. Where there is no `/proc` to ask, one stands for all.
fn members(group: Pid) -> Vec<Pid> {
    if !is_proc_mounted() {
        return is_group(group).then_some(group).into_iter().collect();
    }
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|pid| getpgid(Some(*pid)) == Ok(group))
        .collect()
}

/// Whether the process was started by the command: orphans of it are re-parented to us, so its
/// line of parents ends here. True where it can't be told.
fn descends(mut pid: Pid) -> bool {
    if !cfg!(target_os = "linux") || !is_proc_mounted() {
        return true;
    }
    while let Some(parent) = parent(pid) {
        if parent == nix::unistd::getpid() {
            return true;
        }
        pid = parent;
    }
    false
}

fn is_proc_mounted() -> bool {
    Path::new("/proc/self/stat").exists()
}

/// The fourth field of `/proc/PID/stat`; the second is a name in parentheses (proc_pid_stat(5)).
fn parent(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
    (parent > 0).then(|| Pid::from_raw(parent))
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
