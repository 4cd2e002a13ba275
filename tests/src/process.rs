//! The `qomet` binary as a child process.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Path of the binary: `QOMET` in the environment, or built on first use with the profile of the running test.
///
/// # Panics
/// When it does not build.
pub fn binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        if let Some(given) = std::env::var_os("QOMET") {
            return given.into();
        }
        let exe = std::env::current_exe().expect("a test has a path");
        let release = exe.ancestors().any(|d| d.ends_with("release"));
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "vl", "--bin", "qomet"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args(release.then_some("--release"));
        assert!(cargo.status().expect("cargo runs").success(), "qomet does not build");
        let folder = exe.ancestors().find(|d| d.join("qomet").is_file()).expect("built above");
        folder.join("qomet")
    };
    BUILT.get_or_init(build).clone()
}

/// What a finished process left.
#[derive(Debug)]
pub struct Output {
    /// Exit status; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs the binary to its end with `input` on standard input.
///
/// # Panics
/// When it does not end in time.
pub fn run(args: &[&str], input: &str) -> Output {
    run_within(LIMIT, args, input)
}

/// [`run`] for what takes longer, such as a boot.
///
/// # Panics
/// When it does not end within `limit`.
pub fn run_within(limit: Duration, args: &[&str], input: &str) -> Output {
    let mut child = start(args, &[]);
    child.stdin.take().expect("piped").write_all(input.as_bytes()).ok();
    finish_within(limit, child)
}

/// Starts the binary, all three channels piped.
pub fn start(args: &[&str], env: &[(&str, &str)]) -> Child {
    start_binary(&binary(), args, env)
}

/// [`start`] for another binary with the same command line.
pub fn start_binary(binary: &Path, args: &[&str], env: &[(&str, &str)]) -> Child {
    let mut command = Command::new(binary);
    command.args(args).envs(env.iter().copied());
    start_command(command)
}

/// Starts a command, all three channels piped.
///
/// # Panics
/// When it does not start.
pub fn start_command(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary starts")
}

/// Waits for the end.
///
/// # Panics
/// When it does not come in time; the process is killed.
pub fn wait(child: &mut Child) -> ExitStatus {
    wait_within(LIMIT, child)
}

/// [`wait`] for what takes longer.
///
/// # Panics
/// When it does not end within `limit`; the process is killed.
pub fn wait_within(limit: Duration, child: &mut Child) -> ExitStatus {
    end_within(limit, child).unwrap_or_else(|| panic!("the process did not end within {limit:?}"))
}

/// Waits for the end; `None`: it did not come within `limit`, and the process is killed.
///
/// # Panics
/// When it is not our child.
pub fn end_within(limit: Duration, child: &mut Child) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("our child") {
            return Some(status);
        }
        if Instant::now() > end {
            let _ = child.kill();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reads what is left and waits for the end.
pub fn finish(child: Child) -> Output {
    finish_within(LIMIT, child)
}

fn finish_within(limit: Duration, mut child: Child) -> Output {
    drop(child.stdin.take());
    let reader = |r: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut r) = r {
                let _ = r.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = reader(child.stdout.take().map(|s| Box::new(s) as _));
    let stderr = reader(child.stderr.take().map(|s| Box::new(s) as _));
    let status = wait_within(limit, &mut child);
    Output { code: status.code(), stdout: stdout.join().expect("reader"), stderr: stderr.join().expect("reader") }
}

/// A process's times and state: processor time of all its threads, that of children it waited for, `R`, `S`, `Z` …
///
/// # Errors
/// There is no such process.
pub fn stat(id: u32) -> anyhow::Result<(Duration, Duration, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let sum = |from: usize| -> anyhow::Result<Duration> {
        let ticks = fields.iter().skip(from).take(2).map(|f| f.parse::<u64>()).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 10)) // USER_HZ is 100 on every Linux
    };
    Ok((sum(11)?, sum(13)?, fields.first().copied().unwrap_or_default().to_owned()))
}

/// Waits until `done` says so.
///
/// # Panics
/// When it never does; `what` is in the message.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until `path` exists.
pub fn until_exists(path: &Path) {
    until(&format!("{} exists", path.display()), || path.exists());
}
