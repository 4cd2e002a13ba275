//! Who runs the workloads: an emulator's guest or the host, by the guest program's commands.

use crate::{
    guest::{Guest, Linux},
    process,
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

/// What one run of a workload cost and gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Processor time of all threads of the process (native: and of its children), in seconds.
    pub cpu: f64,
    /// Elapsed time, in seconds.
    pub wall: f64,
    /// Elapsed time by the guest's own clock, in seconds.
    pub inside: f64,
    /// What came out.
    pub digest: String,
}

/// What a guest is started with. `no_timer_check`: on a busy host timer interrupts come late, which the kernel's test of them takes
/// for broken hardware. `settings`: what else the kernel is told; it gives the guest program what it does not know as its environment.
pub fn guest_args(linux: &Linux, settings: &str, cpus: u32, accel: &str) -> Vec<String> {
    let mut args = linux.args(&format!("no_timer_check {settings}"));
    args.extend(["-no-reboot", "-m", "1024", "-smp", &cpus.to_string(), "-accel", accel].map(str::to_owned));
    args
}

/// How long a boot may take.
const BOOT: Duration = Duration::from_secs(300);

/// The last word of an answer that starts with `word` and `name`.
fn value<'a>(answer: &'a str, word: &str, name: &str) -> Result<&'a str> {
    let words: Vec<&str> = answer.split_whitespace().collect();
    match words.as_slice() {
        [w, n, value] if *w == word && *n == name => Ok(value),
        _ => bail!("unexpected answer: {answer}"),
    }
}

fn is_answer(line: &str) -> bool {
    ["ready ", "done ", "digest ", "error "].iter().any(|w| line.starts_with(w))
}

/// A booted guest that takes commands.
pub struct Booted {
    guest: Guest,
}

impl Booted {
    /// Starts a guest and waits until its user space runs: processor and elapsed seconds until then.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(command: Command) -> Result<(Self, Run)> {
        let mut guest = Guest::start(command)?;
        let (at, _) = guest
            .find_line(BOOT, |l| l == "bench-guest is up")
            .with_context(|| format!("the guest does not boot:\n{}", guest.last_lines(40)))?;
        let run = Run {
            cpu: guest.cpu_time()?.as_secs_f64(),
            wall: (at - guest.started).as_secs_f64(),
            inside: 0.0,
            digest: "up".to_owned(),
        };
        Ok((Self { guest }, run))
    }

    /// The guest.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    fn ask(&mut self, command: &str, limit: Duration) -> Result<(Instant, String)> {
        self.guest.say(command)?;
        let (at, line) = self
            .guest
            .find_line(limit, is_answer)
            .with_context(|| format!("'{command}'; the guest's last lines:\n{}", self.guest.last_lines(5)))?;
        match line.strip_prefix("error ") {
            Some(error) => bail!("'{command}': {error}"),
            None => Ok((at, line)),
        }
    }

    /// Runs a workload.
    ///
    /// # Errors
    /// It fails or takes longer than `limit`, after which the guest is of no more use.
    pub fn run(&mut self, name: &str, count: u64, limit: Duration) -> Result<Run> {
        value(&format!("{} -", self.ask(&format!("prepare {name} {count}"), limit)?.1), "ready", name)?;
        let (before, started) = (self.guest.cpu_time()?, Instant::now());
        let (at, answer) = self.ask(&format!("run {name} {count}"), limit)?;
        let cpu = self.guest.cpu_time()? - before;
        let inside = value(&answer, "done", name)?.parse()?;
        let digest = self.ask("digest", limit)?.1;
        let digest = value(&digest, "digest", name)?.to_owned();
        Ok(Run { cpu: cpu.as_secs_f64(), wall: at.saturating_duration_since(started).as_secs_f64(), inside, digest })
    }

    /// Powers the guest off: processor and elapsed seconds since the process was started.
    ///
    /// # Errors
    /// The process does not end.
    pub fn off(mut self) -> Result<Run> {
        let started = self.guest.started;
        self.guest.say("off")?;
        let (at, cpu) = self.guest.finish_timed(BOOT)?;
        Ok(Run { cpu: cpu.as_secs_f64(), wall: (at - started).as_secs_f64(), inside: 0.0, digest: "off".to_owned() })
    }
}

/// The guest program on the host.
pub struct Native {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _work: tempfile::TempDir,
}

impl Native {
    /// Starts it; `root` is where the packages' programs are, `server` the port of the host's server.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(program: &Path, root: Option<&Path>, server: Option<u16>) -> Result<Self> {
        // (On the disk that guests' images are on.)
        let work = tempfile::tempdir_in(crate::packages::target_dir())?;
        let mut command = Command::new(program);
        command.arg(work.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.envs(root.map(|r| ("BENCH_ROOT", r)));
        command.envs(server.map(|port| ("BENCH_SERVER", format!("127.0.0.1:{port}"))));
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let (input, output) = (child.stdin.take().context("piped")?, child.stdout.take().context("piped")?);
        Ok(Self { child, input, output: BufReader::new(output), _work: work })
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        self.input.write_all(format!("{command}\n").as_bytes())?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "'{command}' ended the program");
        match line.strip_prefix("error ") {
            Some(error) => bail!("native '{command}': {}", error.trim_end()),
            None => Ok(line.trim_end().to_owned()),
        }
    }

    /// The workloads the program has.
    ///
    /// # Errors
    /// It does not answer.
    pub fn list(&mut self) -> Result<Vec<String>> {
        Ok(self.ask("list")?.split(' ').map(str::to_owned).collect())
    }

    /// Runs a workload.
    ///
    /// # Errors
    /// It fails.
    pub fn run(&mut self, name: &str, count: u64) -> Result<Run> {
        self.ask(&format!("prepare {name} {count}"))?;
        let cpu = |id| process::stat(id).map(|(own, children, _)| (own + children).as_secs_f64());
        let (before, started) = (cpu(self.child.id())?, Instant::now());
        let answer = self.ask(&format!("run {name} {count}"))?;
        let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu(self.child.id())? - before);
        let digest = self.ask("digest")?;
        let digest = value(&digest, "digest", name)?.to_owned();
        Ok(Run { cpu, wall, inside: value(&answer, "done", name)?.parse()?, digest })
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
