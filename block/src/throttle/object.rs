//! Type `throttle-group`: limits that a user names.

use super::bucket::Limits;
use super::group::Group;
use crate::blocks::Blocks;
use hw_core::Core;
use parking_lot::Mutex;
use qom::{Base, Class, Error, Object, Property, Reject, Result, UserCreatable};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Type `throttle-group`.
#[derive(Object)]
#[qom(name = "throttle-group", parent = Base, interfaces(dyn UserCreatable), class_init = ThrottleGroup::class_init)]
pub struct ThrottleGroup {
    parent: Base,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    limits: Limits,
    /// Once it is complete.
    group: Option<Arc<Group>>,
}

impl ThrottleGroup {
    fn class_init(c: &mut Class) {
        for (name, _) in Limits::default().options() {
            let (get, set) = (name.clone(), name.clone());
            c.property(
                Property::computed::<i64>(format!("x-{name}"))
                    .type_named("int")
                    .getter(move |o: &Self| {
                        let all = o.limits().options();
                        Ok(all.iter().find(|(n, _)| *n == get).map_or(0, |(_, v)| *v as i64))
                    })
                    .setter(move |o: &Self, v: i64| {
                        let mut s = o.state.lock();
                        if s.group.is_some() {
                            return Err(Error::generic("Property cannot be set after initialization"));
                        }
                        match u64::try_from(v) {
                            Ok(v) if s.limits.set(&set, v) => Ok(()),
                            _ => Err(Error::generic(format!("'{set}' must not be negative"))),
                        }
                    }),
            );
        }
        c.property(
            Property::new("limits", "ThrottleLimits")
                .reader(|o| {
                    let limits = o.cast::<Self>().map(Self::limits).unwrap_or_default();
                    Ok(limits.options().into_iter().map(|(n, v)| (n, Value::from(v))).collect::<Map<_, _>>().into())
                })
                .writer(|o, input| {
                    let Some(o) = o.cast::<Self>() else { return Ok(()) };
                    let mut limits = o.limits();
                    for (key, value) in input.members()? {
                        let v = <u64 as qom::PropType>::take(value).map_err(|e| e.at(key))?;
                        if !limits.set(key, v) {
                            let all = limits.options();
                            let known: Vec<&str> = all.iter().map(|(n, _)| n.as_str()).collect();
                            return Err(Reject::unexpected(key, &known));
                        }
                    }
                    limits.check()?;
                    let mut s = o.state.lock();
                    s.limits = limits;
                    if let Some(group) = &s.group {
                        group.set_limits(limits)?;
                    }
                    Ok(())
                })
                .live(),
        );
    }

    /// Those in force: a drive of the group may have changed them.
    fn limits(&self) -> Limits {
        let s = self.state.lock();
        s.group.as_ref().map_or(s.limits, |g| g.limits())
    }
}

impl UserCreatable for ThrottleGroup {
    fn complete(&self) -> Result<()> {
        let name = self.name().unwrap_or_default();
        let blocks = Blocks::of(Core::of(self));
        if blocks.find_group(&name).is_some() {
            return Err(Error::generic("A group with this name already exists"));
        }
        let mut s = self.state.lock();
        let group = blocks.group(&name);
        group.set_limits(s.limits)?;
        s.group = Some(group);
        Ok(())
    }

    fn can_be_deleted(&self) -> bool {
        self.state.lock().group.as_ref().is_none_or(|g| Arc::strong_count(g) == 1)
    }
}
