//! A qtest client: a machine without guest code, driven from outside.

use crate::process::{self, LIMIT};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};

/// A machine under `-accel qtest`.
pub struct Qtest {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    child: Child,
    levels: HashMap<usize, bool>,
    /// Every change of an intercepted line since it was last taken.
    changes: Vec<(usize, bool)>,
}

impl Qtest {
    /// Starts `args` (a machine, devices) with the test's accelerator and no default devices but those named.
    ///
    /// # Panics
    /// When it does not start; its messages are shown.
    pub fn start(args: &[&str]) -> Self {
        Self::start_binary(&process::binary(), args)
    }

    /// [`Qtest::start`] for another binary.
    pub fn start_binary(binary: &Path, args: &[&str]) -> Self {
        Self::start_command(Command::new(binary), args)
    }

    /// [`Qtest::start`] for a command that already has some arguments.
    ///
    /// # Panics
    /// When it does not start; its messages are shown.
    pub fn start_command(mut command: Command, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("qtest");
        let listener = UnixListener::bind(&path).expect("a socket");
        listener.set_nonblocking(true).expect("a socket");
        let server = format!("unix:{}", path.display());
        command.args(args).args(["-accel", "qtest", "-display", "none", "-qtest", server.as_str()]);
        let mut child = process::start_command(command);
        let mut stream = None;
        let mut ended = false;
        process::until("the machine connects", || {
            stream = listener.accept().ok();
            ended = child.try_wait().expect("our child").is_some();
            ended || stream.is_some()
        });
        let Some((writer, _)) = stream else {
            panic!("the machine did not start: {}", process::finish(child).stderr);
        };
        writer.set_nonblocking(false).expect("a socket");
        writer.set_read_timeout(Some(LIMIT)).expect("a socket takes a timeout");
        let reader = BufReader::new(writer.try_clone().expect("a socket can be cloned"));
        Self { reader, writer, child, levels: HashMap::new(), changes: vec![] }
    }

    /// Sends one command; the whole answer.
    ///
    /// # Panics
    /// When the machine is gone.
    pub fn raw(&mut self, command: &str) -> String {
        self.writer.write_all(format!("{command}\n").as_bytes()).expect("the machine reads");
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).expect("an answer comes in time");
            let line = line.trim_end();
            let Some(change) = line.strip_prefix("IRQ ") else { return line.to_owned() };
            let (what, n) = change.split_once(' ').expect("IRQ raise|lower N");
            let (n, level) = (n.parse().expect("a number"), what == "raise");
            self.levels.insert(n, level);
            self.changes.push((n, level));
        }
    }

    /// Sends one command that must work; what follows `OK`.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&mut self, command: &str) -> String {
        let answer = self.raw(command);
        let rest = answer.strip_prefix("OK").unwrap_or_else(|| panic!("{command}: {answer}"));
        rest.trim_start().to_owned()
    }

    fn value(&mut self, command: &str) -> u64 {
        let v = self.ok(command);
        let parsed = v.strip_prefix("0x").map_or_else(|| v.parse().ok(), |h| u64::from_str_radix(h, 16).ok());
        parsed.unwrap_or_else(|| panic!("{command}: {v}"))
    }

    /// Writes a port; `size` is 1, 2 or 4.
    pub fn out(&mut self, port: u16, size: u32, val: u32) {
        self.ok(&format!("out{} {port:#x} {val:#x}", letter(size)));
    }

    /// Reads a port.
    pub fn inp(&mut self, port: u16, size: u32) -> u32 {
        self.value(&format!("in{} {port:#x}", letter(size))) as u32
    }

    /// Writes a byte to a port.
    pub fn outb(&mut self, port: u16, val: u8) {
        self.out(port, 1, val.into());
    }

    /// Reads a byte from a port.
    pub fn inb(&mut self, port: u16) -> u8 {
        self.inp(port, 1) as u8
    }

    /// Writes memory; `size` is 1, 2, 4 or 8.
    pub fn store(&mut self, addr: u64, size: u32, val: u64) {
        self.ok(&format!("write{} {addr:#x} {val:#x}", letter(size)));
    }

    /// Reads memory.
    pub fn load(&mut self, addr: u64, size: u32) -> u64 {
        self.value(&format!("read{} {addr:#x}", letter(size)))
    }

    /// Writes a block of memory.
    pub fn write(&mut self, addr: u64, data: &[u8]) {
        let hex: String = data.iter().map(|b| format!("{b:02x}")).collect();
        self.ok(&format!("write {addr:#x} {:#x} 0x{hex}", data.len()));
    }

    /// Reads a block of memory.
    ///
    /// # Panics
    /// When the answer is not hexadecimal.
    pub fn read(&mut self, addr: u64, len: usize) -> Vec<u8> {
        let text = self.ok(&format!("read {addr:#x} {len:#x}"));
        let digits = text.strip_prefix("0x").expect("0x…");
        let byte = |i: usize| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).expect("hexadecimal");
        (0..len).map(byte).collect()
    }

    /// Moves the clock by `ns` nanoseconds; the new time.
    pub fn clock_step(&mut self, ns: u64) -> u64 {
        self.value(&format!("clock_step {ns}"))
    }

    /// Moves the clock to its next deadline; the new time.
    pub fn clock_step_next(&mut self) -> u64 {
        self.value("clock_step")
    }

    /// Reports changes of a device's inputs (`path`: canonical or partial).
    pub fn intercept_in(&mut self, path: &str) {
        self.ok(&format!("irq_intercept_in {path}"));
    }

    /// Reports changes of a device's outputs.
    pub fn intercept_out(&mut self, path: &str) {
        self.ok(&format!("irq_intercept_out {path}"));
    }

    /// Level of intercepted line `n` as last reported; low before any report.
    pub fn irq(&self, n: usize) -> bool {
        self.levels.get(&n).copied().unwrap_or(false)
    }

    /// Changes of intercepted lines since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<(usize, bool)> {
        std::mem::take(&mut self.changes)
    }
}

fn letter(size: u32) -> char {
    match size {
        1 => 'b',
        2 => 'w',
        4 => 'l',
        _ => 'q',
    }
}

impl Drop for Qtest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
