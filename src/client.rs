//! The other side of the control socket: `--list`, `--status NAME` and so on (contract, section 11).

mod show;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::clock;
use crate::config::{Call, Form, Verb};
use crate::control::place::Place;
use crate::control::protocol::Request;
use crate::exit::Exit;
use crate::logging::{complain, tell};
use crate::sys;
use crate::text::Quoted;

/// So long an instance may take to answer; all together, where all are asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// So many are asked at once: each takes a descriptor.
const AT_ONCE: usize = 200;

/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 0x10_0000;

/// Does what was called for; the exit code that answers it.
#[must_use]
pub fn run(call: &Call) -> Exit {
    let outcome = match call {
        Call::List(form) => list(*form),
        Call::One(verb, name, form) => one(*verb, name, *form),
    };
    outcome.unwrap_or_else(|failure| {
        complain(&format!("supervisor: {}\n", failure.text));
        failure.exit
    })
}

/// Why there is no answer.
struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// No instance has this name.
    fn unknown(name: &str, place: Option<&Place>) -> Self {
        let looked = place.map_or("nowhere".into(), |place| {
            Quoted::path(place.path()).to_string()
        });
        Self {
            exit: Exit::UNKNOWN,
            text: format!(
                "no instance is named {name} (looked in {looked}); see 'supervisor --list'"
            ),
        }
    }

    fn silent(name: &str, why: &str) -> Self {
        Self {
            exit: Exit::NO_ANSWER,
            text: format!("the instance {name} does not answer: {why}"),
        }
    }
}

fn list(form: Form) -> Result<Exit, Failure> {
    let place = Place::of_the_environment();
    let names = place.as_ref().map_or(Ok(Vec::new()), Place::names);
    let names = names.map_err(|error| Failure {
        exit: Exit::NO_ANSWER,
        text: format!("the instances can't be listed: {error}"),
    })?;
    let mut instances = Vec::new();
    if let Some(place) = &place {
        let until = clock::now() + PATIENCE;
        for some in names.chunks(AT_ONCE) {
            instances.extend(ask_all(place, some, until));
        }
    }
    let answered = |instance: &Value| instance.get("error").is_none();
    let all_answered = instances.iter().all(answered);
    tell(&match form {
        Form::Json => format!("{}\n", Value::Array(instances)),
        Form::Text => show::table(&instances),
    });
    Ok(if all_answered {
        Exit::SUCCESS
    } else {
        Exit::NO_ANSWER
    })
}

/// Asks all of these before it waits for any.
fn ask_all(place: &Place, names: &[String], until: Instant) -> Vec<Value> {
    let asked: Vec<_> = names
        .iter()
        .map(|name| {
            let stream = connect(place, name);
            (name, stream.and_then(|stream| ask(stream, Request::Status)))
        })
        .collect();
    let answers = asked.into_iter().filter_map(|(name, stream)| {
        let answer = stream.and_then(|stream| read(stream, Some(until)));
        match answer.and_then(instance) {
            Ok(instance) => Some(instance),
            Err(error) => match place.holder(name) {
                Some(pid) => Some(json!({ "name": name, "pid": pid, "error": error.to_string() })),
                // One that was killed, or has ended just now, is none.
                None => {
                    place.clear(name);
                    None
                }
            },
        }
    });
    answers.collect()
}

fn one(verb: Verb, name: &str, form: Form) -> Result<Exit, Failure> {
    let place = Place::of_the_environment();
    let unknown = || Failure::unknown(name, place.as_ref());
    let place = place.as_ref().ok_or_else(unknown)?;
    let silent = |error: io::Error| match place.holder(name) {
        None => {
            place.clear(name);
            Failure::unknown(name, Some(place))
        }
        Some(_) => Failure::silent(name, &error.to_string()),
    };
    // Also before what may take long: whether it answers at all.
    let until = Some(clock::now() + PATIENCE);
    let instance = converse(place, name, Request::Status, until).and_then(instance);
    let instance = instance.map_err(silent)?;
    let request = match verb {
        Verb::Status => {
            tell(&match form {
                Form::Json => format!("{instance}\n"),
                Form::Text => show::one(&instance),
            });
            let healthy = ["running", "paused"].map(Some);
            let state = instance.get("state").and_then(Value::as_str);
            return Ok(if healthy.contains(&state) {
                Exit::SUCCESS
            } else {
                Exit::NOT_RUNNING
            });
        }
        Verb::Restart => Request::Restart,
        Verb::Stop => Request::Stop,
        Verb::Pause => Request::Pause,
        Verb::Resume => Request::Resume,
    };
    let holder = place.holder(name);
    let answer = converse(place, name, request, None);
    if verb == Verb::Stop {
        // It hangs up with its end, whether it has answered or was killed. By now its name may be another's.
        return match place.holder(name) {
            Some(pid) if holder == Some(pid) => Err(Failure::silent(name, "it did not end")),
            Some(_) | None => Ok(Exit::SUCCESS),
        };
    }
    match answer.map_err(silent)?.get("error").and_then(Value::as_str) {
        Some(error) => Err(Failure {
            exit: Exit::NO_ANSWER,
            text: format!("{name}: {}", Quoted::text(error)),
        }),
        None => Ok(Exit::SUCCESS),
    }
}

fn converse(
    place: &Place,
    name: &str,
    request: Request,
    until: Option<Instant>,
) -> io::Result<Value> {
    read(ask(connect(place, name)?, request)?, until)
}

/// Does not wait: where too many are waiting already this is an error.
fn connect(place: &Place, name: &str) -> io::Result<UnixStream> {
    let socket = place.socket(name);
    // Not what a link leads to.
    if !fs::symlink_metadata(&socket)?.file_type().is_socket() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let stream = mio::net::UnixStream::connect(socket)?;
    let stream = UnixStream::from(std::os::fd::OwnedFd::from(stream));
    stream.set_nonblocking(false)?;
    let me = nix::unistd::geteuid();
    let (user, _) = sys::peer(&stream)?;
    if user != 0 && user != me.as_raw() && !me.is_root() {
        return Err(io::Error::other("it is another user's"));
    }
    Ok(stream)
}

fn ask(mut stream: UnixStream, request: Request) -> io::Result<UnixStream> {
    // A line finds room in a new connection.
    stream.write_all(request.line().as_bytes())?;
    Ok(stream)
}

/// The answer, and then the end of the connection.
fn read(stream: UnixStream, until: Option<Instant>) -> io::Result<Value> {
    let patience = match until {
        Some(until) => {
            let left = until.saturating_duration_since(clock::now());
            Some(left.max(Duration::from_millis(1)))
        }
        None => None,
    };
    stream.set_read_timeout(patience)?;
    let mut reader = BufReader::new(stream.take(LONGEST_ANSWER));
    let mut line = String::new();
    let slow = |error: io::Error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            return io::Error::other(format!("nothing was heard for {} s", PATIENCE.as_secs()));
        }
        error
    };
    reader.read_line(&mut line).map_err(slow)?;
    let answer = serde_json::from_str(&line).map_err(|_| io::Error::other("it hung up"))?;
    // What is written after the answer is nothing.
    let _ = io::copy(&mut reader, &mut io::sink());
    Ok(answer)
}

fn instance(mut answer: Value) -> io::Result<Value> {
    let error = answer.get("error").and_then(Value::as_str);
    let error = error.unwrap_or("the answer is not understood").to_owned();
    match answer.get_mut("instance").map(Value::take) {
        Some(instance @ Value::Object(_)) => Ok(instance),
        _ => Err(io::Error::other(error)),
    }
}
