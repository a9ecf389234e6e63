//! A file that Prometheus' node exporter reads (contract, section 12): written whole beside its place and
//! renamed into it, only when something changed.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::clock;
use crate::error::Error;
use crate::pulse::Pulse;
use crate::status::{Cause, Status};
use crate::text::Quoted;

/// Beats that by themselves are all the news are written so often at most: each write may be one to flash.
const BEATS_EVERY: Duration = Duration::from_secs(15);

/// The file, and what stands in it.
pub struct Metrics {
    path: PathBuf,
    beside: PathBuf,
    /// The instance's name, which needs no escape.
    name: String,
    /// What stands there, the number of beats apart, which alone is no news until a while later.
    facts: String,
    beats: u64,
    written_at: Option<Instant>,
    /// The run that began then, on the wall clock.
    started: Option<(u64, f64)>,
    /// The last write failed, which was told; the next one is tried then.
    again: Option<Instant>,
}

/// So long after a write that failed it is tried again.
const AGAIN: Duration = Duration::from_secs(10);

impl Metrics {
    /// For the instance `name`; nothing is written yet.
    ///
    /// # Errors
    /// [`Error::MetricsRefused`] where `path` names something that is no regular file: it would be
    /// replaced.
    pub fn new(path: &Path, name: &str) -> Result<Self, Error> {
        let refused = |found| Error::MetricsRefused {
            path: path.to_owned(),
            found,
        };
        // Where it is a link, what it leads to is replaced, and not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(refused("no regular file"));
        }
        let Some(file) = path.file_name() else {
            return Err(refused("no name of a file"));
        };
        let mut beside = std::ffi::OsString::from(".");
        beside.push(file);
        beside.push(format!(".{}", std::process::id()));
        Ok(Self {
            beside: path.with_file_name(beside),
            path,
            name: name.to_owned(),
            facts: String::new(),
            beats: 0,
            written_at: None,
            started: None,
            again: None,
        })
    }

    /// Writes the file, if there is news. Where it can't be written: one warning until it can again.
    pub fn write(&mut self, now: Instant, status: &Status, pulse: Option<&Pulse>) {
        let soon = self.again.is_some_and(|again| now < again);
        // At the end there is no later.
        if soon && !status.is_ending {
            return;
        }
        if let Some(at) = status.started
            && self.started.is_none_or(|(run, _)| run != status.run)
        {
            let since = clock::wall().checked_sub(now - at);
            let since = since.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
            self.started = since.map(|since| (status.run, since.as_secs_f64()));
        }
        let started = self.started.map(|(_, at)| at);
        let facts = text(&self.name, status, started, pulse);
        let beats = pulse.map_or(0, Pulse::count);
        let soon = self.written_at.is_some_and(|at| now - at < BEATS_EVERY);
        if facts == self.facts && (soon || beats == self.beats) {
            return;
        }
        let mut text = facts.clone();
        if pulse.is_some() {
            metric(
                &mut text,
                &self.name,
                BEATS,
                &[(String::new(), beats as f64)],
            );
        }
        match self.replace(&text) {
            Ok(()) => {
                self.again = None;
                (self.facts, self.beats) = (facts, beats);
                self.written_at = Some(now);
            }
            Err(error) => {
                let _ = fs::remove_file(&self.beside);
                if self.again.replace(now + AGAIN).is_none() {
                    log::warn!(
                        "metrics not written path={} error={}",
                        Quoted::path(&self.path),
                        Quoted::text(&error.to_string())
                    );
                }
            }
        }
    }

    /// When it is to be tried again.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.again
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        // What stands there was not put there by us, or by one who was killed.
        let _ = fs::remove_file(&self.beside);
        let mut file = options.open(&self.beside)?;
        file.write_all(text.as_bytes())?;
        drop(file);
        fs::rename(&self.beside, &self.path)
    }
}

/// A metric's name, kind and meaning.
type About = [&'static str; 3];

const BEATS: About = [
    "supervisor_heartbeats_total",
    "counter",
    "Heartbeats that were noticed.",
];

/// All but the number of beats, in the text format of Prometheus, version 0.0.4.
fn text(name: &str, status: &Status, started: Option<f64>, pulse: Option<&Pulse>) -> String {
    let mut text = String::new();
    let one = |value: f64| vec![(String::new(), value)];
    let some = |value: Option<f64>| value.map(one).unwrap_or_default();
    let restarts = Cause::ALL.map(|cause| {
        let count = status.counts.of(cause);
        (format!(",reason=\"{}\"", cause.name()), count as f64)
    });
    let tightest = pulse.and_then(Pulse::tightest_margin);
    let all: [(About, Vec<(String, f64)>); 6] = [
        (
            [
                "supervisor_up",
                "gauge",
                "Whether the command runs (1) or not (0).",
            ],
            one(f64::from(u8::from(status.pid.is_some()))),
        ),
        (
            [
                "supervisor_restarts_total",
                "counter",
                "Restarts of the command, by the reason for them.",
            ],
            restarts.into(),
        ),
        (
            [
                "supervisor_command_start_time_seconds",
                "gauge",
                "When the command was launched last, since the epoch.",
            ],
            some(started),
        ),
        (
            [
                "supervisor_last_exit_code",
                "gauge",
                "How the command ended last: its code, or 128 + the signal that ended it.",
            ],
            some(status.last_exit.map(|ended| f64::from(ended.exit().0))),
        ),
        (
            [
                "supervisor_backoff_delay_seconds",
                "gauge",
                "The delay before the next launch; 0 while none is waited for.",
            ],
            one(status.delay.as_secs_f64()),
        ),
        (
            [
                "supervisor_heartbeat_tightest_margin_seconds",
                "gauge",
                "The smallest time that was ever left between a heartbeat and its deadline.",
            ],
            some(tightest.map(|margin| margin.as_secs_f64())),
        ),
    ];
    for (about, values) in all {
        metric(&mut text, name, about, &values);
    }
    text
}

/// Nothing where there is no value.
fn metric(text: &mut String, name: &str, about: About, values: &[(String, f64)]) {
    let [metric, kind, help] = about;
    // Writing to a String can't fail.
    let _ = match values {
        [] => Ok(()),
        _ => writeln!(text, "# HELP {metric} {help}\n# TYPE {metric} {kind}"),
    };
    for (label, value) in values {
        let _ = writeln!(text, "{metric}{{name=\"{name}\"{label}}} {value}");
    }
}
