#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]
//! The object model: QEMU's types, classes, objects, properties, globals and composition tree, in safe Rust.
//!
//! * Types are found by name in a [`Registry`] filled at link time; a [`Class`] is built on first use, parent first.
//! * An object is an `Arc<dyn Object>`; a level of its type is a struct that embeds its parent level (`#[derive(Object)]`).
//! * A [`Scope`] is one machine's world; the registry is the only thing two scopes share.
//!
//! Not modelled: reference counts as properties see them, `object_ref`/`unref`, types loaded at run time.
//!
//! ```
//! use qom::{Base, Object, Prop, World};
//!
//! /// A counter with a limit.
//! #[derive(Object)]
//! #[qom(name = "counter", parent = Base, instance_init = Counter::instance_init)]
//! struct Counter {
//!     parent: Base,
//!     #[property(default = 10, live, desc = "where it starts again")]
//!     limit: Prop<u32>,
//!     value: std::sync::atomic::AtomicU32,
//! }
//!
//! impl Counter {
//!     fn instance_init(&self) -> qom::Result<()> {
//!         self.value.store(1, std::sync::atomic::Ordering::Relaxed);
//!         Ok(())
//!     }
//! }
//!
//! let world = World::bare();
//! let counter = world.object_new("counter")?;
//! world.container("/machine")?.add_child("counter[*]", &counter)?;
//! counter.set_str("limit", "0x20")?;
//! assert_eq!(world.resolve("/machine/counter[0]")?.get("limit")?, 32);
//! assert_eq!(counter.cast::<Counter>().map(|c| c.limit.get()), Some(32));
//! # Ok::<(), qom::Error>(())
//! ```

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
