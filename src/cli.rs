//! The command line and the `SUPERVISOR_*` environment (contract, section 1): what was typed is
//! checked once, here, and becomes a [`Config`].

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _, ValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::{MatchesError, ValueSource};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use log::LevelFilter;
use nix::sys::signal::Signal;

use crate::config::{Call, Config, Form, Heartbeat, Order, Policy, Verb};
use crate::exit::Exit;
use crate::text::{self, is_name};

/// The longest duration that is taken, in seconds: beyond it a deadline could leave the clock.
const MOST_SECONDS: f64 = 1e9;

const USAGE: &str = "\
supervisor [OPTIONS] <command> [args...]
       supervisor --list | --status NAME | --restart NAME | --stop NAME | ...";

const EXAMPLE: &str = "\
Seconds are decimal numbers such as 20 or 0.25. Each option (but the calls) can also be set by an
environment variable: SUPERVISOR_MAX_RESTARTS=5. The command line wins; the command does not see these
variables.

Example: supervisor --enable-heartbeat --timeout 30 python3 my_server.py";

/// An option.
struct Row {
    long: &'static str,
    /// None for a call: a variable would turn every supervisor into it.
    variable: Option<&'static str>,
    takes: Takes,
    heading: &'static str,
    help: &'static str,
}

enum Takes {
    /// Nothing: it is on or off.
    Nothing,
    /// A value, shown by this name and checked by that.
    Value(&'static str, fn() -> ValueParser),
    /// The same, and what it is if nobody says.
    Default(&'static str, fn() -> ValueParser, &'static str),
}
use Takes::{Default, Nothing, Value};

const RESTART: &str = "Restart";
const HEARTBEAT: &str = "Heartbeat";
const STOPPING: &str = "Stopping";
const LOG: &str = "Log and events";
const CONTROL: &str = "Control";

/// All options, as the help shows them. A table, because clap's derive builds them in one function whose
/// frame alone would be 20 kB of stack that stays.
const OPTIONS: &[Row] = &[
    Row {
        long: "max-restarts",
        variable: Some("SUPERVISOR_MAX_RESTARTS"),
        takes: Default("N", || checked(max_restarts), "-1"),
        heading: RESTART,
        help: "Consecutive restarts before giving up; -1: never give up",
    },
    Row {
        long: "backoff-factor",
        variable: Some("SUPERVISOR_BACKOFF_FACTOR"),
        takes: Default("S", || checked(seconds), "1"),
        heading: RESTART,
        help: "Delay before the first restart; it doubles with each; 0: none",
    },
    Row {
        long: "max-backoff",
        variable: Some("SUPERVISOR_MAX_BACKOFF"),
        takes: Default("S", || checked(positive_seconds), "3600"),
        heading: RESTART,
        help: "Upper bound of a delay",
    },
    Row {
        long: "backoff-jitter",
        variable: Some("SUPERVISOR_BACKOFF_JITTER"),
        takes: Default("F", || checked(fraction), "0"),
        heading: RESTART,
        help: "Add up to this part of a delay at random, 0 to 1",
    },
    Row {
        long: "reset-after",
        variable: Some("SUPERVISOR_RESET_AFTER"),
        takes: Default("S", || checked(seconds), "60"),
        heading: RESTART,
        help: "A run this long starts the count of restarts again at 0; 0: never",
    },
    Row {
        long: "enable-heartbeat",
        variable: Some("SUPERVISOR_ENABLE_HEARTBEAT"),
        takes: Nothing,
        heading: HEARTBEAT,
        help: "Restart the command when its heartbeat file falls silent",
    },
    Row {
        long: "heartbeat-file",
        variable: Some("SUPERVISOR_HEARTBEAT_FILE"),
        takes: Default("PATH", || checked(path), "heartbeat.txt"),
        heading: HEARTBEAT,
        help: "The file that the command touches; it finds the path in HEARTBEAT_FILE",
    },
    Row {
        long: "sd-notify",
        variable: Some("SUPERVISOR_SD_NOTIFY"),
        takes: Nothing,
        heading: HEARTBEAT,
        help: "The command beats by sd_notify(3), as under systemd",
    },
    Row {
        long: "timeout",
        variable: Some("SUPERVISOR_TIMEOUT"),
        takes: Default("S", || checked(positive_seconds), "20"),
        heading: HEARTBEAT,
        help: "Silence this long is a hang",
    },
    Row {
        long: "initial-check-delay",
        variable: Some("SUPERVISOR_INITIAL_CHECK_DELAY"),
        takes: Default("S", || checked(seconds), "0"),
        heading: HEARTBEAT,
        help: "Extra time for the first beat after each launch",
    },
    Row {
        long: "hang-signal",
        variable: Some("SUPERVISOR_HANG_SIGNAL"),
        takes: Default("SIG", || checked(signal), "TERM"),
        heading: HEARTBEAT,
        help: "What a hung command is sent first: ABRT for a core",
    },
    Row {
        long: "grace-period",
        variable: Some("SUPERVISOR_GRACE_PERIOD"),
        takes: Default("S", || checked(seconds), "5"),
        heading: STOPPING,
        help: "From SIGTERM to SIGKILL; 0: SIGKILL at once",
    },
    Row {
        long: "keep-descendants",
        variable: Some("SUPERVISOR_KEEP_DESCENDANTS"),
        takes: Nothing,
        heading: STOPPING,
        help: "Leave alone what the command leaves behind when it ends",
    },
    Row {
        long: "log-level",
        variable: Some("SUPERVISOR_LOG_LEVEL"),
        takes: Default("L", || checked(level), "info"),
        heading: LOG,
        help: "error, warn, info or debug",
    },
    Row {
        long: "log-file",
        variable: Some("SUPERVISOR_LOG_FILE"),
        takes: Value("PATH", || checked(path)),
        heading: LOG,
        help: "Append the supervisor's own log there instead of to stderr",
    },
    Row {
        long: "on-event",
        variable: Some("SUPERVISOR_ON_EVENT"),
        takes: Value("COMMAND", || checked(script)),
        heading: LOG,
        help: "Run by the shell at each start, exit, hang and giving up",
    },
    Row {
        long: "on-give-up",
        variable: Some("SUPERVISOR_ON_GIVE_UP"),
        takes: Value("COMMAND", || checked(script)),
        heading: LOG,
        help: "Run by the shell, and waited for, when it gives up",
    },
    Row {
        long: "metrics-file",
        variable: Some("SUPERVISOR_METRICS_FILE"),
        takes: Value("PATH", || checked(path)),
        heading: LOG,
        help: "Keep a file of metrics for Prometheus there",
    },
    Row {
        long: "name",
        variable: Some("SUPERVISOR_NAME"),
        takes: Value("NAME", || checked(name)),
        heading: CONTROL,
        help: "What this instance is called; default: after its command and pid",
    },
    Row {
        long: "list",
        variable: None,
        takes: Nothing,
        heading: CONTROL,
        help: "Show all running instances",
    },
    Row {
        long: "status",
        variable: None,
        takes: Value("NAME", || checked(name)),
        heading: CONTROL,
        help: "Show one; exit code 0: running, 3: not, 4: there is none",
    },
    Row {
        long: "restart",
        variable: None,
        takes: Value("NAME", || checked(name)),
        heading: CONTROL,
        help: "Restart its command now, and wait for the new run",
    },
    Row {
        long: "stop",
        variable: None,
        takes: Value("NAME", || checked(name)),
        heading: CONTROL,
        help: "Stop it, and wait until it is gone",
    },
    Row {
        long: "pause",
        variable: None,
        takes: Value("NAME", || checked(name)),
        heading: CONTROL,
        help: "Hold its heartbeat deadline, for a debugger",
    },
    Row {
        long: "resume",
        variable: None,
        takes: Value("NAME", || checked(name)),
        heading: CONTROL,
        help: "Hold it no longer",
    },
    Row {
        long: "json",
        variable: None,
        takes: Nothing,
        heading: CONTROL,
        help: "With --list or --status: for programs",
    },
];

/// Those that exclude each other and a command.
const CALLS: [&str; 6] = ["list", "status", "restart", "stop", "pause", "resume"];

/// What clap calls the command's words, and the group of the calls.
const COMMAND: &str = "command";
const CALL: &str = "call";

impl Row {
    fn default(&self) -> Option<&'static str> {
        match self.takes {
            Default(_, _, default) => Some(default),
            Nothing | Value(..) => None,
        }
    }

    /// Whether it may be set: what is not can be left out.
    fn is_named(&self, argv: &[OsString]) -> bool {
        let names = |word: &OsString| {
            let option = word.as_encoded_bytes().strip_prefix(b"--");
            let rest = option.and_then(|option| option.strip_prefix(self.long.as_bytes()));
            matches!(rest, Some([] | [b'=', ..]))
        };
        argv.iter().any(names)
            || self
                .variable
                .is_some_and(|name| std::env::var_os(name).is_some())
    }
}

fn whole() -> Vec<&'static Row> {
    OPTIONS.iter().collect()
}

/// What clap has to know, with these options.
fn definition(options: &[&Row]) -> Command {
    let words = Arg::new(COMMAND)
        .help("The command, executed directly; all that follows belongs to it")
        .value_name(COMMAND)
        .value_parser(OsStringValueParser::new())
        .action(ArgAction::Append)
        .num_args(1..)
        .trailing_var_arg(true)
        .required_unless_present(CALL)
        .conflicts_with(CALL);
    let longs = options.iter().map(|row| row.long);
    let calls = longs.filter(|long| CALLS.contains(long));
    Command::new("supervisor")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Keeps a command up: restarts it when it fails, and when it hangs")
        .override_usage(USAGE)
        .args_override_self(true)
        .after_help(EXAMPLE)
        .args(options.iter().map(|row| argument(row)))
        .group(ArgGroup::new(CALL).args(calls))
        .arg(words)
}

fn argument(row: &Row) -> Arg {
    let mut arg = Arg::new(row.long)
        .long(row.long)
        .help(row.help)
        .help_heading(row.heading);
    if let Some(variable) = row.variable {
        arg = arg.env(variable).hide_env(true);
    }
    if row.long == "json" {
        arg = arg.requires(CALL);
    }
    let (name, parser) = match row.takes {
        Nothing => {
            let is_on = OsStringValueParser::new().map(|value| is_on(&value));
            return arg.action(ArgAction::SetTrue).value_parser(is_on);
        }
        Value(name, parser) => (name, parser),
        Default(name, parser, default) => {
            arg = arg.default_value(default);
            (name, parser)
        }
    };
    // A number may be negative, if only to be told that it must not be.
    let is_number = matches!(name, "N" | "S" | "F");
    arg.value_name(name)
        .value_parser(parser())
        .allow_hyphen_values(is_number)
}

fn checked<T: Clone + Send + Sync + 'static>(
    check: fn(OsString) -> Result<T, &'static str>,
) -> ValueParser {
    ValueParser::new(OsStringValueParser::new().try_map(check))
}

/// What was typed, by the names of the table; a name that is not in it, or another type, is caught by any
/// test that parses a line.
struct Typed(ArgMatches);

impl Typed {
    fn is_on(&self, long: &str) -> bool {
        known(self.0.try_get_one(long)).is_some_and(|flag| *flag)
    }

    fn get<T: Clone + Send + Sync + 'static>(&mut self, long: &str) -> Option<T> {
        known(self.0.try_remove_one(long))
    }

    /// Of an option with a default, which `check` takes.
    fn value<T: Clone + Send + Sync + std::default::Default + 'static>(
        &mut self,
        long: &str,
        check: fn(OsString) -> Result<T, &'static str>,
    ) -> T {
        self.get(long).unwrap_or_else(|| {
            let row = OPTIONS.iter().find(|row| row.long == long);
            let default = row.and_then(Row::default).unwrap_or_default();
            check(default.into()).unwrap_or_default()
        })
    }

    fn is_typed(&self, long: &str) -> bool {
        let is_set = self.0.try_contains_id(long).unwrap_or(false);
        is_set && self.0.value_source(long) == Some(ValueSource::CommandLine)
    }
}

/// What nobody named is not known to clap.
fn known<T>(found: Result<Option<T>, MatchesError>) -> Option<T> {
    match found {
        Ok(found) => found,
        Err(MatchesError::UnknownArgument { .. }) => None,
        Err(mistake) => unreachable!("{mistake}"),
    }
}

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
pub fn parse(argv: &[OsString]) -> Result<Order, Early> {
    // Who types three options does not wait for the definition of thirty, nor keep its memory: 0.1 ms,
    // 24 kB. What is wrong, and the help, is told by the whole.
    let named: Vec<_> = OPTIONS.iter().filter(|row| row.is_named(argv)).collect();
    let matches = definition(&named).try_get_matches_from_mut(argv);
    let matches = matches.or_else(|_| definition(&whole()).try_get_matches_from_mut(argv));
    Ok(order(Typed(matches.map_err(|error| early(&error, argv))?)))
}

fn order(mut typed: Typed) -> Order {
    match call(&mut typed) {
        Some(call) => Order::Call(call),
        None => Order::Supervise(Box::new(config(typed))),
    }
}

fn call(typed: &mut Typed) -> Option<Call> {
    let form = if typed.is_on("json") {
        Form::Json
    } else {
        Form::Text
    };
    if typed.is_on("list") {
        return Some(Call::List(form));
    }
    let verbs = [
        (Verb::Status, "status"),
        (Verb::Restart, "restart"),
        (Verb::Stop, "stop"),
        (Verb::Pause, "pause"),
        (Verb::Resume, "resume"),
    ];
    verbs
        .into_iter()
        .find_map(|(verb, long)| Some(Call::One(verb, typed.get(long)?, form)))
}

fn config(mut typed: Typed) -> Config {
    let (by_file, by_socket) = (typed.is_on("enable-heartbeat"), typed.is_on("sd-notify"));
    let beats = by_file || by_socket;
    let without_effect = [
        ("heartbeat-file", by_file),
        ("timeout", beats),
        ("initial-check-delay", beats),
        ("hang-signal", beats),
    ]
    .into_iter()
    .filter(|(long, has_effect)| !has_effect && typed.is_typed(long))
    .map(|(long, _)| format!("--{long}"))
    .collect();
    let heartbeat = Heartbeat {
        timeout: typed.value("timeout", positive_seconds),
        initial_delay: typed.value("initial-check-delay", seconds),
        says_ready: by_socket,
    };
    let words = typed.0.remove_many(COMMAND);
    let file = typed.value("heartbeat-file", path);
    let reset_after = typed.value("reset-after", seconds);
    Config {
        command: words.into_iter().flatten().collect(),
        policy: Policy {
            grace: typed.value("grace-period", seconds),
            max_restarts: typed.value("max-restarts", max_restarts),
            backoff_factor: typed.value("backoff-factor", seconds),
            max_backoff: typed.value("max-backoff", positive_seconds),
            jitter: typed.value("backoff-jitter", fraction),
            reset_after: Some(reset_after).filter(|after| !after.is_zero()),
            heartbeat: beats.then_some(heartbeat),
            hang_signal: typed.get("hang-signal").unwrap_or(Signal::SIGTERM),
        },
        heartbeat_file: by_file.then_some(file),
        sd_notify: by_socket,
        name: typed.get("name"),
        on_event: typed.get("on-event"),
        on_give_up: typed.get("on-give-up"),
        metrics_file: typed.get("metrics-file"),
        keep_descendants: typed.is_on("keep-descendants"),
        log_level: typed.get("log-level").unwrap_or(LevelFilter::Info),
        log_file: typed.get("log-file"),
        without_effect,
        is_own_variable,
    }
}

fn is_own_variable(name: &OsStr) -> bool {
    let own = OPTIONS.iter().filter_map(|row| row.variable);
    own.into_iter().any(|variable| name == variable)
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
    let about = error.get(ContextKind::InvalidArg);
    let is_about_words =
        matches!(about, Some(ContextValue::String(about)) if about.contains(COMMAND));
    let is_missing = error.kind() == ErrorKind::MissingRequiredArgument;
    let message = if is_missing && argv.iter().any(|word| word == "--json") {
        "--json goes with --list or --status".to_owned()
    } else if is_missing {
        "no command given".to_owned()
    } else if error.kind() == ErrorKind::ArgumentConflict && is_about_words {
        "--list, --status and their like take no command".to_owned()
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
    let row = OPTIONS
        .iter()
        .find(|row| option.strip_prefix("--") == Some(row.long))?;
    let variable = row.variable?;
    (!typed && std::env::var_os(variable).is_some()).then(|| variable.to_owned())
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

fn max_restarts(value: OsString) -> Result<Option<u64>, &'static str> {
    const WANTED: &str = "it must be a whole number: 0 or more, or -1 for no limit";
    match value.to_str().and_then(|text| text.parse::<i64>().ok()) {
        Some(-1) => Ok(None),
        Some(count) => u64::try_from(count).map(Some).map_err(|_| WANTED),
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

fn signal(value: OsString) -> Result<Signal, &'static str> {
    const WANTED: &str = "it must be a signal, such as TERM, SIGABRT or 6";
    let text = value.to_str().ok_or(WANTED)?;
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).map_err(|_| WANTED);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    format!("SIG{name}").parse().map_err(|_| WANTED)
}

fn name(value: OsString) -> Result<String, &'static str> {
    value.to_str().filter(|name| is_name(name)).map(str::to_owned).ok_or(
        "it must be a name of 1 to 64 letters, digits, '.', '_', '-' or '@', and not begin with a dot",
    )
}

fn script(value: OsString) -> Result<OsString, &'static str> {
    if value.is_empty() {
        return Err("it must be a command for the shell");
    }
    Ok(value)
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
