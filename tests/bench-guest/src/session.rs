//! Commands and answers: the same on a guest's serial console, on standard input, and as arguments.
//!
//! `list` names the workloads. `prepare NAME COUNT` makes inputs (`ready NAME`). `run NAME COUNT` works (`done NAME SECONDS`), `digest`
//! then says what came out (`digest NAME HEX`). `off` ends the program, in a guest the machine. Anything that fails is `error …`.

use crate::{
    disk, network, own,
    programs::{self, Place, Program},
    sys,
};
use std::{
    env,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

/// What runs next or ran last.
enum Ready {
    Own(fn(u64) -> u64),
    Program(&'static Program),
    Disk(disk::Work),
    Network(network::Run),
    /// Tenths of a second of sleep.
    Idle,
}

/// The workload that is none: what a guest costs that has nothing to do.
const IDLE: &str = "idle";

/// What came out of a workload.
enum Came {
    Digest(u64),
    /// It is in the output of the program …
    Output,
    /// … on the disk, or was read from it.
    Disk(disk::Work, u64),
}

struct Session {
    place: Place,
    /// The last workload.
    last: Option<(String, Came)>,
}

fn find(name: &str) -> Option<Ready> {
    let own = own::ALL.iter().find(|(n, _)| *n == name).map(|(_, f)| Ready::Own(*f));
    own.or_else(|| programs::ALL.iter().find(|p| p.name == name).map(Ready::Program))
        .or_else(|| disk::find(name).map(Ready::Disk))
        .or_else(|| network::find(name).map(Ready::Network))
        .or_else(|| (name == IDLE).then_some(Ready::Idle))
}

impl Session {
    /// Where files stand for disks; none in the guest.
    fn disks(&self) -> Option<PathBuf> {
        (!sys::is_init()).then(|| self.place.work.with_extension("disks"))
    }

    fn command(&mut self, line: &str) -> io::Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let parse = |name: &str, n: &str| -> io::Result<(Ready, u64)> {
            let what = find(name).ok_or_else(|| io::Error::other(format!("no workload {name}")))?;
            Ok((what, n.parse().map_err(io::Error::other)?))
        };
        match words.as_slice() {
            ["list"] => {
                let names = own::ALL.iter().map(|(n, _)| *n).chain(programs::ALL.iter().map(|p| p.name));
                let names = names.map(str::to_owned).chain(disk::names());
                let names = names.chain(network::ALL.iter().map(|(n, _)| *n).chain([IDLE]).map(str::to_owned));
                Ok(names.collect::<Vec<_>>().join(" "))
            }
            ["prepare", name, n] => {
                match parse(name, n)? {
                    (Ready::Program(p), n) => p.prepare(&self.place, n)?,
                    (Ready::Disk(d), _) => d.prepare(self.disks().as_deref())?,
                    (Ready::Own(_) | Ready::Network(_) | Ready::Idle, _) => {}
                }
                Ok(format!("ready {name}"))
            }
            ["run", name, n] => {
                let (what, n) = parse(name, n)?;
                self.last = None;
                let started = Instant::now();
                let came = match what {
                    Ready::Own(f) => Came::Digest(f(n)),
                    Ready::Program(p) => {
                        p.run(&self.place, n)?;
                        Came::Output
                    }
                    Ready::Disk(d) => Came::Disk(d, d.run(self.disks().as_deref(), n)?),
                    Ready::Network(f) => Came::Digest(f(n)?),
                    Ready::Idle => {
                        std::thread::sleep(Duration::from_millis(100 * n));
                        Came::Digest(n)
                    }
                };
                let seconds = started.elapsed().as_secs_f64();
                self.last = Some(((*name).to_owned(), came));
                Ok(format!("done {name} {seconds:.6}"))
            }
            ["digest"] => {
                let (name, came) = self.last.as_ref().ok_or_else(|| io::Error::other("nothing ran"))?;
                let digest = match came {
                    Came::Digest(digest) => *digest,
                    Came::Output => Program::digest(&self.place)?,
                    Came::Disk(d, read) => d.digest(self.disks().as_deref(), *read)?,
                };
                Ok(format!("digest {name} {digest:016x}"))
            }
            _ => Err(io::Error::other(format!("not a command: {line}"))),
        }
    }

    /// Answers every command until `off` or the end of the input.
    fn serve(&mut self, input: impl BufRead, mut output: impl Write) -> io::Result<()> {
        for line in input.lines() {
            let line = line?;
            if line.trim() == "off" {
                break;
            }
            let answer = self.command(&line).unwrap_or_else(|e| format!("error {e}"));
            output.write_all(format!("{answer}\n").as_bytes())?;
            output.flush()?;
        }
        Ok(())
    }
}

/// What a shell does before the first command, if the image has it.
const SETUP: &str = "/setup.sh";

/// As the first process of a guest: mounts what programs expect, then serves the serial console.
fn init() -> io::Result<()> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")] {
        sys::mount(kind, at)?;
    }
    sys::seed_random()?;
    // modules and addresses, where the guest has devices
    if Path::new(SETUP).exists() {
        let done = Command::new("/bin/busybox").args(["sh", SETUP]).output()?;
        if !done.status.success() {
            return Err(io::Error::other(format!("{SETUP}: {}", String::from_utf8_lossy(&done.stderr))));
        }
    }
    // the console is ours from here on
    std::fs::write("/proc/sys/kernel/printk", "0")?;
    let console = File::options().read(true).write(true).open("/dev/ttyS0")?;
    sys::raw(&console)?;
    let mut session = Session { place: Place { root: None, work: PathBuf::from("/tmp/work") }, last: None };
    let mut output = console.try_clone()?;
    output.write_all(b"\nbench-guest is up\n")?;
    session.serve(BufReader::new(console), output)
}

/// Runs as what it was started as.
pub fn main() -> ExitCode {
    if sys::is_init() {
        let result = init();
        // nobody else reports it: the kernel stops when its first process ends
        result.unwrap_or_else(|e| eprintln!("error {e}"));
        sys::power_off();
        return ExitCode::FAILURE;
    }
    let args: Vec<String> = env::args().skip(1).collect();
    if args == [own::NOTHING] {
        return ExitCode::SUCCESS;
    }
    let [work] = args.as_slice() else {
        eprintln!("usage: bench-guest WORKDIR (commands on standard input; programs below $BENCH_ROOT)");
        return ExitCode::FAILURE;
    };
    let root = env::var_os("BENCH_ROOT").map(PathBuf::from);
    let mut session = Session { place: Place { root, work: PathBuf::from(work).join("work") }, last: None };
    match session.serve(io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench-guest: {e}");
            ExitCode::FAILURE
        }
    }
}
