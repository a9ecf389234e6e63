//! The values that options take, each checked once: what is wrong is said in a few words.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _, ValueParser};
use log::LevelFilter;
use nix::sys::signal::Signal;

use crate::text::is_name;

/// The longest duration that is taken, in seconds: beyond it a deadline could leave the clock.
const MOST_SECONDS: f64 = 1e9;

pub fn checked<T: Clone + Send + Sync + 'static>(
    check: fn(OsString) -> Result<T, &'static str>,
) -> ValueParser {
    ValueParser::new(OsStringValueParser::new().try_map(check))
}

pub fn seconds(value: OsString) -> Result<Duration, &'static str> {
    const WANTED: &str = "it must be a number of seconds from 0 to 1e9, such as 20 or 0.25";
    let seconds: f64 = value
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or(WANTED)?;
    if !(0.0..=MOST_SECONDS).contains(&seconds) {
        return Err(WANTED);
    }
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| WANTED)?;
    // What is more than zero stays so, however small.
    if duration.is_zero() && seconds > 0.0 {
        return Ok(Duration::from_nanos(1));
    }
    Ok(duration)
}

pub fn positive_seconds(value: OsString) -> Result<Duration, &'static str> {
    const WANTED: &str =
        "it must be a number of seconds greater than 0, up to 1e9, such as 20 or 0.25";
    seconds(value)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or(WANTED)
}

pub fn max_restarts(value: OsString) -> Result<Option<u64>, &'static str> {
    const WANTED: &str = "it must be a whole number: 0 or more, or -1 for no limit";
    match value.to_str().and_then(|text| text.parse::<i64>().ok()) {
        Some(-1) => Ok(None),
        Some(count) => u64::try_from(count).map(Some).map_err(|_| WANTED),
        None => Err(WANTED),
    }
}

pub fn fraction(value: OsString) -> Result<f64, &'static str> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .filter(|fraction| (0.0..=1.0).contains(fraction))
        .ok_or("it must be a number from 0 to 1, such as 0.1")
}

pub fn level(value: OsString) -> Result<LevelFilter, &'static str> {
    match value.to_str() {
        Some("error") => Ok(LevelFilter::Error),
        Some("warn") => Ok(LevelFilter::Warn),
        Some("info") => Ok(LevelFilter::Info),
        Some("debug") => Ok(LevelFilter::Debug),
        _ => Err("it must be error, warn, info or debug"),
    }
}

pub fn signal(value: OsString) -> Result<Signal, &'static str> {
    const WANTED: &str = "it must be a signal, such as TERM, SIGABRT or 6";
    let text = value.to_str().ok_or(WANTED)?;
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).map_err(|_| WANTED);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    format!("SIG{name}").parse().map_err(|_| WANTED)
}

pub fn name(value: OsString) -> Result<String, &'static str> {
    value.to_str().filter(|name| is_name(name)).map(str::to_owned).ok_or(
        "it must be a name of 1 to 64 letters, digits, '.', '_', '-' or '@', and not begin with a dot",
    )
}

pub fn script(value: OsString) -> Result<OsString, &'static str> {
    if value.is_empty() {
        return Err("it must be a command for the shell");
    }
    Ok(value)
}

pub fn path(value: OsString) -> Result<PathBuf, &'static str> {
    if value.is_empty() {
        return Err("it must be the path of a file");
    }
    Ok(PathBuf::from(value))
}

/// A flag's variable is on unless it is empty or says no.
pub fn is_on(value: &OsString) -> bool {
    !["", "0", "false", "no", "off"]
        .iter()
        .any(|off| value.eq_ignore_ascii_case(off))
}
