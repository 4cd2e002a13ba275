//! The PC's legacy devices as objects on a small board: ISA bridge, 8259 pair, timers, clock, DMA, APICs. The board is wired as `pc` is.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hw::dma::i8257::i8257_dma_init;
use hw::intc::apic::{Apic, cpu_interrupt_line};
use hw::intc::i8259::{I8259, i8259_init};
use hw::intc::ioapic::Ioapic;
use hw::intc::stats::InterruptStats;
use hw::rtc::mc146818rtc::Mc146818Rtc;
use hw::timer::hpet::Hpet;
use hw::timer::i8254::{Pit, PitCommon};
use hw_core::config::{BoardConfig, RtcBase, RtcConfig};
use hw_core::cpu::interrupt;
use hw_core::isa::{IsaBridge, isa_create_simple};
use hw_core::memory::Attrs;
use hw_core::{ClockType, Cpu, Device, IsaBus, Line, Locked, MemoryRegion, RunState, SysBusDevice, Vm, irq};
use parking_lot::Mutex;
use qom::{ObjRef, Ref};

/// A CPU without instructions.
#[derive(qom::Object)]
#[qom(name = "test-cpu", parent = Cpu)]
struct TestCpu {
    parent: Cpu,
}

struct Board {
    vm: Vm,
    isa: Ref<IsaBus>,
    pic: Ref<I8259>,
    gsi: Vec<Line>,
}

const MS: u64 = 1_000_000;

fn sysbus<T: qom::Kind>(m: &mut Locked, vm: &Vm, name: &str, at: u64, props: &[(&str, &str)]) -> Ref<T> {
    let o = vm.world().scope().object_new(name).unwrap();
    for (k, v) in props {
        o.set_str(k, v).unwrap();
    }
    let dev = o.cast::<SysBusDevice>().unwrap();
    dev.realize_sysbus(m).unwrap();
    dev.mmio_map(m, 0, at).unwrap();
    Ref::new(o).unwrap()
}

fn as_bus(isa: &Ref<IsaBus>) -> Ref<hw_core::Bus> {
    Ref::new(Ref::object(isa).clone()).unwrap()
}

impl Board {
    fn new(cpus: u32) -> Self {
        let vm = Vm::new();
        vm.clocks.set_stepped();
        let rtc = RtcConfig { base: RtcBase::Date(1_000_000_000), clock: ClockType::Virtual }; // 2001-09-09 01:46:40
        vm.configure(BoardConfig { rtc, ..BoardConfig::default() });
        vm.requests.set_state(RunState::Running);
        let scope = vm.world().scope().clone();
        let (isa, pic, gsi) = {
            let mut m = vm.core().lock();
            for n in 0..cpus {
                let cpu = scope.object_new("test-cpu").unwrap();
                cpu.cast::<Device>().unwrap().qdev_realize(&mut m).unwrap();
                let apic = scope.object_new("apic").unwrap();
                cpu.add_child("lapic", &apic).unwrap();
                apic.set_str("id", &n.to_string()).unwrap();
                apic.cast::<Device>().unwrap().qdev_realize(&mut m).unwrap();
            }
            let bridge = scope.object_new_as::<IsaBridge>("isabus-bridge").unwrap();
            bridge.realize_sysbus(&mut m).unwrap();
            let isa = IsaBus::create(&bridge, &vm.system_memory(), &vm.system_io()).unwrap();
            let (pic, lines) = i8259_init(&mut m, &isa, cpu_interrupt_line(&scope)).unwrap();
            let ioapic: Ref<Ioapic> = sysbus(&mut m, &vm, "ioapic", 0xfec0_0000, &[]);
            let gsi: Vec<Line> = (0..24)
                .map(|n| {
                    let mut to = vec![ioapic.gpio_in_line("", n).unwrap()];
                    to.extend(lines.get(n).cloned());
                    irq::split(to)
                })
                .collect();
            isa.register_input_irqs(gsi[..16].to_vec());
            (isa, pic, gsi)
        };
        let board = Self { vm, isa, pic, gsi };
        board.reset();
        board
    }

    fn reset(&self) {
        self.vm.resets.run(&mut self.vm.core().lock());
        for cpu in self.vm.cpus.list() {
            let apic = cpu.child("lapic").unwrap();
            hw_core::qdev::reset_object(&apic, &mut self.vm.core().lock());
        }
    }

    /// HPET, PIT and RTC, wired through each other.
    fn timers(&self) -> (Ref<Hpet>, Ref<Pit>, Ref<Mc146818Rtc>) {
        let scope = self.vm.world().scope();
        let found = {
            let mut m = self.vm.core().lock();
            let hpet: Ref<Hpet> = sysbus(&mut m, &self.vm, "hpet", 0xfed0_0000, &[("hpet-intcap", "4")]);
            for (n, g) in self.gsi.iter().enumerate() {
                hpet.connect_irq(n, g.clone()).unwrap();
            }
            let pit = scope.object_new("isa-pit").unwrap();
            pit.set_str("iobase", "0x40").unwrap();
            let dev = pit.cast::<Device>().unwrap();
            dev.realize_on(&mut m, &as_bus(&self.isa)).unwrap();
            dev.connect("", 0, hpet.gpio_in_line("", 0).unwrap()).unwrap();
            hpet.connect("", 0, dev.gpio_in_line("", 0).unwrap()).unwrap();
            let rtc = scope.object_new("mc146818rtc").unwrap();
            rtc.set_str("base_year", "0").unwrap();
            let dev = rtc.cast::<Device>().unwrap();
            dev.realize_on(&mut m, &as_bus(&self.isa)).unwrap();
            dev.connect("", 0, hpet.gpio_in_line("", 1).unwrap()).unwrap();
            (hpet, Ref::new(pit).unwrap(), Ref::new(rtc).unwrap())
        };
        self.reset();
        found
    }

    fn outb(&self, port: u64, v: u8) {
        self.vm.io.cpu_store(port, 1, v.into(), Attrs::cpu(0)).unwrap();
    }
    fn inb(&self, port: u64) -> u8 {
        self.vm.io.cpu_load(port, 1, Attrs::cpu(0)).unwrap() as u8
    }
    fn store(&self, addr: u64, v: u32) {
        self.vm.memory.cpu_store(addr, 4, v.into(), Attrs::cpu(0)).unwrap();
    }
    fn load(&self, addr: u64) -> u32 {
        self.vm.memory.cpu_load(addr, 4, Attrs::cpu(0)).unwrap() as u32
    }
    fn step(&self, ns: u64) {
        self.vm.core().lock().advance(ns);
    }
    fn cpu(&self, n: u32) -> Ref<Cpu> {
        self.vm.cpus.get(n).unwrap()
    }
    fn pending(&self, n: u32) -> u32 {
        self.cpu(n).pending()
    }
    /// 8259 pair at vectors 0x20 and 0x28, nothing masked; LINT0 of CPU 0 passes it on.
    fn init_pics(&self) {
        for (port, vals) in [(0x20, [0x11, 0x20, 4, 1]), (0xa0, [0x11, 0x28, 2, 1])] {
            self.outb(port, vals[0]);
            vals[1..].iter().for_each(|v| self.outb(port + 1, *v));
        }
        self.store(0xfee0_00f0, 0x1ff);
        self.store(0xfee0_0350, 0x700);
    }
    fn ack(&self) -> u8 {
        self.vm.pic_acknowledge(&mut self.vm.core().lock()).unwrap()
    }
    fn set_gsi(&self, n: usize, level: bool) {
        self.gsi[n].set(&mut self.vm.core().lock(), level);
    }
}

fn device(o: &ObjRef) -> &Device {
    o.cast().unwrap()
}

#[test]
fn slave_request_reaches_the_cpu_and_is_acknowledged_in_both() {
    let b = Board::new(1);
    b.init_pics();
    assert_eq!(b.pending(0) & interrupt::HARD, 0);
    b.set_gsi(12, true);
    assert_ne!(b.pending(0) & interrupt::HARD, 0);
    assert!(b.cpu(0).local_apic().unwrap().pic_pending());
    assert_eq!(b.ack(), 0x2c);
    assert_eq!(b.pending(0) & interrupt::HARD, 0);
    for port in [0x20, 0xa0] {
        b.outb(port, 0x0b);
    }
    assert_eq!((b.inb(0x20), b.inb(0xa0)), (0x04, 0x10));
    b.outb(0xa0, 0x20);
    b.outb(0x20, 0x20);
    assert_eq!((b.inb(0x20), b.inb(0xa0)), (0, 0));
    assert_eq!(b.ack(), 0x27); // spurious
    let counts = b.pic.statistics(&mut b.vm.core().lock());
    assert_eq!(counts[2], 1);
}

#[test]
fn elcr_keeps_only_the_inputs_that_may_be_level() {
    let b = Board::new(1);
    for (port, got) in [(0x4d0, 0xf8), (0x4d1, 0xde)] {
        b.outb(port, 0xff);
        assert_eq!(b.inb(port), got);
    }
    b.reset();
    assert_eq!(b.inb(0x4d0), 0);
}

#[test]
fn pic_properties_and_names_are_qemus() {
    let b = Board::new(1);
    let o = Ref::object(&b.pic);
    assert_eq!(o.get("elcr_addr").unwrap(), 0x4d0);
    assert_eq!(o.get("master").unwrap(), true);
    for child in ["pic[0]", "elcr[0]", "unnamed-gpio-in[7]"] {
        assert!(o.child(child).is_some(), "{child}");
    }
    assert!(o.is_a("pic-common") && o.is_a("intctrl") && device(o).is_realized());
    assert!(!device(o).is_hotpluggable());
}

#[test]
fn pit_ticks_reach_irq_0_at_its_rate() {
    let b = Board::new(1);
    let _devices = b.timers();
    b.init_pics();
    for (port, v) in [(0x43, 0x34), (0x40, 0xa9), (0x40, 0x04)] {
        b.outb(port, v); // mode 2, 1193 clocks: 1 ms
    }
    let mut ticks = 0;
    for _ in 0..1000 {
        b.step(MS / 10);
        if b.pending(0) & interrupt::HARD != 0 {
            assert_eq!(b.ack(), 0x20);
            b.outb(0x20, 0x20);
            ticks += 1;
        }
    }
    assert!((99..=101).contains(&ticks), "{ticks}");
}

/// Times at which line `n` rises while the clock jumps by `late`, then runs for `then`.
fn rises(b: &Board, n: usize, late: u64, then: u64) -> Vec<u64> {
    let seen = Arc::new(Mutex::new((b.gsi[n].level(), vec![])));
    let (to, clocks) = (seen.clone(), b.vm.clocks.clone());
    b.gsi[n].watch(Some(Arc::new(move |_: &mut Locked, level: bool| {
        let mut seen = to.lock();
        if level && !seen.0 {
            seen.1.push(clocks.now());
        }
        seen.0 = level;
    })));
    let m = &mut b.vm.lock();
    b.vm.clocks.restore(b.vm.clocks.now() + late); // as if nobody had served the timers
    b.vm.clocks.run_clock(ClockType::Virtual, m);
    b.vm.clocks.step(m, then);
    b.gsi[n].watch(None);
    std::mem::take(&mut seen.lock().1)
}

#[test]
fn ticks_that_a_late_host_missed_are_made_up_for() {
    for mode in [0x34, 0x36] {
        let b = Board::new(1);
        let _devices = b.timers();
        for (port, v) in [(0x43, mode), (0x40, 0x00), (0x40, 0x10)] {
            b.outb(port, v); // 4096 clocks: 3.4 ms
        }
        let period = 4096 * 1_000_000_000 / 1_193_182 + 1;
        assert_eq!(rises(&b, 0, 0, 20 * period + 9).len(), 20, "mode {mode:#x}");
        let start = b.vm.clocks.now();
        // Ten ticks late: one at once, nine within three periods, and those of that time.
        let ticks = rises(&b, 0, 10 * period + 9, 6 * period + 9);
        assert_eq!(ticks.len(), 16, "mode {mode:#x}: {ticks:?}");
        assert!(ticks[12] < start + 14 * period, "mode {mode:#x}: {ticks:?}");
        assert!(ticks.windows(2).all(|t| t[1] - t[0] > period / 16), "{ticks:?}");
    }
}

#[test]
fn hpet_ticks_that_a_late_host_missed_are_made_up_for() {
    let b = Board::new(1);
    let _devices = b.timers();
    for (at, v) in [(0x100, 0x14c), (0x108, 400_000), (0x10, 3)] {
        b.store(0xfed0_0000 + at, v); // timer 0: every 4 ms, in the PIT's place
    }
    assert_eq!(rises(&b, 0, 0, 40 * MS + 1).len(), 10);
    assert_eq!(rises(&b, 0, 20 * MS, 8 * MS).len(), 7); // 5 late ones, 2 more
}

#[test]
fn counter_2_shows_in_port_61() {
    let b = Board::new(1);
    let (_, pit, _) = b.timers();
    {
        let spk = b.vm.world().scope().object_new("isa-pcspk").unwrap();
        spk.set_str("pit", &Ref::object(&pit).path()).unwrap();
        device(&spk).realize_on(&mut b.vm.core().lock(), &as_bus(&b.isa)).unwrap();
    }
    b.outb(0x61, 0x01);
    for v in [(0x43, 0xb0), (0x42, 0xff), (0x42, 0x00)] {
        b.outb(v.0, v.1); // mode 0, 255 clocks
    }
    assert_eq!(b.inb(0x61) & 0x21, 0x01);
    b.step(213 * 1000);
    assert_eq!(b.inb(0x61) & 0x21, 0x01);
    b.step(1000);
    assert_eq!(b.inb(0x61) & 0x21, 0x21);
    b.outb(0x61, 0xfe);
    assert_eq!(b.inb(0x61) & 0x0f, 0x0e);
    let first = b.inb(0x61) & 0x10;
    b.step(15_086);
    assert_ne!(b.inb(0x61) & 0x10, first);
    assert!(!PitCommon::gate(&pit, &b.vm.core().lock(), 2));
}

#[test]
fn hpet_replaces_pit_and_rtc() {
    let b = Board::new(1);
    let _devices = b.timers();
    b.init_pics();
    for (port, v) in [(0x43, 0x34), (0x40, 0x00), (0x40, 0x10)] {
        b.outb(port, v);
    }
    assert_eq!(b.ack(), 0x20); // OUT rose with the control word
    b.outb(0x20, 0x20);
    b.store(0xfed0_0108, 100_000); // timer 0: after 1 ms, one-shot
    b.store(0xfed0_010c, 0);
    b.store(0xfed0_0100, 4);
    b.store(0xfed0_0010, 3);
    b.step(MS - 10);
    assert_eq!(b.pending(0) & interrupt::HARD, 0);
    b.step(10);
    assert_eq!(b.ack(), 0x20);
    b.outb(0x20, 0x20);
    b.step(100 * MS); // the PIT is silent
    assert_eq!(b.pending(0) & interrupt::HARD, 0);
    b.store(0xfed0_0010, 1);
    b.step(100 * MS); // and is heard again
    assert_eq!(b.ack(), 0x20);
    assert_eq!(b.load(0xfed0_0004), 10_000_000);
}

#[test]
fn rtc_interrupts_on_irq_8_and_keeps_time() {
    let b = Board::new(1);
    let (_, _, rtc) = b.timers();
    b.init_pics();
    b.outb(0x21, 0xfb); // not the PIT
    let cmos = |i: u8| {
        b.outb(0x70, i);
        b.inb(0x71)
    };
    assert_eq!([0x32, 9, 8, 7, 4, 2, 0].map(cmos), [0x20, 0x01, 0x09, 0x09, 0x01, 0x46, 0x40]);
    b.step(3 * 1000 * MS);
    assert_eq!(cmos(0), 0x43);
    b.outb(0x70, 0x0b);
    b.outb(0x71, 0x42); // periodic, 1024 Hz
    cmos(0x0c);
    b.step(MS);
    assert_eq!(b.ack(), 0x28);
    assert_eq!(cmos(0x0c), 0xc0);
    assert_eq!(Ref::object(&rtc).get("date").unwrap()["tm_sec"], 43);
    rtc.set_cmos(&mut b.vm.core().lock(), 0x5f, 0xa5);
    assert_eq!(cmos(0x5f), 0xa5);
    b.outb(0x70, 0x0b);
    b.outb(0x71, 0x02);
    let told = Arc::new(AtomicU32::new(0));
    let count = told.clone();
    b.vm.set_event_sink(Box::new(move |event, data| {
        assert_eq!(event, "RTC_CHANGE");
        count.store(data["offset"].as_u64().unwrap() as u32, Ordering::Relaxed);
    }));
    b.outb(0x70, 2);
    b.outb(0x71, 0x47); // a minute ahead
    assert_eq!(told.load(Ordering::Relaxed), 60);
}

#[test]
fn dma_moves_bytes_between_client_and_memory() {
    let b = Board::new(1);
    let bridge = b.isa.parent_device().unwrap();
    let mem = MemoryRegion::ram(&*b.vm.root(), "test-ram", 0x2_0000).unwrap();
    {
        let mut m = b.vm.core().lock();
        b.vm.system_memory().add_subregion(&mut m, 0, &mem);
        i8257_dma_init(&mut m, Ref::object(&bridge), &b.isa, false).unwrap();
    }
    let dma = b.isa.dma(2).unwrap();
    let handle = dma.clone();
    dma.register_channel(
        2,
        Arc::new(move |m, chan, done, total| {
            assert_eq!(chan, 2);
            let bytes: Vec<u8> = (0..total - done).map(|i| i as u8 + 1).collect();
            let n = handle.write_memory(m, 2, &bytes, done);
            done + n as u32
        }),
    );
    for (port, v) in [(0x0c, 0), (0x04, 0xfe), (0x04, 0xff), (0x05, 3), (0x05, 0), (0x81, 0), (0x0b, 0x46)] {
        b.outb(port, v); // channel 2: 4 bytes at 0xfffe, device to memory
    }
    dma.hold_dreq(&mut b.vm.core().lock(), 2);
    assert_eq!(b.inb(0x08), 0x40); // requested, masked
    b.outb(0x0a, 2);
    assert_eq!(b.inb(0x08) & 4, 4); // terminal count
    let mut got = [0; 4];
    let mut m = b.vm.core().lock();
    b.vm.memory.read(&mut m, 0xfffe, &mut got[..2]).unwrap();
    b.vm.memory.read(&mut m, 0, &mut got[2..]).unwrap(); // wrapped in the page
    drop(m);
    assert_eq!(got, [1, 2, 3, 4]);
    assert!(Ref::object(&bridge).child("dma[1]").is_some());
}

#[test]
fn io_apic_delivers_to_the_local_apic_and_waits_for_its_eoi() {
    let b = Board::new(2);
    let redirect = |pin: u32, low: u32, high: u32| {
        for (r, v) in [(0x11 + 2 * pin, high), (0x10 + 2 * pin, low)] {
            b.store(0xfec0_0000, r);
            b.store(0xfec0_0010, v);
        }
    };
    b.store(0xfee0_00f0, 0x1ff);
    redirect(11, 0x8055, 0); // level, CPU 0
    b.set_gsi(11, true);
    let apic = b.cpu(0).local_apic().unwrap().clone();
    assert!(apic.has_interrupt() && b.pending(0) & interrupt::HARD != 0);
    assert_eq!(apic.acknowledge(), Some(0x55));
    assert_eq!((apic.acknowledge(), b.pending(0) & interrupt::HARD), (None, 0));
    assert_eq!(b.load(0xfec0_0010) & 0x4000, 0x4000); // remote IRR
    b.store(0xfee0_00b0, 0); // still asserted: again
    assert_eq!(apic.acknowledge(), Some(0x55));
    b.set_gsi(11, false);
    b.store(0xfee0_00b0, 0);
    assert_eq!((apic.acknowledge(), b.load(0xfec0_0010) & 0x4000), (None, 0));
    redirect(2, 0x30, 0x0100_0000); // ISA line 0 comes in on pin 2; CPU 1 is software disabled
    b.set_gsi(0, true);
    assert_eq!(b.pending(1) & interrupt::HARD, 0);
}

#[test]
fn ipis_start_and_interrupt_the_other_cpu() {
    let b = Board::new(3);
    b.store(0xfee0_00f0, 0x1ff);
    b.store(0xfee0_0300, 0xc_4500); // INIT to all others
    assert_eq!([0, 1, 2].map(|n| b.pending(n) & interrupt::INIT != 0), [false, true, true]);
    b.store(0xfee0_0310, 0x0200_0000);
    b.store(0xfee0_0300, 0x4612);
    assert_eq!([1, 2].map(|n| b.pending(n) & interrupt::SIPI != 0), [false, true]);
    let ap = b.cpu(2).local_apic().unwrap().clone();
    ap.init(); // taken late: the start-up IPI that followed INIT stays
    assert_eq!((ap.take_sipi(), ap.take_sipi()), (Some(0x12), None));
    b.store(0xfee0_0300, 0x4613);
    assert_eq!(ap.take_sipi(), None); // running
    b.store(0xfee0_0300, 0xc_4500);
    ap.init();
    assert_eq!(ap.take_sipi(), None); // INIT forgets what came before
    b.vm.memory.cpu_store(0xfee0_00f0, 4, 0x1ff, Attrs::cpu(2)).unwrap();
    b.store(0xfee0_0300, 0x4077);
    assert_eq!(ap.acknowledge(), Some(0x77));
    b.store(0xfee0_0300, 0x4400);
    assert_ne!(b.pending(2) & interrupt::NMI, 0);
}

#[test]
fn messages_go_to_the_lowest_priority() {
    let b = Board::new(2);
    for n in 0..2 {
        for (r, v) in [(0xf0, 0x1ff), (0xd0, 0x0100_0000 << n), (0x80, 0x40 - 0x20 * n)] {
            b.vm.memory.cpu_store(0xfee0_0000 + r, 4, v, Attrs::cpu(n as u32)).unwrap();
        }
    }
    b.vm.memory.store(&mut b.vm.core().lock(), 0xfee0_300c, 4, 0x4161).unwrap(); // logical 3, lowest priority
    assert_eq!([0, 1].map(|n| b.cpu(n).local_apic().unwrap().has_interrupt()), [false, true]);
}

#[test]
fn apic_timer_fires_on_the_virtual_clock() {
    let b = Board::new(1);
    for (r, v) in [(0xf0, 0x1ff), (0x3e0, 0xb), (0x320, 0x2_0040), (0x380, 1_000_000)] {
        b.store(0xfee0_0000 + r, v);
    }
    let apic = b.cpu(0).local_apic().unwrap().clone();
    b.step(MS - 1);
    assert!(!apic.has_interrupt());
    for _ in 0..3 {
        b.step(MS);
        assert_eq!(apic.acknowledge(), Some(0x40));
        b.store(0xfee0_00b0, 0);
    }
    b.store(0xfee0_0320, 0x4_0041);
    apic.set_tsc_deadline(123, b.vm.clocks.now() + 500);
    b.step(500);
    assert_eq!((apic.acknowledge(), apic.tsc_deadline()), (Some(0x41), 0));
}

#[test]
fn apic_state_survives_a_snapshot() {
    let b = Board::new(1);
    let _devices = b.timers();
    for (r, v) in [(0xf0, 0x1ff), (0x3e0, 0xb), (0x320, 0x40), (0x380, 5_000_000)] {
        b.store(0xfee0_0000 + r, v);
    }
    b.outb(0x21, 0xfb);
    let saved = hw_core::save(&b.vm.root(), &b.vm.core().lock()).unwrap();
    b.step(10 * MS);
    b.outb(0x21, 0);
    b.reset();
    assert_eq!(b.load(0xfee0_0380), 0);
    hw_core::load(&b.vm.root(), &mut b.vm.core().lock(), &saved).unwrap();
    assert_eq!((b.load(0xfee0_0380), b.inb(0x21)), (5_000_000, 0xfb));
    let apic = b.cpu(0).local_apic().unwrap().clone();
    b.step(5 * MS);
    assert_eq!(apic.acknowledge(), Some(0x40));
    let again = hw_core::save(&b.vm.root(), &b.vm.core().lock()).unwrap();
    assert_ne!(saved, again);
}

#[test]
fn a_second_apic_shares_the_window_and_kvmvapic_comes_once() {
    let b = Board::new(2);
    let mapped = [0, 1].map(|n| {
        let lapic = b.cpu(n).child("lapic").unwrap();
        assert!(lapic.cast::<Apic>().is_some());
        lapic.child("apic-msi[0]").unwrap().get("addr").unwrap()
    });
    assert_eq!(mapped, [0xfee0_0000u64, 0]);
    let all = b.vm.world().scope().container("/machine/unattached").unwrap();
    assert_eq!(all.children().iter().filter(|(_, o)| o.is_a("kvmvapic")).count(), 1);
    assert_eq!(b.inb(0x7e), 0xff);
}

#[test]
fn port_92_drives_a20_and_resets() {
    let b = Board::new(1);
    let level = Arc::new(AtomicU32::new(9));
    let seen = level.clone();
    {
        let mut m = b.vm.core().lock();
        let dev = isa_create_simple(&mut m, &b.isa, "port92").unwrap();
        dev.connect("a20", 0, Line::new(move |_, l| seen.store(l.into(), Ordering::Relaxed))).unwrap();
    }
    b.outb(0x92, 2);
    assert_eq!((level.load(Ordering::Relaxed), b.inb(0x92)), (1, 2));
    b.outb(0x92, 3);
    assert!(b.vm.requests.reset_pending());
}

#[test]
fn debug_exit_chooses_the_status() {
    let b = Board::new(1);
    isa_create_simple(&mut b.vm.core().lock(), &b.isa, "isa-debug-exit").unwrap();
    b.vm.io.cpu_store(0x501, 1, 0x10, Attrs::cpu(0)).unwrap();
    assert_eq!(b.vm.requests.exit_status(), 0x21);
    assert_eq!(b.inb(0x501), 0);
}

#[test]
fn debug_console_writes_to_its_channel() {
    let b = Board::new(1);
    let host = chardev::Host {
        events: hw_core::event_loop::EventLoop::new().unwrap(),
        quit: Box::new(|| ()),
        report: Box::new(|_| ()),
        interrupted: Box::new(|| false),
        escape: 1,
        daemonize: false,
    };
    let hub = chardev::Hub::new(host);
    let ring = chardev::config::Backend::Ringbuf { size: 64 };
    let channel = hub.open(&chardev::Config::new("log", ring)).unwrap();
    let scope = b.vm.world().scope();
    chardev::publish(scope, &channel).unwrap();
    let con = scope.object_new("isa-debugcon").unwrap();
    let e = device(&con).realize_on(&mut b.vm.core().lock(), &as_bus(&b.isa)).unwrap_err().to_string();
    assert!(e.contains("empty char device"), "{e}");
    con.set_str("chardev", "log").unwrap();
    device(&con).realize_on(&mut b.vm.core().lock(), &as_bus(&b.isa)).unwrap();
    assert_eq!(b.inb(0xe9), 0xe9);
    b"ok\n".iter().for_each(|c| b.outb(0xe9, *c));
    assert_eq!(channel.ringbuf().unwrap().read(64), b"ok\n");
}

#[test]
fn wrong_properties_are_refused() {
    let b = Board::new(1);
    let scope = b.vm.world().scope();
    let refuse = |o: ObjRef, say: &str| {
        let e = device(&o).realize_on(&mut b.vm.core().lock(), &as_bus(&b.isa)).unwrap_err().to_string();
        assert!(e.contains(say), "{e}");
    };
    refuse(scope.object_new("isa-pcspk").unwrap(), "pit");
    refuse(scope.object_new("isa-pit").unwrap(), "iobase");
    let rtc = scope.object_new("mc146818rtc").unwrap();
    rtc.set_str("lost_tick_policy", "delay").unwrap();
    refuse(rtc, "lost tick policy");
    let dma = scope.object_new("i8257").unwrap();
    dma.set_str("dshift", "2").unwrap();
    refuse(dma, "dshift");
    let hpet = scope.object_new("hpet").unwrap();
    let e = hpet.cast::<SysBusDevice>().unwrap().realize_sysbus(&mut b.vm.core().lock()).unwrap_err();
    assert!(e.to_string().contains("hpet-intcap"));
}
