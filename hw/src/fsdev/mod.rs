//! Folders of the host that guests see: what `-fsdev` says of them, by id, and [`Tree`], which does what is asked of their files.
//! Only the driver `local` is built, and of its security models not `mapped-file`.

mod mapped;
mod tree;

pub use tree::{Attr, Handle, Name, NewFile, Path, Tree};

use parking_lot::Mutex;
use qom::{Error, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// How owners and modes of a guest's files are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityModel {
    /// As the host's; an owner that cannot be set is no error.
    None,
    /// As the host's.
    Passthrough,
    /// In extended attributes `user.virtfs.*`; links and devices are ordinary files.
    MappedXattr,
}

/// What is done about files of several file systems in one folder, whose numbers may be equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Multidevs {
    /// The numbers are shown as they are, and the user is told once.
    #[default]
    Warn,
    /// The numbers are made different.
    Remap,
    /// Files of other file systems are refused.
    Forbid,
}

/// A folder as the user describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsDev {
    /// The folder.
    pub path: PathBuf,
    /// Who owns what.
    pub model: SecurityModel,
    /// Nothing may be changed.
    pub readonly: bool,
    /// Several file systems.
    pub multidevs: Multidevs,
    /// Modes of new files and folders on the host, where the guest's are kept elsewhere.
    pub modes: (u32, u32),
    /// Most extended attributes that are read or written at once.
    pub max_xattr: usize,
}

/// The folders of one machine: [`hw_core::Core::service`].
#[derive(Default)]
pub struct FsDevs(Mutex<BTreeMap<String, Arc<FsDev>>>);

impl FsDevs {
    /// Adds a folder.
    ///
    /// # Errors
    /// The id is taken.
    pub fn add(&self, id: &str, dev: FsDev) -> Result<()> {
        let mut all = self.0.lock();
        if all.contains_key(id) {
            return Err(Error::generic(format!("Duplicate ID '{id}' for fsdev")));
        }
        all.insert(id.to_owned(), Arc::new(dev));
        Ok(())
    }

    /// The folder called `id`.
    pub fn find(&self, id: &str) -> Option<Arc<FsDev>> {
        self.0.lock().get(id).cloned()
    }
}
