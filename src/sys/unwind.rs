//! What std needs of libgcc to print a backtrace, for a build in which a panic aborts and that has no
//! symbols left to print: the stack ends at once. So std's readers of debug information, 200 kB of
//! code, are not linked, nor is libgcc_s, which costs each instance two pages and its start 0.1 ms.
//! (A panic's own line is printed as ever.)
//!
//! The names, and what they are given, are those of the Itanium C++ ABI's base ABI for exceptions, as
//! `<unwind.h>` has them.

use std::ffi::{c_int, c_void};
use std::ptr;

/// `_URC_END_OF_STACK`
const END_OF_STACK: c_int = 5;

// SAFETY (of all names here): libgcc's are defined in a shared library, over which a program's own go; and
// they are this program's alone, not those of a library that is loaded into it and does unwind. The
// arguments are looked at by none of them.
std::arch::global_asm!(
    ".hidden _Unwind_Backtrace",
    ".hidden _Unwind_Resume",
    ".hidden _Unwind_GetIP",
    ".hidden _Unwind_GetIPInfo",
    ".hidden _Unwind_GetLanguageSpecificData",
    ".hidden _Unwind_GetRegionStart",
    ".hidden _Unwind_GetTextRelBase",
    ".hidden _Unwind_GetDataRelBase",
    ".hidden _Unwind_SetGR",
    ".hidden _Unwind_SetIP",
);

/// Walks over no frame.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_visit: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

/// Is called where a panic that unwinds has been through a frame: there are none.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume(_exception: *mut c_void) -> ! {
    std::process::abort()
}

// The rest is asked of a frame, and there are none.

#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetIP(_frame: *const c_void) -> usize {
    0
}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetIPInfo(_frame: *const c_void, _is_before: *mut c_int) -> usize {
    0
}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetLanguageSpecificData(_frame: *const c_void) -> *const c_void {
    ptr::null()
}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetRegionStart(_frame: *const c_void) -> usize {
    0
}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetTextRelBase(_frame: *const c_void) -> usize {
    0
}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetDataRelBase(_frame: *const c_void) -> usize {
    0
}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_SetGR(_frame: *mut c_void, _register: c_int, _value: usize) {}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_SetIP(_frame: *mut c_void, _address: usize) {}
