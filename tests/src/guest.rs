//! A booted guest under observation: its serial console as timed lines, what its process costs, a QMP monitor. Runs our binary
//! or another one with the same command line, so that both are measured alike.

use crate::{
    initramfs::{self, Init},
    packages, process,
    qmp::Qmp,
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    io::{Read, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

/// What an unmodified Linux guest is booted from.
#[derive(Clone, Debug)]
pub struct Linux {
    firmware: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Linux {
    /// Debian's cloud kernel and an initramfs, kept under `name`, that runs `script` and powers off.
    ///
    /// # Errors
    /// The packages cannot be fetched.
    pub fn amd64(name: &str, script: &str) -> Result<Self> {
        Self::amd64_with(name, script, &[])
    }

    /// [`Linux::amd64`] with further programs in the guest's `/bin`.
    ///
    /// # Errors
    /// The packages cannot be fetched.
    pub fn amd64_with(name: &str, script: &str, programs: &[(&str, &[u8])]) -> Result<Self> {
        Ok(Self {
            firmware: packages::seabios()?,
            kernel: packages::kernel()?,
            initrd: initramfs::cached(name, "amd64", Init::Script(script), programs)?,
        })
    }

    /// Debian's cloud kernel and an initramfs that is there already.
    ///
    /// # Errors
    /// The packages cannot be fetched.
    pub fn amd64_from(initrd: PathBuf) -> Result<Self> {
        Ok(Self { firmware: packages::seabios()?, kernel: packages::kernel()?, initrd })
    }

    /// Debian's 32-bit kernel for the Pentium Pro and later.
    ///
    /// # Errors
    /// The packages cannot be fetched.
    pub fn i686(name: &str, script: &str) -> Result<Self> {
        Self::i686_with(name, script, &[])
    }

    /// [`Linux::i686`] with further programs in the guest's `/bin`.
    ///
    /// # Errors
    /// The packages cannot be fetched.
    pub fn i686_with(name: &str, script: &str, programs: &[(&str, &[u8])]) -> Result<Self> {
        Ok(Self {
            firmware: packages::seabios()?,
            kernel: packages::kernel_686()?,
            initrd: initramfs::cached(name, "i386", Init::Script(script), programs)?,
        })
    }

    /// The options that boot it, with `append` added to the kernel's command line.
    pub fn args(&self, append: &str) -> Vec<String> {
        let text = |p: &PathBuf| p.to_string_lossy().into_owned();
        let mut args =
            ["-display", "none", "-no-user-config", "-nic", "none", "-serial", "stdio"].map(str::to_owned).to_vec();
        for (option, value) in [("-L", &self.firmware), ("-kernel", &self.kernel), ("-initrd", &self.initrd)] {
            args.extend([option.to_owned(), text(value)]);
        }
        args.extend(["-append".to_owned(), format!("console=ttyS0 panic=-1 quiet {append}")]);
        args
    }
}

/// A running guest. Its process ends with the value.
pub struct Guest {
    child: Child,
    input: ChildStdin,
    chunks: Receiver<(Instant, Vec<u8>)>,
    /// What came and is not in the transcript yet: the beginning of a line, or lines nobody asked for.
    pending: Vec<u8>,
    transcript: String,
    /// When the process was started.
    pub started: Instant,
    dir: tempfile::TempDir,
}

impl Guest {
    /// Starts `command`, whose standard streams are the console, with a QMP monitor beside it.
    ///
    /// # Errors
    /// The process does not start.
    pub fn start(mut command: Command) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let monitor = format!("unix:{},server=on,wait=off", dir.path().join("qmp").display());
        command.args(["-qmp", &monitor]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let (input, output) = (child.stdin.take().context("piped")?, child.stdout.take().context("piped")?);
        let (sender, chunks) = mpsc::channel();
        std::thread::spawn(move || {
            let mut output = output;
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                if sender.send((Instant::now(), bytes[..n].to_vec())).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, input, chunks, pending: Vec::new(), transcript: String::new(), started, dir })
    }

    /// Our binary with `args`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn ours(args: &[String]) -> Self {
        let mut command = Command::new(process::binary());
        command.args(args);
        Self::start(command).expect("the binary starts")
    }

    /// Waits for a line with `text` in it: when it came, and the line.
    ///
    /// # Panics
    /// When it does not come `within` this time, or the process ends; what the guest said is shown.
    pub fn line(&mut self, text: &str, within: Duration) -> (Instant, String) {
        self.find_line(within, |line| line.contains(text))
            .unwrap_or_else(|e| panic!("no '{text}': {e} after:\n{}", self.transcript))
    }

    /// Waits for a line: when it came, and the line.
    ///
    /// # Errors
    /// It does not come `within` this time, or the process ends.
    pub fn find_line(&mut self, within: Duration, wanted: impl Fn(&str) -> bool) -> Result<(Instant, String)> {
        let end = Instant::now() + within;
        let mut at = Instant::now();
        loop {
            while let Some(line) = self.pending_line() {
                self.transcript += &format!("{line}\n");
                if wanted(&line) {
                    return Ok((at, line));
                }
            }
            at = self.more(end, within)?;
        }
    }

    /// Waits for `text`, which need not be the end of a line, such as a prompt: when it came. What comes after it is yet to be found.
    ///
    /// # Errors
    /// It does not come `within` this time, or the process ends; with what the guest said last.
    pub fn prompt(&mut self, text: &str, within: Duration) -> Result<Instant> {
        let end = Instant::now() + within;
        let mut at = Instant::now();
        loop {
            if let Some(from) = self.pending.windows(text.len()).position(|w| w == text.as_bytes()) {
                let found: Vec<u8> = self.pending.drain(..from + text.len()).collect();
                self.transcript += &String::from_utf8_lossy(&found).replace('\r', "");
                return Ok(at);
            }
            match self.more(end, within) {
                Ok(more) => at = more,
                Err(e) => {
                    self.transcript += &String::from_utf8_lossy(&self.pending);
                    bail!("no '{text}': {e} after:\n{}", self.last_lines(40));
                }
            }
        }
    }

    /// Takes the first whole line of what came.
    fn pending_line(&mut self) -> Option<String> {
        let len = self.pending.iter().position(|b| *b == b'\n')? + 1;
        let line: Vec<u8> = self.pending.drain(..len).collect();
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Waits for more to come: when it did.
    fn more(&mut self, end: Instant, within: Duration) -> Result<Instant> {
        match self.chunks.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((at, bytes)) => {
                self.pending.extend(bytes);
                Ok(at)
            }
            Err(RecvTimeoutError::Timeout) => bail!("no answer within {} s", within.as_secs()),
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(Duration::from_millis(200));
                let status = self.child.try_wait()?;
                bail!("the process has ended ({})", status.map_or_else(|| "silent".to_owned(), |s| s.to_string()))
            }
        }
    }

    /// The last lines that the guest said.
    pub fn last_lines(&self, n: usize) -> String {
        let lines: Vec<&str> = self.transcript.lines().collect();
        lines[lines.len().saturating_sub(n)..].join("\n")
    }

    /// Waits for the process's end, output and all: processor time of all of it.
    ///
    /// # Errors
    /// It does not end `within` this time, or not by itself.
    pub fn finish_timed(mut self, within: Duration) -> Result<(Instant, Duration)> {
        let end = Instant::now() + within;
        // a process that has ended keeps its figures until somebody waits for it
        while !self.stat()?.1.starts_with('Z') {
            ensure!(Instant::now() < end, "the process did not end within {} s", within.as_secs());
            std::thread::sleep(Duration::from_millis(1));
        }
        let (at, time) = (Instant::now(), self.cpu_time()?);
        let status = self.child.wait()?;
        ensure!(status.success(), "the process ended with {status}");
        Ok((at, time))
    }

    /// Types a line on the console.
    ///
    /// # Errors
    /// The process is gone.
    pub fn say(&mut self, line: &str) -> Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).context("the process has ended")
    }

    /// A connection to the monitor, negotiated.
    pub fn qmp(&self) -> Qmp {
        let mut qmp = Qmp::connect(&self.dir.path().join("qmp"));
        qmp.run("qmp_capabilities", serde_json::json!({}));
        qmp
    }

    /// Waits for the process's end: its exit status and everything the guest said.
    ///
    /// # Panics
    /// When it does not end `within` this time.
    pub fn finish(mut self, within: Duration) -> (Option<i32>, String) {
        let status = process::end_within(within, &mut self.child);
        // (Until the reader has seen the end: a moment, as the process is gone.)
        while let Ok((_, bytes)) = self.chunks.recv_timeout(Duration::from_secs(5)) {
            self.pending.extend(bytes);
        }
        if !self.pending.is_empty() {
            self.pending.push(b'\n');
        }
        while let Some(line) = self.pending_line() {
            self.transcript += &format!("{line}\n");
        }
        let transcript = std::mem::take(&mut self.transcript);
        let Some(status) = status else { panic!("the process did not end within {within:?}; it said: {transcript}") };
        (status.code(), transcript)
    }

    /// Resident memory of the process without mappings of at least `guest_ram` bytes, in KiB.
    ///
    /// # Errors
    /// The process is gone.
    pub fn overhead_kib(&self, guest_ram: u64) -> Result<u64> {
        let maps = fs::read_to_string(format!("/proc/{}/smaps", self.child.id()))?;
        let (mut sum, mut counted) = (0, true);
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            if let Some((from, to)) = first.split_once('-')
                && let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16))
            {
                counted = to - from < guest_ram;
            } else if first == "Rss:" && counted {
                sum += second.parse::<u64>()?;
            }
        }
        Ok(sum)
    }

    /// Processor time of the process so far, all threads.
    ///
    /// # Errors
    /// The process is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        Ok(self.stat()?.0)
    }

    /// Processor time and state.
    fn stat(&self) -> Result<(Duration, String)> {
        process::stat(self.child.id()).map(|(own, _, state)| (own, state))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
