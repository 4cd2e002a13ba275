//! The pointer: `input-send-event`, `query-mice`, and what HMP's `mouse_move`, `mouse_button` and `mouse_set` do.

use super::{Args, Command, command};
use crate::monitor::error::{QmpError, QmpResult};
use crate::monitor::schema::{Ty, Union, opt, req};
use crate::vm::Vm;
use serde_json::{Value, json};
use std::sync::Arc;
use ui::input::{Claim, Pointer, PointerEvent, devices, pointers, send_pointer};
use ui::keys::Key;

const BUTTONS: [&str; 10] =
    ["left", "middle", "right", "wheel-up", "wheel-down", "side", "extra", "wheel-left", "wheel-right", "touch"];
const AXIS: Ty = Ty::Enum(&["x", "y"]);
const MOVE: Ty = Ty::Object(&[req("axis", AXIS), req("value", Ty::Int)]);
const TOUCH: Ty = Ty::Object(&[
    req("type", Ty::Enum(&["begin", "update", "end", "cancel", "data"])),
    req("slot", Ty::Int),
    req("tracking-id", Ty::Int),
    req("axis", AXIS),
    req("value", Ty::Int),
]);
const EVENT: Ty = Ty::Union(&Union {
    base: &[req("type", Ty::Enum(&["key", "btn", "rel", "abs", "mtt"]))],
    tag: "type",
    variants: &[
        ("key", &[req("data", Ty::Object(&[req("key", super::input::KEY), req("down", Ty::Bool)]))]),
        ("btn", &[req("data", Ty::Object(&[req("button", Ty::Enum(&BUTTONS)), req("down", Ty::Bool)]))]),
        ("rel", &[req("data", MOVE)]),
        ("abs", &[req("data", MOVE)]),
        ("mtt", &[req("data", TOUCH)]),
    ],
});

const MOUSE: Ty =
    Ty::Object(&[req("name", Ty::Str), req("index", Ty::Int), req("current", Ty::Bool), req("absolute", Ty::Bool)]);

pub(super) static COMMANDS: &[Command] = &[
    command(
        "input-send-event",
        &[opt("device", Ty::Str), opt("head", Ty::Int), req("events", Ty::List(&EVENT))],
        None,
        input_send_event,
    ),
    command("query-mice", &[], Some(Ty::List(&MOUSE)), |vm, _| Ok(mice(vm))),
];

/// The pointers that take events now, the current one first.
fn mice(vm: &Arc<Vm>) -> Value {
    let all = devices(vm.scope());
    let (m, chosen) = (&mut vm.core().lock(), vm.chosen_pointer.lock().clone());
    let found = pointers(vm.scope(), m, chosen.as_deref()).into_iter().enumerate();
    let describe = |(rank, o): (usize, ::qom::ObjRef)| {
        let path = o.path();
        let index = all.iter().position(|d| d.object.path() == path).map_or(0, |i| i + 1);
        let pointer = o.interface::<dyn Pointer>()?;
        let (name, absolute) = (pointer.name(), pointer.is_absolute(m));
        Some(json!({"name": name, "index": index, "current": rank == 0, "absolute": absolute}))
    };
    found.filter_map(describe).collect()
}

/// Makes the pointer of a number the current one.
///
/// # Errors
/// There is none of that number, or it takes no events now.
pub(crate) fn choose(vm: &Arc<Vm>, index: usize) -> Result<(), String> {
    let missing = || format!("Mouse at index '{index}' not found");
    let device = index.checked_sub(1).and_then(|i| devices(vm.scope()).into_iter().nth(i)).ok_or_else(missing)?;
    if !device.pointer {
        return Err(format!("Input device '{}' is not a mouse", device.name));
    }
    let claim = device.object.interface::<dyn Pointer>().map(|p| p.claim(&mut vm.core().lock()));
    if matches!(claim, None | Some(Claim::None)) {
        return Err(missing());
    }
    *vm.chosen_pointer.lock() = Some(device.object.path());
    Ok(())
}

/// Bit of a button in [`PointerEvent::buttons`].
fn button(name: &str) -> Option<u8> {
    Some(match name {
        "left" => 1,
        "right" => 2,
        "middle" => 4,
        "side" => 8,
        "extra" => 16,
        _ => return None,
    })
}

/// One event of the list, taken into `now`; a key is sent at once.
fn take(vm: &Arc<Vm>, event: &Value, now: &mut PointerEvent) -> QmpResult<Option<(&'static Key, bool)>> {
    let data = event.get("data").unwrap_or(&Value::Null);
    let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
    let down = data.get("down").and_then(Value::as_bool).unwrap_or(false);
    let value = data.get("value").and_then(Value::as_i64).unwrap_or(0);
    let value = value.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
    match event.get("type").and_then(Value::as_str).unwrap_or_default() {
        "key" => return super::input::key(data.get("key").unwrap_or(&Value::Null)).map(|k| Some((k, down))),
        "btn" => match (button(text("button")), text("button")) {
            (Some(bit), _) => now.buttons = now.buttons & !bit | if down { bit } else { 0 },
            (None, "wheel-up") if down => now.wheel -= 1,
            (None, "wheel-down") if down => now.wheel += 1,
            (None, "wheel-up" | "wheel-down") => {}
            (None, other) => return Err(QmpError::generic(format!("the machine's pointer has no button '{other}'"))),
        },
        kind @ ("rel" | "abs") => {
            if !now.absolute && kind == "abs" {
                let last = *vm.pointer.lock();
                (now.x, now.y) = (last.x, last.y);
            }
            now.absolute = kind == "abs";
            let axis = if text("axis") == "x" { &mut now.x } else { &mut now.y };
            *axis = if now.absolute { value.clamp(0, 0x7fff) } else { axis.saturating_add(value) };
        }
        other => return Err(QmpError::generic(format!("the machine has no input device for '{other}' events"))),
    }
    Ok(None)
}

/// All events count as one: a position's two axes come together.
fn input_send_event(vm: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    if let Some(device) = args.opt_str("device") {
        return Err(QmpError::generic(format!("'{device}' is no display with input devices of its own")));
    }
    let buttons = vm.pointer.lock().buttons;
    let mut now = PointerEvent { buttons, ..PointerEvent::default() };
    let mut keys = vec![];
    for event in args.list("events") {
        keys.extend(take(vm, event, &mut now)?);
    }
    for (key, down) in keys {
        if !ui::input::send_key(vm.scope(), &mut vm.core().lock(), key, down) {
            return Err(QmpError::generic("the machine has no keyboard"));
        }
    }
    let still = PointerEvent { buttons, ..PointerEvent::default() };
    if now != still && !send(vm, now) {
        let kind = match now {
            PointerEvent { absolute: true, .. } => "abs",
            PointerEvent { x: 0, y: 0, .. } => "btn",
            _ => "rel",
        };
        return Err(QmpError::generic(format!("Input handler not found for event type {kind}")));
    }
    Ok(json!({}))
}

/// Sends an event and remembers the position and the buttons held.
fn send(vm: &Arc<Vm>, event: PointerEvent) -> bool {
    {
        let mut last = vm.pointer.lock();
        last.buttons = event.buttons;
        if event.absolute {
            (last.x, last.y) = (event.x, event.y);
        }
    }
    let chosen = vm.chosen_pointer.lock().clone();
    send_pointer(vm.scope(), &mut vm.core().lock(), event, chosen.as_deref())
}
