//! Section 9, the other way: a service manager that we run under.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::*;

/// Its socket, in the test's directory; and a puppet that is supervised under it.
fn managed(options: &[&str], usec: Option<&str>) -> (UnixDatagram, Setup) {
    let setup = Setup::puppet(options);
    let path = setup.directory().join("manager");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(CEILING)).unwrap();
    let setup = setup.env("NOTIFY_SOCKET", path);
    let setup = match usec {
        Some(usec) => setup.env("WATCHDOG_USEC", usec),
        None => setup,
    };
    (socket, setup)
}

/// The next message that contains this.
fn hears(socket: &UnixDatagram, part: &str) -> String {
    let mut bytes = [0; 4096];
    loop {
        let length = socket
            .recv(&mut bytes)
            .unwrap_or_else(|error| panic!("no {part:?}: {error}"));
        let message = String::from_utf8(bytes[..length].to_vec()).unwrap();
        if message.contains(part) {
            return message;
        }
    }
}

#[test]
fn it_hears_that_we_are_ready_how_it_goes_and_that_we_are_stopping() {
    let (socket, setup) = managed(&["--backoff-factor", "0.5"], None);
    let mut run = setup.start();
    let message = hears(&socket, "READY=1\n");
    let pid = run.ready();
    assert!(
        message.contains(&format!("STATUS=running, pid {pid}, 0 restarts in a row")),
        "{message}"
    );
    run.send("exit 1");
    hears(&socket, "STATUS=backoff, 1 restarts in a row");
    let again = hears(&socket, "STATUS=running");
    assert!(!again.contains("READY"), "once is enough");
    run.ready();
    run.tell("trap TERM");
    run.signal(Signal::SIGTERM);
    hears(&socket, "STOPPING=1\n");
    run.send("exit 0");
    assert_eq!(run.code(), 0);
}

#[test]
fn one_whose_queue_is_full_hears_it_when_there_is_room_again() {
    let (socket, setup) = managed(&[], None);
    let path = setup.directory().join("manager");
    let others = UnixDatagram::unbound().unwrap();
    others.set_nonblocking(true).unwrap();
    while others.send_to(b"OTHERS=1", &path).is_ok() {}
    let mut run = setup.start();
    run.ready();
    run.logged(&["started"]);
    hears(&socket, "READY=1");
}

#[test]
fn its_watchdog_is_answered_from_the_loop_and_only_while_that_lives() {
    let (socket, setup) = managed(&[], Some("400000"));
    let run = setup.start();
    hears(&socket, "READY=1");
    let start = Instant::now();
    for _ in 0..4 {
        hears(&socket, "WATCHDOG=1");
    }
    let lasted = start.elapsed();
    // Every 200 ms, however the machine is doing.
    assert!(lasted >= Duration::from_millis(590), "{lasted:?}");
    run.signal(Signal::SIGSTOP);
    assert!(eventually(|| state(run.pid()) == 'T'));
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut [0; 4096]).is_ok() {}
    let_pass(Duration::from_millis(600));
    assert!(
        socket.recv(&mut [0; 4096]).is_err(),
        "nobody answers for a loop that stands still"
    );
    socket.set_nonblocking(false).unwrap();
    run.signal(Signal::SIGCONT);
    hears(&socket, "WATCHDOG=1");
}

#[test]
fn a_watchdog_of_another_process_is_not_ours_to_answer() {
    let (socket, setup) = managed(&[], Some("100000"));
    let run = setup.env("WATCHDOG_PID", "1").start();
    hears(&socket, "READY=1");
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    assert!(socket.recv(&mut [0; 4096]).is_err());
    drop(run);
}

#[test]
fn the_command_does_not_see_it() {
    let (_socket, setup) = managed(&[], Some("100000000"));
    let mut run = setup.env("WATCHDOG_PID", "1").start();
    run.ready();
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        run.send(&format!("env {name}"));
        run.said(&format!("env {name} unset"));
    }
}

#[test]
fn one_that_does_not_listen_stops_nothing() {
    let (socket, setup) = managed(&["--backoff-factor", "0"], Some("20000"));
    let mut run = setup.start();
    // Its queue is full; then it is gone.
    for _ in 0..50 {
        run.ready();
        run.send("exit 1");
    }
    drop(socket);
    for _ in 0..10 {
        run.ready();
        run.send("exit 1");
    }
    run.ready();
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
}
