//! The heartbeat file: who may watch it, what is watched, and what was seen (contract, section 3).
//!
//! notify's thread sees the changes and notes each beat in the pulse; the reactor
//! reads that when a deadline comes. Where the watch has to be moved (the file was replaced, removed,
//! made again) a third thread does that: neither of the others may wait for it.

mod evidence;
mod look;
mod rest;
mod trace;
mod watcher;

use std::ffi::OsString;
use std::fs::{self, FileType};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;

use crate::error::Error;
use crate::lock::{Claim, Lock};
use crate::pulse::Pulse;
use crate::sys;
use crate::text::Quoted;
use evidence::Evidence;
use watcher::Watcher;

/// A heartbeat file under watch.
pub struct Heartbeat {
    evidence: Arc<Evidence>,
    lock: Option<Lock>,
}

impl Heartbeat {
    /// Claims `path` and begins to watch it; each beat is noted in `pulse`.
    ///
    /// # Errors
    /// [`Error::HeartbeatRefused`] where the path names something that is no regular file,
    /// [`Error::HeartbeatTaken`] where another supervisor watches it, and
    /// [`Error::HeartbeatUnplaced`] where it is relative to a directory that is gone.
    pub fn open(path: &Path, pulse: &Arc<Pulse>) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(|source| Error::HeartbeatUnplaced {
            path: path.to_owned(),
            source,
        })?;
        if let Some(found) = what_is_wrong_with(&path) {
            return Err(Error::HeartbeatRefused { path, found });
        }
        let lock = claim(&path)?;
        if !in_memory(&path) {
            log::info!(
                "heartbeat file is not in memory path={} hint=\"each beat writes to flash or disk; one on a tmpfs, such as /dev/shm, does not\"",
                Quoted::path(&path)
            );
        }
        let evidence = Arc::new(Evidence::new(path, Arc::clone(pulse)));
        Watcher::start(&evidence);
        Ok(Self { evidence, lock })
    }

    /// The file, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.evidence.path()
    }

    /// Looks at the file, so that later looks compare with how it is now.
    pub fn look(&self) {
        self.evidence.look();
    }

    /// Looks at the file before the command is judged, the evidence that no lost event can hide,
    /// and has a watch that has gone blind set again. Whether it is in doubt, and has to look again in a moment.
    #[must_use]
    pub fn last_look(&self) -> bool {
        self.evidence.last_look()
    }

    /// The end: removes the file, if it ever beat (one that was named by mistake is left alone) and
    /// is a regular file or a symbolic link, and gives up the claim.
    pub fn close(mut self) {
        self.evidence.finish();
        self.evidence.look();
        let path = self.path().to_owned();
        let ours = |kind: FileType| kind.is_file() || kind.is_symlink();
        if self.evidence.has_beaten()
            && fs::symlink_metadata(&path).is_ok_and(|file| ours(file.file_type()))
            && self.is_nobody_elses()
            && let Err(error) = fs::remove_file(&path)
        {
            log::warn!(
                "heartbeat file not removed path={} error={}",
                Quoted::path(&path),
                Quoted::text(&error.to_string())
            );
        }
        self.lock = None;
    }

    /// A directory that was made anew has no lock, or that of another supervisor.
    fn is_nobody_elses(&mut self) -> bool {
        if self.lock.as_ref().is_none_or(Lock::is_current) {
            return true;
        }
        let Ok(Claim::Ours(lock)) = Lock::take(&lock_for(self.path())) else {
            return false;
        };
        self.lock = Some(lock);
        true
    }
}

/// Two supervisors on one file would hide each other's hangs. None, and one warning, where no lock can be
/// had.
fn claim(file: &Path) -> Result<Option<Lock>, Error> {
    match Lock::take(&lock_for(file)) {
        Ok(Claim::Ours(lock)) => Ok(Some(lock)),
        Ok(Claim::Held(holder)) => Err(Error::HeartbeatTaken {
            path: file.to_owned(),
            holder,
        }),
        Err(error) => {
            log::warn!(
                "heartbeat file is not guarded against a second supervisor path={} error={}",
                Quoted::path(file),
                Quoted::text(&error.to_string())
            );
            Ok(None)
        }
    }
}

/// `.<name>.lock` in the file's own directory.
fn lock_for(file: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(".lock");
    file.with_file_name(name)
}

/// What stands at the path that can't be a heartbeat file. A link counts as what it points to.
fn what_is_wrong_with(path: &Path) -> Option<&'static str> {
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Some("a directory");
    }
    let found = fs::metadata(path);
    let kind = match found.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))) {
        Ok(found) => found.file_type(),
        // Which no command can write to, now or later.
        Err(Errno::ELOOP) => return Some("a loop of symbolic links"),
        Err(Errno::ENAMETOOLONG) => return Some("too long a name"),
        Err(_) => return None,
    };
    [
        (kind.is_dir(), "a directory"),
        (kind.is_fifo(), "a FIFO"),
        (kind.is_socket(), "a socket"),
        (kind.is_block_device() || kind.is_char_device(), "a device"),
    ]
    .into_iter()
    .find_map(|(is, what)| is.then_some(what))
}

/// Whether a file at `path` costs no write to a disk.
fn in_memory(path: &Path) -> bool {
    if path.exists() {
        sys::is_in_memory(path)
    } else {
        sys::is_in_memory(&watcher::nearest_directory(path))
    }
}
