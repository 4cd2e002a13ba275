//! Filters: objects between a backend and its peer. Types `filter-dump` and `filter-buffer`, below the abstract `netfilter`.
//!
//! A frame on its way passes the sender's filters, first to last (direction `tx` of the backend they belong to), then the receiver's, last
//! to first (`rx`). A filter lets it go on or takes it; what it took it may send on later, from behind itself.
//! Not built: `filter-mirror`, `filter-redirector`, `filter-replay`, `filter-rewriter`.

mod buffer;
mod dump;

use crate::client::{Client, Frame};
use crate::nets::Nets;
use hw_core::Core;
use parking_lot::Mutex;
use qom::{Base, Class, Error, Handle, Level, Object, Prop, PropEnum, Property, Result, UserCreatable};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Which frames a filter sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PropEnum)]
#[qom(name = "NetFilterDirection")]
pub enum Direction {
    /// Both.
    #[default]
    All,
    /// Those that its backend receives.
    Rx,
    /// Those that its backend sends.
    Tx,
}

/// What a filter does.
pub(crate) trait Pass: Send + Sync {
    /// Looks at a frame that its backend sends (`Tx`) or receives (`Rx`); `None`: it was taken.
    fn pass(&self, filter: &Arc<Filter>, direction: Direction, frame: Frame) -> Option<Frame>;
    /// The filter is switched off or taken away: what was taken goes on now.
    fn flush(&self, _filter: &Filter) {}
}

/// A filter at its place.
pub(crate) struct Filter {
    client: Weak<Client>,
    queue: Direction,
    on: AtomicBool,
    what: Box<dyn Pass>,
    owner: Handle<Netfilter>,
}

impl Filter {
    fn sees(&self, direction: Direction) -> bool {
        self.on.load(Ordering::Relaxed) && (self.queue == Direction::All || self.queue == direction)
    }

    /// Sends on a frame that was taken.
    fn resume(&self, direction: Direction, frame: Frame) {
        let Some(client) = self.client.upgrade() else { return };
        let Some(peer) = client.peer() else { return };
        let (from, to) = if direction == Direction::Tx { (client, peer) } else { (peer, client) };
        from.send_behind(&to, frame, Some(self));
    }

    /// Takes the object away, because its backend goes.
    pub(crate) fn remove(&self) {
        self.owner.with(|o| _ = o.unparent());
    }

    /// For `info network`.
    pub(crate) fn describe(&self) -> String {
        let text = |o: &Netfilter| {
            let mut out = format!("  - {}: type={}", o.name().unwrap_or_default(), o.type_name());
            for p in o.properties().iter().filter(|p| p.name != "type") {
                let value = o.get(&p.name).unwrap_or_default();
                let _ = match value.as_str() {
                    Some(text) => write!(out, ",{}={text}", p.name),
                    None => write!(out, ",{}={value}", p.name),
                };
            }
            out + "\n"
        };
        self.owner.with(text).unwrap_or_default()
    }
}

/// Leads a frame through the filters between two clients, from behind one of them on; `None`: it was taken.
pub(crate) fn through(from: &Client, to: &Client, mut frame: Frame, behind: Option<&Filter>) -> Option<Frame> {
    let own = from.filters().into_iter().map(|f| (Direction::Tx, f));
    let others = to.filters().into_iter().rev().map(|f| (Direction::Rx, f));
    let mut all: Vec<_> = own.chain(others).collect();
    if let Some(last) = behind
        && let Some(at) = all.iter().position(|(_, f)| std::ptr::eq(&**f, last))
    {
        all.drain(..=at);
    }
    for (direction, filter) in all {
        if filter.sees(direction) {
            frame = filter.what.pass(&filter, direction, frame)?;
        }
    }
    Some(frame)
}

/// Class struct of filters.
#[derive(Clone)]
pub(crate) struct FilterClass {
    make: fn(&Netfilter) -> Result<Box<dyn Pass>>,
}

impl Default for FilterClass {
    fn default() -> Self {
        Self { make: |_| Err(Error::generic("this filter does nothing")) }
    }
}

/// Type `netfilter`.
#[derive(Object)]
#[qom(name = "netfilter", parent = Base, abstract, interfaces(dyn UserCreatable), class_init = Netfilter::class_init,
    instance_init = Netfilter::instance_init)]
pub struct Netfilter {
    parent: Base,
    netdev: Prop<String>,
    queue: Prop<Direction>,
    on: Prop<bool>,
    position: Prop<String>,
    before: Prop<bool>,
    filter: Mutex<Option<Arc<Filter>>>,
}

impl Netfilter {
    fn class_init(c: &mut Class) {
        c.edit::<FilterClass>();
        c.property(Property::field("netdev", |f: &Netfilter| &f.netdev).type_named("string"));
        c.property(Property::field("queue", |f: &Netfilter| &f.queue));
        let words =
            |name: &'static str, first: &'static str, second: &'static str, field: fn(&Netfilter) -> &Prop<bool>| {
                Property::computed::<String>(name)
                    .type_named("string")
                    .getter(move |f: &Netfilter| Ok(if field(f).get() { first } else { second }.to_owned()))
                    .setter(move |f: &Netfilter, text: String| {
                        if text != first && text != second {
                            let should = format!("should be '{first}' or '{second}'");
                            return Err(Error::generic(format!("Invalid value for netfilter {name}, {should}")));
                        }
                        field(f).set(text == first);
                        f.switched();
                        Ok(())
                    })
            };
        c.property(words("status", "on", "off", |f| &f.on));
        c.property(Property::field("position", |f: &Netfilter| &f.position).type_named("string"));
        c.property(words("insert", "before", "behind", |f| &f.before));
    }

    fn instance_init(&self) -> Result<()> {
        self.on.set(true);
        self.position.set("tail".into());
        Ok(())
    }

    /// `status` may have changed.
    fn switched(&self) {
        let filter = self.filter.lock().clone();
        if let Some(filter) = filter
            && filter.on.swap(self.on.get(), Ordering::Relaxed)
            && !self.on.get()
        {
            filter.what.flush(&filter);
        }
    }

    /// Where in the backend's list it comes.
    fn place(&self, list: &[Arc<Filter>]) -> Result<usize> {
        let position = self.position.get();
        match position.as_str() {
            "head" => return Ok(0),
            "tail" => return Ok(list.len()),
            _ => {}
        }
        let wrong = || Error::generic("Parameter 'position' expects 'head', 'tail' or 'id=<id>'");
        let id = position.strip_prefix("id=").ok_or_else(wrong)?;
        let is = |f: &Arc<Filter>| f.owner.with(|o| o.name().as_deref() == Some(id)).unwrap_or(false);
        let at = list.iter().position(is);
        let at = at.ok_or_else(|| Error::generic(format!("filter '{id}' not found on this netdev")))?;
        Ok(if self.before.get() { at } else { at + 1 })
    }
}

impl UserCreatable for Netfilter {
    fn complete(&self) -> Result<()> {
        let id = self.netdev.get();
        if id.is_empty() {
            return Err(Error::generic("Parameter 'netdev' is missing"));
        }
        let nets = Nets::of(Core::of(self));
        let client = nets.netdev(&id);
        let client = client.ok_or_else(|| Error::generic("Parameter 'netdev' expects a network backend id"))?;
        self.place(&client.filters())?;
        let make = self.class().get::<FilterClass>().map(|c| c.make);
        let what = make.ok_or("not a filter")?(self)?;
        let filter = Arc::new(Filter {
            client: Arc::downgrade(&client),
            queue: self.queue.get(),
            on: AtomicBool::new(self.on.get()),
            what,
            owner: self.this(),
        });
        client.change_filters(|list| {
            let at = self.place(list)?;
            list.insert(at, filter.clone());
            Ok(())
        })?;
        *self.filter.lock() = Some(filter);
        Ok(())
    }
}

impl Drop for Netfilter {
    fn drop(&mut self) {
        let Some(filter) = self.filter.get_mut().take() else { return };
        filter.what.flush(&filter);
        if let Some(client) = filter.client.upgrade() {
            _ = client.change_filters(|list| {
                list.retain(|f| !Arc::ptr_eq(f, &filter));
                Ok(())
            });
        }
    }
}
