//! The service manager that we run under, systemd say: what it is told (`sd_notify(3)`), and its own
//! watchdog (`sd_watchdog_enabled(3)`).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::status::Status;
use crate::sys;

/// The variables that are between it and us, and not for the command.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Its socket.
pub struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// It wants to hear from us so often.
    interval: Option<Duration>,
    next: Option<Instant>,
    /// What it was told.
    is_ready: bool,
    is_stopping: bool,
    status: String,
    /// Its queue was full: it is told once more then.
    again: Option<Instant>,
}

/// Where its queue is full: it has a boot storm to deal with, say.
const AGAIN: Duration = Duration::from_millis(100);

impl Manager {
    /// The one that the environment names, if there is one.
    #[must_use]
    pub fn of_the_environment(now: Instant) -> Option<Self> {
        let [address, interval, pid] = VARIABLES.map(std::env::var_os);
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        let interval = interval_of(interval.as_deref(), pid.as_deref(), std::process::id());
        Some(Self {
            address: address_of(&address?)?,
            socket,
            interval,
            next: interval.map(|interval| now + interval),
            is_ready: false,
            is_stopping: false,
            status: String::new(),
            again: None,
        })
    }

    /// Tells it what is new.
    pub fn tell(&mut self, now: Instant, status: &Status) {
        let is_ready = self.is_ready || status.launched > 0;
        let is_stopping = self.is_stopping || status.is_ending;
        let shown = shown(status);
        let mut message = String::new();
        if is_ready && !self.is_ready {
            message.push_str("READY=1\n");
        }
        if is_stopping && !self.is_stopping {
            message.push_str("STOPPING=1\n");
        }
        if shown != self.status {
            message.push_str(&format!("STATUS={shown}\n"));
        }
        if message.is_empty() {
            self.again = None;
            return;
        }
        let outcome = self.send(&message);
        let is_full = outcome.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.again = is_full.then_some(now + AGAIN);
        if !is_full {
            // Or there is nobody, who need not be told twice.
            (self.is_ready, self.is_stopping, self.status) = (is_ready, is_stopping, shown);
        }
    }

    /// Answers its watchdog, if that is due. To be called from the main loop and from nowhere else: it is
    /// the loop's life that this proves.
    pub fn answer(&mut self, now: Instant) {
        if let (Some(interval), Some(next)) = (self.interval, &mut self.next)
            && *next <= now
        {
            *next = now + interval;
            // Twice as often as it wants: one may be lost.
            let _ = self.send("WATCHDOG=1");
        }
    }

    /// When it wants to hear from us next, or is to be told once more.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [self.next, self.again].into_iter().flatten().min()
    }

    /// It is not waited for.
    fn send(&self, message: &str) -> io::Result<()> {
        let sent = self.socket.send_to_addr(message.as_bytes(), &self.address);
        if let Err(error) = &sent {
            log::debug!("service manager not told error=\"{error}\"");
        }
        sent.map(drop)
    }
}

/// In a few words, for `systemctl status`.
fn shown(status: &Status) -> String {
    let phase = status.phase.name();
    match status.pid {
        Some(pid) => format!("{phase}, pid {pid}, {} restarts in a row", status.restarts),
        None => format!("{phase}, {} restarts in a row", status.restarts),
    }
}

/// A path, or `@` and a name in the abstract namespace.
fn address_of(variable: &OsStr) -> Option<SocketAddr> {
    match variable.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(variable).ok(),
        [b'@', name @ ..] => sys::abstract_address(name).ok(),
        _ => None,
    }
}

/// Half of what it waits, as its manual recommends; a millisecond at least. None where it does not watch us, but another process.
fn interval_of(microseconds: Option<&OsStr>, pid: Option<&OsStr>, me: u32) -> Option<Duration> {
    let number = |text: &OsStr| text.to_str()?.parse::<u64>().ok();
    if pid.is_some_and(|pid| number(pid) != Some(me.into())) {
        return None;
    }
    let microseconds = number(microseconds?)?;
    let is_time = microseconds > 0 && microseconds < u64::MAX;
    let half = Duration::from_micros(microseconds / 2);
    is_time.then(|| half.max(Duration::from_millis(1)))
}

/// The value of each variable of the caller's that a child of ours may have.
pub fn is_ours(name: &OsStr) -> bool {
    VARIABLES.iter().any(|variable| name == *variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_watchdog_is_answered_twice_as_often_as_it_wants_and_only_if_we_are_meant() {
        let interval = |usec: Option<&str>, pid: Option<&str>| {
            interval_of(usec.map(OsStr::new), pid.map(OsStr::new), 42)
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(interval(Some("2000000"), None), second);
        assert_eq!(interval(Some("2000000"), Some("42")), second);
        for (usec, pid) in [
            (None, None),
            (Some("2000000"), Some("43")),
            (Some("2000000"), Some("")),
            (Some("0"), None),
            (Some("18446744073709551615"), None),
            (Some("soon"), None),
        ] {
            assert_eq!(interval(usec, pid), None, "{usec:?} {pid:?}");
        }
        assert_eq!(interval(Some("1"), None), Some(Duration::from_millis(1)));
    }

    #[test]
    fn an_address_is_a_path_or_a_name() {
        for (address, is) in [
            ("/run/x", true),
            ("@x", true),
            ("", false),
            ("x", false),
            ("vsock:2:1", false),
        ] {
            assert_eq!(address_of(OsStr::new(address)).is_some(), is, "{address}");
        }
    }
}
