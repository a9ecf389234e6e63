//! The command as a process: launching it, signalling it and what it started, reaping.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};

use crate::exit::Ended;
use crate::sys::{self, Image};

/// What `execvp(3)` searches where `PATH` is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The command, whether it runs or not.
pub struct Command {
    image: Image,
    /// Signals with a handler here, which are to have their default in the command.
    handled: Vec<Signal>,
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
        handled: Vec<Signal>,
        keep_descendants: bool,
    ) -> io::Result<Self> {
        let path = environment.iter().find(|(name, _)| name == "PATH");
        let path = path.map_or(OsStr::new(DEFAULT_PATH), |(_, path)| path.as_os_str());
        let pairs: Vec<OsString> = environment
            .iter()
            .map(|(name, value)| [name.as_os_str(), value].join(OsStr::new("=")))
            .collect();
        #[cfg(target_os = "linux")]
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            log::debug!("orphans of the command are not re-parented here error=\"{error}\"");
        }
        Ok(Self {
            image: Image::new(&candidates(&argv[0], path), argv, &pairs, mask)?,
            handled,
            keep_descendants,
            tree: Tree::Gone,
        })
    }

    /// Launches it. Returns when it has been executed.
    ///
    /// # Errors
    /// Those of fork(2) and execve(2).
    pub fn spawn(&mut self) -> io::Result<i32> {
        let pid = sys::spawn(&self.image, &self.handled)?;
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

    /// How many processes [`Command::kill`] would reach, and the command's process id.
    #[must_use]
    pub fn census(&self) -> (i32, usize) {
        match self.tree {
            Tree::Gone => (0, 0),
            Tree::Alive(group) | Tree::Leftovers(group) => {
                (group.as_raw(), members(group).unwrap_or(1))
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

/// Who is gone needs no signal; whom we may not signal (a set-user-ID program) gets none.
fn tolerate(outcome: nix::Result<()>) {
    match outcome {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => log::debug!("signal not delivered error=\"{errno}\""),
    }
}

/// Whether a process of this group exists.
fn is_group(group: Pid) -> bool {
    killpg(group, None) != Err(Errno::ESRCH)
}

/// Counts the group's processes, where `/proc` is there to ask.
fn members(group: Pid) -> Option<usize> {
    let entries = std::fs::read_dir("/proc").ok()?;
    let pids = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| getpgid(Some(Pid::from_raw(*pid))) == Ok(group));
    Some(pids.count().max(1))
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
