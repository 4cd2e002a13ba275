//! The files below a folder of the host. Every path is a list of names that are neither `.` nor `..`, walked from the folder's own
//! descriptor one by one without following links: whatever the host or the guest does meanwhile, nothing outside is reached.

use super::mapped::{self, Kept, proc_path};
use super::{FsDev, Multidevs, SecurityModel};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RawMode, Stat, StatFs, Timespec, Timestamps, Uid, XattrFlags, chmod,
    chownat, fstat, fstatfs, ftruncate, linkat, makedev, mkdirat, mknodat, openat, readlinkat, renameat, statat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, Result};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// One component of a path.
pub type Name = CString;

/// A file, by names from the folder that is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Name>);

/// Most bytes of a path, as Linux has it.
const MAX_PATH: usize = 4096;
/// The folder itself, where a name is asked for.
const SELF: &CStr = c".";
/// Bits of a mode that `chmod` changes.
const PERMISSIONS: u32 = 0o7777;
/// Bits of a file's number that are kept where files of several file systems are told apart.
const NUMBER: u64 = (1 << 48) - 1;

impl Path {
    /// A component that a guest may use.
    ///
    /// # Errors
    /// It is empty, has a slash or a zero in it, or is `.` or `..`.
    pub fn name(bytes: &[u8]) -> Result<Name> {
        match bytes {
            b"" => Err(Errno::NOENT),
            b"." | b".." => Err(Errno::EXIST),
            _ if bytes.contains(&b'/') => Err(Errno::NOENT),
            _ => CString::new(bytes).map_err(|_| Errno::INVAL),
        }
    }

    /// The file of a name in this folder.
    ///
    /// # Errors
    /// The path becomes too long.
    pub fn join(&self, name: &CStr) -> Result<Self> {
        if self.bytes() + name.to_bytes().len() + 1 > MAX_PATH {
            return Err(Errno::NAMETOOLONG);
        }
        let mut all = self.0.clone();
        all.push(name.to_owned());
        Ok(Self(all))
    }

    /// The folder that it is in; the topmost one is in itself.
    #[must_use]
    pub fn parent(&self) -> Self {
        Self(self.0.split_last().map(|(_, above)| above.to_vec()).unwrap_or_default())
    }

    /// The last name; the folder itself is called `/`.
    pub fn last(&self) -> &[u8] {
        self.0.last().map_or(b"/", |n| n.to_bytes())
    }

    /// Whether it is the folder that is shown.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// What it costs to remember it, bytes.
    pub fn cost(&self) -> usize {
        self.bytes() + 32 * self.0.len() + 64
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|n| n.to_bytes().len() + 1).sum()
    }

    /// What it is called after `from`, or something that `from` holds, became `to`; `None`: as before.
    pub fn moved(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(from.0.as_slice())?;
        Some(Self(to.0.iter().chain(rest).cloned().collect()))
    }
}

/// Attributes of a file as the guest sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "stat's names")]
pub struct Attr {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u64,
    pub rdev: u64,
    pub size: u64,
    pub blksize: u64,
    pub blocks: u64,
    /// Seconds and nanoseconds.
    pub atime: (i64, u64),
    pub mtime: (i64, u64),
    pub ctime: (i64, u64),
}

impl Attr {
    /// What the host says of a file.
    #[expect(clippy::unnecessary_cast, clippy::useless_conversion, reason = "widths differ between hosts")]
    pub fn of(s: &Stat) -> Self {
        Self {
            dev: s.st_dev as u64,
            ino: s.st_ino as u64,
            mode: s.st_mode as u32,
            uid: s.st_uid,
            gid: s.st_gid,
            nlink: s.st_nlink.into(),
            rdev: s.st_rdev as u64,
            size: s.st_size as u64,
            blksize: s.st_blksize as u64,
            blocks: s.st_blocks as u64,
            atime: (s.st_atime as i64, s.st_atime_nsec as u64),
            mtime: (s.st_mtime as i64, s.st_mtime_nsec as u64),
            ctime: (s.st_ctime as i64, s.st_ctime_nsec as u64),
        }
    }

    /// What kind of file it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode as RawMode)
    }
}

/// An open file or folder.
#[derive(Debug)]
pub enum Handle {
    /// A file.
    File(OwnedFd),
    /// A folder.
    Dir(Dir),
}

impl Handle {
    /// Its descriptor.
    ///
    /// # Errors
    /// The host's.
    pub fn fd(&self) -> Result<BorrowedFd<'_>> {
        match self {
            Self::File(fd) => Ok(fd.as_fd()),
            Self::Dir(dir) => dir.fd(),
        }
    }
}

/// Who a new file belongs to, and what it allows.
#[derive(Clone, Copy, Debug)]
pub struct NewFile {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Mode; what kind of file it is, is asked for otherwise.
    pub mode: u32,
}

/// A folder that is shown to a guest.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    config: Arc<FsDev>,
    /// File system of the folder itself.
    dev: u64,
    /// What stands before the numbers of files, by file system and the bits that make room for it.
    prefixes: HashMap<(u64, u64), u64>,
    warned: bool,
    warning: Option<String>,
}

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn mode_of(mode: u32) -> Mode {
    Mode::from_raw_mode((mode & PERMISSIONS) as RawMode)
}

fn uid(n: u32) -> Option<Uid> {
    (n != u32::MAX).then(|| Uid::from_raw(n))
}

fn gid(n: u32) -> Option<Gid> {
    (n != u32::MAX).then(|| Gid::from_raw(n))
}

impl Tree {
    /// Opens the folder.
    ///
    /// # Errors
    /// The host's; [`Errno::NOTDIR`].
    pub fn open(config: &Arc<FsDev>) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&config.path, flags, Mode::empty())?;
        let dev = Attr::of(&fstat(&root)?).dev;
        let mut prefixes = HashMap::new();
        prefixes.insert((dev, 0), 0);
        Ok(Self { root, config: config.clone(), dev, prefixes, warned: false, warning: None })
    }

    fn mapped(&self) -> bool {
        self.config.model == SecurityModel::MappedXattr
    }

    /// Whether links and devices are ordinary files, so that a folder's entries do not say what they are.
    pub fn hides_kinds(&self) -> bool {
        self.mapped()
    }

    /// Most extended attributes that are read or written at once.
    pub fn max_xattr(&self) -> usize {
        self.config.max_xattr
    }

    fn writable(&self) -> Result<()> {
        if self.config.readonly { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// Something that the user should know, once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    // ---- paths ----

    fn dir(&self, path: &Path) -> Result<OwnedFd> {
        let mut at = openat(&self.root, SELF, PATH | OFlags::DIRECTORY, Mode::empty())?;
        for name in &path.0 {
            at = openat(&at, name.as_c_str(), PATH | OFlags::DIRECTORY, Mode::empty())?;
        }
        Ok(at)
    }

    /// The folder that holds a file, and the file's name in it.
    fn place<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a CStr)> {
        match path.0.split_last() {
            None => Ok((self.dir(path)?, SELF)),
            Some((name, _)) => Ok((self.dir(&path.parent())?, name)),
        }
    }

    /// As [`Tree::place`], of a file that is to be changed by its name.
    fn entry<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a CStr)> {
        self.writable()?;
        if path.is_root() { Err(Errno::BUSY) } else { self.place(path) }
    }

    // ---- what there is ----

    /// Attributes of a file.
    ///
    /// # Errors
    /// The host's.
    pub fn stat(&self, path: &Path) -> Result<Attr> {
        let (dir, name) = self.place(path)?;
        self.stat_at(&dir, name)
    }

    fn stat_at(&self, dir: &OwnedFd, name: &CStr) -> Result<Attr> {
        let attr = Attr::of(&statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?);
        Ok(if self.mapped() { self.overlay(attr, Kept::of(&proc_path(dir, name)?)) } else { attr })
    }

    fn overlay(&self, mut attr: Attr, kept: Kept) -> Attr {
        attr.uid = kept.uid.unwrap_or(attr.uid);
        attr.gid = kept.gid.unwrap_or(attr.gid);
        attr.mode = kept.mode.unwrap_or(attr.mode);
        attr.rdev = kept.rdev.unwrap_or(attr.rdev);
        attr
    }

    /// Attributes of an open file, also of one that has no name any more.
    ///
    /// # Errors
    /// The host's.
    pub fn stat_open(&self, handle: &Handle) -> Result<Attr> {
        let fd = handle.fd()?;
        let attr = Attr::of(&fstat(fd)?);
        if !self.mapped() {
            return Ok(attr);
        }
        let path = CString::new(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)));
        // (A link of `/proc`: the attributes are those of the file behind it.)
        let kept = path.map(|p| Kept::of_open(&p)).unwrap_or_default();
        Ok(self.overlay(attr, kept))
    }

    /// The number by which the guest tells the file from others.
    ///
    /// # Errors
    /// [`Errno::NODEV`]: it is on another file system; [`Errno::NFILE`]: on one too many.
    pub fn number(&mut self, dev: u64, ino: u64) -> Result<u64> {
        if dev != self.dev {
            match self.config.multidevs {
                Multidevs::Forbid => return Err(Errno::NODEV),
                Multidevs::Warn if !self.warned => {
                    self.warned = true;
                    self.warning = Some(format!(
                        "{}: files of several file systems, which the guest may take for one another (multidevs=remap \
                         tells them apart)",
                        self.config.path.display()
                    ));
                }
                _ => {}
            }
        }
        if self.config.multidevs != Multidevs::Remap {
            return Ok(ino);
        }
        let next = self.prefixes.len() as u64;
        let prefix = match self.prefixes.get(&(dev, ino & !NUMBER)) {
            Some(p) => *p,
            None if next > 0xffff => return Err(Errno::NFILE),
            None => {
                self.prefixes.insert((dev, ino & !NUMBER), next);
                next
            }
        };
        Ok(prefix << NUMBER.count_ones() | ino & NUMBER)
    }

    /// What the file system has and has left.
    ///
    /// # Errors
    /// The host's.
    pub fn statfs(&self, path: &Path) -> Result<StatFs> {
        let (dir, name) = self.place(path)?;
        fstatfs(openat(&dir, name, PATH, Mode::empty())?)
    }

    /// Where a symbolic link leads; nobody goes there.
    ///
    /// # Errors
    /// The host's.
    pub fn readlink(&self, path: &Path) -> Result<Vec<u8>> {
        let (dir, name) = self.place(path)?;
        if !self.mapped() {
            return Ok(readlinkat(&dir, name, vec![])?.into_bytes());
        }
        if self.stat_at(&dir, name)?.kind() != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let fd = self.open_at(&dir, name, OFlags::RDONLY)?;
        let mut target = vec![0; MAX_PATH];
        let n = rustix::io::pread(&fd, &mut target[..], 0)?;
        target.truncate(n);
        Ok(target)
    }

    // ---- opening ----

    /// Opens a file that is one: no pipe, device or link.
    fn open_at(&self, dir: &OwnedFd, name: &CStr, flags: OFlags) -> Result<OwnedFd> {
        // (A pipe's open would wait for its other end; it is refused below.)
        let always = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let before = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if !matches!(Attr::of(&before).kind(), FileType::RegularFile | FileType::Directory) {
            return Err(Errno::NXIO);
        }
        let fd = openat(dir, name, flags | always, Mode::empty())?;
        match Attr::of(&fstat(&fd)?).kind() {
            FileType::RegularFile | FileType::Directory => Ok(fd),
            _ => Err(Errno::NXIO),
        }
    }

    /// Opens a file or folder; `flags` are Linux's, as far as they make sense here.
    ///
    /// # Errors
    /// The host's.
    pub fn open_file(&self, path: &Path, flags: OFlags) -> Result<Handle> {
        if flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC) {
            self.writable()?;
        }
        let (dir, name) = self.place(path)?;
        match self.stat_at(&dir, name)?.kind() {
            FileType::Directory => {
                let fd = self.open_at(&dir, name, flags & !OFlags::APPEND | OFlags::DIRECTORY)?;
                Dir::new(fd).map(Handle::Dir)
            }
            FileType::RegularFile => self.open_at(&dir, name, flags).map(Handle::File),
            _ => Err(Errno::NXIO),
        }
    }

    /// Makes and opens a file; without `EXCL` in `flags` one that is there will do.
    ///
    /// # Errors
    /// The host's.
    pub fn create(&self, path: &Path, flags: OFlags, new: NewFile) -> Result<Handle> {
        let (dir, name) = self.entry(path)?;
        let make = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match openat(&dir, name, flags | make, self.host_mode(new.mode, false)) {
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => return self.open_file(path, flags),
            other => other?,
        };
        let kept = NewFile { mode: new.mode & PERMISSIONS | FileType::RegularFile.as_raw_mode(), ..new };
        self.own(&dir, name, kept, None).inspect_err(|_| _ = unlinkat(&dir, name, AtFlags::empty()))?;
        Ok(Handle::File(fd))
    }

    fn host_mode(&self, mode: u32, folder: bool) -> Mode {
        let (file, dir) = self.config.modes;
        // (Until its owner is set, nobody else has it.)
        mode_of(match (self.mapped(), folder) {
            (true, true) => dir,
            (true, false) => file,
            (false, _) => mode & 0o700,
        })
    }

    /// Gives a new file its owner and mode.
    fn own(&self, dir: &OwnedFd, name: &CStr, new: NewFile, rdev: Option<u64>) -> Result<()> {
        if self.mapped() {
            let known = |n: u32| (n != u32::MAX).then_some(n);
            let kept = Kept { uid: known(new.uid), gid: known(new.gid), mode: Some(new.mode), rdev };
            return kept.keep(&proc_path(dir, name)?);
        }
        let owned = chownat(dir, name, uid(new.uid), gid(new.gid), AtFlags::SYMLINK_NOFOLLOW);
        if self.config.model == SecurityModel::Passthrough {
            owned?;
        }
        match FileType::from_raw_mode(new.mode as RawMode) {
            FileType::Symlink => Ok(()),
            _ => self.chmod_at(dir, name, new.mode),
        }
    }

    // ---- making and removing ----

    /// Makes a folder.
    ///
    /// # Errors
    /// The host's.
    pub fn mkdir(&self, path: &Path, new: NewFile) -> Result<()> {
        let (dir, name) = self.entry(path)?;
        mkdirat(&dir, name, self.host_mode(new.mode, true))?;
        let kept = NewFile { mode: new.mode & PERMISSIONS | FileType::Directory.as_raw_mode(), ..new };
        self.own(&dir, name, kept, None).inspect_err(|_| _ = unlinkat(&dir, name, AtFlags::REMOVEDIR))
    }

    /// Makes a symbolic link to whatever.
    ///
    /// # Errors
    /// The host's.
    pub fn symlink(&self, path: &Path, target: &[u8], new: NewFile) -> Result<()> {
        let (dir, name) = self.entry(path)?;
        if target.is_empty() || target.len() >= MAX_PATH {
            return Err(if target.is_empty() { Errno::NOENT } else { Errno::NAMETOOLONG });
        }
        let target = CString::new(target).map_err(|_| Errno::INVAL)?;
        if self.mapped() {
            self.ordinary(&dir, name, target.to_bytes())?;
        } else {
            symlinkat(target.as_c_str(), &dir, name)?;
        }
        let kept = NewFile { mode: 0o777 | FileType::Symlink.as_raw_mode(), ..new };
        self.own(&dir, name, kept, None).inspect_err(|_| _ = unlinkat(&dir, name, AtFlags::empty()))
    }

    /// Makes a file, a pipe, a socket or a device, as `new.mode` says.
    ///
    /// # Errors
    /// The host's.
    pub fn mknod(&self, path: &Path, new: NewFile, major: u32, minor: u32) -> Result<()> {
        let (dir, name) = self.entry(path)?;
        let kind = FileType::from_raw_mode(new.mode as RawMode);
        if matches!(kind, FileType::Directory | FileType::Symlink | FileType::Unknown) {
            return Err(Errno::INVAL);
        }
        let device = makedev(major, minor);
        if self.mapped() {
            self.ordinary(&dir, name, &[])?;
        } else {
            mknodat(&dir, name, kind, self.host_mode(new.mode, false), device)?;
        }
        let rdev = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice).then_some(device);
        self.own(&dir, name, new, rdev).inspect_err(|_| _ = unlinkat(&dir, name, AtFlags::empty()))
    }

    /// Makes an ordinary file that stands for something else.
    fn ordinary(&self, dir: &OwnedFd, name: &CStr, content: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(dir, name, flags, self.host_mode(0, false))?;
        let written = rustix::io::pwrite(&fd, content, 0);
        if written == Ok(content.len()) {
            return Ok(());
        }
        _ = unlinkat(dir, name, AtFlags::empty());
        Err(written.err().unwrap_or(Errno::NOSPC))
    }

    /// Gives a file a second name.
    ///
    /// # Errors
    /// The host's.
    pub fn link(&self, from: &Path, to: &Path) -> Result<()> {
        let (old_dir, old) = self.entry(from)?;
        let (dir, name) = self.entry(to)?;
        linkat(&old_dir, old, &dir, name, AtFlags::empty())
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// The host's.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (old_dir, old) = self.entry(from)?;
        let (dir, name) = self.entry(to)?;
        renameat(&old_dir, old, &dir, name)
    }

    /// Takes a name away, of a folder or of something else.
    ///
    /// # Errors
    /// The host's.
    pub fn unlink(&self, path: &Path, folder: bool) -> Result<()> {
        let (dir, name) = self.entry(path)?;
        unlinkat(&dir, name, if folder { AtFlags::REMOVEDIR } else { AtFlags::empty() })
    }

    // ---- changing ----

    /// Sets a file's permissions.
    ///
    /// # Errors
    /// The host's.
    pub fn chmod(&self, path: &Path, mode: u32) -> Result<()> {
        self.writable()?;
        let (dir, name) = self.place(path)?;
        if !self.mapped() {
            return self.chmod_at(&dir, name, mode);
        }
        let kind = self.stat_at(&dir, name)?.mode & !PERMISSIONS;
        Kept { mode: Some(kind | mode & PERMISSIONS), ..Kept::default() }.keep(&proc_path(&dir, name)?)
    }

    fn chmod_at(&self, dir: &OwnedFd, name: &CStr, mode: u32) -> Result<()> {
        // The descriptor says which file is meant; a link has no permissions.
        let fd = openat(dir, name, PATH, Mode::empty())?;
        if Attr::of(&fstat(&fd)?).kind() == FileType::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        chmod(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)), mode_of(mode))
    }

    /// Sets owner and group; [`u32::MAX`]: as before.
    ///
    /// # Errors
    /// The host's.
    pub fn chown(&self, path: &Path, owner: u32, group: u32) -> Result<()> {
        self.writable()?;
        let (dir, name) = self.place(path)?;
        if !self.mapped() {
            return chownat(&dir, name, uid(owner), gid(group), AtFlags::SYMLINK_NOFOLLOW);
        }
        let known = |n: u32| (n != u32::MAX).then_some(n);
        Kept { uid: known(owner), gid: known(group), ..Kept::default() }.keep(&proc_path(&dir, name)?)
    }

    /// Sets when a file was read and changed.
    ///
    /// # Errors
    /// The host's.
    pub fn utimes(&self, path: &Path, atime: Timespec, mtime: Timespec) -> Result<()> {
        self.writable()?;
        let (dir, name) = self.place(path)?;
        let times = Timestamps { last_access: atime, last_modification: mtime };
        utimensat(&dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Sets a file's length.
    ///
    /// # Errors
    /// The host's.
    pub fn truncate(&self, path: &Path, handle: Option<&Handle>, size: u64) -> Result<()> {
        self.writable()?;
        // An open file may have no name any more, and may be open for reading only.
        if let Some(Handle::File(fd)) = handle
            && ftruncate(fd, size).is_ok()
        {
            return Ok(());
        }
        match self.open_file(path, OFlags::WRONLY)? {
            Handle::File(fd) => ftruncate(fd, size),
            Handle::Dir(_) => Err(Errno::ISDIR),
        }
    }

    // ---- extended attributes ----

    /// The value of an attribute; without a name, the names of all.
    ///
    /// # Errors
    /// The host's, or the guest may not have it.
    pub fn xattr(&self, path: &Path, name: &[u8]) -> Result<Vec<u8>> {
        self.with_xattrs(path, |at, mapped| {
            if name.is_empty() { mapped::list(at, mapped) } else { mapped::get(at, &mapped::host_name(name, mapped)?) }
        })
    }

    /// Calls `f` with where a file's attributes are, and whether some of them are ours.
    fn with_xattrs<R>(&self, path: &Path, f: impl FnOnce(&CStr, bool) -> Result<R>) -> Result<R> {
        // Where owners are not kept, other attributes are not either.
        if self.config.model == SecurityModel::None {
            return Err(Errno::OPNOTSUPP);
        }
        // (The folder's descriptor must be open meanwhile.)
        let (dir, name) = self.place(path)?;
        f(&proc_path(&dir, name)?, self.mapped())
    }

    /// Sets an attribute, or removes it where there is no value.
    ///
    /// # Errors
    /// The host's, or the guest may not have it.
    pub fn set_xattr(&self, path: &Path, name: &[u8], value: Option<&[u8]>, flags: XattrFlags) -> Result<()> {
        self.writable()?;
        self.with_xattrs(path, |at, mapped| {
            let name = mapped::host_name(name, mapped)?;
            value.map_or_else(|| mapped::remove(at, &name), |v| mapped::set(at, &name, v, flags))
        })
    }
}
