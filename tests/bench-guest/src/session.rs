//! Commands and answers: the same on a guest's serial console, on standard input, and as arguments.
//!
//! `list` names the workloads. `prepare NAME COUNT` makes inputs (`ready NAME`). `run NAME COUNT` works (`done NAME SECONDS`), `digest`
//! then says what came out (`digest NAME HEX`). `off` ends the program, in a guest the machine. Anything that fails is `error …`.

use crate::{
    own,
    programs::{self, Place, Program},
    sys,
};
use std::{
    env,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

/// What runs next or ran last.
enum Ready {
    Own(fn(u64) -> u64),
    Program(&'static Program),
}

struct Session {
    place: Place,
    /// The digest of the last own workload; a program's is read from its output.
    last: Option<(String, Option<u64>)>,
}

fn find(name: &str) -> Option<Ready> {
    let own = own::ALL.iter().find(|(n, _)| *n == name).map(|(_, f)| Ready::Own(*f));
    own.or_else(|| programs::ALL.iter().find(|p| p.name == name).map(Ready::Program))
}

impl Session {
    fn command(&mut self, line: &str) -> io::Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let parse = |name: &str, n: &str| -> io::Result<(Ready, u64)> {
            let what = find(name).ok_or_else(|| io::Error::other(format!("no workload {name}")))?;
            Ok((what, n.parse().map_err(io::Error::other)?))
        };
        match words.as_slice() {
            ["list"] => {
                let names = own::ALL.iter().map(|(n, _)| *n).chain(programs::ALL.iter().map(|p| p.name));
                Ok(names.collect::<Vec<_>>().join(" "))
            }
            ["prepare", name, n] => {
                if let (Ready::Program(p), n) = parse(name, n)? {
                    p.prepare(&self.place, n)?;
                }
                Ok(format!("ready {name}"))
            }
            ["run", name, n] => {
                let (what, n) = parse(name, n)?;
                self.last = None;
                let started = Instant::now();
                let digest = match what {
                    Ready::Own(f) => Some(f(n)),
                    Ready::Program(p) => {
                        p.run(&self.place, n)?;
                        None
                    }
                };
                let seconds = started.elapsed().as_secs_f64();
                self.last = Some(((*name).to_owned(), digest));
                Ok(format!("done {name} {seconds:.6}"))
            }
            ["digest"] => {
                let (name, own) = self.last.as_ref().ok_or_else(|| io::Error::other("nothing ran"))?;
                let digest = own.map_or_else(|| Program::digest(&self.place), Ok)?;
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

/// As the first process of a guest: mounts what programs expect, then serves the serial console.
fn init() -> io::Result<()> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")] {
        sys::mount(kind, at)?;
    }
    sys::seed_random()?;
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
