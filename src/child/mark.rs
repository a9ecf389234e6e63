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
/// soon as it is there, and after the next exec nothing any more: then what is there now is opened.
pub fn is_marked(pid: Pid, mark: &[u8]) -> bool {
    /// There has to be an end, for the next exec may follow at once: some ten milliseconds.
    const LOOKS: usize = 1024;
    /// So often at what was opened while it is said to have none yet.
    const AT_ONE: usize = 64;
    /// What is empty so often, and is said to be, is not about to be filled.
    const SURELY: usize = 8;
    let (mut opened, mut empty) = (None, 0);
    for look in 0..LOOKS {
        if look % AT_ONE == 0 {
            opened = None;
        }
        let Some(mut file) = opened.or_else(|| File::open(format!("/proc/{pid}/environ")).ok())
        else {
            return false;
        };
        let mut environ = Vec::new();
        let read = file.rewind().and_then(|()| file.read_to_end(&mut environ));
        let mut variables = environ.split(|byte| *byte == 0);
        if read.is_ok() && variables.any(|found| found == mark) {
            return true;
        }
        let stat = Stat::read(pid).filter(|stat| read.is_ok() && !stat.dead);
        let Some(stat) = stat else {
            return false;
        };
        opened = match stat.environment {
            Some(length) if length == environ.len() => {
                empty += 1;
                if length > 0 || empty == SURELY {
                    return false;
                }
                Some(file)
            }
            // That is of what it executes now, and this was of what it did before.
            Some(_) => None,
            None => {
                thread::yield_now();
                Some(file)
            }
        };
    }
    false
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
