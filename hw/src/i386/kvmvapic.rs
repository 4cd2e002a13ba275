//! Ports 0x7e and 0x7f, type `kvmvapic`. The option ROM that patches guest code to keep the task priority in memory is not
//! part of this project: its commands (8 and 16 bits wide) are refused with a log line; a 32-bit write makes the writing vCPU look at its
//! local APIC, as the ROM's code expects. Reads give all ones.

use hw_core::cpu::interrupt;
use hw_core::{DeviceClass, DeviceImpl, Locked, MemoryRegion, Ops, Sizes, SysBusDevice};
use qom::{Object, Result};

const PORT: u64 = 0x7e;

/// Type `kvmvapic`.
#[derive(Object)]
#[qom(name = "kvmvapic", parent = SysBusDevice, methods(DeviceClass))]
pub struct KvmVapic {
    parent: SysBusDevice,
}

impl KvmVapic {
    fn read(&self, _m: &mut Locked, _off: u64, _size: u32) -> u64 {
        u64::MAX
    }

    fn write(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        if size < 4 {
            tracing::debug!(target: "unimp", off, val, "kvmvapic: no option ROM, command ignored");
            return;
        }
        if let Some(cpu) = m.cpu().and_then(|n| self.core().cpus.get(n)) {
            cpu.interrupt(interrupt::POLL);
        }
    }
}

impl DeviceImpl for KvmVapic {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let ops = Ops { read: Self::read, write: Self::write, imp: Sizes::new(1, 4), ..Ops::default() };
        let region = MemoryRegion::io(self, "kvmvapic", 2, ops);
        self.init_ioport(&region);
        self.map_io(m, PORT, &region);
        Ok(())
    }
}
