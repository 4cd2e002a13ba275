//! The TFTP server: files of one folder, read only. Source: RFC 1350; options `blksize` (RFC 2348) and `tsize` (RFC 2349).

use super::wire::word;
use std::collections::VecDeque;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

const RRQ: u16 = 1;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// Most transfers at once; the oldest one ends for another.
const SESSIONS: usize = 20;
/// Largest block: what fits a packet of the link.
const MAX_BLOCK: usize = 1428;

struct Session {
    peer: SocketAddr,
    file: File,
    size: u64,
    block: usize,
    /// The last block that was sent, counted from 1. On the wire numbers have 16 bits and begin again at 0.
    sent: u64,
}

/// The transfers.
#[derive(Default)]
pub struct Tftp(VecDeque<Session>);

fn error(code: u16, text: &str) -> Vec<u8> {
    [&ERROR.to_be_bytes()[..], &code.to_be_bytes(), text.as_bytes(), &[0]].concat()
}

/// The file that `name` says below `root`, wherever links lead: inside.
fn open(root: &Path, name: &str) -> Option<File> {
    let relative: PathBuf = Path::new(name).components().filter(|c| *c != Component::RootDir).collect();
    if relative.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return None;
    }
    let root = root.canonicalize().ok()?;
    let path = root.join(relative).canonicalize().ok()?;
    let inside = path.starts_with(&root) && path.is_file();
    inside.then(|| File::open(path).ok()).flatten()
}

impl Session {
    /// Which block `number` is: one of the 32,768 up to the last that was sent. `None`: none that was sent.
    fn acknowledged(&self, number: u16) -> Option<u64> {
        let back = (self.sent as u16).wrapping_sub(number);
        self.sent.checked_sub(back.into()).filter(|_| back < 0x8000)
    }

    /// Block `n`, from 1.
    fn data(&self, n: u64) -> Option<Vec<u8>> {
        let at = (n.checked_sub(1)?).checked_mul(self.block as u64)?;
        let len = usize::try_from(self.size.checked_sub(at)?.min(self.block as u64)).ok()?;
        let mut buf = vec![0; len];
        self.file.read_exact_at(&mut buf, at).ok()?;
        Some([&DATA.to_be_bytes()[..], &(n as u16).to_be_bytes(), &buf].concat())
    }
}

impl Tftp {
    /// Answers a datagram to port 69.
    pub fn answer(&mut self, root: Option<&Path>, peer: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
        match word(request, 0)? {
            RRQ => self.start(root, peer, request.get(2..)?),
            ACK => {
                let n = word(request, 2)?;
                let s = self.0.iter_mut().find(|s| s.peer == peer)?;
                let next = s.acknowledged(n)? + 1;
                match s.data(next) {
                    Some(data) => {
                        s.sent = s.sent.max(next);
                        Some(data)
                    }
                    None => {
                        self.0.retain(|s| s.peer != peer);
                        None
                    }
                }
            }
            ERROR => {
                self.0.retain(|s| s.peer != peer);
                None
            }
            _ => Some(error(4, "illegal operation")),
        }
    }

    fn start(&mut self, root: Option<&Path>, peer: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
        self.0.retain(|s| s.peer != peer);
        let mut words = request.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned());
        let (name, mode) = (words.next()?, words.next()?);
        let Some(root) = root else { return Some(error(2, "Access violation")) };
        if !mode.eq_ignore_ascii_case("octet") {
            return Some(error(4, "Unsupported transfer mode"));
        }
        let Some(file) = open(root, &name) else { return Some(error(1, "File not found")) };
        let Ok(size) = file.metadata().map(|m| m.len()) else { return Some(error(1, "File not found")) };
        let (mut block, mut accepted) = (512, vec![]);
        while let (Some(key), Some(value)) = (words.next(), words.next()) {
            match (key.to_ascii_lowercase().as_str(), value.parse::<u64>()) {
                ("blksize", Ok(n)) if n >= 8 => {
                    block = usize::try_from(n).unwrap_or(MAX_BLOCK).min(MAX_BLOCK);
                    accepted.extend(format!("blksize\0{block}\0").bytes());
                }
                ("tsize", Ok(_)) => accepted.extend(format!("tsize\0{size}\0").bytes()),
                _ => {}
            }
        }
        let sent = u64::from(accepted.is_empty());
        let session = Session { peer, file, size, block, sent };
        let first =
            if accepted.is_empty() { session.data(1) } else { Some([&OACK.to_be_bytes()[..], &accepted].concat()) };
        if self.0.len() >= SESSIONS {
            self.0.pop_front();
        }
        self.0.push_back(session);
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_numbers_begin_again_in_long_files() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..70_000 * 8 + 3u32).map(|n| (n / 8 * 7 + n) as u8).collect();
        std::fs::write(dir.path().join("f"), &content).unwrap();
        let (mut t, peer) = (Tftp::default(), SocketAddr::from(([10, 0, 2, 15], 2000)));
        let ack = |n: u16| [&ACK.to_be_bytes()[..], &n.to_be_bytes()].concat();
        assert!(t.answer(Some(dir.path()), peer, b"\0\x01f\0octet\0blksize\x008\0").unwrap().starts_with(&[0, 6]));
        let (mut got, mut n) = (Vec::<u8>::new(), 0u16);
        while let Some(data) = t.answer(Some(dir.path()), peer, &ack(n)) {
            n = n.wrapping_add(1);
            assert_eq!(data[2..4], n.to_be_bytes());
            got.extend(&data[4..]);
            // One that is not there yet is nothing, the one before is what it was.
            assert_eq!(t.answer(Some(dir.path()), peer, &ack(n.wrapping_add(1))), None);
            assert_eq!(t.answer(Some(dir.path()), peer, &ack(n.wrapping_sub(1))), Some(data));
        }
        assert!(got == content, "{} of {}", got.len(), content.len());
    }

    #[test]
    fn files_are_sent_block_by_block_and_others_are_not_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        let root = dir.path().join("root");
        let content: Vec<u8> = (0..1024u32).map(|n| n as u8).collect();
        std::fs::write(root.join("f"), &content).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("link")).unwrap();
        let peer: SocketAddr = "10.0.2.15:2000".parse().unwrap();
        let mut t = Tftp::default();
        let rrq = |name: &str, options: &str| [b"\0\x01", name.as_bytes(), b"\0octet\0", options.as_bytes()].concat();
        let mut got = vec![];
        let mut reply = t.answer(Some(&root), peer, &rrq("/f", ""));
        for n in 1..=3u16 {
            let data = reply.unwrap();
            assert_eq!(data[..4], [&DATA.to_be_bytes()[..], &n.to_be_bytes()].concat());
            got.extend(&data[4..]);
            reply = t.answer(Some(&root), peer, &[&ACK.to_be_bytes()[..], &n.to_be_bytes()].concat());
        }
        assert_eq!((got, reply), (content, None));
        let oack = t.answer(Some(&root), peer, &rrq("f", "blksize\x008000\0tsize\x000\0")).unwrap();
        assert_eq!(oack, b"\0\x06blksize\x001428\0tsize\x001024\0");
        assert_eq!(t.answer(Some(&root), peer, &[0, 4, 0, 0]).unwrap().len(), 1028);
        for bad in ["../secret", "/../secret", "link", "no", "", "."] {
            assert_eq!(t.answer(Some(&root), peer, &rrq(bad, "")).unwrap()[..4], [0, 5, 0, 1], "{bad}");
        }
        assert_eq!(t.answer(None, peer, &rrq("f", "")).unwrap()[..4], [0, 5, 0, 2]);
        for n in 0..40u16 {
            t.answer(Some(&root), SocketAddr::new(peer.ip(), n), &rrq("f", ""));
        }
        assert_eq!(t.0.len(), SESSIONS);
    }
}
