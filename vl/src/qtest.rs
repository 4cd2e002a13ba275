//! The qtest protocol: a test drives ports, memory, interrupt lines and the clock over a character device.
//! Source: QEMU's description of the protocol (docs/devel/testing/qtest); one command per line, one answer per line.
//!
//! With `-accel qtest` no guest code runs and the virtual clock stands still until the test moves it.

use crate::vm::Vm;
use chardev::{Channel, CharFrontend, Event, Handlers};
use hw_core::{ClockType, Device, Line, Locked, MemTxError};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Longest line; a client that sends more has gone wrong.
const MAX_LINE: usize = 16 << 20;

/// The protocol's server on one channel.
pub struct Server {
    vm: Weak<Vm>,
    front: CharFrontend,
    log: Option<Mutex<File>>,
    start: Instant,
    s: Mutex<State>,
}

#[derive(Default)]
struct State {
    line: Vec<u8>,
    intercepted: bool,
    /// Intercepted lines that were last reported high: only changes are reported.
    high: HashSet<usize>,
}

type Reply = Result<String, String>;

impl Server {
    /// Serves `vm` on `channel`. `log`: file for the conversation, `none` or nothing.
    ///
    /// # Errors
    /// The channel is taken or the log cannot be opened.
    pub fn new(vm: &Arc<Vm>, channel: &Arc<Channel>, log: Option<&str>) -> Result<Arc<Self>, String> {
        let log = match log {
            None | Some("none" | "/dev/null") => None,
            Some(path) => Some(Mutex::new(File::create(path).map_err(|e| format!("cannot open '{path}': {e}"))?)),
        };
        let server = Arc::new(Self {
            vm: Arc::downgrade(vm),
            front: CharFrontend::default(),
            log,
            start: Instant::now(),
            s: Mutex::default(),
        });
        server.front.attach(channel).map_err(|e| e.to_string())?;
        server.front.set_echo(true);
        let (take, event) = (Arc::downgrade(&server), Arc::downgrade(&server));
        server.front.set_handlers(Handlers {
            can_receive: Box::new(|| 4096),
            receive: Box::new(move |bytes| {
                if let Some(s) = take.upgrade() {
                    s.receive(bytes);
                }
            }),
            event: Box::new(move |e| {
                if let (Some(s), Event::Opened | Event::Closed) = (event.upgrade(), e) {
                    s.s.lock().line.clear();
                }
            }),
        });
        Ok(server)
    }

    fn receive(&self, bytes: &[u8]) {
        for b in bytes {
            if *b != b'\n' {
                let mut s = self.s.lock();
                if s.line.len() < MAX_LINE {
                    s.line.push(*b);
                }
                continue;
            }
            let line = std::mem::take(&mut self.s.lock().line);
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            self.log('R', &line);
            let words: Vec<&str> = line.split(' ').filter(|w| !w.is_empty()).collect();
            let reply = match self.vm.upgrade() {
                Some(vm) => self.command(&vm, &words),
                None => Err("the machine has ended".into()),
            };
            let reply = match reply {
                Ok(v) if v.is_empty() => "OK".to_owned(),
                Ok(v) => format!("OK {v}"),
                Err(e) => format!("FAIL {e}"),
            };
            self.send(&reply);
        }
    }

    fn send(&self, line: &str) {
        self.log('S', line);
        self.front.write_all(format!("{line}\n").as_bytes());
    }

    fn log(&self, way: char, line: &str) {
        if let Some(log) = &self.log {
            let t = self.start.elapsed();
            // A full disk under the log must not end the test.
            let _ = writeln!(log.lock(), "[{way} +{}.{:06}] {line}", t.as_secs(), t.subsec_micros());
        }
    }

    fn command(&self, vm: &Arc<Vm>, words: &[&str]) -> Reply {
        let core = vm.core();
        match words {
            [] => Err("empty command".into()),
            ["outb" | "outw" | "outl", port, value] => {
                let (port, value) = (number(port)?, number(value)?);
                // As on the bus, nobody there is nobody's error.
                let _ = core.io.store(&mut core.lock(), port & 0xffff, width(words), value);
                Ok(String::new())
            }
            ["inb" | "inw" | "inl", port] => {
                let port = number(port)? & 0xffff;
                let size = width(words);
                let v = core.io.load(&mut core.lock(), port, size).unwrap_or_else(MemTxError::read_value);
                Ok(format!("{:#06x}", v & mask(size)))
            }
            ["writeb" | "writew" | "writel" | "writeq", addr, value] => {
                let (addr, value) = (number(addr)?, number(value)?);
                let bytes = value.to_le_bytes();
                let _ = core.memory.write(&mut core.lock(), addr, bytes.get(..width(words) as usize).unwrap_or(&bytes));
                Ok(String::new())
            }
            ["readb" | "readw" | "readl" | "readq", addr] => {
                // As a transfer: what a device does not take in one piece is taken apart.
                let bytes = read(vm, number(addr)?, width(words).into())?;
                let v = bytes.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
                Ok(format!("{v:#018x}"))
            }
            ["read", addr, size] => {
                let bytes = read(vm, number(addr)?, number(size)?)?;
                Ok(bytes.iter().fold("0x".to_owned(), |t, b| t + &format!("{b:02x}")))
            }
            ["b64read", addr, size] => Ok(super::base64::encode(&read(vm, number(addr)?, number(size)?)?)),
            ["write", addr, size, data] => write(vm, number(addr)?, number(size)?, &hex(data)?),
            ["b64write", addr, size, data] => {
                let data = super::base64::decode(data).ok_or("invalid base64 data")?;
                write(vm, number(addr)?, number(size)?, &data)
            }
            ["memset", addr, size, value] => {
                let size = number(size)?;
                let data = vec![number(value)? as u8; buffer(size)?];
                write(vm, number(addr)?, size, &data)
            }
            ["endianness"] => Ok("little".into()),
            ["clock_step"] => {
                let mut m = core.lock();
                let next = core.clocks.deadline_of(ClockType::Virtual).unwrap_or(core.clocks.now());
                step(vm, &mut m, next)
            }
            ["clock_step", ns] => {
                let mut m = core.lock();
                let to = core.clocks.now().saturating_add(number(ns)?);
                step(vm, &mut m, to)
            }
            ["clock_set", ns] => {
                let to = number(ns)?;
                step(vm, &mut core.lock(), to)
            }
            ["irq_intercept_in" | "irq_intercept_out" | "irq_intercept_out_named", path, rest @ ..] => {
                self.intercept(vm, words.first() == Some(&"irq_intercept_in"), path, rest.first().copied())
            }
            ["set_irq_in", path, name, n, level] => {
                let device = device(vm, path)?;
                let (n, level) = (number(n)? as usize, number(level)?);
                let name = if *name == "unnamed-gpio-in" { "" } else { name };
                let line = device.gpio_in_line(name, n).ok_or_else(|| format!("no input '{name}' {n}"))?;
                line.set(&mut core.lock(), level != 0);
                Ok(String::new())
            }
            [other, ..] => Err(format!("Unknown command '{other}'")),
        }
    }

    /// Reports every change of a device's lines. As in QEMU the first device stays the intercepted one.
    fn intercept(&self, vm: &Arc<Vm>, inputs: bool, path: &str, name: Option<&str>) -> Reply {
        let device = device(vm, path)?;
        if std::mem::replace(&mut self.s.lock().intercepted, true) {
            return Ok(String::new());
        }
        let wanted = |n: &str| name.is_none_or(|w| w == n || (w == "unnamed-gpio-out" && n.is_empty()));
        let watch = |n: usize| -> hw_core::irq::Watch {
            let vm = self.vm.clone();
            Arc::new(move |_m: &mut Locked, level| {
                let server = vm.upgrade().and_then(|vm| vm.qtest.lock().clone());
                let changed = |s: &&Arc<Server>| {
                    let high = &mut s.s.lock().high;
                    if level { high.insert(n) } else { high.remove(&n) }
                };
                if let Some(s) = server.as_ref().filter(changed) {
                    s.send(&format!("IRQ {} {n}", if level { "raise" } else { "lower" }));
                }
            })
        };
        if inputs {
            for (name, lines) in device.gpio_ins().iter().filter(|(n, _)| wanted(n)) {
                let _ = name;
                lines.iter().enumerate().for_each(|(i, l): (usize, &Line)| l.watch(Some(watch(i))));
            }
        } else {
            for (_, outs) in device.gpio_out_list().iter().filter(|(n, _)| wanted(n)) {
                outs.iter().enumerate().for_each(|(i, o)| o.watch(Some(watch(i))));
            }
        }
        Ok(String::new())
    }
}

fn device(vm: &Vm, path: &str) -> Result<qom::Ref<Device>, String> {
    let o = vm.scope().resolve(path).map_err(|_| "Unknown device".to_owned())?;
    qom::Ref::new(o).ok_or_else(|| "Unknown device".to_owned())
}

fn step(vm: &Vm, m: &mut Locked, to: u64) -> Reply {
    let clocks = vm.core().clocks.clone();
    clocks.step_to(m, to);
    Ok(clocks.now().to_string())
}

/// Bytes of the width that the last letter of a command says.
fn width(words: &[&str]) -> u32 {
    match words.first().and_then(|w| w.bytes().last()) {
        Some(b'b') => 1,
        Some(b'w') => 2,
        Some(b'l') => 4,
        _ => 8,
    }
}

fn mask(size: u32) -> u64 {
    u64::MAX >> (64 - 8 * size.clamp(1, 8))
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match (text.strip_prefix("0x"), text.strip_prefix('-')) {
        (Some(hex), _) => u64::from_str_radix(hex, 16).ok(),
        (_, Some(_)) => text.parse::<i64>().ok().map(|v| v as u64),
        _ => text.parse().ok(),
    };
    parsed.ok_or_else(|| format!("'{text}' is not a number"))
}

fn buffer(size: u64) -> Result<usize, String> {
    usize::try_from(size).ok().filter(|s| *s <= 256 << 20).ok_or_else(|| format!("size {size} is too large"))
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(|c| byte(c).ok_or_else(|| "invalid hexadecimal data".to_owned())).collect()
}

fn read(vm: &Vm, addr: u64, size: u64) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; buffer(size)?];
    let core = vm.core();
    // What nobody answers reads as it does on the bus.
    let _ = core.memory.read(&mut core.lock(), addr, &mut bytes);
    Ok(bytes)
}

/// `data`, cut or filled with zeros to `size`.
fn write(vm: &Vm, addr: u64, size: u64, data: &[u8]) -> Reply {
    let mut bytes = data.to_vec();
    bytes.resize(buffer(size)?, 0);
    let core = vm.core();
    let _ = core.memory.write(&mut core.lock(), addr, &bytes);
    Ok(String::new())
}
