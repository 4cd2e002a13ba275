//! What the board tells firmware through fw_cfg: sizes, boot options, e820, ACPI and SMBIOS tables.

use super::{drives, machine::PcMachine, memory};
use crate::{
    acpi::{
        dsdt::{self, DsdtConfig, FloppyDrive, IsaDevices, Port},
        tables,
    },
    block::fdc::IsaFdc,
    misc::pvpanic::PvPanic,
    nvram::{fw_cfg::FwCfg, fw_cfg_items::key},
    smbios,
};
use hw_core::{Device, Locked};
use qom::{Error, Result};

const HPET_ITEM: u16 = key::ARCH_LOCAL | 4;
const IRQ0_OVERRIDE_ITEM: u16 = key::ARCH_LOCAL | 2;
const HPET_ID: u32 = 0x8086_a201;
const HPET_BASE: u64 = 0xfed0_0000;

/// How large the ACPI files may become as CPUs and cards are plugged.
const MAX_TABLES: u64 = 2 << 20;
const MAX_LOADER: u64 = 64 << 10;
const MAX_RSDP: u64 = 4 << 10;

/// The first CPU says it is AMD's.
fn is_amd(pc: &PcMachine) -> bool {
    let cpu = pc.core().cpus.get(0);
    cpu.and_then(|c| c.object().get("vendor").ok()).is_some_and(|v| v == "AuthenticAMD")
}

/// `struct hpet_fw_config`: how many HPETs, then eight of them.
fn hpet_item(present: bool) -> Vec<u8> {
    let mut item = vec![if present { 1 } else { 0xff }];
    if present {
        item.extend(HPET_ID.to_le_bytes());
        item.extend(HPET_BASE.to_le_bytes());
        item.extend([0, 0, 0]);
    }
    item.resize(1 + 8 * 15, 0);
    item
}

/// Text of a UUID as bytes; `None` if it is not one.
pub(super) fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let n = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
    Some(n.to_be_bytes())
}

/// Fixed items and the files that do not wait for the rest of the machine.
///
/// # Errors
/// A user's file has a bad name.
pub fn set_items(pc: &PcMachine, fw: &FwCfg) -> Result<()> {
    let (board, boot, t) = (pc.core().board(), pc.boot(), pc.topology());
    let split = pc.board.read().split.unwrap_or(memory::Split { below: 0, above: 0 });
    let ids = super::topology::possible(&t, "").iter().map(|s| s.arch_id + 1).max().unwrap_or(1);
    fw.set_u16(key::NB_CPUS, t.cpus as u16);
    fw.set_u16(key::MAX_CPUS, ids as u16);
    fw.set_u64(key::RAM_SIZE, pc.ram_size());
    fw.set_u32(IRQ0_OVERRIDE_ITEM, 1);
    fw.set(HPET_ITEM, hpet_item(pc.hpet.get()));
    fw.set_u16(key::NOGRAPHIC, u16::from(board.nographic || !pc.graphics.get()));
    fw.set_u16(key::BOOT_MENU, u16::from(boot.menu.unwrap_or(false)));
    fw.set(key::UUID, board.uuid.as_deref().and_then(uuid_bytes).unwrap_or_default());
    fw.add_file("etc/e820", memory::e820(split, is_amd(pc)))?;
    fw.add_file("etc/boot-fail-wait", (boot.reboot_timeout.unwrap_or(-1) as i32).to_le_bytes())?;
    if let Some(ms) = boot.splash_time {
        let ms = u16::try_from(ms)
            .map_err(|_| Error::generic("splash-time is invalid, it should be a value between 0 and 65535"))?;
        fw.add_file("etc/boot-menu-wait", ms.to_le_bytes())?;
    }
    if let Some(file) = &boot.splash {
        let data = hw_core::loader::Roms::read_file(std::path::Path::new(file), 16 << 20)?;
        let name = if data.starts_with(b"BM") { "bootsplash.bmp" } else { "bootsplash.jpg" };
        fw.add_file(name, data)?;
    }
    for (name, data) in &board.fw_cfg {
        fw.add_file(name, data.clone())?;
    }
    Ok(())
}

fn ports(pc: &PcMachine, type_name: &str) -> Vec<Port> {
    let mut all = Vec::new();
    pc.scope().root().walk(&mut |o| {
        if o.type_name() == type_name
            && let (Ok(iobase), Ok(irq)) = (o.get("iobase"), o.get("irq"))
            && let (Some(iobase), Some(irq)) = (iobase.as_u64(), irq.as_u64())
        {
            all.push(Port { iobase: iobase as u16, irq: irq as u8 });
        }
    });
    all
}

fn has(pc: &PcMachine, type_name: &str) -> bool {
    let mut found = false;
    pc.scope().root().walk(&mut |o| found |= o.type_name() == type_name && o.cast::<Device>().is_some());
    found
}

fn pvpanic_port(pc: &PcMachine) -> Option<u16> {
    let mut found = None;
    pc.scope()
        .root()
        .walk(&mut |o| found = found.or(o.cast::<PvPanic>().filter(|d| d.is_realized()).map(PvPanic::port)));
    found
}

fn floppy_drives(fdc: &IsaFdc) -> Vec<FloppyDrive> {
    let info = |unit: u8| {
        let kind = fdc.floppy(usize::from(unit))?.drive_type();
        let (tracks, sectors, sides) = kind.limits();
        let (last_track, last_head) = (tracks.checked_sub(1)?, sides.checked_sub(1)?);
        Some(FloppyDrive { unit, kind: kind.cmos(), last_track, sectors, last_head })
    };
    (0..2).filter_map(info).collect()
}

fn acpi_files(pc: &PcMachine) -> tables::AcpiFiles {
    let processors: Vec<tables::Processor> = pc
        .possible_cpus()
        .iter()
        .filter_map(|s| Some(tables::Processor { apic_id: u8::try_from(s.arch_id).ok()?, present: s.cpu.is_some() }))
        .collect();
    let board = pc.board.read();
    let fixed_slots: u32 = board.pci.upgrade().map_or(0, |bus| {
        bus.functions().iter().filter(|f| !f.is_hotpluggable()).fold(0, |mask, f| mask | 1 << f.slot())
    });
    let (hole, hole64) = board.host.upgrade().map_or(((0, 0), (0, 0)), |h| (h.hole(), h.hole64()));
    drop(board);
    let isa = IsaDevices {
        rtc: true,
        i8042: has(pc, "i8042"),
        fdc: drives::floppy_controller(pc.scope()).map(|fdc| floppy_drives(&fdc)),
        pvpanic: pvpanic_port(pc),
        parallel: ports(pc, "isa-parallel"),
        serial: ports(pc, "isa-serial"),
    };
    let dsdt = dsdt::build(&DsdtConfig {
        processors: processors.clone(),
        hpet: pc.hpet.get(),
        isa,
        pci_hole: (hole.0, hole.1.saturating_sub(1)),
        pci_hole64: Some((hole64.0, hole64.1.saturating_sub(1))),
        hotplug_slots: (0..32).filter(|s| fixed_slots >> s & 1 == 0).collect(),
    });
    let mut oem = tables::Oem { id: [b' '; 6], table_id: [b' '; 8] };
    oem.id.iter_mut().zip(pc.x_oem_id.get().bytes()).for_each(|(d, s)| *d = s);
    oem.table_id.iter_mut().zip(pc.x_oem_table_id.get().bytes()).for_each(|(d, s)| *d = s);
    tables::build(&tables::TablesConfig {
        oem,
        fixed: tables::Fixed { pm_base: 0x600, gpe0: 0xafe0, sci: 9, century: 0x32 },
        processors,
        hpet: pc.hpet.get(),
        dsdt,
    })
}

/// CPUID leaf 1, EAX (signature) and EDX (features), for the processor structures.
fn processor_id(pc: &PcMachine) -> u64 {
    let Some(cpu) = pc.core().cpus.get(0) else { return 0 };
    let number = |name: &str| cpu.object().get(name).ok().and_then(|v| v.as_u64()).unwrap_or(0) as u32;
    let (family, model, stepping) = (number("family"), number("model"), number("stepping"));
    let base = if family > 0xf { 0xf00 | (family - 0xf) << 20 } else { family << 8 };
    let signature = base | (model & 0xf) << 4 | (model >> 4) << 16 | stepping;
    let words = cpu.object().get("feature-words").ok();
    let edx = words.and_then(|w| {
        let word = w.as_array()?.iter().find(|w| {
            w.get("cpuid-input-eax").and_then(|v| v.as_u64()) == Some(1)
                && w.get("cpuid-register").and_then(|v| v.as_str()) == Some("EDX")
        })?;
        word.get("features")?.as_u64()
    });
    edx.unwrap_or(0) << 32 | u64::from(signature)
}

fn smbios_files(pc: &PcMachine) -> smbios::SmbiosFiles {
    let (class, t) = (pc.class_of(), pc.topology());
    let split = pc.board.read().split;
    smbios::build(&smbios::SmbiosConfig {
        manufacturer: "QEMU".into(),
        product: class.desc.clone(),
        version: class.name.clone(),
        uuid: pc.core().board().uuid.as_deref().and_then(uuid_bytes).unwrap_or_default(),
        sockets: t.sockets.max(1),
        cores: t.dies.max(1) * t.modules.max(1) * t.cores.max(1),
        threads: t.threads.max(1),
        processor_id: processor_id(pc),
        ram: split.map(memory::Split::ranges).unwrap_or_default(),
    })
}

fn put_acpi(pc: &PcMachine, fw: &FwCfg) -> Result<()> {
    let files = acpi_files(pc);
    fw.modify_rom_file(tables::TABLES_FILE, files.tables)?;
    fw.modify_rom_file(tables::RSDP_FILE, files.rsdp)?;
    fw.modify_rom_file(tables::LOADER_FILE, files.loader)
}

/// Publishes the tables once the machine is complete; the ACPI files are made anew whenever firmware reads them, for
/// what was plugged since.
///
/// # Errors
/// No slot is left for a file.
pub fn publish(pc: &PcMachine, _m: &mut Locked) -> Result<()> {
    let fw = pc.fw_cfg().ok_or("no fw_cfg")?;
    if pc.has_acpi() {
        let files = acpi_files(pc);
        fw.add_rom_file(tables::TABLES_FILE, files.tables, MAX_TABLES)?;
        fw.add_rom_file(tables::LOADER_FILE, files.loader, MAX_LOADER)?;
        fw.add_rom_file(tables::RSDP_FILE, files.rsdp, MAX_RSDP)?;
        for file in [tables::TABLES_FILE, tables::RSDP_FILE, tables::LOADER_FILE] {
            let pc = qom::Level::this(pc);
            fw.on_select(file, move |fw, _| {
                if let Some(Err(e)) = pc.with(|pc| put_acpi(pc, fw)) {
                    tracing::warn!("ACPI tables: {e}");
                }
            });
        }
        if let Some(pm) = pc.board.read().acpi_device.upgrade() {
            fw.add_file("etc/system-states", pm.system_states())?;
        }
        fw.add_file("etc/tpm/log", [])?;
    }
    let smbios = smbios_files(pc);
    fw.add_file(smbios::TABLES_FILE, smbios.tables)?;
    fw.add_file(smbios::ANCHOR_FILE, smbios.anchor)?;
    let drives = super::drives::boot_order(pc.scope());
    if !drives.is_empty() {
        // A kernel's option ROM comes first.
        let rom = fw.file_names().into_iter().find(|n| n.starts_with("genroms/")).map(|n| format!("/rom@{n}"));
        let halt = (pc.boot().strict == Some(true)).then(|| "HALT".to_owned());
        let order: Vec<String> = rom.into_iter().chain(drives).chain(halt).collect();
        let text = (order.join("\n") + "\0").into_bytes();
        if fw.file("bootorder").is_some() {
            fw.modify_file("bootorder", text)?
        } else {
            fw.add_file("bootorder", text)?
        }
    }
    for empty in ["bootorder", "bios-geometry"] {
        if fw.file(empty).is_none() {
            fw.add_file(empty, [])?;
        }
    }
    Ok(())
}
