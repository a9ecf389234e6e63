//! A claim that ends with the process that made it: to a heartbeat file, to a name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, O_NOFOLLOW, O_NONBLOCK};

/// How often a lock file that vanishes while it is being taken is tried again.
const TRIES: usize = 100;

/// A record lock (fcntl(2), `F_SETLK`) on a file of its own. The kernel lifts it with
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

    /// Who holds the lock at `path`, which is not taken for that; None: nobody.
    ///
    /// # Errors
    /// Where that can't be asked.
    pub fn holder(path: &Path) -> io::Result<Option<i32>> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK);
        let mut whole = whole_file();
        fcntl(&options.open(path)?, FcntlArg::F_GETLK(&mut whole))?;
        Ok((whole.l_type != short(libc::F_UNLCK)).then_some(whole.l_pid))
    }

    /// Takes the lock at `path`, and makes the file that it needs.
    ///
    /// # Errors
    /// Where no lock can be had: a directory that may not be written, somebody else's file.
    pub fn take(path: &Path) -> io::Result<Claim> {
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
                    return Ok(Claim::Held(Some(whole.l_pid).filter(|pid| *pid > 0)));
                }
                Err(errno) => return Err(errno.into()),
            }
            // Its last holder may have removed it after we opened it: then it guards nothing.
            if is_at(&file, path) {
                return Ok(Claim::Ours(Lock {
                    path: path.to_owned(),
                    file,
                }));
            }
        }
        Err(io::Error::other("the lock file keeps vanishing"))
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

/// What a try to take a lock comes to.
pub enum Claim {
    /// It is ours.
    Ours(Lock),
    /// It is held by this process, which the kernel does not name across pid namespaces.
    Held(Option<i32>),
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
