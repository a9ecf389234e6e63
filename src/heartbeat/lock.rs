//! The claim to a heartbeat file: two supervisors on one file would hide each other's hangs.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, O_NOFOLLOW, O_NONBLOCK};

use crate::error::Error;
use crate::text::Quoted;

/// How often a lock file that vanishes while it is being taken is tried again.
const TRIES: usize = 100;

/// A record lock (fcntl(2), `F_SETLK`) on `.<name>.lock` beside the file. The kernel lifts it with
/// the process, so one that a killed supervisor left behind holds nobody up. Not an flock(2): that
/// one is shared with a child between fork and exec, and outlives a supervisor killed just then.
pub struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Whether it still guards the path. (A directory that was made anew has another's lock.)
    #[must_use]
    pub fn is_current(&self) -> bool {
        is_at(&self.file, &self.path)
    }

    /// Takes the lock for `file`. None, and one warning, where no lock can be had.
    ///
    /// # Errors
    /// [`Error::HeartbeatTaken`] where another supervisor holds it.
    pub fn take(file: &Path) -> Result<Option<Self>, Error> {
        match try_take(&path_for(file)) {
            Ok(Attempt::Taken(lock)) => Ok(Some(lock)),
            Ok(Attempt::Held(holder)) => Err(Error::HeartbeatTaken {
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
}

impl Drop for Lock {
    /// Removed while it is still held: whoever opened it meanwhile finds that it is gone. What now
    /// stands in a directory that was made anew is another's.
    fn drop(&mut self) {
        if self.is_current() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

enum Attempt {
    Taken(Lock),
    /// By this process, which the kernel does not name across pid namespaces.
    Held(Option<i32>),
}

/// `.<name>.lock` in the file's own directory.
fn path_for(file: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(".lock");
    file.with_file_name(name)
}

fn try_take(path: &Path) -> io::Result<Attempt> {
    for _ in 0..TRIES {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(O_NOFOLLOW | O_NONBLOCK)
            .open(path)?;
        let found = file.metadata()?;
        // Another user could hold his own file for ever.
        if !found.is_file() || found.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::other(
                "the lock file is not a regular file of this user",
            ));
        }
        let mut whole = whole_file();
        match fcntl(&file, FcntlArg::F_SETLK(&whole)) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => {
                fcntl(&file, FcntlArg::F_GETLK(&mut whole))?;
                if whole.l_type == short(libc::F_UNLCK) {
                    // Lifted between the two calls.
                    continue;
                }
                return Ok(Attempt::Held(Some(whole.l_pid).filter(|pid| *pid > 0)));
            }
            Err(errno) => return Err(errno.into()),
        }
        // Its last holder may have removed it after we opened it: then it guards nothing.
        if is_at(&file, path) {
            return Ok(Attempt::Taken(Lock {
                path: path.to_owned(),
                file,
            }));
        }
    }
    Err(io::Error::other("the lock file keeps vanishing"))
}

/// Whether `path` still names `file`.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

/// From the first byte to the end, however far that is; shut out everybody else.
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: short(libc::F_WRLCK),
        l_whence: short(libc::SEEK_SET),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
        #[cfg(target_os = "freebsd")]
        l_sysid: 0,
    }
}

/// The constants are small, on some systems `int`, and the fields narrower than that.
fn short(value: impl TryInto<i16>) -> i16 {
    value.try_into().unwrap_or(0)
}
