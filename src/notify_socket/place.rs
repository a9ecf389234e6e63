//! Where the socket stands: in a directory of its own, for some clients know no other address than a path.
//!
//! The directory has a name that nobody guesses and, where the command may become another user because we
//! are root, can be entered by everybody but not listed. Whoever sends is looked at in any case. Where there
//! is no place for a directory (all file systems read-only), the abstract namespace has to do (unix(7)).

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};

/// What the directories' names begin with; our process id and a random number follow.
const NAME: &str = "supervisor-notify-";
/// The socket in it.
const SOCKET: &str = "socket";

/// A place, which is given up when it is dropped.
pub struct Place {
    directory: Option<PathBuf>,
    /// As it stands in `NOTIFY_SOCKET`.
    pub address: OsString,
}

impl Place {
    /// Finds one, and binds a socket there.
    ///
    /// # Errors
    /// Where not even the abstract namespace has one (descriptor limit).
    pub fn bind() -> io::Result<(Self, UnixDatagram)> {
        let number = RandomState::new().hash_one(0u8);
        let name = format!("{NAME}{}.{number:016x}", std::process::id());
        for base in bases() {
            if let Ok(bound) = Self::bind_in(&base, &name) {
                return Ok(bound);
            }
        }
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        let place = Self {
            directory: None,
            address: format!("@{name}").into(),
        };
        Ok((place, socket))
    }

    fn bind_in(base: &Path, name: &str) -> io::Result<(Self, UnixDatagram)> {
        clear(base);
        let (enter, send) = if geteuid().is_root() {
            (0o711, 0o666)
        } else {
            (0o700, 0o600)
        };
        let directory = base.join(name);
        DirBuilder::new().mode(0o700).create(&directory)?;
        let path = directory.join(SOCKET);
        // From here on it is removed if anything fails.
        let place = Self {
            address: path.clone().into(),
            directory: Some(directory.clone()),
        };
        let socket = UnixDatagram::bind(&path)?;
        // Whatever the umask is.
        fs::set_permissions(&path, Permissions::from_mode(send))?;
        fs::set_permissions(&directory, Permissions::from_mode(enter))?;
        Ok((place, socket))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            remove(directory);
        }
    }
}

/// In this order: what is in memory and goes with the machine's next start comes first.
fn bases() -> impl Iterator<Item = PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let first = if geteuid().is_root() {
        Some("/run".into())
    } else {
        runtime
    };
    let all = first.into_iter().chain([std::env::temp_dir()]);
    all.filter(|base| base.is_absolute())
}

/// Removes what supervisors of ours left that were killed.
fn clear(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(NAME)?.split('.').next()?.parse().ok());
        let Some(pid) = pid.map(Pid::from_raw) else {
            continue;
        };
        let ours = |found: fs::Metadata| found.is_dir() && found.uid() == geteuid().as_raw();
        if entry.metadata().is_ok_and(ours) && is_dead(&entry.path().join(SOCKET), pid) {
            remove(&entry.path());
        }
    }
}

/// Whether nobody has this socket open any more. Its owner, who had this process id, may have lived in another
/// pid namespace, where there may be such a process still; or it may be our own number, as that of every
/// first process of a container.
fn is_dead(socket: &Path, owner: Pid) -> bool {
    let connected = UnixDatagram::unbound().and_then(|probe| probe.connect(socket));
    match connected.map_err(|error| error.kind()) {
        Err(io::ErrorKind::ConnectionRefused) => true,
        // It may not be there yet.
        Err(io::ErrorKind::NotFound) => kill(owner, None) == Err(Errno::ESRCH),
        Ok(()) | Err(_) => false,
    }
}

fn remove(directory: &Path) {
    let _ = fs::remove_file(directory.join(SOCKET));
    let _ = fs::remove_dir(directory);
}
