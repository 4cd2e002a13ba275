//! Classes: what all objects of one type share. `&'static`, never changed once built.

use crate::object::{Base, Kind, ObjRef, Object};
use crate::property::Property;
use crate::registry::{InstanceInit, Registry, TypeInfo};
use crate::{Map, Result};
use serde_json::Value;
use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::sync::Arc;

pub(crate) type Slot = Arc<dyn Any + Send + Sync>;
type PropertyTable = Map<Box<str>, Arc<Property>>;

/// The class of a type: class structs, property table, initialisers. Everything is shared with the parent's class until
/// it is edited.
#[derive(Clone, Default)]
pub struct Class {
    name: &'static str,
    id: u32,
    parent: Option<&'static Class>,
    is_abstract: bool,
    pub(crate) ids: Vec<u32>,
    slots: Vec<(TypeId, Slot)>,
    props: Arc<PropertyTable>,
    defaults: Vec<(Cow<'static, str>, Value)>,
    data: Option<Slot>,
    pub(crate) new: Option<fn(Base) -> ObjRef>,
    pub(crate) inits: Vec<InstanceInit>,
    pub(crate) post_inits: Vec<InstanceInit>,
}

impl Class {
    pub(crate) fn inherit(parent: Option<&'static Class>, info: &'static TypeInfo, id: u32) -> Self {
        let mut c = parent.cloned().unwrap_or_default();
        c.name = &info.name;
        c.id = id;
        c.parent = parent;
        c.is_abstract = info.is_abstract;
        c.ids.push(id);
        c.data.clone_from(&info.class_data);
        c.new = info.new;
        c.inits.extend(info.instance_init);
        c.post_inits.extend(info.post_init);
        c
    }

    pub(crate) fn add_ids(&mut self, ids: &[u32]) {
        for id in ids {
            if !self.ids.contains(id) {
                self.ids.push(*id);
            }
        }
    }

    /// QOM type name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Number of the type in the registry.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Class of the parent type.
    pub fn parent(&self) -> Option<&'static Class> {
        self.parent
    }

    /// Whether the type has no instances.
    pub fn is_abstract(&self) -> bool {
        self.is_abstract
    }

    /// Whether the type is, descends from, or implements the type with this number.
    pub fn has_id(&self, id: u32) -> bool {
        self.ids.contains(&id)
    }

    /// Whether the type is, descends from, or implements `name`.
    pub fn is_a(&self, name: &str) -> bool {
        Registry::global().id(name).is_some_and(|id| self.has_id(id))
    }

    /// Whether the type is, or descends from, `T`, or implements it.
    pub fn is<T: Kind + ?Sized>(&self) -> bool {
        self.is_a(T::NAME)
    }

    /// Class struct `C` (`DeviceClass`, `MachineClass` …) as this type sees it; `None` where no ancestor has one.
    pub fn get<C: Any>(&self) -> Option<&C> {
        let key = TypeId::of::<C>();
        self.slots.iter().find(|s| s.0 == key)?.1.downcast_ref()
    }

    /// Class struct `C` to be changed while the class is built; starts as the parent's, or as `C::default()`.
    pub fn edit<C: Any + Send + Sync + Clone + Default>(&mut self) -> &mut C {
        let key = TypeId::of::<C>();
        if self.get::<C>().is_none() {
            self.slots.push((key, Arc::new(C::default())));
        }
        let slot = self.slots.iter_mut().find(|s| s.0 == key).map(|s| &mut s.1).expect("pushed if it was missing");
        if Arc::get_mut(slot).is_none() {
            *slot = Arc::new(slot.downcast_ref::<C>().expect("slots are keyed by type").clone());
        }
        Arc::get_mut(slot).and_then(|s| s.downcast_mut()).expect("unique since the line above")
    }

    /// Class data the type was registered with.
    pub fn data<D: Any + Send + Sync>(&self) -> Option<Arc<D>> {
        self.data.clone()?.downcast().ok()
    }

    /// Adds a class property, or replaces an ancestor's of the same name.
    pub fn property(&mut self, p: Property) {
        Arc::make_mut(&mut self.props).insert(p.name().into(), Arc::new(p));
    }

    /// Gives an ancestor's property another default for this type and its descendants.
    ///
    /// # Panics
    /// Without such a property: class initialisers are code, not input.
    pub fn set_default(&mut self, name: &'static str, value: impl Into<Value>) {
        let value = value.into();
        let props = Arc::make_mut(&mut self.props);
        let Some(p) = props.get_mut(name) else { panic!("type '{}' has no property '{name}'", self.name) };
        *p = Arc::new((**p).clone().default_value(value.clone()));
        self.defaults.retain(|d| d.0 != name);
        self.defaults.push((name.into(), value));
    }

    pub(crate) fn apply_defaults(&self, o: &Base) -> Result<()> {
        self.defaults.iter().try_for_each(|(name, v)| o.set(name, v))
    }

    /// The class property of this name.
    pub fn find_property(&self, name: &str) -> Option<&Arc<Property>> {
        self.props.get(name)
    }

    /// Class properties, in the order they were added, ancestors' first.
    pub fn properties(&self) -> impl Iterator<Item = &Arc<Property>> {
        self.props.values()
    }

    /// Class of the parent of `T`'s type, whatever this class is: how an override calls what it replaced.
    ///
    /// # Panics
    /// If `T` is not an ancestor of this class, or is the root.
    pub fn parent_of<T: Kind>(&'static self) -> &'static Class {
        let mut at = self;
        while let Some(up) = at.parent {
            if at.name == T::NAME {
                return up;
            }
            at = up;
        }
        panic!("'{}' is not below '{}'", self.name, T::NAME)
    }

    /// Adds an `instance_init` for objects of this class and its descendants.
    pub fn add_instance_init(&mut self, f: fn(&dyn Object) -> Result<()>) {
        self.inits.push(f);
    }
}

impl std::fmt::Debug for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Class({})", self.name)
    }
}
