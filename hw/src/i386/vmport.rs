//! VMware's backdoor port 5658H, type `vmport`: a command in ECX, answers in the registers.
//! Source: VMware's open-vm-tools, `backdoor_def.h` (numbers and registers); QEMU's device for which commands there are.
//!
//! Not modelled: GETHZ answers "not known", as QEMU does under TCG; a machine without vCPUs that run code (qtest) reads all ones.

use hw_core::{Cpu, DeviceClass, DeviceImpl, IsaDevice, Locked, Machine, MemoryRegion, Ops, Sizes};
use parking_lot::RwLock;
use qom::{Object, Prop, Ref, Result};
use std::sync::Arc;

use super::firmware_tables::uuid_bytes;

const PORT: u64 = 0x5658;
/// In EAX of every command.
const MAGIC: u32 = 0x564d_5868;

/// Command numbers, in CL.
pub mod cmd {
    /// Version and product.
    pub const GETVERSION: u8 = 10;
    /// UUID of the machine.
    pub const GETBIOSUUID: u8 = 19;
    /// Memory, bytes.
    pub const GETRAMSIZE: u8 = 20;
    /// Words of the mouse.
    pub const ABSPOINTER_DATA: u8 = 39;
    /// Status of the mouse.
    pub const ABSPOINTER_STATUS: u8 = 40;
    /// Command to the mouse.
    pub const ABSPOINTER_COMMAND: u8 = 41;
    /// Rates of TSC and APIC.
    pub const GETHZ: u8 = 45;
    /// What the vCPU can do.
    pub const GET_VCPU_INFO: u8 = 68;
}

/// Bit of GET_VCPU_INFO: x2APIC works without interrupt remapping.
const LEGACY_X2APIC: u32 = 1 << 3;
/// EBX of GETRAMSIZE.
const RAM_MAGIC: u32 = 0x1177;

/// The registers a command sees, 32 bits each; those it changes are written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regs {
    /// The magic number, then the answer.
    pub eax: u32,
    /// Argument and answer.
    pub ebx: u32,
    /// Command and answer.
    pub ecx: u32,
    /// Answer.
    pub edx: u32,
    /// Answer.
    pub esi: u32,
    /// Answer.
    pub edi: u32,
}

/// Numbers of those registers in the CPU's register file.
const NUMBERS: [usize; 6] = [0, 3, 1, 2, 6, 7];

impl Regs {
    fn read(cpu: &Cpu) -> Self {
        let [eax, ebx, ecx, edx, esi, edi] = NUMBERS.map(|n| (cpu.cpu_class().read_reg)(cpu, n) as u32);
        Regs { eax, ebx, ecx, edx, esi, edi }
    }
    fn array(&self) -> [u32; 6] {
        [self.eax, self.ebx, self.ecx, self.edx, self.esi, self.edi]
    }
}

/// What another device does when its command comes.
pub type Command = Arc<dyn Fn(&mut Locked, &mut Regs) + Send + Sync>;

/// Type `vmport`.
#[derive(Object)]
#[qom(name = "vmport", parent = IsaDevice, methods(DeviceClass), class_init = Vmport::class_init)]
pub struct Vmport {
    parent: IsaDevice,
    #[property(default = true)]
    x_read_set_eax: Prop<bool>,
    #[property(default = true)]
    x_signal_unsupported_cmd: Prop<bool>,
    #[property(default = true)]
    x_report_vmx_type: Prop<bool>,
    #[property(name = "x-cmds-v2", default = true)]
    cmds_v2: Prop<bool>,
    #[property(default = 6)]
    vmware_vmx_version: Prop<u32>,
    #[property(default = 2)]
    vmware_vmx_type: Prop<u8>,
    commands: RwLock<Vec<(u8, Command)>>,
}

impl Vmport {
    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().user_creatable = false;
    }

    /// Has `f` answer command `number`, instead of who answered it before.
    pub fn register(&self, number: u8, f: Command) {
        let mut all = self.commands.write();
        all.retain(|(n, _)| *n != number);
        all.push((number, f));
    }

    /// Nobody answers command `number` any more.
    pub fn unregister(&self, number: u8) {
        self.commands.write().retain(|(n, _)| *n != number);
    }

    /// One of its own commands; false for one it has not.
    fn own(&self, cpu: &Cpu, r: &mut Regs) -> bool {
        let v2 = self.cmds_v2.get();
        match r.ecx as u8 {
            cmd::GETVERSION => {
                r.eax = self.vmware_vmx_version.get();
                r.ebx = MAGIC;
                if self.x_report_vmx_type.get() {
                    r.ecx = self.vmware_vmx_type.get().into();
                }
            }
            cmd::GETRAMSIZE => {
                r.eax = Machine::of(self.scope()).map_or(0, |m| m.ram_size() as u32);
                r.ebx = RAM_MAGIC;
            }
            cmd::GETBIOSUUID if v2 => {
                let uuid = self.core().board().uuid.as_deref().and_then(uuid_bytes).unwrap_or_default();
                let word = |n: usize| {
                    let bytes = uuid.chunks_exact(4).nth(n).and_then(|b| b.try_into().ok());
                    u32::from_le_bytes(bytes.unwrap_or_default())
                };
                (r.eax, r.ebx, r.ecx, r.edx) = (word(0), word(1), word(2), word(3));
            }
            // EAX keeps the magic number.
            cmd::GETHZ if v2 => r.ebx = u32::MAX,
            cmd::GET_VCPU_INFO if v2 => {
                let x2apic = cpu.object().get("x2apic").is_ok_and(|v| v == true);
                r.eax = if x2apic { LEGACY_X2APIC } else { 0 };
            }
            _ => return false,
        }
        true
    }

    fn run(&self, m: &mut Locked, r: &mut Regs, cpu: &Cpu) -> bool {
        if r.eax != MAGIC {
            return false;
        }
        let registered = self.commands.read().iter().find(|(n, _)| *n == r.ecx as u8).map(|(_, f)| f.clone());
        match registered {
            Some(f) => f(m, r),
            None if self.own(cpu, r) => {}
            None => {
                tracing::debug!(target: "unimp", "vmport: unknown command {:#x}", r.ecx as u8);
                return false;
            }
        }
        true
    }

    /// Runs the command in the registers of the accessing vCPU; what EAX becomes.
    fn command(&self, m: &mut Locked, set_eax: bool) -> Option<u32> {
        let cpu: Ref<Cpu> = self.core().cpus.get(m.cpu()?)?;
        let before = Regs::read(&cpu);
        let mut r = before;
        if !self.run(m, &mut r, &cpu) && self.x_signal_unsupported_cmd.get() {
            r.eax = u32::MAX;
        }
        let (was, now) = (before.array(), r.array());
        for (i, n) in NUMBERS.into_iter().enumerate() {
            let (was, now) = (was.get(i), now.get(i));
            if (i != 0 && was != now) || (i == 0 && set_eax) {
                (cpu.cpu_class().write_reg)(&cpu, n, now.copied().unwrap_or(0).into());
            }
        }
        Some(r.eax)
    }

    fn read(&self, m: &mut Locked, _off: u64, _size: u32) -> u64 {
        self.command(m, self.x_read_set_eax.get()).map_or(u64::MAX, u64::from)
    }

    fn write(&self, m: &mut Locked, _off: u64, _size: u32, _val: u64) {
        _ = self.command(m, true);
    }
}

impl DeviceImpl for Vmport {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let ops = Ops { read: Self::read, write: Self::write, imp: Sizes::new(4, 4), ..Ops::default() };
        self.map_io(m, PORT, &MemoryRegion::io(self, "vmport", 1, ops))
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.parent_unrealize(m);
    }
}
