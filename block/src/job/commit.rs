//! `block-commit`: copies what layers have into the layer below them, which then takes their place.
//!
//! If the topmost of them is in use (*active*), what is written to it meanwhile is copied again, until the user has the drive change over.

use super::{CHUNK, Fault, Task, Turn, chain};
use crate::blocks::{Blocks, plain};
use crate::driver::Status;
use crate::node::{Edge, Frozen, Node, Watch};
use crate::reopen::Other;
use parking_lot::Mutex;
use qom::{Error, Result};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a piece that is copied again as a whole.
const PIECE: u64 = 64 << 10;

/// What was written to the active layer and is not in the base yet.
///
/// At the end it goes into the base as well before it is acknowledged (*through*), so that what is left only gets less, however fast the guest
/// writes, and next to nothing is left for when its processors stand still.
pub(super) struct Dirty {
    top: Arc<Node>,
    base: Arc<Node>,
    len: u64,
    /// By piece.
    pieces: Mutex<BTreeSet<u64>>,
    through: AtomicBool,
    /// Held while something is copied: what was read before a write must not reach the base after it.
    copying: Mutex<()>,
}

/// Copies a range from one node to another.
fn copy(top: &Node, base: &Node, at: u64, len: u64) -> std::result::Result<(), Fault> {
    let mut bytes = vec![0; len as usize];
    top.read(at, &mut bytes).map_err(Fault::read)?;
    if bytes.iter().all(|b| *b == 0) {
        return base.write_zeroes(at, len, false).map_err(Fault::write);
    }
    base.write(at, &bytes).map_err(Fault::write)
}

impl Dirty {
    /// Nothing was written yet to `top`, `len` bytes.
    pub fn new(top: &Arc<Node>, base: &Arc<Node>, len: u64) -> Self {
        let (pieces, copying) = (Mutex::default(), Mutex::default());
        Self { top: top.clone(), base: base.clone(), len, pieces, through: AtomicBool::new(false), copying }
    }

    fn take(&self) -> Option<u64> {
        self.pieces.lock().pop_first()
    }

    fn len(&self) -> u64 {
        self.pieces.lock().len() as u64
    }

    fn mark(&self, offset: u64, len: u64) {
        if len > 0 {
            let last = offset.saturating_add(len - 1) / PIECE;
            self.pieces.lock().extend(offset / PIECE..=last);
        }
    }

    /// Copies a range.
    fn copy(&self, at: u64, len: u64) -> std::result::Result<(), Fault> {
        let _alone = self.copying.lock();
        copy(&self.top, &self.base, at, len)
    }
}

impl Watch for Dirty {
    fn changed(&self, offset: u64, len: u64) {
        if !self.through.load(Ordering::SeqCst) {
            return self.mark(offset, len);
        }
        let (mut at, end) = (offset, offset.saturating_add(len).min(self.len));
        while at < end {
            let n = CHUNK.min(end - at);
            if self.copy(at, n).is_err() {
                self.mark(at, n); // the job tries again, and says so if it cannot either
            }
            at += n;
        }
    }
}

/// The work of a commit.
pub(super) struct Commit {
    pub top: Arc<Node>,
    pub base: Arc<Node>,
    /// The layer above the topmost, unless that is in use itself; and what it is to call its backing file.
    pub overlay: Option<(Arc<Node>, (String, String))>,
    /// Pieces to copy again, if the topmost is in use.
    pub dirty: Option<Arc<Dirty>>,
    pub len: u64,
    pub at: u64,
    /// Bytes copied again.
    pub again: u64,
    /// The base was read-only.
    pub was_read_only: bool,
    pub edges: Vec<Edge>,
    pub frozen: Vec<Frozen>,
}

impl Commit {
    /// Copies the next part that a layer above the base has; None: there is none.
    fn first_time(&mut self) -> std::result::Result<Option<u64>, Fault> {
        while self.at < self.len {
            let rest = self.len - self.at;
            let (there, n) = chain::status(&self.top, Some(&self.base), self.at, rest).map_err(Fault::read)?;
            match there {
                Status::Below => self.at += n,
                Status::Zero => {
                    let n = n.min(CHUNK << 6);
                    self.base.write_zeroes(self.at, n, false).map_err(Fault::write)?;
                    self.at += n;
                    return Ok(Some(0));
                }
                Status::Data => {
                    let n = n.min(CHUNK);
                    copy(&self.top, &self.base, self.at, n)?;
                    self.at += n;
                    return Ok(Some(n));
                }
            }
        }
        Ok(None)
    }

    /// Copies one piece that was written meanwhile; None: there is none.
    fn next_time(&mut self) -> std::result::Result<Option<u64>, Fault> {
        let Some(dirty) = self.dirty.clone() else { return Ok(None) };
        let Some(piece) = dirty.take() else { return Ok(None) };
        let at = piece * PIECE;
        let n = PIECE.min(self.len.saturating_sub(at));
        if n > 0 {
            dirty.copy(at, n).inspect_err(|_| dirty.mark(at, n))?;
            self.again += n;
        }
        Ok(Some(n))
    }

    /// The drives whose medium is the topmost layer use the base from now on.
    fn change_over(&mut self, blocks: &Blocks) -> Result<()> {
        let failed = |f: Fault| Error::generic(plain(&f.error));
        while self.next_time().map_err(failed)?.is_some() {}
        let failed =
            |e: std::io::Error| Error::generic(format!("Could not flush '{}': {}", self.base.name(), plain(&e)));
        self.base.flush().map_err(failed)?;
        self.edges.clear();
        self.frozen.clear();
        let resized = self.base.len().ok() != self.top.len().ok();
        for drive in blocks.backends() {
            let Some(root) = drive.root().filter(|r| Arc::ptr_eq(&chain::unfiltered(r), &self.top)) else { continue };
            if Arc::ptr_eq(&root, &self.top) {
                drive.replace_root(&self.base)?;
            } else {
                let filters = std::iter::successors(Some(root), |n| n.filtered());
                let over = |n: &Arc<Node>| n.filtered().is_some_and(|f| Arc::ptr_eq(&f, &self.top));
                if let Some(last) = filters.into_iter().find(over) {
                    blocks.reopen_with(&last, &Other { file: Some(self.base.clone()), ..Other::default() })?;
                }
            }
            if let Some(media) = drive.media().filter(|_| resized) {
                media.resized();
            }
        }
        Ok(())
    }
}

impl Task for Commit {
    fn step(&mut self) -> std::result::Result<Turn, Fault> {
        if let Some(n) = self.first_time()? {
            return Ok(Turn::Copied(n));
        }
        match &self.dirty {
            None => {
                self.base.flush().map_err(Fault::write)?;
                Ok(Turn::Done)
            }
            Some(_) => Ok(self.next_time()?.map_or(Turn::Idle, Turn::Copied)),
        }
    }

    fn hurry(&mut self) -> bool {
        self.dirty.as_ref().is_some_and(|d| !d.through.swap(true, Ordering::SeqCst))
    }

    fn progress(&self) -> (u64, u64) {
        let waiting = self.dirty.as_ref().map_or(0, |d| d.len() * PIECE);
        let done = self.at.min(self.len) + self.again;
        (done, done + self.len.saturating_sub(self.at) + waiting)
    }

    fn finish(&mut self, blocks: &Blocks, pivot: bool) -> Result<()> {
        match self.overlay.take() {
            Some((overlay, named)) => {
                let failed = |e: std::io::Error| {
                    Error::generic(format!("Could not flush '{}': {}", self.base.name(), plain(&e)))
                };
                self.base.flush().map_err(failed)?;
                self.edges.clear();
                self.frozen.clear();
                super::start::change_backing(blocks, &overlay, Some(&self.base), Some(&named))?;
            }
            None if pivot => {
                self.change_over(blocks)?;
                // The base is the drive's now.
                self.was_read_only = false;
            }
            None => {}
        }
        self.clean(blocks);
        Ok(())
    }

    fn clean(&mut self, blocks: &Blocks) {
        self.edges.clear();
        self.frozen.clear();
        if std::mem::take(&mut self.was_read_only) {
            super::start::make_read_only(blocks, &self.base);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Opts;
    use serde_json::json;

    fn node(blocks: &Blocks, dir: &std::path::Path, name: &str) -> Arc<Node> {
        let path = dir.join(name);
        std::fs::write(&path, vec![0; 8 * PIECE as usize]).unwrap();
        let options =
            json!({"driver": "raw", "node-name": name, "file": {"driver": "file", "filename": path.to_str()}});
        let serde_json::Value::Object(options) = options else { unreachable!() };
        blocks.blockdev_add(Opts::json(options)).unwrap()
    }

    #[test]
    fn what_is_written_is_copied_by_piece_and_at_the_end_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = Blocks::default();
        let (top, base) = (node(&blocks, dir.path(), "top"), node(&blocks, dir.path(), "base"));
        let d = Arc::new(Dirty::new(&top, &base, 8 * PIECE));
        d.changed(0, 0);
        assert_eq!(d.take(), None);
        d.changed(PIECE - 1, 2);
        d.changed(5 * PIECE, PIECE);
        assert_eq!((d.take(), d.take(), d.take(), d.take()), (Some(0), Some(1), Some(5), None));
        let watch: Arc<dyn Watch> = d.clone();
        top.watch(Arc::downgrade(&watch));
        let found = |at: u64| {
            let mut b = [0; 4];
            base.read(at, &mut b).unwrap();
            b
        };
        top.write(3 * PIECE - 2, b"late").unwrap();
        assert_eq!((found(3 * PIECE - 2), d.len()), ([0; 4], 2), "it waits for the job");
        d.through.store(true, Ordering::SeqCst);
        top.write(6 * PIECE - 2, b"soon").unwrap();
        assert_eq!((&found(6 * PIECE - 2), d.len()), (b"soon", 2), "it is there at once");
        top.write_zeroes(6 * PIECE, PIECE, false).unwrap();
        assert_eq!((found(6 * PIECE - 2), d.len()), (*b"so\0\0", 2));
    }
}
