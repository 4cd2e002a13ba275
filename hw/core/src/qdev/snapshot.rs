//! Snapshots of device state: every `#[state]` cell by canonical path. Loading decodes everything before it changes
//! anything, then applies all, then calls `post_load` everywhere.
//!
//! The value also keeps the virtual clock. Memory is saved elsewhere, by block.

use std::sync::Arc;

use qom::{Base, Class, Error, Level, ObjRef, Object, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::device::Device;
use super::imp::as_level;
use crate::core::Core;
use crate::locked::{Locked, MachineCell, SharedCell};

/// Version of the snapshot's frame.
const VERSION: u64 = 1;

type Save = Arc<dyn Fn(&dyn Object, &Locked) -> Result<Value> + Send + Sync>;
type Apply = Box<dyn FnOnce(&dyn Object, &mut Locked)>;
type Load = Arc<dyn Fn(&Value) -> Result<Apply> + Send + Sync>;

#[derive(Clone)]
struct StateField {
    name: String,
    save: Save,
    load: Load,
}

/// Class struct: the state cells of a type and its ancestors.
#[derive(Clone, Default)]
pub struct StateClass(Vec<StateField>);

impl StateClass {
    /// Names of the cells, `type.field`.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|f| f.name.as_str()).collect()
    }
}

/// What a loader makes of a value: the change itself, once every value of the machine has been understood.
pub type ApplyTo<T> = Box<dyn FnOnce(&T, &mut Locked)>;

impl StateClass {
    /// State of `T` that is in no cell.
    pub fn add_custom<T: Level>(
        class: &mut Class,
        name: &'static str,
        save: fn(&T, &Locked) -> Result<Value>,
        load: fn(&Value) -> Result<ApplyTo<T>>,
    ) {
        class.edit::<StateClass>().0.push(StateField {
            name: format!("{}.{name}", T::NAME),
            save: Arc::new(move |o, m| as_level(o, |t: &T| save(t, m))),
            load: Arc::new(move |v| {
                let apply = load(v)?;
                Ok(Box::new(move |o, m| as_level(o, |t: &T| apply(t, m))))
            }),
        });
    }
}

impl<S: Default + Serialize + DeserializeOwned + Send + Sync + 'static> qom::State for MachineCell<S> {
    fn init(base: &Base) -> Self {
        Core::of(base).cell(S::default())
    }

    fn register<T: Level>(class: &mut Class, name: &'static str, field: fn(&T) -> &Self) {
        class.edit::<StateClass>().0.push(StateField {
            name: format!("{}.{name}", T::NAME),
            save: Arc::new(move |o, m| {
                as_level(o, |t: &T| serde_json::to_value(field(t).ro(m))).map_err(|e| Error::generic(e.to_string()))
            }),
            load: Arc::new(move |v| {
                let s = S::deserialize(v).map_err(|e| Error::generic(e.to_string()))?;
                Ok(Box::new(move |o, m| as_level(o, |t: &T| *field(t).rw(m) = s)))
            }),
        });
    }
}

impl<S: Default + Serialize + DeserializeOwned + Send + Sync + 'static> qom::State for SharedCell<S> {
    fn init(_: &Base) -> Self {
        Self::default()
    }

    fn register<T: Level>(class: &mut Class, name: &'static str, field: fn(&T) -> &Self) {
        class.edit::<StateClass>().0.push(StateField {
            name: format!("{}.{name}", T::NAME),
            save: Arc::new(move |o, _| {
                as_level(o, |t: &T| serde_json::to_value(&*field(t).lock())).map_err(|e| Error::generic(e.to_string()))
            }),
            load: Arc::new(move |v| {
                let s = S::deserialize(v).map_err(|e| Error::generic(e.to_string()))?;
                Ok(Box::new(move |o, _| as_level(o, |t: &T| *field(t).lock() = s)))
            }),
        });
    }
}

fn cells(o: &ObjRef) -> &'static [StateField] {
    o.class().get::<StateClass>().map_or(&[], |c| &c.0)
}

fn objects(root: &ObjRef) -> Vec<(String, ObjRef)> {
    let mut all = vec![];
    root.walk(&mut |o| all.push((o.path(), o.clone())));
    all
}

/// The state of every object below `root`, and the virtual clock.
///
/// # Errors
/// State that cannot be written: a map with keys that are not text, and the like.
pub fn save(root: &ObjRef, m: &Locked) -> Result<Value> {
    let mut all = Map::new();
    for (path, o) in objects(root) {
        let mut fields = Map::new();
        for f in cells(&o) {
            let v = (f.save)(&*o, m).map_err(|e| e.context(format!("{path}: {}", f.name)))?;
            fields.insert(f.name.clone(), v);
        }
        if !fields.is_empty() {
            all.insert(path, fields.into());
        }
    }
    Ok(json!({ "version": VERSION, "clock": m.clock.now(), "objects": all }))
}

/// Loads what [`save`] made into the same set of objects. The machine is stopped.
///
/// # Errors
/// Another version, an object too many or too few, a value that does not fit: nothing has changed then. An error of a `post_load`
/// comes last, with the state loaded.
pub fn load(root: &ObjRef, m: &mut Locked, v: &Value) -> Result<()> {
    if v.get("version").and_then(Value::as_u64) != Some(VERSION) {
        return Err(Error::generic(format!("the snapshot is not of version {VERSION}")));
    }
    let clock = v.get("clock").and_then(Value::as_u64).ok_or("the snapshot has no clock")?;
    let saved = v.get("objects").and_then(Value::as_object).ok_or("the snapshot has no objects")?;
    let objects = objects(root);
    let mut todo: Vec<(ObjRef, Apply)> = vec![];
    for (path, o) in &objects {
        for f in cells(o) {
            let value = saved.get(path).and_then(|s| s.get(&f.name));
            let value = value.ok_or_else(|| Error::generic(format!("{path}: {} is not in the snapshot", f.name)))?;
            let apply = (f.load)(value).map_err(|e| e.context(format!("{path}: {}", f.name)))?;
            todo.push((o.clone(), apply));
        }
    }
    if let Some(extra) = saved.keys().find(|p| !objects.iter().any(|(path, o)| path == *p && !cells(o).is_empty())) {
        return Err(Error::generic(format!("{extra}: in the snapshot, but not in the machine")));
    }
    for (o, apply) in todo {
        apply(&*o, m);
    }
    m.clock.restore(clock);
    for (path, o) in &objects {
        if let Some(d) = o.cast::<Device>().filter(|d| d.is_realized()) {
            (d.class_of().post_load)(&**o, m).map_err(|e| e.context(path.clone()))?;
        }
    }
    Ok(())
}
