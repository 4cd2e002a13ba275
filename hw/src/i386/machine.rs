//! The machine types `x86-machine`, `generic-pc-machine` and the versions of `pc`, with their properties.

use super::{fpu_error::FpuErrorLatch, pc, topology, versions::VERSIONS};
use crate::nvram::fw_cfg::FwCfg;
use hw_core::machine::AbsentProperty;
use hw_core::{
    Device, HotplugHandler, Locked, Machine, MachineCell, MachineClass,
    machine::{CompatProp, CpuSlot},
};
use parking_lot::RwLock;
use qom::{Class, Error, Kind, ObjRef, Object, OnOffAuto, Prop, PropEnum, Property, Ref, Result, Size, TypeInfo};
use serde_json::json;

// Machines that can be sent an NMI. A name only, so far.
qom::interface!("nmi");

/// Type `x86-machine`.
#[derive(Object)]
#[qom(name = "x86-machine", parent = Machine, abstract, interfaces("nmi"))]
pub struct X86Machine {
    parent: Machine,
    /// ACPI tables and power management.
    #[property(desc = "Enable ACPI")]
    pub acpi: Prop<OnOffAuto>,
    /// System management mode.
    #[property(desc = "Enable SMM")]
    pub smm: Prop<OnOffAuto>,
    /// The interval timer.
    #[property(desc = "Enable i8254 PIT")]
    pub pit: Prop<OnOffAuto>,
    /// The 8259 pair.
    #[property(desc = "Enable i8259 PIC")]
    pub pic: Prop<OnOffAuto>,
    /// OEMID of the ACPI tables.
    #[property(type = "string", default = "BOCHS ".to_owned(), desc = "Override the default value of field OEMID in ACPI table header")]
    pub x_oem_id: Prop<String>,
    /// OEM table id of the ACPI tables.
    #[property(type = "string", default = "BXPC    ".to_owned(), desc = "Override the default value of field OEM Table ID in ACPI table header")]
    pub x_oem_table_id: Prop<String>,
    /// Rate of bus locks a second a guest may take; 0 does not limit it.
    #[property(type = "uint64_t", desc = "Set the ratelimit for the bus locks acquired in VMs")]
    pub bus_lock_ratelimit: Prop<u64>,
}

/// Southbridges of the `pc` machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PropEnum)]
#[qom(name = "PCSouthBridgeOption")]
pub enum SouthBridge {
    /// The one it was sold with.
    #[default]
    #[qom(name = "PIIX3")]
    Piix3,
    /// Its successor.
    #[qom(name = "piix4-isa")]
    Piix4,
}

/// Type `generic-pc-machine`.
#[derive(Object)]
#[qom(name = "generic-pc-machine", parent = X86Machine, abstract, class_init = PcMachine::class_init,
    interfaces(dyn HotplugHandler))]
pub struct PcMachine {
    parent: X86Machine,
    /// Most RAM below 4 GiB.
    #[property(default = Size(0xe000_0000), desc = "Maximum ram below the 4G boundary (32bit boundary)")]
    pub max_ram_below_4g: Prop<Size>,
    /// Most firmware below 4 GiB.
    #[property(default = Size(8 << 20), desc = "Maximum combined firmware size")]
    pub max_fw_size: Prop<Size>,
    /// HPET.
    #[property(default = true, desc = "Enable/disable high precision event timer emulation")]
    pub hpet: Prop<bool>,
    /// VMware's port.
    #[property(default = OnOffAuto::Auto, desc = "Enable vmport (pc & q35)")]
    pub vmport: Prop<OnOffAuto>,
    /// SMBus.
    #[property(default = true, desc = "Enable/disable system management bus")]
    pub smbus: Prop<bool>,
    /// SATA.
    #[property(default = true, desc = "Enable/disable Serial ATA bus")]
    pub sata: Prop<bool>,
    /// Keyboard controller.
    #[property(default = true, desc = "Enable/disable Intel 8042 PS/2 controller emulation")]
    pub i8042: Prop<bool>,
    /// Firmware looks for the boot signature on floppies.
    #[property(default = true)]
    pub fd_bootchk: Prop<bool>,
    /// IOMMU bypass of the root bus.
    #[property]
    pub default_bus_bypass_iommu: Prop<bool>,
    /// Entry point of the SMBIOS tables.
    #[property(default = "auto".to_owned(), type = "str", desc = "SMBIOS Entry Point type [32, 64]")]
    pub smbios_entry_point_type: Prop<String>,
    /// Back end of the speaker's sound.
    #[property(type = "str")]
    pub pcspk_audiodev: Prop<String>,
    /// Southbridge.
    #[property(desc = "Use a different south bridge than PIIX3")]
    pub x_south_bridge: Prop<SouthBridge>,
    /// FERR# and IGNNE#.
    #[state]
    pub(super) fpu_error: MachineCell<FpuErrorLatch>,
    /// What the board made, once it is built.
    pub(super) board: RwLock<pc::Board>,
}

/// Parts of the reference that nobody can configure here.
const ABSENT: [AbsentProperty; 3] = [
    AbsentProperty { name: "cxl-fmw", ty: "CXLFixedMemoryWindow", desc: "", why: "CXL memory is not supported" },
    AbsentProperty { name: "nvdimm-persistence", ty: "string", desc: "", why: "NVDIMMs are not supported" },
    AbsentProperty { name: "sgx-epc", ty: "SgxEPC", desc: "", why: "SGX is not supported" },
];

/// Features of the reference that are switched off and stay so.
const OFF: [(&str, &str); 3] = [
    ("cxl", "CXL memory is not supported"),
    ("hmat", "heterogeneous memory attributes are not supported"),
    ("nvdimm", "NVDIMMs are not supported"),
];

impl PcMachine {
    fn class_init(c: &mut Class) {
        let mc = c.edit::<MachineClass>();
        mc.max_cpus = 255;
        mc.default_cpu_type = Some("qemu64-x86_64-cpu");
        mc.cpu_base_type = Some("x86_64-cpu");
        mc.default_ram_id = Some("pc.ram");
        mc.default_boot_order = Some("cad");
        mc.has_hotpluggable_cpus = true;
        mc.smp.dies = true;
        mc.smp.modules = true;
        mc.smp.caches = true;
        mc.hotplug_handler = |machine, dev| {
            let cpu = hw_core::Cpu::of(&*dev.object()).is_some();
            cpu.then(|| machine.object())
        };
        mc.possible_cpus = possible_cpus;
        c.set_default("firmware", "bios-256k.bin");
        for (name, why) in OFF {
            c.property(Property::computed::<bool>(name).getter(|_: &PcMachine| Ok(false)).setter(
                move |_: &PcMachine, on: bool| {
                    if on { Err(Error::generic(why)) } else { Ok(()) }
                },
            ));
        }
        ABSENT.iter().for_each(|p| p.add(c));
    }

    /// Links to parts of the board, once there is one.
    pub(super) fn show_board(&self) -> Result<()> {
        let link = |name: &'static str, ty: &'static str, get: fn(&pc::Board) -> Option<ObjRef>| {
            Property::new(name, format!("link<{ty}>")).reader(move |o| {
                let target = PcMachine::of(o).and_then(|p| get(&p.board.read()));
                Ok(target.map_or_else(String::new, |t| t.path()).into())
            })
        };
        self.add_property(link("acpi-device", "hotplug-handler", |b| b.acpi_device.upgrade().map(Ref::into_object)))?;
        self.add_property(link("smram", "memory-region", |b| b.smram.as_ref().and_then(hw_core::MemoryRegion::node)))?;
        Ok(())
    }

    /// The machine of a scope, if it is a PC.
    pub fn of_machine(machine: &Machine) -> Option<Ref<PcMachine>> {
        Ref::new(machine.object())
    }

    /// The configuration device, once the board is built.
    pub fn fw_cfg(&self) -> Option<Ref<FwCfg>> {
        self.board.read().fw_cfg.upgrade()
    }

    /// ACPI is on unless the user switched it off.
    pub fn has_acpi(&self) -> bool {
        self.acpi.get() != OnOffAuto::Off
    }

    /// SMM is on unless the user switched it off.
    pub fn has_smm(&self) -> bool {
        self.smm.get() != OnOffAuto::Off
    }
}

fn possible_cpus(machine: &Machine) -> Vec<CpuSlot> {
    let cpu_type = machine.cpu_type().unwrap_or_default();
    let mut slots = topology::possible(&machine.topology(), &cpu_type);
    for cpu in machine.core().cpus.list() {
        let id = cpu.object().get("apic-id").ok().and_then(|v| v.as_u64());
        if let Some(slot) = slots.iter_mut().find(|s| Some(s.arch_id) == id) {
            slot.cpu = Some(cpu.object());
        }
    }
    slots
}

impl HotplugHandler for PcMachine {
    /// Gives a CPU its place: its APIC id from the topology properties, or the other way round.
    fn pre_plug(&self, _m: &mut Locked, dev: &Device) -> Result<()> {
        let cpu = dev.object();
        let t = self.topology();
        let slots = possible_cpus(self);
        let id = cpu.get("apic-id")?.as_u64().filter(|id| *id != u64::from(u32::MAX));
        let given = |name: &str| cpu.get(name).ok().and_then(|v| v.as_i64()).filter(|n| *n >= 0);
        let fits = |s: &CpuSlot| s.props.iter().all(|(name, n)| given(name).is_none_or(|g| g == *n));
        let slot = match id {
            Some(id) => slots.iter().find(|s| s.arch_id == id),
            None => slots.iter().find(|s| fits(s) && s.cpu.is_none()),
        };
        let slot = slot.ok_or_else(|| {
            Error::generic(format!("Invalid CPU: the machine has room for {} CPUs and none fits", t.max_cpus))
        })?;
        if slot.cpu.as_ref().is_some_and(|c| c.path() != cpu.path()) {
            return Err(Error::generic(format!("CPU with APIC ID {} exists", slot.arch_id)));
        }
        cpu.set("apic-id", json!(slot.arch_id))?;
        for (name, n) in &slot.props {
            cpu.set(name, json!(*n))?;
        }
        Ok(())
    }

    fn plug(&self, m: &mut Locked, dev: &Device) -> Result<()> {
        let acpi = self.board.read().acpi_device.clone();
        if let Some(pm) = acpi.upgrade() {
            pm.plug(m, dev)?;
        }
        if dev.is_hotplugged() {
            pc::cpu_count_changed(self, m);
        }
        Ok(())
    }

    fn asks_guest(&self, _dev: &Device) -> bool {
        true
    }

    fn unplug_request(&self, m: &mut Locked, dev: &Device) -> Result<()> {
        let acpi = self.board.read().acpi_device.clone();
        let pm = acpi.upgrade().ok_or_else(|| Error::generic("CPU hot unplug not supported without ACPI"))?;
        if dev.object().get("apic-id")?.as_u64() == Some(0) {
            return Err(Error::generic("Boot CPU is unpluggable"));
        }
        pm.unplug_request(m, dev)
    }

    fn unplug(&self, m: &mut Locked, dev: &Device) -> Result<()> {
        dev.remove(m);
        pc::cpu_count_changed(self, m);
        Ok(())
    }
}

qom::register!(|r| {
    for (i, v) in VERSIONS.iter().enumerate() {
        let info = TypeInfo::of::<PcMachine>(format!("pc-i440fx-{}-machine", v.number)).parent("generic-pc-machine");
        r.add(info.class_init(move |c| {
            let mc = c.edit::<MachineClass>();
            mc.desc = "Standard PC (i440FX + PIIX, 1996)".to_owned();
            mc.init = pc::init;
            mc.default_display = Some("std");
            mc.default_nic = Some("e1000");
            mc.deprecation_reason =
                v.deprecated.then_some("old and not attractive anymore - use a newer version instead");
            if i == 0 {
                (mc.alias, mc.is_default) = (Some("pc"), true);
            }
            // Newer versions' properties first: an older one overrides. Devices that do not exist here are passed over.
            let upto = VERSIONS.get(..=i).unwrap_or_default();
            mc.compat_props = upto
                .iter()
                .flat_map(|v| v.compat)
                .map(|&(driver, property, value)| CompatProp { driver, property, value, optional: true })
                .collect();
        }));
    }
});
