//! The command line and the `SUPERVISOR_*` environment (contract, section 1): what was typed is
//! checked once, here, and becomes a [`Config`].

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use log::LevelFilter;

use crate::config::{Config, Heartbeat, Policy};
use crate::exit::Exit;
use crate::text;

/// The longest duration that is taken, in seconds: beyond it a deadline could leave the clock.
const MOST_SECONDS: f64 = 1e9;

const EXAMPLE: &str = "\
Seconds are decimal numbers such as 20 or 0.25. Each option can also be set by an environment
variable: SUPERVISOR_MAX_RESTARTS=5. The command line wins; the command does not see these variables.

Example: supervisor --enable-heartbeat --timeout 30 python3 my_server.py";

/// Keeps a command up: restarts it when it fails, and when it hangs.
#[derive(Parser)]
#[command(
    name = "supervisor",
    version,
    override_usage = "supervisor [OPTIONS] <command> [args...]",
    args_override_self = true,
    after_help = EXAMPLE
)]
struct Cli {
    /// Restart the command when its heartbeat file falls silent
    #[arg(long, env = "SUPERVISOR_ENABLE_HEARTBEAT", hide_env = true,
          value_parser = OsStringValueParser::new().map(|value| is_on(&value)))]
    enable_heartbeat: bool,

    /// The file that the command touches; it finds the path in HEARTBEAT_FILE
    #[arg(long, env = "SUPERVISOR_HEARTBEAT_FILE", hide_env = true,
          value_name = "PATH", default_value = "heartbeat.txt",
          value_parser = OsStringValueParser::new().try_map(path))]
    heartbeat_file: PathBuf,

    /// Silence this long is a hang
    #[arg(long, env = "SUPERVISOR_TIMEOUT", hide_env = true,
          value_name = "S", default_value = "20", allow_hyphen_values = true,
          value_parser = OsStringValueParser::new().try_map(positive_seconds))]
    timeout: Duration,

    /// Extra time for the first beat after each launch
    #[arg(long, env = "SUPERVISOR_INITIAL_CHECK_DELAY", hide_env = true,
          value_name = "S", default_value = "0", allow_hyphen_values = true,
          value_parser = OsStringValueParser::new().try_map(seconds))]
    initial_check_delay: Duration,

    /// From SIGTERM to SIGKILL; 0: SIGKILL at once
    #[arg(long, env = "SUPERVISOR_GRACE_PERIOD", hide_env = true,
          value_name = "S", default_value = "5", allow_hyphen_values = true,
          value_parser = OsStringValueParser::new().try_map(seconds))]
    grace_period: Duration,

    /// Consecutive restarts before giving up; -1: never give up
    #[arg(long, env = "SUPERVISOR_MAX_RESTARTS", hide_env = true,
          value_name = "N", default_value = "-1", allow_hyphen_values = true,
          value_parser = OsStringValueParser::new().try_map(max_restarts))]
    max_restarts: MaxRestarts,

    /// Delay before the first restart; it doubles with each; 0: none
    #[arg(long, env = "SUPERVISOR_BACKOFF_FACTOR", hide_env = true,
          value_name = "S", default_value = "1", allow_hyphen_values = true,
          value_parser = OsStringValueParser::new().try_map(seconds))]
    backoff_factor: Duration,

    /// Upper bound of a delay
    #[arg(long, env = "SUPERVISOR_MAX_BACKOFF", hide_env = true,
          value_name = "S", default_value = "3600", allow_hyphen_values = true,
          value_parser = OsStringValueParser::new().try_map(positive_seconds))]
    max_backoff: Duration,

    /// Add up to this part of a delay at random, 0 to 1
    #[arg(long, env = "SUPERVISOR_BACKOFF_JITTER", hide_env = true,
          value_name = "F", default_value = "0", allow_hyphen_values = true,
          value_parser = OsStringValueParser::new().try_map(fraction))]
    backoff_jitter: f64,

    /// A run this long starts the count of restarts again at 0; 0: never
    #[arg(long, env = "SUPERVISOR_RESET_AFTER", hide_env = true,
          value_name = "S", default_value = "60", allow_hyphen_values = true,
          value_parser = OsStringValueParser::new().try_map(seconds))]
    reset_after: Duration,

    /// Leave alone what the command leaves behind when it ends
    #[arg(long, env = "SUPERVISOR_KEEP_DESCENDANTS", hide_env = true,
          value_parser = OsStringValueParser::new().map(|value| is_on(&value)))]
    keep_descendants: bool,

    /// error, warn, info or debug
    #[arg(long, env = "SUPERVISOR_LOG_LEVEL", hide_env = true,
          value_name = "L", default_value = "info",
          value_parser = OsStringValueParser::new().try_map(level))]
    log_level: LevelFilter,

    /// Append the supervisor's own log there instead of to stderr
    #[arg(long, env = "SUPERVISOR_LOG_FILE", hide_env = true, value_name = "PATH",
          value_parser = OsStringValueParser::new().try_map(path))]
    log_file: Option<PathBuf>,

    /// The command, executed directly; all that follows belongs to it
    #[arg(required = true, trailing_var_arg = true, value_name = "command",
          value_parser = OsStringValueParser::new())]
    command: Vec<OsString>,
}

/// `--max-restarts` as a type of its own, so that clap does not take it for an optional option.
#[derive(Clone, Copy)]
struct MaxRestarts(Option<u64>);

/// Why there is nothing to supervise: a usage error, or the help that was asked for.
#[derive(Debug)]
pub struct Early {
    /// What to print, with its newline.
    pub text: String,
    /// 0 for help and version, which belong on stdout; 2 for an error, which belongs on stderr.
    pub exit: Exit,
}

/// Reads argv (the program's own name first) and the environment.
///
/// # Errors
/// [`Early`] where an option is unknown or a value out of its range, where the command is missing,
/// and for `--help` and `--version`.
pub fn parse(argv: &[OsString]) -> Result<Config, Early> {
    let matches = Cli::command()
        .try_get_matches_from(argv)
        .map_err(|error| early(&error, argv))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| early(&error, argv))?;
    Ok(config(cli, &matches))
}

fn config(cli: Cli, matches: &ArgMatches) -> Config {
    let typed = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let without_effect = [
        ("heartbeat_file", "--heartbeat-file"),
        ("timeout", "--timeout"),
        ("initial_check_delay", "--initial-check-delay"),
    ]
    .into_iter()
    .filter(|(id, _)| !cli.enable_heartbeat && typed(id))
    .map(|(_, option)| option)
    .collect();
    let heartbeat = Heartbeat {
        timeout: cli.timeout,
        initial_delay: cli.initial_check_delay,
    };
    Config {
        command: cli.command,
        policy: Policy {
            grace: cli.grace_period,
            max_restarts: cli.max_restarts.0,
            backoff_factor: cli.backoff_factor,
            max_backoff: cli.max_backoff,
            jitter: cli.backoff_jitter,
            reset_after: Some(cli.reset_after).filter(|after| !after.is_zero()),
            heartbeat: cli.enable_heartbeat.then_some(heartbeat),
        },
        heartbeat_file: cli.enable_heartbeat.then_some(cli.heartbeat_file),
        keep_descendants: cli.keep_descendants,
        log_level: cli.log_level,
        log_file: cli.log_file,
        without_effect,
        own_variables: Cli::command()
            .get_arguments()
            .filter_map(|arg| arg.get_env().map(OsString::from))
            .collect(),
    }
}

/// A usage error as one line: what, where, and what to do.
fn early(error: &clap::Error, argv: &[OsString]) -> Early {
    let rendered = error.render().to_string();
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return Early {
            text: rendered,
            exit: Exit::SUCCESS,
        };
    }
    let message = if error.kind() == ErrorKind::MissingRequiredArgument {
        "no command given".to_owned()
    } else {
        one_line(&rendered)
    };
    let place = match variable_at_fault(error, argv) {
        Some(variable) => format!(" (from the environment variable {variable})"),
        None => String::new(),
    };
    Early {
        text: format!("supervisor: {message}{place}; see 'supervisor --help'\n"),
        exit: Exit::USAGE,
    }
}

/// Clap's message without its heading, its usage and its advice on `--help` and on `--`, which is
/// rarely what was meant.
fn one_line(rendered: &str) -> String {
    let mut line = String::new();
    let paragraphs = rendered
        .trim_start_matches("error: ")
        .split("\n\n")
        .filter(|p| !p.starts_with("Usage:") && !p.starts_with("For more information"));
    let lines = paragraphs
        .flat_map(str::lines)
        .filter(|line| !line.contains("tip: to pass "));
    for word in lines.flat_map(|line| line.split(' ').filter(|word| !word.is_empty())) {
        if !line.is_empty() {
            line.push(if word == "tip:" { ';' } else { ' ' });
            if word == "tip:" {
                continue;
            }
        }
        for c in word.chars() {
            // Writing to a String can't fail.
            let _ = text::escape(&mut line, c);
        }
    }
    line
}

/// The variable that the refused value came from: clap reads it only where the option is not typed.
fn variable_at_fault(error: &clap::Error, argv: &[OsString]) -> Option<String> {
    let ContextValue::String(shown) = error.get(ContextKind::InvalidArg)? else {
        return None;
    };
    let option = shown.split(' ').next()?;
    let typed = argv.iter().any(|arg| {
        let arg = arg.to_string_lossy();
        arg == option || arg.split_once('=').is_some_and(|(name, _)| name == option)
    });
    let command = Cli::command();
    let variable = command
        .get_arguments()
        .find(|arg| arg.get_long() == option.strip_prefix("--"))?
        .get_env()?;
    (!typed && std::env::var_os(variable).is_some())
        .then(|| variable.to_string_lossy().into_owned())
}

fn seconds(value: OsString) -> Result<Duration, &'static str> {
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

fn positive_seconds(value: OsString) -> Result<Duration, &'static str> {
    const WANTED: &str =
        "it must be a number of seconds greater than 0, up to 1e9, such as 20 or 0.25";
    seconds(value)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or(WANTED)
}

fn max_restarts(value: OsString) -> Result<MaxRestarts, &'static str> {
    const WANTED: &str = "it must be a whole number: 0 or more, or -1 for no limit";
    match value.to_str().and_then(|text| text.parse::<i64>().ok()) {
        Some(-1) => Ok(MaxRestarts(None)),
        Some(count) => u64::try_from(count)
            .map(|count| MaxRestarts(Some(count)))
            .map_err(|_| WANTED),
        None => Err(WANTED),
    }
}

fn fraction(value: OsString) -> Result<f64, &'static str> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .filter(|fraction| (0.0..=1.0).contains(fraction))
        .ok_or("it must be a number from 0 to 1, such as 0.1")
}

fn level(value: OsString) -> Result<LevelFilter, &'static str> {
    match value.to_str() {
        Some("error") => Ok(LevelFilter::Error),
        Some("warn") => Ok(LevelFilter::Warn),
        Some("info") => Ok(LevelFilter::Info),
        Some("debug") => Ok(LevelFilter::Debug),
        _ => Err("it must be error, warn, info or debug"),
    }
}

fn path(value: OsString) -> Result<PathBuf, &'static str> {
    if value.is_empty() {
        return Err("it must be the path of a file");
    }
    Ok(PathBuf::from(value))
}

/// A flag's variable is on unless it is empty or says no.
fn is_on(value: &OsString) -> bool {
    !["", "0", "false", "no", "off"]
        .iter()
        .any(|off| value.eq_ignore_ascii_case(off))
}
