//! A block driver that records what reaches the file below, and what a crash of the host would leave of it.
//!
//! Bytes that were written since the last flush may be on the disk or not, sector by sector, in any order.

use crate::contract::Rng;
use anyhow::{Context, Result};
use block::driver::{ChildOf, Driver, DriverDef};
use block::transfer::{Bytes, Ended, Transfer, Way};
use block::{Common, Edge, Opts, Perm};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

inventory::submit! {
    DriverDef { name: "record", protocol: false, open }
}

/// What happened to the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes were written there.
    Write(u64, Vec<u8>),
    /// Everything before became stable.
    Flush,
    /// The size changed.
    Resize(u64),
}

/// Events in their order.
pub type Log = Arc<Mutex<Vec<Event>>>;

static LOGS: Mutex<BTreeMap<String, Log>> = Mutex::new(BTreeMap::new());

/// The log of the nodes with option `log` = `name`.
pub fn log(name: &str) -> Log {
    LOGS.lock().entry(name.to_owned()).or_default().clone()
}

struct Record {
    file: Edge,
    log: Log,
}

fn open(blocks: &block::Blocks, common: &mut Common, opts: &mut Opts) -> qom::Result<Box<dyn Driver>> {
    let node = blocks.open_child(opts, "file", common)?;
    let log = log(&opts.require_str("log")?);
    Ok(Box::new(Record { file: Edge::child(&node, common, "record", Perm::empty(), Perm::all())?, log }))
}

impl Driver for Record {
    fn len(&self) -> io::Result<u64> {
        self.file.node().len()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.node().read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.file.node().write(offset, buf)?;
        self.log.lock().push(Event::Write(offset, buf.to_vec()));
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(()) // what a freed cluster holds does not matter
    }
    fn resize(&self, len: u64) -> io::Result<()> {
        self.file.node().resize(len)?;
        self.log.lock().push(Event::Resize(len));
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        self.file.node().flush()?;
        self.log.lock().push(Event::Flush);
        Ok(())
    }
    fn has_ring(&self) -> bool {
        self.file.node().driver().has_ring()
    }
    fn begin(&self, mut transfer: Transfer) -> std::result::Result<(), Transfer> {
        let (log, way, offset) = (self.log.clone(), transfer.way, transfer.offset);
        let told = transfer.done;
        transfer.done = Box::new(move |ended, bytes| {
            if let (Ended::Done(Ok(())), false) = (&ended, way == Way::Read) {
                let written = match &bytes {
                    Bytes::Guest(ranges) => ranges.to_vec(),
                    Bytes::Own(data) => data.to_vec(),
                };
                log.lock().push(if way == Way::Sync { Event::Flush } else { Event::Write(offset, written) });
            }
            told(ended, bytes);
        });
        self.file.node().begin(transfer)
    }
    fn set_perms(&self, perm: Perm, shared: Perm) -> qom::Result<()> {
        self.file.set(perm, shared)
    }
    fn filename(&self) -> String {
        self.file.node().driver().filename()
    }
    fn children(&self) -> Vec<ChildOf> {
        vec![("file", self.file.node().clone())]
    }
}

fn put(image: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let end = at as usize + bytes.len();
    image.resize(image.len().max(end), 0);
    image[at as usize..end].copy_from_slice(bytes);
}

/// What is on the disk when the host crashes after `events`: `image` was there before them.
pub fn crash(mut image: Vec<u8>, events: &[Event], r: &mut Rng) -> Vec<u8> {
    let stable = events.iter().rposition(|e| *e == Event::Flush).map_or(0, |n| n + 1);
    for (n, event) in events.iter().enumerate() {
        match event {
            Event::Write(at, bytes) if n < stable => put(&mut image, *at, bytes),
            Event::Write(at, bytes) => {
                let all = r.one_in(2);
                let first = (512 - *at as usize % 512).min(bytes.len());
                let (head, rest) = bytes.split_at(first);
                let mut at = *at;
                for sector in std::iter::once(head).chain(rest.chunks(512)) {
                    if all || r.one_in(2) {
                        put(&mut image, at, sector);
                    }
                    at += sector.len() as u64;
                }
            }
            Event::Resize(len) => image.resize(*len as usize, 0),
            Event::Flush => {}
        }
    }
    image
}

/// Writes what a crash leaves to a file.
///
/// # Errors
/// The host does not take it.
pub fn save(path: &Path, image: &[u8]) -> Result<()> {
    std::fs::write(path, image).with_context(|| format!("cannot write {}", path.display()))
}
