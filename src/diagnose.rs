//! What a hung command was doing, from `/proc` (contract, section 10): one line for each of its
//! processes, then one for each further thread.

mod call;

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
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

/// So many threads of a process are told of with it; the others when all processes have had their turn.
const THREADS: usize = 32;

/// A diagnosis in the making.
pub struct Diagnosis {
    until: Instant,
    told: Cell<usize>,
    /// Threads that are still to be told of.
    others: RefCell<Vec<(Pid, i32)>>,
    /// There was more than was told.
    cut: Cell<bool>,
}

impl Diagnosis {
    /// Begins it; time runs from here.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            until: clock::now() + TIME,
            told: Cell::new(0),
            others: RefCell::new(Vec::new()),
            cut: Cell::new(false),
        }
    }

    /// Whether there is time, and a line, left. If not, it is remembered that somebody asked.
    #[must_use]
    pub fn has_room(&self) -> bool {
        // One line for what is cut.
        let has_room = self.told.get() + 1 < LINES && clock::now() < self.until;
        self.cut.set(self.cut.get() || !has_room);
        has_room
    }

    /// Tells of one process, and of its first threads.
    pub fn process(&self, pid: Pid) {
        let place = PathBuf::from(format!("/proc/{pid}"));
        let mut line = format!("hung pid={pid}");
        thread(&mut line, &place);
        resident(&mut line, &place);
        open_descriptors(&mut line, &place);
        stack(&mut line, &place);
        self.tell(&line);
        let others = numbers(place.join("task"))
            .into_iter()
            .flatten()
            .take(LINES);
        let mut others = others.filter(|tid| *tid != pid.as_raw());
        for tid in others.by_ref().take(THREADS) {
            self.thread(pid, tid);
        }
        self.others
            .borrow_mut()
            .extend(others.map(|tid| (pid, tid)));
    }

    fn thread(&self, pid: Pid, tid: i32) {
        if self.has_room() {
            let place = PathBuf::from(format!("/proc/{pid}/task/{tid}"));
            let mut line = format!("hung pid={pid} tid={tid}");
            thread(&mut line, &place);
            stack(&mut line, &place);
            self.tell(&line);
        }
    }

    /// Tells of the threads that are still to be told of, as far as there is time, and of what was not; and
    /// where the command is not listed in `/proc`, that.
    pub fn finish(self, is_listed: bool) {
        if !is_listed {
            self.tell(
                "hung hint=\"what it is doing can't be seen: /proc is missing, or shows others\"",
            );
        }
        for (pid, tid) in self.others.take() {
            self.thread(pid, tid);
            if self.cut.get() {
                break;
            }
        }
        if self.cut.get() {
            log::warn!("hung and more hint=\"not all fits into {LINES} lines and 5 ms\"");
        }
    }

    fn tell(&self, line: &str) {
        self.told.set(self.told.get() + 1);
        log::warn!("{line}");
    }
}

/// Name, state, where in the kernel it waits, and in which system call.
fn thread(line: &mut String, place: &Path) {
    // Writing to a String can't fail, here and below.
    let _ = match read(place.join("stat")) {
        Ok(stat) => match Stat::parse(&stat) {
            Some(Stat {
                name,
                state,
                threads,
            }) => {
                let name = String::from_utf8_lossy(name);
                let name = Quoted::text(&name);
                write!(line, " name={name} state={state} threads={threads}")
            }
            None => write!(line, " name=? state=? threads=?"),
        },
        Err(error) => write!(line, " name={0} state={0} threads={0}", Unreadable(&error)),
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

/// What we need of proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat<'a> {
    name: &'a [u8],
    state: char,
    threads: &'a str,
}

impl<'a> Stat<'a> {
    /// A name may hold anything, parentheses too.
    fn parse(stat: &'a [u8]) -> Option<Self> {
        let begins = stat.iter().position(|byte| *byte == b'(')? + 1;
        let ends = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(stat.get(ends + 2..)?).ok()?;
        // From the third field on; the twentieth counts the threads.
        let mut fields = rest.split(' ');
        Some(Self {
            name: stat.get(begins..ends)?,
            state: fields.next()?.chars().next()?,
            threads: fields.nth(16)?,
        })
    }
}

/// How many descriptors it has open: since Linux 6.2 the directory's size; before, its entries, which are
/// not counted without end.
fn open_descriptors(line: &mut String, place: &Path) {
    const MOST: usize = 1000;
    let place = place.join("fd");
    let counted = fs::metadata(&place).and_then(|found| match found.len() {
        0 => Ok(numbers(&place)?.take(MOST).count() as u64),
        count => Ok(count),
    });
    let _ = match counted {
        Ok(count) => write!(line, " fds={count}"),
        Err(error) => write!(line, " fds={}", Unreadable(&error)),
    };
}

/// Resident memory, from the second field of proc_pid_statm(5), which counts pages.
fn resident(line: &mut String, place: &Path) {
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
fn stack(line: &mut String, place: &Path) {
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
fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 2048];
    let length = fs::File::open(path)?.read(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// The entries of a directory that are numbers.
fn numbers(directory: impl AsRef<Path>) -> io::Result<impl Iterator<Item = i32>> {
    let entries = fs::read_dir(directory)?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
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
        const REST: &str = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 42 18";
        for name in ["sh", "a b", ") Z 1 1 1", "(", ""] {
            let stat = format!("9 ({name}) S {REST}");
            let parsed = Stat::parse(stat.as_bytes()).unwrap();
            assert_eq!((parsed.name, parsed.state), (name.as_bytes(), 'S'));
            assert_eq!(parsed.threads, "42");
        }
        for stat in [
            "",
            "9",
            "9 (",
            "9 )(",
            "9 (x)",
            "9 (x) ",
            "9 (x) S",
            "9 (x) S 1",
        ] {
            assert_eq!(Stat::parse(stat.as_bytes()), None, "{stat}");
        }
    }

    #[test]
    fn there_is_an_end_to_lines_and_to_time() {
        let mut diagnosis = Diagnosis::begin();
        diagnosis.until += Duration::from_secs(1000);
        diagnosis.told.set(LINES - 2);
        assert!(diagnosis.has_room() && !diagnosis.cut.get());
        diagnosis.told.set(LINES - 1);
        assert!(!diagnosis.has_room() && diagnosis.cut.get());
        let mut late = Diagnosis::begin();
        late.until = clock::now();
        assert!(!late.has_room() && late.cut.get());
    }
}
