//! What a hung command was doing, from `/proc` (contract, section 10): one line for each of its
//! processes, then one for each further thread.

mod call;

use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::libc;
use nix::unistd::Pid;

use crate::clock;
use crate::text::Quoted;

/// So many lines are told at most.
const LINES: usize = 64;

/// So long it may take: the stop waits for it. What is told last may take as long again as one line.
const TIME: Duration = Duration::from_micros(4500);

/// Functions of the kernel that are shown, the innermost first.
const DEPTH: usize = 8;

/// A diagnosis in the making.
pub struct Diagnosis {
    until: Instant,
    told: usize,
    /// Processes whose other threads are still to be told of.
    processes: Vec<Pid>,
    /// There was more than was told.
    cut: bool,
}

impl Diagnosis {
    /// Begins it; time runs from here.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            until: clock::now() + TIME,
            told: 0,
            processes: Vec::new(),
            cut: false,
        }
    }

    /// Tells of one process; whether there is time for another.
    pub fn process(&mut self, pid: Pid) -> bool {
        if !self.has_room() {
            self.cut = true;
            return false;
        }
        let place = PathBuf::from(format!("/proc/{pid}"));
        let mut line = format!("hung pid={pid}");
        let threads = numbers(place.join("task"));
        thread(&mut line, &place);
        let _ = match &threads {
            Ok(threads) => write!(line, " threads={}", threads.len()),
            Err(error) => write!(line, " threads={}", Unreadable(error)),
        };
        resident(&mut line, &place);
        let _ = match numbers(place.join("fd")) {
            Ok(open) => write!(line, " fds={}", open.len()),
            Err(error) => write!(line, " fds={}", Unreadable(&error)),
        };
        stack(&mut line, &place);
        self.tell(&line);
        if threads.is_ok_and(|threads| threads.len() > 1) {
            self.processes.push(pid);
        }
        true
    }

    /// Tells of the threads that are still to be told of, as far as there is time, and of what was not.
    pub fn finish(mut self) {
        for pid in std::mem::take(&mut self.processes) {
            let place = PathBuf::from(format!("/proc/{pid}/task"));
            for tid in numbers(&place).unwrap_or_default() {
                if tid == pid.as_raw() {
                    continue;
                }
                if !self.has_room() {
                    self.cut = true;
                    break;
                }
                let place = place.join(tid.to_string());
                let mut line = format!("hung pid={pid} tid={tid}");
                thread(&mut line, &place);
                stack(&mut line, &place);
                self.tell(&line);
            }
        }
        if self.cut {
            log::warn!("hung and more hint=\"not all fits into {LINES} lines and 5 ms\"");
        }
    }

    fn has_room(&self) -> bool {
        // One line for what is cut.
        self.told + 1 < LINES && clock::now() < self.until
    }

    fn tell(&mut self, line: &str) {
        self.told += 1;
        log::warn!("{line}");
    }
}

/// Name, state, where in the kernel it waits, and in which system call.
fn thread(line: &mut String, place: &std::path::Path) {
    // Writing to a String can't fail, here and below.
    let _ = match read(place.join("stat")) {
        Ok(stat) => match name_and_state(&stat) {
            Some((name, state)) => {
                let name = String::from_utf8_lossy(name);
                write!(line, " name={} state={state}", Quoted::text(&name))
            }
            None => write!(line, " name=? state=?"),
        },
        Err(error) => write!(line, " name={0} state={0}", Unreadable(&error)),
    };
    let _ = match read(place.join("wchan")) {
        Ok(function) if function == b"0" => write!(line, " wchan=none"),
        Ok(function) => write!(line, " wchan={}", String::from_utf8_lossy(&function)),
        Err(error) => write!(line, " wchan={}", Unreadable(&error)),
    };
    let _ = match read(place.join("syscall")) {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            write!(line, " syscall={}", call::shown(text.trim(), place))
        }
        Err(error) => write!(line, " syscall={}", Unreadable(&error)),
    };
}

/// The second and the third field of proc_pid_stat(5). A name may hold anything, parentheses too.
fn name_and_state(stat: &[u8]) -> Option<(&[u8], char)> {
    let begins = stat.iter().position(|byte| *byte == b'(')? + 1;
    let ends = stat.iter().rposition(|byte| *byte == b')')?;
    let state = stat.get(ends + 2)?;
    Some((stat.get(begins..ends)?, char::from(*state)))
}

/// Resident memory, from the second field of proc_pid_statm(5), which counts pages.
fn resident(line: &mut String, place: &std::path::Path) {
    let pages = read(place.join("statm")).map(|statm| {
        let text = String::from_utf8_lossy(&statm);
        text.split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<u64>().ok())
    });
    let _ = match pages {
        Ok(pages) => write!(line, " rss={}kB", pages.unwrap_or(0) * page_size() / 1024),
        Err(error) => write!(line, " rss={}", Unreadable(&error)),
    };
}

fn page_size() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok()
        .flatten()
        .and_then(|size| size.try_into().ok())
        .unwrap_or(4096)
}

/// The kernel's stack, which only root may read: elsewhere there is the wait channel.
fn stack(line: &mut String, place: &std::path::Path) {
    let Ok(stack) = read(place.join("stack")) else {
        return;
    };
    let text = String::from_utf8_lossy(&stack);
    // `[<0>] futex_wait_queue+0x69/0xc0`.
    let functions = text.lines().filter_map(|line| {
        let (_, function) = line.split_once(' ')?;
        function.split('+').next()
    });
    let functions: Vec<_> = functions.take(DEPTH).collect();
    if !functions.is_empty() {
        let _ = write!(line, " stack={}", functions.join("<"));
    }
}

/// What is read here is shorter than that, or its beginning says enough.
fn read(path: impl AsRef<std::path::Path>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 2048];
    let length = fs::File::open(path)?.read(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// The entries of a directory that are numbers.
fn numbers(directory: impl AsRef<std::path::Path>) -> io::Result<Vec<i32>> {
    let entries = fs::read_dir(directory)?.flatten();
    Ok(entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

/// In the place of a value that could not be had.
struct Unreadable<'a>(&'a io::Error);

impl fmt::Display for Unreadable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => "denied",
            Some(libc::ENOENT | libc::ESRCH) => "gone",
            _ => "unreadable",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        for name in ["sh", "a b", ") Z 1 1 1", "(", ""] {
            let stat = format!("9 ({name}) S 1 2 3");
            assert_eq!(
                name_and_state(stat.as_bytes()),
                Some((name.as_bytes(), 'S'))
            );
        }
        for stat in ["", "9", "9 (", "9 )(", "9 (x)", "9 (x) "] {
            assert_eq!(name_and_state(stat.as_bytes()), None, "{stat}");
        }
    }

    #[test]
    fn there_is_an_end_to_lines_and_to_time() {
        let me = nix::unistd::getpid();
        let mut diagnosis = Diagnosis::begin();
        diagnosis.told = LINES - 2;
        diagnosis.until += Duration::from_secs(1000);
        assert!(diagnosis.process(me));
        assert!(!diagnosis.process(me) && diagnosis.cut);
        let mut late = Diagnosis::begin();
        late.until = clock::now();
        assert!(!late.process(me) && late.cut);
    }
}
