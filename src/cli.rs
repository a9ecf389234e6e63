//! The command line and the `SUPERVISOR_*` environment (contract, section 1): what was typed is
//! checked once, here, and becomes a [`Config`].

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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Config, Early> {
        let argv: Vec<OsString> = ["supervisor"]
            .iter()
            .chain(words)
            .map(OsString::from)
            .collect();
        parse(&argv)
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = parse_words(&["--enable-heartbeat", "true"]).unwrap();
        let policy = config.policy;
        let heartbeat = policy.heartbeat.unwrap();
        assert_eq!(
            config.heartbeat_file.unwrap(),
            PathBuf::from("heartbeat.txt")
        );
        assert_eq!(heartbeat.timeout, Duration::from_secs(20));
        assert_eq!(heartbeat.initial_delay, Duration::ZERO);
        assert_eq!(policy.grace, Duration::from_secs(5));
        assert_eq!(policy.max_restarts, None);
        assert_eq!(policy.backoff_factor, Duration::from_secs(1));
        assert_eq!(policy.max_backoff, Duration::from_secs(3600));
        assert_eq!(policy.jitter.to_bits(), 0f64.to_bits());
        assert_eq!(policy.reset_after, Some(Duration::from_secs(60)));
        assert_eq!(config.log_level, LevelFilter::Info);
        assert_eq!(config.log_file, None);
        assert!(!config.keep_descendants);
        assert!(parse_words(&["true"]).unwrap().policy.heartbeat.is_none());
    }

    #[test]
    fn all_that_follows_the_command_belongs_to_it() {
        for (typed, command) in [
            (
                &["ls", "--timeout", "x", "-h"][..],
                &["ls", "--timeout", "x", "-h"][..],
            ),
            (&["--", "ls", "--", "-V"], &["ls", "--", "-V"]),
            (&["ls", "--", "-V"], &["ls", "--", "-V"]),
            (&["--grace-period", "1", "ls", "-1"], &["ls", "-1"]),
            (&["--", "--odd-name"], &["--odd-name"]),
            (&["-"], &["-"]),
            (&["ls", "", "a b"], &["ls", "", "a b"]),
        ] {
            assert_eq!(parse_words(typed).unwrap().command, command, "{typed:?}");
        }
    }

    #[test]
    fn seconds_are_decimal_numbers() {
        for (text, duration) in [
            ("20", Duration::from_secs(20)),
            ("0.25", Duration::from_millis(250)),
            (".5", Duration::from_millis(500)),
            ("1e3", Duration::from_secs(1000)),
            ("1e9", Duration::from_secs(1_000_000_000)),
            ("1e-300", Duration::from_nanos(1)),
        ] {
            assert_eq!(seconds(text.into()), Ok(duration), "{text}");
        }
        assert_eq!(seconds("0".into()), Ok(Duration::ZERO));
        for text in [
            "",
            " 1",
            "1 ",
            "-1",
            "-2",
            "-0.001",
            "nan",
            "NaN",
            "inf",
            "-inf",
            "infinity",
            "1e300",
            "1000000001",
            "1,5",
            "20s",
            "0x10",
            "twenty",
        ] {
            assert!(seconds(text.into()).is_err(), "{text}");
            assert!(positive_seconds(text.into()).is_err(), "{text}");
        }
        for zero in ["0", "0.0", "-0", "0e9"] {
            assert!(positive_seconds(zero.into()).is_err(), "{zero}");
        }
    }

    #[test]
    fn counts_are_whole_numbers_from_minus_one() {
        assert_eq!(max_restarts("-1".into()).unwrap().0, None);
        assert_eq!(max_restarts("0".into()).unwrap().0, Some(0));
        let most = i64::MAX.to_string().into();
        assert_eq!(max_restarts(most).unwrap().0, Some(i64::MAX.unsigned_abs()));
        for text in ["-2", "1.5", "", "many", "1e3", "9223372036854775808"] {
            assert!(max_restarts(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_variable_is_on_unless_it_says_no() {
        for on in ["1", "true", "yes", "on", "anything", "n"] {
            assert!(is_on(&on.into()), "{on}");
        }
        for off in ["", "0", "false", "no", "off", "OFF", "False"] {
            assert!(!is_on(&off.into()), "{off}");
        }
    }

    #[test]
    fn each_option_has_its_variable() {
        for arg in Cli::command().get_arguments() {
            let (Some(long), Some(variable)) = (arg.get_long(), arg.get_env()) else {
                assert_eq!(arg.get_id(), "command");
                continue;
            };
            let expected = format!("SUPERVISOR_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(variable.to_str(), Some(expected.as_str()));
        }
    }

    #[test]
    fn the_last_of_two_equal_options_counts() {
        let config = parse_words(&["--grace-period", "1", "--grace-period", "2", "x"]).unwrap();
        assert_eq!(config.policy.grace, Duration::from_secs(2));
    }

    #[test]
    fn options_that_need_the_heartbeat_are_noted_without_it() {
        let words = ["--timeout", "3", "--heartbeat-file", "x", "true"];
        let noted = parse_words(&words).unwrap().without_effect;
        assert_eq!(noted, ["--heartbeat-file", "--timeout"]);
        let words = ["--enable-heartbeat", "--timeout", "3", "true"];
        assert!(parse_words(&words).unwrap().without_effect.is_empty());
    }

    #[test]
    fn a_usage_error_is_one_line_that_names_the_option_and_the_value() {
        for (words, parts) in [
            (&[][..], &["no command given"][..]),
            (&["--timeout", "x", "ls"], &["--timeout", "'x'", "seconds"]),
            (&["--timeout"], &["--timeout"]),
            (&["--max-restarts", "-2", "ls"], &["--max-restarts", "'-2'"]),
            (
                &["--heartbeat-file", "", "ls"],
                &["--heartbeat-file", "path of a file"],
            ),
            (&["--no-such", "ls"], &["--no-such"]),
            (
                &["--grace-perod", "1", "ls"],
                &["--grace-perod", "--grace-period"],
            ),
            (&["--log-level", "a\nb", "ls"], &["--log-level", "a b"]),
            (&["-x", "ls"], &["-x"]),
            (&["--timeout", "-.5", "ls"], &["--timeout", "'-.5'"]),
        ] {
            let early = parse_words(words).unwrap_err();
            assert_eq!(early.exit, Exit::USAGE, "{words:?}");
            assert!(early.text.starts_with("supervisor: "), "{}", early.text);
            assert_eq!(early.text.matches('\n').count(), 1, "{}", early.text);
            for part in parts {
                assert!(early.text.contains(part), "{part} in {}", early.text);
            }
        }
    }
}
