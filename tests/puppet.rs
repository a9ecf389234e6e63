//! The scripted child of the tests. It says `ready` and then does what it is told, one command a
//! line: first its arguments, then its standard input. Each command is answered by `did <command>`,
//! so that a test waits for a fact and never for a time.
//!
//! ```text
//! beat | append | touch | touch-at SECONDS | truncate | rename | poke  (beats)
//! read | chmod | delete | neighbour                                    (none)
//! exit N | stop | trap SIGNAL.. | child | stubborn-child
//! notify LINES (as sd_notify does it; `\n` between them)
//! env NAME | environ | group | fds | write FILE TEXT
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::zombie_processes,
    missing_docs
)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{SigSet, Signal, raise};

fn main() {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.first().and_then(|arg| arg.to_str()) {
        // A grandchild: lives until it is signalled.
        Some("sleeper") => park(),
        Some("stubborn-sleeper") => {
            block("TERM");
            say(&format!("deaf {}", std::process::id()));
            park();
        }
        Some("args") => {
            for arg in &args[1..] {
                say(&format!("arg {}", arg.as_bytes().escape_ascii()));
            }
            return;
        }
        _ => {}
    }
    say(&format!("ready {}", std::process::id()));
    let mut puppet = Puppet { held: None };
    for arg in args {
        puppet.obey(&arg.to_string_lossy());
    }
    while let Some(line) = read_line() {
        puppet.obey(&line);
    }
    // No more commands: it stays, and beats no more.
    park();
}

struct Puppet {
    /// The heartbeat file, held open by `poke`.
    held: Option<File>,
}

impl Puppet {
    fn obey(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let file = || std::env::var_os("HEARTBEAT_FILE").unwrap();
        match word {
            "beat" => fs::write(file(), b"alive").unwrap(),
            "append" => {
                let mut opened = OpenOptions::new().append(true).create(true).open(file());
                opened.as_mut().unwrap().write_all(b"x").unwrap();
            }
            "touch" => touch(&file(), SystemTime::now()),
            "touch-at" => {
                let since = Duration::from_secs(rest.parse().unwrap());
                touch(&file(), SystemTime::UNIX_EPOCH + since);
            }
            "truncate" => drop(File::create(file()).unwrap()),
            "rename" => {
                let mut new = file();
                new.push(".new");
                fs::write(&new, b"alive").unwrap();
                fs::rename(&new, file()).unwrap();
            }
            "poke" => {
                let held = &mut self.held;
                let held = held.get_or_insert_with(|| File::create(file()).unwrap());
                held.write_all(b"x").unwrap();
            }
            "read" => drop(fs::read(file()).unwrap()),
            "chmod" => {
                let mode = fs::metadata(file()).unwrap().permissions().mode() ^ 0o001;
                fs::set_permissions(file(), fs::Permissions::from_mode(mode)).unwrap();
            }
            "delete" => fs::remove_file(file()).unwrap(),
            "neighbour" => {
                let mut other = file();
                other.push(".neighbour");
                fs::write(other, b"alive").unwrap();
            }
            "write" => {
                let (path, text) = rest.split_once(' ').unwrap();
                fs::write(path, text).unwrap();
            }
            "exit" => std::process::exit(rest.parse().unwrap()),
            "stop" => raise(Signal::SIGSTOP).unwrap(),
            "trap" => {
                let set = block(rest);
                std::thread::spawn(move || {
                    while let Ok(signal) = set.wait() {
                        say(&format!("got {signal}"));
                    }
                });
            }
            "notify" => {
                let lines = rest.replace("\\n", "\n");
                sd_notify::notify(&[sd_notify::NotifyState::Custom(&lines)]).unwrap();
            }
            "child" => grandchild("sleeper"),
            "stubborn-child" => grandchild("stubborn-sleeper"),
            "env" => say(&match std::env::var(rest) {
                Ok(value) => format!("env {rest}={value}"),
                Err(_) => format!("env {rest} unset"),
            }),
            "environ" => {
                for (name, value) in std::env::vars() {
                    say(&format!("environ {name}={value}"));
                }
            }
            "group" => say(&format!("group {}", nix::unistd::getpgrp())),
            "fds" => {
                let listed = fs::read_dir("/proc/self/fd").unwrap();
                let mut fds: Vec<_> = listed
                    .map(|fd| fd.unwrap().file_name().into_string().unwrap())
                    .collect();
                fds.sort();
                say(&format!("fds {}", fds.join(" ")));
            }
            other => panic!("puppet: no command {other:?}"),
        }
        say(&format!("did {line}"));
    }
}

fn touch(file: &std::ffi::OsStr, time: SystemTime) {
    let opened = OpenOptions::new().write(true).open(file).unwrap();
    opened.set_modified(time).unwrap();
}

fn grandchild(role: &str) {
    // Not by /proc/self/exe, nor with /dev/null: there are places without them.
    let child = Command::new(std::env::args_os().next().unwrap())
        .arg(role)
        .spawn()
        .unwrap();
    say(&format!("child {}", child.id()));
}

/// Blocks the signals with these names, for this thread and those that it starts.
fn block(names: &str) -> SigSet {
    let signals = names
        .split(' ')
        .map(|name| format!("SIG{name}").parse::<Signal>().unwrap());
    let set: SigSet = signals.collect();
    set.thread_block().unwrap();
    set
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

/// One write, so that lines of several processes do not mix.
fn say(line: &str) {
    let _ = std::io::stdout()
        .lock()
        .write_all(format!("{line}\n").as_bytes());
}

/// Byte by byte: what is not read yet is for the next run, which shares the pipe.
fn read_line() -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match nix::unistd::read(std::io::stdin(), &mut byte) {
            Ok(1) if byte[0] == b'\n' => return Some(String::from_utf8(line).unwrap()),
            Ok(1) => line.push(byte[0]),
            _ => return None,
        }
    }
}
