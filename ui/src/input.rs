//! Keys and pointer movements on their way into the machine. A device that takes them has the interface; the newest one
//! in the tree gets the event.

use crate::keys::Key;
use hw_core::Locked;
use qom::{ObjRef, Scope};
use std::sync::Arc;

/// Interface `input-keyboard`: takes keys.
pub trait Keyboard {
    /// A key goes down or up.
    fn key(&self, m: &mut Locked, key: &'static Key, down: bool);
}

qom::interface!(dyn Keyboard, "input-keyboard");

/// What a pointer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PointerEvent {
    /// Movement to the right, or the position of an absolute pointer (0 to 0x7fff).
    pub x: i32,
    /// Movement downwards, or the position.
    pub y: i32,
    /// Wheel, towards the user positive.
    pub wheel: i32,
    /// Buttons held: left, right, middle, side, extra in bits 0 to 4.
    pub buttons: u8,
}

/// Interface `input-pointer`: takes pointer events.
pub trait Pointer {
    /// Positions instead of movements are wanted now.
    fn is_absolute(&self, m: &mut Locked) -> bool;
    /// Something happened.
    fn pointer(&self, m: &mut Locked, event: PointerEvent);
}

qom::interface!(dyn Pointer, "input-pointer");

/// The last object of the tree with interface `I`.
fn newest<I: ?Sized + 'static>(scope: &Arc<Scope>) -> Option<ObjRef> {
    let mut found = None;
    scope.root().walk(&mut |o| {
        if o.interface::<I>().is_some() {
            found = Some(o.clone());
        }
    });
    found
}

/// Passes a key to the machine's keyboard; false if it has none.
pub fn send_key(scope: &Arc<Scope>, m: &mut Locked, key: &'static Key, down: bool) -> bool {
    let keyboard = newest::<dyn Keyboard>(scope);
    match keyboard.as_ref().and_then(|o| o.interface::<dyn Keyboard>()) {
        Some(k) => {
            k.key(m, key, down);
            true
        }
        None => false,
    }
}

/// Passes a pointer event to the machine's pointer; false if it has none.
pub fn send_pointer(scope: &Arc<Scope>, m: &mut Locked, event: PointerEvent) -> bool {
    let pointer = newest::<dyn Pointer>(scope);
    match pointer.as_ref().and_then(|o| o.interface::<dyn Pointer>()) {
        Some(p) => {
            p.pointer(m, event);
            true
        }
        None => false,
    }
}
