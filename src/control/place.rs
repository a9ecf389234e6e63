//! Where instances are to be found: a directory with a socket for each, and a lock beside it that is held
//! for as long as the instance lives.
//!
//! The lock is the truth. A socket whose lock nobody holds was left by an instance that was killed, and
//! only who holds the lock makes or removes the socket: so none that is stale hides a living one, and
//! none that is new is taken for stale.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::net::UnixStream;
use nix::unistd::Pid;

use crate::lock::{Claim, Lock};
use crate::sys;
use crate::text::{LONGEST_NAME, is_name};

/// Names the directory, before all else.
const VARIABLE: &str = "SUPERVISOR_RUNTIME_DIR";

/// So long one is waited for who holds a name and does not answer to it.
const PATIENCE: Duration = Duration::from_millis(100);

/// The directory of all instances of this user.
pub struct Place(PathBuf);

impl Place {
    /// The one that is meant, whether it is there or not: `$SUPERVISOR_RUNTIME_DIR`; else `/run/supervisor`
    /// for root and `$XDG_RUNTIME_DIR/supervisor` for others; None where there is no such variable.
    #[must_use]
    pub fn of_the_environment() -> Option<Self> {
        let named = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
        if let Some(directory) = named(VARIABLE) {
            // Without a slash at its end, behind which a link would be followed.
            return Some(Self(Path::new(&directory).components().collect()));
        }
        if nix::unistd::geteuid().is_root() {
            return Some(Self("/run/supervisor".into()));
        }
        let base = named("XDG_RUNTIME_DIR")?;
        Some(Self(Path::new(&base).join("supervisor")))
    }

    /// Makes it where it is not there.
    ///
    /// # Errors
    /// Where it can't be made, or is not a directory of ours that nobody else may enter.
    pub fn prepare(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;
        self.check().map(drop)
    }

    /// # Errors
    /// Where it is not there, or is not a directory of ours that nobody else may enter.
    fn check(&self) -> io::Result<Metadata> {
        // Not what a link leads to.
        let found = fs::symlink_metadata(&self.0)?;
        let ours = found.uid() == nix::unistd::geteuid().as_raw();
        if !found.is_dir() || !ours || found.permissions().mode() & 0o077 != 0 {
            let what = format!(
                "{} is no directory of this user with mode 0700",
                self.0.display()
            );
            return Err(io::Error::other(what));
        }
        Ok(found)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The socket of the instance `name`.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.sock"))
    }

    fn lock(&self, name: &str) -> PathBuf {
        // Not `.NAME.lock`: that may be a heartbeat file's.
        self.0.join(format!(".{name}.sock.lock"))
    }

    /// Claims `name`, and removes the socket of an instance that was killed.
    ///
    /// # Errors
    /// Where there can be no lock.
    pub fn claim(&self, name: &str) -> io::Result<Claim> {
        let claim = Lock::take(&self.lock(name))?;
        if matches!(claim, Claim::Ours(_)) {
            let socket = self.socket(name);
            let stale = fs::symlink_metadata(&socket);
            if stale.is_ok_and(|found| found.file_type().is_socket()) {
                fs::remove_file(socket)?;
            }
        }
        Ok(claim)
    }

    /// The same; and where somebody holds it who may only be clearing up, once more when he has ended, or a
    /// moment later.
    ///
    /// # Errors
    /// Where there can be no lock.
    pub fn claim_patiently(&self, name: &str) -> io::Result<Claim> {
        let claim = self.claim(name)?;
        if let Claim::Held(Some(holder)) = claim
            && !self.answers(name)
        {
            sys::await_end(Pid::from_raw(holder), PATIENCE);
            return self.claim(name);
        }
        Ok(claim)
    }

    /// Whether somebody listens. Where too many are waiting already, he does not answer, but is there.
    fn answers(&self, name: &str) -> bool {
        match UnixStream::connect(self.socket(name)) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// The names of all instances that have a socket here, sorted; some may not live any more. None where
    /// there is no directory yet.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let names = entries.flatten().filter_map(|entry| {
            let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
            let name = entry.file_name().into_string().ok()?;
            let name = name.strip_suffix(".sock")?;
            (is_socket && is_name(name)).then(|| name.to_owned())
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        Ok(names)
    }

    /// The process id of the living instance `name`, 0 where the kernel does not tell; None: there is none.
    #[must_use]
    pub fn holder(&self, name: &str) -> Option<i32> {
        let found = fs::symlink_metadata(self.socket(name)).ok()?;
        if !found.file_type().is_socket() {
            return None;
        }
        match Lock::holder(&self.lock(name)) {
            Ok(holder) => holder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some(0),
        }
    }

    /// Removes what the instance `name` left, which was killed; if it is ours to remove.
    pub fn clear(&self, name: &str) {
        if self.check().is_ok() {
            let _ = self.claim(name);
        }
    }
}

/// The name of an instance that was given none: the command's file name and our process id.
#[must_use]
pub fn default_name(program: &Path, pid: u32) -> String {
    let file = program.file_name().unwrap_or_default().to_string_lossy();
    let suffix = format!("-{pid}");
    let allowed = file
        .chars()
        .map(|c| if is_name(&format!("x{c}")) { c } else { '_' });
    let mut name: String = allowed.take(LONGEST_NAME - suffix.len()).collect();
    if name.is_empty() || name.starts_with('.') {
        name.replace_range(..usize::from(!name.is_empty()), "_");
    }
    name + &suffix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_name_is_a_name_whatever_the_command_is_called() {
        for (program, name) in [
            ("/usr/bin/python3.11", "python3.11-42"),
            ("./my server", "my_server-42"),
            (".hidden", "_hidden-42"),
            ("größe", "gr__e-42"),
            ("", "_-42"),
            ("/", "_-42"),
            ("..", "_-42"),
        ] {
            assert_eq!(default_name(Path::new(program), 42), name);
        }
        let long = default_name(Path::new(&"x".repeat(300)), 4_294_967_295);
        assert!(is_name(&long) && long.ends_with("x-4294967295"), "{long}");
    }
}
