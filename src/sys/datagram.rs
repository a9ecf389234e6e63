//! Messages with their sender's credentials; see the module above.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;

/// Room for the sender's credentials, aligned as a header has to be, and for nothing else: descriptors
/// that come along find none, and are closed by the kernel (unix(7)).
#[repr(C)]
struct Room {
    header: libc::cmsghdr,
    sender: libc::ucred,
}

/// Takes one message: how long it is (not more than there is room for), and the user and the process that
/// sent it, where the kernel tells (`SO_PASSCRED`). Does not wait.
///
/// # Errors
/// Those of recvmsg(2); `EAGAIN` where there is none.
pub fn receive(socket: impl AsFd, bytes: &mut [u8]) -> nix::Result<(usize, Option<(u32, i32)>)> {
    let mut room = MaybeUninit::<Room>::zeroed();
    let mut place = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: msghdr is plain data, for which zeroes are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut place;
    message.msg_iovlen = 1;
    message.msg_control = room.as_mut_ptr().cast();
    // Of another type in each C library, and so is the length below.
    message.msg_controllen = size_of::<Room>() as _;
    let (fd, flags) = (socket.as_fd().as_raw_fd(), libc::MSG_DONTWAIT);
    // SAFETY: `message` names two places that live and are as long as it says.
    let received = unsafe { libc::recvmsg(fd, &raw mut message, flags) };
    let length = usize::try_from(received).map_err(|_| Errno::last())?;
    // SAFETY: CMSG_FIRSTHDR gives a header inside `room`, or null where the kernel wrote none; its data
    // is looked at only where it says that it holds credentials.
    let sender = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let is_sender = !header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_CREDENTIALS
            && (*header).cmsg_len >= libc::CMSG_LEN(size_of::<libc::ucred>() as u32) as _;
        is_sender.then(|| ptr::read_unaligned(libc::CMSG_DATA(header).cast::<libc::ucred>()))
    };
    Ok((length, sender.map(|sender| (sender.uid, sender.pid))))
}
