//! The dialect 9P2000.u: what drivers say that know no other. Source: Van Hensbergen, "Plan 9 Remote Resource Protocol, Unix extension"
//! (9P2000.u); open(5), stat(5) of Plan 9.
//!
//! Files are opened by `Topen` and made by `Tcreate`, whose *permissions* also say what kind of file it is; attributes are one structure;
//! a folder is read as bytes that hold such structures. Errors have a text beside the number.

use super::server::{Open, Server};
use super::wire::Body;
use crate::fsdev::{Attr, Handle, NewFile, Path};
use rustix::fs::{FileType, OFlags, Timespec, UTIME_OMIT};
use rustix::io::{Errno, Result};

/// Kinds and bits of permissions that are not `chmod`'s.
mod perm {
    pub const DIR: u32 = 0x8000_0000;
    pub const SYMLINK: u32 = 0x0200_0000;
    pub const LINK: u32 = 0x0100_0000;
    pub const DEVICE: u32 = 0x0080_0000;
    pub const PIPE: u32 = 0x0020_0000;
    pub const SOCKET: u32 = 0x0010_0000;
    pub const SETUID: u32 = 0x0008_0000;
    pub const SETGID: u32 = 0x0004_0000;
}

/// A word that means: as before.
const KEEP: u32 = u32::MAX;
const KEEP_LONG: u64 = u64::MAX;

/// New attributes, of `Twstat`; those that are all ones stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the protocol's names")]
pub struct Wstat {
    pub mode: u32,
    pub atime: u32,
    pub mtime: u32,
    pub length: u64,
    pub name: Vec<u8>,
    pub n_uid: u32,
    pub n_gid: u32,
}

/// Permissions as the dialect has them.
fn perm_of(a: &Attr) -> u32 {
    let kind = match a.kind() {
        FileType::Directory => perm::DIR,
        FileType::Symlink => perm::SYMLINK,
        FileType::CharacterDevice | FileType::BlockDevice => perm::DEVICE,
        FileType::Fifo => perm::PIPE,
        FileType::Socket => perm::SOCKET,
        _ => 0,
    };
    let set = [(0o4000, perm::SETUID), (0o2000, perm::SETGID)];
    set.into_iter().filter(|(bit, _)| a.mode & bit != 0).fold(kind | a.mode & 0o777, |all, (_, p)| all | p)
}

/// Mode bits of permissions.
fn mode_of(p: u32) -> u32 {
    let set = [(perm::SETUID, 0o4000), (perm::SETGID, 0o2000)];
    set.into_iter().filter(|(bit, _)| p & bit != 0).fold(p & 0o777, |all, (_, m)| all | m)
}

/// `b 8 0`: kind and numbers of a device.
fn device_of(text: &[u8]) -> Option<(FileType, u32, u32)> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let kind = match words.next()? {
        "b" => FileType::BlockDevice,
        "c" => FileType::CharacterDevice,
        _ => return None,
    };
    let numbers = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then_some((kind, numbers.0, numbers.1))
}

/// Flags of an open mode.
fn flags_of(mode: u8) -> OFlags {
    let access = match mode & 3 {
        1 => OFlags::WRONLY,
        2 => OFlags::RDWR,
        _ => OFlags::RDONLY,
    };
    let rest = [(0x10, OFlags::TRUNC), (0x80, OFlags::APPEND)];
    rest.into_iter().filter(|(bit, _)| mode & bit != 0).fold(access, |all, (_, f)| all | f)
}

impl Server {
    /// `Topen`.
    pub(super) fn open_by_mode(&mut self, fid: u32, mode: u8) -> Result<Body> {
        self.open(fid, flags_of(mode))
    }

    /// `Tcreate`: makes what `p` says, and opens it where that makes sense.
    pub(super) fn create_by_perm(&mut self, fid: u32, name: &[u8], p: u32, mode: u8, ext: &[u8]) -> Result<Body> {
        let path = self.child(fid, name)?;
        let f = self.fid(fid)?;
        if !matches!(f.open, Open::Not) {
            return Err(Errno::INVAL);
        }
        let new = |kind: FileType| NewFile { uid: f.uid, gid: KEEP, mode: mode_of(p) | kind.as_raw_mode() };
        let flags = flags_of(mode) & !OFlags::TRUNC | OFlags::EXCL;
        let handle = if p & perm::DIR != 0 {
            self.tree.mkdir(&path, new(FileType::Directory))?;
            Some(self.tree.open_file(&path, OFlags::RDONLY)?)
        } else if p & perm::SYMLINK != 0 {
            self.tree.symlink(&path, ext, new(FileType::Symlink))?;
            None
        } else if p & perm::LINK != 0 {
            // The extension is the number of a fid.
            let other = std::str::from_utf8(ext).ok().and_then(|t| t.parse().ok()).ok_or(Errno::INVAL)?;
            self.tree.link(&self.fid(other)?.path, &path)?;
            None
        } else if p & perm::DEVICE != 0 {
            let (kind, major, minor) = device_of(ext).ok_or(Errno::INVAL)?;
            self.tree.mknod(&path, new(kind), major, minor)?;
            None
        } else if p & (perm::PIPE | perm::SOCKET) != 0 {
            let kind = if p & perm::PIPE != 0 { FileType::Fifo } else { FileType::Socket };
            self.tree.mknod(&path, new(kind), 0, 0)?;
            None
        } else {
            self.may_open()?;
            Some(self.tree.create(&path, flags, new(FileType::RegularFile))?)
        };
        match handle {
            Some(handle) => self.settle(fid, Some(path), handle),
            None => {
                let attr = self.tree.stat(&path)?;
                let qid = self.qid(&attr)?;
                self.move_to(fid, path)?;
                Ok(Body::default().qid(qid).word(0))
            }
        }
    }

    /// The structure of a file's attributes, behind its size.
    fn structure(&mut self, path: &Path, name: &[u8], a: &Attr) -> Result<Vec<u8>> {
        let (major, minor) = (rustix::fs::major(a.rdev), rustix::fs::minor(a.rdev));
        let ext = match a.kind() {
            FileType::Symlink => self.tree.readlink(path)?,
            FileType::CharacterDevice => format!("c {major} {minor}").into_bytes(),
            FileType::BlockDevice => format!("b {major} {minor}").into_bytes(),
            _ => vec![],
        };
        // Folders have no length here.
        let length = if a.kind() == FileType::Directory { 0 } else { a.size };
        let body = Body::default().half(0).word(0).qid(self.qid(a)?).word(perm_of(a));
        let body = body.word(a.atime.0 as u32).word(a.mtime.0 as u32).long(length);
        // (Owners are numbers: names of the host's say nothing to a guest.)
        let body = body.text(name).text(b"").text(b"").text(b"").text(&ext);
        let body = body.word(a.uid).word(a.gid).word(KEEP);
        Ok([&u16::try_from(body.0.len()).map_err(|_| Errno::NAMETOOLONG)?.to_le_bytes()[..], &body.0].concat())
    }

    /// `Tstat`.
    pub(super) fn stat_structure(&mut self, fid: u32) -> Result<Body> {
        let attr = self.stat(fid)?;
        let path = self.fid(fid)?.path.clone();
        let all = self.structure(&path, path.last(), &attr)?;
        let mut body = Body::default().half(all.len() as u16);
        body.0.extend(all);
        Ok(body)
    }

    /// `Twstat`.
    pub(super) fn write_stat(&mut self, fid: u32, w: &Wstat) -> Result<()> {
        let path = self.fid(fid)?.path.clone();
        if w.mode != KEEP {
            let folder = self.stat(fid)?.kind() == FileType::Directory;
            if folder != (w.mode & perm::DIR != 0) {
                return Err(Errno::IO);
            }
            self.tree.chmod(&path, mode_of(w.mode))?;
        }
        // (The times last: a new length is a change.)
        if w.length != KEEP_LONG {
            let handle = match &self.fid(fid)?.open {
                Open::Handle(h) => Some(h),
                _ => None,
            };
            self.tree.truncate(&path, handle, w.length)?;
        }
        if w.atime != KEEP || w.mtime != KEEP {
            let time = |t: u32| match t {
                KEEP => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                t => Timespec { tv_sec: t.into(), tv_nsec: 0 },
            };
            self.tree.utimes(&path, time(w.atime), time(w.mtime))?;
        }
        if w.n_uid != KEEP || w.n_gid != KEEP {
            self.tree.chown(&path, w.n_uid, w.n_gid)?;
        }
        if !w.name.is_empty() {
            let to = path.parent().join(&Path::name(&w.name)?)?;
            self.rename(&path, &to)?;
        }
        Ok(())
    }

    /// `Tread` of a folder: whole structures, from its beginning or from where the last one ended.
    pub(super) fn read_folder(&mut self, fid: u32, offset: u64, limit: usize) -> Result<Body> {
        let f = self.fid(fid)?;
        let (path, mut at) = (f.path.clone(), if offset == 0 { (0, 0) } else { f.at });
        if offset != at.0 {
            return Err(Errno::INVAL);
        }
        let mut data = vec![];
        loop {
            let Open::Handle(Handle::Dir(dir)) = &mut self.fid_mut(fid)?.open else { return Err(Errno::INVAL) };
            match at.1 {
                0 => dir.rewind(),
                n => dir.seek(n)?,
            }
            let Some(entry) = dir.read() else { break };
            let entry = entry?;
            let (name, next) = (entry.file_name(), entry.offset());
            let (child, listed) = match name.to_bytes() {
                b"." => (path.clone(), true),
                b".." => (path.parent(), true),
                _ => (path.join(name)?, false),
            };
            // (Something that went meanwhile is not listed.)
            match self.tree.stat(&child) {
                Ok(attr) => {
                    let one = self.structure(&child, name.to_bytes(), &attr)?;
                    if data.len() + one.len() > limit {
                        if data.is_empty() {
                            return Err(Errno::INVAL);
                        }
                        break;
                    }
                    data.extend(one);
                }
                Err(Errno::NOENT) if !listed => {}
                Err(e) => return Err(e),
            }
            at = (offset + data.len() as u64, next);
        }
        self.fid_mut(fid)?.at = (offset + data.len() as u64, at.1);
        let mut body = Body::default().word(data.len() as u32);
        body.0.append(&mut data);
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::super::server::kind_of;
    use super::super::wire::Qid;
    use super::*;

    #[test]
    fn permissions_say_what_kind_of_file_it_is() {
        for (mode, p) in [
            (0o100644, 0o644),
            (0o104755, perm::SETUID | 0o755),
            (0o042770, perm::DIR | perm::SETGID | 0o770),
            (0o120777, perm::SYMLINK | 0o777),
            (0o020666, perm::DEVICE | 0o666),
            (0o010600, perm::PIPE | 0o600),
        ] {
            let attr = Attr { mode, ..Attr::default() };
            assert_eq!(perm_of(&attr), p, "{mode:o}");
            assert_eq!(mode_of(p), mode & 0o6777, "{mode:o}");
            assert_eq!(kind_of(attr.kind()) == Qid::DIR, p & perm::DIR != 0);
        }
        assert_eq!(device_of(b"c 1 3"), Some((FileType::CharacterDevice, 1, 3)));
        for bad in ["", "c", "c 1", "c 1 3 4", "x 1 3", "c -1 3", "c  1 3"] {
            assert_eq!(device_of(bad.as_bytes()), None, "{bad}");
        }
    }
}
