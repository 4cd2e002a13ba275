//! A machine under the hand of a check: built in this process, its clock stepped, its whole state taken and put back.

use crate::packages;
use hw_core::qdev::{load, save};
use hw_core::{Core, Device, Locked, PciDevice, Request};
use qom::{ObjRef, Ref, Scope};
use serde_json::Value;
use std::sync::{Arc, Weak};
use vl::{Env, Reporter, Started, Vm};

/// Guest RAM: little, because every snapshot copies it.
const RAM: &str = "2M";

/// Outputs that report an event by their level and are not driven again: the CPUs keep the A20 gate, which has several drivers, and
/// the pending SMI, which nobody lowers.
const EVENTS: [&str; 2] = ["a20", "smi-irq"];

/// The machine.
pub struct Board {
    vm: Arc<Vm>,
}

/// Everything of a machine at one moment.
pub struct Snapshot {
    /// What [`save`] makes.
    pub state: Value,
    ram: Vec<(u32, Vec<u8>)>,
    cpus: Vec<(u32, bool)>,
    /// Flat views as text: what the state makes of the memory map.
    pub views: Vec<String>,
    /// Level of every output line of every device.
    pub levels: Vec<(String, bool)>,
}

impl Board {
    /// The `pc` board without default devices, and `extra` arguments.
    ///
    /// # Errors
    /// What start-up says.
    pub fn pc(extra: &[&str]) -> Result<Self, String> {
        let firmware = packages::seabios().map_err(|e| format!("firmware: {e:#}"))?;
        let firmware = firmware.to_str().ok_or("the path of the firmware is not text")?;
        let rtc = "base=2026-01-01T00:00:00,clock=vm"; // nothing may come from the host's clock
        let fixed = ["-machine", "pc", "-m", RAM, "-nodefaults", "-L", firmware, "-rtc", rtc];
        Self::new(&[&fixed, extra].concat())
    }

    /// A machine of these arguments under the test accelerator.
    ///
    /// # Errors
    /// What start-up says.
    pub fn new(args: &[&str]) -> Result<Self, String> {
        let own = ["-accel", "qtest", "-display", "none", "-S"];
        let all: Vec<String> = args.iter().chain(&own).map(|a| (*a).to_owned()).collect();
        // What the machine says besides errors (which features a CPU model misses) is not the question here.
        let env = Env { report: Reporter::new(String::new(), |_| ()), ..Env::plain("contract") };
        match Vm::start(&all, env).map_err(|e| e.to_string())? {
            Started::Vm(vm) => Ok(Self { vm }),
            Started::Text(_) => Err("the arguments ask for a list".into()),
        }
    }

    /// The machine's core.
    pub fn core(&self) -> &Arc<Core> {
        self.vm.core()
    }

    /// The machine's world.
    pub fn scope(&self) -> &Arc<Scope> {
        self.vm.scope()
    }

    /// All objects in the tree.
    pub fn objects(&self) -> Vec<ObjRef> {
        let mut all = vec![];
        self.scope().root().walk(&mut |o| all.push(o.clone()));
        all
    }

    /// All devices whose type is exactly `type_name`.
    pub fn devices_of(&self, type_name: &str) -> Vec<Ref<Device>> {
        self.objects().into_iter().filter(|o| o.type_name() == type_name).filter_map(Ref::new).collect()
    }

    /// All PCI functions on the root bus.
    pub fn functions(&self) -> Vec<Ref<PciDevice>> {
        self.objects().into_iter().filter_map(Ref::new).collect()
    }

    /// The requests of the run state that devices have made since the last call.
    ///
    /// # Errors
    /// One of them is an internal error: a bug.
    pub fn requests(&self) -> Result<Vec<Request>, String> {
        let mut all = vec![];
        while let Some(r) = self.core().requests.take() {
            if let Request::InternalError(what) = r {
                return Err(format!("internal error: {what}"));
            }
            all.push(r);
        }
        Ok(all)
    }

    /// A system reset.
    pub fn reset(&self) {
        if let Some(machine) = self.vm.machine() {
            machine.reset(&mut self.core().lock(), hw_core::ShutdownCause::None);
        }
    }

    /// State of all devices, without memory.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn state(&self) -> Result<Value, String> {
        save(&self.scope().root(), &self.core().lock()).map_err(|e| format!("save: {e}"))
    }

    /// Everything.
    ///
    /// # Errors
    /// As [`Board::state`].
    pub fn snapshot(&self) -> Result<Snapshot, String> {
        let core = self.core();
        let state = self.state()?;
        let ram = core.ram.blocks().into_iter().map(|b| {
            let mut bytes = vec![0; b.len() as usize];
            b.read(0, &mut bytes);
            (b.id(), bytes)
        });
        let cpus = core.cpus.list().iter().map(|c| (c.pending(), c.is_halted())).collect();
        Ok(Snapshot { state, ram: ram.collect(), cpus, views: self.views(), levels: self.levels() })
    }

    /// Puts everything back.
    ///
    /// # Errors
    /// The state is refused.
    pub fn restore(&self, s: &Snapshot) -> Result<(), String> {
        let core = self.core();
        for block in core.ram.blocks() {
            if let Some((_, bytes)) = s.ram.iter().find(|(id, _)| *id == block.id()) {
                block.write(0, bytes);
            }
        }
        load(&self.scope().root(), &mut core.lock(), &s.state).map_err(|e| format!("load: {e}"))?;
        // Without registers (this accelerator has none) nobody else keeps the events of a vCPU.
        for (cpu, (pending, halted)) in core.cpus.list().iter().zip(&s.cpus) {
            cpu.clear_interrupt(!0);
            cpu.post_interrupt(*pending);
            cpu.set_halted(*halted);
        }
        Ok(())
    }

    /// The flat views of memory and I/O space, a line for each range.
    pub fn views(&self) -> Vec<String> {
        let core = self.core();
        let text = |space: &hw_core::AddressSpace| {
            let view = space.view();
            let line = |r: &hw_core::memory::FlatRange| {
                format!("{} {:x}-{:x} {} @{:x}", space.name(), r.start, r.last, r.region.name(), r.offset)
            };
            view.ranges().iter().map(line).collect::<Vec<_>>()
        };
        [text(&core.memory), text(&core.io)].concat()
    }

    fn levels(&self) -> Vec<(String, bool)> {
        let mut all = vec![];
        for o in self.objects() {
            let Some(d) = o.cast::<Device>() else { continue };
            for (name, outs) in d.gpio_out_list().into_iter().filter(|(n, _)| !EVENTS.contains(&n.as_str())) {
                all.extend(outs.iter().enumerate().map(|(n, out)| (format!("{}: {name}[{n}]", o.path()), out.level())));
            }
        }
        all
    }

    /// With the machine locked. What it asks of drives is done when this returns, so that time has no part in it.
    pub fn locked<R>(&self, f: impl FnOnce(&mut Locked) -> R) -> R {
        let result = f(&mut self.core().lock());
        self.vm.blocks.drain();
        result
    }

    /// The machine itself, for what is not here.
    pub fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }

    /// Ends the machine; the objects that outlive it.
    pub fn end(self) -> Vec<String> {
        let all: Vec<(String, Weak<dyn qom::Object>)> =
            self.objects().iter().map(|o| (format!("{} ({})", o.path(), o.type_name()), Arc::downgrade(o))).collect();
        let vm = Arc::downgrade(&self.vm);
        drop(self);
        let mut left: Vec<String> =
            all.into_iter().filter(|(_, w)| w.strong_count() != 0).map(|(name, _)| name).collect();
        if vm.strong_count() != 0 {
            left.push("the machine itself".into());
        }
        left
    }
}

/// Places where two values differ, `|objects|PATH|type.cell|field: old -> new`.
pub fn differences(old: &Value, new: &Value) -> Vec<String> {
    let mut found = vec![];
    compare("", old, new, &mut found);
    found
}

fn compare(at: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            for (k, v) in a {
                compare(&format!("{at}|{k}"), v, b.get(k).unwrap_or(&Value::Null), found);
            }
            let added = b.iter().filter(|(k, _)| !a.contains_key(*k));
            found.extend(added.map(|(k, v)| format!("{at}|{k}: added, {v}")));
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                compare(&format!("{at}|{i}"), x, y, found);
            }
        }
        _ if old != new => found.push(format!("{at}: {old} -> {new}")),
        _ => {}
    }
}

impl Snapshot {
    /// Where two moments differ.
    pub fn differences(&self, new: &Snapshot) -> Vec<String> {
        let mut all = differences(&self.state, &new.state);
        let views = self.views.iter().filter(|v| !new.views.contains(v)).map(|v| format!("mapping gone: {v}"));
        all.extend(views);
        let views = new.views.iter().filter(|v| !self.views.contains(v)).map(|v| format!("mapping added: {v}"));
        all.extend(views);
        let levels = self.levels.iter().zip(&new.levels).filter(|(a, b)| a != b);
        all.extend(levels.map(|(a, b)| format!("line {}: {} -> {}", a.0, a.1, b.1)));
        for ((id, old), (_, new)) in self.ram.iter().zip(&new.ram) {
            if let Some(at) = (old != new).then(|| old.iter().zip(new).position(|(a, b)| a != b)).flatten() {
                all.push(format!("memory block {id} at {at:#x}: {:#x} -> {:#x}", old[at], new[at]));
            }
        }
        for (n, (old, new)) in self.cpus.iter().zip(&new.cpus).enumerate().filter(|(_, (a, b))| a != b) {
            all.push(format!("CPU {n}: pending {:#x} -> {:#x}, halted {} -> {}", old.0, new.0, old.1, new.1));
        }
        all
    }
}
