//! Seeded random accesses: what a guest gone mad may do to a device, and what time and the user may do meanwhile.

use super::board::Board;
use super::rng::Rng;
use hw_core::memory::{Attrs, FlatRange, RangeKind};
use hw_core::qdev::reset_object;
use hw_core::{AddressSpace, Core, Device, PciDevice, Request};
use parking_lot::Mutex;
use qom::{ObjRef, Ref};
use std::sync::Arc;
use ui::input::{Keyboard, Pointer, PointerEvent};

/// What the traffic goes to.
pub enum Target {
    /// The registers of these devices; of devices without any, those of the device they belong to.
    Devices(Vec<Ref<Device>>),
    /// All ports, all memory-mapped registers, all PCI functions.
    Everything,
}

/// Something the guest or the outside can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A read and its value; `None`: nobody answered.
    Read(&'static str, u64, u32, Option<u64>),
    /// Whether a write was taken.
    Write(&'static str, u64, u32, u64, bool),
    /// A read of PCI configuration space: function, offset, bytes, value.
    Config(u8, u32, u32, u32),
    /// A write of PCI configuration space.
    ConfigWrite(u8, u32, u32, u32),
    /// The clock moved to.
    Clock(u64),
    /// An output line changed.
    Line(String, bool),
    /// A request of the run state.
    Request(Request),
    /// An interrupt was acknowledged.
    Vector(Option<u8>),
    /// A key or pointer event was given.
    Input,
    /// The devices were reset.
    Reset,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    Memory,
    Io,
}

impl Space {
    fn of(self, core: &Core) -> (&'static str, &AddressSpace) {
        match self {
            Space::Memory => ("memory", &core.memory),
            Space::Io => ("port", &core.io),
        }
    }
}

/// A range of registers.
struct Window {
    space: Space,
    start: u64,
    len: u64,
}

type Seen = Arc<Mutex<Vec<(String, bool)>>>;

/// A run of traffic on one board.
pub struct Traffic<'a> {
    board: &'a Board,
    target: &'a Target,
    rng: Rng,
    paths: Vec<String>,
    functions: Vec<Ref<PciDevice>>,
    inputs: Vec<ObjRef>,
    windows: Vec<Window>,
    epochs: (u64, u64),
    lines: Seen,
    watched: Vec<hw_core::IrqOut>,
    last: u64,
    log: Vec<Event>,
}

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        self.watched.iter().for_each(|w| w.watch(None));
    }
}

/// Bytes of guest memory that look like the descriptors of devices.
const DESCRIPTORS: (u64, u64) = (0x1000, 0x2000);

impl<'a> Traffic<'a> {
    /// Traffic of `rng` for `target`.
    pub fn new(board: &'a Board, target: &'a Target, rng: Rng) -> Self {
        let all = board.functions();
        let (paths, functions, inputs) = match target {
            Target::Everything => (vec![], all, board.objects()),
            Target::Devices(devices) => {
                let mut paths: Vec<String> = devices.iter().map(|d| d.path()).collect();
                let mut above = devices.iter().flat_map(owners).collect::<Vec<_>>();
                while !has_registers(board, &paths) && !above.is_empty() {
                    paths.extend(above.iter().map(|d| d.path()));
                    above = above.iter().flat_map(owners).collect();
                }
                let functions = all.into_iter().filter(|f| covers(&paths, &f.path())).collect();
                (paths, functions, devices.iter().map(|d| d.object()).collect())
            }
        };
        let is_input = |o: &ObjRef| o.interface::<dyn Keyboard>().is_some() || o.interface::<dyn Pointer>().is_some();
        let mut t = Self {
            board,
            target,
            rng,
            paths,
            functions,
            inputs: inputs.into_iter().filter(is_input).collect(),
            windows: vec![],
            epochs: (u64::MAX, u64::MAX),
            lines: Arc::default(),
            watched: vec![],
            last: 0,
            log: vec![],
        };
        t.watch_lines();
        t.look();
        t
    }

    fn watch_lines(&mut self) {
        let Target::Devices(devices) = self.target else { return };
        for d in devices {
            for (name, outs) in d.gpio_out_list() {
                for (n, out) in outs.into_iter().enumerate() {
                    let (seen, label) = (self.lines.clone(), format!("{}: {name}[{n}]", d.path()));
                    let level = Mutex::new(None);
                    out.watch(Some(Arc::new(move |_, new| {
                        if level.lock().replace(new) != Some(new) {
                            seen.lock().push((label.clone(), new));
                        }
                    })));
                    self.watched.push(out);
                }
            }
        }
    }

    /// Finds the registers, if the memory map has changed.
    fn look(&mut self) {
        let core = self.board.core();
        let epochs = (core.memory.epoch(), core.io.epoch());
        if epochs == self.epochs {
            return;
        }
        self.epochs = epochs;
        self.windows.clear();
        for (space, kind) in [(&core.memory, Space::Memory), (&core.io, Space::Io)] {
            let view = space.view();
            let of_target = |r: &&FlatRange| match self.target {
                Target::Everything => matches!(r.kind, RangeKind::Io | RangeKind::RomDevice(_)),
                Target::Devices(_) => covers(&self.paths, &r.region.info().owner),
            };
            let window =
                |r: &FlatRange| Window { space: kind, start: r.start, len: (r.last - r.start).saturating_add(1) };
            self.windows.extend(view.ranges().iter().filter(of_target).map(window));
        }
    }

    /// How many ranges of registers and PCI functions the traffic reaches.
    pub fn reach(&self) -> usize {
        self.windows.len() + self.functions.len()
    }

    /// Fills a part of guest memory with what may be taken for descriptors, big-endian (fw_cfg) and little-endian by turns: a
    /// command, a length, an address, often of registers.
    pub fn fill_memory(mut self) {
        let (start, len) = DESCRIPTORS;
        for (n, at) in (start..start + len).step_by(16).enumerate() {
            let (command, length, address) = (self.value() as u32, self.rng.below(64) as u32, self.address());
            let words = match n % 2 {
                0 => [command.to_be(), length.to_be(), (address >> 32) as u32, (address as u32).to_be()],
                _ => [command, length, address as u32, (address >> 32) as u32],
            };
            let memory = &self.board.core().memory;
            for (i, w) in (0..).zip(words) {
                self.board.locked(|m| _ = memory.store(m, at + 4 * i, 4, w.into()));
            }
        }
    }

    /// The ranges of memory-mapped registers: address and length.
    pub fn registers(&self) -> Vec<(u64, u64)> {
        self.windows.iter().filter(|w| w.space == Space::Memory).map(|w| (w.start, w.len)).collect()
    }

    /// Reads the first registers of each range once: what a later run writes first is seen as well.
    pub fn sweep(&mut self) {
        for f in self.functions.clone() {
            for at in (0..256).step_by(4) {
                let v = self.board.locked(|m| f.config_read(m, at, 4));
                self.log.push(Event::Config(f.devfn(), at, 4, v));
            }
        }
        let windows: Vec<(Space, u64, u64)> = self.windows.iter().map(|w| (w.space, w.start, w.len)).collect();
        for (space, start, len) in windows {
            (start..start + len.min(32)).for_each(|addr| self.read(space, addr, 1));
            (start..start + len.min(256)).step_by(4).for_each(|addr| self.read(space, addr, 4));
        }
    }

    fn read(&mut self, space: Space, addr: u64, size: u32) {
        let core = self.board.core();
        let (name, space) = space.of(core);
        let v = space.cpu_load(addr, size, Attrs::cpu(0)).ok();
        self.last = v.unwrap_or(0);
        self.log.push(Event::Read(name, addr, size, v));
    }

    /// `n` steps; what was seen.
    ///
    /// # Errors
    /// A panic in a device.
    pub fn run(mut self, n: usize) -> Result<Vec<Event>, String> {
        for i in 0..n {
            self.step();
            let lines = std::mem::take(&mut *self.lines.lock());
            self.log.extend(lines.into_iter().map(|(name, level)| Event::Line(name, level)));
            let requests = self.board.requests().map_err(|e| {
                let from = self.log.len().saturating_sub(6);
                format!("{e}\n  step {i}, the last events: {:#x?}", &self.log[from..])
            })?;
            for r in requests {
                let reset = matches!(r, Request::Reset(_)) && matches!(self.target, Target::Everything);
                self.log.push(Event::Request(r));
                if reset {
                    self.board.reset();
                }
            }
        }
        Ok(std::mem::take(&mut self.log))
    }

    fn step(&mut self) {
        self.look();
        match self.rng.below(100) {
            0..=11 => self.move_clock(),
            12..=23 if !self.functions.is_empty() => self.config(),
            24..=27 if !self.inputs.is_empty() => self.input(),
            28..=29 => self.acknowledge(),
            30 if self.rng.one_in(3) => self.reset(),
            _ => self.access(),
        }
    }

    fn move_clock(&mut self) {
        let bits = match self.rng.below(40) {
            0 => 30,      // a second
            1..=3 => 23,  // milliseconds
            4..=15 => 17, // a tenth of one
            _ => 11,
        };
        let ns = self.rng.bits() >> (64 - bits);
        self.board.locked(|m| m.advance(ns));
        self.log.push(Event::Clock(self.board.core().clocks.now()));
    }

    /// A key, a movement of the mouse: from the user.
    fn input(&mut self) {
        let Some(o) = self.rng.pick(&self.inputs).cloned() else { return };
        let (a, b) = (self.rng.bits(), self.rng.bits());
        self.board.locked(|m| {
            if let (Some(k), Some(key)) =
                (o.interface::<dyn Keyboard>(), ui::keys::KEYS.get(a as usize % ui::keys::KEYS.len()))
            {
                k.key(m, key, b & 1 != 0);
            }
            if let Some(p) = o.interface::<dyn Pointer>() {
                let small = |v: u64| (v as i8).into();
                let (x, y, wheel) = (small(a >> 8), small(a), (a >> 16) as i32 % 3);
                p.pointer(m, PointerEvent { x, y, absolute: b & 32 != 0, wheel, buttons: b as u8 & 31 });
            }
        });
        self.log.push(Event::Input);
    }

    /// A vCPU takes an interrupt.
    fn acknowledge(&mut self) {
        let core = self.board.core();
        let cpu = core.cpus.get(0);
        let apic = cpu.as_ref().and_then(|c| c.local_apic()).filter(|_| self.rng.one_in(2));
        let vector = match apic {
            Some(a) => a.acknowledge(),
            None => self.board.locked(|m| core.pic_acknowledge(m)),
        };
        self.log.push(Event::Vector(vector));
    }

    fn reset(&mut self) {
        match self.target {
            Target::Devices(devices) => {
                self.board.locked(|m| devices.iter().for_each(|d| reset_object(&d.object(), m)));
            }
            Target::Everything => self.board.reset(),
        }
        self.log.push(Event::Reset);
    }

    fn config(&mut self) {
        let Some(f) = self.rng.pick(&self.functions).cloned() else { return };
        let len = 1 << self.rng.below(3);
        let at = (self.rng.below(256) & !u64::from(len - 1)) as u32;
        if self.rng.one_in(2) {
            let v = self.board.locked(|m| f.config_read(m, at, len));
            self.last = v.into();
            self.log.push(Event::Config(f.devfn(), at, len, v));
        } else {
            let v = self.value() as u32;
            self.board.locked(|m| f.config_write(m, at, len, v));
            self.log.push(Event::ConfigWrite(f.devfn(), at, len, v));
        }
    }

    fn access(&mut self) {
        let core = self.board.core().clone();
        let Some((space, addr)) = self.place() else { return };
        let (name, space) = space.of(&core);
        let size = match self.rng.below(16) {
            0..=6 => 1,
            7..=10 => 2,
            11..=14 => 4,
            _ => 8,
        };
        let addr = if self.rng.one_in(4) { addr } else { addr & !u64::from(size - 1) };
        let by = Attrs::cpu(self.rng.below(core.cpus.list().len().max(1) as u64) as u32);
        if self.rng.one_in(2) {
            let v = space.cpu_load(addr, size, by).ok();
            self.last = v.unwrap_or(0);
            self.log.push(Event::Read(name, addr, size, v));
        } else {
            let v = self.value();
            let taken = space.cpu_store(addr, size, v, by).is_ok();
            self.log.push(Event::Write(name, addr, size, v, taken));
        }
    }

    /// An address in some range of registers: near its start more often than not.
    fn place(&mut self) -> Option<(Space, u64)> {
        if matches!(self.target, Target::Everything) && self.rng.one_in(3) {
            return Some((Space::Io, self.rng.below(0x1_0000)));
        }
        let n = self.rng.below(self.windows.len() as u64) as usize;
        let w = self.windows.get(n)?;
        let near = match self.rng.below(8) {
            0..=3 => w.len.min(0x40),
            4..=5 => w.len.min(0x400),
            _ => w.len,
        };
        Some((w.space, w.start + self.rng.below(near)))
    }

    /// An address that devices may be pointed at: registers, their own among them, or memory.
    fn address(&mut self) -> u64 {
        let memory: Vec<u64> = self.windows.iter().filter(|w| w.space == Space::Memory).map(|w| w.start).collect();
        match self.rng.below(3) {
            0 => DESCRIPTORS.0 + (self.rng.below(DESCRIPTORS.1) & !7),
            1 => [0xfec0_0000, 0xfed0_0000, 0xfee0_0000, 0xa_0000][self.rng.below(4) as usize],
            _ => self.rng.pick(&memory).map_or(0, |a| *a) + (self.rng.below(0x40) & !3),
        }
    }

    fn value(&mut self) -> u64 {
        match self.rng.below(20) {
            0..=3 => self.rng.below(16),
            4..=5 => 1 << self.rng.below(32),
            6 => u64::MAX,
            7 => self.last ^ 1 << self.rng.below(32),
            8 => self.address(),
            9 => u64::from((self.address() as u32).swap_bytes()),
            10 => self.address() >> 32,
            11..=12 => self.rng.below(256),
            _ => self.rng.bits(),
        }
    }
}

/// Whether `path` is one of `paths` or below one.
fn covers(paths: &[String], path: &str) -> bool {
    paths.iter().any(|p| path.strip_prefix(p.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn has_registers(board: &Board, paths: &[String]) -> bool {
    let core = board.core();
    let owned = |s: &hw_core::AddressSpace| s.view().ranges().iter().any(|r| covers(paths, &r.region.info().owner));
    owned(&core.memory) || owned(&core.io)
}

/// The devices a device belongs to: what it hangs below in the tree, and those whose bus it is on.
fn owners(d: &Ref<Device>) -> Vec<Ref<Device>> {
    let parent = d.parent().and_then(Ref::new);
    parent.into_iter().chain(d.bus().and_then(|b| b.parent_device())).collect()
}
