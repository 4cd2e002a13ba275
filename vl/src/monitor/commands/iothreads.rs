//! Threads that serve devices.

use super::{Command, command};
use crate::monitor::schema::{Ty, req};
use crate::vm::Vm;
use hw_core::iothread::{IoThread, Shown};
use qom::ObjRef;
use serde_json::json;
use std::sync::Arc;

pub(super) static COMMANDS: &[Command] = &[command("query-iothreads", &[], Some(Ty::List(&IO_THREAD)), |vm, _| {
    let one = |(id, t): (String, Shown)| {
        json!({
            "id": id,
            "thread-id": t.thread_id,
            "poll-max-ns": t.poll_max_ns,
            "poll-grow": t.poll_grow,
            "poll-shrink": t.poll_shrink,
            "poll-weight": t.poll_weight,
            "aio-max-batch": t.aio_max_batch,
        })
    };
    Ok(iothreads(vm).into_iter().map(one).collect())
})];

static IO_THREAD: Ty = Ty::Object(&[
    req("id", Ty::Str),
    req("thread-id", Ty::Int),
    req("poll-max-ns", Ty::Int),
    req("poll-grow", Ty::Int),
    req("poll-shrink", Ty::Int),
    req("poll-weight", Ty::Int),
    req("aio-max-batch", Ty::Int),
]);

/// The machine's iothreads, by id.
fn iothreads(vm: &Vm) -> Vec<(String, Shown)> {
    let Ok(objects) = vm.scope().resolve("/objects") else { return vec![] };
    let shown = |(id, o): (Arc<str>, ObjRef)| Some((id.to_string(), o.cast::<IoThread>()?.shown()));
    objects.children().into_iter().filter_map(shown).collect()
}
