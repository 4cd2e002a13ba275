//! Workloads that are programs of Debian packages: their inputs are made before the measurement, their outputs digested after it.

use crate::digest::{Digest, Random};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where the programs are and where they work.
#[derive(Debug)]
pub struct Place {
    /// The folder the packages were unpacked to; none in the guest, where they are at home.
    pub root: Option<PathBuf>,
    /// An empty folder to work in.
    pub work: PathBuf,
}

/// One program: how its inputs are made for a count, and how it runs.
pub struct Program {
    /// Name of the workload.
    pub name: &'static str,
    /// Writes the inputs.
    prepare: fn(&Place, u64) -> io::Result<()>,
    /// What runs; outputs go to the file `out`.
    run: fn(&Place, u64) -> io::Result<()>,
}

const KEY: &str = include_str!("../data/rsa.pem");
const PYTHON: &str = include_str!("../data/work.py");
const AWK: &str = include_str!("../data/work.awk");
const SQL: &str = include_str!("../data/work.sql");

/// All of them.
pub const ALL: &[Program] = &[
    Program { name: "sha256sum", prepare: |p, _| p.mixed(1 << 20), run: |p, n| p.on_copies("sha256sum", &[], n) },
    Program { name: "md5sum", prepare: |p, _| p.mixed(1 << 20), run: |p, n| p.on_copies("md5sum", &[], n) },
    Program {
        name: "gzip",
        prepare: |p, _| p.mixed(128 << 10),
        run: |p, n| p.on_copies("gzip", &["-6", "-n", "-c"], n),
    },
    Program { name: "xz", prepare: |p, _| p.mixed(64 << 10), run: |p, n| p.on_copies("xz", &["-4", "-T1", "-c"], n) },
    Program {
        name: "zstd",
        prepare: |p, _| p.mixed(256 << 10),
        run: |p, n| p.on_copies("zstd", &["-q", "-6", "--single-thread", "-c"], n),
    },
    Program {
        name: "7zip",
        prepare: |p, n| p.input("in", &mixed(n as usize * (64 << 10))),
        run: |p, _| {
            p.run("7zz", &["a", "-txz", "-mmt=1", "-mx=4", "-bso0", "-bsp0", "-si", "-so", "archive"], Some("in"))
        },
    },
    Program {
        name: "sqlite",
        prepare: |p, n| p.input("in", (0..n).map(|_| SQL).collect::<String>().as_bytes()),
        run: |p, _| p.run("sqlite3", &["-batch", ":memory:"], Some("in")),
    },
    Program {
        name: "python",
        prepare: |p, _| p.input("work.py", PYTHON.as_bytes()),
        run: |p, n| p.run("python3", &["-I", "-S", "-B", "work.py", &n.to_string()], None),
    },
    Program {
        name: "awk",
        prepare: |p, _| p.input("in", &text(64 << 10)).and_then(|()| p.input("work.awk", AWK.as_bytes())),
        run: |p, n| p.on_copies("mawk", &["-f", "work.awk"], n),
    },
    Program {
        name: "sort",
        prepare: |p, n| {
            let lines: Vec<u8> =
                text(n as usize * (64 << 10)).iter().map(|b| if *b == b' ' { b'\n' } else { *b }).collect();
            p.input("in", &lines)
        },
        run: |p, _| p.run("sort", &["--parallel=1", "in"], None),
    },
    Program { name: "openssl-aes", prepare: |p, _| p.mixed(64 << 20), run: |p, n| p.encrypted("-aes-256-cbc", n) },
    Program { name: "openssl-chacha", prepare: |p, _| p.mixed(64 << 20), run: |p, n| p.encrypted("-chacha20", n) },
    Program {
        name: "openssl-rsa",
        prepare: |p, _| p.mixed(100).and_then(|()| p.input("key", KEY.as_bytes())),
        // a signature, then the key checked: two primality tests
        run: |p, n| {
            (0..n).try_for_each(|_| {
                p.run("openssl", &["dgst", "-sha256", "-sign", "key", "in"], None)?;
                p.run("openssl", &["rsa", "-check", "-noout", "-in", "key"], None)
            })
        },
    },
    Program {
        name: "tcc",
        prepare: |p, n| p.input("in.c", source(n).as_bytes()),
        run: |p, _| {
            let own = p.path("usr/lib/x86_64-linux-gnu/tcc");
            p.run("tcc", &["-B", &own.to_string_lossy(), "-nostdinc", "-c", "in.c", "-o", "out.o"], None)?;
            fs::rename(p.work.join("out.o"), p.work.join("out"))
        },
    },
];

impl Program {
    /// Empties the working folder and writes the inputs.
    pub fn prepare(&self, place: &Place, n: u64) -> io::Result<()> {
        if place.work.exists() {
            fs::remove_dir_all(&place.work)?;
        }
        fs::create_dir_all(&place.work)?;
        (self.prepare)(place, n)
    }

    /// Runs it.
    pub fn run(&self, place: &Place, n: u64) -> io::Result<()> {
        (self.run)(place, n)
    }

    /// The digest of what it wrote.
    pub fn digest(place: &Place) -> io::Result<u64> {
        let out = fs::read(place.work.join("out"))?;
        if out.is_empty() {
            return Err(io::Error::other("no output"));
        }
        Ok(Digest::new().bytes(&out).end())
    }
}

impl Place {
    fn path(&self, inside: &str) -> PathBuf {
        self.root.as_deref().unwrap_or(Path::new("/")).join(inside)
    }

    fn input(&self, name: &str, data: &[u8]) -> io::Result<()> {
        fs::write(self.work.join(name), data)
    }

    fn mixed(&self, len: usize) -> io::Result<()> {
        self.input("in", &mixed(len))
    }

    /// The program, run by its own loader where it is not at home.
    fn command(&self, program: &str) -> Command {
        let path = self.path("usr/bin").join(program);
        let path = if path.exists() { path } else { self.path("bin").join(program) };
        let Some(root) = &self.root else {
            return Command::new(path);
        };
        let libraries =
            ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|l| root.join(l).display().to_string());
        let loader = ["lib64", "usr/lib64"].map(|l| root.join(l).join("ld-linux-x86-64.so.2"));
        let mut command = Command::new(loader.iter().find(|l| l.exists()).unwrap_or(&loader[0]));
        command.arg("--library-path").arg(libraries.join(":")).arg(path);
        command
    }

    /// Runs a program in the working folder, standard output to `out`.
    fn run(&self, program: &str, args: &[&str], input: Option<&str>) -> io::Result<()> {
        let mut command = self.command(program);
        let stdin = input.map_or(Ok(Stdio::null()), |i| File::open(self.work.join(i)).map(Stdio::from))?;
        let out = File::options().create(true).append(true).open(self.work.join("out"))?;
        command.args(args).current_dir(&self.work).env_clear().stdin(stdin).stdout(out);
        let settings = [("LC_ALL", "C"), ("HOME", "/"), ("OPENSSL_CONF", "/dev/null")];
        command.envs(settings).env("PYTHONHOME", self.path("usr")).env("PYTHONHASHSEED", "0");
        let done = command.stderr(Stdio::piped()).spawn()?.wait_with_output()?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(io::Error::other(format!("{program}: {} {}", done.status, said.trim().replace('\n', " / "))));
        }
        Ok(())
    }

    /// Encrypts the input file `n` times; what the last one wrote stays.
    fn encrypted(&self, cipher: &str, n: u64) -> io::Result<()> {
        let key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
        let iv = "0f0e0d0c0b0a09080706050403020100";
        (0..n).try_for_each(|_| {
            File::create(self.work.join("out"))?;
            self.run("openssl", &["enc", cipher, "-K", key, "-iv", iv, "-in", "in"], None)
        })
    }

    /// Runs a program with the input file named `n` times, at most 500 in one command.
    fn on_copies(&self, program: &str, args: &[&str], n: u64) -> io::Result<()> {
        let mut left = n;
        while left > 0 {
            let now = left.min(500);
            self.run(program, &[args, &vec!["in"; now as usize]].concat(), None)?;
            left -= now;
        }
        Ok(())
    }
}

/// Words of a small language, the frequent ones short, in lines.
fn text(len: usize) -> Vec<u8> {
    let mut random = Random::new(60);
    let words: Vec<Vec<u8>> = (0..2000u64)
        .map(|i| {
            (0..2 + u64::from((i + 1).ilog2()) / 2 + random.below(4)).map(|_| b'a' + random.below(26) as u8).collect()
        })
        .collect();
    let mut out = Vec::with_capacity(len + 32);
    let mut line = 0;
    while out.len() < len {
        // the product of two numbers favours the small ones
        let which = random.below(2000) * random.below(2000) / 2000;
        let word = &words[which as usize];
        out.extend(word);
        line += word.len() + 1;
        out.push(if line > 70 { b'\n' } else { b' ' });
        line = if line > 70 { 0 } else { line };
    }
    out.truncate(len);
    out
}

/// Text, tables of numbers and noise in turn.
fn mixed(len: usize) -> Vec<u8> {
    let mut random = Random::new(61);
    let words = text(64 << 10);
    let mut out = Vec::with_capacity(len + 8192);
    while out.len() < len {
        let at = random.below(56 << 10) as usize;
        out.extend(&words[at..at + 6000]);
        let base = random.word() as u32;
        (0..400u32).for_each(|i| out.extend((base + i * 12).to_le_bytes()));
        out.extend(random.bytes(500));
    }
    out.truncate(len);
    out
}

/// A C source of `n` times 20 functions that needs no header.
fn source(n: u64) -> String {
    let mut random = Random::new(62);
    let mut out = String::from("typedef struct { int a, b; long c[8]; } rec;\nstatic rec table[64];\n");
    for i in 0..n * 20 {
        let [a, b, c] = [(); 3].map(|()| random.below(1000));
        out += &format!(
            "static long f{i}(rec *r, int n, const char *s) {{\n\
             \x20   long sum = {a};\n\
             \x20   for (int i = 0; i < n; i++) {{\n\
             \x20       switch ((r->a + i) % 5) {{\n\
             \x20       case 0: sum += r->c[i & 7] * {b}; break;\n\
             \x20       case 1: sum ^= table[i & 63].b << ({c} & 15); break;\n\
             \x20       case 3: if (s[i] == '{}') return sum - {c}; /* fall through */\n\
             \x20       default: r->c[(i + {a}) & 7] = sum + (s ? s[i] : {b});\n\
             \x20       }}\n\
             \x20       while (sum > {a}000) sum = sum / 3 + i;\n\
             \x20   }}\n\
             \x20   return n > 1 ? sum + f{}(r, n / 2, \"constant {b}\") : sum;\n\
             }}\n",
            char::from(b'a' + (c % 26) as u8),
            if i == 0 { 0 } else { i - 1 },
        );
    }
    out + &format!("long entry(int n) {{ return f{}(table, n, \"entry\"); }}\n", (n * 20).saturating_sub(1))
}
