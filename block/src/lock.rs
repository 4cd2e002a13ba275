//! Locks on image files that other processes see: open file description locks on the bytes QEMU uses, so that its programs and
//! this one respect each other. Source: `docs/system/images` of QEMU ("image locking"), bytes as seen in /proc/locks: a permission held is a
//! shared lock on byte 100 + n, one denied to others a shared lock on byte 200 + n.
#![expect(unsafe_code, reason = "fcntl's open file description locks have no safe wrapper among our crates")]

use crate::node::Perm;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

const HELD: i64 = 100;
const DENIED: i64 = 200;

fn flock(kind: libc::c_int, start: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: 1,
        l_pid: 0,
    }
}

fn set(file: &File, kind: libc::c_int, byte: i64) -> io::Result<()> {
    let lock = flock(kind, byte);
    // SAFETY: the descriptor is open as long as `file`, and F_OFD_SETLK reads one `flock`, which `lock` is.
    let r = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether another open file description has a lock on `byte`.
fn is_locked(file: &File, byte: i64) -> io::Result<bool> {
    let mut lock = flock(libc::F_WRLCK, byte);
    // SAFETY: the descriptor is open as long as `file`, and F_OFD_GETLK reads and writes one `flock`, which `lock` is.
    let r = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if r != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

/// What a file's locks say now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Locks {
    pub held: Perm,
    pub denied: Perm,
}

impl Locks {
    pub(crate) const NONE: Self = Self { held: Perm::empty(), denied: Perm::empty() };
}

fn apply(file: &File, from: Perm, to: Perm, base: i64, release: bool) -> io::Result<()> {
    for (n, bit) in Perm::all().iter().enumerate() {
        let byte = base + n as i64;
        match (from.contains(bit), to.contains(bit)) {
            (false, true) if !release => set(file, libc::F_RDLCK, byte)?,
            (true, false) if release => set(file, libc::F_UNLCK, byte)?,
            _ => {}
        }
    }
    Ok(())
}

/// Changes the locks of `file`; on an error they are as before.
///
/// # Errors
/// Another process has, or denies, one of them: its name.
pub(crate) fn change(file: &File, from: Locks, to: Locks) -> Result<(), &'static str> {
    let attempt = || -> Result<(), &'static str> {
        let failed = |_| "access";
        apply(file, from.held, to.held, HELD, false).map_err(failed)?;
        apply(file, from.denied, to.denied, DENIED, false).map_err(failed)?;
        for (n, bit) in Perm::all().iter().enumerate() {
            let n = n as i64;
            if to.held.contains(bit) && is_locked(file, DENIED + n).map_err(failed)? {
                return Err(bit.word());
            }
            if to.denied.contains(bit) && is_locked(file, HELD + n).map_err(failed)? {
                return Err(bit.word());
            }
        }
        Ok(())
    };
    let result = attempt();
    let (have, want) = match result {
        Ok(()) => (from, to),
        Err(_) => (Locks { held: from.held | to.held, denied: from.denied | to.denied }, from),
    };
    // Giving locks back fails only if the descriptor is broken, which the next access finds out.
    _ = apply(file, have.held, want.held, HELD, true);
    _ = apply(file, have.denied, want.denied, DENIED, true);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_descriptions_of_a_file_see_each_other() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(path.path()).unwrap();
        let (a, b) = (open(), open());
        let writer = Locks { held: Perm::READ | Perm::WRITE, denied: Perm::WRITE | Perm::RESIZE };
        let reader = Locks { held: Perm::READ, denied: Perm::WRITE };
        assert_eq!(change(&a, Locks::NONE, writer), Ok(()));
        assert_eq!(change(&b, Locks::NONE, writer), Err("write"));
        assert_eq!(change(&b, Locks::NONE, reader), Err("write"));
        assert_eq!(change(&b, Locks::NONE, Locks { held: Perm::READ, denied: Perm::empty() }), Ok(()));
        assert_eq!(change(&a, writer, Locks::NONE), Ok(()));
        assert_eq!(change(&b, Locks { held: Perm::READ, denied: Perm::empty() }, reader), Ok(()));
        assert_eq!(change(&a, Locks::NONE, reader), Ok(()));
        assert_eq!(change(&a, reader, writer), Err("write"));
        assert_eq!(change(&b, reader, Locks::NONE), Ok(()));
        assert_eq!(change(&a, reader, writer), Ok(()));
    }
}
