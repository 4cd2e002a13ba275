//! Type `cpu` and the registry of vCPUs: what everybody but the accelerator and the architecture may do with a vCPU.
//!
//! Each vCPU has one thread (or shares one), which runs guest code in the accelerator's loop and calls
//! [`Cpu::wait_io_event`] between slices. Others only set atomic bits and kick. Nobody waits for a vCPU while holding the machine lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, RwLock};
use qom::{Class, Error, Level, Link, Prop, Ref, Result};

use crate::core::Core;
use crate::locked::Locked;
use crate::memory::{AddressSpace, RegionNode};
use crate::qdev::{Category, Device, DeviceClass, DeviceImpl, Phase};

/// Bits of a vCPU's pending work, see [`Cpu::interrupt`]. The names are the x86 ones.
pub mod interrupt {
    /// Maskable interrupt pending: INTR or the local APIC.
    pub const HARD: u32 = 1 << 1;
    /// Leave guest code and look around.
    pub const EXIT: u32 = 1 << 2;
    /// Halt.
    pub const HALT: u32 = 1 << 5;
    /// System management interrupt.
    pub const SMI: u32 = 1 << 6;
    /// The debugger wants the vCPU.
    pub const DEBUG: u32 = 1 << 7;
    /// Virtual interrupt of a nested guest.
    pub const VIRQ: u32 = 1 << 8;
    /// Non-maskable interrupt.
    pub const NMI: u32 = 1 << 9;
    /// INIT.
    pub const INIT: u32 = 1 << 10;
    /// Start-up IPI; its vector is kept by the local APIC.
    pub const SIPI: u32 = 1 << 11;
    /// Machine check.
    pub const MCE: u32 = 1 << 12;
    /// The local APIC has changed and is to be asked before the next instruction.
    pub const POLL: u32 = 1 << 13;
    /// The task priority was changed from outside.
    pub const TPR: u32 = 1 << 14;
    /// Address line 20 is masked. A level, not an event: it stays set until the gate opens.
    pub const A20: u32 = 1 << 15;
}

/// What the CPU asks of its local APIC. Called on the vCPU's thread without the machine lock; the APIC has a small mutex of
/// its own that it holds for no outgoing call.
pub trait LocalApic: Send + Sync {
    /// IA32_APIC_BASE.
    fn base(&self) -> u64;
    /// Writes IA32_APIC_BASE.
    ///
    /// # Errors
    /// A reserved bit or an impossible change of mode: the instruction faults.
    fn set_base(&self, val: u64) -> Result<(), ApicFault>;
    /// Reads register `index` (offset / 16) as the x2APIC MSR 800H + index.
    ///
    /// # Errors
    /// Not in x2APIC mode, or no such register: the instruction faults.
    fn read_msr(&self, index: u32) -> Result<u64, ApicFault>;
    /// Writes register `index` as the x2APIC MSR.
    ///
    /// # Errors
    /// As [`LocalApic::read_msr`], or a reserved bit.
    fn write_msr(&self, index: u32, val: u64) -> Result<(), ApicFault>;
    /// IA32_TSC_DEADLINE: 0 when no deadline is pending.
    fn tsc_deadline(&self) -> u64;
    /// Writes IA32_TSC_DEADLINE; `at` is the virtual time in ns at which the time stamp counter reaches `tsc`.
    fn set_tsc_deadline(&self, tsc: u64, at: u64);
    /// CR8: bits 7–4 of the task priority.
    fn cr8(&self) -> u8;
    /// Writes CR8 (0 to 15).
    fn set_cr8(&self, val: u8);
    /// The PIC's INTR, wired to LINT0, changes.
    fn set_intr(&self, level: bool);
    /// The NMI line, wired to LINT1, changes.
    fn set_nmi(&self, level: bool);
    /// Whether INTR is high and the CPU takes it (virtual wire: LVT LINT0 in ExtINT mode, or the APIC is off): without an interrupt
    /// of the APIC's own, [`Core::pic_acknowledge`] has the vector.
    fn pic_pending(&self) -> bool;
    /// Whether [`LocalApic::acknowledge`] would answer a vector.
    fn has_interrupt(&self) -> bool;
    /// Takes the highest pending interrupt above the processor priority into service; `None`: there is none.
    fn acknowledge(&self) -> Option<u8>;
    /// The CPU takes INIT: the APIC's registers but its id are reset, it waits for a start-up IPI unless it is the bootstrap CPU.
    fn init(&self);
    /// The CPU takes a pending start-up IPI: its vector, if the APIC waits for one.
    fn take_sipi(&self) -> Option<u8>;
}

/// The instruction that reached the APIC faults with #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("general protection")]
pub struct ApicFault;

/// What answers interrupt acknowledge cycles: the 8259 pair.
pub trait PicAck: Send + Sync {
    /// The vector; takes the interrupt into service.
    fn acknowledge(&self, m: &mut Locked) -> u8;
}

/// The board's side of FERR# and IGNNE#: what makes an x87 error an interrupt when CR0.NE = 0.
pub trait FpuError: Send + Sync {
    /// A vCPU drives FERR#. True: IGNNE# is asserted, it goes on in spite of its error.
    fn ferr(&self, m: &mut Locked, level: bool) -> bool;
}

/// Class struct of CPUs. Methods are the architecture's.
#[derive(Clone)]
pub struct CpuClass {
    /// Whether a halted vCPU has something to do: an interrupt it would take.
    pub has_work: fn(&Cpu) -> bool,
    /// Registers as text (`info registers`). The vCPU is parked.
    pub dump_state: fn(&Cpu) -> String,
    /// Physical address of a virtual one, without side effects. The vCPU is parked.
    pub translate: fn(&Cpu, u64) -> Option<u64>,
    /// Architecture's number (APIC id).
    pub arch_id: fn(&Cpu) -> u64,
    /// Sets the A20 gate. On the vCPU's thread, or parked.
    pub set_a20: fn(&Cpu, bool),
    /// Reads general register `n` of a vCPU whose port access is being handled, on its thread (vmport).
    pub read_reg: fn(&Cpu, usize) -> u64,
    /// Writes general register `n`, as [`CpuClass::read_reg`].
    pub write_reg: fn(&Cpu, usize, u64),
    /// Resets the vCPU's own state. It is parked.
    pub reset: fn(&Cpu, &mut Locked),
    /// Program counter, linear. The vCPU is parked.
    pub pc: fn(&Cpu) -> u64,
}

impl Default for CpuClass {
    fn default() -> Self {
        Self {
            has_work: |c| c.pending() != 0,
            dump_state: |_| String::new(),
            translate: |_, a| Some(a),
            arch_id: |c| c.index().map_or(0, u64::from),
            set_a20: |_, _| (),
            read_reg: |_, _| 0,
            write_reg: |_, _, _| (),
            reset: |_, _| (),
            pc: |_| 0,
        }
    }
}

type Work = Box<dyn FnOnce(&Cpu) + Send>;
type Kick = Arc<dyn Fn() + Send + Sync>;
const NO_INDEX: u32 = u32::MAX;

/// What others do with a vCPU while it runs.
#[derive(Default)]
struct Run {
    pending: AtomicU32,
    halted: AtomicBool,
    exit: AtomicBool,
    sleep: Mutex<Sleep>,
    /// Wakes the vCPU's thread.
    wake: Condvar,
    /// Wakes those who wait for the vCPU.
    reached: Condvar,
    kick: RwLock<Option<Kick>>,
}

#[derive(Default)]
struct Sleep {
    /// Asked to park.
    stop: bool,
    /// Parked.
    stopped: bool,
    /// The thread exists.
    created: bool,
    /// The thread is to end.
    unplug: bool,
    /// Runs a slice of guest code, or work.
    work: VecDeque<Work>,
}

/// Type `cpu`.
#[derive(qom::Object)]
#[qom(name = "cpu", parent = Device, abstract, methods(DeviceClass), class_init = Cpu::class_init)]
pub struct Cpu {
    parent: Device,
    #[property(name = "start-powered-off", desc = "Wait to be started by the guest")]
    start_powered_off: Prop<bool>,
    #[property(name = "memory", desc = "Root of the memory it sees")]
    memory: Link<RegionNode>,
    index: CpuIndex,
    thread_id: AtomicI64,
    run: Run,
    apic: OnceLock<Arc<dyn LocalApic>>,
    space: RwLock<Option<AddressSpace>>,
    smm_space: RwLock<Option<AddressSpace>>,
}

/// Number of a vCPU; unset until it is realized.
struct CpuIndex(AtomicU32);
impl Default for CpuIndex {
    fn default() -> Self {
        Self(AtomicU32::new(NO_INDEX))
    }
}

impl DeviceImpl for Cpu {
    /// Enters the vCPU into the registry. The architecture's realize calls this before it starts the accelerator's part.
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.core().cpus.add(self)?;
        self.core().resets.add(&self.object());
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.core().resets.remove(&self.object());
        self.core().cpus.remove(self);
        self.parent_unrealize(m);
    }

    /// Forgets pending events, then does what the architecture does. In the hold phase, when interrupt controllers are reset.
    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        if phase == Phase::Hold {
            self.clear_interrupt(u32::MAX);
            (self.cpu_class().reset)(self, m);
        }
    }
}

impl Cpu {
    fn class_init(c: &mut Class) {
        c.edit::<CpuClass>();
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Cpu];
        d.user_creatable = false;
    }

    /// The CPU part of its class.
    pub fn cpu_class(&self) -> &'static CpuClass {
        self.class().get().expect("classes below 'cpu' have a CpuClass")
    }

    /// Number among the machine's vCPUs; `None` before realize.
    pub fn index(&self) -> Option<u32> {
        Some(self.index.0.load(Ordering::Relaxed)).filter(|i| *i != NO_INDEX)
    }

    /// Chooses the number before realize; otherwise the first free one is taken.
    pub fn set_index(&self, index: u32) {
        self.index.0.store(index, Ordering::Relaxed);
    }

    /// Waits to be started by the guest.
    pub fn starts_powered_off(&self) -> bool {
        self.start_powered_off.get()
    }

    /// Host thread id of the vCPU's thread, 0 for none.
    pub fn thread_id(&self) -> i64 {
        self.thread_id.load(Ordering::Relaxed)
    }

    /// Memory as the vCPU sees it outside system management mode.
    pub fn address_space(&self) -> AddressSpace {
        self.space.read().clone().unwrap_or_else(|| self.core().memory.clone())
    }

    /// Memory as the vCPU sees it in system management mode.
    pub fn smm_address_space(&self) -> AddressSpace {
        self.smm_space.read().clone().unwrap_or_else(|| self.address_space())
    }

    /// Gives the vCPU address spaces of its own.
    pub fn set_address_spaces(&self, normal: Option<AddressSpace>, smm: Option<AddressSpace>) {
        *self.space.write() = normal;
        *self.smm_space.write() = smm;
    }

    /// Its local APIC.
    pub fn local_apic(&self) -> Option<&Arc<dyn LocalApic>> {
        self.apic.get()
    }

    /// Gives the vCPU its local APIC. The first stays.
    pub fn set_local_apic(&self, apic: Arc<dyn LocalApic>) {
        _ = self.apic.set(apic);
    }

    // ---- pending work ----

    /// Pending bits, see [`interrupt`](mod@interrupt).
    pub fn pending(&self) -> u32 {
        self.run.pending.load(Ordering::Acquire)
    }

    /// Sets bits of pending work and kicks the vCPU if any is new.
    pub fn interrupt(&self, bits: u32) {
        let old = self.run.pending.fetch_or(bits, Ordering::AcqRel);
        if old & bits != bits {
            self.kick();
        }
    }

    /// Sets bits of pending work without the kick that must follow ([`Cpu::kick`]): for callers that hold a mutex which the vCPU
    /// takes when it looks for work. True: one of them is new.
    pub fn post_interrupt(&self, bits: u32) -> bool {
        self.run.pending.fetch_or(bits, Ordering::AcqRel) & bits != bits
    }

    /// Opens or closes the A20 gate: closed, bit 20 of physical addresses is taken as 0.
    pub fn set_a20(&self, open: bool) {
        if open {
            self.clear_interrupt(interrupt::A20);
            self.kick();
        } else {
            self.interrupt(interrupt::A20);
        }
    }

    /// Clears bits of pending work.
    pub fn clear_interrupt(&self, bits: u32) {
        self.run.pending.fetch_and(!bits, Ordering::AcqRel);
    }

    /// Whether it executed HLT (or waits for its start).
    pub fn is_halted(&self) -> bool {
        self.run.halted.load(Ordering::Acquire)
    }

    /// Halts the vCPU at its next look around, or lets it go on.
    pub fn set_halted(&self, on: bool) {
        self.run.halted.store(on, Ordering::Release);
        if !on {
            self.kick();
        }
    }

    /// Makes the vCPU leave guest code soon, and wakes it if it sleeps.
    pub fn kick(&self) {
        self.run.exit.store(true, Ordering::Release);
        let kick = self.run.kick.read().clone();
        if let Some(kick) = kick {
            kick();
        }
        drop(self.run.sleep.lock()); // whoever is about to sleep has looked before, or will look after
        self.run.wake.notify_all();
    }

    /// Sets what makes the accelerator's loop leave guest code (stores its exit request).
    pub fn set_kick(&self, f: impl Fn() + Send + Sync + 'static) {
        *self.run.kick.write() = Some(Arc::new(f));
    }

    /// Whether somebody wants the vCPU out of guest code; the loop asks after each slice. Reading resets it.
    pub fn take_exit_request(&self) -> bool {
        self.run.exit.swap(false, Ordering::AcqRel)
    }

    /// The same without resetting.
    pub fn exit_requested(&self) -> bool {
        self.run.exit.load(Ordering::Acquire)
    }

    // ---- the vCPU's thread ----

    /// First call of the vCPU's thread.
    pub fn thread_started(&self) {
        self.thread_id.store(rustix::thread::gettid().as_raw_nonzero().get().into(), Ordering::Relaxed);
        self.run.sleep.lock().created = true;
        self.run.reached.notify_all();
    }

    /// Last call of the vCPU's thread.
    pub fn thread_ended(&self) {
        let mut s = self.run.sleep.lock();
        (s.created, s.stopped) = (false, true);
        self.thread_id.store(0, Ordering::Relaxed);
        self.run.reached.notify_all();
    }

    /// Between slices of guest code, without the machine lock: parks if asked to, runs queued work, sleeps while the vCPU
    /// is halted without work. `false`: the thread ends.
    pub fn wait_io_event(&self) -> bool {
        let has_work = self.cpu_class().has_work;
        let mut s = self.run.sleep.lock();
        loop {
            if let Some(work) = s.work.pop_front() {
                drop(s);
                work(self);
                s = self.run.sleep.lock();
                continue;
            }
            if s.unplug {
                s.stopped = true;
                self.run.reached.notify_all();
                return false;
            }
            if s.stop {
                s.stop = false;
                s.stopped = true;
                self.run.reached.notify_all();
            }
            if !s.stopped && (!self.is_halted() || has_work(self)) {
                return true;
            }
            self.run.wake.wait(&mut s);
        }
    }

    /// Runs queued work and says whether the vCPU may run guest code now; never sleeps. For one thread that serves several vCPUs.
    pub fn poll_io_event(&self) -> bool {
        let mut s = self.run.sleep.lock();
        while let Some(work) = s.work.pop_front() {
            drop(s);
            work(self);
            s = self.run.sleep.lock();
        }
        if s.stop || s.unplug {
            s.stop = false;
            s.stopped = true;
            self.run.reached.notify_all();
        }
        !s.stopped && (!self.is_halted() || (self.cpu_class().has_work)(self))
    }

    /// Whether the thread is to end.
    pub fn is_unplugged(&self) -> bool {
        self.run.sleep.lock().unplug
    }

    /// Whether it is parked, or has no thread.
    pub fn is_stopped(&self) -> bool {
        let s = self.run.sleep.lock();
        s.stopped || !s.created
    }

    /// Whether its thread exists.
    pub fn is_created(&self) -> bool {
        self.run.sleep.lock().created
    }

    /// The vCPU stops itself: it parks at its next look around.
    pub fn stop_self(&self) {
        self.run.sleep.lock().stop = true;
        self.run.exit.store(true, Ordering::Release);
    }

    /// Runs `f` on the vCPU's thread between two instructions, some time from now. On a vCPU without a thread: at once.
    pub fn run_async(&self, f: impl FnOnce(&Cpu) + Send + 'static) {
        let mut s = self.run.sleep.lock();
        if !s.created {
            drop(s);
            return f(self);
        }
        s.work.push_back(Box::new(f));
        drop(s);
        self.kick();
    }

    /// Runs `f` on the vCPU's thread and waits for its result. Never with the machine lock held.
    ///
    /// # Errors
    /// The calling thread holds the machine lock, or the vCPU went away.
    pub fn run_on<R: Send + 'static>(&self, f: impl FnOnce(&Cpu) -> R + Send + 'static) -> Result<R> {
        if self.core().is_locked_here() {
            return Err(Error::generic("a vCPU cannot be waited for from inside the machine"));
        }
        let (tx, rx) = std::sync::mpsc::sync_channel(1);
        self.run_async(move |c| _ = tx.send(f(c)));
        rx.recv().map_err(|_| Error::generic("the vCPU is gone"))
    }
}

/// The machine's vCPUs.
pub struct Cpus {
    all: RwLock<Vec<qom::Handle<Cpu>>>,
    paused: AtomicBool,
}

impl Default for Cpus {
    /// None, and those to come stand still until [`Cpus::resume_all`].
    fn default() -> Self {
        Self { all: RwLock::default(), paused: AtomicBool::new(true) }
    }
}

impl Cpus {
    fn add(&self, cpu: &Cpu) -> Result<()> {
        let mut all = self.all.write();
        let taken = |n: u32| all.iter().filter_map(qom::Handle::upgrade).any(|c| c.index() == Some(n));
        match cpu.index() {
            Some(n) if taken(n) => return Err(Error::generic(format!("CPU with index {n} exists already"))),
            Some(_) => {}
            None => cpu.set_index((0..NO_INDEX).find(|n| !taken(*n)).unwrap_or(0)),
        }
        cpu.run.sleep.lock().stopped = self.are_paused();
        all.push(cpu.this());
        all.sort_by_key(|c| c.upgrade().and_then(|c| c.index()));
        Ok(())
    }

    fn remove(&self, cpu: &Cpu) {
        let index = cpu.index();
        self.all.write().retain(|c| c.upgrade().is_some_and(|c| c.index() != index));
        cpu.run.sleep.lock().unplug = true;
        cpu.kick();
    }

    /// All vCPUs by number.
    pub fn list(&self) -> Vec<Ref<Cpu>> {
        self.all.read().iter().filter_map(qom::Handle::upgrade).collect()
    }

    /// The vCPU of this number.
    pub fn get(&self, index: u32) -> Option<Ref<Cpu>> {
        self.list().into_iter().find(|c| c.index() == Some(index))
    }

    /// Whether [`Cpus::pause_all`] was the last word, or nothing ran yet.
    pub fn are_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Parks every vCPU and waits until they are. Does nothing for those without a thread.
    ///
    /// # Panics
    /// When the calling thread holds the machine lock: a vCPU may be waiting for it. (A mistake in the main loop, not input.)
    pub fn pause_all(&self, core: &Core) {
        assert!(!core.is_locked_here(), "vCPUs are waited for with the machine locked");
        self.paused.store(true, Ordering::Release);
        let all = self.list();
        for c in &all {
            let mut s = c.run.sleep.lock();
            if !s.stopped {
                s.stop = true;
            }
            drop(s);
            c.kick();
        }
        for c in &all {
            let mut s = c.run.sleep.lock();
            while s.created && !s.stopped {
                c.run.reached.wait(&mut s);
            }
            s.stop = false;
            s.stopped = true;
        }
    }

    /// Lets all vCPUs run.
    pub fn resume_all(&self) {
        self.paused.store(false, Ordering::Release);
        for c in self.list() {
            let mut s = c.run.sleep.lock();
            (s.stop, s.stopped) = (false, false);
            drop(s);
            c.kick();
        }
    }

    /// Kicks every vCPU.
    pub fn kick_all(&self) {
        self.list().iter().for_each(|c| c.kick());
    }

    /// Ends every vCPU's thread and waits for it. Never with the machine lock held.
    pub fn end_all(&self) {
        let all = self.list();
        for c in &all {
            c.run.sleep.lock().unplug = true;
            c.kick();
        }
        for c in &all {
            let mut s = c.run.sleep.lock();
            while s.created {
                c.run.reached.wait(&mut s);
            }
        }
    }

    pub(crate) fn clear(&self) {
        let old = std::mem::take(&mut *self.all.write());
        drop(old);
    }
}
