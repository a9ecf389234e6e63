//! System calls by their names: those in which a program waits. A number is no help to a person, and the
//! same call has another number on each architecture.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::libc;

use crate::text::Quoted;

/// Those whose first argument is a descriptor, which is then shown with what it is.
#[cfg(target_os = "linux")]
const ON_DESCRIPTORS: &[(libc::c_long, &str)] = &[
    (libc::SYS_read, "read"),
    (libc::SYS_readv, "readv"),
    (libc::SYS_pread64, "pread64"),
    (libc::SYS_write, "write"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_recvfrom, "recvfrom"),
    (libc::SYS_recvmsg, "recvmsg"),
    (libc::SYS_recvmmsg, "recvmmsg"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_sendmmsg, "sendmmsg"),
    (libc::SYS_sendfile, "sendfile"),
    (libc::SYS_splice, "splice"),
    #[cfg(not(target_arch = "x86"))]
    (libc::SYS_accept, "accept"),
    (libc::SYS_accept4, "accept4"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_flock, "flock"),
    (libc::SYS_fcntl, "fcntl"),
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_close, "close"),
    (libc::SYS_io_uring_enter, "io_uring_enter"),
    (libc::SYS_mq_timedreceive, "mq_timedreceive"),
];
#[cfg(target_os = "linux")]
const OTHERS: &[(libc::c_long, &str)] = &[
    (libc::SYS_epoll_pwait, "epoll_pwait"),
    (libc::SYS_epoll_pwait2, "epoll_pwait2"),
    (libc::SYS_ppoll, "ppoll"),
    (libc::SYS_pselect6, "pselect6"),
    (libc::SYS_futex, "futex"),
    (libc::SYS_nanosleep, "nanosleep"),
    (libc::SYS_clock_nanosleep, "clock_nanosleep"),
    (libc::SYS_wait4, "wait4"),
    (libc::SYS_waitid, "waitid"),
    (libc::SYS_rt_sigsuspend, "rt_sigsuspend"),
    (libc::SYS_rt_sigtimedwait, "rt_sigtimedwait"),
    (libc::SYS_io_getevents, "io_getevents"),
    #[cfg(not(target_arch = "x86"))]
    (libc::SYS_semtimedop, "semtimedop"),
    #[cfg(not(target_arch = "x86"))]
    (libc::SYS_msgrcv, "msgrcv"),
    #[cfg(not(target_arch = "x86"))]
    (libc::SYS_msgsnd, "msgsnd"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_sync, "sync"),
    (libc::SYS_clone, "clone"),
    (libc::SYS_clone3, "clone3"),
    (libc::SYS_execve, "execve"),
    (libc::SYS_exit_group, "exit_group"),
    #[cfg(not(any(target_arch = "arm", target_arch = "x86")))]
    (libc::SYS_mmap, "mmap"),
    #[cfg(any(target_arch = "arm", target_arch = "x86"))]
    (libc::SYS_mmap2, "mmap"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_restart_syscall, "restart_syscall"),
];
/// Those that younger processors do without.
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm")
))]
const OLD: &[(libc::c_long, &str)] = &[
    (libc::SYS_poll, "poll"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_select, "select"),
    #[cfg(not(target_arch = "x86_64"))]
    (libc::SYS__newselect, "select"),
    (libc::SYS_epoll_wait, "epoll_wait"),
    (libc::SYS_pause, "pause"),
    (libc::SYS_open, "open"),
    (libc::SYS_fork, "fork"),
    (libc::SYS_vfork, "vfork"),
];
/// The calls above as who counts time in 64 bits makes them where a word has 32: the same numbers on all such
/// processors, which the library does not name on each.
#[cfg(all(target_os = "linux", target_pointer_width = "32"))]
const LONG_TIME: &[(libc::c_long, &str)] = &[
    (407, "clock_nanosleep"),
    (413, "pselect6"),
    (414, "ppoll"),
    (417, "recvmmsg"),
    (419, "mq_timedreceive"),
    (420, "semtimedop"),
    (421, "rt_sigtimedwait"),
    (422, "futex"),
];
/// There is no such file.
#[cfg(not(target_os = "linux"))]
const ON_DESCRIPTORS: &[(libc::c_long, &str)] = &[];
#[cfg(not(target_os = "linux"))]
const OTHERS: &[(libc::c_long, &str)] = &[];
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm")
)))]
const OLD: &[(libc::c_long, &str)] = &[];
#[cfg(not(all(target_os = "linux", target_pointer_width = "32")))]
const LONG_TIME: &[(libc::c_long, &str)] = &[];

/// The one line of proc_pid_syscall(5) as it is shown: `read fd=0 on=pipe:[4711]`. `place` is the thread's
/// directory.
pub fn shown(text: &str, place: &Path) -> String {
    let mut words = text.split(' ');
    let number = match words.next() {
        // On a processor, so in no call that could be named.
        Some("running") => return "running".to_owned(),
        // Stopped, or in a fault of a page.
        Some("-1") => return "none".to_owned(),
        Some(number) => number,
        None => "",
    };
    let named = |calls: &[(libc::c_long, &'static str)]| {
        let known = calls.iter().find(|(call, _)| number.parse() == Ok(*call));
        known.map(|(_, name)| *name)
    };
    let on_descriptor = named(ON_DESCRIPTORS);
    let other = || [OTHERS, OLD, LONG_TIME].into_iter().find_map(named);
    let name = on_descriptor.or_else(other);
    let Some(name) = name.filter(|_| counts_as_we_do(place)) else {
        return Quoted::text(number).to_string();
    };
    let mut line = name.to_owned();
    let argument = words.next().and_then(|word| word.strip_prefix("0x"));
    if on_descriptor.is_some()
        && let Some(fd) = argument.and_then(|digits| u64::from_str_radix(digits, 16).ok())
    {
        let _ = write!(line, " fd={fd}");
        if let Ok(target) = std::fs::read_link(place.join(format!("fd/{fd}"))) {
            let _ = write!(line, " on={}", Quoted::path(&target));
        }
    }
    line
}

/// Whether its words are as long as ours, as far as can be seen: a 32-bit program on a 64-bit kernel has
/// other numbers for its calls. By the first words of its auxiliary vector, a small number and what belongs
/// to it (getauxval(3)): unlike its program, which may be on a disk that does not answer, this is in memory.
fn counts_as_we_do(place: &Path) -> bool {
    let mut words = [0; 8];
    let read = File::open(place.join("auxv")).and_then(|mut auxv| auxv.read_exact(&mut words));
    let halves = words.split_at(4);
    let is_long = halves.0 == [0; 4] || halves.1 == [0; 4];
    read.is_err() || is_long == cfg!(target_pointer_width = "64")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_a_program_with_other_words_has_no_name() {
        let name = format!("supervisor-call-{}", std::process::id());
        let place = std::env::temp_dir().join(name);
        std::fs::create_dir(&place).unwrap();
        let number = libc::SYS_read.to_string();
        let text = format!("{number} 0xffff");
        let long = cfg!(target_pointer_width = "64");
        let named = |it_is: bool| if it_is { "read fd=65535" } else { &number };
        // AT_SYSINFO_EHDR, and where that is.
        let words = [33u64.to_ne_bytes(), 0x7fff_f7fc_1000u64.to_ne_bytes()].concat();
        std::fs::write(place.join("auxv"), words).unwrap();
        assert_eq!(shown(&text, &place), named(long));
        let words = [33u32.to_ne_bytes(), 0xf7fc_1000u32.to_ne_bytes()].concat();
        std::fs::write(place.join("auxv"), words).unwrap();
        assert_eq!(shown(&text, &place), named(!long));
        // What may not be read.
        std::fs::remove_dir_all(&place).unwrap();
        assert_eq!(shown(&text, &place), named(true));
    }

    #[test]
    fn a_call_has_a_name_and_its_descriptor() {
        let me = Path::new("/proc/self");
        let read = libc::SYS_read;
        let null = std::fs::File::open("/dev/null").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&null);
        let shown_now = shown(&format!("{read} {fd:#x} 0x1 0x2 0x0 0x0 0x0 0x7f 0x7f"), me);
        assert_eq!(shown_now, format!("read fd={fd} on=/dev/null"));
        assert_eq!(shown(&format!("{read} 0xffff 0x1"), me), "read fd=65535");
        assert_eq!(
            shown(&format!("{} 0x7f 0x80", libc::SYS_futex), me),
            "futex"
        );
        for (text, expected) in [
            ("running", "running"),
            ("-1 0x7f 0x7f", "none"),
            ("9999 0x0", "9999"),
        ] {
            assert_eq!(shown(text, me), expected);
        }
        assert_eq!(shown("", me), "\"\"");
    }
}
