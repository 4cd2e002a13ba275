//! A scope: one machine's world. Tree, globals and one extension; two scopes share nothing but the registry.

use crate::class::Class;
use crate::global::{Global, Globals};
use crate::object::{Base, Container, Kind, ObjRef, Object, Ref, construct};
use crate::tree::follow;
use crate::{Error, Registry, Result};
use std::any::Any;
use std::ops::Deref;
use std::sync::{Arc, OnceLock, Weak};

/// One machine's world, shared by all its objects. Made by [`World::new`].
pub struct Scope {
    root: OnceLock<Weak<dyn Object>>,
    globals: Globals,
    ext: Arc<dyn Any + Send + Sync>,
}

/// The owner of a [`Scope`] and its tree: when it goes, the tree goes.
pub struct World {
    scope: Arc<Scope>,
    root: ObjRef,
}

impl World {
    /// A world with an empty tree. `ext` is what [`Scope::ext`] answers (`hw-core` keeps the machine lock and memory there).
    pub fn new<E: Any + Send + Sync>(ext: Arc<E>) -> Self {
        let scope = Arc::new(Scope { root: OnceLock::new(), globals: Globals::default(), ext });
        let root = scope.detached_container();
        scope.root.get_or_init(|| Arc::downgrade(&root));
        Self { scope, root }
    }

    /// A world without an extension.
    pub fn bare() -> Self {
        Self::new(Arc::new(()))
    }

    /// The scope.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// The root of the tree.
    pub fn root(&self) -> &ObjRef {
        &self.root
    }
}

impl Deref for World {
    type Target = Arc<Scope>;
    fn deref(&self) -> &Arc<Scope> {
        &self.scope
    }
}

impl Drop for World {
    /// Takes the tree apart top down, so that what a handler still keeps alive is at least out of the tree.
    fn drop(&mut self) {
        for (_, c) in self.root.children() {
            c.unparent();
        }
    }
}

impl Scope {
    fn detached_container(self: &Arc<Self>) -> ObjRef {
        let class = Registry::global().class(Container::NAME).expect("registered by this crate");
        construct::<Container>(Base::new(class, self.clone()))
    }

    /// The root of the tree; once the [`World`] is gone, an empty container.
    pub fn root(self: &Arc<Self>) -> ObjRef {
        self.root.get().and_then(Weak::upgrade).unwrap_or_else(|| self.detached_container())
    }

    pub(crate) fn is_root(&self, o: &Base) -> bool {
        self.root.get().zip(o.this()).is_some_and(|(root, this)| Weak::ptr_eq(root, this))
    }

    /// The extension the world was made with.
    pub fn ext<E: Any>(&self) -> Option<&E> {
        self.ext.downcast_ref()
    }

    /// The extension the world was made with.
    pub fn ext_arc<E: Any + Send + Sync>(&self) -> Option<Arc<E>> {
        self.ext.clone().downcast().ok()
    }

    /// A new object, outside the tree: property defaults, `instance_init` root to leaf, `instance_post_init` root to leaf.
    ///
    /// # Errors
    /// Unknown or abstract type; whatever the initialisers say.
    pub fn object_new(self: &Arc<Self>, name: &str) -> Result<ObjRef> {
        self.object_new_of(Registry::global().class(name)?)
    }

    /// [`Scope::object_new`] by class.
    pub fn object_new_of(self: &Arc<Self>, class: &'static Class) -> Result<ObjRef> {
        let Some(new) = class.new.filter(|_| !class.is_abstract()) else {
            return Err(Error::AbstractType(class.name()));
        };
        let o = new(Base::new(class, self.clone()));
        class.apply_defaults(&o)?;
        for f in class.inits.iter().chain(&class.post_inits) {
            f(&*o)?;
        }
        Ok(o)
    }

    /// [`Scope::object_new`] for a type whose Rust struct is known.
    pub fn object_new_as<T: Kind>(self: &Arc<Self>, name: &str) -> Result<Ref<T>> {
        let o = self.object_new(name)?;
        Ref::new(o).ok_or_else(|| Error::generic(format!("'{name}' is not a '{}'", T::NAME)))
    }

    /// The container at the absolute `path`, made with its ancestors where missing.
    pub fn container(self: &Arc<Self>, path: &str) -> Result<ObjRef> {
        let mut at = self.root();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            at = match at.child(part) {
                Some(c) => c,
                None => {
                    let c = self.object_new(Container::NAME)?;
                    at.add_child(part, &c)?;
                    c
                }
            };
        }
        Ok(at)
    }

    /// The object at an absolute path, or the only one a partial path fits.
    ///
    /// # Errors
    /// [`Error::DeviceNotFound`], [`Error::Ambiguous`].
    pub fn resolve(self: &Arc<Self>, path: &str) -> Result<ObjRef> {
        self.resolve_by(path, &|_| true)
    }

    /// The same among objects of type `type_name`.
    pub fn resolve_type(self: &Arc<Self>, path: &str, type_name: &str) -> Result<ObjRef> {
        self.resolve_by(path, &|o| o.is_a(type_name))
    }

    fn resolve_by(self: &Arc<Self>, path: &str, accept: &dyn Fn(&ObjRef) -> bool) -> Result<ObjRef> {
        let not_found = || Error::DeviceNotFound(path.to_owned());
        if path.starts_with('/') {
            return follow(self.root(), path).filter(accept).ok_or_else(not_found);
        }
        if path.is_empty() {
            return Err(not_found());
        }
        let mut found = Vec::new();
        self.root().resolve_partial(path, accept, &mut found);
        if found.len() > 1 {
            return Err(Error::Ambiguous(path.to_owned()));
        }
        found.pop().ok_or_else(not_found)
    }

    /// The object at `path` as a `T`.
    ///
    /// # Errors
    /// As [`Scope::resolve`]; an object that is there and is not a `T` is named.
    pub fn resolve_kind<T: Kind + ?Sized>(self: &Arc<Self>, path: &str) -> Result<Ref<T>> {
        match self.resolve_by(path, &|o| T::of(&**o).is_some()) {
            Ok(o) => Ref::new(o).ok_or_else(|| Error::DeviceNotFound(path.to_owned())),
            Err(Error::DeviceNotFound(_)) if self.resolve(path).is_ok() => {
                Err(Error::generic(format!("Invalid parameter type for '{path}', expected: {}", T::NAME)))
            }
            Err(e) => Err(e),
        }
    }

    /// Adds a global property. A driver nobody registered is kept for [`Scope::unused_globals`].
    pub fn add_global(&self, g: Global) {
        self.globals.add(g);
    }

    /// Sets the globals of the object's type and its ancestors, lowest rank first.
    ///
    /// # Errors
    /// The first one that cannot be set.
    pub fn apply_globals(&self, o: &dyn Object) -> Result<()> {
        self.globals.apply(o)
    }

    /// All globals, in the order they were added.
    pub fn globals(&self) -> Vec<Arc<Global>> {
        self.globals.all()
    }

    /// Warnings for the `-global`s that no object took.
    pub fn unused_globals(&self) -> Vec<String> {
        self.globals.unused()
    }
}
