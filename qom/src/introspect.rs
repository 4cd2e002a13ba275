//! What a type's objects look like, without a machine: properties with types, defaults, descriptions.

use crate::property::PropertyInfo;
use crate::{Registry, Result, Scope};
use std::sync::Arc;

impl Registry {
    /// The properties of a type: of a fresh object where there can be one, of the class otherwise. `scope` is a throw-away
    /// scope, so that no machine's globals or tree are touched.
    ///
    /// # Errors
    /// Unknown type; an object that cannot be made.
    pub fn describe(&'static self, type_name: &str, scope: &Arc<Scope>) -> Result<Vec<PropertyInfo>> {
        let class = self.class(type_name)?;
        if class.is_abstract() {
            return Ok(class.properties().map(|p| PropertyInfo::new(p, true)).collect());
        }
        Ok(scope.object_new_of(class)?.properties())
    }
}
