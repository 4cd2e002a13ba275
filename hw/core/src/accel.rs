//! Type `accel`: how vCPUs run. The `accel` crate provides `tcg-accel` and `qtest-accel`; `vl` chooses one by name and
//! calls its class's hooks.

use std::sync::Arc;

use qom::{Base, Class, Error, Global, ObjRef, Object, Rank, Ref, Registry, Result, Scope};

use crate::cpu::Cpu;
use crate::locked::Locked;
use crate::machine::{CompatProp, Machine};

/// Class struct of accelerators.
#[derive(Clone)]
pub struct AccelClass {
    /// Name for `-accel`: the type name without `-accel`.
    pub name: String,
    /// Prepares the accelerator for a machine, before the board is built.
    pub init_machine: fn(&Accel, &Machine, &mut Locked) -> Result<()>,
    /// Instance init of every CPU, for what the accelerator adds to it.
    pub cpu_instance_init: fn(&Accel, &Cpu) -> Result<()>,
    /// Realize of every CPU, before the architecture's own.
    pub cpu_realize: fn(&Accel, &Cpu, &mut Locked) -> Result<()>,
    /// Starts the thread of a realized vCPU; it parks until the machine starts.
    pub create_vcpu_thread: fn(&Accel, &Ref<Cpu>) -> Result<()>,
    /// Other defaults for devices under this accelerator.
    pub compat_props: Vec<CompatProp>,
}

impl Default for AccelClass {
    fn default() -> Self {
        Self {
            name: String::new(),
            init_machine: |_, _, _| Ok(()),
            cpu_instance_init: |_, _| Ok(()),
            cpu_realize: |_, _, _| Ok(()),
            create_vcpu_thread: |_, _| Ok(()),
            compat_props: vec![],
        }
    }
}

/// Type `accel`.
#[derive(qom::Object)]
#[qom(name = "accel", parent = Base, abstract, class_init = Accel::class_init, class_base_init = Accel::class_base_init)]
pub struct Accel {
    parent: Base,
}

/// Where the machine's accelerator is in the tree: not at all, as in QEMU. The core keeps it.
impl Accel {
    fn class_init(c: &mut Class) {
        c.edit::<AccelClass>();
    }

    fn class_base_init(c: &mut Class) {
        let name = c.name().strip_suffix("-accel").unwrap_or(c.name()).to_owned();
        c.edit::<AccelClass>().name = name;
    }

    /// The accelerator part of its class.
    pub fn class_of(&self) -> &'static AccelClass {
        self.class().get().expect("classes below 'accel' have an AccelClass")
    }

    /// An accelerator by name (`tcg`), properties not set yet.
    ///
    /// # Errors
    /// There is none of this name; the available ones are named.
    pub fn create(scope: &Arc<Scope>, name: &str) -> Result<Ref<Accel>> {
        let type_name = format!("{name}-accel");
        let known = Registry::global().class(&type_name).is_ok_and(|c| c.is_a("accel") && !c.is_abstract());
        if !known {
            return Err(Error::generic(format!("invalid accelerator {name} (available: {})", names().join(", "))));
        }
        scope.object_new_as(&type_name)
    }

    /// Makes it the machine's accelerator: prepares it, and makes its compat properties globals.
    ///
    /// # Errors
    /// The host cannot do it.
    pub fn init_machine(&self, machine: &Machine, m: &mut Locked) -> Result<()> {
        let c = self.class_of();
        (c.init_machine)(self, machine, m)?;
        for p in &c.compat_props {
            let g = Global::new(Rank::Accel, p.driver, p.property, p.value);
            self.scope().add_global(if p.optional { g.optional() } else { g });
        }
        machine.core().set_accel(&self.object());
        Ok(())
    }

    /// The accelerator of an object's machine.
    pub fn of(o: &dyn Object) -> Option<Ref<Accel>> {
        let accel: ObjRef = crate::core::Core::of(o).accel()?;
        Ref::new(accel)
    }
}

/// Names for `-accel`, sorted.
pub fn names() -> Vec<String> {
    let types = Registry::global().list(Some("accel"), false);
    types.iter().filter_map(|t| t.name().strip_suffix("-accel")).map(str::to_owned).collect()
}
