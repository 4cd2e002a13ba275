//! Clocks, vCPU registry, machine properties, ROMs, the i2c bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use hw_core::clock::Timer;
use hw_core::cpu::interrupt;
use hw_core::i2c::Nack;
use hw_core::loader::{Rom, RomPlace, Roms};
use hw_core::*;
use parking_lot::Mutex;
use qom::{Class, Object, Ref};
use serde_json::json;

#[derive(Object)]
#[qom(name = "test-cpu", parent = Cpu)]
struct TestCpu {
    parent: Cpu,
    slices: AtomicU64,
}

fn none() -> Vm {
    Vm::with_machine("none", &[]).unwrap()
}

/// A thread that counts slices of guest code.
fn start(vm: &Vm) -> (Ref<TestCpu>, std::thread::JoinHandle<()>) {
    let cpu: Ref<TestCpu> = vm.world().object_new_as("test-cpu").unwrap();
    cpu.qdev_realize(&mut vm.core().lock()).unwrap();
    let c = cpu.clone();
    let thread = std::thread::spawn(move || {
        c.thread_started();
        while c.wait_io_event() {
            c.slices.fetch_add(1, Relaxed);
            std::thread::yield_now();
        }
        c.thread_ended();
    });
    (cpu, thread)
}

fn until(what: &str, f: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if f() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
    panic!("never: {what}");
}

#[test]
fn vcpus_park_run_halt_and_do_work_for_others() {
    let vm = none();
    let (cpu, thread) = start(&vm);
    until("created", || cpu.is_created());
    assert!(cpu.is_stopped() && cpu.index() == Some(0) && cpu.slices.load(Relaxed) == 0);
    vm.cpus.resume_all();
    until("running", || cpu.slices.load(Relaxed) > 3);
    let id = cpu.run_on(|c| (c.thread_id(), std::thread::current().id())).unwrap();
    assert!(id.0 > 0 && id.1 == thread.thread().id());
    let m = vm.core().lock();
    assert!(cpu.run_on(|_| ()).is_err()); // would deadlock
    drop(m);
    vm.cpus.pause_all(vm.core());
    let before = cpu.slices.load(Relaxed);
    assert!(cpu.is_stopped() && vm.cpus.are_paused());
    assert_eq!(cpu.run_on(|c| c.index()).unwrap(), Some(0)); // also while it is parked
    assert_eq!(cpu.slices.load(Relaxed), before);
    cpu.set_halted(true);
    vm.cpus.resume_all();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(cpu.slices.load(Relaxed), before);
    cpu.interrupt(interrupt::HARD); // has work: leaves the sleep
    until("woken", || cpu.slices.load(Relaxed) > before);
    cpu.clear_interrupt(interrupt::HARD);
    vm.cpus.end_all();
    thread.join().unwrap();
    assert!(!cpu.is_created());
}

#[test]
fn kicks_reach_the_accelerator() {
    let vm = none();
    let cpu: Ref<TestCpu> = vm.world().object_new_as("test-cpu").unwrap();
    cpu.qdev_realize(&mut vm.core().lock()).unwrap();
    let kicks = Arc::new(AtomicU32::new(0));
    let count = kicks.clone();
    cpu.set_kick(move || _ = count.fetch_add(1, Relaxed));
    cpu.interrupt(interrupt::NMI);
    cpu.interrupt(interrupt::NMI); // pending already
    assert_eq!((kicks.load(Relaxed), cpu.pending()), (1, interrupt::NMI));
    assert!(cpu.take_exit_request() && !cpu.take_exit_request());
    let second: Ref<TestCpu> = vm.world().object_new_as("test-cpu").unwrap();
    second.set_index(0);
    assert!(second.qdev_realize(&mut vm.core().lock()).unwrap_err().to_string().contains("index 0"));
}

#[test]
fn timers_fire_in_order_of_deadline_then_of_arming() {
    let vm = none();
    let fired = Arc::new(Mutex::new(vec![]));
    let timer = |n: u32| {
        let fired = fired.clone();
        Timer::new(&vm.clocks, ClockType::Virtual, move |m| fired.lock().push((n, m.clock.now())))
    };
    let (a, b, c) = (timer(1), timer(2), timer(3));
    let mut m = vm.core().lock();
    a.arm(&mut m, Some(500));
    b.arm(&mut m, Some(200));
    c.arm(&mut m, Some(200));
    a.arm(&mut m, Some(300)); // moved
    assert_eq!((vm.clocks.deadline_of(ClockType::Virtual), a.deadline()), (Some(200), Some(300)));
    m.advance(250);
    m.advance(250);
    assert_eq!(*fired.lock(), [(2, 200), (3, 200), (1, 300)]);
    a.arm(&mut m, Some(100)); // in the past: at once, but not from here
    b.arm(&mut m, Some(900));
    b.arm(&mut m, None);
    assert_eq!(fired.lock().len(), 3);
    m.advance(1000);
    assert_eq!(fired.lock()[3..], [(1, 500)]);
    assert!(!a.is_armed());
    drop(c);
}

#[test]
fn a_panic_in_a_timer_asks_for_internal_error_and_the_queue_goes_on() {
    let vm = none();
    let fired = Arc::new(AtomicU32::new(0));
    let f = fired.clone();
    let bad = Timer::new(&vm.clocks, ClockType::Virtual, |_| panic!("a bug"));
    let good = Timer::new(&vm.clocks, ClockType::Virtual, move |_| _ = f.fetch_add(1, Relaxed));
    let mut m = vm.core().lock();
    bad.arm(&mut m, Some(1));
    good.arm(&mut m, Some(2));
    m.advance(5);
    assert_eq!(fired.load(Relaxed), 1);
    assert_eq!(vm.requests.take(), Some(Request::InternalError("a timer's callback failed: a bug".into())));
}

#[test]
fn the_virtual_clock_stops_with_the_machine() {
    let vm = Vm::new(); // the host's clock
    let woken = Arc::new(AtomicU32::new(0));
    let count = woken.clone();
    vm.clocks.set_wake(move |_| _ = count.fetch_add(1, Relaxed));
    assert_eq!((vm.clocks.now(), vm.clocks.now()), (0, 0));
    let fired = Arc::new(AtomicU32::new(0));
    let f = fired.clone();
    let t = Timer::new(&vm.clocks, ClockType::Virtual, move |_| _ = f.fetch_add(1, Relaxed));
    t.arm_free(Some(1));
    assert_eq!((woken.load(Relaxed), vm.clocks.next_deadline()), (1, None)); // stopped: nothing to wait for
    vm.clocks.start();
    until("runs", || vm.clocks.now() > 10);
    assert_eq!(vm.clocks.next_deadline(), Some(0));
    vm.clocks.run_expired(&mut vm.core().lock());
    assert_eq!(fired.load(Relaxed), 1);
    vm.clocks.stop();
    let at = vm.clocks.now();
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert_eq!((vm.clocks.now(), vm.clocks.now_of(ClockType::VirtualRt)), (at, at));
    assert!(vm.clocks.now_of(ClockType::Realtime) > at && vm.clocks.now_of(ClockType::Host) > 1_600_000_000 * SECOND);
}

#[test]
fn machine_properties_have_qemus_types_and_values() {
    let vm = none();
    let machine = vm.machine().unwrap();
    let get = |n: &str| machine.get(n).unwrap();
    assert_eq!((get("boot"), get("memory"), get("dump-guest-core")), (json!({}), json!({ "size": 0 }), json!(true)));
    let one = json!({ "modules": 1, "cpus": 1, "maxcpus": 1, "books": 1, "threads": 1, "cores": 1, "dies": 1, "sockets": 1, "clusters": 1, "drawers": 1 });
    assert_eq!(get("smp"), one);
    assert_eq!(get("smp-cache")[2], json!({ "cache": "l2", "topology": "default" }));
    let mut types: Vec<(String, String)> =
        machine.properties().into_iter().filter(|p| p.of_class).map(|p| (p.name, p.ty)).collect();
    types.sort();
    let expect = [
        ("append", "string"),
        ("aux-ram-share", "bool"),
        ("boot", "BootConfiguration"),
        ("confidential-guest-support", "link<confidential-guest-support>"),
        ("dt-compatible", "string"),
        ("dtb", "string"),
        ("dump-guest-core", "bool"),
        ("dumpdtb", "string"),
        ("firmware", "string"),
        ("graphics", "bool"),
        ("initrd", "string"),
        ("kernel", "string"),
        ("mem-merge", "bool"),
        ("memory", "MemorySizeConfiguration"),
        ("memory-backend", "link<memory-backend>"),
        ("memory-encryption", "string"),
        ("phandle-start", "int"),
        ("shim", "string"),
        ("smp", "SMPConfiguration"),
        ("smp-cache", "SmpCachePropertiesWrapper"),
        ("spcr", "bool"),
        ("suppress-vmdesc", "bool"),
        ("type", "string"),
        ("usb", "bool"),
        ("x-change-vmfd-on-reset", "bool"),
    ];
    assert_eq!(types, expect.map(|(n, t)| (n.to_owned(), t.to_owned())));
}

#[derive(Object)]
#[qom(name = "test-machine", parent = Machine, class_init = TestMachine::class_init)]
struct TestMachine {
    parent: Machine,
}

impl TestMachine {
    fn class_init(c: &mut Class) {
        let mc = c.edit::<MachineClass>();
        (mc.max_cpus, mc.alias, mc.default_ram_id) = (8, Some("tm"), Some("test.ram"));
        mc.smp.dies = true;
        mc.default_boot_order = Some("cad");
        mc.init = |machine, m| {
            let ram = machine.ram()?;
            machine.core().system_memory().add_subregion(m, 0, &ram);
            Ok(())
        };
    }
}

fn smp(text: &[(&str, &str)]) -> Result<(u32, u32, u32, u32, u32), String> {
    let vm = Vm::new();
    let machine = Machine::create(vm.world().scope(), "test-machine").map_err(|e| e.to_string())?;
    let keys = text.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect::<serde_json::Map<_, _>>();
    machine.set_input("smp", qom::Input::Keyval(&keys.into())).map_err(|e| e.to_string())?;
    let t = machine.topology();
    Ok((t.cpus, t.sockets, t.cores, t.threads, t.max_cpus))
}

#[test]
fn smp_fills_in_what_is_missing_and_refuses_nonsense() {
    assert_eq!(smp(&[("cpus", "4")]), Ok((4, 1, 4, 1, 4)));
    assert_eq!(smp(&[("cpus", "2"), ("maxcpus", "8"), ("threads", "2")]), Ok((2, 1, 4, 2, 8)));
    assert_eq!(smp(&[("sockets", "2"), ("cores", "2")]), Ok((4, 2, 2, 1, 4)));
    assert_eq!(smp(&[("cpus", "4"), ("dies", "2"), ("cores", "2")]), Ok((4, 1, 2, 1, 4)));
    let e = |t: &[(&str, &str)]| smp(t).unwrap_err();
    assert!(e(&[("cpus", "0")]).contains("greater than zero"));
    assert!(
        e(&[("cpus", "4"), ("sockets", "3"), ("cores", "1"), ("threads", "1")])
            .contains("product of the hierarchy must match maxcpus")
    );
    assert!(e(&[("cpus", "8"), ("maxcpus", "4")]).contains("maxcpus must be equal to or greater than smp"));
    assert!(e(&[("cpus", "9")]).contains("The max CPUs supported by machine 'test' is 8"));
    assert!(e(&[("cpus", "4"), ("clusters", "2")]).contains("clusters > 1 not supported"));
    assert!(e(&[("cpus", "4"), ("cors", "2")]).contains("cors"));
    assert!(e(&[("sockets", "4294967296"), ("cores", "4294967296")]).contains("too large"));
}

#[test]
fn machines_are_found_by_name_and_alias() {
    assert_eq!(machine::find_machine("tm").unwrap().name(), "test-machine");
    assert_eq!(machine::find_machine("none").unwrap().name(), "none-machine");
    let e = machine::find_machine("nome").unwrap_err().to_string();
    assert_eq!(e, "unsupported machine type: \"nome\" (did you mean 'none'?)");
}

#[test]
fn memory_comes_from_a_back_end_of_the_right_size() {
    let vm = Vm::new();
    let machine = Machine::create(vm.world().scope(), "test-machine").unwrap();
    machine.set_str("memory.size", "1M").unwrap();
    assert!(machine.set_str("memory.max-size", "1k").is_err());
    assert!(machine.set("boot", json!({ "order": "cc" })).unwrap_err().to_string().contains("given twice"));
    machine.set_up_memory().unwrap();
    machine.run_board_init(&mut vm.core().lock()).unwrap();
    let backend = vm.world().resolve("/objects/test.ram").unwrap();
    assert_eq!((backend.type_name(), backend.get("size").unwrap()), ("memory-backend-ram", json!(1 << 20)));
    assert_eq!(machine.get("memory-backend").unwrap(), "/objects/test.ram");
    assert_eq!(vm.world().resolve("/objects/test.ram/test.ram[0]").unwrap().type_name(), "memory-region");
    assert!(vm.world().object_del("test.ram").is_err());
    assert_eq!(vm.memory.view().ranges().len(), 1);
    let mut small = serde_json::Map::new();
    small.insert("size".into(), json!(4096));
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().contains("/memfd:");
    assert!(!mapped());
    vm.world().object_add("memory-backend-memfd", "m", &small, false).unwrap();
    assert!(mapped());
    assert_eq!(vm.world().resolve("/objects/m").unwrap().get("share").unwrap(), true);
    small.insert("policy".into(), json!("bind"));
    assert!(vm.world().object_add("memory-backend-ram", "n", &small, false).unwrap_err().to_string().contains("NUMA"));
}

#[test]
fn images_are_written_at_reset_also_into_rom() {
    let vm = none();
    let owner = vm.machine().unwrap().unattached().unwrap();
    let rom = MemoryRegion::rom(&*owner, "bios", 0x1000).unwrap();
    vm.system_memory().add_subregion(&mut vm.core().lock(), 0xf000, &rom);
    vm.roms.add_blob("boot", &[1, 2, 3, 4], 0xf010).unwrap();
    vm.roms.add_to_region("bios", &[9], &rom).unwrap();
    let e = vm.roms.add_blob("late", &[0; 16], 0xf008).unwrap_err().to_string();
    assert!(e.starts_with("ROM images must not overlap: 'late'"), "{e}");
    assert!(vm.roms.add_to_region("big", &[0; 0x2000], &rom).is_err());
    let name = "etc/file".to_owned();
    vm.roms.add(Rom { name: name.clone(), data: [5].into(), size: 16, place: RomPlace::FwCfg(name) }).unwrap();
    vm.machine().unwrap().reset(&mut vm.core().lock(), ShutdownCause::None);
    assert_eq!(vm.memory.load(&mut vm.core().lock(), 0xf010, 4), Ok(0x0403_0201));
    assert_eq!(vm.memory.load(&mut vm.core().lock(), 0xf000, 1), Ok(9));
    assert_eq!(vm.roms.list().iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["boot", "bios", "etc/file"]);
    let dir = std::env::temp_dir().join(format!("hw-core-img-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("a"), [7; 10]).unwrap();
    std::fs::write(dir.join("empty"), []).unwrap();
    assert_eq!(vm.roms.add_file(&dir.join("a"), 0x1000).unwrap(), 10);
    assert!(Roms::read_file(&dir.join("a"), 9).unwrap_err().to_string().contains("larger than 9"));
    assert!(Roms::read_file(&dir.join("empty"), 9).unwrap_err().to_string().contains("empty"));
    assert!(Roms::read_file(&dir.join("none"), 9).unwrap_err().to_string().contains("Could not open"));
    std::fs::remove_dir_all(dir).unwrap();
}

/// An SMBus memory of 256 bytes with an address pointer.
#[derive(Object)]
#[qom(name = "test-eeprom", parent = SmbusDevice, methods(SmbusClass))]
struct Eeprom {
    parent: SmbusDevice,
    cells: Mutex<(u8, Vec<u8>)>,
}

impl SmbusImpl for Eeprom {
    fn write_data(&self, _: &mut Locked, bytes: &[u8]) -> Result<(), Nack> {
        let mut c = self.cells.lock();
        c.1.resize(256, 0);
        let [at, data @ ..] = bytes else { return Err(Nack) };
        c.0 = *at;
        for b in data {
            let at = usize::from(c.0);
            c.1[at] = *b;
            c.0 = c.0.wrapping_add(1);
        }
        Ok(())
    }
    fn receive_byte(&self, _: &mut Locked) -> u8 {
        let mut c = self.cells.lock();
        let at = usize::from(c.0);
        c.0 = c.0.wrapping_add(1);
        c.1.get(at).copied().unwrap_or(0xff)
    }
}

fn bridge(vm: &Vm) -> Ref<SysBusDevice> {
    let b: Ref<SysBusDevice> = vm.world().object_new_as("isabus-bridge").unwrap();
    b.realize_sysbus(&mut vm.core().lock()).unwrap();
    b
}

#[test]
fn smbus_protocols_reach_the_addressed_slave() {
    let vm = none();
    let bus = I2cBus::create(&bridge(&vm), "i2c").unwrap();
    let mut m = vm.core().lock();
    bus.create_slave(&mut m, "test-eeprom", 0x50).unwrap();
    assert_eq!(bus.write_byte(&mut m, 0x51, 0, 0), Err(Nack));
    bus.write_byte(&mut m, 0x50, 4, 0xab).unwrap();
    bus.write_word(&mut m, 0x50, 5, 0x1234).unwrap();
    bus.write_block(&mut m, 0x50, 8, &[7, 8, 9], true).unwrap();
    assert_eq!(bus.read_byte(&mut m, 0x50, 4), Ok(0xab));
    assert_eq!(bus.read_word(&mut m, 0x50, 5), Ok(0x1234));
    assert_eq!(bus.read_block(&mut m, 0x50, Some(8), 32, true), Ok(vec![7, 8, 9]));
    assert_eq!(bus.read_block(&mut m, 0x50, Some(8), 2, false), Ok(vec![3, 7]));
    bus.send_byte(&mut m, 0x50, 5).unwrap();
    assert_eq!(bus.receive_byte(&mut m, 0x50), Ok(0x34));
    bus.quick(&mut m, 0x50, true).unwrap();
    bus.start(&mut m, 0x50, false).unwrap();
    assert_eq!((bus.recv(&mut m), bus.is_busy(&m)), (0xff, true)); // written, not read
    assert!((0..34).all(|_| bus.send(&mut m, 0).is_ok()));
    assert_eq!(bus.send(&mut m, 0), Err(Nack)); // longer than any SMBus write
    bus.end(&mut m);
    assert!(!bus.is_busy(&m));
}
