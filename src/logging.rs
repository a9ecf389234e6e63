//! The supervisor's own log (contract, section 7): one line an event, one `write(2)` a line, and a
//! log that can't be written never stops supervision.

mod line;
mod sink;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::{ConfigBuilder, WriteLogger};
use time::macros::format_description;

use crate::error::Error;
use line::{LineWriter, Lines};
use sink::Sink;

/// Lines that were lost before they came to be written; told with the next one that is.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Counts lines that were left out.
pub fn left_out(count: u64) {
    LOST.fetch_add(count, Ordering::Relaxed);
}

/// Says on stderr why we end, before there is a log or beside it. Nor is this waited for.
pub fn complain(text: &str) {
    let mut stderr = Sink::stderr(&LOST);
    // Where it can't be written, the exit code has to do.
    let _ = stderr.put(text.as_bytes(), 1);
    stderr.finish();
}

/// Says on stdout what was asked for. Not `print!`, which panics where that can't be written.
pub fn tell(text: &str) {
    let mut stdout = io::stdout();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

/// Sets the log up: to `file` where one is named, else to stderr.
///
/// # Errors
/// [`Error::LogFile`] where the file can't be opened for appending.
pub fn init(level: LevelFilter, file: Option<&Path>) -> Result<(), Error> {
    let (sink, colours) = match file {
        Some(path) => (Sink::file(path)?, false),
        None => (Sink::stderr(&LOST), wants_colours()),
    };
    let config = ConfigBuilder::new()
        .set_time_format_custom(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        ))
        .set_time_level(LevelFilter::Error)
        .set_max_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build();
    let logger = Logger {
        inner: WriteLogger::new(level, config, LineWriter::new(sink, &LOST)),
        colours,
    };
    // Fails only where a logger is set already; there is one call.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// Only on a terminal, and not with a `NO_COLOR` that says anything (no-color.org).
fn wants_colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Puts level and `[SUPERVISOR]` into the text, which simplelog can't format that way, and keeps
/// the libraries' own lines out.
struct Logger {
    inner: Box<WriteLogger<LineWriter<Sink>>>,
    colours: bool,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("supervisor") && self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (on, off) = match record.level() {
            Level::Error if self.colours => ("\x1b[31m", "\x1b[0m"),
            Level::Warn if self.colours => ("\x1b[33m", "\x1b[0m"),
            Level::Error | Level::Warn | Level::Info | Level::Debug | Level::Trace => ("", ""),
        };
        let (level, text) = (record.level(), record.args());
        self.inner.log(
            &Record::builder()
                .level(level)
                .args(format_args!("{on}{level}{off} [SUPERVISOR] {text}"))
                .build(),
        );
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_own_lines_are_not_ours_to_tell() {
        let logger = Logger {
            inner: WriteLogger::new(
                LevelFilter::Info,
                simplelog::Config::default(),
                LineWriter::new(Sink::Plain, &LOST),
            ),
            colours: false,
        };
        for (target, level, told) in [
            ("supervisor::reactor", Level::Info, true),
            ("supervisor::reactor", Level::Debug, false),
            ("notify::inotify", Level::Error, false),
        ] {
            let metadata = Metadata::builder().target(target).level(level).build();
            assert_eq!(logger.enabled(&metadata), told, "{target} {level}");
        }
    }
}
