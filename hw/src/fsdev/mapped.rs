//! Owners, modes and device numbers in extended attributes, as QEMU's `security_model=mapped-xattr` keeps them: little-endian numbers
//! named `user.virtfs.*`, which the guest does not see.
//!
//! Attributes of a name in a folder are reached through the folder's descriptor in `/proc/self/fd`: the name is the last component and not
//! followed, and nobody can put anything before it.

use rustix::fs::{XattrFlags, getxattr, lgetxattr, llistxattr, lremovexattr, lsetxattr};
use rustix::io::{Errno, Result};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};

/// Attributes that are ours.
const OURS: &[u8] = b"user.virtfs.";
/// Most bytes of an attribute, and of the list of names. Linux's `XATTR_SIZE_MAX`.
pub const MAX: usize = 65536;

/// What is kept of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Mode, with the kind of file.
    pub mode: Option<u32>,
    /// Device number.
    pub rdev: Option<u64>,
}

/// Path of a name in an open folder.
pub fn proc_path(dir: &OwnedFd, name: &CStr) -> Result<CString> {
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name.to_bytes()].concat();
    CString::new(path).map_err(|_| Errno::INVAL)
}

type Get = fn(&CStr, &str, &mut [u8]) -> Result<usize>;

fn number<const N: usize>(get: Get, path: &CStr, name: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let n = get(path, name, &mut bytes[..]).ok()?;
    (n == N).then_some(bytes)
}

impl Kept {
    /// What is kept of a file, by its [`proc_path`].
    pub fn of(path: &CStr) -> Self {
        Self::read(|path, name, to| lgetxattr(path, name, to), path)
    }

    /// What is kept of an open file, by its descriptor's link in `/proc`.
    pub fn of_open(path: &CStr) -> Self {
        Self::read(|path, name, to| getxattr(path, name, to), path)
    }

    fn read(get: Get, path: &CStr) -> Self {
        let word = |name| number(get, path, name).map(u32::from_le_bytes);
        Self {
            uid: word("user.virtfs.uid"),
            gid: word("user.virtfs.gid"),
            mode: word("user.virtfs.mode"),
            rdev: number(get, path, "user.virtfs.rdev").map(u64::from_le_bytes),
        }
    }

    /// Keeps what is given; the rest stays.
    ///
    /// # Errors
    /// The host's.
    pub fn keep(&self, path: &CStr) -> Result<()> {
        let set = |name: &str, bytes: &[u8]| lsetxattr(path, name, bytes, XattrFlags::empty());
        let words = [("user.virtfs.uid", self.uid), ("user.virtfs.gid", self.gid), ("user.virtfs.mode", self.mode)];
        for (name, v) in words {
            if let Some(v) = v {
                set(name, &v.to_le_bytes())?;
            }
        }
        self.rdev.map_or(Ok(()), |v| set("user.virtfs.rdev", &v.to_le_bytes()))
    }
}

/// The host's name of an attribute that the guest names; `mapped`: ours are kept from it, and lists of permissions are kept like them.
///
/// # Errors
/// The guest may not have it.
pub fn host_name(name: &[u8], mapped: bool) -> Result<CString> {
    let acl = name.starts_with(b"system.posix_acl_");
    let host = match (name.starts_with(b"user."), mapped) {
        (true, true) if name.starts_with(OURS) => return Err(Errno::ACCESS),
        (true, _) => name.to_vec(),
        (false, true) if acl => [OURS, name].concat(),
        (false, false) if acl => name.to_vec(),
        _ => return Err(Errno::OPNOTSUPP),
    };
    CString::new(host).map_err(|_| Errno::INVAL)
}

/// The value of an attribute.
///
/// # Errors
/// The host's.
pub fn get(path: &CStr, name: &CStr) -> Result<Vec<u8>> {
    let mut bytes = vec![0; MAX];
    let n = lgetxattr(path, name, &mut bytes[..])?;
    bytes.truncate(n);
    Ok(bytes)
}

/// Sets an attribute.
///
/// # Errors
/// The host's.
pub fn set(path: &CStr, name: &CStr, value: &[u8], flags: XattrFlags) -> Result<()> {
    lsetxattr(path, name, value, flags)
}

/// Removes an attribute.
///
/// # Errors
/// The host's.
pub fn remove(path: &CStr, name: &CStr) -> Result<()> {
    lremovexattr(path, name)
}

/// Names of a file's attributes as the guest sees them, each with a zero at its end.
///
/// # Errors
/// The host's.
pub fn list(path: &CStr, mapped: bool) -> Result<Vec<u8>> {
    let mut bytes = vec![0; MAX];
    let n = llistxattr(path, &mut bytes[..])?;
    bytes.truncate(n);
    let mut names = vec![];
    for name in bytes.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let shown = match name.strip_prefix(OURS) {
            Some(acl) if mapped && acl.starts_with(b"system.posix_acl_") => acl,
            Some(_) if mapped => continue,
            _ => name,
        };
        names.extend_from_slice(shown);
        names.push(0);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_has_its_own_attributes_and_no_others() {
        let name = |n: &str, mapped| host_name(n.as_bytes(), mapped).map(|n| n.into_string().unwrap());
        assert_eq!(name("user.a", true).unwrap(), "user.a");
        assert_eq!(name("user.virtfs.uid", true), Err(Errno::ACCESS));
        assert_eq!(name("user.virtfs.uid", false).unwrap(), "user.virtfs.uid");
        assert_eq!(name("system.posix_acl_access", true).unwrap(), "user.virtfs.system.posix_acl_access");
        assert_eq!(name("system.posix_acl_access", false).unwrap(), "system.posix_acl_access");
        for other in ["security.capability", "trusted.x", "system.nfs4_acl", "", "userx"] {
            assert_eq!(name(other, true), Err(Errno::OPNOTSUPP), "{other}");
        }
        assert_eq!(host_name(b"user.a\0b", true), Err(Errno::INVAL));
    }
}
