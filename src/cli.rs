//! The command line and the `SUPERVISOR_*` environment (contract, section 1): what was typed is
//! checked once, here, and becomes a [`Config`].

mod options;
#[cfg(test)]
mod tests;
mod values;

use std::ffi::{OsStr, OsString};

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::{MatchesError, ValueSource};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use log::LevelFilter;
use nix::sys::signal::Signal;

use crate::config::{Call, Config, Form, Heartbeat, Order, Policy, Verb};
use crate::exit::Exit;
use crate::text;
use options::Takes::{Default, Nothing, Value};
use options::{CALLS, OPTIONS, Row, whole};
use values::*;

const USAGE: &str = "\
supervisor [OPTIONS] <command> [args...]
       supervisor --list | --status NAME | --restart NAME | --stop NAME | ...";

const EXAMPLE: &str = "\
Seconds are decimal numbers such as 20 or 0.25. Each option (but the calls and --check) can also be
set by an environment variable: SUPERVISOR_MAX_RESTARTS=5. The command line wins; the command does not
see these variables.

Example: supervisor --enable-heartbeat --timeout 30 python3 my_server.py";

/// What clap calls the command's words, and the group of the calls.
const COMMAND: &str = "command";
const CALL: &str = "call";

/// Everything that clap knows, for those who tell others of it: the man page, the completions.
#[must_use]
pub fn command_line() -> Command {
    definition(&whole())
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
        .version(env!("VERSION"))
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
    match row.long {
        "json" => arg = arg.requires(CALL),
        "check" => arg = arg.conflicts_with(CALL),
        _ => {}
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
    if typed.is_on("check") {
        return Order::Check;
    }
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
    let mut own = OPTIONS.iter().filter_map(|row| row.variable);
    own.any(|variable| name == variable)
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
    } else if error.kind() == ErrorKind::ArgumentConflict
        && argv.iter().any(|word| word == "--check")
    {
        "--check goes with a command, not with --list, --status and their like".to_owned()
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
