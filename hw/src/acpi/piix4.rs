//! PIIX4's power management function, type `PIIX4_PM`: ACPI registers, APM port, SMBus, PCI and CPU hot-plug.
//! Source: Intel 82371AB (PIIX4, 290562) §7.1-7.3. Registers: [`super::pm_regs`], [`super::cpu_hotplug_regs`],
//! [`super::pci_hotplug_regs`], [`crate::i2c::pm_smbus_regs`]. Not modelled: device monitors, GPI/GPO, the slave SMBus
//! interface; their configuration registers read back.

use super::{
    AcpiDevice,
    cpu_hotplug_regs::{self, CpuHotplugRegs},
    pci_hotplug_regs::{self, PciHotplugRegs},
    pm_regs::{PmRegs, pm1},
};
use crate::i2c::pm_smbus_regs::{BLOCK_MAX, Protocol, SmbusRegs, Transfer};
use hw_core::{
    Device, DeviceClass, DeviceImpl, HotplugHandler, IrqOut, Locked, MachineCell, MemoryRegion, Ops, Phase, Request,
    ShutdownCause, Sizes, Timer, WakeupReason,
    i2c::{I2cBus, I2cMaster, Nack},
    memory::Endian,
    pci::{PciBus, PciDevice, PciDeviceClass, PciImpl},
};
use parking_lot::RwLock;
use qom::{Error, Link, Object, Prop, Property, Ref, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Configuration registers.
const PMBA: usize = 0x40;
const PMREGMISC: usize = 0x80;
const SMBBA: usize = 0x90;
const SMBHSTCFG: usize = 0xd2;
const DEVACTB: usize = 0x58;
/// DEVACTB bit 25: a write to APMC raises SMI.
const APMC_EN: u32 = 1 << 25;
const GPE_BASE: u64 = 0xafe0;
const PCI_HOTPLUG_BASE: u64 = 0xae00;
const CPU_HOTPLUG_BASE: u64 = 0xaf00;
/// SMI command port and its values.
const APM_PORT: u64 = 0xb2;
const ACPI_ENABLE: u8 = 0xf1;
const ACPI_DISABLE: u8 = 0xf0;
/// GPE0 bits.
const GPE_PCI_HOTPLUG: u16 = 1 << 1;
const GPE_CPU_HOTPLUG: u16 = 1 << 2;

/// Advanced power management ports. Kept over a reset, as in QEMU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApmRegs {
    apmc: u8,
    apms: u8,
}

/// Type `PIIX4_PM`.
#[derive(Object)]
#[qom(name = "PIIX4_PM", parent = PciDevice, methods(DeviceClass, PciDeviceClass), class_init = Piix4Pm::class_init,
    instance_init = Piix4Pm::instance_init,
    interfaces(dyn HotplugHandler, dyn AcpiDevice, "conventional-pci-device"))]
pub struct Piix4Pm {
    parent: PciDevice,
    #[property(name = "smb_io_base", default = 0)]
    smb_io_base: Prop<u32>,
    #[property(name = "disable_s3", default = 0)]
    disable_s3: Prop<u8>,
    #[property(name = "disable_s4", default = 0)]
    disable_s4: Prop<u8>,
    #[property(name = "s4_val", default = 2)]
    s4_val: Prop<u8>,
    /// The bus whose slots it plugs.
    #[property(link)]
    bus: Link<PciBus>,
    #[property(default = true)]
    acpi_pci_hotplug_with_bridge_support: Prop<bool>,
    #[property(default = true)]
    acpi_root_pci_hotplug: Prop<bool>,
    #[property(default = true)]
    memory_hotplug_support: Prop<bool>,
    #[property(default = false)]
    smm_compat: Prop<bool>,
    #[property(default = false)]
    smm_enabled: Prop<bool>,
    #[property(default = false)]
    x_not_migrate_acpi_index: Prop<bool>,
    #[state]
    pm: MachineCell<PmRegs>,
    #[state]
    apm: MachineCell<ApmRegs>,
    #[state]
    cpus: MachineCell<CpuHotplugRegs>,
    #[state]
    slots: MachineCell<PciHotplugRegs>,
    #[state]
    smbus: MachineCell<SmbusRegs>,
    i2c: I2cMaster,
    sci: IrqOut,
    smi: IrqOut,
    timer: Timer,
    windows: RwLock<Option<Windows>>,
}

struct Windows {
    pm: MemoryRegion,
    smbus: MemoryRegion,
}

impl Piix4Pm {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.user_creatable = false;
        d.hotpluggable = false;
        d.desc = "PM";
        let p = c.edit::<PciDeviceClass>();
        (p.vendor_id, p.device_id, p.revision, p.class_id) = (0x8086, 0x7113, 0x03, 0x0680);
    }

    fn instance_init(&self) -> Result<()> {
        self.gpio_out("", &self.sci);
        self.gpio_out("smi-irq", &self.smi);
        self.timer.init(self, Self::update);
        Ok(())
    }

    /// What firmware tables are made from, as properties of the realized device.
    fn show_constants(&self) -> Result<()> {
        let word = |name: &'static str, v: u16| Property::computed::<u16>(name).getter(move |_: &Piix4Pm| Ok(v));
        let byte = |name: &'static str, v: u8| Property::computed::<u8>(name).getter(move |_: &Piix4Pm| Ok(v));
        let long = |name: &'static str, v: u32| Property::computed::<u32>(name).getter(move |_: &Piix4Pm| Ok(v));
        let pm_base = Property::computed::<u32>("pm_io_base").getter(|d: &Piix4Pm| {
            let window = d.windows.read().as_ref().map(|w| w.pm.clone());
            Ok(window.filter(MemoryRegion::is_enabled).map_or(0, |w| w.addr() as u32))
        });
        for property in [
            long("gpe0_blk", GPE_BASE as u32),
            long("gpe0_blk_len", 4),
            byte("acpi_enable_cmd", ACPI_ENABLE),
            byte("acpi_disable_cmd", ACPI_DISABLE),
            word("sci_int", 9),
            word("acpi-pcihp-io-base", PCI_HOTPLUG_BASE as u16),
            word("acpi-pcihp-io-len", 0x18),
            pm_base,
        ] {
            self.add_property(property)?;
        }
        Ok(())
    }

    /// Drives the SCI and waits for the PM timer.
    fn update(&self, m: &mut Locked) {
        let now = m.clock.now();
        let e = self.pm.rw(m).effect(now);
        self.sci.set(m, e.sci);
        self.timer.arm(m, e.timer_at);
    }

    /// The power button was pressed.
    pub fn power_button(&self, m: &mut Locked) {
        self.pm.rw(m).raise(pm1::PWRBTN);
        self.update(m);
    }

    /// The machine wakes up from S3.
    pub fn wake(&self, m: &mut Locked, reason: WakeupReason) {
        let pm = self.pm.rw(m);
        pm.raise(pm1::WAK);
        match reason {
            WakeupReason::Rtc => pm.raise(pm1::RTC),
            WakeupReason::PmTimer => pm.raise(pm1::TMR),
            WakeupReason::None | WakeupReason::Other => {}
        }
        self.update(m);
    }

    /// Describes the processors: APIC id and presence of each possible one.
    pub fn set_cpus(&self, m: &mut Locked, cpus: Vec<(u64, bool)>) {
        *self.cpus.rw(m) = CpuHotplugRegs::new(cpus);
    }

    /// Files `etc/system-states`: which sleep states there are and their SLP_TYP values.
    pub fn system_states(&self) -> [u8; 6] {
        let state = |off: u8, typ: u8| if off != 0 { 0 } else { 0x80 | typ };
        [0x80, 0, 0, state(self.disable_s3.get(), 1), state(self.disable_s4.get(), self.s4_val.get()), 0x80]
    }

    fn read_evt(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        let now = m.clock.now();
        self.pm.rw(m).read_evt(off, now).into()
    }

    fn write_evt(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        let now = m.clock.now();
        self.pm.rw(m).write_evt(off, val as u16, now);
        self.update(m);
    }

    fn read_cnt(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        (self.pm.ro(m).read_cnt() >> (8 * (off & 1))).into()
    }

    fn write_cnt(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        let pm = self.pm.rw(m);
        // A write to the second byte leaves the first alone; one to the first is the whole register's.
        let val = if off == 0 { val as u16 } else { (val as u16) << 8 | pm.read_cnt() & 0xff };
        match pm.write_cnt(val) {
            None => {}
            Some(0) => m.request(Request::Shutdown(ShutdownCause::GuestShutdown)),
            Some(1) => m.request(Request::Suspend),
            Some(typ) if typ == self.s4_val.get() => {
                self.core().emit("SUSPEND_DISK", json!({}));
                m.request(Request::Shutdown(ShutdownCause::GuestShutdown));
            }
            Some(_) => {}
        }
    }

    fn read_tmr(&self, m: &mut Locked, _off: u64, _size: u32) -> u64 {
        PmRegs::timer(m.clock.now()).into()
    }

    fn read_gpe(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        self.pm.rw(m).read_gpe(off).into()
    }

    fn write_gpe(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        self.pm.rw(m).write_gpe(off, val as u8);
        self.update(m);
    }

    fn read_apm(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        let apm = self.apm.ro(m);
        if off & 1 == 0 { apm.apmc.into() } else { apm.apms.into() }
    }

    fn write_apm(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        if off & 1 != 0 {
            self.apm.rw(m).apms = val as u8;
            return;
        }
        self.apm.rw(m).apmc = val as u8;
        match val as u8 {
            ACPI_ENABLE => self.pm.rw(m).set_sci_enable(true),
            ACPI_DISABLE => self.pm.rw(m).set_sci_enable(false),
            _ => {}
        }
        self.update(m);
        if self.config().ro(m).long(DEVACTB) & APMC_EN != 0 {
            self.smi.raise(m);
        }
    }

    fn read_cpus(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        self.cpus.rw(m).read(off).into()
    }

    fn write_cpus(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        match self.cpus.rw(m).write(off, val as u32) {
            cpu_hotplug_regs::Action::None => {}
            cpu_hotplug_regs::Action::Ost(index) => self.report_ost(m, index),
            cpu_hotplug_regs::Action::Eject(index) => self.eject_cpu(m, index),
        }
    }

    /// The OS said by `_OST` what became of a processor's coming or going.
    fn report_ost(&self, m: &mut Locked, index: usize) {
        if let Some(info) = self.cpus.ro(m).slots().get(index).map(|slot| self.ost_info(index, slot)) {
            self.core().emit("ACPI_DEVICE_OST", json!({ "info": info }));
        }
    }

    /// What the OS said last of a processor.
    fn ost_info(&self, index: usize, slot: &cpu_hotplug_regs::CpuSlot) -> Value {
        let cpu = self.cpu_of(slot.arch_id);
        let (source, status) = slot.ost;
        let mut info = json!({"slot": index.to_string(), "slot-type": "CPU", "source": source, "status": status});
        let id = cpu.as_ref().and_then(|c| c.cast::<Device>()).and_then(Device::id);
        if let (Some(id), Some(info)) = (id, info.as_object_mut()) {
            info.insert("device".into(), id.into());
        }
        info
    }

    /// The processor with this APIC id, if it is there.
    fn cpu_of(&self, arch_id: u64) -> Option<qom::ObjRef> {
        let machine = hw_core::Machine::of(self.scope())?;
        machine.possible_cpus().into_iter().find(|c| c.arch_id == arch_id)?.cpu
    }

    /// Carries a transfer out; nothing if no device answered.
    fn transfer(bus: &I2cBus, m: &mut Locked, t: &Transfer) -> Option<Vec<u8>> {
        let done = |r: std::result::Result<(), Nack>| r.ok().map(|()| Vec::new());
        match (&t.protocol, t.read) {
            (Protocol::Quick, read) => done(bus.quick(m, t.address, read)),
            (Protocol::Byte(_), true) => bus.receive_byte(m, t.address).ok().map(|b| vec![b]),
            (Protocol::Byte(b), false) => done(bus.send_byte(m, t.address, *b)),
            (Protocol::ByteData(c, _), true) => bus.read_byte(m, t.address, *c).ok().map(|b| vec![b]),
            (Protocol::ByteData(c, b), false) => done(bus.write_byte(m, t.address, *c, *b)),
            (Protocol::WordData(c, _), true) => bus.read_word(m, t.address, *c).ok().map(|w| w.to_le_bytes().to_vec()),
            (Protocol::WordData(c, w), false) => done(bus.write_word(m, t.address, *c, *w)),
            (Protocol::Block(c, _), true) => bus.read_block(m, t.address, Some(*c), BLOCK_MAX, true).ok(),
            (Protocol::Block(c, data), false) => done(bus.write_block(m, t.address, *c, data, true)),
        }
    }

    /// The SMBus.
    ///
    /// # Errors
    /// Before realize.
    pub fn smbus(&self) -> Result<Ref<I2cBus>> {
        self.i2c.bus()
    }

    fn read_smbus(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        let (v, transfer) = self.smbus.rw(m).read(off);
        self.carry_out(m, transfer);
        v.into()
    }

    fn write_smbus(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        let transfer = self.smbus.rw(m).write(off, val as u8);
        self.carry_out(m, transfer);
    }

    fn carry_out(&self, m: &mut Locked, transfer: Option<Transfer>) {
        if let Some(t) = transfer {
            let bus = self.i2c.bus().ok();
            let answer = bus.and_then(|bus| Self::transfer(&bus, m, &t));
            self.smbus.rw(m).finish(answer, &t.protocol);
        }
    }

    fn eject_cpu(&self, m: &mut Locked, index: usize) {
        let arch_id = self.cpus.ro(m).slots().get(index).map(|s| s.arch_id);
        let Some(arch_id) = arch_id else { return };
        if let Some(cpu) = self.cpu_of(arch_id)
            && let Some(device) = cpu.cast::<Device>()
        {
            device.remove(m);
        }
        self.cpus.rw(m).unplugged(arch_id);
    }

    fn read_slots(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        self.slots.rw(m).read(off).into()
    }

    fn write_slots(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        match self.slots.rw(m).write(off, val as u32) {
            pci_hotplug_regs::Action::None => {}
            pci_hotplug_regs::Action::Lookup(slot) => {
                let card = self.pci_bus().and_then(|b| b.functions().into_iter().find(|f| f.slot() == slot));
                let index = card.map_or(0, |d| d.acpi_index());
                self.slots.rw(m).set_acpi_index(index);
            }
            pci_hotplug_regs::Action::Eject(slots) => {
                (0..32u8).filter(|s| slots >> s & 1 != 0).for_each(|s| self.eject_slot(m, s));
            }
        }
    }

    /// The guest let go of a card: all hot-pluggable functions of the slot leave.
    fn eject_slot(&self, m: &mut Locked, slot: u8) {
        let Some(bus) = self.pci_bus() else { return };
        let functions: Vec<_> =
            bus.functions().into_iter().filter(|f| f.slot() == slot && f.is_hotpluggable()).collect();
        for f in functions {
            f.remove(m);
        }
        self.slots.rw(m).unplugged(slot);
    }

    /// Tells firmware by the device resource registers which ports there are: parallel, serial 1 and 2. §7.1.12-7.1.15.
    fn note_ports(&self, m: &mut Locked) {
        let view = self.core().io.view();
        let there = |port: u64| view.find(port).is_some_and(|r| r.region.name() != "io");
        let bit = |on: bool, b: u8| if on { b } else { 0 };
        let (lpt, com1, com2) = (there(0x378), there(0x3f8), there(0x2f8));
        let c = self.config().rw(m);
        c.set_byte(0x5f, 0x10 | bit(lpt, 0x80));
        c.set_byte(0x63, 0x60);
        c.set_byte(0x67, bit(com1, 0x08) | bit(com2, 0x90));
    }

    /// Maps the two windows as their base registers say.
    fn map_windows(&self, m: &mut Locked) {
        let c = self.config().ro(m);
        let (pm, pm_on) = (u64::from(c.long(PMBA) & 0xffc0), c.byte(PMREGMISC) & 1 != 0);
        let (smb, smb_on) = (u64::from(c.long(SMBBA) & 0xffc0), c.byte(SMBHSTCFG) & 1 != 0);
        if let Some(w) = &*self.windows.read() {
            m.memory_transaction(|m| {
                for (window, at, on) in [(&w.pm, pm, pm_on), (&w.smbus, smb, smb_on)] {
                    window.set_enabled(m, on);
                    window.set_address(m, at);
                }
            });
        }
    }

    /// Slots whose cards the guest may be asked to let go.
    fn removable_slots(&self) -> u32 {
        let functions = self.pci_bus().map(|b| b.functions()).unwrap_or_default();
        functions.iter().filter(|f| !f.is_hotpluggable()).fold(u32::MAX, |mask, f| mask & !(1 << f.slot()))
    }
}

impl PciImpl for Piix4Pm {
    fn config_read(&self, m: &mut Locked, at: u32, len: u32) -> u32 {
        self.default_config_read(m, at, len)
    }

    fn config_write(&self, m: &mut Locked, at: u32, len: u32, val: u32) {
        self.default_config_write(m, at, len, val);
        self.map_windows(m);
    }
}

impl HotplugHandler for Piix4Pm {
    fn pre_plug(&self, _m: &mut Locked, _dev: &Device) -> Result<()> {
        Ok(())
    }

    fn plug(&self, m: &mut Locked, dev: &Device) -> Result<()> {
        let object = dev.object();
        let removable = self.removable_slots();
        if let Some(pci) = object.cast::<PciDevice>() {
            let slots = self.slots.rw(m);
            slots.set_removable(removable);
            if dev.is_hotplugged() {
                slots.plugged(pci.slot());
                self.pm.rw(m).raise_gpe(GPE_PCI_HOTPLUG);
                self.update(m);
            }
        } else if let Ok(id) = object.get("apic-id") {
            let arch_id = id.as_u64().unwrap_or(0);
            if self.cpus.rw(m).plugged(arch_id, dev.is_hotplugged()) {
                self.pm.rw(m).raise_gpe(GPE_CPU_HOTPLUG);
                self.update(m);
            }
        }
        Ok(())
    }

    fn asks_guest(&self, _dev: &Device) -> bool {
        true
    }

    fn unplug_request(&self, m: &mut Locked, dev: &Device) -> Result<()> {
        let object = dev.object();
        if let Some(pci) = object.cast::<PciDevice>() {
            self.slots.rw(m).request_removal(pci.slot());
            self.pm.rw(m).raise_gpe(GPE_PCI_HOTPLUG);
        } else if let Ok(id) = object.get("apic-id") {
            self.cpus.rw(m).request_removal(id.as_u64().unwrap_or(0));
            self.pm.rw(m).raise_gpe(GPE_CPU_HOTPLUG);
        } else {
            return Err(Error::generic("acpi: device unplug request for not supported device"));
        }
        dev.set_unplug_pending(true);
        self.update(m);
        Ok(())
    }
}

impl AcpiDevice for Piix4Pm {
    fn ospm_status(&self, m: &mut Locked) -> Vec<Value> {
        let slots = self.cpus.ro(m).slots().iter().enumerate();
        slots.map(|(index, slot)| self.ost_info(index, slot)).collect()
    }
}

impl DeviceImpl for Piix4Pm {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let bus = self.pci_bus().ok_or("PIIX4_PM is not on a PCI bus")?;
        let io = bus.io();
        let byte = Sizes::new(1, 1);
        let pm = MemoryRegion::container(self, "piix4-pm", 64);
        let evt = Ops {
            read: Self::read_evt,
            write: Self::write_evt,
            valid: Sizes::new(1, 2),
            imp: Sizes::new(2, 2),
            ..Ops::default()
        };
        let cnt = Ops {
            read: Self::read_cnt,
            write: Self::write_cnt,
            valid: Sizes::new(1, 2),
            imp: Sizes::new(2, 2),
            ..Ops::default()
        };
        let tmr = Ops { read: Self::read_tmr, valid: Sizes::new(1, 4), imp: Sizes::new(4, 4), ..Ops::default() };
        pm.add_subregion(m, 0, &MemoryRegion::io(self, "acpi-evt", 4, evt));
        pm.add_subregion(m, 4, &MemoryRegion::io(self, "acpi-cnt", 2, cnt));
        pm.add_subregion(m, 8, &MemoryRegion::io(self, "acpi-tmr", 4, tmr));
        pm.set_enabled(m, false);
        io.add_subregion(m, 0, &pm);

        let apm = Ops { read: Self::read_apm, write: Self::write_apm, imp: byte, ..Ops::default() };
        io.add_subregion(m, APM_PORT, &MemoryRegion::io(self, "apm-io", 2, apm));
        let smb = Ops { read: Self::read_smbus, write: Self::write_smbus, imp: byte, ..Ops::default() };
        let smbus = MemoryRegion::io(self, "pm-smbus", 64, smb);
        smbus.set_enabled(m, self.smb_io_base.get() != 0);
        io.add_subregion(m, u64::from(self.smb_io_base.get()), &smbus);
        *self.windows.write() = Some(Windows { pm, smbus });
        self.i2c.set(&I2cBus::create(self, "i2c")?);

        let gpe = Ops { read: Self::read_gpe, write: Self::write_gpe, imp: byte, ..Ops::default() };
        io.add_subregion(m, GPE_BASE, &MemoryRegion::io(self, "acpi-gpe0", 4, gpe));
        let words = Sizes::new(1, 4);
        let slots = Ops {
            read: Self::read_slots,
            write: Self::write_slots,
            valid: Sizes::new(4, 4),
            imp: Sizes::new(4, 4),
            endian: Endian::Little,
        };
        io.add_subregion(m, PCI_HOTPLUG_BASE, &MemoryRegion::io(self, "acpi-pci-hotplug", 0x18, slots));
        let cpus =
            Ops { read: Self::read_cpus, write: Self::write_cpus, valid: words, imp: words, endian: Endian::Little };
        io.add_subregion(m, CPU_HOTPLUG_BASE, &MemoryRegion::io(self, "acpi-cpu-hotplug", 0x0c, cpus));

        self.set_intx_pin(m, 1);
        let base = self.smb_io_base.get();
        let c = self.config().rw(m);
        c.set_byte(0x06, 0x80);
        c.set_byte(0x07, 0x02);
        c.set_long(SMBBA, base | 1);
        c.set_byte(SMBHSTCFG, 0x09);
        self.core().events.powerdown.add_for(self, |d: &Piix4Pm, m, ()| d.power_button(m));
        self.core().events.wakeup.add_for(self, |d: &Piix4Pm, m, reason| d.wake(m, *reason));
        self.show_constants()?;
        self.bus.set(Some(Ref::object(&bus)))?;
        if self.acpi_root_pci_hotplug.get() {
            bus.set_hotplug_handler(Some(&self.object()))?;
            // Number of the bus in the slot registers (BSEL); the firmware tables use it.
            bus.add_property(Property::computed::<u32>("acpi-pcihp-bsel").getter(|_: &PciBus| Ok(0)))?;
        }
        Ok(())
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        match phase {
            Phase::Enter => {
                *self.pm.rw(m) = PmRegs::default();
                *self.smbus.rw(m) = SmbusRegs::default();
                self.cpus.rw(m).reset();
                self.slots.rw(m).reset();
                let (base, smm) = (self.smb_io_base.get(), self.smm_enabled.get());
                let c = self.config().rw(m);
                (DEVACTB..DEVACTB + 4).for_each(|i| c.set_byte(i, 0));
                c.set_byte(PMBA, 0x01); // (as on QEMU, the upper byte stays)
                c.set_byte(PMREGMISC, 0);
                c.set_long(SMBBA, base | 1);
                c.set_byte(SMBHSTCFG, 0x09);
                if !smm {
                    c.set_byte(DEVACTB + 3, 0x02); // SMM is not available: APMC SMIs appear set up already
                }
            }
            Phase::Hold => {
                self.map_windows(m);
                self.note_ports(m);
                let removable = self.removable_slots();
                self.slots.rw(m).set_removable(removable);
                self.update(m);
            }
            Phase::Exit => {}
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        let known = hw_core::Machine::of(self.scope()).map_or(0, |machine| machine.possible_cpus().len());
        self.cpus.ro(m).check(known).map_err(Error::generic)?;
        self.map_windows(m);
        self.update(m);
        self.parent_post_load(m)
    }
}
