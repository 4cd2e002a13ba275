//! A guest's x87 unit in the host's.
//!
//! On x86-64 hosts instructions of the unit may run as themselves: the guest's registers, control and status word are
//! loaded into the host's unit by the first that does (`hold`) and stay there until rare code or the engine runs
//! (`release`). All exceptions are masked meanwhile, so that nothing can trap; sticky flags, condition codes, tags and
//! stack faults are then the host's business. The instruction and data pointers are not: they are kept beside.
//!
//! Source of the image: Intel SDM vol. 1 figure 8-9.
#![expect(unsafe_code, reason = "the unit lives in the env")]

use super::{
    env::{Env, hot, state},
    target::Target,
};
use std::ptr::NonNull;

/// Whether the host's unit can stand for a guest's.
pub const AVAILABLE: bool = cfg!(target_arch = "x86_64");

/// A unit as FNSAVE writes it with 32-bit operands in protected mode.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Image {
    /// Control word.
    pub control: u32,
    /// Status word.
    pub status: u32,
    /// Tag word: two bits a register, 3 for an empty one.
    pub tags: u32,
    /// Instruction and data pointers: not used.
    pub pointers: [u32; 4],
    /// ST(0) to ST(7).
    pub regs: [[u8; 10]; 8],
}
const _: () = assert!(size_of::<Image>() == 108);

/// The last instructions that ran on the host's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// Linear address of the last that is no control instruction.
    pub ip: Option<u64>,
    /// Segment number and offset of the last memory operand of such an instruction.
    pub data: Option<(u8, u64)>,
}

/// The unit in the env.
#[repr(C)]
pub(crate) struct Held {
    /// The guest's unit is loaded into the host's: not 0.
    pub held: u64,
    /// [`Last::ip`], or [`NOTHING`].
    pub ip: u64,
    /// The offset and the segment number of [`Last::data`]; the latter may be [`NOTHING`].
    pub offset: u64,
    pub seg: u64,
    image: Image,
}
/// No address and no segment.
const NOTHING: u64 = u64::MAX;
impl Held {
    pub const fn new() -> Held {
        let image = Image { control: 0x37f, status: 0, tags: 0xffff, pointers: [0; 4], regs: [[0; 10]; 8] };
        Held { held: 0, ip: NOTHING, offset: 0, seg: NOTHING, image }
    }
}

/// Loads the guest's unit into the host's.
///
/// # Safety
/// The calling thread owns the env and holds no reference into it; [`release`] follows before code other than handlers
/// and regions runs.
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn hold<T: Target>(env: NonNull<Env<T>>) {
    // SAFETY: by the contract nobody else has references; the target gives an image that masks all exceptions.
    unsafe {
        let h = &mut (*hot(env)).unit;
        if h.held == 0 {
            *h = Held { held: 1, image: T::unit(&*state(env)), ..Held::new() };
            #[cfg(target_arch = "x86_64")]
            super::host::unit::load(&h.image);
        }
    }
}
/// Puts the guest's unit back into the target's state.
///
/// # Safety
/// The calling thread owns the env and holds no reference into it.
#[inline(always)]
pub(crate) unsafe fn release<T: Target>(env: NonNull<Env<T>>) {
    // SAFETY: as above.
    unsafe {
        if (*hot(env)).unit.held != 0 {
            put_back(env)
        }
    }
}
#[cold]
#[inline(never)]
unsafe fn put_back<T: Target>(env: NonNull<Env<T>>) {
    // SAFETY: the caller's contract.
    unsafe {
        let h = &mut (*hot(env)).unit;
        #[cfg(target_arch = "x86_64")]
        super::host::unit::save(&mut h.image);
        h.held = 0;
        let last =
            Last { ip: (h.ip != NOTHING).then_some(h.ip), data: (h.seg != NOTHING).then_some((h.seg as u8, h.offset)) };
        T::set_unit(&mut *state(env), &h.image, last)
    }
}

/// Runs an instruction on the host's unit; `routine` is one of [`routines`]'.
///
/// # Safety
/// As for [`hold`]; `at` is where the routine's memory operand is.
pub(crate) unsafe fn run<T: Target>(env: NonNull<Env<T>>, routine: usize, at: *mut u8) {
    // SAFETY: the caller's contract; the unit is loaded.
    unsafe {
        if (*hot(env)).unit.held == 0 {
            hold(env)
        }
        #[cfg(target_arch = "x86_64")]
        super::host::unit::call(routine, at);
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("{routine:x} {at:?}: no target runs instructions on a unit that is not there");
    }
}

/// Addresses of the instructions' routines.
#[cfg(target_arch = "x86_64")]
pub(crate) use super::host::unit as routines;
/// Hosts without the unit have none.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) mod routines {
    pub fn routine(_: [u8; 2]) -> usize {
        0
    }
    pub fn comparison(_: [u8; 2]) -> usize {
        0
    }
    pub fn conditional_move(_: bool, _: u8) -> usize {
        0
    }
}
