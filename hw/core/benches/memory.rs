//! What an access, a line and a commit cost. Targets: MMIO from the memory API to a device register and back ≤ 30 ns.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use hw_core::memory::{Access, Attrs};
use hw_core::*;
use qom::{Object, Ref, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Regs {
    value: u64,
}

#[derive(Object)]
#[qom(name = "bench-device", parent = SysBusDevice, methods(DeviceClass), instance_init = Dev::instance_init)]
struct Dev {
    parent: SysBusDevice,
    #[state]
    regs: MachineCell<Regs>,
    irq: IrqOut,
    timer: Timer,
}

impl Dev {
    fn instance_init(&self) -> Result<()> {
        self.init_irq(&self.irq);
        self.gpio_in("", 1, Self::input);
        self.timer.init(self, |_, _| ());
        Ok(())
    }
    fn input(&self, m: &mut Locked, _: usize, on: bool) {
        self.regs.rw(m).value += u64::from(on);
    }
    fn read(&self, m: &mut Locked, off: u64, _: u32) -> u64 {
        self.regs.ro(m).value + off
    }
    fn write(&self, m: &mut Locked, _: u64, _: u32, val: u64) {
        self.regs.rw(m).value = val;
    }
    fn free(&self, a: &Access) -> u64 {
        a.off
    }
}

impl DeviceImpl for Dev {
    fn realize(&self, _: &mut Locked) -> Result<()> {
        self.init_mmio(&MemoryRegion::io(
            self,
            "regs",
            0x1000,
            Ops { read: Self::read, write: Self::write, ..Ops::default() },
        ));
        self.init_mmio(&MemoryRegion::io_free(
            self,
            "free",
            0x1000,
            FreeOps { read: Self::free, ..FreeOps::default() },
        ));
        Ok(())
    }
}

/// Forty devices and some RAM, as a PC has.
fn machine() -> (Vm, Vec<Ref<Dev>>) {
    let vm = Vm::with_machine("none", &[]).expect("a machine");
    let mut m = vm.lock();
    let mut devices = vec![];
    for i in 0..20u64 {
        let d: Ref<Dev> = vm.world().object_new_as("bench-device").expect("a device");
        d.realize_sysbus(&mut m).expect("realized");
        d.mmio_map(&mut m, 0, 0xfe00_0000 + i * 0x1_0000).expect("mapped");
        d.mmio_map(&mut m, 1, 0xff00_0000 + i * 0x1_0000).expect("mapped");
        devices.push(d);
    }
    let owner = vm.machine().and_then(|m| m.unattached().ok()).expect("a folder");
    let ram = MemoryRegion::ram(&*owner, "ram", 1 << 20).expect("RAM");
    vm.system_memory().add_subregion(&mut m, 0, &ram);
    drop(m);
    (vm, devices)
}

/// Time this thread ran for, so that a busy host does not spoil the figures.
fn cpu_time<R>(n: u64, mut f: impl FnMut() -> R) -> Duration {
    let now = || {
        let t = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
    };
    let start = now();
    for _ in 0..n {
        black_box(f());
    }
    now() - start
}

fn bench(c: &mut Criterion) {
    let (vm, devices) = machine();
    let (space, cpu) = (vm.memory.clone(), Attrs::cpu(0));
    let at = 0xfe07_0004;
    c.bench_function("mmio read, from a vCPU", |b| {
        b.iter_custom(|n| cpu_time(n, || space.cpu_load(black_box(at), 4, cpu)))
    });
    c.bench_function("mmio write, from a vCPU", |b| {
        b.iter_custom(|n| cpu_time(n, || space.cpu_store(black_box(at), 4, 1, cpu)))
    });
    c.bench_function("lock-free region, from a vCPU", |b| {
        b.iter_custom(|n| cpu_time(n, || space.cpu_load(black_box(0xff07_0004), 4, cpu)))
    });
    c.bench_function("RAM load, from a vCPU", |b| {
        b.iter_custom(|n| cpu_time(n, || space.cpu_load(black_box(0x1000), 4, cpu)))
    });
    let mut m = vm.lock();
    c.bench_function("mmio read, lock held", |b| {
        b.iter_custom(|n| cpu_time(n, || space.load(&mut m, black_box(at), 4)))
    });
    let (from, to) = (&devices[0], &devices[1]);
    from.connect_irq(0, to.gpio_in_line("", 0).expect("an input")).expect("connected");
    c.bench_function("line raise and lower", |b| b.iter_custom(|n| cpu_time(n, || from.irq.pulse(&mut m))));
    let mut deadline = 1_000_000;
    c.bench_function("timer arm", |b| {
        b.iter_custom(|n| {
            cpu_time(n, || {
                deadline += 1;
                from.timer.arm(&mut m, Some(deadline));
            })
        })
    });
    let region = from.mmio(0).expect("a region");
    let mut on = true;
    c.bench_function("commit of 41 regions", |b| {
        b.iter_custom(|n| {
            cpu_time(n, || {
                on = !on;
                region.set_enabled(&mut m, on);
            })
        })
    });
    let root = vm.root();
    c.bench_function("snapshot of 20 devices", |b| b.iter_custom(|n| cpu_time(n, || save(&root, &m))));
}

criterion_group!(benches, bench);
criterion_main!(benches);
