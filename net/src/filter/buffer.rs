//! `filter-buffer`: holds frames and lets them go at intervals of the virtual clock. A machine that stands holds them.

use super::{Direction, Filter, FilterClass, Netfilter, Pass};
use crate::client::Frame;
use hw_core::Core;
use hw_core::clock::{ClockType, Clocks, Timer};
use parking_lot::Mutex;
use qom::{Class, Error, Object, Prop, Property, Result, of_class};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};

/// Most frames that are held; what comes beyond is lost.
const MOST: usize = 10_000;

/// Type `filter-buffer`.
#[derive(Object)]
#[qom(name = "filter-buffer", parent = Netfilter, class_init = FilterBuffer::class_init)]
pub struct FilterBuffer {
    parent: Netfilter,
    /// Microseconds.
    interval: Prop<u32>,
}

impl FilterBuffer {
    fn class_init(c: &mut Class) {
        c.edit::<FilterClass>().make = |f| of_class::<FilterBuffer>(&*f.object()).make();
        c.property(Property::computed::<u32>("interval").getter(|f: &FilterBuffer| Ok(f.interval.get())).setter(
            |f: &FilterBuffer, us: u32| {
                if us == 0 {
                    let at = format!("{}.interval", f.type_name());
                    return Err(Error::generic(format!("Property '{at}' requires a positive value")));
                }
                f.interval.set(us);
                Ok(())
            },
        ));
    }

    fn make(&self) -> Result<Box<dyn Pass>> {
        let us = u64::from(self.interval.get());
        if us == 0 {
            return Err(Error::generic("Parameter 'interval' expects a non-zero interval"));
        }
        let clocks = Core::of(self).clocks.clone();
        let start = clocks.now();
        Ok(Box::new(Buffer { interval: us * 1000, start, clocks, held: Mutex::default(), timer: OnceLock::new() }))
    }
}

struct Buffer {
    /// Nanoseconds; frames go at whole ones after `start`.
    interval: u64,
    start: u64,
    clocks: Arc<Clocks>,
    held: Mutex<VecDeque<(Direction, Frame)>>,
    timer: OnceLock<Timer>,
}

impl Pass for Buffer {
    fn pass(&self, filter: &Arc<Filter>, direction: Direction, frame: Frame) -> Option<Frame> {
        let first = {
            let mut held = self.held.lock();
            if held.len() < MOST {
                held.push_back((direction, frame));
            }
            held.len() == 1
        };
        if first {
            let me: Weak<Filter> = Arc::downgrade(filter);
            let timer = self.timer.get_or_init(|| {
                Timer::new(&self.clocks, ClockType::Virtual, move |_| {
                    if let Some(filter) = me.upgrade() {
                        filter.what.flush(&filter);
                    }
                })
            });
            let since = self.clocks.now().saturating_sub(self.start);
            let next = (since / self.interval + 1).saturating_mul(self.interval);
            timer.arm_free(Some(self.start.saturating_add(next)));
        }
        None
    }

    fn flush(&self, filter: &Filter) {
        let held = std::mem::take(&mut *self.held.lock());
        for (direction, frame) in held {
            filter.resume(direction, frame);
        }
    }
}
