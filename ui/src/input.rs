//! Keys and pointer movements on their way into the machine. A device that takes them has the interface; the newest one
//! in the tree gets the event.

use crate::keys::Key;
use hw_core::Locked;
use qom::{ObjRef, Scope};
use std::sync::Arc;

/// Interface `input-keyboard`: takes keys.
pub trait Keyboard {
    /// What users call it.
    fn name(&self) -> &'static str;
    /// A key goes down or up.
    fn key(&self, m: &mut Locked, key: &'static Key, down: bool);
}

qom::interface!(dyn Keyboard, "input-keyboard");

/// What a pointer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PointerEvent {
    /// Movement to the right, or the position (0 to 0x7fff).
    pub x: i32,
    /// Movement downwards, or the position.
    pub y: i32,
    /// `x` and `y` are a position.
    pub absolute: bool,
    /// Wheel, towards the user positive.
    pub wheel: i32,
    /// Buttons held: left, right, middle, side, extra in bits 0 to 4.
    pub buttons: u8,
}

/// How much a pointer wants to be the one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It takes no events now.
    None,
    /// Unless somebody else comes first.
    Usual,
    /// The guest has switched it on in place of the usual one.
    First,
}

/// Interface `input-pointer`: takes pointer events.
pub trait Pointer {
    /// What users call it.
    fn name(&self) -> &'static str;
    /// Whether it takes events now.
    fn claim(&self, _m: &mut Locked) -> Claim {
        Claim::Usual
    }
    /// Positions instead of movements are wanted now.
    fn is_absolute(&self, m: &mut Locked) -> bool;
    /// Something happened.
    fn pointer(&self, m: &mut Locked, event: PointerEvent);
}

qom::interface!(dyn Pointer, "input-pointer");

/// The objects of the tree with interface `I`, newest last.
fn all<I: ?Sized + 'static>(scope: &Arc<Scope>) -> Vec<ObjRef> {
    let mut found = vec![];
    scope.root().walk(&mut |o| {
        if o.interface::<I>().is_some() {
            found.push(o.clone());
        }
    });
    found
}

/// Passes a key to the machine's keyboard; false if it has none.
pub fn send_key(scope: &Arc<Scope>, m: &mut Locked, key: &'static Key, down: bool) -> bool {
    let keyboard = all::<dyn Keyboard>(scope).pop();
    match keyboard.as_ref().and_then(|o| o.interface::<dyn Keyboard>()) {
        Some(k) => {
            k.key(m, key, down);
            true
        }
        None => false,
    }
}

/// The pointers that take events now, the one to prefer first: `chosen` (a user's choice, by path), then those the guest switched on.
pub fn pointers(scope: &Arc<Scope>, m: &mut Locked, chosen: Option<&str>) -> Vec<ObjRef> {
    let mut found: Vec<(u8, ObjRef)> = vec![];
    for o in all::<dyn Pointer>(scope).into_iter().rev() {
        match o.interface::<dyn Pointer>().map(|p| p.claim(m)) {
            Some(Claim::First | Claim::Usual) if chosen == Some(&o.path()) => found.push((0, o)),
            Some(Claim::First) => found.push((1, o)),
            Some(Claim::Usual) => found.push((2, o)),
            Some(Claim::None) | None => {}
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, o)| o).collect()
}

/// A device with keys, a pointer, or both, as users are shown it.
pub struct InputDevice {
    /// The device.
    pub object: ObjRef,
    /// Name.
    pub name: &'static str,
    /// Whether it is a pointer.
    pub pointer: bool,
}

/// All devices with keys or a pointer, in the tree's order: number 1 is the first.
pub fn devices(scope: &Arc<Scope>) -> Vec<InputDevice> {
    let mut found = vec![];
    scope.root().walk(&mut |o| {
        let pointer = o.interface::<dyn Pointer>().map(Pointer::name);
        if let Some(name) = pointer.or_else(|| o.interface::<dyn Keyboard>().map(Keyboard::name)) {
            found.push(InputDevice { object: o.clone(), name, pointer: pointer.is_some() });
        }
    });
    found
}

/// Passes a pointer event to the first pointer that takes its kind: positions, movements, or neither (buttons and wheel, which all
/// take). `chosen` as for [`pointers`]. False: the machine has none.
pub fn send_pointer(scope: &Arc<Scope>, m: &mut Locked, event: PointerEvent, chosen: Option<&str>) -> bool {
    let still = !event.absolute && (event.x, event.y) == (0, 0);
    for o in pointers(scope, m, chosen) {
        if let Some(p) = o.interface::<dyn Pointer>()
            && (still || p.is_absolute(m) == event.absolute)
        {
            p.pointer(m, event);
            return true;
        }
    }
    false
}
