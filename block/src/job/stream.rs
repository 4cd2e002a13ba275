//! `block-stream`: copies what the layers between have into an image, which then has another backing file, or none.

use super::{CHUNK, Fault, Task, Turn, chain};
use crate::blocks::Blocks;
use crate::driver::Status;
use crate::node::{Edge, Frozen, Node};
use qom::Result;
use std::sync::Arc;

/// The work of a stream.
pub(super) struct Stream {
    pub top: Arc<Node>,
    pub base: Option<Arc<Node>>,
    /// What the image is to call its backing file: name and format.
    pub named: Option<(String, String)>,
    pub len: u64,
    pub at: u64,
    /// Bytes that the last step tried.
    pub tried: u64,
    /// The image was read-only.
    pub was_read_only: bool,
    pub edges: Vec<Edge>,
    pub frozen: Vec<Frozen>,
}

impl Task for Stream {
    fn step(&mut self) -> std::result::Result<Turn, Fault> {
        let Some(below) = self.top.backing() else {
            self.at = self.len;
            return Ok(Turn::Done);
        };
        while self.at < self.len {
            let rest = self.len - self.at;
            self.tried = rest.min(CHUNK);
            let (own, n) = chain::status(&self.top, Some(&below), self.at, rest).map_err(Fault::read)?;
            if own != Status::Below {
                self.at += n;
                continue;
            }
            let (there, n) = chain::status(&below, self.base.as_ref(), self.at, n).map_err(Fault::read)?;
            if there == Status::Below {
                self.at += n;
                continue;
            }
            let n = n.min(CHUNK);
            self.tried = n;
            self.top.populate(self.at, n).map_err(Fault::read)?;
            self.at += n;
            return Ok(Turn::Copied(n));
        }
        Ok(Turn::Done)
    }

    fn skip(&mut self) -> bool {
        self.at = (self.at + self.tried).min(self.len);
        true
    }

    fn progress(&self) -> (u64, u64) {
        (self.at.min(self.len), self.len)
    }

    fn finish(&mut self, blocks: &Blocks, _: bool) -> Result<()> {
        self.edges.clear();
        self.frozen.clear();
        if self.top.backing().is_some() {
            super::start::change_backing(blocks, &self.top, self.base.as_ref(), self.named.as_ref())?;
        }
        self.clean(blocks);
        Ok(())
    }

    fn clean(&mut self, blocks: &Blocks) {
        self.edges.clear();
        self.frozen.clear();
        if std::mem::take(&mut self.was_read_only) {
            super::start::make_read_only(blocks, &self.top);
        }
    }
}
