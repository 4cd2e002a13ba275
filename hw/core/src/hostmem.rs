//! Memory back ends: `memory-backend-ram`, `-memfd` and `-file`, objects that provide guest RAM.
//!
//! Not modelled: NUMA policy and host nodes, huge pages, preallocation by several threads: properties for them accept
//! only their default.

use std::fs::{File, OpenOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use qom::{Base, Class, Error, Object, OnOffAuto, Prop, PropEnum, Property, Ref, Result, Scope, Size, UserCreatable};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde_json::Map;

use crate::core::Core;
use crate::memory::{MemoryRegion, RamBlock};

/// Type `confidential-guest-support`: no scheme is supported, so nothing descends from it.
#[derive(qom::Object)]
#[qom(name = "confidential-guest-support", parent = Base, abstract)]
pub struct ConfidentialGuestSupport {
    parent: Base,
}

/// NUMA policy; only the default is supported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PropEnum)]
#[qom(name = "HostMemPolicy")]
enum HostMemPolicy {
    #[default]
    Default,
    Preferred,
    Bind,
    Interleave,
}

/// Class struct of memory back ends.
#[derive(Clone)]
pub struct HostMemoryClass {
    /// Makes the memory: `(object, block name, bytes)`.
    alloc: fn(&dyn Object, &str, u64) -> Result<Arc<RamBlock>>,
}

impl Default for HostMemoryClass {
    fn default() -> Self {
        Self { alloc: |_, _, _| Err(Error::generic("this memory backend has no memory")) }
    }
}

/// Type `memory-backend`.
#[derive(qom::Object)]
#[qom(name = "memory-backend", parent = Base, abstract, interfaces(dyn UserCreatable), class_init = HostMemory::class_init)]
pub struct HostMemory {
    parent: Base,
    #[property(default = true)]
    dump: Prop<bool>,
    #[property(default = true)]
    merge: Prop<bool>,
    #[property]
    policy: Prop<HostMemPolicy>,
    #[property]
    prealloc: Prop<bool>,
    #[property(default = true)]
    reserve: Prop<bool>,
    #[property]
    share: Prop<bool>,
    #[property(name = "x-use-canonical-path-for-ramblock-id")]
    canonical_id: Prop<bool>,
    size: RwLock<u64>,
    region: RwLock<Option<MemoryRegion>>,
    mapped: AtomicBool,
}

impl HostMemory {
    fn class_init(c: &mut Class) {
        c.edit::<HostMemoryClass>();
        c.property(
            Property::computed::<Size>("size")
                .type_named("int")
                .getter(|o: &HostMemory| Ok(Size(*o.size.read())))
                .setter(|o: &HostMemory, v: Size| {
                    if o.region.read().is_some() {
                        return Err(Error::generic("cannot change property value"));
                    }
                    if v.0 == 0 {
                        return Err(Error::generic(format!(
                            "property 'size' of {} doesn't take value '0'",
                            o.type_name()
                        )));
                    }
                    *o.size.write() = v.0;
                    Ok(())
                }),
        );
        c.property(
            Property::computed::<u64>("prealloc-threads").type_named("int").getter(|_: &HostMemory| Ok(1u64)).setter(
                |_: &HostMemory, n: u64| {
                    if n == 1 {
                        Ok(())
                    } else {
                        Err(Error::generic("'prealloc-threads' other than 1 is not supported"))
                    }
                },
            ),
        );
        c.property(Property::new("prealloc-context", "link<thread-context>").reader(|_| Ok("".into())).writer(
            |_, input| {
                if input.string()?.is_empty() {
                    Ok(())
                } else {
                    Err(Error::generic("'prealloc-context' is not supported").into())
                }
            },
        ));
        c.property(
            Property::computed::<Vec<u64>>("host-nodes")
                .type_named("int")
                .getter(|_: &HostMemory| Ok(Vec::<u64>::new()))
                .setter(
                    |_: &HostMemory, v: Vec<u64>| {
                        if v.is_empty() { Ok(()) } else { Err(Error::generic("NUMA node binding is not supported")) }
                    },
                ),
        );
    }

    /// The machine's default memory, `/objects/ID`.
    ///
    /// # Errors
    /// The host cannot give it.
    pub fn create(scope: &Arc<Scope>, id: &str, size: u64) -> Result<Ref<HostMemory>> {
        let mut props = Map::new();
        props.insert("size".to_owned(), size.into());
        props.insert("x-use-canonical-path-for-ramblock-id".to_owned(), false.into());
        Ref::new(scope.object_add("memory-backend-ram", id, &props, false)?)
            .ok_or_else(|| "not a memory backend".into())
    }

    /// The memory.
    ///
    /// # Errors
    /// Before the object is complete, or when a machine uses it already.
    pub fn region(&self) -> Result<MemoryRegion> {
        if self.mapped.load(Ordering::Relaxed) {
            let name = self.name().unwrap_or_default();
            return Err(Error::generic(format!("memory backend '{name}' can't be used multiple times.")));
        }
        self.region.read().clone().ok_or_else(|| Error::generic("the memory backend is not complete"))
    }

    /// Somebody uses it now.
    pub(crate) fn set_mapped(&self) {
        self.mapped.store(true, Ordering::Relaxed);
    }

    /// Whether stores reach the backing file.
    pub fn is_shared(&self) -> bool {
        self.share.get()
    }

    /// Whether core dumps hold it.
    pub fn is_dumped(&self) -> bool {
        self.dump.get()
    }
}

impl UserCreatable for HostMemory {
    fn complete(&self) -> Result<()> {
        let size = *self.size.read();
        if size == 0 {
            return Err(Error::generic("can't create backend with size 0"));
        }
        if self.policy.get() != HostMemPolicy::Default {
            return Err(Error::generic("NUMA policies are not supported"));
        }
        let name = if self.canonical_id.get() { self.path() } else { self.name().unwrap_or_default().to_string() };
        let object = self.object();
        let class = self.class().get::<HostMemoryClass>().ok_or("not a memory backend")?;
        let block = (class.alloc)(&*object, &name, size)?;
        if self.prealloc.get() {
            block.fill(0, size, 0);
        }
        let region = MemoryRegion::ram_from(&*object, &name, size, block);
        *self.region.write() = Some(region);
        self.freeze();
        Ok(())
    }

    fn can_be_deleted(&self) -> bool {
        !self.mapped.load(Ordering::Relaxed)
    }
}

fn anonymous(o: &dyn Object, name: &str, size: u64) -> Result<Arc<RamBlock>> {
    RamBlock::new(&Core::of(o).ram, name, size)
        .map_err(|e| Error::generic(format!("cannot set up guest memory '{name}' ({size} bytes): {e}")))
}

/// Type `memory-backend-ram`.
#[derive(qom::Object)]
#[qom(name = "memory-backend-ram", parent = HostMemory, class_init = |c: &mut Class| c.edit::<HostMemoryClass>().alloc = anonymous)]
pub struct HostMemoryRam {
    parent: HostMemory,
}

/// Type `memory-backend-memfd`.
#[derive(qom::Object)]
#[qom(name = "memory-backend-memfd", parent = HostMemory, class_init = HostMemoryMemfd::class_init,
    instance_init = HostMemoryMemfd::instance_init)]
pub struct HostMemoryMemfd {
    parent: HostMemory,
    #[property(default = true)]
    seal: Prop<bool>,
}

impl HostMemoryMemfd {
    fn class_init(c: &mut Class) {
        c.edit::<HostMemoryClass>().alloc = |o, name, size| qom::of_class::<Self>(o).open(name, size);
    }

    fn open(&self, name: &str, size: u64) -> Result<Arc<RamBlock>> {
        let seal = self.seal.get();
        let file = || -> std::io::Result<File> {
            let flags = if seal { MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING } else { MemfdFlags::CLOEXEC };
            let file = File::from(memfd_create(name.replace('\0', ""), flags)?);
            file.set_len(size)?;
            if seal {
                fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
            }
            Ok(file)
        };
        file()
            .and_then(|f| RamBlock::from_file(&Core::of(self).ram, name, f, 0, size, self.is_shared(), true))
            .map_err(|e| Error::generic(format!("cannot set up guest memory '{name}' ({size} bytes): {e}")))
    }

    fn instance_init(&self) -> Result<()> {
        self.share.set(true);
        Ok(())
    }
}

/// Type `memory-backend-file`.
#[derive(qom::Object)]
#[qom(name = "memory-backend-file", parent = HostMemory, class_init = HostMemoryFile::class_init)]
pub struct HostMemoryFile {
    parent: HostMemory,
    #[property(name = "mem-path", type = "string")]
    mem_path: Prop<String>,
    #[property(type = "int")]
    offset: Prop<Size>,
    #[property]
    readonly: Prop<bool>,
    #[property]
    rom: Prop<OnOffAuto>,
}

impl HostMemoryFile {
    fn class_init(c: &mut Class) {
        c.edit::<HostMemoryClass>().alloc = |o, name, size| qom::of_class::<Self>(o).open(name, size);
    }

    fn open(&self, name: &str, size: u64) -> Result<Arc<RamBlock>> {
        let path = self.mem_path.get();
        if path.is_empty() {
            return Err(Error::generic("mem-path property not set"));
        }
        let fail = |e: std::io::Error| Error::generic(format!("can't open backing store {path} for guest RAM: {e}"));
        let (write, share) = (!self.readonly.get(), self.is_shared());
        let offset = self.offset.get().0;
        let file =
            OpenOptions::new().read(true).write(write).create(write).truncate(false).open(&path).map_err(fail)?;
        let end = offset.checked_add(size).ok_or("'offset' and 'size' are too large")?;
        if write && file.metadata().map_err(fail)?.len() < end {
            file.set_len(end).map_err(fail)?;
        }
        RamBlock::from_file(&Core::of(self).ram, name, file, offset, size, share, write).map_err(fail)
    }
}
