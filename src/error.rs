//! Why the supervisor itself could not go on: each is exit code 125 and one line.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::text::Quoted;

/// A failure of the supervisor, not of the command.
#[derive(Debug)]
pub enum Error {
    /// `--heartbeat-file` names something that can't be a heartbeat file.
    HeartbeatRefused {
        /// The path as given, made absolute.
        path: PathBuf,
        /// What stands there: `a directory`, `a socket` ...
        found: &'static str,
    },
    /// `--heartbeat-file` is relative, and the working directory was removed.
    HeartbeatUnplaced {
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another supervisor watches the same heartbeat file.
    HeartbeatTaken {
        /// The heartbeat file.
        path: PathBuf,
        /// Who holds it, where the lock says so.
        holder: Option<i32>,
    },
    /// Another instance has the name.
    NameTaken {
        /// The name.
        name: String,
        /// Who has it, where its lock says so.
        holder: Option<i32>,
    },
    /// `--metrics-file` names something that would be replaced, and should not be.
    MetricsRefused {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        found: &'static str,
    },
    /// `--log-file` can't be opened.
    LogFile {
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A system call without which there is no supervision.
    System {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: puts what was being done beside the reason.
    pub fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeartbeatRefused { path, found } => write!(
                f,
                "--heartbeat-file {} is {found}; name a regular file, or one that does not exist yet",
                Quoted::path(path)
            ),
            Self::HeartbeatUnplaced { path, source } => write!(
                f,
                "--heartbeat-file {} in a working directory that can't be found: {source}; \
                 name an absolute path",
                Quoted::path(path)
            ),
            Self::HeartbeatTaken { path, holder } => {
                let (path, who) = (Quoted::path(path), Holder(*holder));
                write!(
                    f,
                    "heartbeat file {path} is already watched by {who}; give each its own --heartbeat-file"
                )
            }
            Self::NameTaken { name, holder } => {
                let who = Holder(*holder);
                write!(
                    f,
                    "the name {name} is taken by {who}; give each its own --name"
                )
            }
            Self::MetricsRefused { path, found } => write!(
                f,
                "--metrics-file {} is {found}; name a regular file, or one that does not exist yet",
                Quoted::path(path)
            ),
            Self::LogFile { path, source } => {
                write!(
                    f,
                    "--log-file {} can't be opened: {source}",
                    Quoted::path(path)
                )
            }
            Self::System { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

/// Who holds a lock.
struct Holder(Option<i32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "the supervisor with pid {pid}"),
            None => f.write_str("another supervisor"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::HeartbeatUnplaced { source, .. }
            | Self::LogFile { source, .. }
            | Self::System { source, .. } => Some(source),
            Self::HeartbeatRefused { .. }
            | Self::HeartbeatTaken { .. }
            | Self::NameTaken { .. }
            | Self::MetricsRefused { .. } => None,
        }
    }
}
