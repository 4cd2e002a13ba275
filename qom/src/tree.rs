//! The composition tree. Parents own their children and point down strongly; children point up weakly. No lock of the tree
//! is held while anything else is called.

use crate::object::{Base, ObjRef};
use crate::property::Property;
use crate::{Error, Result};
use std::sync::Arc;

#[derive(Clone)]
pub(crate) enum Entry {
    Child(ObjRef),
    Prop(Arc<Property>),
}

/// Place in the tree.
impl Base {
    pub(crate) fn add_entry(&self, name: &str, make: impl FnOnce(&str) -> Entry) -> Result<Arc<str>> {
        let mut map = self.entries.write();
        let taken = |n: &str| map.contains_key(n) || self.class.find_property(n).is_some();
        let numbered =
            name.strip_suffix("[*]").and_then(|stem| (0u32..).map(|i| format!("{stem}[{i}]")).find(|n| !taken(n)));
        let name: Arc<str> = numbered.as_deref().unwrap_or(name).into();
        if taken(&name) {
            return Err(Error::DuplicateProperty { ty: self.type_name(), name: name.to_string() });
        }
        map.insert(name.clone(), make(&name));
        Ok(name)
    }

    /// Makes `child` a child of this object. `name[*]` takes the first free number. Answers the name it got.
    ///
    /// # Errors
    /// The name is taken, the child has a parent, or is this object or its ancestor.
    pub fn add_child(&self, name: &str, child: &ObjRef) -> Result<Arc<str>> {
        if name.is_empty() || name.contains('/') {
            return Err(Error::generic(format!("'{name}' is not a name for a child")));
        }
        let me = self.weak();
        let mut up = self.upgrade();
        while let Some(o) = up {
            if Arc::ptr_eq(&o, child) {
                return Err(Error::generic(format!("'{}' would be its own ancestor", child.type_name())));
            }
            up = o.parent();
        }
        let mut place = child.place.write();
        if place.is_some() {
            drop(place);
            return Err(Error::generic(format!("'{}' has a parent", child.path())));
        }
        let name = self.add_entry(name, |_| Entry::Child(child.clone()))?;
        *place = me.map(|me| (me, name.clone()));
        Ok(name)
    }

    /// Takes the object out of the tree; with it goes the parent's strong reference.
    pub fn unparent(&self) -> Option<ObjRef> {
        let (up, name) = self.place.write().take()?;
        let up = up.upgrade()?;
        let mut map = up.entries.write();
        match map.get(&name) {
            Some(Entry::Child(c)) if std::ptr::eq(c.base(), self) => match map.shift_remove(&name) {
                Some(Entry::Child(c)) => Some(c),
                _ => None,
            },
            _ => None,
        }
    }

    /// The parent in the tree.
    pub fn parent(&self) -> Option<ObjRef> {
        self.place.read().as_ref()?.0.upgrade()
    }

    /// The name under which the parent has it.
    pub fn name(&self) -> Option<Arc<str>> {
        self.place.read().as_ref().map(|p| p.1.clone())
    }

    /// The child of this name.
    pub fn child(&self, name: &str) -> Option<ObjRef> {
        match self.entries.read().get(name) {
            Some(Entry::Child(c)) => Some(c.clone()),
            _ => None,
        }
    }

    /// The children at this moment, in the order they were added.
    pub fn children(&self) -> Vec<(Arc<str>, ObjRef)> {
        let entries = self.entries.read();
        let child = |(n, e): (&Arc<str>, &Entry)| match e {
            Entry::Child(c) => Some((n.clone(), c.clone())),
            Entry::Prop(_) => None,
        };
        entries.iter().filter_map(child).collect()
    }

    /// Calls `f` for every descendant, parents after their children.
    pub fn walk(&self, f: &mut dyn FnMut(&ObjRef)) {
        for (_, c) in self.children() {
            c.walk(f);
            f(&c);
        }
    }

    /// Canonical path. Empty for an object outside the tree of its scope.
    pub fn path(&self) -> String {
        let mut path = String::with_capacity(64);
        let mut above: Option<ObjRef> = None;
        loop {
            let at = above.as_ref().map_or(self, |o| o.base());
            // The name is copied under the lock: cheaper than counting a reference to it.
            let up = at.place.read().as_ref().and_then(|(up, name)| {
                let up = up.upgrade()?;
                path.insert_str(0, name);
                path.insert(0, '/');
                Some(up)
            });
            match up {
                Some(up) => above = Some(up),
                None if !self.scope.is_root(at) => return String::new(),
                None => break,
            }
        }
        if path.is_empty() { "/".to_owned() } else { path }
    }

    /// The object at a path relative to this one, through children and links.
    pub fn resolve_relative(&self, path: &str) -> Option<ObjRef> {
        follow(self.upgrade()?, path)
    }

    /// Every object below this one (and it) at which the partial `path` resolves to one that `accept` takes.
    pub(crate) fn resolve_partial(&self, path: &str, accept: &dyn Fn(&ObjRef) -> bool, found: &mut Vec<ObjRef>) {
        if let Some(o) = self.resolve_relative(path).filter(|o| accept(o))
            && !found.iter().any(|f| Arc::ptr_eq(f, &o))
        {
            found.push(o);
        }
        for (_, c) in self.children() {
            if found.len() > 1 {
                return;
            }
            c.resolve_partial(path, accept, found);
        }
    }
}

/// Where `path` leads from `at`.
pub(crate) fn follow(mut at: ObjRef, path: &str) -> Option<ObjRef> {
    for part in path.split('/').filter(|p| !p.is_empty()) {
        // children first: most of a path is children, and no property has a child's name
        at = match at.child(part) {
            Some(child) => child,
            None => at.resolve_component(part)?,
        };
    }
    Some(at)
}
