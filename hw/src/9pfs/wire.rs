//! Messages of both dialects: `size[4] type[1] tag[2]`, then the body; numbers are little-endian, texts have a `length[2]` and no end mark.

use super::legacy::Wstat;
use rustix::io::Errno;

/// Bytes of a header.
pub const HEADER: usize = 7;
/// Types of an error's reply.
const RLERROR: u8 = 7;
const RERROR: u8 = 107;
/// Most names of a walk.
pub const MAX_WALK: u16 = 16;

/// Takes a message apart; whoever reads beyond its end gets [`Errno::INVAL`].
struct Reader<'a>(&'a [u8]);

type Parsed<T> = Result<T, Errno>;

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Parsed<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Errno::INVAL)
    }

    fn byte(&mut self) -> Parsed<u8> {
        self.array::<1>().map(|[b]| b)
    }

    fn half(&mut self) -> Parsed<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn word(&mut self) -> Parsed<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Parsed<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Parsed<Vec<u8>> {
        let len = self.half()?;
        self.take(len.into()).map(<[u8]>::to_vec)
    }
}

/// New attributes; `valid` says which are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the protocol's names")]
pub struct SetAttr {
    pub valid: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Seconds and nanoseconds.
    pub atime: (u64, u64),
    pub mtime: (u64, u64),
}

/// A lock as the driver describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the protocol's names")]
pub struct Lock {
    pub start: u64,
    pub length: u64,
    pub proc_id: u32,
    pub client_id: Vec<u8>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the protocol's names")]
pub enum Request {
    Version { msize: u32, version: Vec<u8> },
    Attach { fid: u32, uid: u32 },
    Flush,
    Walk { fid: u32, newfid: u32, names: Vec<Vec<u8>> },
    Lopen { fid: u32, flags: u32 },
    Lcreate { fid: u32, name: Vec<u8>, flags: u32, mode: u32, gid: u32 },
    Symlink { fid: u32, name: Vec<u8>, target: Vec<u8>, gid: u32 },
    Mknod { fid: u32, name: Vec<u8>, mode: u32, major: u32, minor: u32, gid: u32 },
    Mkdir { fid: u32, name: Vec<u8>, mode: u32, gid: u32 },
    Link { dir: u32, fid: u32, name: Vec<u8> },
    Rename { fid: u32, dir: u32, name: Vec<u8> },
    Renameat { old_dir: u32, old: Vec<u8>, new_dir: u32, new: Vec<u8> },
    Unlinkat { dir: u32, name: Vec<u8>, flags: u32 },
    Remove { fid: u32 },
    Readlink { fid: u32 },
    Getattr { fid: u32 },
    Setattr { fid: u32, attr: SetAttr },
    Xattrwalk { fid: u32, newfid: u32, name: Vec<u8> },
    Xattrcreate { fid: u32, name: Vec<u8>, size: u64, flags: u32 },
    Readdir { fid: u32, offset: u64, count: u32 },
    Read { fid: u32, offset: u64, count: u32 },
    Write { fid: u32, offset: u64, data: Vec<u8> },
    Fsync { fid: u32, data_only: bool },
    Statfs { fid: u32 },
    Lock { fid: u32 },
    Getlock { fid: u32, lock: Lock },
    Clunk { fid: u32 },
    Open { fid: u32, mode: u8 },
    Create { fid: u32, name: Vec<u8>, perm: u32, mode: u8, extension: Vec<u8> },
    Stat { fid: u32 },
    Wstat { fid: u32, stat: Wstat },
}

/// Which of the two dialects is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// 9P2000.L.
    #[default]
    L,
    /// 9P2000.u.
    U,
}

impl Request {
    /// Type and tag of a message, and what it asks or why that cannot be said; `None`: it has no header.
    pub fn parse(message: &[u8]) -> Option<(u8, u16, Result<Self, Errno>)> {
        let mut r = Reader(message);
        let (size, kind, tag) = (r.word().ok()?, r.byte().ok()?, r.half().ok()?);
        let body = usize::try_from(size).ok().and_then(|n| message.get(HEADER..n));
        Some((kind, tag, body.ok_or(Errno::INVAL).and_then(|body| Self::body(kind, Reader(body)))))
    }

    fn body(kind: u8, mut r: Reader<'_>) -> Parsed<Self> {
        let r = &mut r;
        Ok(match kind {
            8 => Self::Statfs { fid: r.word()? },
            12 => Self::Lopen { fid: r.word()?, flags: r.word()? },
            14 => {
                let (fid, name) = (r.word()?, r.text()?);
                Self::Lcreate { fid, name, flags: r.word()?, mode: r.word()?, gid: r.word()? }
            }
            16 => Self::Symlink { fid: r.word()?, name: r.text()?, target: r.text()?, gid: r.word()? },
            18 => {
                let (fid, name, mode) = (r.word()?, r.text()?, r.word()?);
                Self::Mknod { fid, name, mode, major: r.word()?, minor: r.word()?, gid: r.word()? }
            }
            20 => Self::Rename { fid: r.word()?, dir: r.word()?, name: r.text()? },
            22 => Self::Readlink { fid: r.word()? },
            24 => Self::Getattr { fid: r.word()? },
            26 => {
                let (fid, valid, mode) = (r.word()?, r.word()?, r.word()?);
                let (uid, gid, size) = (r.word()?, r.word()?, r.long()?);
                let (atime, mtime) = ((r.long()?, r.long()?), (r.long()?, r.long()?));
                Self::Setattr { fid, attr: SetAttr { valid, mode, uid, gid, size, atime, mtime } }
            }
            30 => Self::Xattrwalk { fid: r.word()?, newfid: r.word()?, name: r.text()? },
            32 => Self::Xattrcreate { fid: r.word()?, name: r.text()?, size: r.long()?, flags: r.word()? },
            40 => Self::Readdir { fid: r.word()?, offset: r.long()?, count: r.word()? },
            50 => Self::Fsync { fid: r.word()?, data_only: r.word()? != 0 },
            52 => {
                let (fid, _type, _flags) = (r.word()?, r.byte()?, r.word()?);
                Self::lock(r)?;
                Self::Lock { fid }
            }
            54 => {
                let (fid, _type) = (r.word()?, r.byte()?);
                Self::Getlock { fid, lock: Self::lock(r)? }
            }
            70 => Self::Link { dir: r.word()?, fid: r.word()?, name: r.text()? },
            72 => Self::Mkdir { fid: r.word()?, name: r.text()?, mode: r.word()?, gid: r.word()? },
            74 => Self::Renameat { old_dir: r.word()?, old: r.text()?, new_dir: r.word()?, new: r.text()? },
            76 => Self::Unlinkat { dir: r.word()?, name: r.text()?, flags: r.word()? },
            100 => Self::Version { msize: r.word()?, version: r.text()? },
            104 => {
                let (fid, _afid, _uname, _aname) = (r.word()?, r.word()?, r.text()?, r.text()?);
                Self::Attach { fid, uid: r.word()? }
            }
            108 => {
                r.half()?;
                Self::Flush
            }
            110 => {
                let (fid, newfid, n) = (r.word()?, r.word()?, r.half()?);
                if n > MAX_WALK {
                    return Err(Errno::INVAL);
                }
                Self::Walk { fid, newfid, names: (0..n).map(|_| r.text()).collect::<Parsed<_>>()? }
            }
            112 => Self::Open { fid: r.word()?, mode: r.byte()? },
            114 => {
                let (fid, name, perm) = (r.word()?, r.text()?, r.word()?);
                Self::Create { fid, name, perm, mode: r.byte()?, extension: r.text()? }
            }
            116 => Self::Read { fid: r.word()?, offset: r.long()?, count: r.word()? },
            118 => {
                let (fid, offset, count) = (r.word()?, r.long()?, r.word()?);
                Self::Write { fid, offset, data: r.take(count as usize)?.to_vec() }
            }
            120 => Self::Clunk { fid: r.word()? },
            122 => Self::Remove { fid: r.word()? },
            124 => Self::Stat { fid: r.word()? },
            126 => Self::Wstat { fid: r.word()?, stat: Self::wstat(r)? },
            // Authentication, and what nobody knows.
            _ => return Err(Errno::OPNOTSUPP),
        })
    }

    /// Two sizes, what only servers say, the attributes.
    fn wstat(r: &mut Reader<'_>) -> Parsed<Wstat> {
        r.take(2 + 2 + 2 + 4 + Qid::LEN)?;
        let (mode, atime, mtime, length) = (r.word()?, r.word()?, r.word()?, r.long()?);
        let (name, _uid, _gid, _muid, _extension) = (r.text()?, r.text()?, r.text()?, r.text()?, r.text()?);
        Ok(Wstat { mode, atime, mtime, length, name, n_uid: r.word()?, n_gid: r.word()? })
    }

    fn lock(r: &mut Reader<'_>) -> Parsed<Lock> {
        Ok(Lock { start: r.long()?, length: r.long()?, proc_id: r.word()?, client_id: r.text()? })
    }
}

/// What names a file to the driver: kind, version, number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Qid {
    /// [`Qid::DIR`], [`Qid::SYMLINK`] or 0.
    pub kind: u8,
    /// Changes with the contents.
    pub version: u32,
    /// Two files have two numbers.
    pub path: u64,
}

impl Qid {
    /// A folder.
    pub const DIR: u8 = 0x80;
    /// A symbolic link.
    pub const SYMLINK: u8 = 2;
    /// Bytes of one.
    pub const LEN: usize = 13;
}

/// The body of a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body(pub Vec<u8>);

impl Body {
    /// Adds a byte.
    #[must_use]
    pub fn byte(mut self, v: u8) -> Self {
        self.0.push(v);
        self
    }

    /// Adds two bytes.
    #[must_use]
    pub fn half(mut self, v: u16) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }

    /// Adds four bytes.
    #[must_use]
    pub fn word(mut self, v: u32) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }

    /// Adds eight bytes.
    #[must_use]
    pub fn long(mut self, v: u64) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }

    /// Adds a text, at most 65535 bytes of it.
    #[must_use]
    pub fn text(self, v: &[u8]) -> Self {
        let len = u16::try_from(v.len()).unwrap_or(u16::MAX);
        let mut b = self.half(len);
        b.0.extend(v.iter().take(len.into()));
        b
    }

    /// Adds a qid.
    #[must_use]
    pub fn qid(self, q: Qid) -> Self {
        self.byte(q.kind).word(q.version).long(q.path)
    }
}

/// The reply to a message of type `kind`.
pub fn reply(kind: u8, tag: u16, dialect: Dialect, result: Result<Body, Errno>) -> Vec<u8> {
    let number = |e: Errno| e.raw_os_error().unsigned_abs();
    let (kind, body) = match (result, dialect) {
        (Ok(body), _) => (kind.wrapping_add(1), body),
        (Err(e), Dialect::L) => (RLERROR, Body::default().word(number(e))),
        (Err(e), Dialect::U) => {
            let text = std::io::Error::from(e).to_string();
            (RERROR, Body::default().text(text.as_bytes()).word(number(e)))
        }
    };
    let size = HEADER + body.0.len();
    let mut all = Vec::with_capacity(size);
    all.extend(u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
    all.push(kind);
    all.extend(tag.to_le_bytes());
    all.extend(body.0);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let size = (HEADER + body.len()) as u32;
        [&size.to_le_bytes()[..], &[kind, 9, 0], body].concat()
    }

    #[test]
    fn messages_are_taken_apart() {
        let walk = message(110, &[1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 1, 0, b'a', 2, 0, b'.', b'.']);
        let names = vec![b"a".to_vec(), b"..".to_vec()];
        assert_eq!(Request::parse(&walk), Some((110, 9, Ok(Request::Walk { fid: 1, newfid: 2, names }))));
        let write = message(118, &[1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 7, 8, 9]);
        let parsed = Request::parse(&write).unwrap().2.unwrap();
        assert_eq!(parsed, Request::Write { fid: 1, offset: 5, data: vec![7, 8] });
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_an_error_and_never_more() {
        assert_eq!(Request::parse(&[7, 0, 0, 0, 100, 0]), None);
        assert_eq!(Request::parse(&message(102, &[])).unwrap().2, Err(Errno::OPNOTSUPP));
        let (size, write) =
            (message(118, &[]), message(118, &[1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]));
        for m in [size, write, message(110, &[1, 0, 0, 0, 2, 0, 0, 0, 17, 0])] {
            assert_eq!(Request::parse(&m).unwrap().2, Err(Errno::INVAL));
        }
        // A size beyond the message, or within its header
        for size in [200u8, 3] {
            let mut m = message(120, &[1, 0, 0, 0]);
            m[0] = size;
            assert_eq!(Request::parse(&m).unwrap().2, Err(Errno::INVAL));
        }
        // Every type, every length: a text's length is the first thing that can lie.
        for kind in 0..=255 {
            for len in 0..80 {
                for fill in [0, 1, 0xff] {
                    let (_, tag, _) = Request::parse(&message(kind, &vec![fill; len])).unwrap();
                    assert_eq!(tag, 9);
                }
            }
        }
    }

    #[test]
    fn replies_say_their_size() {
        let qid = Qid { kind: Qid::DIR, version: 1, path: 2 };
        let r = reply(104, 5, Dialect::L, Ok(Body::default().qid(qid)));
        assert_eq!(r, [20, 0, 0, 0, 105, 5, 0, 0x80, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reply(104, 5, Dialect::L, Err(Errno::NOENT)), [11, 0, 0, 0, 7, 5, 0, 2, 0, 0, 0]);
        assert_eq!(Body::default().text(b"ab").0, [2, 0, b'a', b'b']);
    }
}
