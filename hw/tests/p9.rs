//! The 9P server on folders of the host, by its messages: no machine.

use hw::fsdev::{FsDev, Multidevs, SecurityModel, Tree};
use hw::p9::server::Server;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Error numbers of Linux.
const EPERM: u32 = 1;
const ENOENT: u32 = 2;
const ENXIO: u32 = 6;
const EACCES: u32 = 13;
const EBUSY: u32 = 16;
const EEXIST: u32 = 17;
const EXDEV_OR_LOOP: [u32; 2] = [20, 40];
const EISDIR: u32 = 21;
const EINVAL: u32 = 22;
const EFBIG_OR_INVAL: [u32; 2] = [27, 22];
const ENOSPC: u32 = 28;
const EROFS: u32 = 30;
const ENOTEMPTY: u32 = 39;
const ENODATA: u32 = 61;
const EMSGSIZE: u32 = 90;
const EOPNOTSUPP: u32 = 95;

const ROOM: u64 = 1 << 20;
/// The folder's fid.
const TOP: u32 = 0;

struct Client {
    server: Server,
    dir: tempfile::TempDir,
}

/// Puts a message together.
#[derive(Clone, Default)]
struct M(Vec<u8>);

impl M {
    fn w(mut self, v: u32) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }
    fn h(mut self, v: u16) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }
    fn l(mut self, v: u64) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }
    fn s(self, v: &str) -> Self {
        let mut m = self.h(v.len() as u16);
        m.0.extend(v.as_bytes());
        m
    }
}

fn m() -> M {
    M::default()
}

fn word(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

fn long(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}

impl Client {
    fn with(model: SecurityModel, change: impl FnOnce(&mut FsDev)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        let mut config =
            FsDev { path, model, readonly: false, multidevs: Multidevs::Warn, modes: (0o600, 0o700), max_xattr: 4 };
        change(&mut config);
        let mut c = Self { server: Server::new(Tree::open(&Arc::new(config)).unwrap()), dir };
        c.begin();
        c
    }

    fn new(model: SecurityModel) -> Self {
        Self::with(model, |_| ())
    }

    fn begin(&mut self) {
        self.speak("9P2000.L");
    }

    fn speak(&mut self, dialect: &str) {
        let v = self.ok(100, m().w(65536).s(dialect));
        assert_eq!(v[..], m().w(65536).s(dialect).0);
        self.ok(104, m().w(TOP).w(u32::MAX).s("").s("").w(1000));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("shared").join(name)
    }

    /// Sends a message; the reply's body or the error.
    fn ask(&mut self, kind: u8, body: M) -> Result<Vec<u8>, u32> {
        let mut all = (7 + body.0.len() as u32).to_le_bytes().to_vec();
        all.extend([kind, 0x34, 0x12]);
        all.extend(body.0);
        let r = self.server.handle(&all, ROOM).expect("a reply");
        assert_eq!((word(&r, 0) as usize, &r[5..7]), (r.len(), &[0x34, 0x12][..]));
        // (In the other dialect the number stands behind a text.)
        if r[4] == 107 {
            return Err(word(&r, r.len() - 4));
        }
        if r[4] == 7 { Err(word(&r, 7)) } else { Ok((assert_eq!(r[4], kind + 1), r[7..].to_vec()).1) }
    }

    fn ok(&mut self, kind: u8, body: M) -> Vec<u8> {
        self.ask(kind, body).unwrap_or_else(|e| panic!("message {kind}: error {e}"))
    }

    fn err(&mut self, kind: u8, body: M) -> u32 {
        self.ask(kind, body).expect_err("an error")
    }

    /// Walks from the folder to `path` with a new fid.
    fn walk(&mut self, fid: u32, path: &str) -> Result<Vec<u8>, u32> {
        let names: Vec<&str> = path.split('/').filter(|n| !n.is_empty()).collect();
        let start = m().w(TOP).w(fid).h(names.len() as u16);
        let body = names.iter().fold(start, |b, n| b.s(n));
        let r = self.ask(110, body)?;
        // Not all the way: as if there were nothing.
        if usize::from(r[0]) == names.len() { Ok(r) } else { Err(ENOENT) }
    }

    fn create(&mut self, fid: u32, name: &str, flags: u32, mode: u32) -> Result<Vec<u8>, u32> {
        self.walk(fid, "").unwrap();
        let r = self.ask(14, m().w(fid).s(name).w(flags).w(mode).w(100));
        if r.is_err() {
            self.clunk(fid);
        }
        r
    }

    fn clunk(&mut self, fid: u32) {
        self.ok(120, m().w(fid));
    }

    fn write(&mut self, fid: u32, at: u64, data: &[u8]) -> Result<u32, u32> {
        let mut body = m().w(fid).l(at).w(data.len() as u32);
        body.0.extend(data);
        self.ask(118, body).map(|r| word(&r, 0))
    }

    fn read(&mut self, fid: u32, at: u64, n: u32) -> Result<Vec<u8>, u32> {
        self.ask(116, m().w(fid).l(at).w(n)).map(|r| r[4..].to_vec())
    }

    /// Mode, owner, group, links, size.
    fn attr(&mut self, fid: u32) -> (u32, u32, u32, u64, u64) {
        let r = self.ok(24, m().w(fid).l(0x7ff));
        assert_eq!(long(&r, 0), 0x7ff);
        (word(&r, 21), word(&r, 25), word(&r, 29), long(&r, 33), long(&r, 49))
    }

    /// Names in an open folder, in its order.
    fn names(&mut self, fid: u32, count: u32) -> Vec<String> {
        let (mut all, mut at) = (vec![], 0);
        loop {
            let r = self.ok(40, m().w(fid).l(at).w(count));
            assert!(r.len() as u32 <= count + 4);
            let mut e = &r[4..];
            if e.is_empty() {
                return all;
            }
            while !e.is_empty() {
                at = long(e, 13);
                let n = usize::from(u16::from_le_bytes([e[22], e[23]]));
                all.push(String::from_utf8(e[24..24 + n].to_vec()).unwrap());
                e = &e[24 + n..];
            }
        }
    }
}

fn same_everywhere(f: impl Fn(SecurityModel)) {
    [SecurityModel::None, SecurityModel::MappedXattr].into_iter().for_each(f);
}

#[test]
fn files_are_made_written_read_renamed_and_removed() {
    same_everywhere(|model| {
        let mut c = Client::new(model);
        // O_RDWR | O_EXCL
        c.create(1, "a", 0o202, 0o640).unwrap();
        assert_eq!(c.write(1, 0, b"hello"), Ok(5));
        assert_eq!(c.write(1, 10, b"there"), Ok(5));
        assert_eq!(c.read(1, 0, 100).unwrap(), b"hello\0\0\0\0\0there");
        assert_eq!((c.read(1, 15, 100).unwrap(), c.read(1, 1 << 40, 9).unwrap()), (vec![], vec![]));
        assert!(c.ok(50, m().w(1).w(0)).is_empty());
        assert_eq!(c.create(2, "a", 0o202, 0o640), Err(EEXIST));
        c.create(2, "a", 2, 0o640).unwrap();
        assert_eq!(c.read(2, 0, 2).unwrap(), b"he");
        let (mode, _, _, links, size) = c.attr(1);
        assert_eq!((mode, links, size), (0o100640, 1, 15));
        // A folder, and the file into it; fids go along.
        c.ok(72, m().w(TOP).s("d").w(0o750).w(100));
        c.walk(3, "d").unwrap();
        c.walk(4, "a").unwrap();
        c.ok(74, m().w(TOP).s("a").w(3).s("b"));
        assert_eq!(c.attr(4).4, 15);
        assert!(c.path("d/b").exists() && c.walk(9, "a") == Err(ENOENT));
        c.ok(20, m().w(3).w(TOP).s("e"));
        assert_eq!((c.attr(3).0, c.attr(4).4), (0o040750, 15));
        assert!(c.path("e/b").exists());
        assert!(EFBIG_OR_INVAL.contains(&c.err(74, m().w(TOP).s("e").w(3).s("x"))), "into itself");
        // A second name; then no name at all, and still it is read.
        c.ok(70, m().w(TOP).w(4).s("c"));
        assert_eq!(c.attr(4).3, 2);
        assert_eq!(c.err(76, m().w(TOP).s("e").w(0x200)), ENOTEMPTY);
        assert_eq!(c.err(76, m().w(TOP).s("e").w(0)), EISDIR);
        c.ok(76, m().w(3).s("b").w(0));
        c.ok(76, m().w(TOP).s("c").w(0));
        assert_eq!((c.read(1, 0, 5).unwrap(), c.attr(1).3), (b"hello".to_vec(), 0));
        // Its size, by a fid that is open, without a name.
        let size = |fid: u32, n: u64| m().w(fid).w(8).w(0).w(0).w(0).l(n).l(0).l(0).l(0).l(0);
        c.ok(26, size(1, 3));
        assert_eq!(c.attr(1).4, 3);
        assert_eq!(c.err(26, size(4, 3)), ENOENT);
        c.ok(122, m().w(3));
        assert_eq!(c.err(24, m().w(3).l(0)), ENOENT, "the fid is gone too");
        assert_eq!(std::fs::read_dir(c.path("")).unwrap().count(), 0);
    });
}

#[test]
fn folders_are_read_in_pieces() {
    let mut c = Client::new(SecurityModel::None);
    let mut want: Vec<String> = (0..500).map(|n| format!("file{n}")).collect();
    for name in &want {
        std::fs::write(c.path(name), "").unwrap();
    }
    c.walk(1, "").unwrap();
    c.ok(12, m().w(1).w(0o200000));
    want.extend([".".into(), "..".into()]);
    want.sort();
    for count in [64, 1000, 65536] {
        let mut got = c.names(1, count);
        got.sort();
        assert_eq!(got, want, "{count}");
    }
    assert_eq!(c.err(40, m().w(1).l(0).w(10)), EINVAL, "not one entry fits");
    assert_eq!(c.err(116, m().w(1).l(0).w(10)), EINVAL, "a folder has no bytes");
    assert_eq!(c.err(118, m().w(1).l(0).w(0)), EINVAL);
    // What is above is not shown: its number is the folder's own.
    let r = c.ok(40, m().w(1).l(0).w(65536));
    let (mut e, own) = (&r[4..], std::fs::metadata(c.path("")).unwrap().ino());
    let mut dots = 0;
    while !e.is_empty() {
        let n = usize::from(e[22]);
        if e[24..24 + n].starts_with(b".") {
            assert_eq!(long(e, 5), own);
            dots += 1;
        }
        e = &e[24 + n..];
    }
    assert_eq!(dots, 2);
    assert_eq!(c.err(12, m().w(1).w(0)), EINVAL, "it is open");
    c.walk(2, "").unwrap();
    assert_eq!(c.err(12, m().w(2).w(1)), EISDIR);
}

#[test]
fn nothing_outside_is_reached() {
    let mut c = Client::new(SecurityModel::None);
    let secret = c.dir.path().join("secret");
    symlink("/etc/passwd", c.path("abs")).unwrap();
    symlink("../secret", c.path("rel")).unwrap();
    symlink("..", c.path("up")).unwrap();
    symlink("/proc/self/root", c.path("proc")).unwrap();
    // The top is above itself.
    for path in ["..", "../..", "../../secret", "../secret"] {
        match c.walk(1, path) {
            Ok(_) => {
                assert_eq!(c.attr(1).0 & 0o170000, 0o040000, "{path}");
                let r = c.ok(24, m().w(1).l(0));
                assert_eq!(long(&r, 13), std::fs::metadata(c.path("")).unwrap().ino(), "{path}");
                c.clunk(1);
            }
            Err(e) => assert_eq!(e, ENOENT, "{path}"),
        }
    }
    for link in ["abs", "rel", "up", "proc"] {
        let qid = c.walk(1, link).unwrap();
        assert_eq!((qid[2], c.attr(1).0 & 0o170000), (2, 0o120000), "a link is shown as one");
        assert_eq!(c.err(12, m().w(1).w(0)), ENXIO, "{link}");
        assert_eq!(c.err(30, m().w(1).w(2).s("")), EOPNOTSUPP);
        // Modes and sizes of what it leads to stay.
        assert_eq!(c.err(26, m().w(1).w(1).w(0o777).w(0).w(0).l(0).l(0).l(0).l(0).l(0)), EOPNOTSUPP);
        assert_eq!(c.err(26, m().w(1).w(8).w(0).w(0).w(0).l(0).l(0).l(0).l(0).l(0)), ENXIO);
        c.clunk(1);
    }
    for path in ["up/secret", "proc/etc/passwd", "up/shared"] {
        assert!(c.walk(1, path).is_err(), "{path}");
    }
    // As a folder, a link is none: nothing is made behind it. (A walk ends before it, so the fid is the link.)
    c.walk(1, "up").unwrap();
    let made = [
        c.err(14, m().w(1).s("x").w(2).w(0o600).w(0)),
        c.err(16, m().w(1).s("x").s("y").w(0)),
        c.err(72, m().w(1).s("x").w(0o700).w(0)),
        c.err(76, m().w(1).s("secret").w(0)),
        c.err(74, m().w(1).s("secret").w(TOP).s("got")),
    ];
    assert!(made.iter().all(|e| EXDEV_OR_LOOP.contains(e)), "{made:?}");
    // Names that are no names
    let bad = [
        ("", ENOENT),
        (".", EEXIST),
        ("..", EEXIST),
        ("../x", ENOENT),
        ("a/b", ENOENT),
        ("/etc", ENOENT),
        ("a\0b", EINVAL),
    ];
    for (name, error) in bad {
        assert_eq!(c.err(72, m().w(TOP).s(name).w(0o700).w(0)), error, "{name:?}");
        assert_eq!(c.err(76, m().w(TOP).s(name).w(0)), error, "{name:?}");
        assert_eq!(c.err(74, m().w(TOP).s("abs").w(TOP).s(name)), error, "{name:?}");
    }
    // The host turns a folder into a link while the guest is in it.
    std::fs::create_dir(c.path("dir")).unwrap();
    c.walk(2, "dir").unwrap();
    std::fs::remove_dir(c.path("dir")).unwrap();
    symlink("..", c.path("dir")).unwrap();
    assert!(EXDEV_OR_LOOP.contains(&c.err(14, m().w(2).s("x").w(2).w(0o600).w(0))));
    // Pipes are not opened: nobody waits for their other ends.
    assert!(std::process::Command::new("mkfifo").arg(c.path("pipe")).status().unwrap().success());
    c.walk(3, "pipe").unwrap();
    assert_eq!(c.err(12, m().w(3).w(0)), ENXIO);
    assert_eq!(std::fs::read_to_string(secret).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(c.dir.path()).unwrap().count(), 2);
}

#[test]
fn owners_and_modes_are_kept_beside_the_files_or_in_them() {
    let kind = |p: &Path| std::fs::symlink_metadata(p).unwrap();
    let mut c = Client::new(SecurityModel::MappedXattr);
    c.create(1, "f", 2, 0o4755).unwrap();
    assert_eq!(c.attr(1).0, 0o104755);
    assert_eq!((c.attr(1).1, c.attr(1).2), (1000, 100));
    assert_eq!(kind(&c.path("f")).permissions().mode() & 0o7777, 0o600);
    // chown, chmod
    c.walk(2, "f").unwrap();
    c.ok(26, m().w(2).w(6).w(0).w(7).w(8).l(0).l(0).l(0).l(0).l(0));
    c.ok(26, m().w(2).w(1).w(0o100400).w(0).w(0).l(0).l(0).l(0).l(0).l(0));
    assert_eq!((c.attr(2).0, c.attr(2).1, c.attr(2).2), (0o100400, 7, 8));
    assert_eq!(c.attr(1).0, 0o100400, "an open file has the same");
    // Links and devices are ordinary files here, and what they are there.
    c.ok(16, m().w(TOP).s("l").s("/etc/passwd").w(100));
    c.ok(18, m().w(TOP).s("null").w(0o020666).w(1).w(3).w(100));
    assert!(kind(&c.path("l")).is_file() && kind(&c.path("null")).is_file());
    c.walk(3, "l").unwrap();
    assert_eq!((c.attr(3).0, c.ok(22, m().w(3))), (0o120777, m().s("/etc/passwd").0));
    assert_eq!(c.err(12, m().w(3).w(0)), ENXIO);
    c.walk(4, "null").unwrap();
    let r = c.ok(24, m().w(4).l(0));
    assert_eq!((word(&r, 21), long(&r, 41)), (0o020666, 0x103));
    // Extended attributes: the guest's own, without ours.
    let set = |c: &mut Client, name: &str, value: &[u8], flags: u32| {
        c.walk(8, "f").unwrap();
        let made = c.ask(32, m().w(8).s(name).l(value.len() as u64).w(flags));
        if made.is_ok() && !value.is_empty() {
            assert_eq!(c.write(8, 0, value), Ok(value.len() as u32));
        }
        let end = c.ask(120, m().w(8));
        made.and(end).map(drop)
    };
    let get = |c: &mut Client, name: &str| {
        let r = c.ask(30, m().w(2).w(8).s(name))?;
        let value = c.read(8, 0, 65536)?;
        c.clunk(8);
        assert_eq!(long(&r, 0), value.len() as u64);
        Ok(value)
    };
    set(&mut c, "user.a", b"value", 0).unwrap();
    assert_eq!((get(&mut c, "user.a"), get(&mut c, "user.b")), (Ok(b"value".to_vec()), Err(ENODATA)));
    assert_eq!(get(&mut c, ""), Ok(b"user.a\0".to_vec()));
    assert_eq!(set(&mut c, "user.a", b"x", 1), Err(EEXIST));
    assert_eq!(set(&mut c, "user.virtfs.uid", b"\0\0\0\0", 0), Err(EACCES));
    assert_eq!(get(&mut c, "user.virtfs.uid"), Err(EACCES));
    assert_eq!(set(&mut c, "trusted.a", b"x", 0), Err(EOPNOTSUPP));
    set(&mut c, "user.a", b"", 0).unwrap();
    assert_eq!(get(&mut c, "user.a"), Err(ENODATA));
    // Less than was announced, more, too much, too many at once
    c.walk(8, "f").unwrap();
    c.ok(32, m().w(8).s("user.c").l(4).w(0));
    assert_eq!(
        (c.write(8, 0, b"ab"), c.write(8, 1, b"c"), c.write(8, 2, b"cdef"), c.write(8, 4, b"x")),
        (Ok(2), Err(EINVAL), Ok(2), Err(ENOSPC))
    );
    c.clunk(8);
    assert_eq!(get(&mut c, "user.c"), Ok(b"abcd".to_vec()));
    c.walk(8, "f").unwrap();
    assert_eq!(c.err(32, m().w(8).s("user.d").l(65537).w(0)), 7);
    c.ok(32, m().w(8).s("user.d").l(4).w(0));
    assert_eq!(c.err(120, m().w(8)), EINVAL);
    assert_eq!(get(&mut c, "user.d"), Err(ENODATA));
    for fid in 20..24 {
        c.ok(30, m().w(2).w(fid).s(""));
    }
    assert_eq!(c.err(30, m().w(2).w(24).s("")), ENOSPC);
    // Not mapped: what the host says. (An owner that cannot be set is no error, or the tests run as one who may.)
    let mut c = Client::new(SecurityModel::None);
    c.create(1, "f", 2, 0o640).unwrap();
    assert_eq!(kind(&c.path("f")).permissions().mode() & 0o7777, 0o640);
    c.ok(16, m().w(TOP).s("l").s("nowhere").w(100));
    assert_eq!(std::fs::read_link(c.path("l")).unwrap(), Path::new("nowhere"));
    let given = c.ask(18, m().w(TOP).s("null").w(0o020666).w(1).w(3).w(100));
    assert!(given.is_ok() || given == Err(EPERM));
    c.walk(2, "f").unwrap();
    // Times: now, and given
    c.ok(26, m().w(2).w(0x10 | 0x20 | 0x100).w(0).w(0).w(0).l(0).l(9).l(9).l(1_000_000_000).l(5));
    let times = kind(&c.path("f"));
    assert_eq!((times.mtime(), times.mtime_nsec()), (1_000_000_000, 5));
    assert!(times.atime() > 1_700_000_000);
    assert_eq!(c.err(26, m().w(2).w(0x120).w(0).w(0).w(0).l(0).l(0).l(0).l(0).l(0x3fff_ffff)), EINVAL);
    let s = c.ok(8, m().w(TOP));
    assert_eq!((s.len(), word(&s, 4) > 0, word(&s, 56)), (60, true, 255));
}

#[test]
fn a_folder_that_may_not_be_changed_is_not() {
    let mut c = Client::with(SecurityModel::None, |f| f.readonly = true);
    std::fs::write(c.path("f"), "text").unwrap();
    c.walk(1, "f").unwrap();
    for flags in [1, 2, 0o1000, 0o1001] {
        assert_eq!(c.err(12, m().w(1).w(flags)), EROFS);
    }
    let none = |fid: u32, valid: u32| m().w(fid).w(valid).w(0).w(0).w(0).l(0).l(0).l(0).l(0).l(0);
    for valid in [1, 6, 8, 0x10, 0x40] {
        assert_eq!(c.err(26, none(1, valid)), EROFS, "{valid:#x}");
    }
    assert_eq!(c.create(2, "g", 2, 0o600), Err(EROFS));
    for (kind, body) in [
        (16, m().w(TOP).s("x").s("y").w(0)),
        (18, m().w(TOP).s("x").w(0o100600).w(0).w(0).w(0)),
        (72, m().w(TOP).s("x").w(0o700).w(0)),
        (70, m().w(TOP).w(1).s("x")),
        (74, m().w(TOP).s("f").w(TOP).s("x")),
        (76, m().w(TOP).s("f").w(0)),
    ] {
        assert_eq!(c.err(kind, body), EROFS, "{kind}");
    }
    c.ok(12, m().w(1).w(0));
    assert_eq!(c.read(1, 0, 9).unwrap(), b"text");
    assert_eq!(c.write(1, 0, b"x"), Err(9));
}

#[test]
fn sessions_begin_with_a_version_and_fids_are_bounded() {
    let mut c = Client::new(SecurityModel::None);
    assert_eq!(c.err(104, m().w(TOP).w(0).s("").s("").w(0)), EINVAL, "the fid is used");
    assert_eq!(c.err(100, m().w(100).s("9P2000.L")), EMSGSIZE);
    assert_eq!(c.ok(100, m().w(8192).s("9P2000"))[6..], *b"unknown");
    assert_eq!(c.err(104, m().w(TOP).w(0).s("").s("").w(0)), EINVAL, "there is no session");
    assert_eq!(word(&c.ok(100, m().w(u32::MAX).s("9P2000.L")), 0), 1 << 20);
    c.begin();
    assert_eq!(c.err(102, m().w(1).s("").s("").w(0)), EOPNOTSUPP);
    c.ok(108, m().h(7));
    assert_eq!(c.err(110, m().w(TOP).w(TOP).h(1).s("nothing")), ENOENT);
    assert_eq!(c.err(22, m().w(TOP)), EINVAL);
    assert_eq!(c.err(122, m().w(TOP)), EBUSY);
    c.begin();
    // A path as long as Linux has them, made of long names
    let name = "n".repeat(255);
    let mut at = TOP;
    let mut depth = 0;
    loop {
        match c.ask(72, m().w(at).s(&name).w(0o700).w(0)) {
            Ok(_) => depth += 1,
            Err(e) => break assert_eq!(e, 36, "ENAMETOOLONG"),
        }
        c.ok(110, m().w(at).w(depth).h(1).s(&name));
        at = depth;
    }
    assert_eq!(depth, 16);
    // Fids are bounded by what they remember; the server goes on.
    let error = (1000..200_000).find_map(|fid| c.ask(110, m().w(at).w(fid).h(0)).err());
    assert_eq!(error, Some(23), "ENFILE");
    assert_eq!(c.err(110, m().w(TOP).w(TOP).h(1).s("nothing")), ENOENT);
    c.begin();
    // Open files: some are left for others.
    std::fs::write(c.path("f"), "").unwrap();
    let mut error = 0;
    for fid in 100..20_000 {
        c.walk(fid, "f").unwrap();
        if let Err(e) = c.ask(12, m().w(fid).w(0)) {
            error = e;
            break;
        }
    }
    assert_eq!(error, 24, "EMFILE");
    std::fs::File::open(c.path("f")).unwrap();
}

/// Messages that are half right: the server answers each, and nothing outside changes.
#[test]
fn random_messages_are_answered() {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move |n: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x % n
    };
    const KINDS: [u8; 34] = [
        112, 114, 124, 126, 8, 12, 14, 16, 18, 20, 22, 24, 26, 30, 32, 40, 50, 52, 54, 70, 72, 74, 76, 104, 108, 110,
        110, 110, 116, 118, 120, 122, 0, 255,
    ];
    const NAMES: [&str; 8] = ["a", "b", "..", ".", "", "a/b", "/", "up"];
    for model in [SecurityModel::None, SecurityModel::MappedXattr] {
        let mut c = Client::new(model);
        symlink("..", c.path("up")).unwrap();
        for _ in 0..30_000 {
            let mut body = m();
            for _ in 0..next(12) {
                body = match next(6) {
                    0 => body.w(next(6) as u32),
                    1 => body.w(next(6) as u32).w(next(6) as u32),
                    2 => body.s(NAMES[next(8) as usize]),
                    3 => body.l(next(20)),
                    4 => body.h(next(4) as u16),
                    _ => body.w(next(u64::from(u32::MAX)) as u32),
                };
            }
            // (A file of many terabytes says nothing of the server.)
            let kind = KINDS[next(KINDS.len() as u64) as usize];
            _ = c.ask(kind, body);
            if !c.server.is_used() || next(100) == 0 {
                c.speak(if next(2) == 0 { "9P2000.L" } else { "9P2000.u" });
            }
        }
        assert_eq!(std::fs::read_dir(c.dir.path()).unwrap().count(), 2);
        assert_eq!(std::fs::read_to_string(c.dir.path().join("secret")).unwrap(), "secret");
    }
}

/// A structure of attributes: mode, length, name, extension, owner; and how long it is.
fn structure(b: &[u8]) -> (u32, u64, String, String, u32, usize) {
    let size = usize::from(u16::from_le_bytes([b[0], b[1]])) + 2;
    let mut at = 41;
    let mut text = || {
        let n = usize::from(u16::from_le_bytes([b[at], b[at + 1]]));
        at += 2 + n;
        String::from_utf8(b[at - n..at].to_vec()).unwrap()
    };
    let (name, _, _, _, ext) = (text(), text(), text(), text(), text());
    (word(b, 21), long(b, 33), name, ext, word(b, at), size)
}

#[test]
fn the_other_dialect_opens_by_modes_and_reads_folders_as_bytes() {
    let mut c = Client::new(SecurityModel::MappedXattr);
    assert_eq!(c.err(112, m().w(TOP).h(0)), EOPNOTSUPP, "not in this dialect");
    c.speak("9P2000.u");
    let make = |c: &mut Client, fid: u32, name: &str, perm: u32, mode: u8, ext: &str| {
        c.walk(fid, "").unwrap();
        let mut body = m().w(fid).s(name).w(perm);
        body.0.push(mode);
        c.ask(114, body.s(ext))
    };
    make(&mut c, 1, "f", 0x0008_0000 | 0o750, 2, "").unwrap();
    assert_eq!((c.write(1, 0, b"text"), c.read(1, 1, 9).unwrap()), (Ok(4), b"ext".to_vec()));
    make(&mut c, 2, "d", 0x8000_0000 | 0o700, 0, "").unwrap();
    make(&mut c, 3, "l", 0x0200_0000 | 0o777, 0, "/etc/passwd").unwrap();
    make(&mut c, 4, "n", 0x0080_0000 | 0o600, 0, "c 1 3").unwrap();
    make(&mut c, 5, "h", 0x0100_0000, 0, "1").unwrap();
    assert_eq!(make(&mut c, 6, "x", 0x0080_0000, 0, "c 1"), Err(EINVAL));
    assert_eq!(c.ask(114, m().w(6).s("f").w(0o600).h(0).h(0)), Err(EEXIST));
    let stat = |c: &mut Client, fid: u32| {
        let r = c.ok(124, m().w(fid));
        let s = structure(&r[2..]);
        assert_eq!((usize::from(u16::from_le_bytes([r[0], r[1]])), r.len()), (s.5, s.5 + 2));
        (s.0, s.1, s.2, s.3)
    };
    assert_eq!(stat(&mut c, 1), (0x0008_01e8, 4, "f".into(), String::new()));
    assert_eq!(stat(&mut c, 3), (0x0200_01ff, 11, "l".into(), "/etc/passwd".into()));
    assert_eq!(stat(&mut c, 4), (0x0080_0180, 0, "n".into(), "c 1 3".into()));
    assert_eq!((stat(&mut c, 5).1, stat(&mut c, TOP).2), (4, "/".into()));
    // Attributes: those that are all ones stay.
    let wstat = |fid: u32, mode: u32, mtime: u32, length: u64, name: &str, gid: u32| {
        let keep = u32::MAX;
        let body = m().w(fid).h(0).h(0).h(0).w(keep).w(keep).w(keep).w(keep);
        let mut body = M([body.0, vec![0xff]].concat());
        body = body.w(mode).w(keep).w(mtime).l(length).s(name).s("").s("").s("").s("");
        body.w(keep).w(gid).w(keep)
    };
    let keep = (u32::MAX, u64::MAX);
    c.ok(126, wstat(1, 0o640, 1_000_000_000, 2, "g", 5));
    c.ok(126, wstat(1, keep.0, keep.0, keep.1, "", keep.0));
    assert_eq!(stat(&mut c, 1), (0o640, 2, "g".into(), String::new()));
    assert_eq!(std::fs::metadata(c.path("g")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(c.err(126, wstat(1, 0x8000_0000, keep.0, keep.1, "", keep.0)), 5, "a file is no folder");
    for (name, error) in [("../x", ENOENT), ("..", EEXIST)] {
        assert_eq!(c.err(126, wstat(1, keep.0, keep.0, keep.1, name, keep.0)), error);
    }
    // A folder in pieces; only in order
    (0..100).for_each(|n| std::fs::write(c.path(&format!("d/{n}")), "").unwrap());
    c.walk(9, "d").unwrap();
    assert_eq!(c.err(112, M([m().w(9).0, vec![1]].concat())), EISDIR);
    c.ok(112, M([m().w(9).0, vec![0]].concat()));
    for count in [200, 8192] {
        let (mut at, mut names) = (0, vec![]);
        loop {
            let piece = c.read(9, at, count).unwrap();
            if piece.is_empty() {
                break;
            }
            at += piece.len() as u64;
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let s = structure(rest);
                names.push(s.2);
                rest = &rest[s.5..];
            }
        }
        names.sort();
        let mut want: Vec<String> = (0..100).map(|n| n.to_string()).chain([".".into(), "..".into()]).collect();
        want.sort();
        assert_eq!(names, want);
        assert_eq!(c.read(9, 7, 8192), Err(EINVAL));
    }
    assert_eq!(c.read(9, 0, 20), Err(EINVAL), "not one fits");
}
