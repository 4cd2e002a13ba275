//! What a row of options is run with, and what looks at the result.

use serde_json::{Value, json};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tests::packages;
use tests::process::{self, Output, until};
use tests::qmp::Qmp;
use tests::qtest::Qtest;

/// The options of a row, with a folder for its files: `{dir}` in an argument.
pub struct Row {
    pub dir: tempfile::TempDir,
    pub args: Vec<String>,
}

impl Row {
    pub fn new(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = dir.path().to_str().expect("a plain path").to_owned();
        Self { args: args.iter().map(|a| a.replace("{dir}", &place)).collect(), dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn put(&self, name: &str, data: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), data).expect("a file");
    }

    pub fn with<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        self.args.iter().map(String::as_str).chain(more.iter().copied()).collect()
    }

    /// Runs it to its end with nothing to read.
    pub fn run(&self) -> Output {
        process::run(&self.with(&[]), "")
    }

    /// The text that it prints before it ends well.
    pub fn text(&self) -> String {
        let out = self.run();
        assert_eq!((out.code, out.stderr.as_str()), (Some(0), ""), "{:?}", self.args);
        out.stdout
    }

    /// The one line of its error.
    pub fn error(&self) -> String {
        let out = self.run();
        assert_eq!((out.code, out.stderr.lines().count(), out.stdout.as_str()), (Some(1), 1, ""), "{out:?}");
        out.stderr
    }

    /// An empty machine with it.
    pub fn none(&self) -> Qmp {
        Qmp::start(&self.with(&["-machine", "none"]))
    }

    /// The default machine with it; no guest code runs.
    pub fn pc(&self) -> Qmp {
        Qmp::start(&self.with(&["-accel", "qtest", "-L", firmware()]))
    }

    /// The default machine with it, by ports and memory.
    pub fn qtest(&self) -> Qtest {
        Qtest::start(&self.with(&["-L", firmware()]))
    }
}

/// `-L` with SeaBIOS.
pub fn firmware() -> &'static str {
    static FOLDER: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    FOLDER.get_or_init(|| {
        let bios = packages::seabios().expect("SeaBIOS can be fetched");
        let folder = if bios.is_dir() { bios.as_path() } else { bios.parent().expect("a folder") };
        folder.to_str().expect("a plain path").to_owned()
    })
}

pub fn get(q: &mut Qmp, path: &str, property: &str) -> Value {
    q.run("qom-get", json!({"path": path, "property": property}))
}

/// Contents of a character device's file name in `query-chardev`.
pub fn filename(q: &mut Qmp, label: &str) -> String {
    let all = q.run("query-chardev", json!({}));
    let found = all.as_array().expect("a list").iter().find(|c| c["label"] == label);
    found.unwrap_or_else(|| panic!("no {label} in {all}"))["filename"].as_str().expect("text").to_owned()
}

/// An fw_cfg file, read through the ports.
pub fn fw_cfg(q: &mut Qtest, name: &str) -> Option<Vec<u8>> {
    let mut item = |key: u16, len: usize| -> Vec<u8> {
        q.out(0x510, 2, key.into());
        (0..len).map(|_| q.inb(0x511)).collect()
    };
    let count = item(0x19, 4);
    let count = u32::from_be_bytes(count.try_into().expect("four bytes")) as usize;
    let directory = item(0x19, 4 + 64 * count);
    for entry in directory[4..].chunks_exact(64) {
        let size = u32::from_be_bytes(entry[..4].try_into().expect("four bytes"));
        let key = u16::from_be_bytes(entry[4..6].try_into().expect("two bytes"));
        if entry[8..].split(|b| *b == 0).next() == Some(name.as_bytes()) {
            return Some(item(key, size as usize));
        }
    }
    None
}

/// A byte of the CMOS memory.
pub fn cmos(q: &mut Qtest, index: u8) -> u8 {
    q.outb(0x70, index);
    q.inb(0x71)
}

pub fn connect(path: &Path) -> UnixStream {
    let mut stream = None;
    until("a connection", || {
        stream = UnixStream::connect(path).ok();
        stream.is_some()
    });
    let stream = stream.expect("connected");
    stream.set_read_timeout(Some(process::LIMIT)).expect("a timeout");
    stream
}

pub fn read_until(stream: &mut impl Read, text: &str) -> String {
    let (mut seen, mut buf) = (String::new(), [0; 1024]);
    while !seen.contains(text) {
        let n = stream.read(&mut buf).expect("more comes in time");
        assert!(n > 0, "the end instead of {text:?}: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buf[..n]));
    }
    seen
}

/// A file that passes for a Linux kernel, and an initrd.
pub fn fake_kernel(r: &Row) {
    let mut k = vec![0; 8192];
    k[0x1f1] = 1; // setup_sects
    k[0x1fe..0x200].copy_from_slice(&0xaa55u16.to_le_bytes());
    k[0x202..0x206].copy_from_slice(b"HdrS");
    k[0x206..0x208].copy_from_slice(&0x020cu16.to_le_bytes());
    k[0x211] = 1; // LOADED_HIGH
    k[0x22c..0x230].copy_from_slice(&0x37ff_ffffu32.to_le_bytes()); // initrd_addr_max
    k[0x238..0x23c].copy_from_slice(&2048u32.to_le_bytes()); // cmdline_size
    r.put("k", k);
    r.put("i", "initrd");
}

/// A bitmap file of one pixel, 24 bits.
pub fn bitmap() -> Vec<u8> {
    let mut b = b"BM".to_vec();
    for word in [58u32, 0, 54, 40, 1, 1, 0x0018_0001, 0, 4, 0, 0, 0, 0, 0] {
        b.extend(word.to_le_bytes());
    }
    b
}
