//! Handlers of I/O regions: what a device gives, and the form an access runs them in.

use std::marker::PhantomData;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use qom::{Level, ObjRef, Object};

use super::access::Access;
use crate::locked::Locked;

/// Byte order of a region's registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Endian {
    /// Least significant byte first, as on a PC.
    #[default]
    Little,
    /// Most significant byte first (fw_cfg).
    Big,
}

/// Which access widths a region takes ([`Ops::valid`]) or its handler implements ([`Ops::imp`]), in bytes. 0 stands for the
/// usual: any width for `valid`, 1 to 4 for `imp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Narrowest.
    pub min: u8,
    /// Widest.
    pub max: u8,
    /// Also at addresses that are not a multiple of the width.
    pub unaligned: bool,
}

impl Sizes {
    /// Naturally aligned accesses of `min` to `max` bytes.
    pub const fn new(min: u8, max: u8) -> Self {
        Self { min, max, unaligned: false }
    }

    /// The same at any alignment.
    pub const fn unaligned(self) -> Self {
        Self { unaligned: true, ..self }
    }

    /// Whether an access is accepted.
    pub(crate) fn accepts(&self, off: u64, size: u32) -> bool {
        (self.unaligned || off & u64::from(size.max(1) - 1) == 0)
            && (self.max == 0 || (u32::from(self.min)..=u32::from(self.max)).contains(&size))
    }

    /// Width of the handler's calls for an access of `size`, where these are the widths it implements.
    pub(crate) fn step(&self, size: u32) -> u32 {
        let max = if self.max == 0 { 4 } else { u32::from(self.max) };
        size.min(max).max(u32::from(self.min)).max(1)
    }
}

/// Handlers of a region of device `T`. They run with the machine locked; narrower, wider and unaligned accesses than
/// `imp` allows are made up of several calls.
pub struct Ops<T> {
    /// `(device, machine, byte offset, bytes) -> value`; bits above the width are ignored.
    pub read: fn(&T, &mut Locked, u64, u32) -> u64,
    /// `(device, machine, byte offset, bytes, value)`.
    pub write: fn(&T, &mut Locked, u64, u32, u64),
    /// What the bus passes on; anything else nobody answers.
    pub valid: Sizes,
    /// What the handlers are called with.
    pub imp: Sizes,
    /// Byte order of wider accesses.
    pub endian: Endian,
}

impl<T> Default for Ops<T> {
    /// Reads as zero, ignores writes.
    fn default() -> Self {
        Self {
            read: |_, _, _, _| 0,
            write: |_, _, _, _, _| (),
            valid: Sizes::default(),
            imp: Sizes::default(),
            endian: Endian::Little,
        }
    }
}

/// Handlers that are thread-safe: they run without the machine lock, on the accessing thread, and may run on several at
/// once. For timers, counters and the local APIC.
pub struct FreeOps<T> {
    /// `(device, access) -> value`.
    pub read: fn(&T, &Access) -> u64,
    /// `(device, access, value)`.
    pub write: fn(&T, &Access, u64),
    /// What the bus passes on.
    pub valid: Sizes,
    /// What the handlers are called with.
    pub imp: Sizes,
    /// Byte order of wider accesses.
    pub endian: Endian,
}

impl<T> Default for FreeOps<T> {
    fn default() -> Self {
        Self {
            read: |_, _| 0,
            write: |_, _, _| (),
            valid: Sizes::default(),
            imp: Sizes::default(),
            endian: Endian::Little,
        }
    }
}

/// Handlers bound to a live device.
pub(crate) trait Run: Send + Sync {
    fn read(&self, m: &mut Locked, a: &Access) -> u64;
    fn write(&self, m: &mut Locked, a: &Access, val: u64);
    /// For regions whose [`Io::free`] is set.
    fn read_free(&self, _a: &Access) -> u64 {
        0
    }
    fn write_free(&self, _a: &Access, _val: u64) {}
}

/// Handlers of a region whose device may be gone.
pub(crate) trait Bind: Send + Sync {
    fn bind(&self) -> Option<Arc<dyn Run>>;
}

/// The I/O side of a region.
pub(crate) struct Io {
    pub bind: Box<dyn Bind>,
    /// The bound handlers while a flat view uses them.
    bound: Mutex<Option<Weak<dyn Run>>>,
    /// Set while the device handles an access; shared by all regions of a device.
    pub busy: Arc<AtomicBool>,
    pub valid: Sizes,
    pub imp: Sizes,
    pub endian: Endian,
    pub free: bool,
    /// Widths (1, 2, 4 and 8 are bits) that are accepted and passed on as they are, where they are aligned.
    direct: u8,
}

impl Io {
    fn new(bind: Box<dyn Bind>, (valid, imp, endian): (Sizes, Sizes, Endian)) -> Self {
        let is_direct = |size: &u8| {
            let size = u32::from(*size);
            valid.accepts(0, size) && imp.step(size) == size && (endian == Endian::Little || size == 1)
        };
        let direct = [1, 2, 4, 8].into_iter().filter(is_direct).sum();
        Self { bind, bound: Mutex::default(), busy: Arc::default(), valid, imp, endian, free: false, direct }
    }

    pub fn locked<T: Level>(device: &T, busy: Arc<AtomicBool>, ops: Ops<T>) -> Self {
        let Ops { valid, imp, endian, read, write } = ops;
        let bind = Box::new(Locking { device: crate::core::weak(device), read, write });
        Self { busy, ..Self::new(bind, (valid, imp, endian)) }
    }

    pub fn free<T: Level>(device: &T, ops: FreeOps<T>) -> Self {
        let FreeOps { valid, imp, endian, read, write } = ops;
        let bind = Box::new(Freely { device: crate::core::weak(device), read, write });
        Self { free: true, ..Self::new(bind, (valid, imp, endian)) }
    }

    /// Whether an access of 1, 2, 4 or 8 bytes is accepted and is one call of the handler with the value as it is.
    #[inline]
    pub fn is_direct(&self, off: u64, size: u32) -> bool {
        u32::from(self.direct) & size != 0 && off & u64::from(size - 1) == 0
    }

    pub fn run(&self) -> Option<Arc<dyn Run>> {
        let mut bound = self.bound.lock();
        if let Some(run) = bound.as_ref().and_then(Weak::upgrade) {
            return Some(run);
        }
        let run = self.bind.bind()?;
        *bound = Some(Arc::downgrade(&run));
        Some(run)
    }
}

struct Locking<T> {
    device: Weak<dyn Object>,
    read: fn(&T, &mut Locked, u64, u32) -> u64,
    write: fn(&T, &mut Locked, u64, u32, u64),
}

/// [`Locking`] with a strong reference: a flat view keeps the devices it dispatches to alive. `S` is `Arc<T>` where `T` is
/// the object's own type, and [`Cast`] where it is an ancestor's.
struct LockingRun<T, S> {
    device: S,
    read: fn(&T, &mut Locked, u64, u32) -> u64,
    write: fn(&T, &mut Locked, u64, u32, u64),
}

struct Freely<T> {
    device: Weak<dyn Object>,
    read: fn(&T, &Access) -> u64,
    write: fn(&T, &Access, u64),
}

struct FreelyRun<T, S> {
    device: S,
    read: fn(&T, &Access) -> u64,
    write: fn(&T, &Access, u64),
}

/// A strong reference that gives a `T`.
trait Strong<T>: Send + Sync {
    fn get(&self) -> Option<&T>;
}

impl<T: Level> Strong<T> for Arc<T> {
    fn get(&self) -> Option<&T> {
        Some(self)
    }
}

struct Cast<T>(ObjRef, PhantomData<fn() -> T>);

impl<T: Level> Strong<T> for Cast<T> {
    fn get(&self) -> Option<&T> {
        self.0.cast::<T>()
    }
}

fn own<T: Level>(object: ObjRef) -> Result<Arc<T>, Cast<T>> {
    let cast = Cast(object.clone(), PhantomData);
    (object as Arc<dyn std::any::Any + Send + Sync>).downcast::<T>().map_err(|_| cast)
}

impl<T: Level> Bind for Locking<T> {
    fn bind(&self) -> Option<Arc<dyn Run>> {
        let (read, write) = (self.read, self.write);
        Some(match own::<T>(self.device.upgrade()?) {
            Ok(device) => Arc::new(LockingRun { device, read, write }),
            Err(device) => Arc::new(LockingRun { device, read, write }),
        })
    }
}

impl<T: Level, S: Strong<T>> Run for LockingRun<T, S> {
    fn read(&self, m: &mut Locked, a: &Access) -> u64 {
        self.device.get().map_or(u64::MAX, |d| (self.read)(d, m, a.off, a.size))
    }
    fn write(&self, m: &mut Locked, a: &Access, val: u64) {
        if let Some(d) = self.device.get() {
            (self.write)(d, m, a.off, a.size, val);
        }
    }
}

impl<T: Level> Bind for Freely<T> {
    fn bind(&self) -> Option<Arc<dyn Run>> {
        let (read, write) = (self.read, self.write);
        Some(match own::<T>(self.device.upgrade()?) {
            Ok(device) => Arc::new(FreelyRun { device, read, write }),
            Err(device) => Arc::new(FreelyRun { device, read, write }),
        })
    }
}

impl<T: Level, S: Strong<T>> Run for FreelyRun<T, S> {
    fn read(&self, _m: &mut Locked, a: &Access) -> u64 {
        self.read_free(a)
    }
    fn write(&self, _m: &mut Locked, a: &Access, val: u64) {
        self.write_free(a, val);
    }
    fn read_free(&self, a: &Access) -> u64 {
        self.device.get().map_or(u64::MAX, |d| (self.read)(d, a))
    }
    fn write_free(&self, a: &Access, val: u64) {
        if let Some(d) = self.device.get() {
            (self.write)(d, a, val);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_width_and_alignment() {
        let any = Sizes::default();
        assert!(any.accepts(0, 8) && any.accepts(6, 2) && !any.accepts(5, 2));
        let s = Sizes::new(2, 4);
        assert!(!s.accepts(0, 1) && s.accepts(2, 2) && s.accepts(4, 4) && !s.accepts(0, 8) && !s.accepts(2, 4));
        assert!(s.unaligned().accepts(1, 4));
    }

    #[test]
    fn direct_accesses_need_no_splitting_and_no_swapping() {
        struct Nothing;
        impl Bind for Nothing {
            fn bind(&self) -> Option<Arc<dyn Run>> {
                None
            }
        }
        let direct = |valid, imp, endian| {
            let io = Io::new(Box::new(Nothing), (valid, imp, endian));
            [1, 2, 4, 8].map(|size| io.is_direct(8, size))
        };
        let any = Sizes::default();
        assert_eq!(direct(any, any, Endian::Little), [true, true, true, false]);
        assert_eq!(direct(any, any, Endian::Big), [true, false, false, false]);
        assert_eq!(direct(Sizes::new(2, 4), Sizes::new(4, 8), Endian::Little), [false, false, true, false]);
        assert_eq!(direct(any, Sizes::new(1, 8), Endian::Little), [true, true, true, true]);
        let io = Io::new(Box::new(Nothing), (any.unaligned(), any.unaligned(), Endian::Little));
        assert!(io.is_direct(4, 4) && !io.is_direct(2, 4) && io.is_direct(3, 1), "unaligned ones take the long way");
    }
}
