//! Memory, interrupt lines, clocks, qdev, buses, machine and CPU base classes: what every device stands on.
//!
//! The one core of a machine is [`Core`]; whoever holds its lock has [`&mut Locked`](Locked), which opens the registers of
//! devices. `memory::ram` (guest RAM), `local_time` and
//! `heap` (calls into the C library) are the modules with `unsafe`.

#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod accel;
pub mod clock;
pub mod config;
pub mod core;
pub mod cpu;
pub mod event_loop;
pub mod events;
pub mod heap;
pub mod hostmem;
pub mod i2c;
pub mod iothread;
pub mod irq;
pub mod isa;
pub mod loader;
pub mod local_time;
mod locked;
pub mod machine;
pub mod memory;
pub mod opts;
pub mod pci;
pub mod qdev;
pub mod request;
pub mod smp;
pub mod sysbus;
mod timer;
mod vm;

pub use clock::{ClockType, Clocks, SECOND, Timer};
pub use core::Core;
pub use cpu::{Cpu, CpuClass, Cpus, LocalApic};
pub use i2c::{I2cBus, I2cImpl, I2cSlave, I2cSlaveClass, SmbusClass, SmbusDevice, SmbusImpl};
pub use irq::{IrqOut, Line};
pub use isa::{IsaBus, IsaDevice};
pub use locked::{CoreGuard, Locked, MachineCell, SharedCell};
pub use machine::{Machine, MachineClass};
pub use memory::{AddressSpace, FreeOps, MemTxError, MemoryRegion, Ops, Sizes};
pub use pci::{BarKind, Devfn, PciBus, PciDevice, PciDeviceClass, PciHostBridge, PciImpl};
pub use qdev::{
    Bus, BusClass, BusImpl, Category, Device, DeviceAdd, DeviceClass, DeviceImpl, HotplugHandler, Phase, device_add,
    device_del, load, reset_all, save,
};
pub use request::{Request, RunState, ShutdownCause, WakeupReason};
pub use sysbus::SysBusDevice;
pub use vm::Vm;
