//! Devices from the outside: a latch on the ISA bus and a timer on the system bus, through realize, access, reset,
//! snapshot, hotplug and DMA.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use hw_core::memory::Attrs;
use hw_core::*;
use qom::{Class, Link, Object, Prop, Result};
use serde::{Deserialize, Serialize};

/// One byte that reads back; offset 1 reads where it is told, by DMA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LatchRegs {
    code: u8,
    status: u8,
}

#[derive(Object)]
#[qom(name = "test-latch", parent = IsaDevice, methods(DeviceClass), class_init = Latch::class_init)]
struct Latch {
    parent: IsaDevice,
    #[property(default = 0x80)]
    iobase: Prop<u16>,
    #[state]
    regs: MachineCell<LatchRegs>,
}

impl Latch {
    fn class_init(c: &mut Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Misc];
        d.alias = Some("latch");
    }
    fn read(&self, m: &mut Locked, off: u64, _: u32) -> u64 {
        let r = self.regs.ro(m);
        if off == 0 { r.code.into() } else { r.status.into() }
    }
    fn write(&self, m: &mut Locked, off: u64, _: u32, val: u64) {
        match off {
            0 => self.regs.rw(m).code = val as u8,
            1 => {
                let io = self.core().io.clone();
                let failed = io.load(m, val * 0x100, 1) == Err(MemTxError::Busy);
                self.regs.rw(m).status = failed.into();
            }
            _ => panic!("a bug in a handler"),
        }
    }
}

impl DeviceImpl for Latch {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        let ops = Ops { read: Self::read, write: Self::write, imp: Sizes::new(1, 1), ..Ops::default() };
        let region = MemoryRegion::io(self, "latch", 3, ops);
        self.map_io(m, self.iobase.get().into(), &region)
    }
    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
    }
    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            *self.regs.rw(m) = LatchRegs::default();
        }
    }
}

/// A timer that ticks every `period` ns once started; MMIO register 0 is the tick count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct TickRegs {
    ticks: u32,
    next: Option<u64>,
}

#[derive(Object)]
#[qom(name = "test-ticker", parent = SysBusDevice, methods(DeviceClass), instance_init = Ticker::instance_init)]
struct Ticker {
    parent: SysBusDevice,
    #[property(default = 1000)]
    period: Prop<u64>,
    #[property(link)]
    peer: Link<Latch>,
    #[state]
    regs: MachineCell<TickRegs>,
    irq: IrqOut,
    timer: Timer,
}

impl Ticker {
    fn instance_init(&self) -> Result<()> {
        self.init_irq(&self.irq);
        self.gpio_in("start", 1, Self::start);
        self.timer.init(self, Self::expired);
        Ok(())
    }
    fn start(&self, m: &mut Locked, _: usize, on: bool) {
        let next = on.then(|| m.clock.now() + self.period.get());
        self.regs.rw(m).next = next;
        self.timer.arm(m, next);
    }
    fn expired(&self, m: &mut Locked) {
        let next = m.clock.now() + self.period.get();
        let r = self.regs.rw(m);
        r.ticks += 1;
        r.next = Some(next);
        self.timer.arm(m, Some(next));
        self.irq.pulse(m);
    }
    fn read(&self, m: &mut Locked, _: u64, _: u32) -> u64 {
        self.regs.ro(m).ticks.into()
    }
}

impl DeviceImpl for Ticker {
    fn realize(&self, _: &mut Locked) -> Result<()> {
        if self.period.get() == 0 {
            return Err("period must not be 0".into());
        }
        self.init_mmio(&MemoryRegion::io(self, "ticker", 0x1000, Ops { read: Self::read, ..Ops::default() }));
        Ok(())
    }
    fn reset(&self, m: &mut Locked, phase: Phase) {
        match phase {
            Phase::Enter => *self.regs.rw(m) = TickRegs::default(),
            Phase::Hold => self.timer.arm(m, None),
            Phase::Exit => {}
        }
    }
    fn post_load(&self, m: &mut Locked) -> Result<()> {
        let next = self.regs.ro(m).next;
        self.timer.arm(m, next);
        Ok(())
    }
}

/// A machine with an ISA bus and a ticker at 0xfeb0_0000.
fn board(globals: &[(&str, &str, &str)]) -> (Vm, qom::Ref<Ticker>) {
    let vm = Vm::with_machine("none", globals).unwrap();
    let mut m = vm.core().lock();
    let bridge: qom::Ref<SysBusDevice> = vm.world().object_new_as("isabus-bridge").unwrap();
    bridge.realize_sysbus(&mut m).unwrap();
    IsaBus::create(&bridge, &vm.system_memory(), &vm.system_io()).unwrap();
    let ticker: qom::Ref<Ticker> = vm.world().object_new_as("test-ticker").unwrap();
    ticker.realize_sysbus(&mut m).unwrap();
    ticker.mmio_map(&mut m, 0, 0xfeb0_0000).unwrap();
    drop(m);
    (vm, ticker)
}

fn inb(vm: &Vm, port: u64) -> u64 {
    vm.io.cpu_load(port, 1, Attrs::cpu(0)).unwrap()
}

fn outb(vm: &Vm, port: u64, val: u64) {
    vm.io.cpu_store(port, 1, val, Attrs::cpu(0)).unwrap();
}

#[test]
fn realizing_is_more_than_the_types_own_method() {
    let (vm, _) = board(&[]);
    let mut m = vm.lock();
    // (`DeviceImpl` is in scope here: what it calls `realize` is the type's part only.)
    let bad: qom::Ref<Ticker> = vm.world().object_new_as("test-ticker").unwrap();
    bad.set("period", serde_json::json!(0)).unwrap();
    assert_eq!(bad.qdev_realize(&mut m).unwrap_err().to_string(), "period must not be 0");
    assert!(!bad.is_realized() && bad.parent().is_none());
    let good: qom::Ref<Ticker> = vm.world().object_new_as("test-ticker").unwrap();
    good.qdev_realize(&mut m).unwrap();
    assert!(good.is_realized() && good.path().starts_with("/machine/unattached/"));
    assert!(good.set("period", serde_json::json!(5)).is_err(), "a property was changed after realize");
    good.qdev_unrealize(&mut m);
    assert!(!good.is_realized());
    good.set("period", serde_json::json!(5)).unwrap();
}

#[test]
fn latch_reads_back_until_reset() {
    let (vm, _) = board(&[("test-latch", "iobase", "0x300")]); // -global
    let post = vm.device_add("latch", Some("post"), &[]).unwrap();
    outb(&vm, 0x300, 0x55);
    assert_eq!(inb(&vm, 0x300), 0x55);
    assert_eq!(inb(&vm, 0x80), 0xff); // nobody there
    reset_all(&vm.root(), &mut vm.core().lock());
    assert_eq!(inb(&vm, 0x300), 0);
    let e = post.set_str("iobase", "0x80").unwrap_err();
    assert!(e.to_string().contains("after it was realized"), "{e}");
    assert_eq!(post.path(), "/machine/peripheral/post");
    assert_eq!(post.get("parent_bus").unwrap(), "/machine/unattached/device[0]/isa.0");
    let system_reset = |vm: &Vm| vm.machine().unwrap().reset(&mut vm.core().lock(), ShutdownCause::GuestReset);
    outb(&vm, 0x300, 7);
    system_reset(&vm);
    assert_eq!(inb(&vm, 0x300), 0);
}

#[test]
fn dma_at_its_own_registers_is_a_bus_error_and_the_device_works_on() {
    let (vm, _) = board(&[]);
    vm.device_add("test-latch", None, &[("iobase", "0x300")]).unwrap();
    vm.device_add("test-latch", None, &[("iobase", "0x400")]).unwrap();
    outb(&vm, 0x301, 3);
    assert_eq!(inb(&vm, 0x301), 1);
    outb(&vm, 0x301, 4); // the other one answers
    assert_eq!(inb(&vm, 0x301), 0);
}

#[test]
fn a_panic_in_a_handler_asks_for_internal_error_and_frees_the_device() {
    let (vm, _) = board(&[]);
    vm.device_add("test-latch", None, &[]).unwrap();
    assert_eq!(vm.io.cpu_store(0x82, 1, 0, Attrs::cpu(0)), Err(MemTxError::Device));
    assert!(matches!(vm.requests.take(), Some(Request::InternalError(e)) if e.contains("latch")));
    outb(&vm, 0x80, 9);
    assert_eq!(inb(&vm, 0x80), 9);
}

#[test]
fn timer_ticks_raise_the_line_also_after_a_snapshot() {
    let (vm, ticker) = board(&[]);
    let edges = Arc::new(AtomicU32::new(0));
    let count = edges.clone();
    ticker.connect_irq(0, Line::new(move |_, on| _ = count.fetch_add(on.into(), Relaxed))).unwrap();
    assert_eq!(ticker.get("sysbus-irq[0]").unwrap(), "/machine/unattached/non-qdev-gpio[0]");
    assert_eq!(vm.world().resolve("/machine/unattached/device[1]/start[0]").unwrap().type_name(), "irq");
    vm.clocks.start();
    let mut m = vm.core().lock();
    ticker.gpio_in_line("start", 0).unwrap().set(&mut m, true);
    m.advance(10_500);
    assert_eq!(edges.load(Relaxed), 10);
    let snap = save(&vm.root(), &m).unwrap();
    reset_all(&vm.root(), &mut m);
    m.advance(5_000);
    assert_eq!(edges.load(Relaxed), 10);
    let mut broken = snap.clone();
    broken["objects"]["/machine/unattached/device[1]"]["test-ticker.regs"]["ticks"] = "many".into();
    assert!(load(&vm.root(), &mut m, &broken).is_err());
    assert_eq!(ticker.regs.ro(&m).ticks, 0);
    load(&vm.root(), &mut m, &snap).unwrap();
    assert_eq!((ticker.regs.ro(&m).ticks, m.clock.now()), (10, 10_500));
    m.advance(1_000);
    assert_eq!(edges.load(Relaxed), 11);
    assert_eq!(
        save(&vm.root(), &m).unwrap()["objects"]["/machine/unattached/device[1]"]["test-ticker.regs"]["ticks"],
        11
    );
}

#[test]
fn lines_can_be_watched_and_rewired() {
    let (vm, ticker) = board(&[]);
    let seen = Arc::new(AtomicU32::new(0));
    let add = |by: u32| {
        let seen = seen.clone();
        move |_: &mut Locked, on: bool| _ = seen.fetch_add(u32::from(on) * by, Relaxed)
    };
    let mut m = vm.core().lock();
    ticker.irq.watch(Some(Arc::new(add(100))));
    ticker.connect_irq(0, Line::new(add(1))).unwrap();
    ticker.irq.pulse(&mut m);
    assert_eq!(seen.load(Relaxed), 101);
    ticker.irq.watch(None);
    let line = Line::new(add(10));
    line.watch(Some(Arc::new(add(1000))));
    ticker.connect_irq(0, line).unwrap();
    ticker.irq.pulse(&mut m);
    assert_eq!(seen.load(Relaxed), 1111);
}

#[test]
fn device_add_says_what_is_wrong_and_leaves_nothing() {
    let (vm, _) = board(&[]);
    let e = |driver: &str, id, props: &[(&str, &str)]| vm.device_add(driver, id, props).unwrap_err().to_string();
    assert!(
        e("test-latsh", None, &[])
            .starts_with("'test-latsh' is not a valid device model name (did you mean 'test-latch'")
    );
    assert_eq!(e("device", None, &[]), "Parameter 'driver' expects a non-abstract device type");
    assert_eq!(e("test-ticker", None, &[]), "Parameter 'driver' expects a pluggable device type");
    assert_eq!(e("test-latch", None, &[("bus", "isa.7")]), "Bus 'isa.7' not found");
    assert_eq!(e("test-latch", None, &[("bus", "main-system-bus")]), "Device 'test-latch' can't go on System bus");
    assert!(e("test-latch", None, &[("iobase", "70000")]).contains("iobase"));
    assert!(e("test-latch", None, &[("base", "7")]).contains("Property 'test-latch.base' not found"));
    assert!(e("test-latch", Some("1x"), &[]).contains("identifier"));
    vm.device_add("test-latch", Some("a"), &[("bus", "isa.0"), ("iobase", "0x90")]).unwrap();
    assert_eq!(e("test-latch", Some("a"), &[]), "Duplicate device ID 'a'");
    assert_eq!(vm.world().resolve("/machine/peripheral-anon").unwrap().children().len(), 0);
    assert_eq!(hw_core::qdev::find_bus(vm.world().scope(), "isa.0").unwrap().devices().len(), 1);
}

#[test]
fn removed_devices_answer_no_more_and_are_freed() {
    let (vm, _) = board(&[]);
    let deleted = Arc::new(AtomicU32::new(0));
    let count = deleted.clone();
    vm.events.device_deleted.add(move |_, d| _ = count.fetch_add((d.id.as_deref() == Some("a")).into(), Relaxed));
    let dev = vm.device_add("test-latch", Some("a"), &[]).unwrap();
    let weak = Arc::downgrade(qom::Ref::object(&dev));
    dev.remove(&mut vm.core().lock());
    drop(dev);
    assert_eq!((inb(&vm, 0x80), deleted.load(Relaxed)), (0xff, 1));
    assert!(weak.upgrade().is_none());
}

#[test]
fn a_dropped_machine_frees_its_devices() {
    let (vm, ticker) = board(&[]);
    vm.device_add("test-latch", None, &[]).unwrap();
    let weak = Arc::downgrade(qom::Ref::object(&ticker));
    drop((vm, ticker));
    assert!(weak.upgrade().is_none());
}

#[test]
fn two_devices_cannot_share_the_lock_of_two_machines() {
    let (a, ticker) = board(&[]);
    let (b, _) = board(&[]);
    let m = b.core().lock();
    let wrong = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ticker.regs.ro(&m).ticks));
    assert!(wrong.is_err());
    drop(m);
    assert_eq!(ticker.regs.ro(&a.core().lock()).ticks, 0);
}
