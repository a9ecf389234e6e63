//! What one look at the heartbeat file shows.

use std::fs::{self, Metadata};
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
        Self::again(path, None)
    }

    /// The same, and `before` where it can't be told: a network file system that does not answer
    /// has neither removed the file nor made it anew.
    #[must_use]
    pub fn again(path: &Path, before: Option<Self>) -> Option<Self> {
        match fs::metadata(path) {
            Ok(file) => Some(Self::from(&file)),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => None,
                _ => before,
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
