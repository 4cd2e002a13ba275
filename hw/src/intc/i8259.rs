//! The pair of 8259A interrupt controllers, type `isa-i8259` below `pic-common`. Registers: [`super::i8259_regs`].
//!
//! The master knows its slave, which is on input 2, and answers for both in an acknowledge cycle.

use std::sync::Arc;

use hw_core::cpu::PicAck;
use hw_core::{
    Core, DeviceClass, DeviceImpl, IrqOut, IsaBus, IsaDevice, Line, Locked, MachineCell, MemoryRegion, Ops, Phase,
    Sizes,
};
use parking_lot::RwLock;
use qom::{Error, Handle, Object, Prop, Ref, Result};

use super::i8259_regs::I8259Regs;
use super::stats::InterruptStats;

/// Input of the master that carries the slave.
const CASCADE: u8 = 2;
/// Vector of an acknowledge that finds no request (IR7).
const SPURIOUS: u8 = 7;

/// Type `pic-common`: one 8259A.
#[derive(Object)]
#[qom(name = "pic-common", parent = IsaDevice, abstract, interfaces(dyn InterruptStats), class_init = PicCommon::class_init)]
pub struct PicCommon {
    parent: IsaDevice,
    #[property(default = 0xffff_ffff)]
    iobase: Prop<u32>,
    #[property(name = "elcr_addr", default = 0xffff_ffff)]
    elcr_addr: Prop<u32>,
    #[property(name = "elcr_mask", default = 0xff)]
    elcr_mask: Prop<u8>,
    #[property(default = false)]
    master: Prop<bool>,
    #[state]
    regs: MachineCell<I8259Regs>,
    #[state]
    counts: MachineCell<[u64; 8]>,
}

impl PicCommon {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.user_creatable = false;
        d.hotpluggable = false;
    }
}

impl InterruptStats for PicCommon {
    fn print_info(&self, m: &mut Locked) -> String {
        format!("pic{}: {}\n", u8::from(!self.master.get()), self.regs.ro(m).describe())
    }
    fn statistics(&self, m: &mut Locked) -> Vec<u64> {
        self.counts.ro(m).to_vec()
    }
}

/// Type `isa-i8259`.
#[derive(Object)]
#[qom(name = "isa-i8259", parent = PicCommon, methods(DeviceClass))]
pub struct I8259 {
    parent: PicCommon,
    int: IrqOut,
    slave: RwLock<Handle<I8259>>,
}

impl I8259 {
    fn on_line(&self, m: &mut Locked, n: usize, level: bool) {
        let r = self.regs.rw(m);
        let before = r.irr;
        r.set_line(n as u8, level);
        let rose = r.irr & !before != 0;
        if rose && let Some(c) = self.counts.rw(m).get_mut(n & 7) {
            *c += 1;
        }
        self.update(m);
    }

    /// Drives INT.
    fn update(&self, m: &mut Locked) {
        let on = self.regs.ro(m).pending(self.master.get()).is_some();
        self.int.set(m, on);
    }

    fn read(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        let v = self.regs.rw(m).read(off, self.master.get());
        self.update(m); // a poll is an acknowledge
        v.into()
    }

    fn write(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        self.regs.rw(m).write(off, val as u8);
        self.update(m);
    }

    fn read_elcr(&self, m: &mut Locked, _off: u64, _size: u32) -> u64 {
        self.regs.ro(m).elcr.into()
    }

    fn write_elcr(&self, m: &mut Locked, _off: u64, _size: u32, val: u64) {
        self.regs.rw(m).elcr = val as u8 & self.elcr_mask.get();
    }

    /// Makes `slave` the controller on input 2.
    ///
    /// # Errors
    /// Never for an object in the tree.
    pub fn attach_slave(&self, slave: &Ref<I8259>) -> Result<()> {
        *self.slave.write() = Handle::new(Ref::object(slave)).ok_or_else(|| Error::generic("the slave is gone"))?;
        slave.int.line().is_none().then(|| slave.connect("", 0, self.cascade_line()?)).transpose()?;
        Ok(())
    }

    fn cascade_line(&self) -> Result<Line> {
        self.gpio_in_line("", CASCADE.into()).ok_or_else(|| Error::generic("an 8259 has eight inputs"))
    }

    /// The input that INT stands for, if any.
    fn take(&self, m: &mut Locked) -> Option<u8> {
        let (regs, master) = (self.regs.rw(m), self.master.get());
        let n = regs.pending(master)?;
        regs.acknowledge(n);
        Some(n)
    }

    /// An acknowledge (INTA) cycle of the processor: the vector, of the slave where its input is chosen. With nothing
    /// requested the vector of input 7.
    pub fn acknowledge(&self, m: &mut Locked) -> u8 {
        let n = self.take(m);
        let slave = if n == Some(CASCADE) { self.slave.read().upgrade() } else { None };
        let vector = match &slave {
            Some(s) => {
                let input = s.take(m).unwrap_or(SPURIOUS);
                s.regs.ro(m).vector(input)
            }
            None => self.regs.ro(m).vector(n.unwrap_or(SPURIOUS)),
        };
        if let Some(s) = slave {
            s.update(m);
        }
        self.update(m);
        vector
    }
}

impl DeviceImpl for I8259 {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.gpio_out("", &self.int);
        self.gpio_in("", 8, Self::on_line);
        let sizes = Sizes::new(1, 1);
        let ops = Ops { read: Self::read, write: Self::write, imp: sizes, ..Ops::default() };
        let base = MemoryRegion::io(self, "pic", 2, ops);
        let ops = Ops { read: Self::read_elcr, write: Self::write_elcr, imp: sizes, ..Ops::default() };
        let elcr = MemoryRegion::io(self, "elcr", 1, ops);
        for (port, region) in [(self.iobase.get(), base), (self.elcr_addr.get(), elcr)] {
            if port != u32::MAX {
                self.map_io(m, port.into(), &region)?;
            }
        }
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        match phase {
            Phase::Enter => {
                let lines = self.regs.ro(m).lines;
                // Inputs keep what their sources drive: only a new edge counts after a reset.
                *self.regs.rw(m) = I8259Regs { lines, ..I8259Regs::default() };
            }
            Phase::Hold => self.update(m),
            Phase::Exit => {}
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if self.regs.ro(m).highest > 7 {
            return Err(Error::generic("8259: impossible priority"));
        }
        self.update(m);
        Ok(())
    }
}

/// The pair as vCPUs reach it.
struct Ack(Handle<I8259>);

impl PicAck for Ack {
    fn acknowledge(&self, m: &mut Locked) -> u8 {
        self.0.upgrade().map_or(u8::MAX, |p| p.acknowledge(m))
    }
}

/// The PC's pair on `bus`: master at 0x20 whose INT drives `cpu`, slave at 0xa0 on its input 2. Answers the master and the
/// sixteen inputs.
///
/// # Errors
/// As realizing a device.
pub fn i8259_init(m: &mut Locked, bus: &Ref<IsaBus>, cpu: Line) -> Result<(Ref<I8259>, Vec<Line>)> {
    let master = chip(m, bus, true)?;
    master.connect("", 0, cpu)?;
    let slave = chip(m, bus, false)?;
    master.attach_slave(&slave)?;
    let ack = Ack(Handle::new(Ref::object(&master)).unwrap_or_default());
    bus.scope().ext::<Core>().ok_or("there is no machine")?.set_pic(Arc::new(ack));
    let lines = [&master, &slave].into_iter().flat_map(|c| (0..8).filter_map(|n| c.gpio_in_line("", n))).collect();
    Ok((master, lines))
}

fn chip(m: &mut Locked, bus: &Ref<IsaBus>, master: bool) -> Result<Ref<I8259>> {
    let dev = bus.scope().object_new_as::<I8259>("isa-i8259")?;
    dev.iobase.set(if master { 0x20 } else { 0xa0 });
    dev.elcr_addr.set(if master { 0x4d0 } else { 0x4d1 });
    dev.elcr_mask.set(if master { 0xf8 } else { 0xde });
    dev.master.set(master);
    let bus = Ref::new(Ref::object(bus).clone()).ok_or("not a bus")?;
    dev.realize_on(m, &bus)?;
    Ok(dev)
}
