#![forbid(unsafe_code)]
//! The object model: QEMU's types, classes, objects, properties, globals and composition tree, in safe Rust.
//!
//! * Types are found by name in a [`Registry`] filled at link time; a [`Class`] is built on first use, parent first.
//! * An object is an `Arc<dyn Object>`; a level of its type is a struct that embeds its parent level (`#[derive(Object)]`).
//! * A [`Scope`] is one machine's world; the registry is the only thing two scopes share.
//!
//! Not modelled: reference counts as properties see them, `object_ref`/`unref`, types loaded at run time.

extern crate self as qom;

mod class;
mod error;
mod global;
mod introspect;
mod link;
mod nearest;
mod object;
mod property;
mod proptype;
mod registry;
mod scope;
mod tree;
mod user_creatable;

pub use class::Class;
pub use error::{Error, Reject, Result};
pub use global::{Global, Rank};
#[doc(hidden)]
pub use inventory;
pub use link::Link;
pub use nearest::nearest;
pub use object::{Base, Caster, Container, Handle, Kind, Level, ObjRef, Object, Ref, State, of_class};
pub use property::{BitWord, Property, PropertyField, PropertyInfo};
pub use proptype::{Input, OnOffAuto, Prop, PropCell, PropEnum, PropType, Size, human, size_text};
#[doc(hidden)]
pub use proptype::{Members, put_member, take_enum};
pub use qom_derive::{Object, PropEnum, PropStruct};
pub use registry::{ClassInit, InstanceInit, Registry, Submit, TypeInfo};
pub use scope::{Scope, World};
pub use user_creatable::{UserCreatable, is_well_formed_id};

/// What the derives name.
#[doc(hidden)]
pub mod derive_support {
    pub use crossbeam_utils::atomic::AtomicCell;
    pub use parking_lot::RwLock;
    pub use serde_json::{Map, Value};
}

type Map<K, V> = indexmap::IndexMap<K, V, rustc_hash::FxBuildHasher>;
