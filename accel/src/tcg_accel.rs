//! Type `tcg-accel` and the threads of its vCPUs.
//!
//! One thread per vCPU. It runs guest code until it is kicked, then looks around in [`Cpu::wait_io_event`]. The engine's
//! vCPU sits in a mutex that is held while guest code runs: work that is queued for the thread, or somebody else while the
//! vCPU is parked, takes it to reach the registers. With `thread=single` the vCPUs share one thread (`round_robin`).

use crate::{
    icount::{Icount, IcountConfig},
    machine_bus::{CodeWrites, MachineBus, watch_page},
    round_robin::RoundRobin,
    tcg::{Counters, Exit, Group, JitConfig, Target, Vcpu},
};
use hw_core::{
    Core, Cpu, Locked, Machine,
    accel::{Accel, AccelClass},
};
use parking_lot::Mutex;
use qom::{Base, Class, Error, PropEnum, Ref, Registry, Result};
use rustc_hash::FxHashMap;
use std::sync::{Arc, OnceLock, Weak};

/// `thread=` of the accelerator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PropEnum)]
#[qom(name = "MttcgMode")]
pub enum Threads {
    /// vCPUs take turns.
    Single,
    /// One thread each, at the same time.
    #[default]
    Multi,
}

/// `tier=` of the accelerator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PropEnum)]
#[qom(name = "TcgTier")]
pub enum Tier {
    /// The interpreter alone.
    Interp,
    /// Blocks are compiled at once, by the vCPU that enters them.
    Jit,
    /// What gets hot is compiled in the background.
    #[default]
    Auto,
}

/// What starts the thread of one vCPU.
pub trait VcpuThread: Send + Sync {
    /// Runs the vCPU until it is unplugged; called on its thread.
    fn run(&self, cpu: &Ref<Cpu>);
    /// Runs about `budget` instructions at most, on the thread of all vCPUs; how many it was.
    fn turn(&self, cpu: &Ref<Cpu>, budget: u64) -> (Exit, u64);
    /// What the vCPU's engine counted. It is parked.
    fn counters(&self) -> Counters;
}

/// Type `tcg-accel`.
#[derive(qom::Object)]
#[qom(name = "tcg-accel", parent = Accel, class_init = TcgAccel::class_init, instance_init = TcgAccel::instance_init)]
pub struct TcgAccel {
    parent: Accel,
    #[property(name = "thread", type = "string", default = Threads::Multi, desc = "single or multi")]
    thread: qom::Prop<Threads>,
    #[property(name = "tb-size", type = "int", desc = "Translation block cache size, in MiB; 0 for the default")]
    tb_size: qom::Prop<u32>,
    #[property(name = "one-insn-per-tb", desc = "Only put one guest instruction in each translation block")]
    one_insn_per_tb: qom::Prop<bool>,
    #[property(
        name = "split-wx",
        default = true,
        desc = "Map compiled code at one address for writing, at another for executing"
    )]
    split_wx: qom::Prop<bool>,
    #[property(name = "tier", type = "string", default = Tier::Auto, desc = "interp, jit (all code, at once) or auto (hot code, in the background)")]
    tier: qom::Prop<Tier>,
    #[property(
        name = "threshold",
        type = "int",
        desc = "Executions that make a block hot, up to 65535; 0 for the default"
    )]
    threshold: qom::Prop<u16>,
    #[property(
        name = "x-torture",
        type = "int",
        desc = "Seed for testing the engine: what happens seldom happens all the time; 0 for off"
    )]
    torture: qom::Prop<u64>,
    group: OnceLock<Arc<Group>>,
    vcpus: Mutex<FxHashMap<u32, Arc<dyn VcpuThread>>>,
    icount: OnceLock<Arc<Icount>>,
    round_robin: Arc<RoundRobin>,
}

impl TcgAccel {
    fn class_init(c: &mut Class) {
        let a = c.edit::<AccelClass>();
        a.init_machine = Self::init_machine;
        a.cpu_instance_init = |_, cpu| cpu_hooks(cpu).map_or(Ok(()), |h| (h.instance_init)(cpu));
        a.cpu_realize = |_, cpu, m| cpu_hooks(cpu).map_or(Ok(()), |h| (h.realize)(cpu, m));
        a.create_vcpu_thread = Self::create_vcpu_thread;
    }
    fn instance_init(&self) -> Result<()> {
        _ = self.group.set(Group::new());
        Ok(())
    }
    fn init_machine(accel: &Accel, machine: &Machine, _: &mut Locked) -> Result<()> {
        let this = accel.object();
        let this = this.cast::<TcgAccel>().ok_or_else(|| Error::generic("not a tcg-accel"))?;
        if !this.split_wx.get() {
            return Err(Error::generic(
                "split-wx=off is not supported: no memory is ever writable and executable at one address",
            ));
        }
        // (vCPUs are made later.) One instruction at a time is what a loop of handlers does.
        this.group().set_looped(this.one_insn_per_tb.get());
        if let Some(jit) = this.jit() {
            // What was asked for by name is there, or an error.
            let asked = match (this.tb_size.get(), this.tier.get()) {
                (0, Tier::Jit) => Some("tier=jit".to_owned()),
                (0, _) => None,
                (mib, _) => Some(format!("tb-size={mib}")),
            };
            if let Some(asked) = asked {
                jit.check().map_err(|e| Error::generic(format!("{asked}: {e}")))?
            }
            this.group().set_jit(jit)
        } else if let mib @ 1.. = this.tb_size.get() {
            this.group().set_decoded_limit((mib as usize) << 20)
        }
        let ram = Core::of(machine).ram.clone();
        ram.set_code_watcher(Arc::new(CodeWrites(this.group().clone())));
        // (The list keeps the watcher, so this must not keep the list.)
        let ram = Arc::downgrade(&ram);
        this.group().on_code(move |host| {
            if let Some(ram) = ram.upgrade() {
                watch_page(&ram, host)
            }
        });
        // (Nor may the list of resets keep the vCPUs.)
        let group = Arc::downgrade(this.group());
        Core::of(machine).resets.add_hook(move |_| {
            if let Some(group) = group.upgrade() {
                group.start_anew()
            }
        });
        Ok(())
    }
    /// The virtual clock counts instructions from now on. Before the machine is initialized.
    pub fn set_icount(&self, core: &Core, config: IcountConfig) {
        let icount = Icount::new(config, self.group());
        let thread = Arc::downgrade(&self.round_robin);
        icount.on_nearer(move || {
            if let Some(t) = thread.upgrade() {
                t.kick()
            }
        });
        core.clocks.set_icount(icount.clone());
        _ = self.icount.set(icount);
    }
    /// The clock that counts instructions, if there is one.
    pub fn icount(&self) -> Option<&Arc<Icount>> {
        self.icount.get()
    }
    /// `one-insn-per-tb`.
    pub fn is_one_insn_per_tb(&self) -> bool {
        self.one_insn_per_tb.get()
    }
    fn is_single(&self) -> bool {
        self.thread.get() == Threads::Single || self.icount.get().is_some()
    }
    /// How tier 1 is used, if it is.
    fn jit(&self) -> Option<JitConfig> {
        let (default, tier) = (JitConfig::default(), self.tier.get());
        if tier == Tier::Interp || self.one_insn_per_tb.get() {
            return None;
        }
        let synchronous = tier == Tier::Jit;
        let threshold = match self.threshold.get() {
            0 if synchronous => 1,
            0 => default.threshold,
            n => n,
        };
        let cache = match self.tb_size.get() {
            0 => default.cache,
            mib => (mib as usize) << 20,
        };
        let quick = if synchronous { 0 } else { default.quick };
        let torture = self.torture.get();
        // (Both compilers take all code, one after the other.)
        let (quick, threshold) = if torture == 0 { (quick, threshold) } else { (1, 1) };
        Some(JitConfig { quick, threshold, cache, synchronous, torture })
    }
    /// The machine's accelerator, if it is this one.
    pub fn of(cpu: &Cpu) -> Option<Ref<TcgAccel>> {
        let accel = Core::of(cpu).accel()?;
        Ref::new(accel)
    }
    /// What the machine's vCPUs share.
    pub fn group(&self) -> &Arc<Group> {
        self.group.get().expect("set by instance init")
    }
    /// An engine for `cpu`, which has its number and address spaces: at `state`, reaching the machine.
    pub fn vcpu<T: Target>(&self, cpu: &Cpu, state: T::State) -> Vcpu<T> {
        let bus = MachineBus::new(cpu);
        let mut vcpu = Vcpu::new(self.group(), bus.clone(), state);
        vcpu.set_number(cpu.index().unwrap_or(0));
        bus.attach(vcpu.kick().downgrade());
        let kick = vcpu.kick().downgrade();
        let thread = self.is_single().then(|| Arc::downgrade(&self.round_robin));
        cpu.set_kick(move || {
            if let Some(k) = kick.upgrade() {
                k.stop()
            }
            if let Some(t) = thread.as_ref().and_then(Weak::upgrade) {
                t.kick()
            }
        });
        vcpu
    }
    /// Says what runs the thread of the vCPU with this number.
    pub fn attach(&self, index: u32, thread: Arc<dyn VcpuThread>) {
        self.vcpus.lock().insert(index, thread);
    }
    /// Forgets it: the vCPU was unplugged.
    pub fn detach(&self, index: u32) {
        self.vcpus.lock().remove(&index);
    }
    /// What the engines counted, by number of the vCPU. All are parked.
    pub fn counters(&self) -> Vec<(u32, Counters)> {
        let mut all: Vec<_> = self.vcpus.lock().iter().map(|(n, v)| (*n, v.clone())).collect();
        all.sort_by_key(|(n, _)| *n);
        all.into_iter().map(|(n, v)| (n, v.counters())).collect()
    }
    fn create_vcpu_thread(accel: &Accel, cpu: &Ref<Cpu>) -> Result<()> {
        let this = accel.object();
        let this = this.cast::<TcgAccel>().ok_or_else(|| Error::generic("not a tcg-accel"))?;
        let index = cpu.index().ok_or_else(|| Error::generic("the CPU has no number yet"))?;
        let thread = this.vcpus.lock().get(&index).cloned();
        let thread =
            thread.ok_or_else(|| Error::generic(format!("TCG cannot run CPU {index}: no engine was made for it")))?;
        if this.is_single() {
            return this.round_robin.add(cpu, index, thread, this.icount.get().cloned());
        }
        let cpu = cpu.clone();
        let name = format!("CPU {index}/TCG");
        std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                cpu.thread_started();
                thread.run(&cpu);
                cpu.thread_ended();
            })
            .map_err(|e| Error::generic(format!("cannot create the thread of CPU {index}: {e}")))?;
        Ok(())
    }
}

/// The loop of a vCPU's thread. `ended` says what becomes of an exit; it runs with the vCPU's mutex held.
pub fn run_vcpu<T: Target>(cpu: &Ref<Cpu>, vcpu: &Mutex<Vcpu<T>>, ended: impl Fn(&mut Vcpu<T>, Exit)) {
    while cpu.wait_io_event() {
        turn(cpu, vcpu, u64::MAX, &ended);
    }
    let c = vcpu.lock().counters();
    tracing::debug!(cpu = cpu.index(), ?c, "vCPU ended");
}
/// Runs guest code once, a budget of instructions at most; how many it was. `ended` as for [`run_vcpu`].
pub fn turn<T: Target>(
    cpu: &Ref<Cpu>,
    vcpu: &Mutex<Vcpu<T>>,
    budget: u64,
    ended: impl Fn(&mut Vcpu<T>, Exit),
) -> (Exit, u64) {
    if cpu.is_halted() {
        // It has work. (This kicks the vCPU: the first run below returns at once.)
        cpu.set_halted(false)
    }
    cpu.take_exit_request();
    let mut v = vcpu.lock();
    // Whatever woke it: look for interrupts first.
    v.kick().service();
    let before = v.counters().instructions;
    let exit = v.run(budget);
    if exit == Exit::Halted {
        cpu.set_halted(true)
    }
    ended(&mut v, exit);
    (exit, v.counters().instructions - before)
}

/// Class struct of `accel-cpu`: what an accelerator adds to the CPUs of one architecture.
#[derive(Clone)]
pub struct AccelCpuClass {
    /// In the CPU's instance init.
    pub instance_init: fn(&Cpu) -> Result<()>,
    /// In the CPU's realize, before the architecture's own.
    pub realize: fn(&Cpu, &mut Locked) -> Result<()>,
}
impl Default for AccelCpuClass {
    fn default() -> Self {
        AccelCpuClass { instance_init: |_| Ok(()), realize: |_, _| Ok(()) }
    }
}
/// Type `accel-cpu`: its types are named after the accelerator and the architecture's CPU type and carry only a class.
#[derive(qom::Object)]
#[qom(name = "accel-cpu", parent = Base, abstract, class_init = AccelCpu::class_init)]
pub struct AccelCpu {
    parent: Base,
}
impl AccelCpu {
    fn class_init(c: &mut Class) {
        c.edit::<AccelCpuClass>();
    }
}
/// The hooks for a CPU: those of `tcg-accel-TYPE`, for the first of its types that has one.
fn cpu_hooks(cpu: &Cpu) -> Option<AccelCpuClass> {
    let mut class = Some(cpu.class());
    while let Some(c) = class {
        if let Ok(hooks) = Registry::global().class(&format!("tcg-accel-{}", c.name())) {
            return hooks.get::<AccelCpuClass>().cloned();
        }
        class = c.parent();
    }
    None
}

/// Type `accel-ops`.
#[derive(qom::Object)]
#[qom(name = "accel-ops", parent = Base, abstract)]
pub struct AccelOps {
    parent: Base,
}
/// Type `tcg-accel-ops`. (The operations are methods of the accelerator's class.)
#[derive(qom::Object)]
#[qom(name = "tcg-accel-ops", parent = AccelOps)]
pub struct TcgAccelOps {
    parent: AccelOps,
}
/// Type `qtest-accel-ops`.
#[derive(qom::Object)]
#[qom(name = "qtest-accel-ops", parent = AccelOps)]
pub struct QtestAccelOps {
    parent: AccelOps,
}
