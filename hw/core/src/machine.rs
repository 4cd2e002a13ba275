//! Type `machine`: class struct, properties of every machine, and the steps of start-up that belong to it.

use std::sync::Arc;

use parking_lot::RwLock;
use qom::{
    Base, Class, Error, Global, Link, ObjRef, Object, Prop, PropStruct, Property, Rank, Ref, Result, Scope, Size,
};
use serde_json::json;

use crate::core::Core;
use crate::hostmem::{ConfidentialGuestSupport, HostMemory};
use crate::locked::Locked;
use crate::memory::MemoryRegion;
use crate::qdev::Device;
use crate::request::ShutdownCause;
use crate::smp::{CacheLevels, SmpCacheList, SmpCaches, SmpConfig, SmpRules, Topology};
use crate::sysbus::system_bus;

/// Most slots for memory modules: what ACPI's memory hotplug registers address.
const MAX_RAM_SLOTS: u64 = 256;

/// One compat property: `driver.property=value`.
#[derive(Clone, Debug)]
pub struct CompatProp {
    /// Type name.
    pub driver: &'static str,
    /// Property name.
    pub property: &'static str,
    /// Value, as text.
    pub value: &'static str,
    /// Passed over where the device has no such property.
    pub optional: bool,
}

/// A CPU that the machine has, or has room for.
#[derive(Clone, Debug)]
pub struct CpuSlot {
    /// Architecture's number of the CPU (APIC id).
    pub arch_id: u64,
    /// Place in the topology, as the CPU's properties name it (`socket-id` …).
    pub props: Vec<(&'static str, i64)>,
    /// CPUs in the slot.
    pub vcpus: u32,
    /// Type that fits.
    pub type_name: String,
    /// The CPU, if it is plugged.
    pub cpu: Option<ObjRef>,
}

/// Class struct of machines.
#[derive(Clone)]
pub struct MachineClass {
    /// Name for `-machine`: the type name without `-machine`.
    pub name: String,
    /// Other name for `-machine`.
    pub alias: Option<&'static str>,
    /// One line for `-machine help`.
    pub desc: String,
    /// Why it should not be used any more.
    pub deprecation_reason: Option<&'static str>,
    /// Taken when the user names none.
    pub is_default: bool,
    /// Fewest CPUs; 0 stands for 1.
    pub min_cpus: u32,
    /// Most CPUs; 0 stands for 1.
    pub max_cpus: u32,
    /// CPUs without `-smp`; 0 stands for 1.
    pub default_cpus: u32,
    /// Type of CPU without `-cpu`.
    pub default_cpu_type: Option<&'static str>,
    /// CPU models without a version are their newest version; otherwise their first.
    pub newest_cpu_versions: bool,
    /// Parent type of the CPUs that the machine takes, if it takes any.
    pub cpu_base_type: Option<&'static str>,
    /// Memory without `-m`, in bytes.
    pub default_ram_size: u64,
    /// Id of the memory back end that is made without `memory-backend=`.
    pub default_ram_id: Option<&'static str>,
    /// Display adapter without `-vga`.
    pub default_display: Option<&'static str>,
    /// Network card without `-nic`.
    pub default_nic: Option<&'static str>,
    /// Boot order without `-boot`.
    pub default_boot_order: Option<&'static str>,
    /// No serial, parallel port, floppy or CD-ROM by default.
    pub no_serial: bool,
    /// See [`MachineClass::no_serial`].
    pub no_parallel: bool,
    /// See [`MachineClass::no_serial`].
    pub no_floppy: bool,
    /// See [`MachineClass::no_serial`].
    pub no_cdrom: bool,
    /// Whether CPUs can be plugged.
    pub has_hotpluggable_cpus: bool,
    /// Whether memory nodes can be configured.
    pub numa_mem_supported: bool,
    /// Which levels of `-smp` it has.
    pub smp: SmpRules,
    /// Properties that devices of this version have other defaults for, in order of application.
    pub compat_props: Vec<CompatProp>,
    /// Builds the board. CPUs, memory, chipset, devices.
    pub init: fn(&Machine, &mut Locked) -> Result<()>,
    /// Resets the machine; `None`: [`Machine::reset_devices`].
    pub reset: Option<fn(&Machine, &mut Locked, ShutdownCause)>,
    /// Who is asked about plugging a device, before its bus is asked.
    pub hotplug_handler: fn(&Machine, &Device) -> Option<ObjRef>,
    /// The CPUs it has or has room for.
    pub possible_cpus: fn(&Machine) -> Vec<CpuSlot>,
}

impl Default for MachineClass {
    fn default() -> Self {
        Self {
            name: String::new(),
            alias: None,
            desc: String::new(),
            deprecation_reason: None,
            is_default: false,
            min_cpus: 0,
            max_cpus: 0,
            default_cpus: 0,
            default_cpu_type: None,
            newest_cpu_versions: false,
            cpu_base_type: None,
            default_ram_size: 128 << 20,
            default_ram_id: None,
            default_display: None,
            default_nic: None,
            default_boot_order: None,
            no_serial: false,
            no_parallel: false,
            no_floppy: false,
            no_cdrom: false,
            has_hotpluggable_cpus: false,
            numa_mem_supported: false,
            smp: SmpRules::default(),
            compat_props: vec![],
            init: |_, _| Ok(()),
            reset: None,
            hotplug_handler: |_, _| None,
            possible_cpus: |_| vec![],
        }
    }
}

/// Structure of the property `memory`.
#[derive(Clone, Debug, Default, PartialEq, PropStruct)]
#[qom(name = "MemorySizeConfiguration")]
pub struct MemorySizeConfiguration {
    /// Memory at start.
    pub size: Option<Size>,
    /// Memory with everything plugged.
    #[qom(name = "max-size")]
    pub max_size: Option<Size>,
    /// Slots for plugged memory.
    pub slots: Option<u64>,
}

/// Structure of the property `boot`.
#[derive(Clone, Debug, Default, PartialEq, PropStruct)]
#[qom(name = "BootConfiguration")]
pub struct BootConfiguration {
    /// Drives in order, by letter.
    pub order: Option<String>,
    /// The same for the first boot only.
    pub once: Option<String>,
    /// Whether firmware shows its menu.
    pub menu: Option<bool>,
    /// Picture for the firmware to show.
    pub splash: Option<String>,
    /// Milliseconds it is shown.
    #[qom(name = "splash-time")]
    pub splash_time: Option<i64>,
    /// Milliseconds until a failed boot is tried again; -1 for never.
    #[qom(name = "reboot-timeout")]
    pub reboot_timeout: Option<i64>,
    /// Boot from nothing that has no boot index.
    pub strict: Option<bool>,
}

/// Type `machine`.
#[derive(qom::Object)]
#[qom(name = "machine", parent = Base, abstract, class_init = Machine::class_init, class_base_init = Machine::class_base_init,
    instance_init = Machine::instance_init)]
pub struct Machine {
    parent: Base,
    /// Linux kernel command line.
    #[property(type = "string", desc = "Linux kernel command line")]
    pub append: Prop<String>,
    /// Share memory of the machine's own regions.
    #[property(name = "aux-ram-share", desc = "Share memory of the machine's own regions")]
    pub aux_ram_share: Prop<bool>,
    #[property(name = "confidential-guest-support", desc = "Set confidential guest scheme to support")]
    cgs: Link<ConfidentialGuestSupport>,
    /// Overrides the `compatible` property of the device tree root.
    #[property(
        name = "dt-compatible",
        type = "string",
        desc = "Overrides the \"compatible\" property of the device tree root"
    )]
    pub dt_compatible: Prop<String>,
    /// Device tree file.
    #[property(type = "string", desc = "Device tree file")]
    pub dtb: Prop<String>,
    /// Include guest memory in a core dump.
    #[property(name = "dump-guest-core", default = true, desc = "Include guest memory in a core dump")]
    pub dump_guest_core: Prop<bool>,
    /// Firmware image.
    #[property(type = "string", desc = "Firmware image")]
    pub firmware: Prop<String>,
    /// Set on/off to enable/disable graphics emulation.
    #[property(default = true, desc = "Set on/off to enable/disable graphics emulation")]
    pub graphics: Prop<bool>,
    /// Linux initial ramdisk file.
    #[property(type = "string", desc = "Linux initial ramdisk file")]
    pub initrd: Prop<String>,
    /// Linux kernel image file.
    #[property(type = "string", desc = "Linux kernel image file")]
    pub kernel: Prop<String>,
    /// Enable/disable memory merge support.
    #[property(name = "mem-merge", default = true, desc = "Enable/disable memory merge support")]
    pub mem_merge: Prop<bool>,
    #[property(name = "memory-backend", desc = "Memory back end that provides the RAM")]
    memory_backend: Link<HostMemory>,
    /// First phandle of the device tree.
    #[property(name = "phandle-start", type = "int", desc = "First phandle of the device tree")]
    pub phandle_start: Prop<i64>,
    smp_caches: RwLock<SmpCaches>,
    /// Serial port console redirection table.
    #[property(default = true, desc = "Serial port console redirection table")]
    pub spcr: Prop<bool>,
    /// Suppress the description of the state in a migration stream.
    #[property(name = "suppress-vmdesc", desc = "Suppress the description of the state in a migration stream")]
    pub suppress_vmdesc: Prop<bool>,
    /// Set on/off to enable/disable USB.
    #[property(desc = "Set on/off to enable/disable USB")]
    pub usb: Prop<bool>,
    /// Make a new VM at each reset.
    #[property(name = "x-change-vmfd-on-reset", desc = "Make a new VM at each reset")]
    pub change_vmfd: Prop<bool>,
    boot: RwLock<BootConfiguration>,
    memory: RwLock<MemorySizeConfiguration>,
    topology: RwLock<Topology>,
    ram: RwLock<Option<MemoryRegion>>,
    cpu_type: RwLock<Option<String>>,
}

/// A property of QEMU's machines for a part that cannot be configured here: it reads as without that part, whoever sets it is told.
#[derive(Clone, Copy, Debug)]
pub struct AbsentProperty {
    /// Name.
    pub name: &'static str,
    /// Type, as QOM shows it; `string` reads as an empty text, others as an empty list.
    pub ty: &'static str,
    /// Description.
    pub desc: &'static str,
    /// Why it cannot be set.
    pub why: &'static str,
}

impl AbsentProperty {
    /// Adds it to a class.
    pub fn add(&self, c: &mut Class) {
        let value = if self.ty == "string" { json!("") } else { json!([]) };
        let why = self.why;
        let refuse = move |_: &dyn Object, _: qom::Input<'_>| Err(Error::generic(why).into());
        let p = Property::new(self.name, self.ty).reader(move |_| Ok(value.clone())).writer(refuse);
        c.property(if self.desc.is_empty() { p } else { p.describe(self.desc) });
    }
}

/// What no machine has here.
const ABSENT: [AbsentProperty; 3] = [
    AbsentProperty {
        name: "dumpdtb",
        ty: "string",
        desc: "Dump current device tree to a file and quit",
        why: "'dumpdtb' is not built yet",
    },
    AbsentProperty {
        name: "memory-encryption",
        ty: "string",
        desc: "Memory encryption object to use",
        why: "'memory-encryption' is not built yet",
    },
    AbsentProperty { name: "shim", ty: "string", desc: "UEFI shim image file", why: "'shim' is not built yet" },
];

impl Machine {
    fn class_init(c: &mut Class) {
        c.edit::<MachineClass>();
        ABSENT.iter().for_each(|p| p.add(c));
        c.property(
            Property::computed::<BootConfiguration>("boot")
                .getter(|o: &Machine| Ok(o.boot()))
                .setter(Machine::set_boot)
                .describe("Boot configuration"),
        );
        c.property(
            Property::computed::<MemorySizeConfiguration>("memory")
                .getter(|o: &Machine| {
                    Ok(MemorySizeConfiguration { size: Some(Size(o.ram_size())), ..o.memory.read().clone() })
                })
                .setter(Machine::set_memory)
                .describe("Memory size configuration"),
        );
        c.property(
            Property::computed::<SmpConfig>("smp")
                .getter(|o: &Machine| Ok(o.topology().to_config()))
                .setter(|o: &Machine, v: SmpConfig| {
                    let t = Topology::parse(o.class_of(), &v)?;
                    *o.topology.write() = t;
                    Ok(())
                })
                .describe("CPU topology"),
        );
        c.property(
            Property::computed::<SmpCacheList>("smp-cache")
                .getter(|o: &Machine| Ok(o.smp_caches.read().to_list()))
                .setter(|o: &Machine, v: SmpCacheList| {
                    *o.smp_caches.write() = SmpCaches::parse(&o.class_of().smp, &v)?;
                    Ok(())
                })
                .describe("Topology of the CPUs' caches"),
        );
    }

    /// A type name says the machine's name.
    fn class_base_init(c: &mut Class) {
        let name = c.name().strip_suffix("-machine").unwrap_or(c.name()).to_owned();
        let mc = c.edit::<MachineClass>();
        mc.name = name;
        // What a version says of itself is not its successors'.
        mc.alias = None;
        mc.is_default = false;
    }

    fn instance_init(&self) -> Result<()> {
        let c = self.class_of();
        self.boot.write().order = c.default_boot_order.map(str::to_owned);
        let cpus = c.default_cpus.max(1);
        *self.topology.write() = Topology::parse(c, &SmpConfig { cpus: Some(cpus.into()), ..SmpConfig::default() })?;
        Ok(())
    }

    /// The machine part of its class.
    pub fn class_of(&self) -> &'static MachineClass {
        self.class().get().expect("classes below 'machine' have a MachineClass")
    }

    /// The machine of a scope.
    pub fn of(scope: &Arc<Scope>) -> Option<Ref<Machine>> {
        Ref::new(scope.root().child("machine")?)
    }

    /// The machine's core.
    pub fn core(&self) -> &Core {
        Core::of(self)
    }

    /// Creates a machine at `/machine` with its folders, the main system bus and the roots of memory and I/O ports.
    ///
    /// # Errors
    /// The type is not a machine; the scope has one already.
    pub fn create(scope: &Arc<Scope>, type_name: &str) -> Result<Ref<Machine>> {
        let machine: Ref<Machine> = scope.object_new_as(type_name)?;
        scope.root().add_child("machine", Ref::object(&machine))?;
        let unattached = scope.container("/machine/unattached")?;
        scope.container("/machine/peripheral")?;
        scope.container("/machine/peripheral-anon")?;
        system_bus(scope)?;
        machine.core().system_memory().publish(&*unattached);
        machine.core().system_io().publish(&*unattached);
        Ok(machine)
    }

    /// The folder for objects that nobody placed.
    ///
    /// # Errors
    /// Something else has its name.
    pub fn unattached(&self) -> Result<ObjRef> {
        self.scope().container("/machine/unattached")
    }

    /// Makes the compat properties of the machine's version globals.
    pub fn apply_compat_props(&self) {
        for p in &self.class_of().compat_props {
            let g = Global::new(Rank::Machine, p.driver, p.property, p.value);
            self.scope().add_global(if p.optional { g.optional() } else { g });
        }
    }

    /// Boot order and more.
    pub fn boot(&self) -> BootConfiguration {
        self.boot.read().clone()
    }

    fn set_boot(&self, v: BootConfiguration) -> Result<()> {
        for (name, order) in [("order", &v.order), ("once", &v.once)] {
            let Some(order) = order else { continue };
            let mut seen = String::new();
            for c in order.chars() {
                if !c.is_ascii_lowercase() || c > 'p' {
                    return Err(Error::generic(format!(
                        "Invalid boot device '{c}' in '{name}': expected letters a to p"
                    )));
                }
                if seen.contains(c) {
                    return Err(Error::generic(format!("Boot device '{c}' was given twice")));
                }
                seen.push(c);
            }
        }
        if v.splash_time.is_some_and(|t| !(0..=0xffff).contains(&t)) {
            return Err(Error::generic("splash-time is invalid, it should be a value between 0 and 65535"));
        }
        if v.reboot_timeout.is_some_and(|t| !(-1..=0xffff).contains(&t)) {
            return Err(Error::generic("reboot timeout is invalid, it should be a value between -1 and 65535"));
        }
        *self.boot.write() = v;
        Ok(())
    }

    fn set_memory(&self, mut v: MemorySizeConfiguration) -> Result<()> {
        // No size and size 0 mean the machine's default.
        let wanted = v.size.map_or(0, |s| s.0);
        let size = if wanted == 0 { self.class_of().default_ram_size } else { wanted }.checked_next_multiple_of(8192);
        let size = size.ok_or("ram size too large")?;
        match (v.max_size, v.slots) {
            (Some(max), _) if max.0 < size => {
                return Err(Error::generic(format!(
                    "invalid value of maxmem: maximum memory size ({:#x}) must be at least the initial memory size ({size:#x})",
                    max.0
                )));
            }
            (_, Some(slots)) if slots > MAX_RAM_SLOTS => {
                return Err(Error::generic(format!(
                    "unsupported amount of memory slots: {slots} (at most {MAX_RAM_SLOTS})"
                )));
            }
            (None, Some(_)) => return Err(Error::generic("slots specified but no max-size")),
            _ => {}
        }
        v.size = Some(Size(size));
        *self.memory.write() = v;
        Ok(())
    }

    /// Memory at start in bytes.
    pub fn ram_size(&self) -> u64 {
        self.memory.read().size.map_or(self.class_of().default_ram_size, |s| s.0)
    }

    /// Memory with everything plugged, in bytes.
    pub fn max_ram_size(&self) -> u64 {
        self.memory.read().max_size.map_or_else(|| self.ram_size(), |s| s.0)
    }

    /// Slots for plugged memory.
    pub fn ram_slots(&self) -> u64 {
        self.memory.read().slots.unwrap_or(0)
    }

    /// CPUs and their topology.
    pub fn topology(&self) -> Topology {
        self.topology.read().clone()
    }

    /// Where the caches of CPUs sit whose model has them at the levels `model`; `None` if the user left that to the model.
    ///
    /// # Errors
    /// A cache would be shared by fewer threads than one below it.
    pub fn place_caches(&self, model: CacheLevels) -> Result<Option<CacheLevels>> {
        self.smp_caches.write().complete(model)
    }

    /// Type of the CPUs: the user's choice or the class's.
    pub fn cpu_type(&self) -> Option<String> {
        self.cpu_type.read().clone().or_else(|| self.class_of().default_cpu_type.map(str::to_owned))
    }

    /// Sets the type of the CPUs.
    pub fn set_cpu_type(&self, type_name: &str) {
        *self.cpu_type.write() = Some(type_name.to_owned());
    }

    /// The memory back end of the property `memory-backend`.
    pub fn memory_backend(&self) -> Option<Ref<HostMemory>> {
        self.memory_backend.get()
    }

    /// The RAM that the board maps.
    ///
    /// # Errors
    /// Before [`Machine::set_up_memory`], or for a machine without memory.
    pub fn ram(&self) -> Result<MemoryRegion> {
        self.ram.read().clone().ok_or_else(|| Error::generic("the machine has no memory"))
    }

    /// Makes the memory back end, unless the user gave one, and takes its region as the machine's RAM.
    ///
    /// # Errors
    /// The host cannot give the memory; the back end's size is not the machine's.
    pub fn set_up_memory(&self) -> Result<()> {
        let Some(id) = self.class_of().default_ram_id else { return Ok(()) };
        if self.memory_backend.get().is_none() && self.ram_size() != 0 {
            let mem = HostMemory::create(self.scope(), id, self.ram_size())?;
            self.memory_backend.set(Some(Ref::object(&mem)))?;
        }
        let Some(mem) = self.memory_backend.get() else { return Ok(()) };
        let region = mem.region()?;
        if region.size() != self.ram_size() {
            let given = self.memory.read().size.is_some();
            if given {
                return Err(Error::generic(format!(
                    "Machine memory size does not match the size of the memory backend ({:#x} and {:#x})",
                    self.ram_size(),
                    region.size()
                )));
            }
            self.memory.write().size = Some(Size(region.size()));
        }
        mem.set_mapped();
        *self.ram.write() = Some(region);
        Ok(())
    }

    /// Builds the board.
    ///
    /// # Errors
    /// A CPU type the machine does not take; what the board says.
    pub fn run_board_init(&self, m: &mut Locked) -> Result<()> {
        let c = self.class_of();
        if let (Some(t), Some(base)) = (self.cpu_type(), c.cpu_base_type)
            && !qom::Registry::global().class(&t).is_ok_and(|t| t.is_a(base) && !t.is_abstract())
        {
            return Err(Error::generic(format!(
                "Invalid CPU model: {t}: machine '{}' takes types below '{base}'",
                c.name
            )));
        }
        (c.init)(self, m)
    }

    /// After the user's devices: the end of start-up. Devices that come later are hot-plugged.
    pub fn creation_done(&self, m: &mut Locked) {
        let core = self.core();
        core.set_ready();
        core.events.machine_ready.notify(m, &());
    }

    /// Resets the machine. vCPUs are paused.
    pub fn reset(&self, m: &mut Locked, cause: ShutdownCause) {
        match self.class_of().reset {
            Some(reset) => reset(self, m, cause),
            None => self.reset_devices(m),
        }
    }

    /// Resets everything on the machine's reset list, images included.
    pub fn reset_devices(&self, m: &mut Locked) {
        let core = self.core();
        core.resets.run(m);
        core.roms.reset(core, m);
    }

    /// Who is asked about plugging `dev`, before its bus is asked.
    pub fn hotplug_handler(&self, dev: &Device) -> Option<ObjRef> {
        (self.class_of().hotplug_handler)(self, dev)
    }

    /// The CPUs the machine has or has room for.
    pub fn possible_cpus(&self) -> Vec<CpuSlot> {
        (self.class_of().possible_cpus)(self)
    }
}

/// All machine types that are not abstract, by name.
pub fn machines() -> Vec<&'static Class> {
    let registry = qom::Registry::global();
    registry.list(Some("machine"), false).into_iter().filter_map(|t| registry.class(t.name()).ok()).collect()
}

/// The machine type that `-machine NAME` means: name or alias.
///
/// # Errors
/// There is none; the nearest names are given.
pub fn find_machine(name: &str) -> Result<&'static Class> {
    let all = machines();
    let class = |c: &&&'static Class| c.get::<MachineClass>().is_some_and(|m| m.name == name || m.alias == Some(name));
    if let Some(c) = all.iter().find(class) {
        return Ok(c);
    }
    let names: Vec<String> = all
        .iter()
        .filter_map(|c| c.get::<MachineClass>())
        .flat_map(|m| [Some(m.name.clone()), m.alias.map(str::to_owned)])
        .flatten()
        .collect();
    let near = qom::nearest(name, names.iter().map(String::as_str));
    let hint = if near.is_empty() { String::new() } else { format!(" (did you mean '{}'?)", near.join("', '")) };
    Err(Error::generic(format!("unsupported machine type: \"{name}\"{hint}")))
}

/// The machine type taken when the user names none.
pub fn default_machine() -> Option<&'static Class> {
    machines().into_iter().find(|c| c.get::<MachineClass>().is_some_and(|m| m.is_default))
}

/// Type `none-machine`: nothing but folders and buses.
#[derive(qom::Object)]
#[qom(name = "none-machine", parent = Machine, class_init = NoneMachine::class_init)]
pub struct NoneMachine {
    parent: Machine,
}

impl NoneMachine {
    fn class_init(c: &mut Class) {
        let mc = c.edit::<MachineClass>();
        mc.desc = "empty machine".to_owned();
        mc.max_cpus = 1;
        mc.default_ram_size = 0;
        mc.default_ram_id = Some("ram");
        (mc.no_serial, mc.no_parallel, mc.no_floppy, mc.no_cdrom) = (true, true, true, true);
    }
}
