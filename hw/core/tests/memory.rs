//! Region trees, views and accesses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hw_core::memory::{Access, Attrs, Endian, FlatView, Listener};
use hw_core::*;
use parking_lot::Mutex;
use qom::{ObjRef, Object, Ref};

/// Records every call; reads answer the call's number.
#[derive(Object)]
#[qom(name = "test-probe", parent = Device)]
struct Probe {
    parent: Device,
    calls: Mutex<Vec<(char, u64, u32, u64)>>,
    answer: AtomicU64,
}

impl Probe {
    fn read(&self, _: &mut Locked, off: u64, size: u32) -> u64 {
        self.calls.lock().push(('r', off, size, 0));
        self.answer.load(Relaxed) >> (off * 8)
    }
    fn write(&self, _: &mut Locked, off: u64, size: u32, val: u64) {
        self.calls.lock().push(('w', off, size, val));
    }
    fn free_read(&self, a: &Access) -> u64 {
        u64::from(a.cpu.unwrap_or(99)) << 8 | a.off
    }
    fn taken(&self) -> Vec<(char, u64, u32, u64)> {
        std::mem::take(&mut *self.calls.lock())
    }
    fn ops() -> Ops<Self> {
        Ops { read: Self::read, write: Self::write, ..Ops::default() }
    }
}

/// A window that moves to the address written to it, and looks around before it returns.
#[derive(Object)]
#[qom(name = "test-mover", parent = Device)]
struct Mover {
    parent: Device,
    window: Mutex<Option<MemoryRegion>>,
    seen: Mutex<Vec<Result<u64, MemTxError>>>,
}

impl Mover {
    fn write(&self, m: &mut Locked, _: u64, _: u32, to: u64) {
        let window = self.window.lock().clone().unwrap();
        let from = window.addr();
        window.set_address(m, to);
        let memory = Core::of(self).memory.clone();
        *self.seen.lock() = [from, to, 0x8000].map(|at| memory.load(m, at, 4)).to_vec();
    }
}

struct Rig {
    vm: Vm,
    probe: Ref<Probe>,
    owner: ObjRef,
}

impl Rig {
    fn new() -> Self {
        let vm = Vm::with_machine("none", &[]).unwrap();
        let probe: Ref<Probe> = vm.world().object_new_as("test-probe").unwrap();
        probe.qdev_realize(&mut vm.core().lock()).unwrap();
        let owner = vm.machine().unwrap().unattached().unwrap();
        Self { vm, probe, owner }
    }
    fn io(&self, name: &str, size: u64, ops: Ops<Probe>) -> MemoryRegion {
        MemoryRegion::io(&*self.probe, name, size, ops)
    }
    fn ram(&self, name: &str, size: u64) -> MemoryRegion {
        MemoryRegion::ram(&*self.owner, name, size).unwrap()
    }
    fn map(&self, at: u64, r: &MemoryRegion, priority: i32) {
        self.vm.system_memory().add_subregion_overlap(&mut self.vm.core().lock(), at, r, priority);
    }
    fn view(&self) -> Vec<(u64, u64, String, u64)> {
        let view = self.vm.memory.view();
        view.ranges().iter().map(|r| (r.start, r.last, r.region.name().to_owned(), r.offset)).collect()
    }
    fn load(&self, at: u64, size: u32) -> u64 {
        self.vm.memory.cpu_load(at, size, Attrs::cpu(0)).unwrap()
    }
    fn store(&self, at: u64, size: u32, val: u64) {
        self.vm.memory.cpu_store(at, size, val, Attrs::cpu(0)).unwrap();
    }
}

fn rows(v: &[(u64, u64, &str, u64)]) -> Vec<(u64, u64, String, u64)> {
    v.iter().map(|(a, b, n, o)| (*a, *b, (*n).to_owned(), *o)).collect()
}

#[test]
fn higher_priorities_cut_holes_and_come_back() {
    let rig = Rig::new();
    let (ram, low, high) =
        (rig.ram("ram", 0x10_0000), rig.io("low", 0x1_0000, Probe::ops()), rig.io("high", 0x1000, Probe::ops()));
    rig.map(0, &ram, 0);
    rig.map(0xa_0000, &low, 1);
    rig.map(0xa_8000, &high, 2);
    assert_eq!(
        rig.view(),
        rows(&[
            (0, 0x9_ffff, "ram", 0),
            (0xa_0000, 0xa_7fff, "low", 0),
            (0xa_8000, 0xa_8fff, "high", 0),
            (0xa_9000, 0xa_ffff, "low", 0x9000),
            (0xb_0000, 0xf_ffff, "ram", 0xb_0000)
        ])
    );
    let epoch = rig.vm.memory.epoch();
    let mut m = rig.vm.core().lock();
    high.set_enabled(&mut m, false);
    low.set_enabled(&mut m, false);
    drop(m);
    assert_eq!(rig.view(), rows(&[(0, 0xf_ffff, "ram", 0)]));
    assert_eq!(rig.vm.memory.epoch(), epoch + 2);
}

#[test]
fn of_equal_priorities_the_newest_answers() {
    let rig = Rig::new();
    let (a, b) = (rig.ram("a", 0x2000), rig.ram("b", 0x1000));
    rig.map(0, &a, 0);
    rig.map(0, &b, 0);
    assert_eq!(rig.view(), rows(&[(0, 0xfff, "b", 0), (0x1000, 0x1fff, "a", 0x1000)]));
}

#[test]
fn aliases_show_parts_through_containers_also_backwards() {
    let rig = Rig::new();
    let (ram, pci) = (rig.ram("ram", 0x8000), MemoryRegion::container(&*rig.owner, "pci", u64::MAX));
    let mut m = rig.vm.core().lock();
    let io = MemoryRegion::io(&*rig.probe, "io", 0x100, Probe::ops());
    pci.add_subregion(&mut m, 0xc000, &io);
    let hole = MemoryRegion::alias(&*rig.owner, "hole", &pci, 0xc000, 0x1000);
    let above = MemoryRegion::alias(&*rig.owner, "above", &ram, 0x4000, 0x4000);
    let root = rig.vm.system_memory();
    root.add_subregion_overlap(&mut m, 0, &pci, -1);
    root.add_subregion(&mut m, 0x10_0000, &above);
    root.add_subregion_overlap(&mut m, 0x2000, &hole, 1);
    drop(m);
    assert_eq!(
        rig.view(),
        rows(&[(0x2000, 0x20ff, "io", 0), (0xc000, 0xc0ff, "io", 0), (0x10_0000, 0x10_3fff, "ram", 0x4000)])
    );
    rig.store(0x10_0010, 4, 0x1234_5678);
    assert_eq!(ram.ram_block().unwrap().load(0x4010, 4), Some(0x1234_5678));
}

#[test]
fn a_read_only_alias_makes_rom_of_ram() {
    let rig = Rig::new();
    let ram = rig.ram("ram", 0x4000);
    rig.map(0, &ram, 0);
    let rom = MemoryRegion::alias(&*rig.owner, "rom", &ram, 0x1000, 0x1000);
    rom.set_readonly(&mut rig.vm.core().lock(), true);
    rig.map(0x1000, &rom, 1);
    assert_eq!(rig.vm.memory.cpu_store(0x1000, 4, 1, Attrs::cpu(0)), Err(MemTxError::Decode));
    rig.store(0x2000, 4, 1);
    rom.set_readonly(&mut rig.vm.core().lock(), false);
    rig.store(0x1000, 4, 7);
    assert_eq!(rig.load(0x1000, 4), 7);
    assert_eq!(rig.view(), rows(&[(0, 0x3fff, "ram", 0)])); // joined again
}

#[test]
fn the_top_of_the_address_space_is_reachable() {
    let rig = Rig::new();
    rig.map(u64::MAX - 0xfff, &rig.ram("top", 0x1000), 0);
    rig.store(u64::MAX - 3, 4, 0xdead_beef);
    assert_eq!(rig.load(u64::MAX - 3, 4), 0xdead_beef);
    let mut buf = [0; 8];
    assert!(rig.vm.memory.cpu_read(u64::MAX - 3, &mut buf, Attrs::default()).is_err()); // wraps into nothing
    assert_eq!(buf, [0xef, 0xbe, 0xad, 0xde, 0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn wide_accesses_are_split_to_what_is_implemented() {
    let rig = Rig::new();
    let p = &rig.probe;
    p.answer.store(0x8877_6655_4433_2211, Relaxed);
    rig.map(0x1000, &rig.io("bytes", 8, Ops { imp: Sizes::new(1, 1), ..Probe::ops() }), 0);
    assert_eq!(rig.load(0x1000, 4), 0x4433_2211);
    assert_eq!(p.taken(), [('r', 0, 1, 0), ('r', 1, 1, 0), ('r', 2, 1, 0), ('r', 3, 1, 0)]);
    rig.store(0x1002, 2, 0xabcd);
    assert_eq!(p.taken(), [('w', 2, 1, 0xcd), ('w', 3, 1, 0xab)]);
    rig.map(0x2000, &rig.io("longs", 8, Ops { imp: Sizes::new(4, 4), ..Probe::ops() }), 0);
    assert_eq!(rig.load(0x2000, 8), 0x8877_6655_4433_2211);
    assert_eq!(rig.load(0x2000, 1), 0x11); // wider than asked for
    assert_eq!(p.taken(), [('r', 0, 4, 0), ('r', 4, 4, 0), ('r', 0, 4, 0)]);
}

#[test]
fn big_endian_registers_put_the_high_byte_first() {
    let rig = Rig::new();
    let ops = Ops { endian: Endian::Big, valid: Sizes::new(1, 8), imp: Sizes::new(1, 8), ..Probe::ops() };
    rig.map(0x1000, &rig.io("big", 8, ops), 0);
    rig.store(0x1000, 4, 0x1122_3344); // bytes 44 33 22 11
    assert_eq!(rig.probe.taken(), [('w', 0, 4, 0x4433_2211)]);
    rig.probe.answer.store(0x5145_4d55, Relaxed);
    assert_eq!(rig.load(0x1000, 4), 0x554d_4551);
    let bytes = Ops { endian: Endian::Big, imp: Sizes::new(1, 1), ..Probe::ops() };
    rig.map(0x2000, &rig.io("bytes", 8, bytes), 0);
    rig.probe.taken();
    rig.store(0x2000, 2, 0xaabb); // bytes bb aa
    assert_eq!(rig.probe.taken(), [('w', 0, 1, 0xbb), ('w', 1, 1, 0xaa)]);
}

#[test]
fn refused_widths_and_holes_are_errors_and_ports_read_as_ones() {
    let rig = Rig::new();
    rig.map(0x1000, &rig.io("longs", 8, Ops { valid: Sizes::new(4, 4), ..Probe::ops() }), 0);
    let load = |at, size| rig.vm.memory.cpu_load(at, size, Attrs::cpu(0));
    for (at, size) in [(0x1000, 1), (0x1000, 8), (0x1002, 4), (0x1001, 2)] {
        assert_eq!(load(at, size), Err(MemTxError::Refused), "{at:#x} {size}");
    }
    for (at, size) in [(0x5000, 4), (0x1000, 3), (0x1000, 0)] {
        assert_eq!(load(at, size), Err(MemTxError::Decode), "{at:#x} {size}");
    }
    assert_eq!((MemTxError::Refused.read_value(), MemTxError::Decode.read_value()), (0, u64::MAX));
    assert!(load(0x1004, 4).is_ok());
    assert_eq!(rig.vm.io.cpu_load(0x999, 4, Attrs::cpu(0)), Ok(0xffff_ffff));
    assert_eq!(rig.vm.io.cpu_store(0x999, 4, 1, Attrs::cpu(0)), Ok(()));
}

#[test]
fn copies_cross_regions_and_respect_widths() {
    let rig = Rig::new();
    let (ram, p) = (rig.ram("ram", 0x1000), &rig.probe);
    rig.map(0, &ram, 0);
    rig.map(0x1000, &rig.io("io", 8, Ops { valid: Sizes::new(1, 2), ..Probe::ops() }), 0);
    p.answer.store(0x0807_0605_0403_0201, Relaxed);
    let mut m = rig.vm.core().lock();
    rig.vm.memory.write(&mut m, 0xffe, &[0xaa, 0xbb, 1, 2, 3, 4]).unwrap();
    assert_eq!(p.taken(), [('w', 0, 2, 0x201), ('w', 2, 2, 0x403)]);
    let mut buf = [0; 7];
    rig.vm.memory.read(&mut m, 0xfff, &mut buf).unwrap();
    assert_eq!(buf, [0xbb, 1, 2, 3, 4, 5, 6]);
    let mut past = [0; 12];
    assert!(rig.vm.memory.read(&mut m, 0x1000, &mut past).is_err());
    assert_eq!(past, [1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn rom_devices_read_memory_and_write_registers() {
    let rig = Rig::new();
    let rom = MemoryRegion::rom_device(&*rig.probe, "flash", 0x1000, Probe::ops()).unwrap();
    rom.ram_block().unwrap().store(0, 4, 0x1111_1111).unwrap();
    rig.map(0, &rom, 0);
    assert_eq!(rig.load(0, 4), 0x1111_1111);
    rig.store(0, 4, 5);
    rom.set_romd(&mut rig.vm.core().lock(), false);
    assert_eq!(rig.load(0, 4), 0);
    assert_eq!(rig.probe.taken(), [('w', 0, 4, 5), ('r', 0, 4, 0)]);
}

#[test]
fn lock_free_regions_answer_while_the_machine_is_locked() {
    let rig = Rig::new();
    let free =
        MemoryRegion::io_free(&*rig.probe, "free", 0x10, FreeOps { read: Probe::free_read, ..FreeOps::default() });
    rig.map(0, &free, 0);
    let m = rig.vm.core().lock();
    assert_eq!(rig.vm.memory.cpu_load(4, 4, Attrs::cpu(3)), Ok(0x304));
    drop(m);
    let mut m = rig.vm.core().lock();
    assert_eq!(rig.vm.memory.load(&mut m, 8, 4), Ok(99 << 8 | 8));
}

#[test]
fn a_transaction_changes_the_view_once_and_tells_listeners() {
    struct Count(AtomicU64, Mutex<Vec<usize>>);
    impl Listener for Count {
        fn changed(&self, _: &mut Locked, old: &Arc<FlatView>, new: &Arc<FlatView>) {
            self.0.fetch_add(1, Relaxed);
            self.1.lock().extend([old.ranges().len(), new.ranges().len()]);
        }
    }
    let rig = Rig::new();
    let count = Arc::new(Count(AtomicU64::new(0), Mutex::default()));
    rig.vm.memory.listen(count.clone());
    let (a, b) = (rig.ram("a", 0x1000), rig.ram("b", 0x1000));
    let (core, root) = (rig.vm.core().clone(), rig.vm.system_memory());
    let mut m = core.lock();
    m.memory_transaction(|m| {
        root.add_subregion(m, 0, &a);
        root.add_subregion(m, 0x1000, &b);
    });
    m.memory_transaction(|m| {
        a.set_enabled(m, false);
        a.set_enabled(m, true); // nothing in the end: no new view
    });
    b.set_address(&mut m, 0x8000);
    assert_eq!(*count.1.lock(), [0, 2, 2, 2]);
    assert_eq!((b.addr(), b.info().owner), (0x8000, "/machine/unattached".to_owned()));
}

#[test]
fn what_a_vcpu_met_at_an_address_is_forgotten_with_a_change() {
    let rig = Rig::new();
    let (io, ram) = (rig.io("io", 0x1000, Probe::ops()), rig.ram("ram", 0x1000));
    let cpu = Attrs::cpu(0);
    rig.probe.answer.store(0x77, Relaxed);
    rig.map(0, &io, 0);
    for _ in 0..2 {
        assert_eq!(rig.vm.memory.cpu_load(0, 4, cpu), Ok(0x77));
    }
    rig.map(0, &ram, 1);
    {
        let _m = rig.vm.lock(); // memory is reached without the lock: again, where a device had been
        assert_eq!(rig.vm.memory.cpu_store(0, 4, 1, cpu), Ok(()));
        assert_eq!(rig.vm.memory.cpu_load(0, 4, cpu), Ok(1));
    }
    ram.unmap(&mut rig.vm.lock());
    assert_eq!(rig.vm.memory.cpu_load(0, 4, cpu), Ok(0x77));
    io.unmap(&mut rig.vm.lock());
    assert_eq!(rig.vm.memory.cpu_load(0, 4, cpu), Err(MemTxError::Decode));
}

#[test]
fn a_handler_that_moves_its_own_region_sees_the_new_map_and_so_does_everybody_after_it() {
    let rig = Rig::new();
    let mover: Ref<Mover> = rig.vm.world().object_new_as("test-mover").unwrap();
    let window = MemoryRegion::io(&*mover, "window", 0x100, Ops { write: Mover::write, ..Ops::default() });
    *mover.window.lock() = Some(window.clone());
    let ram = rig.ram("ram", 0x1000);
    ram.ram_block().unwrap().store(0, 4, 0x55).unwrap();
    rig.map(0x8000, &ram, 0);
    rig.map(0x1000, &window, 0);
    let memory = &rig.vm.memory;
    let seen = vec![Err(MemTxError::Decode), Err(MemTxError::Busy), Ok(0x55)];
    // From a vCPU that knows the place and from one that does not, and with the lock held.
    for (from, to) in [(0x1000, 0x2000), (0x2000, 0x1000), (0x1000, 0x2000)] {
        assert_eq!(memory.cpu_load(from, 4, Attrs::cpu(0)), Ok(0));
        assert_eq!(memory.cpu_store(from, 4, to, Attrs::cpu(0)), Ok(()));
        assert_eq!(std::mem::take(&mut *mover.seen.lock()), seen);
        assert_eq!(memory.cpu_load(from, 4, Attrs::cpu(0)), Err(MemTxError::Decode));
        assert_eq!(memory.cpu_load(to, 4, Attrs::cpu(0)), Ok(0));
    }
    let m = &mut rig.vm.lock();
    assert_eq!(memory.store(m, 0x2000, 4, 0x3000), Ok(()));
    assert_eq!(*mover.seen.lock(), seen);
    assert_eq!([0x2000, 0x3000].map(|at| memory.load(m, at, 4)), [Err(MemTxError::Decode), Ok(0)]);
}

#[test]
fn regions_show_in_the_tree_with_qemus_properties() {
    let rig = Rig::new();
    let r = rig.io("a/b[c]", 0x20, Probe::ops());
    rig.map(0x1000, &r, -2);
    let node = r.node().unwrap();
    assert_eq!(node.path(), format!("{}/a\\x2fb\\x5bc\\x5d[0]", rig.probe.path()));
    let get = |n: &str| node.get(n).unwrap();
    assert_eq!((get("addr"), get("size"), get("priority")), (0x1000.into(), 0x20.into(), (-2).into()));
    assert_eq!(get("container"), "/machine/unattached/system[0]");
    let root = rig.vm.world().resolve("/machine/unattached/system[0]").unwrap();
    assert_eq!(root.get("size").unwrap(), u64::MAX);
}

#[test]
fn vcpu_threads_and_remapping_do_not_disturb_each_other() {
    let rig = Rig::new();
    let (io, ram) = (rig.io("io", 8, Probe::ops()), rig.ram("ram", 0x1000));
    rig.probe.answer.store(0x77, Relaxed);
    ram.ram_block().unwrap().store(0, 4, 0x77).unwrap();
    rig.map(0, &ram, 0);
    rig.map(0, &io, 1);
    std::thread::scope(|s| {
        for cpu in 0..2 {
            let space = rig.vm.memory.clone();
            s.spawn(move || (0..5_000).for_each(|_| assert_eq!(space.cpu_load(0, 4, Attrs::cpu(cpu)), Ok(0x77))));
        }
        for i in 0..500 {
            io.set_enabled(&mut rig.vm.core().lock(), i % 2 == 0);
        }
    });
}

#[test]
fn a_search_does_not_mind_where_others_ended() {
    let rig = Rig::new();
    for i in 0..24 {
        let r = rig.io(&format!("r{i}"), 0x40, Probe::ops());
        rig.map(i * 0x100, &r, 0); // 0x100 apart: addresses that share their hint
    }
    let ram = rig.ram("ram", 0x2000);
    rig.map(0x10_0000, &ram, 0);
    let view = rig.vm.memory.view();
    let addresses: Vec<u64> = (0..0x1a00).step_by(0x20).chain((0xf_ff00..0x10_2100).step_by(0x80)).collect();
    let plain = |at| view.ranges().iter().find(|r| (r.start..=r.last).contains(&at)).map(|r| r.start);
    for at in addresses.iter().chain(addresses.iter().rev()).chain(addresses.iter().step_by(7)).copied() {
        assert_eq!(view.find(at).map(|r| r.start), plain(at), "{at:#x}");
        assert_eq!(view.find(at).map(|r| r.start), plain(at), "{at:#x} again");
    }
}

#[test]
fn runs_of_accesses_are_those_accesses_one_by_one() {
    let rig = Rig::new();
    rig.map(0x1000, &rig.io("port", 16, Probe::ops()), 0);
    rig.probe.answer.store(0x4433_2211, Relaxed);
    let space = &rig.vm.memory;
    for known in [false, true] {
        let mut data = [0; 7];
        assert_eq!(space.cpu_load_run(0x1000, 2, &mut data, Attrs::cpu(0), &|| true), 3, "{known}");
        assert_eq!(data, [0x11, 0x22, 0x11, 0x22, 0x11, 0x22, 0]);
        assert_eq!(rig.probe.taken(), [('r', 0, 2, 0); 3]);
        assert_eq!(space.cpu_store_run(0x1000, 2, &[1, 2, 3, 4, 5], Attrs::cpu(0), &|| true), 2);
        assert_eq!(rig.probe.taken(), [('w', 0, 2, 0x0201), ('w', 0, 2, 0x0403)]);
    }
    // It ends behind the access after which somebody waits, and does no fewer than one.
    let left = AtomicU64::new(2);
    let go_on = || left.fetch_sub(1, Relaxed) > 1;
    let mut data = [0; 8];
    assert_eq!(space.cpu_load_run(0x1002, 1, &mut data, Attrs::cpu(0), &go_on), 2);
    assert_eq!(data, [0x33, 0x33, 0, 0, 0, 0, 0, 0]);
    assert_eq!(space.cpu_store_run(0x1002, 1, &[9; 4], Attrs::cpu(0), &|| false), 1);
    assert_eq!(rig.probe.taken(), [('r', 2, 1, 0), ('r', 2, 1, 0), ('w', 2, 1, 9)]);
    // Where nobody answers it reads as ones.
    assert_eq!(space.cpu_load_run(0x9_0000, 4, &mut data, Attrs::cpu(0), &|| true), 2);
    assert_eq!((data, space.cpu_store_run(0x9_0000, 4, &data, Attrs::cpu(0), &|| true)), ([0xff; 8], 2));
    assert_eq!(space.cpu_load_run(0x1000, 2, &mut [0], Attrs::cpu(0), &|| true), 0);
}
