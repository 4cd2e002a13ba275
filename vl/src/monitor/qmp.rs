//! One QMP connection: greeting, negotiation, requests, replies. Source: docs/interop/qmp-spec.
//!
//! Requests are answered in order on the event loop's thread. `exec-oob` is accepted once negotiated; since no request is left
//! waiting while another runs, it needs no queue of its own.

use super::commands::{self, Args};
use super::error::QmpError;
use super::{VmRef, schema};
use crate::json;
use crate::options::QEMU_VERSION;
use crate::vm::Vm;
use chardev::{Channel, CharFrontend, Event, Handlers};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Replies that may wait before requests are no longer read.
const MAX_BACKLOG: usize = 1 << 20;

/// One QMP monitor; it outlives its connections.
pub struct Session {
    me: Weak<Session>,
    vm: VmRef,
    front: CharFrontend,
    pretty: bool,
    /// A command is running.
    busy: Arc<AtomicBool>,
    reader: Mutex<json::Reader>,
    mode: Mutex<Mode>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Mode {
    #[default]
    Closed,
    Negotiating,
    Commands {
        oob: bool,
    },
}

/// `query-version` and the greeting.
pub(crate) fn version() -> Value {
    let (major, minor, micro) = QEMU_VERSION;
    json!({
        "qemu": {"micro": micro, "minor": minor, "major": major},
        "package": format!("Qomet {}", env!("CARGO_PKG_VERSION")),
    })
}

impl Session {
    pub(crate) fn new(
        vm: &Arc<Vm>,
        channel: &Arc<Channel>,
        pretty: bool,
        busy: Arc<AtomicBool>,
    ) -> chardev::Result<Arc<Self>> {
        let session = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            vm: Arc::downgrade(vm),
            front: CharFrontend::default(),
            pretty,
            busy,
            reader: Mutex::default(),
            mode: Mutex::default(),
        });
        session.front.attach(channel)?;
        session.front.set_echo(true);
        let (can, take, event) = (session.me.clone(), session.me.clone(), session.me.clone());
        session.front.set_handlers(Handlers {
            can_receive: Box::new(move || can.upgrade().map_or(0, |s| s.room())),
            receive: Box::new(move |bytes| {
                if let Some(s) = take.upgrade() {
                    s.receive(bytes);
                }
            }),
            event: Box::new(move |e| {
                if let Some(s) = event.upgrade() {
                    s.event(e);
                }
            }),
        });
        Ok(session)
    }

    fn room(&self) -> usize {
        if self.front.queued() > MAX_BACKLOG { 0 } else { 4096 }
    }

    fn event(&self, event: Event) {
        match event {
            Event::Opened => {
                *self.reader.lock() = json::Reader::default();
                *self.mode.lock() = Mode::Negotiating;
                self.send(&json!({"QMP": {"version": version(), "capabilities": ["oob"]}}));
            }
            Event::Closed => {
                *self.reader.lock() = json::Reader::default();
                *self.mode.lock() = Mode::Closed;
            }
            _ => {}
        }
    }

    fn receive(&self, bytes: &[u8]) {
        for b in bytes {
            let done = self.reader.lock().push(*b);
            match done {
                None => {}
                Some(Ok(request)) => self.request(request),
                Some(Err(e)) => self.send(&json!({"error": QmpError::generic(e.to_string()).to_value()})),
            }
        }
    }

    fn request(&self, request: Value) {
        let id = request.get("id").cloned();
        self.busy.store(true, Ordering::Relaxed);
        let answer = self.dispatch(request);
        self.busy.store(false, Ordering::Relaxed);
        let (key, value) = match answer {
            Ok(v) => ("return", v),
            Err(e) => ("error", e.to_value()),
        };
        let mut reply = Map::new();
        if let (Some(id), "error") = (&id, key) {
            reply.insert("id".into(), id.clone());
        }
        reply.insert(key.into(), value);
        if let (Some(id), "return") = (id, key) {
            reply.insert("id".into(), id);
        }
        self.send(&reply.into());
    }

    fn dispatch(&self, request: Value) -> Result<Value, QmpError> {
        let mode = *self.mode.lock();
        let Value::Object(request) = request else {
            return Err(QmpError::generic("QMP input must be a JSON object"));
        };
        let call = Call::parse(&request, mode == Mode::Commands { oob: true })?;
        if call.name == "qmp_capabilities" {
            return self.negotiate(&call.args, mode);
        }
        if !matches!(mode, Mode::Commands { .. }) {
            return Err(QmpError::not_found("Expecting capabilities negotiation with 'qmp_capabilities'"));
        }
        let Some(vm) = self.vm.upgrade() else { return Err(QmpError::generic("The machine has ended")) };
        commands::run(&vm, call.name, &call.args, call.oob)
    }

    fn negotiate(&self, args: &Map<String, Value>, mode: Mode) -> Result<Value, QmpError> {
        schema::check(commands::CAPABILITIES, args, false)?;
        if mode != Mode::Negotiating {
            return Err(QmpError::not_found("Capabilities negotiation is already complete, command ignored"));
        }
        let oob = Args(args).list("enable").iter().any(|v| v == "oob");
        *self.mode.lock() = Mode::Commands { oob };
        Ok(json!({}))
    }

    /// Sends an event, if the client has finished its negotiation.
    pub(crate) fn send_event(&self, event: &Value) {
        let ready = matches!(*self.mode.lock(), Mode::Commands { .. });
        if ready {
            self.send(event);
        }
    }

    fn send(&self, v: &Value) {
        let mut text = if self.pretty { json::to_pretty(v) } else { json::to_text(v) };
        if self.pretty {
            text = text.replace('\n', "\r\n");
        }
        text.push_str("\r\n");
        self.front.write_all(text.as_bytes());
    }
}

/// A request, taken apart.
#[derive(Debug)]
struct Call<'a> {
    name: &'a str,
    args: Map<String, Value>,
    oob: bool,
}

impl<'a> Call<'a> {
    fn parse(request: &'a Map<String, Value>, oob_allowed: bool) -> Result<Self, QmpError> {
        let mut name = None;
        let mut args = Map::new();
        for (key, value) in request {
            match key.as_str() {
                "execute" | "exec-oob" if key == "execute" || oob_allowed => {
                    let Some(text) = value.as_str() else {
                        return Err(QmpError::generic(format!("QMP input member '{key}' must be a string")));
                    };
                    if name.is_some() {
                        return Err(QmpError::generic("QMP input member 'exec-oob' clashes with 'execute'"));
                    }
                    name = Some((text, key == "exec-oob"));
                }
                "arguments" => match value {
                    Value::Object(map) => args = map.clone(),
                    _ => return Err(QmpError::generic("QMP input member 'arguments' must be an object")),
                },
                "id" => {}
                _ => return Err(QmpError::generic(format!("QMP input member '{key}' is unexpected"))),
            }
        }
        let Some((name, oob)) = name else { return Err(QmpError::generic("QMP input lacks member 'execute'")) };
        Ok(Self { name, args, oob })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(v: Value, oob: bool) -> Result<(String, bool), String> {
        let map = v.as_object().unwrap().clone();
        let call = Call::parse(&map, oob).map_err(|e| e.desc)?;
        Ok((call.name.to_owned(), call.oob))
    }

    #[test]
    fn requests_are_taken_apart() {
        assert_eq!(parse(json!({"execute": "stop", "arguments": {}, "id": 1}), false), Ok(("stop".into(), false)));
        assert_eq!(parse(json!({"exec-oob": "stop"}), true), Ok(("stop".into(), true)));
        for (bad, text) in [
            (json!({}), "QMP input lacks member 'execute'"),
            (json!({"execute": 1}), "QMP input member 'execute' must be a string"),
            (json!({"execute": "a", "arguments": []}), "QMP input member 'arguments' must be an object"),
            (json!({"execute": "a", "x": 1}), "QMP input member 'x' is unexpected"),
            (json!({"exec-oob": "a"}), "QMP input member 'exec-oob' is unexpected"),
        ] {
            assert_eq!(parse(bad, false), Err(text.to_owned()));
        }
        assert!(parse(json!({"execute": "a", "exec-oob": "b"}), true).unwrap_err().contains("clashes"));
    }
}
