//! Keyboard and screen: `send-key`, `screendump`.

use super::{Args, Command, command};
use crate::monitor::error::{QmpError, QmpResult};
use crate::monitor::schema::{Ty, Union, opt, req};
use crate::vm::Vm;
use serde_json::{Value, json};
use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;
use std::time::Duration;
use ui::keys::Key;

pub(super) const KEY: Ty = Ty::Union(&Union {
    base: &[req("type", Ty::Enum(&["number", "qcode"]))],
    tag: "type",
    variants: &[
        ("number", &[req("data", Ty::Int)]),
        ("qcode", &[req("data", Ty::Words(|| ui::keys::KEYS.iter().map(|k| k.name).collect()))]),
    ],
});

pub(super) static COMMANDS: &[Command] = &[
    command("send-key", &[req("keys", Ty::List(&KEY)), opt("hold-time", Ty::Int)], None, send_key),
    command(
        "screendump",
        &[
            req("filename", Ty::Str),
            opt("device", Ty::Str),
            opt("head", Ty::Int),
            opt("format", Ty::Enum(&["ppm", "png"])),
        ],
        None,
        screendump,
    ),
];

pub(super) fn key(v: &Value) -> QmpResult<&'static Key> {
    let data = v.get("data").unwrap_or(&Value::Null);
    let found = match (data.as_i64(), data.as_str()) {
        (Some(number), _) => ui::keys::by_number(number),
        (_, Some(name)) => ui::keys::by_name(name),
        _ => None,
    };
    found.ok_or_else(|| QmpError::generic(format!("Parameter 'keys' does not accept value '{data}'")))
}

/// Presses the keys in order; after `hold-time` milliseconds (100) they come up in reverse.
fn send_key(vm: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    let keys = args.list("keys").iter().map(key).collect::<QmpResult<Vec<_>>>()?;
    let hold = if args.0.contains_key("hold-time") { args.uint("hold-time")? } else { 100 };
    for k in &keys {
        if !ui::input::send_key(vm.scope(), &mut vm.core().lock(), k, true) {
            return Err(QmpError::generic("the machine has no keyboard"));
        }
    }
    let weak = Arc::downgrade(vm);
    vm.events.later(Duration::from_millis(hold), move || {
        let Some(vm) = weak.upgrade() else { return };
        for k in keys.iter().rev() {
            ui::input::send_key(vm.scope(), &mut vm.core().lock(), k, false);
        }
    });
    Ok(json!({}))
}

fn screendump(vm: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    let head = if args.0.contains_key("head") { args.uint("head")? } else { 0 };
    let device = args.opt_str("device");
    if args.0.contains_key("head") && device.is_none() {
        return Err(QmpError::generic("'head' must be specified together with 'device'"));
    }
    if head > 0 {
        return Err(QmpError::generic(format!("There is no console {head}: each device has one screen")));
    }
    let picture = ui::console::screendump(vm.scope(), &mut vm.core().lock(), device)?;
    let path = args.str("filename");
    let fail = |e: std::io::Error| QmpError::generic(format!("failed to open file '{path}': {e}"));
    let mut file = BufWriter::new(File::create(path).map_err(fail)?);
    let written = match args.opt_str("format") {
        Some("png") => picture.write_png(&mut file),
        _ => picture.write_ppm(&mut file),
    };
    written.and_then(|()| std::io::Write::flush(&mut file)).map_err(fail)?;
    Ok(json!({}))
}
