//! What one look at the heartbeat file shows.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::libc;

/// The marks of a file that tell whether it changed. A link shows those of the file behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds. Only ever compared, never taken for a time: clocks are set.
    modified: (i64, i64),
    /// The same for mode, owner and links, which no `touch -d` can set back.
    changed: (i64, i64),
}

impl Look {
    /// None where there is no file.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        Self::ask(path).ok().flatten()
    }

    /// The same, and `before` where it can't be told: a network file system that does not answer
    /// has neither removed the file nor made it anew.
    #[must_use]
    pub fn again(path: &Path, before: Option<Self>) -> Option<Self> {
        Self::ask(path).unwrap_or(before)
    }

    /// The same, where it can't be told as what it is.
    ///
    /// # Errors
    /// Those of stat(2) that do not say that there is no file.
    pub fn ask(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(file) => Ok(Some(Self::from(&file))),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Whether both are the same file.
    #[must_use]
    pub fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether the same file was left as it was: a change of its mode or owner is no change.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.same_file(other) && (self.size, self.modified) == (other.size, other.modified)
    }

    /// The same on a file system that knows whole seconds.
    #[cfg(test)]
    pub fn coarse(mut self) -> Self {
        (self.modified.1, self.changed.1) = (0, 0);
        self
    }

    /// Whether its times are finer than a tick of the system's clock, so that they are that clock's: they
    /// have nanoseconds. (On some file systems they are whole seconds, or ten milliseconds.)
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.changed.1 % 1_000_000 != 0
    }
}

impl From<&Metadata> for Look {
    fn from(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}
