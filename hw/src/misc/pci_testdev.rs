//! The PCI test device, type `pci-testdev`: counts writes in memory and in ports, by the plain path and by doorbells.
//! Source: QEMU's `docs/specs/pci-testdev.rst`, and the behaviour of its device.
//!
//! A test is started by its number and described by the header that can be read then. A doorbell (an eventfd in QEMU) takes the
//! writes that match it and counts nothing.

use hw_core::{
    Category, DeviceClass, DeviceImpl, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes,
    pci::{BarKind, PciDevice, PciDeviceClass},
};
use qom::{Error, Object, Prop, Result, Size};
use serde::{Deserialize, Serialize};

/// Half of the memory BAR: headers below, test addresses above.
const MEMORY: u32 = 0x800;
/// Half of the port BAR.
const PORTS: u32 = 0x80;
/// Tests of each kind.
const KINDS: u8 = 3;
/// The value that counts.
const MATCH: u8 = 0xfa;
/// The value that is named where any counts.
const ANY: u8 = 0xce;

/// What a test does, by its number within memory or ports.
struct Kind {
    name: &'static str,
    doorbell: bool,
    any_data: bool,
}

const TESTS: [Kind; KINDS as usize] = [
    Kind { name: "no-eventfd", doorbell: false, any_data: false },
    Kind { name: "wildcard-eventfd", doorbell: true, any_data: true },
    Kind { name: "datamatch-eventfd", doorbell: true, any_data: false },
];

/// A test: 0 to 2 in memory, 3 to 5 in ports.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Test(u8);

impl Test {
    fn kind(self) -> &'static Kind {
        let [first, second, third] = &TESTS;
        match self.0 % KINDS {
            0 => first,
            1 => second,
            _ => third,
        }
    }
    fn in_ports(self) -> bool {
        self.0 >= KINDS
    }
    /// Where writes count.
    fn offset(self) -> u32 {
        u32::from(self.0) + if self.in_ports() { PORTS } else { MEMORY }
    }
    fn data(self) -> u8 {
        if self.kind().any_data { ANY } else { MATCH }
    }
    /// The header: number, width, offset, data, count, name.
    fn header(self, count: u32) -> Vec<u8> {
        let mut h = vec![self.0, 1, 0, 0];
        h.extend(self.offset().to_le_bytes());
        h.extend([self.data(), 0, 0, 0]);
        h.extend(count.to_le_bytes());
        h.extend(if self.in_ports() { "portio-" } else { "mmio-" }.bytes());
        h.extend(self.kind().name.bytes());
        h.push(0);
        h
    }
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TestdevRegs {
    current: Option<u8>,
    counts: [u32; 2 * KINDS as usize],
}

impl TestdevRegs {
    fn test(&self) -> Option<Test> {
        self.current.map(Test)
    }

    /// Whether the doorbell of the running test takes a write of `size` bytes to `off` in memory or ports.
    fn rings(&self, ports: bool, off: u64, size: u32, val: u64) -> bool {
        self.test().is_some_and(|t| {
            let here = t.in_ports() == ports && u64::from(t.offset()) == off && size == 1;
            here && t.kind().doorbell && (t.kind().any_data || val == u64::from(t.data()))
        })
    }

    /// A byte is written.
    fn write(&mut self, ports: bool, off: u64, val: u8) {
        if off == 0 {
            self.current = (val < KINDS).then_some(val + if ports { KINDS } else { 0 });
            if let Some(n) = self.current.and_then(|n| self.counts.get_mut(usize::from(n))) {
                *n = 0;
            }
            return;
        }
        let Some(t) = self.test() else { return };
        if u64::from(t.offset()) == off
            && (t.kind().any_data || val == t.data())
            && let Some(n) = self.counts.get_mut(usize::from(t.0))
        {
            *n = n.wrapping_add(1);
        }
    }

    /// A byte of the running test's header. Its last byte (the name's end) and what follows read 0.
    fn read(&self, off: u64) -> u8 {
        let Some(t) = self.test() else { return 0 };
        let header = t.header(self.counts.get(usize::from(t.0)).copied().unwrap_or(0));
        usize::try_from(off).ok().and_then(|off| header.get(off)).copied().unwrap_or(0)
    }
}

/// Type `pci-testdev`.
#[derive(Object)]
#[qom(name = "pci-testdev", parent = PciDevice, methods(DeviceClass), interfaces("conventional-pci-device"),
    class_init = PciTestdev::class_init)]
pub struct PciTestdev {
    parent: PciDevice,
    #[property(default = Size(0))]
    membar: Prop<Size>,
    #[property(default = false)]
    membar_backed: Prop<bool>,
    #[state]
    regs: MachineCell<TestdevRegs>,
}

impl PciTestdev {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Misc];
        d.desc = "PCI Test Device";
        let p = c.edit::<PciDeviceClass>();
        (p.vendor_id, p.device_id, p.class_id) = (0x1b36, 0x0005, 0x00ff);
    }

    /// One half of the device: memory or ports.
    fn ops<const IN_PORTS: bool>() -> Ops<PciTestdev> {
        Ops {
            read: |d, m, off, size| {
                let regs = d.regs.ro(m);
                (0..u64::from(size)).fold(0, |v, i| v | u64::from(regs.read(off.saturating_add(i))) << (8 * i))
            },
            write: |d, m, off, size, val| {
                let regs = d.regs.rw(m);
                if regs.rings(IN_PORTS, off, size, val & 0xff) {
                    return;
                }
                for i in 0..u64::from(size) {
                    regs.write(IN_PORTS, off.saturating_add(i), (val >> (8 * i)) as u8);
                }
            },
            imp: Sizes::new(1, 8).unaligned(),
            ..Ops::default()
        }
    }
}

impl DeviceImpl for PciTestdev {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.set_intx_pin(m, 0);
        let memory = MemoryRegion::io(self, "pci-testdev-mmio", u64::from(MEMORY) * 2, Self::ops::<false>());
        let ports = MemoryRegion::io(self, "pci-testdev-portio", u64::from(PORTS) * 2, Self::ops::<true>());
        self.register_bar(m, 0, BarKind::Mem32, &memory)?;
        self.register_bar(m, 1, BarKind::Io, &ports)?;
        let size = self.membar.get().0;
        if size == 0 {
            return Ok(());
        }
        let region = if self.membar_backed.get() {
            MemoryRegion::ram(self, "pci-testdev-membar-backed", size)?
        } else {
            MemoryRegion::container(self, "pci-testdev-membar", size)
        };
        self.register_bar(m, 2, BarKind::Mem64Prefetch, &region)
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            *self.regs.rw(m) = TestdevRegs::default();
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if self.regs.ro(m).current.is_some_and(|n| n >= 2 * KINDS) {
            return Err(Error::generic("pci-testdev: no such test"));
        }
        self.parent_post_load(m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_the_running_test() {
        let mut r = TestdevRegs::default();
        assert_eq!(r.read(0), 0);
        r.write(true, 0, 2);
        let bytes: Vec<u8> = (0..40).map(|i| r.read(i)).collect();
        assert_eq!(bytes.get(..12), Some(&[5, 1, 0, 0, 0x85, 0, 0, 0, 0xfa, 0, 0, 0][..]));
        assert_eq!(bytes.get(16..), Some(&b"portio-datamatch-eventfd\0\0\0\0\0\0\0\0"[..24]));
        r.write(true, 0, 3);
        assert_eq!(r, TestdevRegs::default());
    }

    #[test]
    fn writes_count_where_no_doorbell_takes_them() {
        let mut r = TestdevRegs::default();
        r.write(false, 0, 0);
        assert!(!r.rings(false, 0x800, 1, 0xfa));
        r.write(false, 0x800, 0xfa);
        r.write(false, 0x800, 0xfb);
        r.write(false, 0x801, 0xfa);
        assert_eq!((r.read(12), r.read(8)), (1, 0xfa));
        r.write(false, 0, 1);
        assert!(r.rings(false, 0x801, 1, 0x33) && !r.rings(false, 0x801, 2, 0x33) && !r.rings(true, 0x801, 1, 0x33));
        r.write(false, 0, 2);
        assert!(r.rings(false, 0x802, 1, 0xfa) && !r.rings(false, 0x802, 1, 0xfb));
    }
}
