//! Requests of the 9P protocol, served on a folder that is made for each input.

use crate::input::Input;
use hw::fsdev::{FsDev, Multidevs, SecurityModel, Tree};
use hw::p9::server::Server;
use std::path::Path;
use std::sync::Arc;

/// Longest input.
const MOST: usize = 8 << 10;
/// Room for a reply.
const ROOM: u64 = 64 << 10;
/// Most bytes that an input may leave in the folder.
const MOST_KEPT: u64 = 1 << 20;

/// A folder of the host for guests: files of all kinds that they cannot make themselves. Guests' devices and links are plain files in it
/// (`mapped-xattr`): the host's own would be real ones, and a fuzzer may be privileged.
pub(crate) fn folder(path: &Path, readonly: bool) -> FsDev {
    let shared = path.join("shared");
    for dir in ["shared", "shared/d", "shared/d/e"] {
        std::fs::create_dir(path.join(dir)).expect("a folder");
    }
    std::fs::write(path.join("secret"), "secret").expect("a file");
    std::fs::write(shared.join("f"), "contents").expect("a file");
    for (to, name) in [("../secret", "up"), ("/", "root"), ("d", "down"), ("l", "l")] {
        std::os::unix::fs::symlink(to, shared.join(name)).expect("a link");
    }
    let model = if readonly { SecurityModel::None } else { SecurityModel::MappedXattr };
    FsDev { path: shared, model, readonly, multidevs: Multidevs::Warn, modes: (0o600, 0o700), max_xattr: 4 }
}

/// Nothing beside the shared folder was touched.
pub(crate) fn confined(path: &Path) {
    assert_eq!(std::fs::read(path.join("secret")).ok().as_deref(), Some(&b"secret"[..]), "the secret has changed");
    let names = std::fs::read_dir(path).map_or(0, Iterator::count);
    assert_eq!(names, 2, "something appeared beside the shared folder");
}

fn kept(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = entries.map(|e| match e.metadata() {
        Ok(m) if m.is_dir() => kept(&e.path()),
        Ok(m) => std::os::unix::fs::MetadataExt::blocks(&m) * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

fn put(body: &mut Vec<u8>, text: &str) {
    body.extend((text.len() as u16).to_le_bytes());
    body.extend(text.as_bytes());
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut all = (7 + body.len() as u32).to_le_bytes().to_vec();
    all.extend([kind, 1, 0]);
    all.extend(body);
    all
}

/// A session: flags (read only, dialect, whether it begins well), then messages: kind, length, body.
pub fn p9(data: &[u8]) {
    let mut input = Input::new(data, MOST);
    let flags = input.byte();
    let dir = tempfile::tempdir().expect("a folder");
    let config = folder(dir.path(), flags & 1 != 0);
    let mut server = Server::new(Tree::open(&Arc::new(config)).expect("a tree"));
    if flags & 2 == 0 {
        let mut version = 8192u32.to_le_bytes().to_vec();
        put(&mut version, if flags & 4 != 0 { "9P2000.u" } else { "9P2000.L" });
        server.handle(&message(100, &version), ROOM);
        let mut attach = [0u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
        put(&mut attach, "");
        put(&mut attach, "");
        attach.extend(0u32.to_le_bytes());
        server.handle(&message(104, &attach), ROOM);
    }
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let (kind, len) = (input.byte(), input.byte());
        let mut all = message(kind, input.take(len.into()));
        if kind >= 0xf0 {
            // A length that is not true.
            all.truncate(usize::from(len) % all.len().max(1));
        }
        if let Some(reply) = server.handle(&all, ROOM) {
            assert!(reply.len() >= 7, "a reply without a header");
            assert_eq!(reply[..4], (reply.len() as u32).to_le_bytes(), "a reply says how long it is");
        }
        _ = server.take_warning();
    }
    server.reset();
    drop(server);
    confined(dir.path());
    let kept = kept(&dir.path().join("shared"));
    assert!(kept <= MOST_KEPT, "{kept} bytes are left in the folder");
}
