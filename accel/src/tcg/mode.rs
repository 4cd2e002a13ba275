//! What selects code and translations of a vCPU: taken anew after anything that may have changed it.
#![expect(unsafe_code, reason = "works on the env of a vCPU")]

use super::{
    env::*,
    target::{Target, Who},
    tlb,
};
use std::{ptr::NonNull, sync::atomic::Ordering::Relaxed};

/// Takes the mode anew if it may have changed: TLB and jump cache of the regime.
/// # Safety
/// The calling thread owns the vCPU, and no reference into the env is live.
pub(super) unsafe fn update<T: Target>(env: NonNull<Env<T>>) {
    // SAFETY: as demanded of the caller; distinct cells.
    let (n, st, h) = unsafe { (&mut *inner(env), &*state(env), hot(env)) };
    if !n.mode_changed {
        return;
    }
    n.mode_changed = false;
    // SAFETY: as above; no other reference to it exists.
    T::follow(unsafe { &mut *h }, st);
    // SAFETY: as above.
    let mode = T::mode(unsafe { &*h }, st) & 0xff_ffff;
    let regime = T::regime(st, Who::Current) % tlb::REGIMES;
    // (Regions know the regime they were made for, so it is part of what tells pages apart.)
    let key = mode | (regime as u32) << 24;
    n.mode = key;
    let salt = match n.salts.iter().find(|s| s.0 == key) {
        Some(s) => s.1,
        None => {
            if n.next_salt == salt::LAST {
                n.next_salt = 0;
                n.salts.clear();
                for i in 0..JC {
                    // SAFETY: as above; the jump cache is another cell.
                    unsafe { (*jc_entry(env, i)).key = JcEntry::<T>::NONE }
                }
            }
            n.next_salt += 1;
            n.salts.push((key, n.next_salt));
            n.next_salt
        }
    };
    // SAFETY: as above.
    unsafe {
        (*h).salt = salt << salt::SHIFT;
        tlb::select(env, regime);
    }
}

/// A rare instruction may have changed what selects code. Whether handlers go on behind it, in the mode that is now: not if
/// somebody waits, if something comes between two instructions, or if the instruction was run by itself.
/// # Safety
/// As for [`update`].
pub(super) unsafe fn goes_on<T: Target>(env: NonNull<Env<T>>) -> bool {
    // SAFETY: as demanded of the caller.
    unsafe {
        (*inner(env)).mode_changed = true;
        let kicked = (*env.as_ptr()).shared.exit_request.load(Relaxed) != 0;
        if kicked || (*inner(env)).stale || (*hot(env)).salt == salt::NONE || T::stepping(&*state(env)) {
            return false;
        }
        update(env);
        true
    }
}
