//! What a command may say, as `sd_notify(3)` writes it: lines of `NAME=value`.

use std::time::Duration;

/// The longest message that is read, in bytes: what systemd takes.
pub const LONGEST: usize = 4096;

/// The longest time that is taken, in microseconds: 1e9 s, as for options (contract, section 1).
const LONGEST_TIME: u64 = 1_000_000_000_000_000;

/// The longest status that is kept, in bytes.
const LONGEST_STATUS: usize = 1000;

/// One message. The order of its lines has no meaning; of two with the same name the last counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// `READY=1`.
    pub ready: bool,
    /// `WATCHDOG=1`: a beat.
    pub beat: bool,
    /// `WATCHDOG=trigger`: it hangs.
    pub hung: bool,
    /// `STOPPING=1`: it is ending.
    pub ending: bool,
    /// `WATCHDOG_USEC=`: another timeout; 0 and the largest number mean none at all.
    pub timeout: Option<Option<Duration>>,
    /// `EXTEND_TIMEOUT_USEC=`: it needs so much more time.
    pub extend: Option<Duration>,
    /// `STATUS=`: what it is doing, in its own words.
    pub status: Option<String>,
}

impl Message {
    /// Reads a message. A line that is not understood is no line; `BARRIER=1` needs no answer but that
    /// the message is read.
    ///
    /// None where it is no text, or longer than 4096 bytes: it is not acted upon at all.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > LONGEST {
            return None;
        }
        // Some clients send the byte that ends a string in C, too.
        let text = std::str::from_utf8(bytes.strip_suffix(b"\0").unwrap_or(bytes)).ok()?;
        if text.contains('\0') {
            return None;
        }
        let mut message = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match (name, value) {
                ("READY", "1") => message.ready = true,
                ("STOPPING", "1") => message.ending = true,
                ("WATCHDOG", "1") => message.beat = true,
                ("WATCHDOG", "trigger") => message.hung = true,
                ("WATCHDOG_USEC", value) => {
                    message.timeout = microseconds(value).or(message.timeout);
                }
                ("EXTEND_TIMEOUT_USEC", value) => {
                    let extend = microseconds(value).flatten();
                    message.extend = extend.or(message.extend);
                }
                ("STATUS", value) => message.status = Some(shortened(value)),
                _ => {}
            }
        }
        Some(message)
    }
}

/// A number of microseconds; Some(None) where it means 'never'.
fn microseconds(value: &str) -> Option<Option<Duration>> {
    match value.parse::<u64>().ok()? {
        0 | u64::MAX => Some(None),
        number => Some(Some(Duration::from_micros(number.min(LONGEST_TIME)))),
    }
}

fn shortened(value: &str) -> String {
    let mut end = value.len().min(LONGEST_STATUS);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    value[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Message {
        Message::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn each_line_of_the_contract_is_understood() {
        let nothing = Message::default;
        let second = Duration::from_secs(1);
        let rows = [
            (
                "READY=1",
                Message {
                    ready: true,
                    ..nothing()
                },
            ),
            (
                "WATCHDOG=1\n",
                Message {
                    beat: true,
                    ..nothing()
                },
            ),
            (
                "WATCHDOG=trigger",
                Message {
                    hung: true,
                    ..nothing()
                },
            ),
            (
                "STOPPING=1",
                Message {
                    ending: true,
                    ..nothing()
                },
            ),
            ("BARRIER=1", nothing()),
            (
                "WATCHDOG_USEC=1000000",
                Message {
                    timeout: Some(Some(second)),
                    ..nothing()
                },
            ),
            (
                "WATCHDOG_USEC=0",
                Message {
                    timeout: Some(None),
                    ..nothing()
                },
            ),
            (
                "WATCHDOG_USEC=18446744073709551615",
                Message {
                    timeout: Some(None),
                    ..nothing()
                },
            ),
            (
                "EXTEND_TIMEOUT_USEC=1000000",
                Message {
                    extend: Some(second),
                    ..nothing()
                },
            ),
            ("EXTEND_TIMEOUT_USEC=0", nothing()),
            (
                "STATUS=a=b c",
                Message {
                    status: Some("a=b c".into()),
                    ..nothing()
                },
            ),
            (
                "STATUS=",
                Message {
                    status: Some(String::new()),
                    ..nothing()
                },
            ),
            (
                "READY=1\nSTATUS=x\n\nMAINPID=7\nX_OURS=1",
                Message {
                    ready: true,
                    status: Some("x".into()),
                    ..nothing()
                },
            ),
        ];
        for (text, message) in rows {
            assert_eq!(parse(text), message, "{text:?}");
            assert_eq!(
                parse(&format!("{text}\0")),
                message,
                "{text:?} with its NUL"
            );
        }
    }

    #[test]
    fn a_line_that_makes_no_sense_is_no_line() {
        for text in [
            "",
            "\n",
            "READY",
            "READY=",
            "READY=0",
            "READY=2",
            "ready=1",
            " READY=1",
            "=1",
            "=",
            "WATCHDOG=",
            "WATCHDOG=0",
            "WATCHDOG=TRIGGER",
            "WATCHDOG_USEC=",
            "WATCHDOG_USEC=-1",
            "WATCHDOG_USEC=1e6",
            "WATCHDOG_USEC=99999999999999999999",
            "EXTEND_TIMEOUT_USEC=x",
        ] {
            assert_eq!(parse(text), Message::default(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_text_or_too_long_is_no_message() {
        assert_eq!(Message::parse(b"READY=1\n\xff"), None);
        assert_eq!(Message::parse(b"READY=1\0WATCHDOG=1"), None);
        let longest = format!("STATUS={}", "x".repeat(LONGEST - 7));
        assert_eq!(parse(&longest).status.unwrap().len(), LONGEST_STATUS);
        assert_eq!(Message::parse(format!("{longest}x").as_bytes()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_time_is_zero_or_leaves_the_clock(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..5000),
                "((READY|WATCHDOG|STATUS|WATCHDOG_USEC|EXTEND_TIMEOUT_USEC|.{0,5})=(1|trigger|[0-9]{0,21}|.{0,9})\n?){0,9}"
                    .prop_map(String::into_bytes),
            ]
        ) {
            if let Some(message) = Message::parse(&bytes) {
                let times = [message.timeout.flatten(), message.extend];
                for time in times.into_iter().flatten() {
                    prop_assert!(!time.is_zero() && time <= Duration::from_secs(1_000_000_000));
                }
                prop_assert!(message.status.is_none_or(|status| status.len() <= LONGEST_STATUS));
                let text = String::from_utf8_lossy(&bytes);
                prop_assert!(!message.ready || text.contains("READY=1"));
                prop_assert!(!message.hung || text.contains("WATCHDOG=trigger"));
            } else {
                let whole = std::str::from_utf8(&bytes).is_ok_and(|text| !text.contains('\0'));
                prop_assert!(!whole || bytes.len() > LONGEST);
            }
        }
    }
}
