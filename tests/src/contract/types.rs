//! How each concrete device type of the registry comes to life. A type is looked for on the board first, else created as a user
//! would, else as a board would; only what none of that reaches stands in `NEEDS`.

use super::board::Board;
use super::traffic::Target;
use hw_core::qdev::find_bus;
use hw_core::{Bus, Device, DeviceClass, Locked, PciDevice, SysBusDevice};
use qom::{Class, Ref, Registry};
use serde_json::Value;

/// All device types that are not abstract, by name.
pub fn all() -> Vec<&'static Class> {
    let registry = Registry::global();
    registry.list(Some("device"), false).into_iter().filter_map(|t| registry.class(t.name()).ok()).collect()
}

/// Whether the type is a CPU model: those differ in data only.
pub fn is_cpu(class: &Class) -> bool {
    class.is_a("cpu")
}

/// What a type needs to be created or to be worth creating.
struct Need {
    type_name: &'static str,
    /// Arguments besides the board's.
    args: &'static [&'static str],
    /// Properties of the device.
    props: &'static [(&'static str, &'static str)],
    /// Why.
    #[expect(dead_code, reason = "for the reader; a row without one cannot be written")]
    why: &'static str,
}

const NO_CHANNEL: &str = "a port is refused without a character device";
const CHANNEL: &[&str] = &["-chardev", "null,id=c"];

const NO_MEDIUM: &str = "a disk is refused without a medium";
const DISK: &[&str] = &["-drive", "if=none,id=x,driver=null-co,size=1M"];

const SCSI_DISK: &[&str] = &["-drive", "if=none,id=x,driver=null-co,size=1M", "-device", "virtio-scsi-pci"];
const NVME_DISK: &[&str] = &["-drive", "if=none,id=x,driver=null-co,size=1M", "-device", "nvme,serial=1"];
const SERIAL: &[&str] = &["-chardev", "null,id=c", "-device", "virtio-serial-pci"];

const NO_FOLDER: &str = "a device that shows a folder is refused without one";
const FOLDER: &[&str] = &["-fsdev", "local,id=x,path=/proc,security_model=none,readonly=on"];
const SHOWN: &[(&str, &str)] = &[("fsdev", "x"), ("mount_tag", "t")];

const NEEDS: &[Need] = &[
    Need { type_name: "isa-serial", args: CHANNEL, props: &[("chardev", "c")], why: NO_CHANNEL },
    Need { type_name: "isa-parallel", args: CHANNEL, props: &[("chardev", "c")], why: NO_CHANNEL },
    Need { type_name: "isa-debugcon", args: CHANNEL, props: &[("chardev", "c")], why: NO_CHANNEL },
    Need { type_name: "ide-hd", args: DISK, props: &[("drive", "x")], why: NO_MEDIUM },
    Need { type_name: "scsi-hd", args: SCSI_DISK, props: &[("drive", "x")], why: NO_MEDIUM },
    Need { type_name: "scsi-cd", args: &["-device", "virtio-scsi-pci"], props: &[], why: "no adapter on the board" },
    Need { type_name: "nvme", args: DISK, props: &[("drive", "x"), ("serial", "1")], why: "it has a serial number" },
    Need { type_name: "nvme-ns", args: NVME_DISK, props: &[("drive", "x")], why: NO_MEDIUM },
    Need { type_name: "virtio-blk-pci", args: DISK, props: &[("drive", "x")], why: NO_MEDIUM },
    Need { type_name: "virtio-blk-pci-transitional", args: DISK, props: &[("drive", "x")], why: NO_MEDIUM },
    Need { type_name: "virtio-blk-pci-non-transitional", args: DISK, props: &[("drive", "x")], why: NO_MEDIUM },
    Need {
        type_name: "virtserialport",
        args: SERIAL,
        props: &[("chardev", "c")],
        why: "no device of ports on the board",
    },
    Need { type_name: "virtconsole", args: SERIAL, props: &[("chardev", "c")], why: "as above" },
    Need { type_name: "virtio-9p-pci", args: FOLDER, props: SHOWN, why: NO_FOLDER },
    Need { type_name: "virtio-9p-pci-transitional", args: FOLDER, props: SHOWN, why: NO_FOLDER },
    Need { type_name: "virtio-9p-pci-non-transitional", args: FOLDER, props: SHOWN, why: NO_FOLDER },
    Need { type_name: "ne2k_isa", args: &[], props: &[("irq", "10")], why: "line 9, its default, is ACPI's here" },
];

/// What is put behind a device whose id is `d`, so that there is something to reach.
const BEHIND: &[(&str, &[&str])] = &[(
    "ich9-ahci",
    &[
        "-drive",
        "if=none,id=behind,driver=null-co,size=1M,read-zeroes=on",
        "-device",
        "ide-hd,drive=behind,bus=d.0",
        "-device",
        "ide-cd,bus=d.1",
    ],
)];

/// Types that exist as a part of another: part, whole, and why not alone.
const PARTS: &[(&str, &str, &str)] = &[
    ("serial", "isa-serial", "the chip has neither ports nor an interrupt of its own"),
    ("virtio-blk-device", "virtio-blk-pci", "a virtio bus comes with its device"),
    ("virtio-9p-device", "virtio-9p-pci", "as above"),
    ("virtio-balloon-device", "virtio-balloon-pci", "as above"),
    ("virtio-rng-device", "virtio-rng-pci", "as above"),
    ("virtio-scsi-device", "virtio-scsi-pci", "as above"),
    ("virtio-serial-device", "virtio-serial-pci", "as above"),
    ("virtio-net-device", "virtio-net-pci", "as above"),
];

/// Whether the type exists as a part of another, with which it comes and goes.
pub fn is_part(name: &str) -> bool {
    PARTS.iter().any(|p| p.0 == name)
}

/// Arguments that type `name` needs besides the board's, and properties of the device.
pub fn needs(name: &str) -> (&'static [&'static str], &'static [(&'static str, &'static str)]) {
    NEEDS.iter().find(|n| n.type_name == name).map_or((&[], &[]), |n| (n.args, n.props))
}

/// A board with `-device name,id=ID` and what that needs.
///
/// # Errors
/// As start-up.
pub fn with_device(name: &str, id: &str) -> Result<Board, String> {
    let (args, props) = needs(name);
    let props: String = props.iter().map(|(k, v)| format!(",{k}={v}")).collect();
    let behind = BEHIND.iter().find(|b| b.0 == name).map_or(&[][..], |b| b.1);
    Board::pc(&[args, &["-device", &format!("{name},id={id}{props}")], behind].concat())
}

/// Registers that nothing random finds: configuration that firmware writes first.
struct Setup {
    type_name: &'static str,
    /// Configuration space: offset, bytes, value.
    config: &'static [(u32, u32, u32)],
}

const SETUP: &[Setup] = &[Setup {
    type_name: "PIIX4_PM",
    // PMBA at 0x600 and PMREGMISC.PMIOSE; SMBBA at 0x700 and SMBHSTCFG.SMB_HST_EN (82371AB, §7.1 and §7.2).
    config: &[(0x40, 4, 0x601), (0x80, 1, 1), (0x90, 4, 0x701), (0xd2, 1, 1)],
}];

/// Types without registers, and why.
const WITHOUT_REGISTERS: &[(&str, &str)] =
    &[("isabus-bridge", "a bus and nothing else"), ("cpu", "its APIC is a device of its own")];

/// Whether nothing can be accessed of these devices.
pub fn has_no_registers(target: &Target) -> bool {
    match target {
        Target::Everything => false,
        Target::Devices(all) => all.iter().all(|d| WITHOUT_REGISTERS.iter().any(|(t, _)| d.is_a(t))),
    }
}

/// State that a system reset leaves alone, by type, cell and field (all of the cell where empty), and why.
const SURVIVES: &[(&str, &str, &str, &str)] = &[
    ("ioapic-common", "counts", "", "statistics of the machine's life"),
    ("pic-common", "counts", "", "statistics of the machine's life"),
    ("ioapic-common", "regs", "pins", "levels that others drive"),
    ("pic-common", "regs", "lines", "levels that others drive"),
    ("isa-pit", "driven", "level", "the line keeps its level until OUT's next edge"),
    ("PIIX4_PM", "apm", "", "the ports keep their values, as the peer's do"),
    ("pci-host-bridge", "regs", "config_reg", "CONFADD keeps its value, as the peer's does"),
    ("hpet", "regs", "pit_level", "a level that the PIT drives"),
    ("mc146818rtc", "regs", "", "battery-backed"),
    ("smbus-eeprom", "regs", "data", "an EEPROM"),
    ("i8257", "regs", "channels", "a reset concerns command, status, request and mask registers (8237A, Reset)"),
    ("isa-fdc", "regs", "config", "what CONFIGURE and LOCK said, as on QEMU"),
    ("isa-fdc", "regs", "precomp", "as above"),
    ("isa-fdc", "regs", "lock", "as above"),
    ("i6300esb", "regs", "rebooted", "it tells of the reset"),
    ("virtio-balloon-device", "regs", "num_pages", "what the user wants stays so"),
    ("virtio-balloon-device", "regs", "actual", "the guest's memory does not come back by itself"),
    ("PIIX4_PM", "cpus", "slots", "processors and what the OS said of them stay"),
    (
        "pci-device",
        "config",
        "64..",
        "as on QEMU, what firmware wrote beyond the header stays unless the device says otherwise",
    ),
];

/// Overwrites in `state` what a reset leaves alone by what it was in `before`.
pub fn keep_what_survives(board: &Board, before: &Value, state: &mut Value) {
    for o in board.objects() {
        for (type_name, cell, field, _) in SURVIVES.iter().filter(|s| o.is_a(s.0)) {
            let mut at = vec!["objects".to_owned(), o.path(), format!("{type_name}.{cell}")];
            let from: Option<usize> = field.strip_suffix("..").and_then(|n| n.parse().ok());
            at.extend((!field.is_empty() && from.is_none()).then(|| (*field).to_owned()));
            let old = at.iter().try_fold(before, |v, k| v.get(k));
            let new = at.iter().try_fold(&mut *state, |v, k| v.get_mut(k));
            match (old, new, from) {
                (Some(Value::Array(old)), Some(Value::Array(new)), Some(from)) if old.len() == new.len() => {
                    new.truncate(from);
                    new.extend(old.iter().skip(from).cloned());
                }
                (Some(old), Some(new), _) => *new = old.clone(),
                _ => {}
            }
        }
    }
}

/// Types that cannot be created here, and what is said about it.
const REFUSED: &[(&str, &str)] =
    &[("host-x86_64-cpu", "requires the accelerator kvm"), ("vmmouse", "'i8042' link is not set")];

/// Whether it is right that `class` is refused with this message.
pub fn is_refused(class: &Class, message: &str) -> bool {
    REFUSED.iter().any(|(name, text)| class.name() == *name && message.contains(text))
}

/// Where PCI functions are mapped: below 16 MiB, where the DMA controller of the ISA bus reaches them.
const MEMORY_BARS: u64 = 0x40_0000;
const LARGE_BARS: u64 = 0xe000_0000;
const IO_BARS: u64 = 0xc000;

/// A machine with at least one device whose type is exactly `class`'s, mapped and enabled; those devices.
///
/// # Errors
/// Nothing makes such a device.
pub fn create(class: &'static Class) -> Result<(Board, Vec<Ref<Device>>), String> {
    let name = class.name();
    let whole = PARTS.iter().find(|p| p.0 == name).map(|p| p.1);
    let board = if let Some(model) = name.strip_suffix("-x86_64-cpu") {
        Board::pc(&["-cpu", model])?
    } else if let Some(whole) = whole {
        with_device(whole, "d")?
    } else {
        let plain = Board::pc(&[])?;
        if !plain.devices_of(name).is_empty() {
            plain
        } else if class.get::<DeviceClass>().is_some_and(|d| d.user_creatable) {
            drop(plain);
            with_device(name, "d")?
        } else {
            by_hand(&plain, class)?;
            plain
        }
    };
    let devices = board.devices_of(name);
    if devices.is_empty() {
        return Err("no such device comes to life".into());
    }
    Ok((board, devices))
}

/// Creates the device as a board does: on the first bus of its kind, regions mapped where there is room.
///
/// # Errors
/// What the device or its bus says.
pub fn by_hand(board: &Board, class: &'static Class) -> Result<Ref<Device>, String> {
    let text = |e: qom::Error| e.to_string();
    let dev: Ref<Device> = board.scope().object_new_as(class.name()).map_err(text)?;
    let o = dev.object();
    for (name, value) in needs(class.name()).1 {
        o.set_str(name, value).map_err(text)?;
    }
    board.locked(|m| {
        if let Some(s) = o.cast::<SysBusDevice>() {
            s.realize_sysbus(m).map_err(text)?;
            for n in 0..s.mmios().len() {
                s.mmio_map(m, n, 0xd000_0000 + 0x10_0000 * n as u64).map_err(text)?;
            }
            return Ok(());
        }
        let bus = dev.class_of().bus_type.and_then(|t| bus_of(board, t));
        match (dev.class_of().bus_type, bus) {
            (None, _) => dev.qdev_realize(m).map_err(text),
            (Some(_), Some(bus)) => dev.realize_on(m, &bus).map_err(text),
            (Some(t), None) => Err(format!("the board has no '{t}' bus")),
        }
    })?;
    Ok(dev)
}

fn bus_of(board: &Board, type_name: &str) -> Option<Ref<Bus>> {
    let fits = |o: &qom::ObjRef| o.is_a(type_name) && o.cast::<Bus>().is_some_and(|b| !b.is_full());
    let found = board.objects().into_iter().find(fits)?;
    let name = found.cast::<Bus>()?.bus_name().to_owned();
    find_bus(board.scope(), &name).ok()
}

/// Does what firmware does: gives the PCI functions of `target` addresses and switches them on.
pub fn map_functions(board: &Board, target: &Target) {
    let (mut memory, mut large, mut io) = (MEMORY_BARS, LARGE_BARS, IO_BARS);
    for f in board.functions() {
        board.locked(|m| {
            for s in SETUP.iter().filter(|s| s.type_name == f.type_name()) {
                s.config.iter().for_each(|(at, len, v)| f.config_write(m, *at, *len, *v));
            }
            let wanted = match target {
                Target::Everything => true,
                Target::Devices(all) => all.iter().any(|d| d.path() == f.path()),
            };
            if wanted {
                map_bars(m, &f, &mut memory, &mut large, &mut io);
            }
        });
    }
}

fn map_bars(m: &mut Locked, f: &PciDevice, memory: &mut u64, large: &mut u64, io: &mut u64) {
    for (n, kind, size, _) in f.bar_list() {
        let next = match (kind.bits() & 1 != 0, size > 0x10_0000) {
            (true, _) => &mut *io,
            (false, true) => &mut *large,
            (false, false) => &mut *memory,
        };
        let at = next.next_multiple_of(size.max(1));
        *next = at + size;
        f.config_write(m, 0x10 + 4 * n as u32, 4, at as u32);
    }
    let command = f.config_read(m, 4, 2);
    f.config_write(m, 4, 2, command | 7);
}
