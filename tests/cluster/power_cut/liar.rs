//! A library that is loaded before the system's and says that everything is synced, without having done it, as long as the
//! file named by `LIAR_SWITCH` exists. With it the test of power cuts shows that it finds what is lost.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;

/// `RTLD_NEXT`: the library that would be asked without this one.
const NEXT: *mut c_void = usize::MAX as *mut c_void;

unsafe extern "C" {
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn access(path: *const c_char, mode: c_int) -> c_int;
    fn getenv(name: *const c_char) -> *const c_char;
}

fn lies() -> bool {
    // SAFETY: both strings end with a zero, and nobody changes the environment.
    unsafe {
        let switch = getenv(c"LIAR_SWITCH".as_ptr());
        !switch.is_null() && access(switch, 0) == 0
    }
}

fn the_systems(name: &CStr) -> *mut c_void {
    // SAFETY: the name ends with a zero.
    let function = unsafe { dlsym(NEXT, name.as_ptr()) };
    assert!(!function.is_null(), "the system has it");
    function
}

#[unsafe(no_mangle)]
pub extern "C" fn fsync(file: c_int) -> c_int {
    type Sync = extern "C" fn(c_int) -> c_int;
    // SAFETY: the system's function of this name has this type.
    let sync: Sync = unsafe { transmute(the_systems(c"fsync")) };
    if lies() { 0 } else { sync(file) }
}

#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(file: c_int) -> c_int {
    type Sync = extern "C" fn(c_int) -> c_int;
    // SAFETY: as above.
    let sync: Sync = unsafe { transmute(the_systems(c"fdatasync")) };
    if lies() { 0 } else { sync(file) }
}

#[unsafe(no_mangle)]
pub extern "C" fn sync_file_range(file: c_int, from: i64, count: i64, flags: u32) -> c_int {
    type Sync = extern "C" fn(c_int, i64, i64, u32) -> c_int;
    // SAFETY: as above.
    let sync: Sync = unsafe { transmute(the_systems(c"sync_file_range")) };
    if lies() {
        0
    } else {
        sync(file, from, count, flags)
    }
}
