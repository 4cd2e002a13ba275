//! A session: what the driver's fids stand for, and what each request does. Source: as [`super`].
//!
//! A fid is a path from the folder that is shown, perhaps with an open file. Fids, what they remember and open files are bounded; whatever a
//! driver asks for beyond that is an error. Locks are those of one guest, whose kernel keeps them itself: each is granted.

use super::wire::{Body, Dialect, HEADER, Lock, Qid, Request, SetAttr, reply};
use crate::fsdev::{Attr, Handle, NewFile, Path, Tree};
use rustix::fs::{FileType, OFlags, Timespec, UTIME_NOW, UTIME_OMIT, XattrFlags, fdatasync, fsync};
use rustix::io::{Errno, Result};
use std::collections::HashMap;

/// Least bytes of a message.
const MIN_MSIZE: u32 = 4096;
/// Most bytes of a message.
pub const MAX_MSIZE: u32 = 1 << 20;
/// Most fids, bytes that they cost, and open files.
const MAX_FIDS: usize = 1 << 18;
const MAX_COST: usize = 128 << 20;
const MAX_OPEN: u64 = 4096;
/// Most bytes of an extended attribute.
const MAX_XATTR: u64 = 65536;
/// The dialects.
const DIALECTS: [(&[u8], Dialect); 2] = [(b"9P2000.L", Dialect::L), (b"9P2000.u", Dialect::U)];
/// Attributes that are always given: all but the time of creation, and versions.
const BASIC: u64 = 0x7ff;
/// `AT_REMOVEDIR`, as Linux numbers it.
const REMOVEDIR: u32 = 0x200;
/// Nobody holds such a lock: `P9_LOCK_TYPE_UNLCK`.
const UNLOCKED: u8 = 2;

/// Bits of [`SetAttr::valid`].
mod valid {
    pub const MODE: u32 = 1;
    pub const UID: u32 = 2;
    pub const GID: u32 = 4;
    pub const SIZE: u32 = 8;
    pub const ATIME: u32 = 0x10;
    pub const MTIME: u32 = 0x20;
    pub const CTIME: u32 = 0x40;
    pub const ATIME_SET: u32 = 0x80;
    pub const MTIME_SET: u32 = 0x100;
}

/// What a fid is used for.
#[derive(Debug)]
pub(super) enum Open {
    Not,
    Handle(Handle),
    /// The value of an extended attribute, or the names of all.
    XattrRead(Vec<u8>),
    /// What becomes an attribute when the fid goes.
    XattrWrite {
        name: Vec<u8>,
        size: u64,
        value: Vec<u8>,
        flags: XattrFlags,
    },
}

#[derive(Debug)]
pub(super) struct Fid {
    pub(super) path: Path,
    /// On whose behalf.
    pub(super) uid: u32,
    pub(super) open: Open,
    /// Of an open folder that is read as bytes: where the last structure ended, there and on the host.
    pub(super) at: (u64, i64),
}

/// The session of a driver.
#[derive(Debug)]
pub struct Server {
    pub(super) tree: Tree,
    dialect: Dialect,
    /// Most bytes of a message; 0: the driver has not asked yet.
    msize: u32,
    fids: HashMap<u32, Fid>,
    /// What the fids cost.
    cost: usize,
    max_open: usize,
}

/// Linux's flags for opening, as far as a server may follow them.
fn open_flags(flags: u32) -> Result<OFlags> {
    let access = match flags & 3 {
        0 => OFlags::RDONLY,
        1 => OFlags::WRONLY,
        2 => OFlags::RDWR,
        _ => return Err(Errno::INVAL),
    };
    let rest = [
        (0o200, OFlags::EXCL),
        (0o1000, OFlags::TRUNC),
        (0o2000, OFlags::APPEND),
        (0o10000, OFlags::DSYNC),
        (0o200000, OFlags::DIRECTORY),
        (0o4000000, OFlags::SYNC),
    ];
    Ok(rest.into_iter().filter(|(bit, _)| flags & bit != 0).fold(access, |all, (_, flag)| all | flag))
}

/// What a qid says of a kind of file.
pub(super) fn kind_of(kind: FileType) -> u8 {
    match kind {
        FileType::Directory => Qid::DIR,
        FileType::Symlink => Qid::SYMLINK,
        _ => 0,
    }
}

impl Server {
    /// A session without fids.
    pub fn new(tree: Tree) -> Self {
        // (Half of what the process may have is left for everything else.)
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(MAX_OPEN);
        let max_open = (files / 2).clamp(16, MAX_OPEN) as usize;
        Self { tree, dialect: Dialect::L, msize: 0, fids: HashMap::new(), cost: 0, max_open }
    }

    /// Whether the driver has begun a session.
    pub fn is_used(&self) -> bool {
        self.msize != 0
    }

    /// Something that the user should know, once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.tree.take_warning()
    }

    /// Ends the session: open files are closed, nothing is written any more.
    pub fn reset(&mut self) {
        self.fids.clear();
        (self.cost, self.msize, self.dialect) = (0, 0, Dialect::L);
    }

    /// Does what a message asks; the reply. `room`: most bytes that it can have; one that has more is for nobody.
    pub fn handle(&mut self, message: &[u8], room: u64) -> Option<Vec<u8>> {
        let (kind, tag, request) = Request::parse(message)?;
        let result = request.and_then(|r| self.run(r, room));
        Some(reply(kind, tag, self.dialect, result))
    }

    fn run(&mut self, request: Request, room: u64) -> Result<Body> {
        let none = Body::default();
        if self.msize == 0 && !matches!(request, Request::Version { .. }) {
            return Err(Errno::INVAL);
        }
        // Bytes of data that a reply can have, behind its header and their number.
        let limit = room.min(self.msize.into()).saturating_sub(HEADER as u64 + 4) as usize;
        match request {
            Request::Version { msize, version } => self.version(msize, &version),
            Request::Attach { fid, uid } => self.attach(fid, uid),
            // Requests are served one after the other: what is to be given up is done already.
            Request::Flush => Ok(none),
            Request::Walk { fid, newfid, names } => self.walk(fid, newfid, &names),
            Request::Lopen { fid, flags } => self.open(fid, open_flags(flags)? & !OFlags::EXCL),
            Request::Lcreate { fid, name, flags, mode, gid } => self.create(fid, &name, flags, mode, gid),
            Request::Symlink { fid, name, target, gid } => {
                self.make(fid, &name, 0o777, gid, |t, at, new| t.symlink(at, &target, new))
            }
            Request::Mknod { fid, name, mode, major, minor, gid } => {
                self.make(fid, &name, mode, gid, |t, at, new| t.mknod(at, new, major, minor))
            }
            Request::Mkdir { fid, name, mode, gid } => self.make(fid, &name, mode, gid, |t, at, new| t.mkdir(at, new)),
            Request::Link { dir, fid, name } => {
                let (from, to) = (self.fid(fid)?.path.clone(), self.child(dir, &name)?);
                self.tree.link(&from, &to).map(|()| none)
            }
            Request::Rename { fid, dir, name } => {
                let (from, to) = (self.fid(fid)?.path.clone(), self.child(dir, &name)?);
                self.rename(&from, &to).map(|()| none)
            }
            Request::Renameat { old_dir, old, new_dir, new } => {
                let (from, to) = (self.child(old_dir, &old)?, self.child(new_dir, &new)?);
                self.rename(&from, &to).map(|()| none)
            }
            Request::Unlinkat { dir, name, flags } => {
                if flags & !REMOVEDIR != 0 {
                    return Err(Errno::INVAL);
                }
                let path = self.child(dir, &name)?;
                self.tree.unlink(&path, flags & REMOVEDIR != 0).map(|()| none)
            }
            Request::Remove { fid } => self.remove(fid).map(|()| none),
            Request::Readlink { fid } => {
                let target = self.tree.readlink(&self.fid(fid)?.path)?;
                Ok(none.text(&target))
            }
            Request::Getattr { fid } => self.getattr(fid),
            Request::Setattr { fid, attr } => self.setattr(fid, &attr).map(|()| none),
            Request::Xattrwalk { fid, newfid, name } => self.xattrwalk(fid, newfid, &name),
            Request::Xattrcreate { fid, name, size, flags } => self.xattrcreate(fid, name, size, flags).map(|()| none),
            Request::Readdir { fid, offset, count } => self.readdir(fid, offset, limit.min(count as usize)),
            // (In the other dialect a folder's entries are its bytes.)
            Request::Read { fid, offset, count }
                if self.dialect == Dialect::U && matches!(self.opened(fid), Ok(Handle::Dir(_))) =>
            {
                self.read_folder(fid, offset, limit.min(count as usize))
            }
            Request::Read { fid, offset, count } => self.read(fid, offset, limit.min(count as usize)),
            Request::Write { fid, offset, data } => self.write(fid, offset, &data),
            Request::Fsync { fid, data_only } => match &self.fid(fid)?.open {
                Open::Handle(h) if data_only => fdatasync(h.fd()?).map(|()| none),
                Open::Handle(h) => fsync(h.fd()?).map(|()| none),
                _ => Err(Errno::INVAL),
            },
            Request::Statfs { fid } => self.statfs(fid),
            Request::Lock { fid } => self.opened(fid).map(|_| none.byte(0)),
            Request::Getlock { fid, lock } => {
                self.opened(fid)?;
                let Lock { start, length, proc_id, client_id } = lock;
                Ok(none.byte(UNLOCKED).long(start).long(length).word(proc_id).text(&client_id))
            }
            Request::Clunk { fid } => self.clunk(fid).map(|()| none),
            _ if self.dialect == Dialect::L => Err(Errno::OPNOTSUPP),
            Request::Open { fid, mode } => self.open_by_mode(fid, mode),
            Request::Create { fid, name, perm, mode, extension } => {
                self.create_by_perm(fid, &name, perm, mode, &extension)
            }
            Request::Stat { fid } => self.stat_structure(fid),
            Request::Wstat { fid, stat } => self.write_stat(fid, &stat).map(|()| none),
        }
    }

    // ---- fids ----

    pub(super) fn fid_mut(&mut self, fid: u32) -> Result<&mut Fid> {
        self.fids.get_mut(&fid).ok_or(Errno::NOENT)
    }

    pub(super) fn fid(&self, fid: u32) -> Result<&Fid> {
        self.fids.get(&fid).ok_or(Errno::NOENT)
    }

    fn opened(&self, fid: u32) -> Result<&Handle> {
        match &self.fid(fid)?.open {
            Open::Handle(h) => Ok(h),
            _ => Err(Errno::INVAL),
        }
    }

    /// The file of a name in the folder of a fid.
    pub(super) fn child(&self, dir: u32, name: &[u8]) -> Result<Path> {
        let name = Path::name(name)?;
        self.fid(dir)?.path.join(&name)
    }

    fn add(&mut self, fid: u32, new: Fid) -> Result<()> {
        let old = self.fids.get(&fid).map_or(0, |f| f.path.cost());
        let cost = self.cost - old + new.path.cost();
        if (old == 0 && self.fids.len() >= MAX_FIDS) || cost > MAX_COST {
            return Err(Errno::NFILE);
        }
        self.cost = cost;
        self.fids.insert(fid, new);
        Ok(())
    }

    fn take(&mut self, fid: u32) -> Result<Fid> {
        let old = self.fids.remove(&fid).ok_or(Errno::NOENT)?;
        self.cost -= old.path.cost();
        Ok(old)
    }

    fn free(&self, fid: u32) -> Result<()> {
        if self.fids.contains_key(&fid) { Err(Errno::INVAL) } else { Ok(()) }
    }

    /// Whether one more file may be open, and one more attribute.
    pub(super) fn may_open(&self) -> Result<()> {
        let open = self.fids.values().filter(|f| matches!(f.open, Open::Handle(_))).count();
        if open >= self.max_open { Err(Errno::MFILE) } else { Ok(()) }
    }

    fn may_hold(&self) -> Result<()> {
        let held = |f: &&Fid| matches!(f.open, Open::XattrRead(_) | Open::XattrWrite { .. });
        if self.fids.values().filter(held).count() >= self.tree.max_xattr() { Err(Errno::NOSPC) } else { Ok(()) }
    }

    pub(super) fn qid(&mut self, a: &Attr) -> Result<Qid> {
        let version = (a.mtime.0 as u32) ^ (a.size << 8) as u32;
        Ok(Qid { kind: kind_of(a.kind()), version, path: self.tree.number(a.dev, a.ino)? })
    }

    pub(super) fn stat(&self, fid: u32) -> Result<Attr> {
        let f = self.fid(fid)?;
        match &f.open {
            Open::Handle(h) => self.tree.stat_open(h),
            _ => self.tree.stat(&f.path),
        }
    }

    // ---- the session ----

    fn version(&mut self, msize: u32, version: &[u8]) -> Result<Body> {
        self.reset();
        let Some((name, dialect)) = DIALECTS.into_iter().find(|d| d.0 == version) else {
            return Ok(Body::default().word(msize.min(MAX_MSIZE)).text(b"unknown"));
        };
        if msize < MIN_MSIZE {
            return Err(Errno::MSGSIZE);
        }
        (self.msize, self.dialect) = (msize.min(MAX_MSIZE), dialect);
        Ok(Body::default().word(self.msize).text(name))
    }

    fn attach(&mut self, fid: u32, uid: u32) -> Result<Body> {
        self.free(fid)?;
        let path = Path::default();
        let attr = self.tree.stat(&path)?;
        let qid = self.qid(&attr)?;
        self.add(fid, Fid { path, uid, open: Open::Not, at: (0, 0) })?;
        Ok(Body::default().qid(qid))
    }

    fn walk(&mut self, fid: u32, newfid: u32, names: &[Vec<u8>]) -> Result<Body> {
        let from = self.fid(fid)?;
        if matches!(from.open, Open::XattrRead(_) | Open::XattrWrite { .. }) {
            return Err(Errno::INVAL);
        }
        let (mut path, uid) = (from.path.clone(), from.uid);
        if newfid != fid {
            self.free(newfid)?;
        } else if !matches!(from.open, Open::Not) {
            return Err(Errno::INVAL);
        }
        let mut qids = vec![];
        for name in names {
            match self.step(&path, name) {
                Ok((next, qid)) => {
                    path = next;
                    qids.push(qid);
                }
                Err(e) if qids.is_empty() => return Err(e),
                // It went so far and no farther.
                Err(_) => break,
            }
        }
        if qids.len() == names.len() {
            self.add(newfid, Fid { path, uid, open: Open::Not, at: (0, 0) })?;
        }
        Ok(qids.iter().fold(Body::default().half(qids.len() as u16), |b, q| b.qid(*q)))
    }

    fn step(&mut self, from: &Path, name: &[u8]) -> Result<(Path, Qid)> {
        let to = match name {
            b"." => from.clone(),
            b".." => from.parent(),
            name => from.join(&Path::name(name)?)?,
        };
        let attr = self.tree.stat(&to)?;
        Ok((to, self.qid(&attr)?))
    }

    /// The fid goes; an attribute that was written is set.
    fn clunk(&mut self, fid: u32) -> Result<()> {
        let Fid { path, open, .. } = self.take(fid)?;
        let Open::XattrWrite { name, size, value, flags } = open else { return Ok(()) };
        if value.len() as u64 != size {
            return Err(Errno::INVAL);
        }
        // (An attribute of no bytes is one to be removed.)
        self.tree.set_xattr(&path, &name, (size > 0).then_some(&value), flags)
    }

    // ---- files ----

    pub(super) fn open(&mut self, fid: u32, flags: OFlags) -> Result<Body> {
        let f = self.fid(fid)?;
        if !matches!(f.open, Open::Not) {
            return Err(Errno::INVAL);
        }
        self.may_open()?;
        let handle = self.tree.open_file(&f.path, flags)?;
        self.settle(fid, None, handle)
    }

    fn create(&mut self, fid: u32, name: &[u8], flags: u32, mode: u32, gid: u32) -> Result<Body> {
        let path = self.child(fid, name)?;
        let f = self.fid(fid)?;
        if !matches!(f.open, Open::Not) {
            return Err(Errno::INVAL);
        }
        self.may_open()?;
        let new = NewFile { uid: f.uid, gid, mode };
        let handle = self.tree.create(&path, open_flags(flags)? & !OFlags::DIRECTORY, new)?;
        self.settle(fid, Some(path), handle)
    }

    /// A fid becomes an open file.
    pub(super) fn settle(&mut self, fid: u32, path: Option<Path>, handle: Handle) -> Result<Body> {
        let attr = self.tree.stat_open(&handle)?;
        let qid = self.qid(&attr)?;
        let old = self.fid(fid)?;
        let (path, uid) = (path.unwrap_or_else(|| old.path.clone()), old.uid);
        self.add(fid, Fid { path, uid, open: Open::Handle(handle), at: (0, 0) })?;
        // (The driver chooses how much it reads at once.)
        Ok(Body::default().qid(qid).word(0))
    }

    /// A fid stands for another file.
    pub(super) fn move_to(&mut self, fid: u32, path: Path) -> Result<()> {
        let uid = self.fid(fid)?.uid;
        self.add(fid, Fid { path, uid, open: Open::Not, at: (0, 0) })
    }

    fn make(
        &mut self,
        dir: u32,
        name: &[u8],
        mode: u32,
        gid: u32,
        f: impl FnOnce(&Tree, &Path, NewFile) -> Result<()>,
    ) -> Result<Body> {
        let path = self.child(dir, name)?;
        f(&self.tree, &path, NewFile { uid: self.fid(dir)?.uid, gid, mode })?;
        let attr = self.tree.stat(&path)?;
        Ok(Body::default().qid(self.qid(&attr)?))
    }

    fn remove(&mut self, fid: u32) -> Result<()> {
        // The fid goes whatever happens.
        let Fid { path, .. } = self.take(fid)?;
        let folder = self.tree.stat(&path)?.kind() == FileType::Directory;
        self.tree.unlink(&path, folder)
    }

    /// Fids of what is moved, and of what is in it, move along.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        self.tree.rename(from, to)?;
        for f in self.fids.values_mut() {
            if let Some(path) = f.path.moved(from, to) {
                self.cost = (self.cost + path.cost()).saturating_sub(f.path.cost());
                f.path = path;
            }
        }
        Ok(())
    }

    fn getattr(&mut self, fid: u32) -> Result<Body> {
        let a = self.stat(fid)?;
        let body = Body::default().long(BASIC).qid(self.qid(&a)?).word(a.mode).word(a.uid).word(a.gid);
        let body = body.long(a.nlink).long(a.rdev).long(a.size).long(a.blksize).long(a.blocks);
        let time = |b: Body, (s, ns): (i64, u64)| b.long(s as u64).long(ns);
        let body = [a.atime, a.mtime, a.ctime, (0, 0)].into_iter().fold(body, time);
        Ok(body.long(0).long(0)) // generation, version of the data
    }

    fn setattr(&mut self, fid: u32, attr: &SetAttr) -> Result<()> {
        let f = self.fid(fid)?;
        let has = |bit: u32| attr.valid & bit != 0;
        if has(valid::MODE) {
            self.tree.chmod(&f.path, attr.mode)?;
        }
        // (The times after it: a new length is a change.)
        if has(valid::SIZE) {
            let handle = match &f.open {
                Open::Handle(h) => Some(h),
                _ => None,
            };
            self.tree.truncate(&f.path, handle, attr.size)?;
        }
        if has(valid::ATIME | valid::MTIME) {
            let time = |now: u32, set: u32, (s, ns): (u64, u64)| match (has(now), has(set)) {
                (true, true) if ns < 1_000_000_000 => Ok(Timespec { tv_sec: s as i64, tv_nsec: ns as _ }),
                (true, true) => Err(Errno::INVAL),
                (true, false) => Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_NOW }),
                (false, _) => Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }),
            };
            let atime = time(valid::ATIME, valid::ATIME_SET, attr.atime)?;
            let mtime = time(valid::MTIME, valid::MTIME_SET, attr.mtime)?;
            self.tree.utimes(&f.path, atime, mtime)?;
        }
        let owner = if has(valid::UID) { attr.uid } else { u32::MAX };
        let group = if has(valid::GID) { attr.gid } else { u32::MAX };
        // The time of a change alone: setting nothing sets it.
        let touched = attr.valid == valid::CTIME;
        if has(valid::UID | valid::GID) || touched {
            self.tree.chown(&f.path, owner, group)?;
        }
        Ok(())
    }

    fn statfs(&self, fid: u32) -> Result<Body> {
        let s = self.tree.statfs(&self.fid(fid)?.path)?;
        let body = Body::default().word(s.f_type as u32).word(s.f_bsize as u32);
        let counts = [s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree];
        // (The file system's own number says nothing to a guest.)
        Ok(counts.iter().fold(body, |b, n| b.long(*n)).long(0).word(s.f_namelen as u32))
    }

    fn read(&self, fid: u32, offset: u64, count: usize) -> Result<Body> {
        let mut data = match &self.fid(fid)?.open {
            Open::Handle(Handle::File(fd)) => {
                let mut data = vec![0; count];
                let n = rustix::io::pread(fd, &mut data[..], offset)?;
                data.truncate(n);
                data
            }
            Open::XattrRead(value) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(value.len());
                value.iter().skip(from).take(count).copied().collect()
            }
            _ => return Err(Errno::INVAL),
        };
        let mut body = Body::default().word(data.len() as u32);
        body.0.append(&mut data);
        Ok(body)
    }

    fn write(&mut self, fid: u32, offset: u64, data: &[u8]) -> Result<Body> {
        let f = self.fids.get_mut(&fid).ok_or(Errno::NOENT)?;
        let n = match &mut f.open {
            Open::Handle(Handle::File(fd)) => rustix::io::pwrite(fd, data, offset)?,
            Open::XattrWrite { size, value, .. } => {
                // One piece after the other.
                if offset != value.len() as u64 {
                    return Err(Errno::INVAL);
                }
                let n = data.len().min((*size - offset) as usize);
                if n == 0 && !data.is_empty() {
                    return Err(Errno::NOSPC);
                }
                value.extend(data.iter().take(n));
                n
            }
            _ => return Err(Errno::INVAL),
        };
        Ok(Body::default().word(n as u32))
    }

    fn readdir(&mut self, fid: u32, offset: u64, limit: usize) -> Result<Body> {
        let f = self.fids.get_mut(&fid).ok_or(Errno::NOENT)?;
        let at_top = f.path.is_root();
        let Open::Handle(Handle::Dir(dir)) = &mut f.open else { return Err(Errno::INVAL) };
        match offset {
            0 => dir.rewind(),
            n => dir.seek(i64::try_from(n).map_err(|_| Errno::INVAL)?)?,
        }
        let dev = Attr::of(&dir.stat()?);
        let hidden = self.tree.hides_kinds();
        let mut data = vec![];
        while let Some(entry) = dir.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if data.len() + Qid::LEN + 8 + 1 + 2 + name.len() > limit {
                if data.is_empty() {
                    return Err(Errno::INVAL);
                }
                break;
            }
            // What is above is not for the guest.
            let ino = if at_top && name == b".." { dev.ino } else { entry.ino() };
            let kind = if hidden && name != b"." && name != b".." { FileType::Unknown } else { entry.file_type() };
            let qid = Qid { kind: kind_of(kind), version: 0, path: self.tree.number(dev.dev, ino)? };
            let code = match kind {
                FileType::Fifo => 1,
                FileType::CharacterDevice => 2,
                FileType::Directory => 4,
                FileType::BlockDevice => 6,
                FileType::RegularFile => 8,
                FileType::Symlink => 10,
                FileType::Socket => 12,
                FileType::Unknown => 0,
            };
            data = Body(data).qid(qid).long(entry.offset() as u64).byte(code).text(name).0;
        }
        let mut body = Body::default().word(data.len() as u32);
        body.0.append(&mut data);
        Ok(body)
    }

    // ---- extended attributes ----

    fn xattrwalk(&mut self, fid: u32, newfid: u32, name: &[u8]) -> Result<Body> {
        let f = self.fid(fid)?;
        self.free(newfid)?;
        self.may_hold()?;
        let value = self.tree.xattr(&f.path, name)?;
        let size = value.len() as u64;
        let new = Fid { path: f.path.clone(), uid: f.uid, open: Open::XattrRead(value), at: (0, 0) };
        self.add(newfid, new)?;
        Ok(Body::default().long(size))
    }

    fn xattrcreate(&mut self, fid: u32, name: Vec<u8>, size: u64, flags: u32) -> Result<()> {
        self.may_hold()?;
        let flags = match flags {
            0 => XattrFlags::empty(),
            1 => XattrFlags::CREATE,
            2 => XattrFlags::REPLACE,
            _ => return Err(Errno::INVAL),
        };
        if size > MAX_XATTR {
            return Err(Errno::TOOBIG);
        }
        let f = self.fids.get_mut(&fid).ok_or(Errno::NOENT)?;
        if !matches!(f.open, Open::Not) {
            return Err(Errno::INVAL);
        }
        f.open = Open::XattrWrite { name, size, value: vec![], flags };
        Ok(())
    }
}
