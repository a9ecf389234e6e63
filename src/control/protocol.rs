//! What is said between an instance and who asks it: one line of request, one line of JSON in answer.
//!
//! ```text
//! 1 status        {"version":1,"instance":{..}}
//! 1 restart       the same, when the new run has begun
//! 1 pause         the same, when the deadline is held
//! 1 resume        the same, when it is held no longer
//! 1 stop          {"version":1,"code":0}, the exit code, when everything is over
//! anything else   {"version":1,"error":".."}
//! ```
//!
//! The number is the protocol's version; a request with another one is refused in the words of this one.
//! Keys may be added within a version, never renamed or removed.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::exit::{Ended, Exit, SignalName};
use crate::pulse::Pulse;
use crate::status::Status;

/// The version that this program speaks.
pub const VERSION: u64 = 1;

/// The longest request, in bytes, its newline counted.
pub const LONGEST_REQUEST: usize = 256;

/// The longest command that is shown, in bytes: an answer has to find room in a socket.
const LONGEST_COMMAND: usize = 16_384;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// What there is to be seen.
    Status,
    /// A new run.
    Restart,
    /// The end, as by SIGTERM.
    Stop,
    /// The deadline shall wait.
    Pause,
    /// It shall wait no longer.
    Resume,
}

impl Request {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Status,
        Self::Restart,
        Self::Stop,
        Self::Pause,
        Self::Resume,
    ];

    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// The line that asks it.
    #[must_use]
    pub fn line(self) -> String {
        format!("{VERSION} {}\n", self.word())
    }

    /// Reads a line without its newline.
    ///
    /// # Errors
    /// What is wrong with it, for its sender.
    pub fn parse(line: &[u8]) -> Result<Self, &'static str> {
        const UNKNOWN: &str =
            "not understood; known are: 1 status, 1 restart, 1 stop, 1 pause, 1 resume";
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line).map_err(|_| UNKNOWN)?;
        let (version, word) = line.split_once(' ').ok_or(UNKNOWN)?;
        if version.parse() != Ok(VERSION) {
            return Err("only version 1 of the protocol is spoken here");
        }
        let known = Self::ALL.into_iter().find(|request| request.word() == word);
        known.ok_or(UNKNOWN)
    }
}

/// What an instance is besides its [`Status`].
pub struct Instance<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it runs.
    pub command: &'a [OsString],
    /// The beats, where there are any to be waited for.
    pub pulse: Option<&'a Pulse>,
    /// Its file; None where beats come by the socket alone.
    pub heartbeat_file: Option<&'a Path>,
    /// The timeout that is in force.
    pub timeout: Option<Duration>,
    /// What the command says of itself.
    pub said: &'a str,
    /// Messages of strangers, and such as made no sense.
    pub dropped: Option<u64>,
}

/// The answer that shows an instance as it is `now`.
#[must_use]
pub fn shown(instance: &Instance<'_>, status: &Status, now: Instant) -> String {
    let seconds = |duration: Duration| json!(rounded(duration));
    let age = |at: Instant| seconds(now.saturating_duration_since(at));
    let heartbeat = instance.pulse.map(|pulse| {
        json!({
            "file": instance.heartbeat_file.map(|file| file.to_string_lossy()),
            "timeout_s": instance.timeout.map(seconds),
            "last_beat_s": pulse.last().map(age),
            "tightest_margin_s": pulse.tightest_margin().map(seconds),
        })
    });
    let last_exit = status.last_exit.map(|ended| match ended {
        Ended::Code(code) => json!({ "code": code }),
        Ended::Signal { number, .. } => json!({ "signal": SignalName(number).to_string() }),
    });
    let mut shown = json!({
        "name": instance.name,
        "pid": std::process::id(),
        "state": status.phase.name(),
        "command": command(instance.command),
        "command_pid": status.pid,
        "run": status.run,
        "restarts": status.restarts,
        "uptime_s": status.started.map(age),
        "last_exit": last_exit,
        "heartbeat": heartbeat,
        "status": instance.said,
    });
    if let (Some(dropped), Value::Object(shown)) = (instance.dropped, &mut shown) {
        shown.insert("notify_dropped".to_owned(), dropped.into());
    }
    answer("instance", shown)
}

/// The answer to who asked for the end.
#[must_use]
pub fn ended(exit: Exit) -> String {
    answer("code", exit.0.into())
}

/// The answer to what can't be done.
#[must_use]
pub fn refused(why: &str) -> String {
    answer("error", why.into())
}

fn answer(key: &str, value: Value) -> String {
    let mut all = Map::new();
    all.insert("version".to_owned(), VERSION.into());
    all.insert(key.to_owned(), value);
    format!("{}\n", Value::Object(all))
}

/// The command's words; from where they are too many on, three dots.
fn command(words: &[OsString]) -> Vec<String> {
    let (mut room, mut shown) = (LONGEST_COMMAND, Vec::new());
    for word in words {
        let word = word.to_string_lossy();
        if word.len() > room {
            shown.push("...".to_owned());
            break;
        }
        room -= word.len();
        shown.push(word.into_owned());
    }
    shown
}

/// In seconds, to the millisecond.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_request_is_understood_as_it_is_written() {
        for request in Request::ALL {
            let line = request.line();
            let line = line.strip_suffix('\n').unwrap();
            assert_eq!(Request::parse(line.as_bytes()), Ok(request));
            assert_eq!(Request::parse(format!("{line}\r").as_bytes()), Ok(request));
            assert!(line.len() < LONGEST_REQUEST);
        }
        for line in [
            "",
            "1",
            "1 ",
            "status",
            "1  status",
            "1 status ",
            "1 STATUS",
            " 1 status",
        ] {
            assert!(Request::parse(line.as_bytes()).is_err(), "{line:?}");
        }
        let newer = Request::parse(b"2 status").unwrap_err();
        assert!(newer.contains("version 1"), "{newer}");
    }

    proptest! {
        #[test]
        fn no_bytes_are_mistaken_for_a_request(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = String::from_utf8_lossy(&line);
            let known = Request::ALL.iter().any(|r| text.trim_end().ends_with(r.word()));
            prop_assert!(known || Request::parse(&line).is_err());
        }
    }
}
