//! What the CPU class answers from a vCPU's registers, and the registers in a snapshot.
//!
//! The registers are the accelerator's ([`X86Vcpu`]). Its thread holds their mutex while guest code runs, so what is here
//! waits for a parked vCPU, or runs as work on the vCPU's own thread. Under an accelerator without registers (qtest) the
//! answers are those of a CPU that never runs.

use super::dump;
use super::object::X86Cpu;
use crate::X86;
use crate::state::Regs;
use crate::vcpu::X86Vcpu;
use accel::tcg::Vcpu;
use hw_core::cpu::CpuClass;
use hw_core::qdev::{ApplyTo, StateClass};
use hw_core::{Cpu, Locked};
use qom::{Class, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Runs `f` with a CPU as an x86 one.
fn with<R>(cpu: &Cpu, f: impl FnOnce(&X86Cpu) -> R) -> R {
    f(qom::of_class::<X86Cpu>(&*cpu.object()))
}

/// IA32_APIC_BASE: the bootstrap processor.
const BSP: u64 = 1 << 8;

impl X86Cpu {
    /// The accelerator's registers, once realized under one that has any.
    pub fn vcpu(&self) -> Option<X86Vcpu> {
        self.vcpu.read().clone()
    }
    /// Runs `f` with the registers of a parked vCPU.
    fn with_vcpu<R>(&self, f: impl FnOnce(&mut Vcpu<X86>) -> R) -> Option<R> {
        let vcpu = self.vcpu()?;
        let mut v = vcpu.lock();
        Some(f(&mut v))
    }
    /// Whether it is the one that starts first.
    fn is_bsp(&self) -> bool {
        self.local_apic().map_or(self.index() == Some(0), |a| a.base() & BSP != 0)
    }
}

/// Reset of the vCPU's own state, after its local APIC's; parked.
pub(super) fn reset(cpu: &X86Cpu) {
    let bsp = cpu.is_bsp();
    if tracing::enabled!(target: "cpu_reset", tracing::Level::TRACE) {
        let state = cpu.with_vcpu(dump::registers).unwrap_or_default();
        tracing::trace!(target: "cpu_reset", "CPU Reset (CPU {})\n{}", cpu.index().unwrap_or(0), state.trim_end());
    }
    if let Some(v) = cpu.vcpu() {
        v.reset(bsp);
    }
    cpu.set_halted(!bsp || cpu.starts_powered_off());
}

/// Enters what an x86 CPU does into the class of CPUs.
pub(super) fn class_init(c: &mut CpuClass) {
    c.has_work = |c| with(c, |x| x.vcpu().map_or(c.pending() != 0, |v| v.has_work()));
    c.dump_state = |c| {
        let text = with(c, |c| c.with_vcpu(dump::registers));
        text.unwrap_or_else(|| "This accelerator has no registers\n".to_owned())
    };
    c.translate = |c, la| with(c, |c| c.vcpu().map_or(Some(la), |v| v.translate(la)));
    c.arch_id = |c| with(c, |c| c.apic_id().into());
    c.set_a20 = |c, on| {
        if let Some(v) = with(c, X86Cpu::vcpu) {
            v.set_a20(on)
        }
    };
    c.read_reg = |c, n| with(c, |c| c.vcpu().map_or(0, |v| v.mailbox().read(n)));
    c.write_reg = |c, n, val| {
        if let Some(v) = with(c, X86Cpu::vcpu) {
            v.mailbox().write(n, val)
        }
    };
    c.reset = |c, _| with(c, reset);
    c.pc = |c| with(c, |c| c.vcpu().map_or(0, |v| v.pc()));
}

/// A parked vCPU as data.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Saved {
    /// Linear.
    pc: u64,
    gpr: [u64; 16],
    /// Low and high half of each.
    xmm: [[u64; 2]; 16],
    mxcsr: u32,
    rflags: u32,
    regs: Regs,
    /// Events of the CPU base class.
    pending: u32,
    halted: bool,
}

fn save(cpu: &X86Cpu, _: &Locked) -> Result<Value> {
    let saved = cpu.with_vcpu(|v| {
        let pc = v.pc();
        let (hot, s) = v.parts();
        let half = |v: u128| [v as u64, (v >> 64) as u64];
        Saved {
            pc,
            gpr: std::array::from_fn(|i| hot.regs[i]),
            xmm: std::array::from_fn(|i| half(hot.x[i])),
            mxcsr: hot.fpcr as u32,
            rflags: s.flags(hot),
            regs: s.r.clone(),
            pending: cpu.pending(),
            halted: cpu.is_halted(),
        }
    });
    serde_json::to_value(saved).map_err(|e| Error::generic(e.to_string()))
}

fn load(v: &Value) -> Result<ApplyTo<X86Cpu>> {
    let saved: Option<Saved> = Deserialize::deserialize(v).map_err(|e| Error::generic(e.to_string()))?;
    if saved.as_ref().is_some_and(|s| s.regs.cpl > 3) {
        return Err(Error::generic("impossible registers"));
    }
    Ok(Box::new(move |cpu, _| {
        let Some(saved) = saved else { return };
        let (a20, smm) = (saved.regs.a20_mask >> 20 & 1 != 0, saved.regs.smm);
        cpu.with_vcpu(|v| {
            let (hot, s) = v.parts();
            hot.regs[..16].copy_from_slice(&saved.gpr);
            for (to, [low, high]) in hot.x.iter_mut().zip(saved.xmm) {
                *to = u128::from(low) | u128::from(high) << 64;
            }
            hot.fpcr = saved.mxcsr.into();
            s.r = saved.regs;
            s.set_flags(hot, saved.rflags, u32::MAX);
            s.sync(hot);
            v.set_pc(saved.pc);
            v.with_cpu(|c| c.set_view(smm.into()));
            v.flush();
        });
        if let Some(v) = cpu.vcpu() {
            v.set_a20(a20);
        }
        cpu.clear_interrupt(!0);
        cpu.post_interrupt(saved.pending);
        cpu.set_halted(saved.halted);
    }))
}

/// Enters the registers into what a snapshot keeps.
pub(super) fn state_init(c: &mut Class) {
    StateClass::add_custom::<X86Cpu>(c, "registers", save, load);
}
