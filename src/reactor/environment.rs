//! What the command and the hooks find in their arguments and their environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::config::Config;
use crate::manager;
use crate::sys::Environment;

/// Where an argument of the command says this, the heartbeat file's path takes its place.
const PLACEHOLDER: &[u8] = b"{heartbeat-file}";

/// The caller's environment without our own options, and without what is between our service manager and
/// us.
pub fn inherited(is_own_variable: fn(&OsStr) -> bool) -> Environment {
    Environment::inherited(|name| is_own_variable(name) || manager::is_ours(name))
}

/// The same for the command, with what it has to know to beat: the file, or the socket's address.
pub fn of_the_command(
    config: &Config,
    heartbeat_file: Option<&Path>,
    notify_socket: Option<OsString>,
) -> Environment {
    let mut environment = inherited(config.is_own_variable);
    let Some(heartbeat) = config.policy.heartbeat else {
        return environment;
    };
    if let Some(path) = heartbeat_file {
        let timeout = heartbeat.timeout.as_secs_f64().to_string();
        environment.set("HEARTBEAT_FILE", path.as_os_str());
        environment.set("HEARTBEAT_TIMEOUT", timeout.as_ref());
    }
    if let Some(address) = notify_socket {
        let microseconds = heartbeat.timeout.as_micros().max(1).to_string();
        environment.set("NOTIFY_SOCKET", &address);
        environment.set("WATCHDOG_USEC", microseconds.as_ref());
    }
    environment
}

/// `arg` with the heartbeat file's path wherever it has the placeholder. Only with a heartbeat.
pub fn fill_in(arg: &OsStr, path: Option<&Path>) -> OsString {
    let (mut rest, mut filled) = (arg.as_bytes(), Vec::new());
    if let Some(path) = path {
        while let Some(at) = rest
            .windows(PLACEHOLDER.len())
            .position(|window| window == PLACEHOLDER)
        {
            filled.extend_from_slice(&rest[..at]);
            filled.extend_from_slice(path.as_os_str().as_bytes());
            rest = &rest[at + PLACEHOLDER.len()..];
        }
    }
    filled.extend_from_slice(rest);
    OsString::from_vec(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_takes_the_place_of_each_placeholder() {
        let path = Some(Path::new("/run/hb"));
        for (arg, filled) in [
            ("{heartbeat-file}", "/run/hb"),
            ("--beat={heartbeat-file}", "--beat=/run/hb"),
            ("{heartbeat-file}:{heartbeat-file}!", "/run/hb:/run/hb!"),
            ("{heartbeat}", "{heartbeat}"),
            ("", ""),
        ] {
            assert_eq!(fill_in(OsStr::new(arg), path), filled);
            assert_eq!(fill_in(OsStr::new(arg), None), arg);
        }
    }
}
