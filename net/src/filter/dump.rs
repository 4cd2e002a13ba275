//! `filter-dump`: writes frames to a file in pcap's format. Source: draft-ietf-opsawg-pcap (magic a1b2c3d4, link type 1).

use super::{Direction, Filter, FilterClass, Netfilter, Pass};
use crate::client::Frame;
use hw_core::Core;
use hw_core::clock::Clocks;
use parking_lot::Mutex;
use qom::{Class, Error, Object, Prop, Property, Result, of_class};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a frame that are kept, if the user does not say.
const MAXLEN: u32 = 65536;
const MAGIC: u32 = 0xa1b2_c3d4;
const ETHERNET: u32 = 1;

/// Type `filter-dump`.
#[derive(Object)]
#[qom(name = "filter-dump", parent = Netfilter, class_init = FilterDump::class_init, instance_init = FilterDump::instance_init)]
pub struct FilterDump {
    parent: Netfilter,
    file: Prop<String>,
    maxlen: Prop<u32>,
}

impl FilterDump {
    fn class_init(c: &mut Class) {
        c.edit::<FilterClass>().make = |f| of_class::<FilterDump>(&*f.object()).make();
        c.property(Property::field("file", |f: &FilterDump| &f.file).type_named("string"));
        c.property(Property::computed::<u32>("maxlen").getter(|f: &FilterDump| Ok(f.maxlen.get())).setter(
            |f: &FilterDump, n: u32| {
                if n == 0 {
                    let at = format!("{}.maxlen", f.type_name());
                    return Err(Error::generic(format!("Property '{at}' doesn't take value '0'")));
                }
                f.maxlen.set(n);
                Ok(())
            },
        ));
    }

    fn instance_init(&self) -> Result<()> {
        self.maxlen.set(MAXLEN);
        Ok(())
    }

    fn make(&self) -> Result<Box<dyn Pass>> {
        let name = self.file.get();
        if name.is_empty() {
            return Err(Error::generic("dump filter needs 'file' property set!"));
        }
        let failed = |e: std::io::Error| {
            let text = e.to_string();
            let text = text.split(" (os error").next().unwrap_or(&text);
            Error::generic(format!("net dump: can't open {name}: {text}"))
        };
        let mut file = File::create(&name).map_err(failed)?;
        let maxlen = self.maxlen.get();
        let mut head = MAGIC.to_ne_bytes().to_vec();
        head.extend(2u16.to_ne_bytes());
        head.extend(4u16.to_ne_bytes());
        // Time zone and accuracy: none, as everybody writes.
        for word in [0, 0, maxlen, ETHERNET] {
            head.extend(word.to_ne_bytes());
        }
        file.write_all(&head).map_err(failed)?;
        let clocks = Core::of(self).clocks.clone();
        let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let start = today.saturating_sub(clocks.now());
        Ok(Box::new(Dump { file: Mutex::new(Some(file)), name, maxlen, start, clocks }))
    }
}

struct Dump {
    /// `None` after an error.
    file: Mutex<Option<File>>,
    name: String,
    maxlen: u32,
    /// The host's time, ns, when the machine's clock was zero.
    start: u64,
    clocks: Arc<Clocks>,
}

impl Pass for Dump {
    fn pass(&self, _: &Arc<Filter>, _: Direction, frame: Frame) -> Option<Frame> {
        let now = self.start.saturating_add(self.clocks.now());
        let kept = frame.get(..self.maxlen as usize).unwrap_or(&frame);
        let mut record = Vec::with_capacity(16 + kept.len());
        for word in
            [(now / 1_000_000_000) as u32, (now / 1000 % 1_000_000) as u32, kept.len() as u32, frame.len() as u32]
        {
            record.extend(word.to_ne_bytes());
        }
        record.extend_from_slice(kept);
        let mut file = self.file.lock();
        if let Some(Err(e)) = file.as_mut().map(|f| f.write_all(&record)) {
            tracing::warn!("net dump: {}: {e}; no more frames are written", self.name);
            *file = None;
        }
        Some(frame)
    }
}
