//! Queues that threads of their own serve: properties `iothread` and `iothread-vq-mapping`.
//!
//! A driver's notification is then passed on to the thread, which looks at the queue with the machine locked; what it submits ends there
//! too ([`hw_core::iothread`]).

use super::device::VirtioDevice;
use hw_core::iothread::{IoThread, Worker};
use parking_lot::Mutex;
use qom::{Class, Error, Handle, Input, Property, Ref, Reject, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the user said, and what became of it.
#[derive(Default)]
pub(super) struct Threads(Mutex<State>);

#[derive(Default)]
struct State {
    one: Option<Ref<IoThread>>,
    mapping: Vec<Mapped>,
    /// By queue; threads are kept while the device is there.
    serving: Vec<Option<Arc<Worker>>>,
    /// Queues that a thread will look at.
    told: BTreeSet<usize>,
}

struct Mapped {
    thread: Ref<IoThread>,
    queues: Option<Vec<usize>>,
}

impl Mapped {
    fn shown(&self) -> Value {
        let mut shown = Map::from_iter([("iothread".to_owned(), json!(self.thread.name().unwrap_or_default()))]);
        if let Some(queues) = &self.queues {
            shown.insert("vqs".to_owned(), json!(queues));
        }
        Value::Object(shown)
    }
}

/// Adds the properties; `mapping`: that by queue as well.
pub(super) fn properties(c: &mut Class, mapping: bool) {
    c.property(Property::link(
        "iothread",
        |d: &VirtioDevice| d.threads().0.lock().one.clone().map(Ref::into_object),
        |d: &VirtioDevice, thread: Option<Ref<IoThread>>| {
            d.threads().0.lock().one = thread;
            Ok(())
        },
    ));
    if mapping {
        c.property(
            Property::new("iothread-vq-mapping", "IOThreadVirtQueueMappingList")
                .reader(|o| {
                    let shown = o
                        .cast::<VirtioDevice>()
                        .map(|d| d.threads().0.lock().mapping.iter().map(Mapped::shown).collect());
                    Ok(shown.unwrap_or_else(|| json!([])))
                })
                .writer(|o, input| {
                    let (Input::Json(Value::Array(list)) | Input::Keyval(Value::Array(list))) = input else {
                        return Err(Reject::wrong_type("array"));
                    };
                    if let Some(d) = o.cast::<VirtioDevice>() {
                        let mapping = parse(d, list)?;
                        d.threads().0.lock().mapping = mapping;
                    }
                    Ok(())
                }),
        );
    }
}

fn parse(d: &VirtioDevice, list: &[Value]) -> Result<Vec<Mapped>> {
    let mut all: Vec<Mapped> = vec![];
    for entry in list {
        let name = entry.get("iothread").and_then(Value::as_str);
        let name = name.ok_or_else(|| Error::generic("Parameter 'iothread' is missing"))?;
        if all.iter().any(|m| m.thread.name().as_deref() == Some(name)) {
            return Err(Error::generic(format!("duplicate IOThread name \"{name}\" in iothread-vq-mapping")));
        }
        let path = format!("/objects/{name}");
        let thread = d.scope().resolve_kind::<IoThread>(&path);
        let thread = thread.map_err(|_| Error::generic(format!("IOThread \"{name}\" object does not exist")))?;
        let queues = match entry.get("vqs") {
            None | Some(Value::Null) => None,
            Some(v) => {
                let numbers = v.as_array().and_then(|l| {
                    l.iter()
                        .map(|n| n.as_u64().or_else(|| n.as_str()?.parse().ok()).and_then(|n| usize::try_from(n).ok()))
                        .collect()
                });
                Some(
                    numbers.ok_or_else(|| {
                        Error::generic("Invalid parameter type for 'vqs', expected: array of numbers")
                    })?,
                )
            }
        };
        all.push(Mapped { thread, queues });
    }
    if all.iter().any(|m| m.queues.is_some() != all.first().is_some_and(|f| f.queues.is_some())) {
        return Err(Error::generic(
            "either all items in iothread-vq-mapping must have vqs or none of them must have it",
        ));
    }
    Ok(all)
}

impl Threads {
    /// Fixes who serves which queue, at realize: `queues` from queue `first` on are those that threads may serve.
    ///
    /// # Errors
    /// What the user said does not fit.
    pub(super) fn assign(&self, first: usize, queues: usize) -> Result<()> {
        let mut s = self.0.lock();
        let mut by: Vec<Option<Ref<IoThread>>> = vec![None; queues];
        match (&s.one, s.mapping.as_slice()) {
            (Some(_), [_, ..]) => {
                return Err(Error::generic(
                    "iothread and iothread-vq-mapping properties cannot be set at the same time",
                ));
            }
            (Some(one), []) => by.fill(Some(one.clone())),
            (None, mapping) => {
                for (i, m) in mapping.iter().enumerate() {
                    let name = m.thread.name().unwrap_or_default();
                    let own = m.queues.clone().unwrap_or_else(|| (i..queues).step_by(mapping.len()).collect());
                    for q in own {
                        let slot = by.get_mut(q).ok_or_else(|| {
                            Error::generic(format!("vq index {q} for IOThread \"{name}\" must be less than num_queues {queues} in iothread-vq-mapping"))
                        })?;
                        if slot.replace(m.thread.clone()).is_some() {
                            return Err(Error::generic(format!(
                                "cannot assign vq {q} to IOThread \"{name}\" because it is already assigned"
                            )));
                        }
                    }
                }
                if !mapping.is_empty()
                    && let Some(q) = by.iter().position(Option::is_none)
                {
                    return Err(Error::generic(format!("missing vq {q} IOThread assignment in iothread-vq-mapping")));
                }
            }
        }
        let workers = by.into_iter().map(|t| t.and_then(|t| t.worker()));
        s.serving = std::iter::repeat_n(None, first).chain(workers).collect();
        Ok(())
    }

    /// `iothread` is set.
    pub(super) fn is_one(&self) -> bool {
        self.0.lock().one.is_some()
    }

    /// The device goes.
    pub(super) fn release(&self) {
        self.0.lock().serving.clear()
    }

    /// Has the thread of a queue look at it; false: it has none.
    pub(super) fn tell(&self, device: Handle<VirtioDevice>, n: usize) -> bool {
        let mut s = self.0.lock();
        let Some(worker) = s.serving.get(n).cloned().flatten() else { return false };
        // (Told once, it looks at all that came until then.)
        if s.told.insert(n) {
            worker.post(move || {
                let Some(d) = device.upgrade() else { return };
                let m = &mut d.core().lock();
                d.threads().0.lock().told.remove(&n);
                d.serve(m, n)
            })
        }
        true
    }
}
