//! A machine of one PCI bus, some memory and the devices of a target. Its clock is stepped.

use crate::memory::Named;
use block::{Blocks, Opts};
use hw as _;
use hw_core::event_loop::EventLoop;
use hw_core::memory::Attrs;
use hw_core::pci::PciBus;
use hw_core::{
    DeviceClass, DeviceImpl, Locked, MemoryRegion, Ops, PciDevice, PciHostBridge, Request, RunState, ShutdownCause,
    Sizes, Vm,
};
use net::Nets;
use parking_lot::Mutex;
use qom::{Object, Ref, Result};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of memory, from 0 on.
pub const RAM: u64 = 1 << 20;
/// Where reads are counted: see [`Rig::counted`].
pub const COUNTED: u64 = 0x800_0000;
/// Bytes there.
pub const COUNTED_LEN: u64 = 1 << 21;
/// Bytes there that are as they were written.
const HEAD: usize = 0x80;
/// Where base addresses begin.
const MEMORY_BARS: u64 = 0x1000_0000;
const IO_BARS: u64 = 0xc000;
/// Bytes of a drive.
pub const DISK: usize = 64 << 10;
/// Largest amount of work that a drive may be asked for by one input: requests.
const MOST_REQUESTS: u64 = 100_000;

/// The bus's bridge, which has the counted memory as well.
#[derive(Object)]
#[qom(name = "fuzz-pcihost", parent = PciHostBridge, methods(DeviceClass))]
struct Host {
    parent: PciHostBridge,
    reads: AtomicU64,
    /// What was written to the first bytes there.
    head: Head,
}

/// The first bytes of the counted memory, which are as they were written.
struct Head(Mutex<[u8; HEAD]>);

impl Default for Head {
    fn default() -> Self {
        Self(Mutex::new([0; HEAD]))
    }
}

impl Host {
    /// Bytes that were written, and behind them the descriptors of an AHCI table: two bytes each, all at one place.
    fn read(&self, _: &mut Locked, off: u64, size: u32) -> u64 {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut descriptor = [0; 16];
        descriptor[..4].copy_from_slice(&0x8_0000u32.to_le_bytes());
        descriptor[12] = 1;
        let head = *self.head.0.lock();
        let byte = |at: usize| head.get(at).copied().unwrap_or(descriptor[at % 16]);
        (0..size as usize).rev().fold(0, |v, n| v << 8 | u64::from(byte(off as usize + n)))
    }

    fn write(&self, _: &mut Locked, off: u64, size: u32, val: u64) {
        let bytes = val.to_le_bytes();
        for (to, from) in self.head.0.lock().iter_mut().skip(off as usize).zip(bytes.iter().take(size as usize)) {
            *to = *from;
        }
    }
}

impl DeviceImpl for Host {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let (idx, data) = self.config_regions();
        self.map_io(m, 0xcf8, &idx);
        self.map_io(m, 0xcfc, &data);
        let (memory, io) = (self.core().system_memory(), self.core().system_io());
        let bus = PciBus::create_root(self, None, &memory, &io, 0)?;
        bus.set_irqs(m, 4, Arc::new(|d, pin| (usize::from(d.slot()) + pin) % 4), Some(Arc::new(|_, _, _| ())));
        self.set_root_bus(&bus);
        let ops = Ops { read: Self::read, write: Self::write, valid: Sizes::new(1, 8), ..Ops::default() };
        memory.add_subregion(m, COUNTED, &MemoryRegion::io(self, "counted", COUNTED_LEN, ops));
        memory.add_subregion(m, 0, &MemoryRegion::ram(self, "ram", RAM)?);
        Ok(())
    }
}

/// A function on the bus, mapped and enabled.
pub struct Function {
    /// Itself.
    pub pci: Ref<PciDevice>,
    /// Base address and bytes of what each base address register shows; 0 where there is none.
    pub bars: [(u64, u64); 6],
}

/// The machine.
pub struct Rig {
    vm: Vm,
    host: Ref<Host>,
    /// Its drives' files.
    pub disks: Vec<Named>,
    blocks: Arc<Blocks>,
    /// The loop that waits for the host.
    pub events: EventLoop,
    next: (u64, u64),
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

impl Rig {
    /// A machine without devices.
    ///
    /// # Panics
    /// The host does not give the memory.
    pub fn new() -> Self {
        let vm = Vm::with_machine("none", &[]).expect("an empty machine");
        vm.requests.set_state(RunState::Running);
        let events = EventLoop::new().expect("an event loop");
        let nets = Nets::of(vm.core());
        nets.set_events(events.clone());
        nets.set_running(true);
        let blocks = Blocks::of(vm.core());
        let host: Ref<Host> = vm.world().object_new_as("fuzz-pcihost").expect("a bridge");
        host.realize_sysbus(&mut vm.core().lock()).expect("a bridge");
        Self { vm, host, disks: vec![], blocks, events, next: (MEMORY_BARS, IO_BARS) }
    }

    /// The machine itself.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Its networks.
    pub fn nets(&self) -> Arc<Nets> {
        Nets::of(self.vm.core())
    }

    /// A new drive of [`DISK`] bytes for a `drive` property.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn disk(&mut self) -> String {
        let name = format!("disk{}", self.disks.len());
        let file = Named::new((0..DISK).map(|n| (n >> 9) as u8).collect());
        let options = json!({
            "driver": "raw", "node-name": name, "discard": "unmap",
            "file": {"driver": "fuzz-memory", "number": file.number},
        });
        let serde_json::Value::Object(options) = options else { unreachable!() };
        self.blocks.blockdev_add(Opts::json(options)).expect("a drive");
        self.disks.push(file);
        name
    }

    /// A device that is no PCI function.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn device(&self, driver: &str, props: &[(&str, &str)]) {
        self.vm.device_add(driver, None, props).expect("a device");
    }

    /// A PCI function. [`Rig::start`] maps it.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn function(&self, driver: &str, props: &[(&str, &str)]) -> Ref<PciDevice> {
        let device = self.vm.device_add(driver, None, props).expect("a device");
        Ref::new(Ref::object(&device).clone()).expect("a PCI function")
    }

    /// Resets the machine, then maps a function and switches it on.
    ///
    /// # Panics
    /// There is no machine.
    pub fn start(&mut self, pci: Ref<PciDevice>) -> Function {
        let m = &mut self.vm.core().lock();
        self.vm.machine().expect("a machine").reset(m, ShutdownCause::None);
        let mut bars = [(0, 0); 6];
        for (n, kind, size, _) in pci.bar_list() {
            let next = if kind.bits() & 1 != 0 { &mut self.next.1 } else { &mut self.next.0 };
            let at = next.next_multiple_of(size.max(1));
            *next = at + size;
            pci.config_write(m, 0x10 + 4 * n as u32, 4, at as u32);
            bars[usize::from(n as u8)] = (at, size);
        }
        pci.config_write(m, 4, 2, 7);
        Function { pci, bars }
    }

    /// Writes memory or registers; nobody may be there.
    pub fn store(&self, addr: u64, size: u32, val: u64) {
        _ = self.vm.memory.cpu_store(addr, size, val, Attrs::cpu(0));
    }

    /// Reads memory or registers; zero where nobody is.
    pub fn load(&self, addr: u64, size: u32) -> u64 {
        self.vm.memory.cpu_load(addr, size, Attrs::cpu(0)).unwrap_or(0)
    }

    /// Writes a port.
    pub fn out(&self, port: u64, size: u32, val: u64) {
        _ = self.vm.io.cpu_store(port, size, val, Attrs::cpu(0));
    }

    /// Reads a port.
    pub fn inp(&self, port: u64, size: u32) -> u64 {
        self.vm.io.cpu_load(port, size, Attrs::cpu(0)).unwrap_or(0)
    }

    /// Writes bytes of memory.
    pub fn write(&self, addr: u64, bytes: &[u8]) {
        _ = self.vm.memory.cpu_write(addr, bytes, Attrs::cpu(0));
    }

    /// Reads bytes of memory.
    pub fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        _ = self.vm.memory.cpu_read(addr, &mut bytes, Attrs::cpu(0));
        bytes
    }

    /// Reads of [`COUNTED`], an AHCI command table whose descriptors are two bytes each at 80000H.
    pub fn counted(&self) -> u64 {
        self.host.reads.load(Ordering::Relaxed)
    }

    /// Moves the clock.
    pub fn step(&self, ns: u64) {
        self.vm.clocks.step(&mut self.vm.core().lock(), ns);
    }

    /// Lets everything happen that is under way.
    ///
    /// # Panics
    /// A device has panicked, or drives are asked for too much.
    pub fn turn(&self) {
        self.blocks.drain();
        self.events.run_once(Some(Duration::ZERO));
        self.nets().deliver();
        self.blocks.drain();
        while let Some(request) = self.vm.requests.take() {
            if let Request::InternalError(what) = request {
                panic!("internal error: {what}");
            }
        }
        let requests: u64 = self.disks.iter().map(Named::accesses).sum();
        assert!(requests < MOST_REQUESTS, "{requests} requests of one input");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.nets().close();
        self.blocks.close();
    }
}
