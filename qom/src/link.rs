//! Links: properties that name another object by path.

use crate::error::Reject;
use crate::object::{Handle, Kind, Level, ObjRef, Ref, with_level};
use crate::property::{Property, PropertyField};
use crate::proptype::Input;
use crate::{Error, Result};
use parking_lot::RwLock;
use serde_json::Value;
use std::sync::Arc;

/// A link to a `T` (a level or an interface). Weak: whoever owns the target may drop it.
pub struct Link<T: ?Sized>(RwLock<Handle<T>>);

impl<T: ?Sized> Default for Link<T> {
    fn default() -> Self {
        Self(RwLock::new(Handle::default()))
    }
}

impl<T: Kind + ?Sized> Link<T> {
    /// The target; `None` if there is none, or it is gone.
    pub fn get(&self) -> Option<Ref<T>> {
        let handle = self.0.read().clone();
        handle.upgrade()
    }

    /// Points the link at `target`, or at nothing.
    ///
    /// # Errors
    /// The target is not a `T`.
    pub fn set(&self, target: Option<&ObjRef>) -> Result<()> {
        let handle = match target {
            None => Handle::default(),
            Some(o) => {
                Handle::new(o).ok_or_else(|| Error::generic(format!("'{}' is not a '{}'", o.type_name(), T::NAME)))?
            }
        };
        *self.0.write() = handle;
        Ok(())
    }

    /// Calls `f` with the target.
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> Option<R> {
        self.get().map(|t| f(&t))
    }
}

impl<T: Kind + ?Sized> PropertyField for Link<T> {
    fn property<O: Level>(name: &'static str, f: fn(&O) -> &Self) -> Property {
        Property::link(
            name,
            move |o: &O| f(o).get().map(Ref::into_object),
            move |o: &O, t: Option<Ref<T>>| f(o).set(t.as_ref().map(Ref::object)),
        )
    }
}

impl Property {
    /// A link to a `T`, by functions: `get` answers the target, `set` takes one of the right type.
    pub fn link<O: Kind, T: Kind + ?Sized>(
        name: &'static str,
        get: impl Fn(&O) -> Option<ObjRef> + Send + Sync + 'static,
        set: impl Fn(&O, Option<Ref<T>>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let get = Arc::new(get);
        let target = get.clone();
        Property::new(name, format!("link<{}>", T::NAME))
            .reader(move |o| {
                let path = with_level(o, |o: &O| get(o)).map(|t| t.path());
                Ok(path.unwrap_or_default().into())
            })
            .writer(move |o, input| {
                let path = match input {
                    Input::Json(Value::Null) => "",
                    i => i.string()?,
                };
                let target = if path.is_empty() { None } else { Some(o.scope().resolve_kind::<T>(path)?) };
                with_level(o, |o: &O| set(o, target)).map_err(Reject::from)
            })
            .resolver(move |o| with_level(o, |o: &O| target(o)))
    }
}
