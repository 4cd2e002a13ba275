//! Type `x86_64-cpu`, the types of all models, and realize.
//!
//! A model's values are there from `instance_init` on; globals, `-cpu` and explicit properties change them; realize completes
//! and filters the features, works out the CPUID leaves, makes address spaces and the local APIC and hands the vCPU to the
//! accelerator.

use super::caches::CacheSet;
use super::config::Config;
use super::cpuid::{Quirks, Shape};
use super::features::{FeatureSet, complain};
use super::models::{Entry, entries};
use super::topology::Topo;
use super::{props, run};
use crate::sys::cpuid::CpuidTable;
use crate::vcpu::X86Vcpu;
use accel::TcgAccel;
use hw_core::accel::Accel;
use hw_core::memory::RegionNode;
use hw_core::qdev::reset_object;
use hw_core::{Cpu, CpuClass, Device, DeviceClass, DeviceImpl, Locked, Machine, MemoryRegion};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use qom::{Class, Error, OnOffAuto, Prop, Property, Ref, Result, TypeInfo};
use std::sync::Arc;

/// What all type names of CPUs end with.
pub const SUFFIX: &str = "-x86_64-cpu";
/// No APIC id yet.
pub const NO_APIC_ID: u32 = u32::MAX;

/// The values, once there is a model.
#[derive(Default)]
struct Values(Option<Config>);

/// Type `x86_64-cpu`.
#[derive(qom::Object)]
#[qom(name = "x86_64-cpu", parent = Cpu, abstract, methods(DeviceClass), class_init = X86Cpu::class_init,
    instance_init = X86Cpu::instance_init)]
pub struct X86Cpu {
    parent: Cpu,
    #[property(name = "apic-id", default = NO_APIC_ID)]
    apic_id: Prop<u32>,
    #[property(name = "socket-id", default = -1)]
    socket_id: Prop<i32>,
    #[property(name = "die-id", default = -1)]
    die_id: Prop<i32>,
    #[property(name = "module-id", default = -1)]
    module_id: Prop<i32>,
    #[property(name = "core-id", default = -1)]
    core_id: Prop<i32>,
    #[property(name = "thread-id", default = -1)]
    thread_id: Prop<i32>,
    #[property(name = "node-id", default = -1)]
    node_id: Prop<i32>,
    #[property(name = "phys-bits", default = 0)]
    phys_bits: Prop<u32>,
    #[property(name = "guest-phys-bits", default = u32::MAX)]
    guest_phys_bits: Prop<u32>,
    #[property(name = "host-phys-bits-limit", default = 0)]
    host_phys_bits_limit: Prop<u8>,
    #[property(name = "ucode-rev", default = 0)]
    ucode_rev: Prop<u64>,
    #[property(name = "hv-vendor-id", desc = "Name shown by the leaves of Hyper-V")]
    hv_vendor_id: Prop<String>,
    #[property(name = "hv-version-id-build", default = 14393u32)]
    hv_build: Prop<u32>,
    #[property(name = "hv-version-id-major", default = 10u16)]
    hv_major: Prop<u16>,
    #[property(name = "hv-version-id-minor", default = 0)]
    hv_minor: Prop<u16>,
    #[property(name = "hv-version-id-sbranch", default = 0)]
    hv_sbranch: Prop<u8>,
    #[property(name = "hv-version-id-snumber", default = 0)]
    hv_snumber: Prop<u32>,
    #[property(name = "hv-version-id-spack", default = 0)]
    hv_spack: Prop<u32>,
    pub(super) tsc_hz: Prop<u64>,
    pub(super) flags: Prop<u64>,
    values: RwLock<Values>,
    /// Set by realize.
    caches: RwLock<Option<CacheSet>>,
    memory: Mutex<Option<Regions>>,
    pub(super) vcpu: RwLock<Option<X86Vcpu>>,
}

/// What it maps into its own address spaces.
struct Regions {
    root: MemoryRegion,
    system: MemoryRegion,
    smram: Option<MemoryRegion>,
}

qom::register!(|r| {
    for e in entries() {
        let name = format!("{}{SUFFIX}", e.name());
        let t = TypeInfo::of::<X86Cpu>(name).class_data(*e);
        r.add(match e {
            Entry::Max => t.class_init(props::max_class_init),
            Entry::Host => t.parent(format!("max{SUFFIX}")),
            _ => t,
        });
    }
});

impl X86Cpu {
    fn class_init(c: &mut Class) {
        let d = c.edit::<DeviceClass>();
        d.user_creatable = true;
        d.desc = "x86 processor";
        run::class_init(c.edit::<CpuClass>());
        run::state_init(c);
        props::class_init(c);
        c.property(props::only("x-hv-max-vps", -1i32, "the accelerator kvm"));
        c.property(props::only("hv-spinlocks", u32::MAX, "the accelerator kvm"));
        let sharing = Property::computed::<OnOffAuto>("hv-no-nonarch-coresharing").default_value("off");
        c.property(sharing.getter(|_: &X86Cpu| Ok(OnOffAuto::Off)).setter(|c: &X86Cpu, v: OnOffAuto| match v {
            OnOffAuto::Off => Ok(()),
            _ => Err(Error::generic(format!(
                "Property '{}.hv-no-nonarch-coresharing' needs the accelerator kvm",
                c.type_name()
            ))),
        }));
    }

    fn instance_init(&self) -> Result<()> {
        let entry = self.class().data::<Entry>().ok_or_else(|| Error::generic("a CPU without a model"))?;
        let newest = Machine::of(self.scope()).is_some_and(|m| m.class_of().newest_cpu_versions);
        let def = entry.definition(newest);
        // What QEMU's engine has and ours has not, in a model that everybody uses: `enforce` alone complains.
        let quiet = match entry.resolve(newest) {
            Some((m, _)) if m.name == "qemu64" => FeatureSet::parse("svm"),
            _ => FeatureSet::default(),
        };
        let mut flags = props::flag_defaults();
        if def.force_1f {
            flags |= props::flag_mask("x-force-cpuid-0x1f");
        }
        if !matches!(def.caches, super::models::Caches::Legacy) {
            flags &= !props::flag_mask("legacy-cache");
        }
        self.flags.set(flags);
        self.hv_vendor_id.set("Microsoft Hv".to_owned());
        self.values.write().0 = Some(Config::new(def, quiet));
        Accel::of(self).map_or(Ok(()), |a| (a.class_of().cpu_instance_init)(&a, self))
    }

    /// The values as they are now.
    pub fn config(&self) -> parking_lot::MappedRwLockReadGuard<'_, Config> {
        RwLockReadGuard::map(self.values.read(), |v| v.0.as_ref().expect("set by instance_init"))
    }

    /// Changes the values.
    pub(super) fn edit<R>(&self, f: impl FnOnce(&mut Config) -> R) -> R {
        f(self.values.write().0.as_mut().expect("set by instance_init"))
    }

    /// Whether a flag property is on.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.flags.get() & props::flag_mask(name) != 0
    }

    /// The APIC id.
    pub fn apic_id(&self) -> u32 {
        self.apic_id.get()
    }

    /// Topology of the machine.
    fn topology(&self) -> Topo {
        let Some(m) = Machine::of(self.scope()) else { return Topo::default() };
        let t = m.topology();
        Topo { dies: t.dies.max(1), modules: t.modules.max(1), cores: t.cores.max(1), threads: t.threads.max(1) }
    }

    /// Completes the features and works out the levels, without taking anything away. Answers warnings.
    pub fn expand(&self) -> Vec<String> {
        let force = self.flag("x-force-cpuid-0x1f") || self.topology().is_deep();
        self.edit(|c| c.expand(force))
    }

    /// Completes the features and takes away what the engine does not implement. Answers warnings, and an error if the
    /// property `enforce` is on and something was taken away.
    pub fn settle_features(&self) -> (Vec<String>, Result<()>) {
        let mut warnings = self.expand();
        let (loud, missing) = self.edit(Config::filter);
        let enforce = self.flag("enforce");
        if enforce || self.flag("check") {
            let said = if enforce { missing } else { loud };
            warnings.extend(complain("TCG doesn't support requested feature", &said));
        }
        if enforce && !self.config().filtered.is_empty() {
            let names = self.config().filtered.names().join(", ");
            return (warnings, Err(Error::generic(format!("TCG doesn't support requested features: {names}"))));
        }
        (warnings, Ok(()))
    }

    /// The CPUID leaves of the realized CPU.
    pub fn leaves(&self) -> Vec<(u32, u32, [u32; 4])> {
        let c = self.config();
        let topo = self.topology();
        let leaf_1f = self.flag("x-force-cpuid-0x1f") || topo.is_deep();
        let caches = self.caches.read().unwrap_or(*c.caches(self.flag("legacy-cache")));
        let shape = Shape {
            def: &c.def,
            features: &c.def.features,
            levels: c.levels,
            phys_bits: self.phys_bits.get(),
            guest_phys_bits: self.guest_phys_bits.get(),
            topo,
            apic_id: self.apic_id.get(),
            caches: &caches,
            quirks: Quirks {
                hypervisor_leaves: self.flag("tcg-cpuid"),
                leaf_b: self.flag("cpuid-0xb"),
                leaf_1f,
                l3: self.flag("l3-cache"),
                vendor_only: self.flag("x-vendor-cpuid-only"),
                vendor_only_v2: self.flag("x-vendor-cpuid-only-v2"),
                consistent_cache: self.flag("x-consistent-cache"),
                topoext_only: self.flag("x-amd-topoext-features-only"),
                l1_per_core: self.flag("x-l1-cache-per-thread"),
            },
        };
        shape.leaves()
    }

    /// The model's caches where `smp-cache` has them.
    fn place_caches(&self) -> Result<()> {
        let mut caches = *self.config().caches(self.flag("legacy-cache"));
        if let Some(m) = Machine::of(self.scope())
            && let Some(levels) = m.place_caches(caches.levels())?
        {
            caches.place(levels);
        }
        *self.caches.write() = Some(caches);
        Ok(())
    }

    /// The registers, under an accelerator that has any.
    fn make_vcpu(&self) -> Result<()> {
        let Some(tcg) = TcgAccel::of(self) else { return Ok(()) };
        let v = X86Vcpu::new(self, &tcg, Arc::new(CpuidTable::new(self.leaves())))?;
        // Reset keeps it.
        v.lock().state().r.msrs.ucode_rev = self.ucode_rev.get();
        *self.vcpu.write() = Some(v);
        Ok(())
    }

    fn check_numbers(&self) -> Result<()> {
        if self.apic_id.get() == NO_APIC_ID {
            return Err(Error::generic("apic-id property was not initialized properly"));
        }
        let place = self.topology().place(self.apic_id.get());
        let ids = [&self.socket_id, &self.die_id, &self.module_id, &self.core_id, &self.thread_id];
        for (id, n) in ids.into_iter().zip(place).filter(|(id, _)| id.get() < 0) {
            id.set(n as i32);
        }
        let long = self.config().def.features.has("lm");
        let default = self.config().default_phys_bits();
        match self.phys_bits.get() {
            0 => self.phys_bits.set(default),
            n if long && !(32..=52).contains(&n) => {
                return Err(Error::generic(format!("phys-bits should be between 32 and 52  (but is {n})")));
            }
            n if !long && n != default => {
                return Err(Error::generic(format!(
                    "phys-bits is not user-configurable in 32 bit (this model has {default})"
                )));
            }
            _ => {}
        }
        match self.guest_phys_bits.get() {
            u32::MAX => self.guest_phys_bits.set(0),
            n if n > self.phys_bits.get() => {
                return Err(Error::generic(format!(
                    "guest-phys-bits should be between 32 and {}  (but is {n})",
                    self.phys_bits.get()
                )));
            }
            _ => {}
        }
        if self.ucode_rev.get() == 0 {
            self.ucode_rev.set(self.config().default_ucode_rev());
        }
        Ok(())
    }

    /// Container `memory` with the machine's memory in it, over which SMRAM is laid once the board has made it.
    fn make_memory(&self, m: &mut Locked) -> Result<()> {
        let core = self.core();
        if let Some(node) = core.system_memory().node().filter(|n| !n.path().is_empty()) {
            self.set_str("memory", &node.path())?;
        }
        let root = MemoryRegion::container(self, "memory", u64::MAX);
        let system = MemoryRegion::alias(self, "memory", &core.system_memory(), 0, u64::MAX);
        root.add_subregion(m, 0, &system);
        let index = self.index().unwrap_or(0);
        let normal = core.address_space(m, &format!("cpu-memory-{index}"), &core.system_memory());
        let smm = core.address_space(m, &format!("cpu-smm-{index}"), &root);
        self.set_address_spaces(Some(normal), Some(smm));
        *self.memory.lock() = Some(Regions { root, system, smram: None });
        if core.is_ready() {
            self.lay_smram(m);
        } else {
            core.events.machine_ready.add_for(self, |c, m, _| c.lay_smram(m));
        }
        Ok(())
    }

    fn lay_smram(&self, m: &mut Locked) {
        // The board's link: what an SMM access sees over memory.
        let link = Machine::of(self.scope()).and_then(|b| b.get("smram").ok());
        let path = link.as_ref().and_then(serde_json::Value::as_str).filter(|p| !p.is_empty());
        let Some(Ok(node)) = path.map(|p| self.scope().resolve(p)) else { return };
        let Some(target) = node.cast::<RegionNode>().and_then(|n| n.region().cloned()) else { return };
        let mut all = self.memory.lock();
        let Some(r) = all.as_mut().filter(|r| r.smram.is_none()) else { return };
        let smram = MemoryRegion::alias(self, "smram", &target, 0, 1 << 32);
        r.root.add_subregion_overlap(m, 0, &smram, 1);
        r.smram = Some(smram);
    }

    fn make_apic(&self, m: &mut Locked) -> Result<()> {
        if !self.config().def.features.has("apic") {
            return Ok(());
        }
        let apic: Ref<Device> = self.scope().object_new_as("apic")?;
        self.add_child("lapic", Ref::object(&apic))?;
        apic.set("id", serde_json::Value::from(self.apic_id.get()))?;
        apic.qdev_realize(m)
    }

    /// The local APIC's device.
    pub(super) fn apic(&self) -> Option<Ref<Device>> {
        Ref::new(self.child("lapic")?)
    }

    fn realize_parts(&self, m: &mut Locked) -> Result<()> {
        self.make_memory(m)?;
        self.make_apic(m)?;
        if let Some(a) = Accel::of(self) {
            (a.class_of().cpu_realize)(&a, self, m)?;
        }
        self.make_vcpu()?;
        if let Some(apic) = self.apic() {
            reset_object(Ref::object(&apic), m);
        }
        run::reset(self);
        let Some(a) = Accel::of(self) else { return Ok(()) };
        let cpu: Ref<Cpu> = Ref::new(self.object()).ok_or_else(|| Error::generic("a CPU"))?;
        (a.class_of().create_vcpu_thread)(&a, &cpu)
    }

    fn undo_parts(&self, m: &mut Locked) {
        if let Some(apic) = self.apic() {
            apic.qdev_unrealize(m);
            apic.unparent();
        }
        self.set_address_spaces(None, None);
        if let Some(r) = self.memory.lock().take() {
            [Some(r.system), r.smram].into_iter().flatten().for_each(|r| r.unmap(m));
        }
        if let (Some(tcg), Some(index)) = (TcgAccel::of(self), self.index()) {
            tcg.detach(index);
        }
        *self.vcpu.write() = None;
    }
}

impl DeviceImpl for X86Cpu {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        if self.class().data::<Entry>().is_some_and(|e| matches!(*e, Entry::Host)) {
            return Err(Error::generic(super::option::HOST));
        }
        let first = self.core().cpus.list().is_empty();
        let (warnings, settled) = self.settle_features();
        let topo = self.topology();
        self.edit(|c| c.finish(&topo));
        // All CPUs of a machine are alike: the first one speaks.
        if first {
            for w in warnings {
                self.core().events.warning.notify(m, &w);
            }
        }
        settled?;
        self.check_numbers()?;
        self.place_caches()?;
        self.parent_realize(m)?;
        self.realize_parts(m).inspect_err(|_| {
            self.undo_parts(m);
            self.parent_unrealize(m);
        })
    }

    fn unrealize(&self, m: &mut Locked) {
        self.undo_parts(m);
        self.parent_unrealize(m);
    }
}
