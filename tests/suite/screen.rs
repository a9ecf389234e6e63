//! A terminal of its own for a test: what is typed into it, and what it shows.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

use crate::harness::*;

pub const PROMPT: &str = "prompt> ";
pub const CTRL_C: &str = "\x03";
pub const CTRL_BACKSLASH: &str = "\x1c";
pub const CTRL_Z: &str = "\x1a";

/// A terminal with a program in it that leads its session, as a login does.
pub struct Screen {
    pub master: File,
    /// Held open, so that what the terminal was left like can be seen after the end.
    pub slave: File,
    child: Child,
    /// What was shown, that there is more, and that nobody looks any more.
    seen: Arc<(Mutex<String>, Condvar, AtomicBool)>,
    /// How far it has been read by the waits.
    cursor: usize,
    pub directory: Directory,
}

impl Screen {
    pub fn new(words: &[&str]) -> Self {
        // Not openpty(3): no other test's child may inherit an end, or the window never closes.
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let mut slave = OpenOptions::new();
        slave
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits());
        let slave = slave.open(ptsname_r(&master).unwrap()).unwrap();
        let master = File::from(OwnedFd::from(master));
        let directory = Directory::new();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).args(words);
        command.stdin(end()).stdout(end()).stderr(end());
        command.current_dir(directory.path());
        command
            .env("PS1", PROMPT)
            .env("NO_COLOR", "1")
            .env_remove("ENV");
        command
            .env("SUPERVISOR", supervisor())
            .env("PUPPET", puppet());
        let child = command.spawn().unwrap();
        let seen: Arc<(Mutex<String>, Condvar, AtomicBool)> = Arc::default();
        let (mut reader, shared) = (master.try_clone().unwrap(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while !shared.2.load(Ordering::Relaxed) {
                let mut readable = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
                if poll(&mut readable, 20u8) == Ok(0) {
                    continue;
                }
                let Ok(count @ 1..) = reader.read(&mut bytes) else {
                    break;
                };
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                shared.0.lock().unwrap().push_str(&text);
                shared.1.notify_all();
            }
        });
        Self {
            master,
            slave,
            child,
            seen,
            cursor: 0,
            directory,
        }
    }

    /// `supervisor` with these options and the puppet, which is told these commands at once.
    pub fn puppet(options: &[&str], commands: &[&str]) -> Self {
        let puppet = puppet();
        let words = [supervisor().to_str().unwrap()].into_iter();
        let words = words.chain(options.iter().copied());
        let words = words.chain([puppet.to_str().unwrap()]);
        Self::new(&words.chain(commands.iter().copied()).collect::<Vec<_>>())
    }

    /// A shell with job control.
    pub fn shell(shell: &str) -> Self {
        let words: &[&str] = match shell {
            "bash" => &["bash", "--norc", "--noprofile", "-i"],
            shell => &[shell, "-i"],
        };
        let mut screen = Self::new(words);
        screen.shows(PROMPT);
        screen
    }

    pub fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    pub fn enters(&mut self, line: &str) {
        self.types(&format!("{line}\n"));
    }

    /// Waits until this stands there, after what was waited for before; from there to the line's end.
    pub fn shows(&mut self, text: &str) -> String {
        let ceiling = Instant::now() + CEILING;
        let mut seen = self.seen.0.lock().unwrap();
        loop {
            let new = &seen[self.cursor..];
            if let Some(at) = new.find(text)
                && (text.ends_with("> ") || new[at..].contains('\n'))
            {
                let line = new[at..].lines().next().unwrap().to_owned();
                self.cursor += at + text.len();
                return line;
            }
            let left = ceiling.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {text:?} in\n{}", *seen);
            seen = self.seen.1.wait_timeout(seen, left).unwrap().0;
        }
    }

    /// The exit code that the shell tells.
    pub fn shell_tells_code(&mut self) -> i32 {
        // What is typed before may be lost with the Ctrl-C.
        self.shows(PROMPT);
        self.enters("echo the 'code' was $?");
        number_in(&self.shows("the code was "))
    }

    /// The window is closed.
    pub fn closes(&mut self) {
        self.seen.2.store(true, Ordering::Relaxed);
        for end in [&mut self.master, &mut self.slave] {
            *end = File::open("/dev/null").unwrap();
        }
    }

    pub fn everything(&self) -> String {
        self.seen.0.lock().unwrap().clone()
    }

    /// Waits for the end: the exit code, or 1000 + the signal.
    pub fn code(&mut self) -> i32 {
        let mut status = None;
        assert!(
            eventually(|| {
                status = self.child.try_wait().unwrap();
                status.is_some()
            }),
            "still running\n{}",
            self.everything()
        );
        // All that was shown before this has been read when this has.
        self.slave.write_all(b"\nthe end\n").unwrap();
        self.shows("the end");
        let status = status.unwrap();
        let killed = || 1000 + status.signal().unwrap();
        status.code().unwrap_or_else(killed)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The end of the terminal is the end of whoever is left in it, if the shell has time to say so.
        self.closes();
        let child = &mut self.child;
        if !eventually(|| matches!(child.try_wait(), Ok(Some(_)))) {
            let _ = child.kill();
        }
        let _ = self.child.wait();
    }
}

/// The first line of the log about this, from its stamp on: what was typed may stand before it.
pub fn stamped<'a>(all: &'a str, event: &str) -> &'a str {
    let mut lines = all.lines().filter(|line| line.contains("[SUPERVISOR]"));
    let line = lines.find(|line| line.contains(event)).unwrap();
    &line[line.find("20").unwrap()..]
}

pub fn becomes(pid: i32, wanted: char) {
    assert!(
        eventually(|| state(pid) == wanted),
        "{pid} is {}",
        state(pid)
    );
}

pub fn all_become(pids: &[i32], wanted: char) {
    pids.iter().for_each(|pid| becomes(*pid, wanted));
}

/// The process id of the supervisor of this command.
pub fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(") ").next().unwrap();
    fields.split(' ').nth(1).unwrap().parse().unwrap()
}
