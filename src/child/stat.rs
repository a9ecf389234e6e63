//! What `/proc` says of a process in one line.

use std::fs::File;
use std::io::Read;

use nix::unistd::{Pid, getpid};

/// What we need of `/proc/PID/stat` (proc_pid_stat(5)).
pub struct Stat {
    pub parent: Pid,
    pub group: Pid,
    /// Clock ticks since the machine's start.
    pub started: u64,
    /// It has ended and only waits to be reaped.
    pub dead: bool,
    /// Bytes of its environment; None in the midst of an exec, and with a Linux of before 3.5.
    pub environment: Option<usize>,
}

impl Stat {
    /// Of a child of ours that can't be looked at.
    pub fn hidden() -> Self {
        let unknown = Pid::from_raw(0);
        Self {
            parent: getpid(),
            group: unknown,
            started: 0,
            dead: false,
            environment: None,
        }
    }

    pub fn read(pid: Pid) -> Option<Self> {
        // What we need of it is shorter than that.
        let mut stat = [0; 1024];
        let mut file = File::open(format!("/proc/{pid}/stat")).ok()?;
        let length = file.read(&mut stat).ok()?;
        Self::parse(&stat[..length])
    }

    /// The second field is a name in parentheses, of any bytes at all.
    fn parse(stat: &[u8]) -> Option<Self> {
        let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(stat.get(name_ends + 2..)?).ok()?;
        // From the third field on.
        let fields: Vec<&str> = rest.split(' ').collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let pid = |number| Some(Pid::from_raw(field(number)?.parse().ok()?));
        // Its first thread may have ended before the others.
        let threads: u64 = field(20)?.parse().ok()?;
        // A process may have longer addresses than we do.
        let address = |number| field(number)?.trim_end().parse::<u64>().ok();
        let end = address(51).filter(|end| *end > 0);
        Some(Self {
            dead: matches!(field(3)?, "Z" | "X") && threads <= 1,
            environment: end.and_then(|end| end.checked_sub(address(50)?)?.try_into().ok()),
            parent: pid(4)?,
            group: pid(5)?,
            started: field(22)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(line: &str) -> Option<Stat> {
        Stat::parse(line.as_bytes())
    }

    const REST: &str = "4 5 6 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0";

    #[test]
    fn a_name_may_hold_anything() {
        for name in ["sh", "a b", ") Z 1 1 1", "(", "x\ny", ""] {
            let stat = stat(&format!("9 ({name}) S {REST}")).unwrap();
            assert_eq!(
                (stat.parent, stat.group),
                (Pid::from_raw(4), Pid::from_raw(5))
            );
            assert_eq!((stat.started, stat.dead), (777, false));
        }
        let not_utf8 = [b"9 (\xff\xfe) S ".as_slice(), REST.as_bytes()].concat();
        assert!(Stat::parse(&not_utf8).is_some());
    }

    #[test]
    fn a_process_is_dead_when_its_last_thread_is() {
        let line = format!("9 (x) Z {REST}");
        assert!(stat(&line).unwrap().dead);
        assert!(!stat(&line.replace(" 20 0 1 ", " 20 0 2 ")).unwrap().dead);
    }

    #[test]
    fn what_is_no_stat_is_no_process() {
        for line in [
            "",
            "9",
            "9 (x)",
            "9 (x) ",
            "9 (x) S",
            "9 (x) S 1 2",
            "no parenthesis",
        ] {
            assert!(stat(line).is_none(), "{line}");
        }
    }
}
