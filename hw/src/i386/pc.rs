//! The board of the `pc` machine: i440FX, PIIX3 and what a PC has on its ISA bus, in the order QEMU makes them.
//! Source: the composition of QEMU's `pc-i440fx` (tree, memory map and interrupts as read out of 11.1.3).

use super::{
    cmos, drives, firmware_tables, fpu_error,
    gsi::{GSIS, Gsi},
    kernel_loader,
    machine::{PcMachine, SouthBridge},
    memory::{self, Split},
    nics,
    topology::Place,
};
use crate::{
    acpi::piix4::Piix4Pm,
    block::fdc::IsaFdc,
    i2c::{smbus_eeprom::SmbusEeprom, spd},
    intc::{apic::cpu_interrupt_line, i8259::i8259_init, ioapic::Ioapic},
    isa::piix3::Piix,
    nvram::fw_cfg::FwCfg,
    pci_host::i440fx::{I440Fx, I440FxHost},
    rtc::mc146818rtc::Mc146818Rtc,
};
use hw_core::{
    Core, Device, IsaBus, Line, Locked, Machine, MemoryRegion, Ops, Sizes, SysBusDevice,
    config::Vga,
    pci::{PciBus, PciDevice},
};
use qom::{Error, Handle, Level, OnOffAuto, Ref, Result};
use serde_json::json;

/// What the board made and others look for.
#[derive(Default)]
pub struct Board {
    /// Where hot-plug and the power button go.
    pub acpi_device: Handle<Piix4Pm>,
    /// Configuration device.
    pub fw_cfg: Handle<FwCfg>,
    /// Real-time clock with the CMOS RAM.
    pub rtc: Handle<Mc146818Rtc>,
    /// The root bus.
    pub pci: Handle<PciBus>,
    /// The ISA bus.
    pub isa: Handle<IsaBus>,
    /// The host bridge, for its windows.
    pub host: Handle<I440FxHost>,
    /// Memory that only SMM sees.
    pub smram: Option<MemoryRegion>,
    /// Input of the interrupt controllers for x87 errors.
    pub irq13: Option<Line>,
    /// RAM below and above the hole.
    pub split: Option<Split>,
}

/// The POST code port, which the board itself answers.
const POST_PORT: u64 = 0x80;

/// EEPROMs on the SMBus: 0x50 to 0x57.
const EEPROM_BASE: u8 = 0x50;
const EEPROMS: u8 = 8;

fn strong<T: qom::Kind>(object: &qom::ObjRef) -> Result<Ref<T>> {
    Ref::new(object.clone()).ok_or_else(|| Error::generic(format!("'{}' is not a '{}'", object.type_name(), T::NAME)))
}

fn weak<T: qom::Kind>(r: &Ref<T>) -> Handle<T> {
    Handle::new(Ref::object(r)).unwrap_or_default()
}

/// Builds the board.
///
/// # Errors
/// What a part says of its properties, missing firmware, a kernel that cannot be loaded.
pub fn init(machine: &Machine, m: &mut Locked) -> Result<()> {
    let pc = PcMachine::of_machine(machine).ok_or("not a PC")?;
    check_options(&pc)?;
    let core = machine.core();
    let unattached = machine.unattached()?;
    let split = Split::new(machine.ram_size(), pc.max_ram_below_4g.get().0);
    pc.board.write().split = Some(split);

    pc.show_board()?;
    create_cpus(&pc, m)?;
    let (system, io, ram) = (core.system_memory(), core.system_io(), machine.ram()?);
    let pci_memory = MemoryRegion::container(&*unattached, "pci", u64::MAX);
    system.add_subregion_overlap(m, 0, &pci_memory, -1);

    let host = create_host(&pc, m, &system, &io, &pci_memory, &ram, split)?;
    memory::map_ram(&*unattached, m, &system, &ram, split);
    let firmware = machine.firmware.get();
    memory::load_firmware(&*unattached, core, m, &pci_memory, &firmware, pc.max_fw_size.get().0)?;
    let fw_cfg = create_fw_cfg(&pc, m)?;
    if !machine.kernel.get().is_empty() {
        kernel_loader::load(machine, &fw_cfg, split.below)?;
    }

    let gsi = Gsi::default();
    let lines = gsi.lines();
    let isa = create_south_bridge(&pc, m, &host, &lines)?;
    drives::create(machine.scope(), m)?;
    if pc.pic.get() != OnOffAuto::Off {
        let (_, inputs) = i8259_init(m, &isa, cpu_interrupt_line(machine.scope()))?;
        gsi.connect_pic(inputs);
    }
    let ioapic: Ref<Ioapic> = machine.scope().object_new_as("ioapic")?;
    host.object().add_child("ioapic", Ref::object(&ioapic))?;
    ioapic.realize_sysbus(m)?;
    ioapic.mmio_map(m, 0, 0xfec0_0000)?;
    gsi.connect_ioapic((0..GSIS).filter_map(|n| ioapic.gpio_in_line("", n)).collect());

    // Reads give all ones.
    let post: Ops<PcMachine> = Ops { read: |_, _, _, _| u64::MAX, imp: Sizes::new(1, 1), ..Ops::default() };
    io.add_subregion(m, POST_PORT, &MemoryRegion::io(&*pc, "ioport80", 1, post));
    fpu_error::create(&pc, m, &io, first(&lines, 13)?);
    create_display(&pc, m, &host)?;
    create_timers(&pc, m, &isa, &lines)?;
    create_isa_devices(&pc, m, &isa)?;
    nics::create(machine.scope(), m, &host.root_bus()?, &isa)?;
    finish_south_bridge(&pc, m)?;
    set_cmos(&pc, m, split)?;
    let tables = pc.this();
    core.events.machine_ready.add(move |m, ()| {
        tables.with(|pc| ready(pc, m));
    });
    Ok(())
}

fn check_options(pc: &PcMachine) -> Result<()> {
    if pc.x_south_bridge.get() != SouthBridge::Piix3 {
        return Err(Error::generic("x-south-bridge=piix4-isa is not supported: the pc machine has a PIIX3"));
    }
    // As on QEMU, the machine then shows what auto meant.
    if pc.vmport.get() == OnOffAuto::Auto {
        pc.vmport.set(if pc.i8042.get() { OnOffAuto::On } else { OnOffAuto::Off });
    }
    if pc.vmport.get() == OnOffAuto::On && !pc.i8042.get() {
        return Err(Error::generic("vmport requires the i8042 controller to be enabled"));
    }
    if pc.smbios_entry_point_type.get() == "64" {
        return Err(Error::generic("smbios-entry-point-type=64 is not supported: use 32 or auto"));
    }
    Ok(())
}

fn create_cpus(pc: &PcMachine, m: &mut Locked) -> Result<()> {
    let (t, cpu_type) = (pc.topology(), pc.cpu_type().ok_or("no CPU type")?);
    for index in 0..t.cpus {
        let cpu: Ref<Device> = pc.scope().object_new_as(&cpu_type)?;
        cpu.set("apic-id", json!(Place::of(&t, index).apic_id(&t)))?;
        cpu.qdev_realize(m)?;
    }
    Ok(())
}

fn create_host(
    pc: &PcMachine,
    m: &mut Locked,
    system: &MemoryRegion,
    io: &MemoryRegion,
    pci: &MemoryRegion,
    ram: &MemoryRegion,
    split: Split,
) -> Result<Ref<I440FxHost>> {
    let host: Ref<I440FxHost> = pc.scope().object_new_as("i440FX-pcihost")?;
    pc.object().add_child("i440fx", Ref::object(&host))?;
    for (name, region) in [("ram-mem", ram), ("pci-mem", pci), ("system-mem", system), ("io-mem", io)] {
        let node = region.node().ok_or("a region without a node")?;
        host.set_str(name, &node.path())?;
    }
    host.set_str("pci-type", "i440FX")?;
    host.set("below-4g-mem-size", json!(split.below))?;
    host.set("above-4g-mem-size", json!(split.above))?;
    host.realize_sysbus(m)?;
    let bus = host.root_bus()?;
    let function = bus.find(0).ok_or("the host bridge has no function 0")?;
    let smram = function.object().cast::<I440Fx>().and_then(I440Fx::smram);
    let mut board = pc.board.write();
    (board.pci, board.host, board.smram) = (weak(&bus), weak(&host), smram);
    drop(board);
    Ok(host)
}

fn create_fw_cfg(pc: &PcMachine, m: &mut Locked) -> Result<Ref<FwCfg>> {
    let object = pc.scope().object_new("fw_cfg_io")?;
    pc.object().add_child("fw_cfg", &object)?;
    let fw_cfg: Ref<FwCfg> = strong(&object)?;
    firmware_tables::set_items(pc, &fw_cfg)?;
    fw_cfg.realize_sysbus(m)?;
    pc.board.write().fw_cfg = weak(&fw_cfg);
    Ok(fw_cfg)
}

fn create_south_bridge(pc: &PcMachine, m: &mut Locked, host: &I440FxHost, lines: &[Line]) -> Result<Ref<IsaBus>> {
    let bus = host.root_bus()?;
    let function: Ref<PciDevice> = bus.new_function("PIIX3", -1, true)?;
    let piix: Ref<Piix> = strong(&function.object())?;
    for (name, on) in [
        ("has-usb", pc.usb.get()),
        ("has-pic", false),
        ("has-pit", false),
        ("has-acpi", pc.has_acpi()),
        ("smm-enabled", pc.has_smm()),
    ] {
        piix.set(name, json!(on))?;
    }
    piix.set("smb_io_base", json!(0xb100))?;
    for (n, line) in lines.iter().enumerate().take(16) {
        piix.connect("isa-irqs", n, line.clone())?;
    }
    bus.realize_function(m, &function)?;
    let isa = piix.isa_bus()?;
    let rtc: Ref<Mc146818Rtc> = strong(&piix.object().child("rtc").ok_or("PIIX3 without its RTC")?)?;
    pc.object().add_alias("rtc-time", Ref::object(&rtc), "date")?;
    let mut board = pc.board.write();
    (board.isa, board.rtc) = (weak(&isa), weak(&rtc));
    if let Some(pm) = piix.object().child("pm") {
        board.acpi_device = weak(&strong(&pm)?);
    }
    drop(board);
    Ok(isa)
}

fn create_display(pc: &PcMachine, m: &mut Locked, host: &I440FxHost) -> Result<()> {
    match pc.core().board().vga {
        Some(Vga::Std) => host.root_bus()?.create_function(m, "VGA", -1).map(drop),
        None => Ok(()),
    }
}

fn create_timers(pc: &PcMachine, m: &mut Locked, isa: &Ref<IsaBus>, lines: &[Line]) -> Result<()> {
    let scope = pc.scope();
    let hpet = if pc.hpet.get() { Some(scope.object_new_as::<SysBusDevice>("hpet")?) } else { None };
    let rtc = pc.board.read().rtc.upgrade().ok_or("no RTC")?;
    if let Some(hpet) = &hpet {
        // Timers may use pin 2 of the I/O APIC only; versions before 11 pins differ by compat properties.
        hpet.set("hpet-intcap", json!(4))?;
        hpet.realize_sysbus(m)?;
        hpet.mmio_map(m, 0, 0xfed0_0000)?;
        for (n, line) in lines.iter().enumerate() {
            hpet.connect_irq(n, line.clone())?;
        }
    }
    if pc.pit.get() != OnOffAuto::Off {
        let pit: Ref<Device> = scope.object_new_as("isa-pit")?;
        pit.set("iobase", json!(0x40))?;
        realize_isa(m, isa, &pit)?;
        match hpet.as_ref().and_then(|h| h.gpio_in_line("", 0)) {
            // Behind the HPET: its legacy replacement switches the PIT off and takes the RTC's place.
            Some(line) => {
                let enable = pit.gpio_in_line("", 0).ok_or("the PIT has no input")?;
                if let Some(h) = &hpet {
                    h.connect("", 0, enable)?;
                }
                pit.connect("", 0, line)?;
            }
            None => pit.connect("", 0, first(lines, 0)?)?,
        }
        let speaker: Ref<Device> = scope.object_new_as("isa-pcspk")?;
        speaker.set_str("pit", &pit.path())?;
        let audiodev = pc.pcspk_audiodev.get();
        if !audiodev.is_empty() {
            speaker.set_str("audiodev", &audiodev)?;
        }
        realize_isa(m, isa, &speaker)?;
    }
    let rtc_line = match hpet.as_ref().and_then(|h| h.gpio_in_line("", 1)) {
        Some(line) => line,
        None => first(lines, 8)?,
    };
    rtc.connect("", 0, rtc_line)
}

fn first(lines: &[Line], n: usize) -> Result<Line> {
    lines.get(n).cloned().ok_or_else(|| Error::generic(format!("no interrupt {n}")))
}

fn realize_isa(m: &mut Locked, isa: &Ref<IsaBus>, device: &Device) -> Result<()> {
    let bus: Ref<hw_core::Bus> = Ref::new(Ref::object(isa).clone()).ok_or("not a bus")?;
    device.realize_on(m, &bus)
}

fn create_isa_devices(pc: &PcMachine, m: &mut Locked, isa: &Ref<IsaBus>) -> Result<()> {
    let (scope, board) = (pc.scope(), pc.core().board());
    let create = |type_name: &str| scope.object_new_as::<Device>(type_name);
    for (type_name, ports) in [("isa-serial", &board.serial), ("isa-parallel", &board.parallel)] {
        for (index, chardev) in ports.iter().enumerate() {
            if let Some(id) = chardev {
                let port = create(type_name)?;
                port.set("index", json!(index as u64))?;
                port.set_str("chardev", id)?;
                realize_isa(m, isa, &port)?;
            }
        }
    }
    if let Some(id) = &board.debugcon {
        let port = create("isa-debugcon")?;
        port.set("iobase", json!(0xe9))?;
        port.set_str("chardev", id)?;
        realize_isa(m, isa, &port)?;
    }
    let fdc = create("isa-fdc")?;
    realize_isa(m, isa, &fdc)?;
    if let Some(fdc) = fdc.object().cast::<IsaFdc>() {
        fdc.create_drives(m)?;
    }
    if !pc.i8042.get() {
        // A machine without it has no way to switch A20 at all, as on QEMU.
        return Ok(());
    }
    let a20 = a20_lines(pc);
    let dev = create("i8042")?;
    realize_isa(m, isa, &dev)?;
    dev.connect("a20", 0, first(&a20, 0)?)?;
    if pc.vmport.get() == OnOffAuto::On {
        realize_isa(m, isa, &*create("vmport")?)?;
        let mouse = create("vmmouse")?;
        mouse.set_str("i8042", &dev.path())?;
        realize_isa(m, isa, &mouse)?;
    }
    let port92 = create("port92")?;
    realize_isa(m, isa, &port92)?;
    port92.connect("a20", 0, first(&a20, 1)?)
}

/// Two inputs, of which the later change wins, as on QEMU: the gate's level for all CPUs.
fn a20_lines(pc: &PcMachine) -> Vec<Line> {
    let scope = pc.scope().clone();
    let core = std::sync::Arc::downgrade(&scope.ext_arc::<Core>().unwrap_or_else(Core::new));
    let input = |_| {
        let core = core.clone();
        Line::new(move |_, level| {
            if let Some(core) = core.upgrade() {
                core.cpus.list().iter().for_each(|cpu| cpu.set_a20(level));
            }
        })
    };
    (0..2).map(input).collect()
}

fn finish_south_bridge(pc: &PcMachine, m: &mut Locked) -> Result<()> {
    let pm = pc.board.read().acpi_device.upgrade();
    let Some(pm) = pm else { return Ok(()) };
    let core = std::sync::Arc::downgrade(&pc.scope().ext_arc::<Core>().unwrap_or_else(Core::new));
    // SMIs of the chipset go to the boot processor.
    let smi = Line::new(move |_, level| {
        let cpu = core.upgrade().and_then(|c| c.cpus.get(0));
        if let Some(cpu) = cpu.filter(|_| level) {
            cpu.interrupt(hw_core::cpu::interrupt::SMI);
        }
    });
    pm.connect("smi-irq", 0, smi)?;
    let sci = pc.board.read().isa.upgrade().and_then(|isa| isa.irq(9));
    pm.connect("", 0, sci.ok_or("no interrupt 9")?)?;
    if pc.smbus.get() {
        let bus = pm.smbus()?;
        for n in 0..EEPROMS {
            let slave = bus.create_slave(m, "smbus-eeprom", EEPROM_BASE + n)?;
            // The first describes the RAM, the others are blank.
            if n == 0
                && let Some(eeprom) = slave.object().cast::<SmbusEeprom>()
            {
                eeprom.set_contents(m, &spd::sdr(pc.ram_size()));
            }
        }
    }
    let slots = pc.possible_cpus();
    pm.set_cpus(m, slots.iter().map(|s| (s.arch_id, s.cpu.is_some())).collect());
    Ok(())
}

fn set_cmos(pc: &PcMachine, m: &mut Locked, split: Split) -> Result<()> {
    let rtc = pc.board.read().rtc.upgrade().ok_or("no RTC")?;
    cmos::set_memory(&rtc, m, split);
    let boot = pc.boot();
    let order = boot.once.as_ref().or(boot.order.as_ref()).cloned().unwrap_or_else(|| "cad".into());
    cmos::set_boot_order(&rtc, m, &order, pc.fd_bootchk.get())
}

/// The board and all devices are there.
fn ready(pc: &PcMachine, m: &mut Locked) {
    cpu_count_changed(pc, m);
    if let Some(rtc) = pc.board.read().rtc.upgrade() {
        drives::set_cmos(pc.scope(), &rtc, m);
        drives::set_floppy_cmos(pc.scope(), &rtc, m);
    }
    if let Err(e) = firmware_tables::publish(pc, m) {
        m.request(hw_core::Request::InternalError(format!("firmware tables: {e}")));
    }
}

/// Tells firmware how many CPUs there are.
pub(super) fn cpu_count_changed(pc: &PcMachine, m: &mut Locked) {
    let cpus = pc.core().cpus.list().len();
    if let Some(rtc) = pc.board.read().rtc.upgrade() {
        cmos::set_cpu_count(&rtc, m, cpus as u32);
    }
    if let Some(fw_cfg) = pc.fw_cfg() {
        fw_cfg.set_u16(crate::nvram::fw_cfg_items::key::NB_CPUS, cpus as u16);
    }
}
