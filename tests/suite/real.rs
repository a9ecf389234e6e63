//! A server that nobody here wrote: Python's `http.server`. Killed, it answers again; frozen, it is
//! replaced.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::*;

/// A port that was free a moment ago.
fn port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let second = Some(Duration::from_secs(1));
    stream.set_read_timeout(second).unwrap();
    let mut answer = String::new();
    stream.write_all(b"HEAD / HTTP/1.0\r\n\r\n").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.contains("200 OK")
}

#[test]
fn a_server_that_is_killed_answers_again() {
    let port = port();
    let number = port.to_string();
    let server = [
        "python3",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        &number,
    ];
    let words = ["--backoff-factor", "0.05"].iter().chain(&server);
    let mut run = Setup::new(words).start();
    for _ in 0..2 {
        let line = run.logged(&["started"]);
        let pid: i32 = field(&line, "pid").parse().unwrap();
        assert!(eventually(|| answers(port)));
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        run.logged(&["exited", "signal=SIGKILL"]);
    }
    assert!(eventually(|| answers(port)));
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
}

#[test]
fn a_server_that_freezes_is_replaced() {
    let port = port();
    // The loop beats only when the server answers.
    let script = format!(
        "python3 -m http.server --bind 127.0.0.1 {port} & echo server $!\n\
         while :; do\n\
           python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:{port}\", timeout=1)' \
             2>/dev/null && : > \"$HEARTBEAT_FILE\"\n\
           sleep 0.1\n\
         done"
    );
    let options = [
        "--enable-heartbeat",
        "--heartbeat-file",
        "hb",
        "--timeout",
        "10",
        "--backoff-factor",
        "0.05",
    ];
    let mut run = Setup::new(options.iter().chain(&["sh", "-c", &script])).start();
    let server = number_in(&run.said("server "));
    assert!(eventually(|| answers(port)));
    let file = run.directory.join("hb");
    assert!(eventually(|| file.exists()));
    kill(Pid::from_raw(server), Signal::SIGSTOP).unwrap();
    run.logged(&["heartbeat timeout"]);
    run.logged(&["started", "run=2"]);
    assert!(
        !alive(server),
        "the frozen one is gone before the next starts"
    );
    let second = number_in(&run.said("server "));
    assert!(eventually(|| answers(port)));
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
    assert!(!alive(second));
}
