//! Commands about character devices.

use super::{Args, Command, command};
use crate::base64;
use crate::monitor::error::{QmpError, QmpResult};
use crate::monitor::schema::{Member, Ty, opt, req};
use crate::options::chardev::BACKENDS;
use crate::vm::Vm;
use serde_json::json;
use std::sync::Arc;

const INFO: Ty = Ty::Object(&[req("label", Ty::Str), req("filename", Ty::Str), req("frontend-open", Ty::Bool)]);
const FORMAT: Ty = Ty::Enum(&["utf8", "base64"]);
const WRITE: &[Member] = &[req("device", Ty::Str), req("data", Ty::Str), opt("format", FORMAT)];
const READ: &[Member] = &[req("device", Ty::Str), req("size", Ty::Int), opt("format", FORMAT)];

pub(super) static COMMANDS: &[Command] = &[
    command("query-chardev", &[], Some(Ty::List(&INFO)), |vm, _| {
        let info = |c: &Arc<chardev::Channel>| json!({"frontend-open": c.frontend_open(), "filename": c.filename(), "label": c.label()});
        Ok(vm.chardevs.all().iter().map(info).collect())
    }),
    command("query-chardev-backends", &[], Some(Ty::List(&Ty::Object(&[req("name", Ty::Str)]))), |_, _| {
        Ok(BACKENDS.iter().map(|b| json!({"name": b})).collect())
    }),
    command("chardev-send-break", &[req("id", Ty::Str)], None, |vm, args| {
        find(vm, args.str("id"))?.send_break();
        Ok(json!({}))
    }),
    command("chardev-remove", &[req("id", Ty::Str)], None, |vm, args| {
        let id = args.str("id");
        vm.chardevs.remove(id)?;
        if let Some(o) = vm.scope().container("/chardevs")?.child(id) {
            o.unparent();
        }
        Ok(json!({}))
    }),
    command("ringbuf-write", WRITE, None, ringbuf_write),
    command("ringbuf-read", READ, Some(Ty::Str), ringbuf_read),
];

fn find(vm: &Vm, id: &str) -> QmpResult<Arc<chardev::Channel>> {
    vm.chardevs.find(id).ok_or_else(|| QmpError::generic(format!("Chardev '{id}' not found")))
}

fn ringbuf_write(vm: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    let channel = find(vm, args.str("device"))?;
    let Some(buffer) = channel.ringbuf() else { return Err(not_ringbuf(channel.label())) };
    let data = match args.opt_str("format") {
        Some("base64") => {
            base64::decode(args.str("data")).ok_or_else(|| QmpError::generic("Base64 data is not valid"))?
        }
        _ => args.str("data").as_bytes().to_vec(),
    };
    buffer.put(&data);
    Ok(json!({}))
}

fn ringbuf_read(vm: &Arc<Vm>, args: Args<'_>) -> QmpResult {
    let channel = find(vm, args.str("device"))?;
    let Some(buffer) = channel.ringbuf() else { return Err(not_ringbuf(channel.label())) };
    let size = usize::try_from(args.uint("size")?).unwrap_or(usize::MAX);
    if size == 0 {
        return Err(QmpError::generic("size must be greater than zero"));
    }
    let data = buffer.read(size);
    Ok(match args.opt_str("format") {
        Some("base64") => base64::encode(&data).into(),
        _ => String::from_utf8_lossy(&data).into_owned().into(),
    })
}

fn not_ringbuf(id: &str) -> QmpError {
    QmpError::generic(format!("{id} is not a ringbuf device"))
}
