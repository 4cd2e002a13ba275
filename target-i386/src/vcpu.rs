//! An x86 vCPU of a machine: the engine's vCPU connected to the CPU object, its local APIC, the PIC and the clock; its
//! thread; type `tcg-accel-x86_64-cpu`.
//!
//! The CPU object makes an [`X86Vcpu`] when it is realized, keeps it, and answers its class's questions through it.

use crate::{
    EXIT_SHUTDOWN, X86,
    state::{Interrupts, Mailbox, Signals, State, Tsc, Wires, bits, signal},
    sys::{cpuid::CpuidTable, events, mmu},
};
use accel::{
    AccelCpu, TcgAccel, VcpuThread,
    tcg::{Counters, Exit, Kick, Vcpu},
    tcg_accel::{run_vcpu, turn},
};
use hw_core::{Clocks, Core, Cpu, Request, ShutdownCause, cpu::interrupt};
use parking_lot::{Mutex, MutexGuard};
use qom::{Error, Handle, Level, Ref, Result};
use std::sync::Arc;

/// Frequency of the time stamp counter in Hz: a tick is a nanosecond of virtual time.
pub const TSC_HZ: u64 = 1_000_000_000;

/// IA32_TSC_DEADLINE.
const TSC_DEADLINE: u32 = 0x6e0;

/// The engine's vCPU of a CPU object. Clones name the same.
#[derive(Clone)]
pub struct X86Vcpu(Arc<Inner>);
struct Inner {
    vcpu: Mutex<Vcpu<X86>>,
    signals: Arc<Signals>,
    mailbox: Arc<Mailbox>,
    kick: Kick,
}

impl X86Vcpu {
    /// For a CPU that has its number, address spaces and (if any) local APIC, under the accelerator `tcg`. It is at
    /// power-on; the bootstrap processor is to be [`reset`](Self::reset) as such.
    ///
    /// # Errors
    /// The CPU has no number yet.
    pub fn new(cpu: &Cpu, tcg: &TcgAccel, cpuid: Arc<CpuidTable>) -> Result<X86Vcpu> {
        let index = cpu.index().ok_or_else(|| Error::generic("the CPU has no number yet"))?;
        let mut state = State::new(cpuid);
        let (signals, mailbox) = (state.signals.clone(), state.mailbox.clone());
        signals.connect(Box::new(Lines(cpu.this())));
        state.interrupts = Some(Arc::new(Controllers(cpu.this())));
        state.tsc = Some(Arc::new(Virtual(Core::of(cpu).clocks.clone())));
        let vcpu = tcg.vcpu::<X86>(cpu, state);
        let this = X86Vcpu(Arc::new(Inner { kick: vcpu.kick(), vcpu: Mutex::new(vcpu), signals, mailbox }));
        this.reset(index == 0);
        tcg.attach(index, Arc::new(this.clone()));
        Ok(this)
    }
    /// The engine's vCPU. Waits while guest code runs: for work on the vCPU's thread, or when it is parked.
    pub fn lock(&self) -> MutexGuard<'_, Vcpu<X86>> {
        self.0.vcpu.lock()
    }
    /// Hardware reset, parked. Application processors (`!bsp`) then wait for a start-up IPI.
    pub fn reset(&self, bsp: bool) {
        let mut v = self.lock();
        let (hot, state) = v.parts();
        events::power_on(state, hot, bsp);
        let pc = state.linear_ip(0xfff0);
        v.set_pc(pc);
        v.with_cpu(|c| c.set_view(0));
    }
    /// A halted vCPU has something to do. On the vCPU's thread outside of guest code, or parked.
    pub fn has_work(&self) -> bool {
        let pending = self.0.signals.get();
        let mut v = self.lock();
        let s = v.state();
        let wakes = if s.wait_for_sipi {
            signal::INIT | signal::SIPI
        } else if s.eflags & bits::IF != 0 {
            signal::INIT | signal::NMI | signal::SMI | signal::MCE | signal::HARD
        } else {
            signal::INIT | signal::NMI | signal::SMI | signal::MCE
        };
        pending & wakes != 0
    }
    /// The registers on show while a port access is handled, on the vCPU's thread.
    pub fn mailbox(&self) -> &Mailbox {
        &self.0.mailbox
    }
    /// The A20 gate: `on` lets address bit 20 through.
    pub fn set_a20(&self, on: bool) {
        if on {
            self.0.signals.clear(signal::A20)
        } else {
            self.0.signals.set(signal::A20)
        }
        self.0.kick.service()
    }
    /// Physical address of a linear one, without side effects. Parked.
    pub fn translate(&self, la: u64) -> Option<u64> {
        self.lock().with_cpu(|c| {
            let (state, mut phys) = c.state_and_phys();
            mmu::translate(state, &mut phys, la)
        })
    }
    /// Linear address of the next instruction. Parked.
    pub fn pc(&self) -> u64 {
        self.lock().pc()
    }
}
impl VcpuThread for X86Vcpu {
    fn counters(&self) -> Counters {
        self.lock().counters()
    }
    fn run(&self, cpu: &Ref<Cpu>) {
        run_vcpu(cpu, &self.0.vcpu, |_, exit| ended(cpu, exit))
    }
    fn turn(&self, cpu: &Ref<Cpu>, budget: u64) -> (Exit, u64) {
        turn(cpu, &self.0.vcpu, budget, |_, exit| ended(cpu, exit))
    }
}
/// What becomes of an exit of the architecture's own.
fn ended(cpu: &Ref<Cpu>, exit: Exit) {
    if let Exit::Target(code) = exit {
        // A shutdown resets the machine, as the chipsets of PCs do.
        let request = if code == EXIT_SHUTDOWN {
            Request::Reset(ShutdownCause::GuestReset)
        } else {
            Request::InternalError(format!("vCPU stopped with code {code}"))
        };
        Core::of(&**cpu).requests.post(request);
        cpu.stop_self();
    }
}

/// The CPU object's pending work, as the CPU's signals.
struct Lines(Handle<Cpu>);
/// Bits of both sides. (The level of HARD is the interrupt controllers' business.)
const EDGES: [(u32, u32); 5] = [
    (interrupt::NMI, signal::NMI),
    (interrupt::SMI, signal::SMI),
    (interrupt::INIT, signal::INIT),
    (interrupt::SIPI, signal::SIPI),
    (interrupt::MCE, signal::MCE),
];
impl Wires for Lines {
    fn pending(&self) -> u32 {
        let Some(cpu) = self.0.upgrade() else { return 0 };
        let bits = cpu.pending();
        if bits == 0 {
            return 0;
        }
        let hard = if bits & interrupt::HARD != 0 { signal::HARD } else { 0 };
        EDGES.iter().fold(hard, |s, (from, to)| if bits & from != 0 { s | to } else { s })
    }
    fn clear(&self, bits: u32) {
        let mask = EDGES.iter().fold(0, |m, (to, from)| if bits & from != 0 { m | to } else { m });
        if mask != 0
            && let Some(cpu) = self.0.upgrade()
        {
            cpu.clear_interrupt(mask)
        }
    }
    fn sipi_vector(&self) -> Option<u8> {
        self.0.upgrade()?.local_apic()?.take_sipi()
    }
}

/// Local APIC and PIC.
struct Controllers(Handle<Cpu>);
impl Controllers {
    fn apic<R>(&self, f: impl FnOnce(&dyn hw_core::LocalApic) -> R) -> Option<R> {
        Some(f(&**self.0.upgrade()?.local_apic()?))
    }
}
impl Interrupts for Controllers {
    fn acknowledge(&self) -> Option<u8> {
        let cpu = self.0.upgrade()?;
        if let Some(apic) = cpu.local_apic() {
            if let Some(v) = apic.acknowledge() {
                return Some(v);
            }
            if !apic.pic_pending() {
                return None;
            }
        }
        let core = Core::of(&*cpu);
        core.pic_acknowledge(&mut core.lock())
    }
    fn tpr(&self) -> u8 {
        self.apic(|a| a.cr8()).unwrap_or(0)
    }
    fn set_tpr(&self, v: u8) {
        self.apic(|a| a.set_cr8(v));
    }
    fn base(&self) -> u64 {
        // Without an APIC the bootstrap flag still tells the processors apart.
        let bsp = self.0.upgrade().and_then(|c| c.index()) == Some(0);
        self.apic(|a| a.base()).unwrap_or(if bsp { 1 << 8 } else { 0 })
    }
    fn set_base(&self, v: u64) -> bool {
        self.apic(|a| a.set_base(v).is_ok()).unwrap_or(false)
    }
    fn read_msr(&self, msr: u32) -> Option<u64> {
        self.apic(|a| match msr {
            TSC_DEADLINE => Some(a.tsc_deadline()),
            _ => a.read_msr(msr.checked_sub(0x800)?).ok(),
        })?
    }
    fn write_msr(&self, msr: u32, v: u64) -> bool {
        let Some(index) = msr.checked_sub(0x800) else { return false };
        self.apic(|a| a.write_msr(index, v).is_ok()).unwrap_or(false)
    }
    fn set_deadline(&self, v: u64, ticks: u64) {
        self.apic(|a| a.set_tsc_deadline(v, ticks));
    }
    fn ferr(&self, level: bool) -> bool {
        let Some(cpu) = self.0.upgrade() else { return false };
        let core = Core::of(&*cpu);
        let ignored = core.ferr(&mut core.lock(), level);
        ignored == Some(false)
    }
    fn init(&self) {
        self.apic(|a| a.init());
    }
}

/// The virtual clock as time stamp counter.
struct Virtual(Arc<Clocks>);
impl Tsc for Virtual {
    fn now(&self) -> u64 {
        self.0.now()
    }
}

/// Type `tcg-accel-x86_64-cpu`: the accelerator's hooks for x86 CPUs.
#[derive(qom::Object)]
#[qom(name = "tcg-accel-x86_64-cpu", parent = AccelCpu)]
pub struct TcgX86Cpu {
    parent: AccelCpu,
}
