//! The floppy controller on the ISA bus, type `isa-fdc`. Registers: [`super::fdc_regs`]; drives: [`super::floppy`].
//!
//! After every access `settle` brings the outside in line with the registers: interrupt, DMA request, the job with the image, READ ID's timer.

use super::fdc_regs::{Disk, FdcRegs, UNITS};
use super::fdc_transfer::Job;
use super::floppy::{Floppy, FloppyBus};
use super::floppy_format::FloppyDriveType;
use block::{Action, Blocks, Interface, Outcome, Request};
use hw_core::isa::IsaDma;
use hw_core::{
    Bus, Category, Core, Device, DeviceClass, DeviceImpl, IrqOut, IsaDevice, Locked, MachineCell, MemoryRegion, Ops,
    Phase, RunState, Sizes, Timer, events::VmState,
};
use parking_lot::RwLock;
use qom::{Error, Handle, Level, Object, Prop, Property, Ref, Result};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Type `isa-fdc`.
#[derive(Object)]
#[qom(name = "isa-fdc", parent = IsaDevice, methods(DeviceClass), class_init = IsaFdc::class_init,
    instance_init = IsaFdc::instance_init, interfaces("acpi-dev-aml-interface"))]
pub struct IsaFdc {
    parent: IsaDevice,
    #[property(default = 0x3f0)]
    iobase: Prop<u32>,
    #[property(default = 6)]
    irq: Prop<u32>,
    #[property(default = 2)]
    dma: Prop<u32>,
    #[property(name = "fdtypeA", default = FloppyDriveType::Auto)]
    fdtype_a: Prop<FloppyDriveType>,
    #[property(name = "fdtypeB", default = FloppyDriveType::Auto)]
    fdtype_b: Prop<FloppyDriveType>,
    #[property(default = FloppyDriveType::D288)]
    fallback: Prop<FloppyDriveType>,
    #[state]
    regs: MachineCell<FdcRegs>,
    line: IrqOut,
    bus: RwLock<Handle<FloppyBus>>,
    /// Places of the drives in the boot order, plus one.
    bootindex: [Prop<i32>; UNITS],
    id_timer: Timer,
    /// DREQ is raised.
    dreq: AtomicBool,
    /// Number of the job at work; a completion of another is stale.
    ticket: AtomicU64,
    running: AtomicBool,
    /// The job failed and waits for the machine to go on.
    held: AtomicBool,
}

impl IsaFdc {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Storage];
        d.desc = "virtual floppy controller";
        d.fw_name = Some("fdc");
        Self::boot_property::<0>(c, "bootindexA");
        Self::boot_property::<1>(c, "bootindexB");
    }

    fn boot_property<const UNIT: usize>(c: &mut qom::Class, name: &'static str) {
        let index = |d: &IsaFdc| d.bootindex.get(UNIT).map_or(0, Prop::get) - 1;
        c.property(Property::computed::<i32>(name).getter(move |d: &IsaFdc| Ok(index(d))).setter(
            |d: &IsaFdc, n: i32| {
                if let Some(p) = d.bootindex.get(UNIT) {
                    p.set(n.saturating_add(1));
                }
                Ok(())
            },
        ));
    }

    fn instance_init(&self) -> Result<()> {
        self.id_timer.init(self, |d: &IsaFdc, m| {
            d.regs.rw(m).read_id();
            d.settle(m);
        });
        Ok(())
    }

    /// Places in the boot order: unit and index.
    pub fn boot_indices(&self) -> Vec<(usize, i32)> {
        let all = self.bootindex.iter().enumerate().map(|(unit, p)| (unit, p.get() - 1));
        all.filter(|(_, index)| *index >= 0).collect()
    }

    /// What a drive of kind `auto` is without a medium that says more.
    pub fn fallback(&self) -> FloppyDriveType {
        self.fallback.get()
    }

    /// The drive of a unit.
    pub fn floppy(&self, unit: usize) -> Option<Ref<Floppy>> {
        self.bus.read().upgrade()?.unit(unit)
    }

    /// Makes the drives that `-drive if=floppy` and its short forms ask for.
    ///
    /// # Errors
    /// What a drive says of its image.
    pub fn create_drives(&self, m: &mut Locked) -> Result<()> {
        let blocks = Blocks::of(self.core());
        let bus = self.bus.read().upgrade().ok_or("isa-fdc without its bus")?;
        let bus: Ref<Bus> = Ref::new(Ref::object(&bus).clone()).ok_or("not a bus")?;
        for (unit, kind) in [(0u32, self.fdtype_a.get()), (1, self.fdtype_b.get())] {
            let Some(drive) = blocks.drive_at(Interface::Floppy, 0, unit) else { continue };
            let dev: Ref<Device> = self.scope().object_new_as("floppy")?;
            dev.set_str("drive", drive.name())?;
            dev.set("unit", json!(unit))?;
            if let Some(floppy) = dev.object().cast::<Floppy>() {
                floppy.set_kind(kind);
            }
            dev.realize_on(m, &bus)?;
        }
        Ok(())
    }

    /// Says what is in a drive. A transfer that lost its disk ends.
    pub fn set_disk(&self, m: &mut Locked, unit: usize, disk: Disk, changed: bool) {
        self.regs.rw(m).set_disk(unit, disk, changed);
        self.settle(m);
    }

    fn controller(&self) -> Option<Ref<dyn IsaDma>> {
        let channel = self.dma.get();
        self.isa_bus().ok()?.dma(channel as usize)
    }

    /// Brings the outside in line with the registers.
    fn settle(&self, m: &mut Locked) {
        loop {
            let job = self.regs.ro(m).job();
            if self.regs.ro(m).has_lost_its_disk() {
                self.forget();
                self.regs.rw(m).job_failed();
                continue;
            }
            match job {
                None => self.forget(),
                Some(job) if !self.running.load(Ordering::Relaxed) && !self.held.load(Ordering::Relaxed) => {
                    self.submit(m, job);
                }
                Some(_) => {}
            }
            let wants = self.regs.ro(m).wants_dma();
            if wants == self.dreq.swap(wants, Ordering::Relaxed) {
                break;
            }
            let Some(dma) = self.controller() else { break };
            let channel = self.dma.get() as usize;
            if wants {
                dma.hold_dreq(m, channel); // bytes move from inside
            } else {
                dma.release_dreq(m, channel);
            }
        }
        let at = self.regs.ro(m).id_at();
        self.id_timer.arm(m, at);
        let level = self.regs.ro(m).irq();
        if level != self.line.level() {
            self.line.set(m, level);
        }
    }

    /// The DMA controller serves the channel: `done` of `total` bytes were moved.
    fn transfer(&self, m: &mut Locked, channel: usize, done: u32, total: u32) -> u32 {
        let Some((room, takes)) = self.regs.ro(m).dma_room() else { return done };
        let Some(dma) = self.controller() else { return done };
        let want = room.min(total.saturating_sub(done) as usize);
        let n = if takes {
            let mut bytes = vec![0; want];
            let n = dma.read_memory(m, channel, &mut bytes, done).min(want);
            bytes.truncate(n);
            self.regs.rw(m).dma_in(&bytes, done + n as u32 >= total);
            n
        } else {
            let bytes = self.regs.ro(m).dma_out(want);
            let n = dma.write_memory(m, channel, &bytes, done).min(bytes.len());
            self.regs.rw(m).dma_taken(n, done + n as u32 >= total);
            n
        };
        self.settle(m);
        done + n as u32
    }

    fn forget(&self) {
        if self.running.swap(false, Ordering::Relaxed) {
            self.ticket.fetch_add(1, Ordering::Relaxed);
        }
        self.held.store(false, Ordering::Relaxed);
    }

    fn submit(&self, m: &mut Locked, job: Job) {
        let unit = usize::from(self.regs.ro(m).selected());
        let Some(backend) = self.floppy(unit).and_then(|f| f.backend()) else { return };
        let request = match job {
            Job::Read { at, len } => {
                let end = backend.len();
                let at = at.min(end);
                Request::read(at, (end - at).min(len as u64) as usize)
            }
            Job::Write { at, data } => Request::write(at, data),
        };
        self.running.store(true, Ordering::Relaxed);
        let ticket = self.ticket.fetch_add(1, Ordering::Relaxed) + 1;
        let this: Handle<IsaFdc> = self.this();
        let done = move |outcome: Outcome| {
            this.with(|d| {
                let m = &mut Core::of(d).lock();
                if d.running.load(Ordering::Relaxed) && d.ticket.load(Ordering::Relaxed) == ticket {
                    d.running.store(false, Ordering::Relaxed);
                    d.ended(m, outcome);
                }
            });
        };
        backend.submit(request, Box::new(done));
    }

    fn ended(&self, m: &mut Locked, outcome: Outcome) {
        let (reads, unit) = (self.regs.ro(m).job_reads(), usize::from(self.regs.ro(m).selected()));
        let action = match (&outcome.result, self.floppy(unit).and_then(|f| f.backend())) {
            (Ok(()), _) => Action::Ignore,
            (Err(e), Some(backend)) => backend.failed(self.core(), reads, e),
            (Err(_), None) => Action::Report,
        };
        match action {
            Action::Ignore => self.regs.rw(m).job_done(outcome.data.into_vec()),
            Action::Report => self.regs.rw(m).job_failed(),
            Action::Stop => return self.held.store(true, Ordering::Relaxed),
        }
        self.settle(m);
    }

    fn went_on(&self, m: &mut Locked, state: &VmState) {
        if state.running {
            for backend in (0..UNITS).filter_map(|n| self.floppy(n)?.backend()) {
                backend.reset_io_status();
            }
            self.held.store(false, Ordering::Relaxed);
            self.settle(m);
        }
    }

    fn read(&self, m: &mut Locked, register: u64) -> u64 {
        let v = self.regs.rw(m).read(register);
        self.settle(m);
        v.into()
    }

    fn write(&self, m: &mut Locked, register: u64, val: u64) {
        let now = m.clock.now();
        self.regs.rw(m).write(register, val as u8, now);
        self.settle(m);
    }
}

impl DeviceImpl for IsaFdc {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        for (_, index) in self.boot_indices() {
            crate::i386::drives::check_boot_index(self.scope(), Some(index))?;
        }
        self.parent_realize(m)?;
        if self.dma.get() > 3 && self.dma.get() != u32::MAX {
            return Err(Error::generic(format!("isa-fdc: there is no DMA channel {} for it", self.dma.get())));
        }
        let base = u64::from(self.iobase.get());
        // Words are two byte cycles, wherever they begin.
        let (word, byte) = (Sizes::default().unaligned(), Sizes::new(1, 1).unaligned());
        let low: Ops<IsaFdc> = Ops {
            read: |d, m, off, _| d.read(m, off + 1),
            write: |d, m, off, _, v| d.write(m, off + 1, v),
            valid: word,
            imp: byte,
            ..Ops::default()
        };
        let high: Ops<IsaFdc> = Ops {
            read: |d, m, off, _| d.read(m, off + 7),
            write: |d, m, off, _, v| d.write(m, off + 7, v),
            valid: word,
            imp: byte,
            ..Ops::default()
        };
        self.map_io(m, base + 1, &MemoryRegion::io(self, "fdc", 5, low))?;
        self.map_io(m, base + 7, &MemoryRegion::io(self, "fdc", 1, high))?;
        self.line.connect(Some(self.isa_irq(self.irq.get())?));
        if let Some(dma) = self.controller() {
            let this: Handle<IsaFdc> = self.this();
            dma.register_channel(
                self.dma.get() as usize,
                Arc::new(move |m, channel, done, total| {
                    this.with(|d| d.transfer(m, channel, done, total)).unwrap_or(done)
                }),
            );
        }
        let bus: Ref<FloppyBus> = Bus::create(self, "floppy-bus", None)?;
        *self.bus.write() = Handle::new(Ref::object(&bus)).unwrap_or_default();
        self.core().events.vm_state.add_for(self, IsaFdc::went_on);
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.forget();
        self.id_timer.arm(m, None);
        self.unmap_io(m);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        match phase {
            Phase::Enter => {
                self.forget();
                self.regs.rw(m).reset(true);
            }
            Phase::Hold => self.settle(m),
            Phase::Exit => {}
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.regs.ro(m).check().map_err(Error::generic)?;
        self.forget();
        self.held.store(self.core().requests.state() == RunState::IoError, Ordering::Relaxed);
        for unit in 0..UNITS {
            let disk = self.floppy(unit).map_or(Disk { read_only: true, ..Disk::default() }, |f| f.disk());
            self.regs.rw(m).set_disk(unit, disk, false);
        }
        self.settle(m);
        self.parent_post_load(m)
    }
}
