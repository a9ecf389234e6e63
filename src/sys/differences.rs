//! What differs between Linux and others, and takes no `unsafe`; see the module above.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::SocketAddr;
use std::path::Path;

/// Whether the descendants of a process can stand in `/proc`.
pub const LISTS_DESCENDANTS: bool = cfg!(target_os = "linux");

/// From now on orphans among our descendants are re-parented to us, as they else are to init (prctl(2));
/// whether there is such a thing.
///
/// # Errors
/// Those of prctl(2).
#[cfg(target_os = "linux")]
pub fn adopt_orphans() -> nix::Result<bool> {
    nix::sys::prctl::set_child_subreaper(true).map(|()| true)
}

/// # Errors
/// Never.
#[cfg(not(target_os = "linux"))]
pub fn adopt_orphans() -> nix::Result<bool> {
    Ok(false)
}

/// The user and the process at the other end of a socket.
///
/// # Errors
/// Those of getsockopt(2).
#[cfg(target_os = "linux")]
pub fn peer(stream: impl AsFd) -> nix::Result<(u32, i32)> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    let peer = getsockopt(&stream, PeerCredentials)?;
    Ok((peer.uid(), peer.pid()))
}

/// The user at the other end; its process is not told.
///
/// # Errors
/// Those of getpeereid(3).
#[cfg(not(target_os = "linux"))]
pub fn peer(stream: impl AsFd) -> nix::Result<(u32, i32)> {
    let (user, _) = nix::unistd::getpeereid(stream)?;
    Ok((user.as_raw(), 0))
}

/// The address of a socket that has no place in a file system (unix(7)).
///
/// # Errors
/// Where it is too long.
#[cfg(target_os = "linux")]
pub fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether a file at `place`, which is there, costs no write to a disk: tmpfs(5) or ramfs. True where it
/// can't be told.
#[cfg(target_os = "linux")]
pub fn is_in_memory(place: &Path) -> bool {
    use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
    /// linux/magic.h
    const RAMFS_MAGIC: FsType = FsType(0x8584_58f6_u32 as _);
    statfs(place).is_ok_and(|fs| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&fs.filesystem_type()))
}

/// It is not told.
#[cfg(not(target_os = "linux"))]
pub fn is_in_memory(_: &Path) -> bool {
    true
}
