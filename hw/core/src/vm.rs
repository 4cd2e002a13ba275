//! A whole machine in one value, for tests, introspection and embedding.

use std::ops::Deref;
use std::sync::Arc;

use qom::{Global, ObjRef, Rank, Ref, Result, World};

use crate::core::Core;
use crate::machine::Machine;
use crate::qdev::{Device, DeviceAdd, device_add};

/// A scope with a core, and their end: dropping it takes devices and views apart.
pub struct Vm {
    world: World,
    core: Arc<Core>,
}

impl Default for Vm {
    fn default() -> Self {
        Self::new()
    }
}

impl Vm {
    /// A scope with a core, without a machine.
    pub fn new() -> Self {
        let core = Core::new();
        Self { world: World::new(core.clone()), core }
    }

    /// A stopped machine of type `NAME-machine` whose virtual clock is stepped by hand, with these globals
    /// (`driver`, `property`, `value`).
    ///
    /// # Errors
    /// As the steps of start-up.
    pub fn with_machine(name: &str, globals: &[(&str, &str, &str)]) -> Result<Self> {
        let vm = Self::new();
        vm.core.clocks.set_stepped();
        for (driver, property, value) in globals {
            vm.world.add_global(Global::new(Rank::User, *driver, *property, *value));
        }
        let machine = Machine::create(vm.world.scope(), &format!("{name}-machine"))?;
        machine.apply_compat_props();
        machine.set_up_memory()?;
        machine.run_board_init(&mut vm.core.lock())?;
        Ok(vm)
    }

    /// The core.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The world: scope and tree.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The root of the tree.
    pub fn root(&self) -> ObjRef {
        self.world.root().clone()
    }

    /// The machine, if there is one.
    pub fn machine(&self) -> Option<Ref<Machine>> {
        Machine::of(self.world.scope())
    }

    /// `-device driver,id=ID,prop=value…`, values as text; `bus` among them names the bus.
    ///
    /// # Errors
    /// As [`device_add`].
    pub fn device_add(&self, driver: &str, id: Option<&str>, props: &[(&str, &str)]) -> Result<Ref<Device>> {
        let bus = props.iter().find(|p| p.0 == "bus").map(|p| p.1);
        let props = props.iter().filter(|p| p.0 != "bus").map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        let add = DeviceAdd { driver, id, bus, props, text: true };
        device_add(self.world.scope(), &mut self.core.lock(), &add)
    }
}

impl Deref for Vm {
    type Target = Core;
    fn deref(&self) -> &Core {
        &self.core
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.core.cpus.end_all();
        self.core.shut_down();
    }
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vm")
    }
}
