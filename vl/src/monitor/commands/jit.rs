//! What the TCG engine did, as text.

use super::{Command, command};
use crate::monitor::error::QmpError;
use crate::monitor::schema::{Ty, req};
use serde_json::json;

pub(super) static COMMANDS: &[Command] = &[Command {
    features: &["unstable"],
    ..command("x-query-jit", &[], Some(Ty::Object(&[req("human-readable-text", Ty::Str)])), |vm, _| {
        let text = crate::monitor::jit::report(vm).map_err(QmpError::generic)?;
        Ok(json!({"human-readable-text": text}))
    })
}];
