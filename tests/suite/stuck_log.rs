//! Section 7: a log whose reader is there and does not read, and what is told when it flows again.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;

use crate::harness::*;

/// A beating puppet that is restarted almost at once.
const OPTIONS: [&str; 6] = [
    "--enable-heartbeat",
    "--heartbeat-file=hb",
    "--timeout=0.5",
    "--grace-period=1",
    "--backoff-factor=0.01",
    "--max-backoff=0.01",
];

/// A crash and a hang are handled as ever, and nobody's descriptor was made non-blocking.
fn supervises(run: &mut Run, log: impl AsFd) {
    run.ready();
    run.send("exit 1");
    run.ready();
    run.tell("beat");
    run.ready();
    let flags = fcntl(&log, FcntlArg::F_GETFL).unwrap();
    assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
}

/// Reads on until the last line.
fn read_to_finish(mut log: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            // A terminal ends in EIO.
            let length = log.read(&mut buffer).unwrap_or(0);
            all.extend_from_slice(&buffer[..length]);
            let text = String::from_utf8_lossy(&all);
            if length == 0 || text.contains(" finished ") {
                return text.into_owned();
            }
        }
    })
}

/// The log says how many lines it lost: two starts, a crash and a hang, and
/// perhaps the third start.
fn is_counted(log: &str) {
    let mut lines = log.lines().filter(|line| line.contains("[SUPERVISOR]"));
    let first = lines
        .find(|line| line.contains("log lines dropped"))
        .unwrap();
    let count: u32 = field(first.trim_end(), "count").parse().unwrap();
    assert!(count >= 8, "{log}");
    assert!(
        log.contains("exited") && log.contains("finished code=0"),
        "{log}"
    );
}

/// The log is read again, to its end.
fn counts_what_it_lost(run: &mut Run, log: impl Read + Send + 'static) {
    let reading = read_to_finish(log);
    run.ready();
    run.send("exit 0");
    assert_eq!(run.code(), 0);
    is_counted(&reading.join().unwrap());
}

/// A pipe that is full: one page.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let size = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    writer
        .write_all(&vec![b'.'; usize::try_from(size).unwrap()])
        .unwrap();
    (reader, writer)
}

#[test]
fn a_full_pipe_stops_nothing() {
    let (reader, writer) = full_pipe();
    let log = writer.try_clone().unwrap();
    let mut run = Setup::puppet(&OPTIONS).stderr(writer).start();
    supervises(&mut run, log);
    counts_what_it_lost(&mut run, reader);
}

#[test]
fn a_full_socket_stops_nothing() {
    let (reader, mut writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    while writer.write(&[b'.'; 4096]).is_ok() {}
    while writer.write(b".").is_ok() {}
    writer.set_nonblocking(false).unwrap();
    let log = writer.try_clone().unwrap();
    let setup = Setup::puppet(&OPTIONS).stderr(OwnedFd::from(writer));
    let mut run = setup.start();
    supervises(&mut run, log);
    counts_what_it_lost(&mut run, reader);
}

#[test]
fn a_terminal_that_is_held_by_ctrl_s_stops_nothing() {
    let terminal = openpty(None, None).unwrap();
    let mut master = File::from(terminal.master);
    master.write_all(b"\x13").unwrap();
    let log = terminal.slave.try_clone().unwrap();
    let mut run = Setup::puppet(&OPTIONS).stderr(terminal.slave).start();
    supervises(&mut run, &log);
    // Ctrl-Q
    master.write_all(b"\x11").unwrap();
    counts_what_it_lost(&mut run, master);
}

/// What belongs to another user can't be opened again.
#[test]
fn a_stuck_log_of_another_user_stops_nothing() {
    let finishes = |log: OwnedFd, script: &str| {
        // More than any buffer holds.
        let options = ["--max-restarts=90", "--backoff-factor=0"];
        let words = options.into_iter().chain(["sh", "-c", script]);
        let Some(setup) = Setup::as_user(65534, "", words) else {
            return;
        };
        let mut run = setup.stderr(log).start();
        assert_eq!(run.code(), 7);
    };
    let (reader, writer) = full_pipe();
    finishes(writer.into(), "exit 7");
    drop(reader);
    // Whether a line is half taken, and then waited for, depends on its length.
    for (held, script) in [(true, "exit 7"), (false, "exit 7"), (false, "exit   7")] {
        let terminal = openpty(None, None).unwrap();
        let mut master = File::from(terminal.master);
        if held {
            master.write_all(b"\x13").unwrap();
        }
        finishes(terminal.slave, script);
    }
}

/// And its last lines are written where somebody reads, be he late, and whatever the command has
/// done to its flags.
#[test]
fn a_log_of_another_user_is_written_to_the_end() {
    for flags in [OFlag::empty(), OFlag::O_NONBLOCK] {
        let words = ["--max-restarts=90", "--backoff-factor=0", "false"];
        let Some(setup) = Setup::as_user(65534, "", words) else {
            return;
        };
        let (reader, writer) = full_pipe();
        fcntl(&writer, FcntlArg::F_SETFL(flags)).unwrap();
        let mut run = setup.stderr(writer).start();
        let_pass(Duration::from_millis(200));
        let log = read_to_finish(reader).join().unwrap();
        assert_eq!(run.code(), 1);
        // The count stands for all that is not there.
        let (counts, lines): (Vec<_>, Vec<_>) = log
            .lines()
            .filter(|line| line.contains("[SUPERVISOR]"))
            .partition(|line| line.contains("log lines dropped"));
        let dropped = counts
            .iter()
            .map(|line| field(line, "count").parse::<usize>().unwrap());
        assert_eq!(
            lines.len() + dropped.sum::<usize>(),
            91 + 91 + 90 + 2,
            "{log}"
        );
        assert!(lines.last().unwrap().contains("finished code=1"), "{log}");
    }
}

#[test]
fn a_refusal_does_not_wait_for_a_reader() {
    for (words, code) in [
        (
            vec!["--enable-heartbeat", "--heartbeat-file=/tmp", "true"],
            125,
        ),
        (vec!["--timeout", "nan", "true"], 2),
    ] {
        let (_reader, writer) = full_pipe();
        let mut run = Setup::new(words).stderr(writer).start();
        assert_eq!(run.code(), code);
    }
}

#[test]
fn a_terminal_that_stops_writers_in_the_background_stops_nothing() {
    let python = "import os, pty, subprocess, sys, termios
pid, master = pty.fork()
if pid == 0:
    modes = termios.tcgetattr(0)
    modes[3] |= termios.TOSTOP
    termios.tcsetattr(0, termios.TCSANOW, modes)
    # In a group of its own, which is not the terminal's.
    sys.exit(subprocess.call(sys.argv[1:], preexec_fn=os.setpgrp))
seen = b''
try:
    while data := os.read(master, 4096):
        seen += data
except OSError:
    pass
print(seen.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
    let program = supervisor().to_str().unwrap();
    // The command itself has the usual disposition: default.
    let command = [
        "sh",
        "-c",
        "grep -q 'SigIgn.*[2367abef].....$' /proc/self/status && exit 1; exit 3",
    ];
    let words = ["-c", python, program, "--max-restarts=0"]
        .into_iter()
        .chain(command);
    let mut run = Setup::of("python3".as_ref(), words).start();
    assert_eq!(run.code(), 3);
    assert!(run.output().contains("finished code=3"), "{}", run.output());
}

#[test]
fn a_full_disk_that_has_room_again_is_written_to_again() {
    let disk = "mkdir d; mount -t tmpfs -o size=64k d d; : > d/log
        cat /dev/zero > d/filler 2>/dev/null || true";
    let puppet = puppet();
    let command = ["--log-file=d/log", puppet.to_str().unwrap()];
    let mut run = Setup::inside(disk, OPTIONS.iter().chain(&command)).start();
    run.ready();
    run.send("exit 1");
    run.ready();
    run.tell("beat");
    run.ready();
    let inside = format!(
        "/proc/{}/root{}/d",
        run.pid(),
        run.directory.path().display()
    );
    assert_eq!(fs::read_to_string(format!("{inside}/log")).unwrap(), "");
    let log = File::open(format!("{inside}/log")).unwrap();
    fs::remove_file(format!("{inside}/filler")).unwrap();
    run.ready();
    run.send("exit 0");
    assert_eq!(run.code(), 0);
    is_counted(&std::io::read_to_string(log).unwrap());
}
