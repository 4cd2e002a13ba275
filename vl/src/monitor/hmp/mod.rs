//! The human monitor: a prompt, line editing, a table of commands.

mod block_info;
mod blocks;
mod commands;
mod info;
mod media;
mod pci;
mod tree;
mod x;

use super::VmRef;
use super::readline::{Key, Readline};
use crate::nearest::did_you_mean;
use crate::options::QEMU_VERSION;
use crate::vm::Vm;
use chardev::{Channel, CharFrontend, Event, Handlers};
use parking_lot::Mutex;
use std::fmt::Write;
use std::sync::{Arc, Weak};

/// What a command prints into; an error is printed after `Error: `.
pub type Result = std::result::Result<(), String>;

/// One call of a command.
pub struct Call<'a> {
    /// The machine.
    pub vm: &'a Arc<Vm>,
    /// What follows the command's name.
    pub args: &'a str,
    /// The CPU that `info registers` and `x` look at.
    pub cpu: u32,
    /// What is printed.
    pub out: &'a mut String,
    /// `cpu N` was given: which one to look at from now on.
    pub set_cpu: Option<u32>,
}

/// One command of the human monitor.
pub struct HmpCommand {
    /// Names, the first is shown.
    pub names: &'static [&'static str],
    /// Its arguments in the help text.
    pub args: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// What it does.
    pub run: fn(&mut Call<'_>) -> Result,
}

const fn command(
    names: &'static [&'static str],
    args: &'static str,
    help: &'static str,
    run: fn(&mut Call<'_>) -> Result,
) -> HmpCommand {
    HmpCommand { names, args, help, run }
}

/// Runs one line; what it prints. `cpu`: the CPU to look at, the first without.
pub fn run_line(vm: &Arc<Vm>, line: &str, cpu: Option<u32>) -> String {
    run(vm, line, cpu.unwrap_or(0)).0
}

fn run(vm: &Arc<Vm>, line: &str, cpu: u32) -> (String, Option<u32>) {
    let mut out = String::new();
    let line = line.trim();
    if line.is_empty() {
        return (out, None);
    }
    // `x/4xw` and `p/x`: the format belongs to the arguments.
    let end = line.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(line.len());
    let (name, args) = line.split_at(end);
    let Some(c) = commands::COMMANDS.iter().find(|c| c.names.contains(&name)) else {
        let hint = did_you_mean(name, commands::COMMANDS.iter().flat_map(|c| c.names.iter().copied()));
        return (format!("unknown command: '{name}'{hint}\n"), None);
    };
    let mut call = Call { vm, args: args.trim(), cpu, out: &mut out, set_cpu: None };
    let result = (c.run)(&mut call);
    let set = call.set_cpu;
    if let Err(e) = result {
        let _ = writeln!(out, "Error: {e}");
    }
    (out, set)
}

/// Help for one command, or for all.
fn help(out: &mut String, table: &[HmpCommand], prefix: &str, only: Option<&str>) {
    for c in table.iter().filter(|c| only.is_none_or(|o| c.names.contains(&o))) {
        let sep = if c.args.is_empty() { "" } else { " " };
        let _ = writeln!(out, "{prefix}{}{sep}{} -- {}", c.names.join("|"), c.args, c.help);
    }
}

/// A human monitor on a channel.
pub struct Session {
    vm: VmRef,
    front: CharFrontend,
    s: Mutex<State>,
}

struct State {
    line: Readline,
    cpu: u32,
    /// The keyboard is another's: output waits.
    away: bool,
    /// The channel is open and the banner was shown.
    greeted: bool,
    waiting: Vec<u8>,
}

impl Session {
    pub(crate) fn new(vm: &Arc<Vm>, channel: &Arc<Channel>) -> chardev::Result<Arc<Self>> {
        let s = State { line: Readline::new("(qemu) "), cpu: 0, away: false, greeted: false, waiting: vec![] };
        let session = Arc::new(Self { vm: Arc::downgrade(vm), front: CharFrontend::default(), s: Mutex::new(s) });
        session.front.attach(channel)?;
        let (take, event): (Weak<Self>, Weak<Self>) = (Arc::downgrade(&session), Arc::downgrade(&session));
        session.front.set_handlers(Handlers {
            can_receive: Box::new(|| 1024),
            receive: Box::new(move |bytes| {
                if let Some(s) = take.upgrade() {
                    bytes.iter().for_each(|b| s.key(*b));
                }
            }),
            event: Box::new(move |e| {
                if let Some(s) = event.upgrade() {
                    s.event(e);
                }
            }),
        });
        Ok(session)
    }

    fn key(&self, byte: u8) {
        let (key, shown, cpu) = {
            let mut s = self.s.lock();
            (s.line.key(byte), s.line.take_output(), s.cpu)
        };
        self.print(&shown);
        let Key::Line(line) = key else { return };
        if let Some(vm) = self.vm.upgrade() {
            let (text, set_cpu) = run(&vm, &line, cpu);
            if let Some(cpu) = set_cpu {
                self.s.lock().cpu = cpu;
            }
            self.print(text.replace('\n', "\r\n").as_bytes());
        }
        self.prompt();
    }

    fn prompt(&self) {
        let shown = {
            let mut s = self.s.lock();
            s.line.restart();
            s.line.take_output()
        };
        self.print(&shown);
    }

    fn print(&self, bytes: &[u8]) {
        let mut s = self.s.lock();
        if s.away {
            s.waiting.extend(bytes);
            return;
        }
        drop(s);
        self.front.write_all(bytes);
    }

    fn event(&self, event: Event) {
        match event {
            Event::Opened => {
                self.s.lock().greeted = true;
                let (major, minor, micro) = QEMU_VERSION;
                let banner = format!("QEMU {major}.{minor}.{micro} monitor - type 'help' for more information\r\n");
                self.print(banner.as_bytes());
                self.prompt();
            }
            Event::Closed => {
                let mut s = self.s.lock();
                s.greeted = false;
                s.waiting.clear();
            }
            Event::MuxOut => {
                let greeted = self.s.lock().greeted;
                if greeted && self.s.lock().waiting.is_empty() {
                    self.print(b"\r\n");
                }
                self.s.lock().away = true;
            }
            Event::MuxIn => {
                let (was_away, greeted, waiting) = {
                    let mut s = self.s.lock();
                    (std::mem::take(&mut s.away), s.greeted, std::mem::take(&mut s.waiting))
                };
                if !waiting.is_empty() {
                    self.print(&waiting);
                } else if was_away && greeted {
                    self.prompt();
                }
            }
            Event::Break => {}
        }
    }
}

/// No name may stand for two commands.
pub(crate) fn check_table() {
    debug_assert!({
        let mut names: Vec<&str> = commands::COMMANDS.iter().flat_map(|c| c.names.iter().copied()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        names.len() == all
    });
}
