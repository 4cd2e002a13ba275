//! Descriptors the process was started with, named by number (`fd=N`).
#![expect(unsafe_code, reason = "OS call: a number becomes a descriptor")]

use crate::{Error, Result};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::os::fd::{FromRawFd, OwnedFd};

/// Numbers handed out so far: each may have one owner only.
static TAKEN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Takes descriptor `number` over; it is closed with the returned owner.
pub(crate) fn take(number: i32) -> Result<OwnedFd> {
    let bad = |why: &str| Error::Config(format!("Invalid file descriptor {number}: {why}"));
    if number < 3 {
        return Err(bad("it must be one beyond standard error that the process was started with"));
    }
    // A directory entry per open descriptor: looking it up opens nothing.
    if std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
        return Err(bad("it is not open"));
    }
    if !TAKEN.lock().insert(number) {
        return Err(bad("it is already in use"));
    }
    // SAFETY: the number is an open descriptor (checked above), nobody took it through here before (`TAKEN`), and descriptors
    // that this process opened itself are never named on a command line.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    let flags = rustix::io::fcntl_getfd(&fd).map_err(Error::host("fcntl"))?;
    rustix::io::fcntl_setfd(&fd, flags | rustix::io::FdFlags::CLOEXEC).map_err(Error::host("fcntl"))?;
    Ok(fd)
}
