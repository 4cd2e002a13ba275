//! `info pci`: buses, functions, base addresses.

use super::{Call, Result};
use hw_core::pci::{BarKind, PciBus, PciDevice};
use qom::Ref;
use std::fmt::Write;

/// Names of class codes. Source: PCI Code and ID Assignment Specification §1.
const CLASSES: &[(u16, &str)] = &[
    (0x0001, "VGA controller"),
    (0x0100, "SCSI controller"),
    (0x0101, "IDE controller"),
    (0x0102, "Floppy controller"),
    (0x0106, "SATA controller"),
    (0x0108, "NVMe controller"),
    (0x0200, "Ethernet controller"),
    (0x0280, "Network controller"),
    (0x0300, "VGA controller"),
    (0x0301, "XGA controller"),
    (0x0380, "Display controller"),
    (0x0400, "Video controller"),
    (0x0401, "Audio controller"),
    (0x0403, "Audio controller"),
    (0x0500, "RAM controller"),
    (0x0600, "Host bridge"),
    (0x0601, "ISA bridge"),
    (0x0604, "PCI bridge"),
    (0x0680, "Bridge"),
    (0x0700, "Serial port"),
    (0x0780, "Communication controller"),
    (0x0880, "System peripheral"),
    (0x0c03, "USB controller"),
    (0x0c05, "SMBus"),
];

/// Vendor, device, class and the rest, from the config space.
struct Header {
    vendor: u16,
    device: u16,
    class: u16,
    subsystem: (u16, u16),
    line: u8,
    pin: u8,
}

pub(super) fn info(c: &mut Call<'_>) -> Result {
    let mut buses: Vec<Ref<PciBus>> = vec![];
    c.vm.scope().root().walk(&mut |o| buses.extend(Ref::new(o.clone())));
    if buses.is_empty() {
        return Err("PCI devices not supported".into());
    }
    let vm = c.vm.clone();
    for bus in &buses {
        for d in bus.functions() {
            show(c, &vm, bus, &d);
        }
    }
    Ok(())
}

fn show(c: &mut Call<'_>, vm: &crate::Vm, bus: &Ref<PciBus>, d: &Ref<PciDevice>) {
    let (number, h) = {
        let m = &vm.core().lock();
        let s = d.config().ro(m);
        let h = Header {
            vendor: s.word(0),
            device: s.word(2),
            class: s.word(0x0a),
            subsystem: (s.word(0x2c), s.word(0x2e)),
            line: s.byte(0x3c),
            pin: s.byte(0x3d),
        };
        (bus.number(m), h)
    };
    let name = CLASSES
        .iter()
        .find(|(code, _)| *code == h.class)
        .map_or_else(|| format!("Class {:04x}", h.class), |(_, n)| (*n).into());
    let out = &mut *c.out;
    let _ = writeln!(out, "  Bus {number:2}, device {:3}, function {}:", d.slot(), d.function());
    let _ = writeln!(out, "    {name}: PCI device {:04x}:{:04x}", h.vendor, h.device);
    if h.subsystem != (0, 0) && !d.is_bridge() {
        let _ = writeln!(out, "      PCI subsystem {:04x}:{:04x}", h.subsystem.0, h.subsystem.1);
    }
    if h.pin != 0 {
        let _ = writeln!(out, "      IRQ {}, pin {}", h.line, char::from(b'A' + (h.pin - 1) % 4));
    }
    for (n, kind, size, addr) in d.bar_list() {
        let at = addr.unwrap_or(u64::MAX);
        let last = at.wrapping_add(size.saturating_sub(1));
        let _ = match kind {
            BarKind::Io => writeln!(out, "      BAR{n}: I/O at {at:#06x} [{last:#06x}]."),
            _ => {
                let bits = if kind.is_64() { 64 } else { 32 };
                let prefetch = if kind.bits() & 8 != 0 { " prefetchable" } else { "" };
                writeln!(out, "      BAR{n}: {bits} bit{prefetch} memory at {at:#010x} [{last:#010x}].")
            }
        };
    }
    let _ = writeln!(out, "      id \"{}\"", d.id().unwrap_or_default());
}
