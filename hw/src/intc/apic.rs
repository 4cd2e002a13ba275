//! Local APIC, type `apic` below `apic-common`, one per vCPU. Registers: [`super::apic_regs`].
//!
//! The registers sit behind a mutex of their own that is held for no call to anybody else, so that a vCPU reaches its APIC, and
//! others deliver to it, without the machine lock. The APICs of a machine share an [`ApicBus`]: it finds the targets of a message and carries
//! EOIs to the I/O APICs. The first APIC owns the message window at 0xfee00000 for all; a relocated IA32_APIC_BASE does not move it.

use std::sync::{Arc, OnceLock, Weak};

use hw_core::memory::Access;
use hw_core::{
    ClockType, Clocks, Core, Cpu, Device, DeviceClass, DeviceImpl, FreeOps, Line, LocalApic, Locked, MemoryRegion,
    Phase, SharedCell, Sizes, SysBusDevice, Timer, cpu::ApicFault, cpu::interrupt,
};
use parking_lot::{Mutex, MutexGuard, RwLock};
use qom::{Base, Class, Error, Handle, Object, Prop, Property, Result, Scope};

use super::apic_message::{Message, Signal, mode};
use super::apic_regs::{ApicRegs, DEFAULT_ADDRESS, Effect};
use super::ioapic::Ioapic;

/// Size of the window that holds register page and messages.
const WINDOW: u64 = 0x10_0000;
/// Priority of the window over whatever else is mapped there.
const WINDOW_PRIORITY: i32 = 0x1000;
/// MSR number of register 0 in x2APIC mode.
const HIGHEST_MSR_REGISTER: u32 = 0xff;

/// What connects the APICs of a machine.
#[derive(Default)]
pub struct ApicBus {
    apics: RwLock<Vec<Weak<ApicCore>>>,
    ioapics: RwLock<Vec<Handle<Ioapic>>>,
    core: OnceLock<Weak<Core>>,
}

impl ApicBus {
    fn apics(&self) -> Vec<Arc<ApicCore>> {
        self.apics.read().iter().filter_map(Weak::upgrade).collect()
    }

    fn of_cpu(&self, index: u32) -> Option<Arc<ApicCore>> {
        self.apics.read().iter().filter_map(Weak::upgrade).find(|a| a.cpu_index() == Some(index))
    }

    /// Delivers a message; `from`: the APIC that sends it, if one does.
    fn send(&self, m: Message, from: Option<&ApicCore>) {
        let own = |a: &ApicCore| from.is_some_and(|f| std::ptr::eq(f, a));
        let mut targets = self.apics();
        targets.retain(|a| a.regs().is_target(m.to, own(a)));
        if m.mode == mode::LOWEST {
            let lowest = targets.iter().filter(|a| a.regs().enabled()).min_by_key(|a| a.regs().apr()).cloned();
            targets = lowest.into_iter().collect();
        }
        targets.iter().for_each(|a| a.with(|r| r.deliver(m)));
    }

    /// An I/O APIC that wants to see EOIs.
    pub fn add_ioapic(&self, ioapic: Handle<Ioapic>) {
        self.ioapics.write().push(ioapic);
    }

    fn eoi(&self, vector: u8) {
        let all: Vec<_> = self.ioapics.read().iter().filter_map(Handle::upgrade).collect();
        let Some(core) = self.core.get().and_then(Weak::upgrade).filter(|_| !all.is_empty()) else { return };
        if core.is_locked_here() {
            tracing::error!(vector, "EOI from inside the machine: only vCPUs write it, and they do not hold the lock");
            return;
        }
        let mut m = core.lock();
        all.iter().for_each(|i| i.eoi(&mut m, vector));
    }
}

/// One local APIC, apart from its place in the object model.
pub struct ApicCore {
    regs: SharedCell<ApicRegs>,
    timer: Timer,
    /// Held from reading the deadline off the registers until it is armed: the main loop (which finds it expired) and the vCPU
    /// (which sets the next) do both, and the one that read the older registers must not be the last to arm.
    arming: Mutex<()>,
    clocks: Arc<Clocks>,
    cpu: Handle<Cpu>,
    bus: Arc<ApicBus>,
}

impl ApicCore {
    fn regs(&self) -> MutexGuard<'_, ApicRegs> {
        self.regs.lock()
    }

    fn cpu_index(&self) -> Option<u32> {
        self.cpu.with(|c| c.index()).flatten()
    }

    /// Changes the registers, then does what follows from it.
    fn with(&self, f: impl FnOnce(&mut ApicRegs) -> Effect) {
        let (e, fresh) = {
            let mut r = self.regs();
            let e = f(&mut r);
            (e, self.announce(&r))
        };
        self.act(e, fresh);
    }

    /// The processor's HARD bit is "a vector or the PIC's INTR is waiting"; set and withdrawn under the mutex, so that it is never
    /// stale. True: it is new, and the processor must be kicked once the mutex is released.
    fn announce(&self, r: &ApicRegs) -> bool {
        let waiting = r.pending().is_some() || r.pic_pending();
        let announce = |c: &Cpu| {
            if waiting {
                return c.post_interrupt(interrupt::HARD);
            }
            c.clear_interrupt(interrupt::HARD);
            false
        };
        self.cpu.with(announce).unwrap_or(false)
    }

    fn act(&self, e: Effect, fresh: bool) {
        if e.timer {
            let _order = self.arming.lock();
            let deadline = self.regs().timer_deadline(self.clocks.now());
            self.timer.arm_free(deadline);
        }
        self.cpu.with(|c| {
            if let Some(s) = e.signal {
                c.interrupt(match s {
                    Signal::Nmi => interrupt::NMI,
                    Signal::Smi => interrupt::SMI,
                    Signal::Init => interrupt::INIT,
                    Signal::Sipi => interrupt::SIPI,
                });
            }
            if fresh {
                c.kick();
            }
        });
        if let Some(m) = e.message {
            self.bus.send(m, Some(self));
        }
        if let Some(v) = e.eoi {
            self.bus.eoi(v);
        }
    }

    fn expired(&self) {
        let now = self.clocks.now();
        self.with(|r| r.timer_expired(now));
    }

    fn read(&self, off: u64) -> u32 {
        let now = self.clocks.now();
        let mut v = 0;
        self.with(|r| {
            let (val, e) = r.read(off, now);
            v = val;
            e
        });
        v
    }

    fn write(&self, off: u64, val: u32) {
        let now = self.clocks.now();
        self.with(|r| r.write(off, val, now));
    }
}

impl LocalApic for ApicCore {
    fn base(&self) -> u64 {
        self.regs().base()
    }

    /// Whether the vCPU has x2APIC at all is its own business: CPUID and its MSR filter say so.
    fn set_base(&self, val: u64) -> Result<(), ApicFault> {
        let mut result = Ok(());
        self.with(|r| {
            r.set_base(val).unwrap_or_else(|_| {
                result = Err(ApicFault);
                Effect::default()
            })
        });
        result
    }

    fn read_msr(&self, index: u32) -> Result<u64, ApicFault> {
        let now = self.clocks.now();
        self.regs().read_msr(index, now).map_err(|_| ApicFault)
    }

    fn write_msr(&self, index: u32, val: u64) -> Result<(), ApicFault> {
        if index > HIGHEST_MSR_REGISTER {
            return Err(ApicFault);
        }
        let now = self.clocks.now();
        let mut result = Ok(());
        self.with(|r| {
            r.write_msr(index, val, now).unwrap_or_else(|_| {
                result = Err(ApicFault);
                Effect::default()
            })
        });
        result
    }

    fn tsc_deadline(&self) -> u64 {
        self.regs().tsc_deadline()
    }

    fn set_tsc_deadline(&self, tsc: u64, at: u64) {
        self.with(|r| r.set_tsc_deadline(tsc, at));
    }

    fn cr8(&self) -> u8 {
        self.regs().tpr() >> 4
    }

    fn set_cr8(&self, val: u8) {
        self.with(|r| {
            r.set_tpr(val << 4);
            Effect::default()
        });
    }

    fn set_intr(&self, level: bool) {
        self.with(|r| r.set_lint(0, level));
    }

    fn set_nmi(&self, level: bool) {
        self.with(|r| r.set_lint(1, level));
    }

    fn pic_pending(&self) -> bool {
        self.regs().pic_pending()
    }

    fn has_interrupt(&self) -> bool {
        self.regs().pending().is_some()
    }

    fn acknowledge(&self) -> Option<u8> {
        let mut r = self.regs();
        let v = r.acknowledge();
        self.announce(&r);
        v
    }

    fn init(&self) {
        self.with(|r| {
            r.init();
            Effect { timer: true, ..Effect::default() }
        });
    }

    fn take_sipi(&self) -> Option<u8> {
        self.regs().take_sipi()
    }
}

/// Type `apic-common`.
#[derive(Object)]
#[qom(name = "apic-common", parent = Device, abstract, class_init = ApicCommon::class_init)]
pub struct ApicCommon {
    parent: Device,
    id: Prop<u32>,
    #[property(default = 0x14)]
    version: Prop<u8>,
    #[property(default = true)]
    vapic: Prop<bool>,
    #[state]
    regs: SharedCell<ApicRegs>,
}

impl ApicCommon {
    fn class_init(c: &mut Class) {
        c.property(Property::field("id", |a: &ApicCommon| &a.id));
        c.edit::<DeviceClass>().user_creatable = false;
    }
}

/// Type `apic`: below its vCPU in the tree.
#[derive(Object)]
#[qom(name = "apic", parent = ApicCommon, methods(DeviceClass))]
pub struct Apic {
    parent: ApicCommon,
    chip: OnceLock<Arc<ApicCore>>,
    window: OnceLock<MemoryRegion>,
}

/// Any APIC of the machine but `except`.
fn find(scope: &Arc<Scope>, except: Option<&Base>) -> Option<Arc<ApicBus>> {
    let mut found = None;
    scope.root().walk(&mut |o| {
        if found.is_none()
            && !except.is_some_and(|e| std::ptr::eq(e, o.base()))
            && let Some(core) = o.cast::<Apic>().and_then(|a| a.chip.get())
        {
            found = Some(core.bus.clone());
        }
    });
    found
}

/// The bus between the machine's APICs, once a vCPU has one.
#[must_use]
pub fn apic_bus(scope: &Arc<Scope>) -> Option<Arc<ApicBus>> {
    find(scope, None)
}

/// INTR of all vCPUs as one line, for the output of the 8259 pair: LINT0 of those with an APIC, the processor's pin of the first one
/// otherwise.
#[must_use]
pub fn cpu_interrupt_line(scope: &Arc<Scope>) -> Line {
    let core = scope.ext_arc::<Core>().map(|c| Arc::downgrade(&c)).unwrap_or_default();
    Line::new(move |_, level| {
        let Some(core) = core.upgrade() else { return };
        for (n, cpu) in core.cpus.list().iter().enumerate() {
            match cpu.local_apic() {
                Some(apic) => apic.set_intr(level),
                None if n == 0 && level => cpu.interrupt(interrupt::HARD),
                None if n == 0 => cpu.clear_interrupt(interrupt::HARD),
                None => {}
            }
        }
    })
}

impl Apic {
    fn window_read(&self, a: &Access) -> u64 {
        if a.size < 4 {
            return 0; // registers are read as 32 bits, §12.4.1
        }
        self.at_page(a).map_or(u64::MAX, |apic| apic.read(a.off).into())
    }

    fn window_write(&self, a: &Access, val: u64) {
        // Register 0 of the page does not exist: there, and outside the page, it is a message.
        let page = if a.off & 0xff0 == 0 { None } else { self.at_page(a) };
        match page {
            Some(apic) if a.size == 4 => apic.write(a.off, val as u32),
            Some(_) => {}
            None => {
                if let (Some(m), Some(core)) = (Message::from_msi(DEFAULT_ADDRESS + a.off, val as u32), self.chip.get())
                {
                    core.bus.send(m, None);
                }
            }
        }
    }

    /// The APIC whose registers a vCPU sees at this offset.
    fn at_page(&self, a: &Access) -> Option<Arc<ApicCore>> {
        let core = self.chip.get()?;
        a.cpu.filter(|_| a.off < 0x1000).and_then(|n| core.bus.of_cpu(n))
    }

    /// The registers as text, for `info lapic`.
    pub fn print_info(&self, m: &Locked) -> String {
        self.regs.lock().describe(m.clock.now())
    }
}

impl DeviceImpl for Apic {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        if !matches!(self.version.get(), 0x10..=0x15) {
            return Err(Error::generic(format!(
                "apic: version {:#x} is not that of a local APIC (0x10 to 0x15)",
                self.version.get()
            )));
        }
        let parent = self.parent().ok_or_else(|| Error::generic("apic: it is a part of a CPU"))?;
        let cpu = Handle::<Cpu>::new(&parent).ok_or_else(|| Error::generic("apic: it is a part of a CPU"))?;
        let (bus, first) = match find(self.scope(), Some(self.base())) {
            Some(bus) => (bus, false),
            None => (Arc::<ApicBus>::default(), true),
        };
        if let Some(core) = self.scope().ext_arc::<Core>() {
            bus.core.get_or_init(|| Arc::downgrade(&core));
        }
        *self.regs.lock() = ApicRegs::power_on(self.id.get(), self.version.get(), self.id.get() == 0);
        let clocks = self.core().clocks.clone();
        let apic = Arc::new_cyclic(|weak: &Weak<ApicCore>| {
            let weak = weak.clone();
            let expired = move |_: &mut Locked| {
                if let Some(a) = weak.upgrade() {
                    a.expired();
                }
            };
            ApicCore {
                regs: self.regs.clone(),
                timer: Timer::new(&clocks, ClockType::Virtual, expired),
                arming: Mutex::default(),
                clocks: clocks.clone(),
                cpu: cpu.clone(),
                bus: bus.clone(),
            }
        });
        self.core().resets.add(&self.object());
        bus.apics.write().push(Arc::downgrade(&apic));
        cpu.with(|c| c.set_local_apic(apic.clone()));
        _ = self.chip.set(apic);
        let sizes = Sizes::new(1, 4);
        let ops = FreeOps {
            read: Self::window_read,
            write: Self::window_write,
            valid: sizes,
            imp: sizes,
            ..FreeOps::default()
        };
        let region = MemoryRegion::io_free(self, "apic-msi", WINDOW, ops);
        if first {
            self.core().system_memory().add_subregion_overlap(m, DEFAULT_ADDRESS, &region, WINDOW_PRIORITY);
        }
        _ = self.window.set(region);
        if first && self.vapic.get() {
            let vapic = self.scope().object_new_as::<SysBusDevice>("kvmvapic")?;
            vapic.realize_sysbus(m)?;
        }
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        if let Some(w) = self.window.get() {
            w.unmap(m);
        }
        if let Some(core) = self.chip.get() {
            self.core().resets.remove(&self.object());
            core.timer.arm_free(None);
            core.bus.apics.write().retain(|a| a.upgrade().is_some_and(|a| !Arc::ptr_eq(&a, core)));
        }
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            self.regs.lock().reset();
        } else if phase == Phase::Hold
            && let Some(core) = self.chip.get()
        {
            core.with(|_| Effect { timer: true, ..Effect::default() });
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, _m: &mut Locked) -> Result<()> {
        if !self.regs.lock().is_valid() {
            return Err(Error::generic("apic: impossible mode bits"));
        }
        if let Some(core) = self.chip.get() {
            core.with(|_| Effect { timer: true, ..Effect::default() });
        }
        Ok(())
    }
}
