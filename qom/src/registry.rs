//! The registry of types: filled at link time, checked at start, immutable afterwards.

use crate::class::{Class, Slot};
use crate::object::{Base, Level, ObjRef, Object, construct, object_class_init};
use crate::{Error, Map, Result, nearest};
use once_cell::sync::OnceCell;
use std::any::Any;
use std::sync::{Arc, LazyLock};

/// A link-time submission: a function that registers one type, or a table of them. Made by `#[derive(Object)]`,
/// [`register!`](crate::register) and [`interface!`](crate::interface).
#[derive(Clone, Copy)]
pub struct Submit {
    /// Adds the types.
    pub register: fn(&mut Registry),
    /// `file:line` of the submission, named when two types have one name.
    pub place: &'static str,
}

inventory::collect!(Submit);

/// Submits a function that registers types: `qom::register!(|r| for … { r.add(TypeInfo::of::<T>(name)) });`
#[macro_export]
macro_rules! register {
    ($f:expr) => {
        $crate::inventory::submit! { $crate::Submit { place: concat!(file!(), ":", line!()), register: $f } }
    };
}

/// Called while a class is built; see [`Class::data`] for the class data of the type being built.
pub type ClassInit = Box<dyn Fn(&mut Class) + Send + Sync>;

/// Called on every new object.
pub type InstanceInit = fn(&dyn Object) -> Result<()>;

/// One type, as registered.
pub struct TypeInfo {
    pub(crate) name: String,
    pub(crate) parent: Option<String>,
    pub(crate) interfaces: Vec<String>,
    pub(crate) is_abstract: bool,
    pub(crate) is_interface: bool,
    pub(crate) class_base_init: Option<ClassInit>,
    pub(crate) class_inits: Vec<ClassInit>,
    pub(crate) class_data: Option<Slot>,
    pub(crate) new: Option<fn(Base) -> ObjRef>,
    pub(crate) instance_init: Option<InstanceInit>,
    pub(crate) post_init: Option<InstanceInit>,
    pub(crate) place: &'static str,
}

impl TypeInfo {
    /// A type `name` below `T`'s type, with `T`'s Rust struct: the entry of a table.
    pub fn of<T: Level>(name: impl Into<String>) -> Self {
        Self::level::<T>(name.into(), T::NAME.to_owned())
    }

    pub(crate) fn level<T: Level>(name: String, parent: String) -> Self {
        Self { new: Some(construct::<T>), ..Self::named(name, Some(parent)) }
    }

    /// What the derive registers: the type whose Rust struct is `T`.
    #[doc(hidden)]
    pub fn derived<T: Level>(parent: &str) -> Self {
        Self::level::<T>(T::NAME.to_owned(), parent.to_owned())
    }

    /// An interface type: a name to ask for, without instances.
    pub fn interface(name: impl Into<String>, parent: impl Into<String>) -> Self {
        Self { is_abstract: true, is_interface: true, ..Self::named(name.into(), Some(parent.into())) }
    }

    fn named(name: String, parent: Option<String>) -> Self {
        Self {
            name,
            parent,
            interfaces: Vec::new(),
            is_abstract: false,
            is_interface: false,
            class_base_init: None,
            class_inits: Vec::new(),
            class_data: None,
            new: None,
            instance_init: None,
            post_init: None,
            place: "",
        }
    }

    /// Another parent than `T`'s type. Its Rust struct must be `T` or an ancestor of `T`.
    pub fn parent(mut self, parent: impl Into<String>) -> Self {
        self.parent = Some(parent.into());
        self
    }

    /// The type has no instances.
    pub fn set_abstract(mut self) -> Self {
        self.is_abstract = true;
        self
    }

    /// The type implements interface `name`.
    pub fn implements(mut self, name: impl Into<String>) -> Self {
        self.interfaces.push(name.into());
        self
    }

    /// What [`Class::data`] answers while the class is built and afterwards. Not inherited.
    pub fn class_data<D: Any + Send + Sync>(mut self, data: D) -> Self {
        self.class_data = Some(Arc::new(data));
        self
    }

    /// Called for the class of the type, after its ancestors' `class_base_init`. Several are called in order.
    pub fn class_init(mut self, f: impl Fn(&mut Class) + Send + Sync + 'static) -> Self {
        self.class_inits.push(Box::new(f));
        self
    }

    /// Called for the class of every descendant (not the type itself), before its `class_init`.
    pub fn class_base_init(mut self, f: impl Fn(&mut Class) + Send + Sync + 'static) -> Self {
        self.class_base_init = Some(Box::new(f));
        self
    }

    /// Called on every new object of the type and its descendants, root to leaf.
    pub fn instance_init(mut self, f: InstanceInit) -> Self {
        self.instance_init = Some(f);
        self
    }

    /// Called when all `instance_init` are through, root to leaf.
    pub fn instance_post_init(mut self, f: InstanceInit) -> Self {
        self.post_init = Some(f);
        self
    }

    /// QOM type name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of the parent type; the root types `object` and `interface` have none.
    pub fn parent_name(&self) -> Option<&str> {
        self.parent.as_deref()
    }

    /// Interfaces the type itself adds to its parent's.
    pub fn interface_names(&self) -> &[String] {
        &self.interfaces
    }

    /// Whether the type has no instances. Interfaces are abstract.
    pub fn is_abstract(&self) -> bool {
        self.is_abstract
    }

    /// Whether the type is an interface.
    pub fn is_interface(&self) -> bool {
        self.is_interface
    }

    /// `file:line` of the registration.
    pub fn place(&self) -> &'static str {
        self.place
    }
}

struct Entry {
    info: TypeInfo,
    class: OnceCell<Class>,
}

/// All types, sorted by name.
#[derive(Default)]
pub struct Registry {
    types: Map<String, Entry>,
    place: &'static str,
    duplicate: Option<Error>,
}

impl Registry {
    /// The registry of this process.
    ///
    /// # Errors
    /// A type name registered twice, an unknown parent or interface, a cycle. A program calls this first.
    pub fn start() -> Result<&'static Registry> {
        static REGISTRY: LazyLock<Result<Registry>> = LazyLock::new(|| {
            let submissions: Vec<Submit> = inventory::iter::<Submit>().copied().collect();
            Registry::build(&submissions)
        });
        REGISTRY.as_ref().map_err(Clone::clone)
    }

    /// The registry of this process.
    ///
    /// # Panics
    /// Where [`Registry::start`] fails.
    pub fn global() -> &'static Registry {
        match Self::start() {
            Ok(r) => r,
            Err(e) => panic!("{e}"),
        }
    }

    /// A registry of `object`, `interface` and what `submissions` add.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub fn build(submissions: &[Submit]) -> Result<Registry> {
        let mut r = Registry { place: "qom", ..Registry::default() };
        let object = TypeInfo { new: Some(construct::<Base>), ..TypeInfo::named("object".into(), None) };
        r.add(object.set_abstract().class_init(object_class_init));
        r.add(TypeInfo { is_abstract: true, is_interface: true, ..TypeInfo::named("interface".into(), None) });
        for s in submissions {
            r.place = s.place;
            (s.register)(&mut r);
        }
        if let Some(e) = r.duplicate.take() {
            return Err(e);
        }
        r.types.sort_unstable_keys(); // link order must not be observable
        r.check()?;
        Ok(r)
    }

    fn check(&self) -> Result<()> {
        for e in self.types.values() {
            let t = &e.info;
            let unknown = |role, n: &String| Error::UnknownParent {
                name: t.name.clone(),
                place: t.place,
                role,
                parent: n.clone(),
                near: self.near(n),
            };
            if let Some(n) = t.interfaces.iter().find(|n| !self.get(n).is_some_and(TypeInfo::is_interface)) {
                return Err(unknown("interface", n));
            }
            if let Some(n) = t.parent.as_ref().filter(|n| self.get(n).is_none()) {
                return Err(unknown("parent", n));
            }
        }
        for e in self.types.values() {
            let mut at = &e.info;
            for _ in 0..self.types.len() {
                let Some(up) = at.parent.as_deref().and_then(|n| self.get(n)) else { break };
                at = up;
            }
            if at.parent.is_some() {
                return Err(Error::Cycle { name: e.info.name.clone(), place: e.info.place });
            }
        }
        Ok(())
    }

    /// Registers a type. A name that is taken is reported by [`Registry::build`].
    pub fn add(&mut self, mut info: TypeInfo) {
        info.place = self.place;
        match self.types.entry(info.name.clone()) {
            indexmap::map::Entry::Vacant(v) => {
                v.insert(Entry { info, class: OnceCell::new() });
            }
            indexmap::map::Entry::Occupied(o) => {
                let first = o.get().info.place;
                self.duplicate.get_or_insert(Error::DuplicateType { name: info.name, first, second: info.place });
            }
        }
    }

    /// The type of this name.
    pub fn get(&self, name: &str) -> Option<&TypeInfo> {
        self.types.get(name).map(|e| &e.info)
    }

    /// All types, sorted by name.
    pub fn types(&self) -> impl Iterator<Item = &TypeInfo> {
        self.types.values().map(|e| &e.info)
    }

    /// Number of the type in the sorted list: what classes and globals compare.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.types.get_index_of(name).and_then(|i| u32::try_from(i).ok())
    }

    /// Type names that look like `name`.
    pub fn near(&self, name: &str) -> Vec<String> {
        nearest(name, self.types.keys().map(String::as_str))
    }

    /// The class of a type, built on first use, parent first.
    ///
    /// # Errors
    /// [`Error::UnknownType`].
    pub fn class(&'static self, name: &str) -> Result<&'static Class> {
        let Some((id, _, entry)) = self.types.get_full(name) else {
            return Err(Error::UnknownType { name: name.to_owned(), near: self.near(name) });
        };
        entry.class.get_or_try_init(|| {
            let info = &entry.info;
            let parent = info.parent.as_deref().map(|p| self.class(p)).transpose()?;
            let mut class = Class::inherit(parent, info, id as u32);
            for name in &info.interfaces {
                class.add_ids(&self.class(name)?.ids);
            }
            let mut up = parent;
            while let Some(p) = up {
                if let Some(f) = self.get(p.name()).and_then(|t| t.class_base_init.as_ref()) {
                    f(&mut class);
                }
                up = p.parent();
            }
            for f in &info.class_inits {
                f(&mut class);
            }
            Ok(class)
        })
    }

    /// Types that are, or descend from, or implement `implements` (all, if not given), sorted by name.
    pub fn list(&'static self, implements: Option<&str>, include_abstract: bool) -> Vec<&'static TypeInfo> {
        let id = match implements.map(|n| self.id(n)) {
            Some(None) => return Vec::new(),
            Some(id) => id,
            None => None,
        };
        self.types()
            .filter(|t| include_abstract || !t.is_abstract)
            .filter(|t| id.is_none_or(|id| self.class(&t.name).is_ok_and(|c| c.has_id(id))))
            .collect()
    }
}
