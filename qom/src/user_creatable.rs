//! Objects that users create by name: `-object`, `object-add`, `object-del`.

use crate::object::ObjRef;
use crate::proptype::Input;
use crate::{Error, Registry, Result, Scope};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Interface `user-creatable`.
pub trait UserCreatable {
    /// All properties are set and the object is in the tree: make it work.
    fn complete(&self) -> Result<()> {
        Ok(())
    }
    /// Whether `object-del` may take it.
    fn can_be_deleted(&self) -> bool {
        true
    }
}

crate::interface!(dyn UserCreatable, "user-creatable");

/// Whether `id` is an identifier: letters, digits, `-`, `.`, `_`, starting with a letter.
pub fn is_well_formed_id(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

impl Scope {
    /// Creates an object of a user-creatable type as `/objects/ID` and completes it. `text`: the leaves of `props` are
    /// QEMU's text syntax (a command line), not JSON. After an error nothing is left of it.
    ///
    /// # Errors
    /// Unknown, abstract or other type; a bad or taken id; a property; what the object says.
    pub fn object_add(
        self: &Arc<Self>,
        type_name: &str,
        id: &str,
        props: &Map<String, Value>,
        text: bool,
    ) -> Result<ObjRef> {
        let class = Registry::global().class(type_name)?;
        if !class.is::<dyn UserCreatable>() {
            return Err(Error::generic(format!("object type '{type_name}' isn't supported by object-add")));
        }
        if !is_well_formed_id(id) {
            return Err(Error::generic(
                "Parameter 'id' expects an identifier (letters, digits, '-', '.', '_', starting with a letter)",
            ));
        }
        let o = self.object_new_of(class)?;
        for (name, v) in props {
            o.set_input(name, if text { Input::keyval(v) } else { Input::Json(v) })?;
        }
        self.container("/objects")?.add_child(id, &o)?;
        if let Some(Err(e)) = o.interface::<dyn UserCreatable>().map(UserCreatable::complete) {
            o.unparent();
            return Err(e);
        }
        Ok(o)
    }

    /// Removes `/objects/ID`.
    ///
    /// # Errors
    /// There is none, or it is in use.
    pub fn object_del(self: &Arc<Self>, id: &str) -> Result<()> {
        let o = self.container("/objects")?.child(id);
        let o = o.ok_or_else(|| Error::generic(format!("object '{id}' not found")))?;
        if o.interface::<dyn UserCreatable>().is_some_and(|u| !u.can_be_deleted()) {
            return Err(Error::generic(format!("object '{id}' is in use, can not be deleted")));
        }
        o.unparent();
        Ok(())
    }
}
