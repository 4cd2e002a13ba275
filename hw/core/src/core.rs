//! The machine core: what one [`Scope`](qom::Scope) has exactly one of. Lock, clocks, memory, reset list, ROMs, CPUs.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use qom::{Base, ObjRef, Object, Ref};

use crate::clock::Clocks;
use crate::config::BoardConfig;
use crate::cpu::{Cpus, FpuError, PicAck};
use crate::events::Events;
use crate::loader::Roms;
use crate::locked::{CoreGuard, Locked, MachineCell, MachineLock};
use crate::memory::{AddressSpace, MemoryRegion, RamList};
use crate::qdev::{Bus, ResetList};
use crate::request::Requests;

/// What `Scope::ext::<Core>()` answers: the one core of a machine.
pub struct Core {
    lock: Arc<MachineLock>,
    /// Guest physical memory as devices see it.
    pub memory: AddressSpace,
    /// I/O ports.
    pub io: AddressSpace,
    /// Clocks and timers.
    pub clocks: Arc<Clocks>,
    /// Run state, and requests of the main loop.
    pub requests: Arc<Requests>,
    /// RAM blocks.
    pub ram: Arc<RamList>,
    /// Who is told about power button, sleep, run state and the end of start-up.
    pub events: Events,
    /// What a system reset resets.
    pub resets: ResetList,
    /// Images loaded into guest memory at reset.
    pub roms: Roms,
    /// The vCPUs.
    pub cpus: Cpus,
    sysbus: OnceLock<Weak<dyn Object>>,
    bus_numbers: Mutex<Vec<(String, u32)>>,
    ready: AtomicBool,
    pic: OnceLock<Arc<dyn PicAck>>,
    fpu_error: OnceLock<Arc<dyn FpuError>>,
    accel: Mutex<Option<ObjRef>>,
    board: OnceLock<BoardConfig>,
    event_sink: OnceLock<EventSink>,
    services: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

/// Takes a QMP event: its name and data.
pub type EventSink = Box<dyn Fn(&'static str, serde_json::Value) + Send + Sync>;

/// A weak reference to an object; dead while the object is built.
pub(crate) fn weak(o: &dyn Object) -> Weak<dyn Object> {
    o.base().weak().unwrap_or_else(|| Weak::<Base>::new())
}

impl Core {
    /// A machine without devices. The scope keeps it: `World::new(Core::new())`.
    pub fn new() -> Arc<Self> {
        let (clocks, requests) = (Arc::new(Clocks::default()), Arc::new(Requests::default()));
        let lock = Arc::new(MachineLock::new(clocks.clone(), requests.clone()));
        let (memory_root, io_root) = (MemoryRegion::root("system", u64::MAX), MemoryRegion::io_root("io", 0x1_0000));
        let (memory, io) = {
            let mut m = lock.lock();
            let space = |m: &mut _, name, root| AddressSpace::new(m, &lock, &requests, name, root);
            (space(&mut m, "memory", &memory_root), space(&mut m, "I/O", &io_root))
        };
        Arc::new(Self {
            lock,
            memory,
            io,
            clocks,
            requests,
            ram: Arc::default(),
            events: Events::default(),
            resets: ResetList::default(),
            roms: Roms::default(),
            cpus: Cpus::default(),
            sysbus: OnceLock::new(),
            bus_numbers: Mutex::default(),
            ready: AtomicBool::new(false),
            pic: OnceLock::new(),
            fpu_error: OnceLock::new(),
            accel: Mutex::default(),
            board: OnceLock::new(),
            event_sink: OnceLock::new(),
            services: Mutex::default(),
        })
    }

    /// The core of the machine an object belongs to.
    ///
    /// # Panics
    /// In a scope that was not made with a core: a mistake of whoever made the scope, not input.
    pub fn of(o: &dyn Object) -> &Core {
        o.base().scope().ext::<Core>().expect("scopes with hardware are made with a Core")
    }

    /// Takes the machine lock.
    ///
    /// # Panics
    /// When the calling thread holds it already.
    pub fn lock(&self) -> CoreGuard<'_> {
        self.lock.lock()
    }

    /// Whether the calling thread holds the machine lock.
    pub fn is_locked_here(&self) -> bool {
        self.lock.is_mine()
    }

    /// Root region of guest physical memory.
    pub fn system_memory(&self) -> MemoryRegion {
        self.memory.root()
    }

    /// Root region of the I/O ports.
    pub fn system_io(&self) -> MemoryRegion {
        self.io.root()
    }

    /// Another address space with its own root: a vCPU's, a PCI function's bus master view.
    pub fn address_space(&self, m: &mut Locked, name: &str, root: &MemoryRegion) -> AddressSpace {
        AddressSpace::new(m, &self.lock, &self.requests, name, root)
    }

    /// State under the machine lock.
    pub fn cell<T>(&self, value: T) -> MachineCell<T> {
        self.lock.cell(value)
    }

    /// The main system bus, once the machine has one.
    pub fn sysbus(&self) -> Option<Ref<Bus>> {
        Ref::new(self.sysbus.get()?.upgrade()?)
    }

    pub(crate) fn set_sysbus(&self, bus: &Ref<Bus>) {
        _ = self.sysbus.set(Arc::downgrade(Ref::object(bus)));
    }

    /// Whether the machine is complete: devices that come now are hot-plugged.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Next number for buses of a type that nobody names (`pci.0`, `pci.1` …).
    pub(crate) fn next_bus_number(&self, type_name: &str) -> u32 {
        let mut all = self.bus_numbers.lock();
        match all.iter_mut().find(|n| n.0 == type_name) {
            Some(n) => {
                n.1 += 1;
                n.1
            }
            None => {
                all.push((type_name.to_owned(), 0));
                0
            }
        }
    }

    /// Sets the interrupt controller that answers a CPU's acknowledge cycles. The first stays.
    pub fn set_pic(&self, pic: Arc<dyn PicAck>) {
        _ = self.pic.set(pic);
    }

    /// An interrupt acknowledge cycle: the vector of the interrupt controller; `None` if there is no controller.
    pub fn pic_acknowledge(&self, m: &mut Locked) -> Option<u8> {
        self.pic.get().map(|p| p.acknowledge(m))
    }

    /// Sets where FERR# of the vCPUs leads. The first stays.
    pub fn set_fpu_error(&self, board: Arc<dyn FpuError>) {
        _ = self.fpu_error.set(board);
    }

    /// A vCPU drives FERR#: whether IGNNE# lets it go on. `None` if the board has no such wires.
    pub fn ferr(&self, m: &mut Locked, level: bool) -> Option<bool> {
        self.fpu_error.get().map(|b| b.ferr(m, level))
    }

    /// Sets what the user chose for the board, before it is built. The first stays.
    pub fn configure(&self, board: BoardConfig) {
        _ = self.board.set(board);
    }

    /// What the user chose for the board; the defaults of [`BoardConfig`] if nobody said anything.
    pub fn board(&self) -> &BoardConfig {
        self.board.get_or_init(BoardConfig::default)
    }

    /// Sets who sends QMP events. The first stays.
    pub fn set_event_sink(&self, sink: EventSink) {
        _ = self.event_sink.set(sink);
    }

    /// Sends a QMP event, with or without the machine lock held; nobody listens in a machine without monitors.
    pub fn emit(&self, event: &'static str, data: serde_json::Value) {
        if let Some(sink) = self.event_sink.get() {
            sink(event, data);
        }
    }

    /// What another crate keeps once per machine (the block layer, the network), found by its type and made when first asked for.
    pub fn service<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut all = self.services.lock();
        let found = all.get(&TypeId::of::<T>()).cloned().and_then(|s| s.downcast().ok());
        found.unwrap_or_else(|| {
            let made = Arc::new(T::default());
            all.insert(TypeId::of::<T>(), made.clone());
            made
        })
    }

    pub(crate) fn set_accel(&self, accel: &ObjRef) {
        *self.accel.lock() = Some(accel.clone());
    }

    /// The machine's accelerator, once it has one.
    pub fn accel(&self) -> Option<ObjRef> {
        self.accel.lock().clone()
    }

    /// Ends the machine: forgets every mapped device and registered callback. Views and devices hold each other, so
    /// without this a machine's memory is never freed. vCPU threads must have ended.
    pub fn shut_down(&self) {
        let mut m = self.lock.lock();
        let spaces = m.all_spaces();
        let views: Vec<_> = spaces.iter().flat_map(|s| s.clear(&mut m)).collect();
        drop(m);
        drop(views);
        self.events.clear();
        self.resets.clear();
        self.cpus.clear();
        let accel = self.accel.lock().take();
        drop(accel);
        let services = std::mem::take(&mut *self.services.lock());
        drop(services);
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Core")
    }
}
