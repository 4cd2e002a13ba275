//! A host bridge and a function with registers, INTx, MSI and MSI-X, driven through 0xcf8/0xcfc.

use std::sync::Arc;

use hw_core::memory::Attrs;
use hw_core::pci::{cap, reg};
use hw_core::*;
use parking_lot::Mutex;
use qom::{Class, Object, Ref, Result};

#[derive(Object)]
#[qom(name = "test-pcihost", parent = PciHostBridge, methods(DeviceClass))]
struct Host {
    parent: PciHostBridge,
    /// What the bus drove its lines to.
    lines: Arc<Mutex<Vec<(usize, bool)>>>,
}

impl DeviceImpl for Host {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let (idx, data) = self.config_regions();
        self.map_io(m, 0xcf8, &idx);
        self.map_io(m, 0xcfc, &data);
        let (memory, io) = (self.core().system_memory(), self.core().system_io());
        let bus = PciBus::create_root(self, None, &memory, &io, 0)?;
        let lines = self.lines.clone();
        let map = Arc::new(|d: &PciDevice, pin: usize| (usize::from(d.slot()) + pin) % 4);
        bus.set_irqs(m, 4, map, Some(Arc::new(move |_, n, on| lines.lock().push((n, on)))));
        self.set_root_bus(&bus);
        Ok(())
    }
}

#[derive(Object)]
#[qom(name = "test-fn", parent = PciDevice, methods(DeviceClass), class_init = Fun::class_init)]
struct Fun {
    parent: PciDevice,
}

impl Fun {
    fn class_init(c: &mut Class) {
        let k = c.edit::<PciDeviceClass>();
        (k.vendor_id, k.device_id, k.class_id, k.revision) = (0x1234, 0x11e8, 0x00ff, 0x10);
    }
    /// 0: identification; 4: drives INTA; 8: a byte of guest memory, by DMA; 12: signals MSI, 16: MSI-X vector 1.
    fn read(&self, m: &mut Locked, off: u64, _: u32) -> u64 {
        match off {
            0 => 0x0100_00ed,
            8 => {
                let mut b = [0];
                if self.dma_read(m, 0x1000, &mut b).is_ok() { b[0].into() } else { 0xdead }
            }
            _ => 0,
        }
    }
    fn write(&self, m: &mut Locked, off: u64, _: u32, val: u64) {
        match off {
            4 => self.set_intx(m, val != 0),
            12 => self.msi_notify(m, val as u32),
            16 => self.msix_notify(m, 1),
            _ => {}
        }
    }
}

impl DeviceImpl for Fun {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.set_intx_pin(m, 1);
        let ops = || Ops { read: Self::read, write: Self::write, valid: Sizes::new(4, 4), ..Ops::default() };
        self.register_bar(m, 0, BarKind::Mem32, &MemoryRegion::io(self, "regs", 0x1000, ops()))?;
        self.register_bar(m, 1, BarKind::Io, &MemoryRegion::io(self, "ports", 0x20, ops()))?;
        self.register_bar(m, 2, BarKind::Mem64Prefetch, &MemoryRegion::ram(self, "vram", 0x10_0000)?)?;
        self.msi_init(m, None, 4, true, true)?;
        self.msix_init_exclusive_bar(m, 3, 4)
    }
}

struct Pc {
    vm: Vm,
    host: Ref<Host>,
    ram: MemoryRegion,
}

impl Pc {
    fn new() -> Self {
        let vm = Vm::with_machine("none", &[]).unwrap();
        let mut m = vm.core().lock();
        let host: Ref<Host> = vm.world().object_new_as("test-pcihost").unwrap();
        host.realize_sysbus(&mut m).unwrap();
        let ram = MemoryRegion::ram(&*vm.machine().unwrap().unattached().unwrap(), "ram", 0x10000).unwrap();
        vm.system_memory().add_subregion(&mut m, 0, &ram);
        drop(m);
        Self { vm, host, ram }
    }
    fn io(&self, port: u64, size: u32, val: u64) {
        self.vm.io.cpu_store(port, size, val, Attrs::cpu(0)).unwrap();
    }
    fn read(&self, slot: u32, at: u32, size: u32) -> u64 {
        self.io(0xcf8, 4, (0x8000_0000 | slot << 11 | (at & !3)).into());
        self.vm.io.cpu_load(u64::from(0xcfc + (at & 3)), size, Attrs::cpu(0)).unwrap()
    }
    fn write(&self, slot: u32, at: u32, size: u32, val: u64) {
        self.io(0xcf8, 4, (0x8000_0000 | slot << 11 | (at & !3)).into());
        self.io(u64::from(0xcfc + (at & 3)), size, val);
    }
    fn mem(&self, addr: u64) -> Option<u64> {
        self.vm.memory.cpu_load(addr, 4, Attrs::cpu(0)).ok()
    }
    fn poke(&self, addr: u64, val: u64) {
        self.vm.memory.cpu_store(addr, 4, val, Attrs::cpu(0)).unwrap();
    }
    fn lines(&self) -> Vec<(usize, bool)> {
        std::mem::take(&mut *self.host.lines.lock())
    }
}

#[test]
fn header_and_bar_sizing_read_as_the_specification_says() {
    let pc = Pc::new();
    let d = pc.vm.device_add("test-fn", Some("f"), &[("addr", "03.0")]).unwrap();
    assert_eq!((pc.read(3, 0, 4), pc.read(3, 8, 4), pc.read(3, 0x2c, 4)), (0x11e8_1234, 0x00ff_0010, 0x1100_1af4));
    assert_eq!((pc.read(4, 0, 4), pc.read(3, 2, 2), pc.read(3, 3, 1)), (0xffff_ffff, 0x11e8, 0x11));
    for at in (0x10..0x28).step_by(4) {
        pc.write(3, at, 4, 0xffff_ffff);
    }
    assert_eq!(pc.read(3, 0x10, 4), 0xffff_f000);
    assert_eq!(pc.read(3, 0x14, 4), 0xffff_ffe1);
    assert_eq!((pc.read(3, 0x18, 4), pc.read(3, 0x1c, 4)), (0xfff0_000c, 0xffff_ffff));
    assert_eq!(pc.read(3, 0x24, 4), 0);
    assert_eq!((d.get("addr").unwrap(), d.print("addr").unwrap()), (0x18.into(), "03.0".into()));
    assert_eq!(d.bus().unwrap().bus_name(), "pci.0");
    assert_eq!(d.fw_path(), "/test-pcihost@i0cf8/pci1234,11e8@3");
    assert_eq!(pc.vm.world().resolve("/machine/peripheral/f/bus master[0]").unwrap().type_name(), "memory-region");
}

#[test]
fn regions_follow_command_and_base_address() {
    let pc = Pc::new();
    pc.vm.device_add("test-fn", None, &[("addr", "3")]).unwrap();
    pc.write(3, 0x10, 4, 0xfeb0_0000);
    pc.write(3, 0x14, 4, 0xc000);
    pc.write(3, 0x18, 4, 0);
    pc.write(3, 0x1c, 4, 0x1);
    assert_eq!(pc.mem(0xfeb0_0000), None);
    pc.write(3, 4, 2, 3);
    assert_eq!(pc.mem(0xfeb0_0000), Some(0x0100_00ed));
    assert_eq!(pc.vm.io.cpu_load(0xc000, 4, Attrs::cpu(0)), Ok(0x0100_00ed));
    pc.poke(0x1_0000_0000, 42);
    assert_eq!(pc.mem(0x1_0000_0000), Some(42));
    pc.write(3, 0x10, 4, 0xfec0_0000);
    assert_eq!((pc.mem(0xfeb0_0000), pc.mem(0xfec0_0000)), (None, Some(0x0100_00ed)));
    pc.write(3, 0x10, 4, 0xffff_f000); // sizing with decoding on maps nothing
    assert_eq!(pc.mem(0xffff_f000), None);
    pc.write(3, 4, 2, 0);
    assert_eq!((pc.mem(0x1_0000_0000), pc.vm.io.cpu_load(0xc000, 4, Attrs::cpu(0))), (None, Ok(0xffff_ffff)));
}

#[test]
fn intx_reaches_the_mapped_line_and_obeys_the_disable_bit() {
    let pc = Pc::new();
    for slot in ["3", "7"] {
        pc.vm.device_add("test-fn", None, &[("addr", slot)]).unwrap();
    }
    for (slot, base) in [(3, 0xfeb0_0000), (7, 0xfeb1_0000)] {
        pc.write(slot, 0x10, 4, base);
        pc.write(slot, 4, 2, 2);
    }
    pc.poke(0xfeb0_0004, 1);
    pc.poke(0xfeb1_0004, 1);
    pc.poke(0xfeb0_0004, 0);
    assert_eq!(pc.lines(), [(3, true), (3, true), (3, true)]); // shared: the other still holds it
    assert_eq!((pc.read(3, 6, 2) & 8, pc.read(7, 6, 2) & 8), (0, 8));
    pc.write(7, 4, 2, 0x402);
    assert_eq!((pc.lines(), pc.read(7, 6, 2) & 8), (vec![(3, false)], 8));
    pc.write(7, 4, 2, 2);
    assert_eq!(pc.lines(), [(3, true)]);
    pc.vm.machine().unwrap().reset(&mut pc.vm.core().lock(), ShutdownCause::GuestReset);
    assert_eq!(pc.lines(), [(3, false)]);
    assert_eq!((pc.read(7, 4, 4), pc.read(7, 0x10, 4)), (0x10_0000, 0));
}

#[test]
fn dma_needs_bus_mastering() {
    let pc = Pc::new();
    pc.vm.device_add("test-fn", None, &[("addr", "3")]).unwrap();
    pc.ram.ram_block().unwrap().store(0x1000, 1, 0x5a).unwrap();
    pc.write(3, 0x10, 4, 0xfeb0_0000);
    pc.write(3, 0x1c, 4, 1); // the RAM behind BAR 2 away from the machine's
    pc.write(3, 4, 2, 2);
    assert_eq!(pc.mem(0xfeb0_0008), Some(0xdead));
    pc.write(3, 4, 2, 6);
    assert_eq!(pc.mem(0xfeb0_0008), Some(0x5a));
}

#[test]
fn msi_stores_its_message_once_unmasked() {
    let pc = Pc::new();
    let d = pc.vm.device_add("test-fn", None, &[("addr", "3")]).unwrap();
    let at = d.object().cast::<PciDevice>().unwrap().find_capability(&pc.vm.core().lock(), cap::MSI).unwrap() as u32;
    pc.write(3, 0x10, 4, 0xfeb0_0000);
    pc.write(3, 4, 2, 6);
    pc.write(3, at + 4, 4, 0x2000);
    pc.write(3, at + 12, 2, 0x4140);
    pc.write(3, at + 2, 2, 0x21); // four vectors: the capability offers four
    pc.poke(0xfeb0_000c, 2);
    assert_eq!(pc.mem(0x2000), Some(0x4142));
    pc.write(3, at + 16, 4, 1 << 3);
    pc.poke(0xfeb0_000c, 3);
    assert_eq!((pc.mem(0x2000), pc.read(3, at + 20, 4)), (Some(0x4142), 8));
    pc.write(3, at + 16, 4, 0);
    assert_eq!((pc.mem(0x2000), pc.read(3, at + 20, 4)), (Some(0x4143), 0));
}

#[test]
fn msix_vectors_wait_while_masked() {
    let pc = Pc::new();
    let d = pc.vm.device_add("test-fn", None, &[("addr", "3")]).unwrap();
    let at = d.object().cast::<PciDevice>().unwrap().find_capability(&pc.vm.core().lock(), cap::MSIX).unwrap() as u32;
    pc.write(3, 0x10, 4, 0xfeb0_0000);
    pc.write(3, 0x20, 4, 0xfeb1_0000);
    pc.write(3, 4, 2, 6);
    assert_eq!((pc.read(3, at + 2, 2), pc.mem(0xfeb1_001c)), (2, Some(1)));
    pc.poke(0xfeb1_0010, 0x3000);
    pc.poke(0xfeb1_0018, 77);
    pc.write(3, at + 2, 2, 0x8000);
    pc.poke(0xfeb0_0010, 0);
    assert_eq!((pc.mem(0x3000), pc.mem(0xfeb1_0800)), (Some(0), Some(2)));
    pc.poke(0xfeb1_001c, 0);
    assert_eq!((pc.mem(0x3000), pc.mem(0xfeb1_0800)), (Some(77), Some(0)));
}

#[test]
fn places_are_checked_with_qemus_texts() {
    let pc = Pc::new();
    let add = |props: &[(&str, &str)]| pc.vm.device_add("test-fn", None, props).map(drop).map_err(|e| e.to_string());
    add(&[("addr", "2")]).unwrap();
    assert_eq!(
        add(&[("addr", "2")]).unwrap_err(),
        "PCI: slot 2 function 0 not available for test-fn, in use by test-fn,id="
    );
    assert_eq!(add(&[("addr", "2.1")]).unwrap_err(), "PCI: single function device can't be populated in function 2.1");
    add(&[("addr", "5.1")]).unwrap();
    assert_eq!(add(&[("addr", "5")]).unwrap_err(), "PCI: 5.0 indicates single function, but 5.1 is already populated.");
    add(&[("addr", "5"), ("multifunction", "on")]).unwrap();
    assert!(add(&[("addr", "20")]).unwrap_err().contains("such as '1f.2'"));
    for _ in 0..30 {
        add(&[]).unwrap();
    }
    assert_eq!(add(&[]).unwrap_err(), "PCI: no slot/function available for test-fn, all in use or reserved");
}

#[test]
fn roms_appear_behind_their_register_with_patched_checksum() {
    let dir = std::env::temp_dir().join(format!("hw-core-rom-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("test.rom"), [[0x55, 0xaa].as_slice(), &[0; 1500]].concat()).unwrap();
    let pc = Pc::new();
    pc.vm.roms.set_search_path(vec![dir.clone()]);
    let e = pc.vm.device_add("test-fn", None, &[("romfile", "none.rom")]).unwrap_err();
    assert_eq!(e.to_string(), "failed to find romfile \"none.rom\"");
    let e = pc.vm.device_add("test-fn", None, &[("romfile", "test.rom"), ("romsize", "1024")]).unwrap_err();
    assert_eq!(e.to_string(), "romfile \"test.rom\" (1502 bytes) is too large for ROM size 1024");
    pc.vm.device_add("test-fn", None, &[("romfile", "test.rom"), ("addr", "3")]).unwrap();
    pc.write(3, u32::try_from(reg::ROM_ADDRESS).unwrap(), 4, 0xfebf_0001);
    pc.write(3, 4, 2, 2);
    assert_eq!(pc.mem(0xfebf_0000), Some(0xaa55));
    pc.vm.memory.cpu_store(0xfebf_0000, 4, 0, Attrs::cpu(0)).unwrap_err();
    assert_eq!(pc.mem(0xfebf_0000), Some(0xaa55));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_function_comes_back_from_a_snapshot_where_it_was_mapped() {
    let pc = Pc::new();
    pc.vm.device_add("test-fn", None, &[("addr", "3")]).unwrap();
    pc.write(3, 0x10, 4, 0xfeb0_0000);
    pc.write(3, 4, 2, 6);
    pc.poke(0xfeb0_0004, 1);
    let snap = save(&pc.vm.root(), &pc.vm.core().lock()).unwrap();
    pc.vm.machine().unwrap().reset(&mut pc.vm.core().lock(), ShutdownCause::GuestReset);
    assert_eq!(pc.mem(0xfeb0_0000), None);
    load(&pc.vm.root(), &mut pc.vm.core().lock(), &snap).unwrap();
    assert_eq!((pc.mem(0xfeb0_0000), pc.read(3, 6, 2) & 8), (Some(0x0100_00ed), 8));
    assert_eq!(save(&pc.vm.root(), &pc.vm.core().lock()).unwrap(), snap);
}
