//! A variable in the environment of a process, by which it is known whose descendant it is, whoever of its
//! parents has died.

use std::fs::File;
use std::io::{Read, Seek};
use std::thread;

use nix::unistd::{Pid, getpid};

use super::stat::Stat;

/// A variable that no other supervisor gives.
pub fn mark(name: &str) -> Vec<u8> {
    let me = Stat::read(getpid()).map_or(0, |stat| stat.started);
    format!("{name}={}.{me}", getpid()).into()
}

/// Whether this variable stands in its environment.
///
/// Where it executes something, that is short or empty for a moment, until the new one is there. To open the file
/// waits for a lock that is given back in the midst of that moment; what was opened then shows the new one as
/// soon as it is there, and after the next exec nothing any more.
pub fn is_marked(pid: Pid, mark: &[u8]) -> bool {
    /// There has to be an end, for the next exec may follow at once: 2,048 looks, some ten milliseconds.
    const EXECS: usize = 32;
    (0..EXECS)
        .find_map(|_| has_variable(pid, mark))
        .unwrap_or(false)
}

/// The same; None where its environment was not whole until then.
fn has_variable(pid: Pid, variable: &[u8]) -> Option<bool> {
    const LOOKS: usize = 64;
    /// What is empty so often, and is said to be, is not about to be filled.
    const SURELY: usize = 8;
    let Ok(mut file) = File::open(format!("/proc/{pid}/environ")) else {
        return Some(false);
    };
    let mut empty = 0;
    for _ in 0..LOOKS {
        let mut environ = Vec::new();
        let read = file.rewind().and_then(|()| file.read_to_end(&mut environ));
        let mut variables = environ.split(|byte| *byte == 0);
        if read.is_ok() && variables.any(|found| found == variable) {
            return Some(true);
        }
        let stat = Stat::read(pid).filter(|stat| read.is_ok() && !stat.dead);
        let Some(stat) = stat else {
            return Some(false);
        };
        if stat.environment == Some(environ.len()) {
            empty += 1;
            if !environ.is_empty() || empty == SURELY {
                return Some(false);
            }
        }
        thread::yield_now();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_one_whole_variable() {
        for (variables, is) in [
            (&[("MARK", "x")][..], true),
            (&[("A", "1"), ("MARK", "x"), ("B", "2")], true),
            (&[("MARK", "xx"), ("XMARK", "x")], false),
            (&[], false),
        ] {
            let mut sleep = std::process::Command::new("/bin/sleep");
            sleep.arg("60").env_clear().envs(variables.iter().copied());
            let mut child = sleep.spawn().unwrap();
            let pid = Pid::from_raw(child.id().cast_signed());
            assert_eq!(is_marked(pid, b"MARK=x"), is, "{variables:?}");
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(!is_marked(pid, b"MARK=x"), "{variables:?}");
        }
    }
}
