//! Guest data: reading, writing, zeros, discards and sizes.

use super::Qcow2;
use super::compressed;
use super::geometry::{COPIED, Place, ZERO, eio};
use super::meta::{Free, Meta};
use hw_core::memory::RamRanges;
use parking_lot::MutexGuard;
use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where a piece of a guest range is: reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Zeros,
    Backing,
    Host(u64),
    Compressed(u64, u64),
}

/// A piece of a range that is to be written.
struct Step {
    guest: u64,
    entry: u64,
    /// The host cluster that the entry will name.
    to: u64,
    /// It was taken for this.
    taken: bool,
}

impl Qcow2 {
    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Checks a range: it may reach the end of the last sector.
    pub(super) fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        let limit = self.size().next_multiple_of(crate::SECTOR);
        if offset.checked_add(len).is_some_and(|end| end <= limit) { Ok(()) } else { Err(eio()) }
    }

    // ---- reading ----

    pub(super) fn read_guest(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check(offset, buf.len() as u64)?;
        let _shared = self.lock.read();
        self.read_mapped(offset, buf)
    }

    /// Reads; with the lock held, by whoever.
    fn read_mapped(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let runs = self.sources(&mut self.meta.lock(), offset, buf.len() as u64)?;
        self.fetch(&runs, offset, buf)
    }

    /// Where a range is, joined where it can be read at once.
    fn sources(&self, meta: &mut Meta, offset: u64, len: u64) -> io::Result<Vec<(Source, u64)>> {
        use Source::{Backing, Compressed, Host, Zeros};
        let mut runs: Vec<(Source, u64)> = vec![];
        for (at, len) in self.geo.pieces(offset, len) {
            let within = at % self.geo.cluster();
            let source = match self.placed(meta, at)?.1 {
                Place::Nowhere if self.backing.is_some() => Backing,
                Place::Nowhere | Place::Zero { .. } => Zeros,
                Place::Here { at, .. } => Host(at + within),
                Place::Compressed { at, len } => Compressed(at, len),
            };
            match (runs.last_mut(), source) {
                (Some((Zeros, n)), Zeros) | (Some((Backing, n)), Backing) => *n += len,
                (Some((Host(start), n)), Host(next)) if *start + *n == next => *n += len,
                _ => runs.push((source, len)),
            }
        }
        Ok(runs)
    }

    fn fetch(&self, runs: &[(Source, u64)], offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (mut at, mut rest) = (offset, buf);
        for (source, len) in runs {
            let (part, more) = rest.split_at_mut_checked(*len as usize).ok_or_else(eio)?;
            match *source {
                Source::Zeros => part.fill(0),
                Source::Backing => self.read_backing(at, part)?,
                Source::Host(from) => {
                    self.check_there(from, *len)?;
                    self.data().read(from, part)?;
                }
                Source::Compressed(from, packed) => {
                    let cluster = self.unpack(from, packed)?;
                    let within = (at % self.geo.cluster()) as usize;
                    part.copy_from_slice(cluster.get(within..within + part.len()).ok_or_else(eio)?);
                }
            }
            at += len;
            rest = more;
        }
        Ok(())
    }

    /// Clusters that begin behind the file are not there; the last one may be cut short.
    fn check_there(&self, from: u64, len: u64) -> io::Result<()> {
        let last = self.geo.floor(from + len - 1);
        if !self.data().contains(last, 1)? && self.data.is_none() { Err(eio()) } else { Ok(()) }
    }

    /// Reads into memory of the guest's: without a copy what is on the host as it is.
    pub(super) fn read_guest_into(&self, offset: u64, to: &RamRanges) -> io::Result<()> {
        self.check(offset, to.len())?;
        let _shared = self.lock.read();
        let runs = self.sources(&mut self.meta.lock(), offset, to.len())?;
        let mut done = 0;
        for run in runs {
            let (source, len) = run;
            let part = to.part(done, len);
            match source {
                Source::Host(from) => {
                    self.check_there(from, len)?;
                    self.data().read_into(from, &part)?;
                }
                Source::Zeros => part.clear(),
                _ => {
                    let mut bytes = vec![0; len as usize];
                    self.fetch(&[run], offset + done, &mut bytes)?;
                    part.copy_in(&bytes);
                }
            }
            done += len;
        }
        Ok(())
    }

    pub(super) fn read_backing(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let Some(backing) = &self.backing else {
            buf.fill(0);
            return Ok(());
        };
        let there = backing.node().len()?.saturating_sub(at).min(buf.len() as u64);
        let (part, beyond) = buf.split_at_mut_checked(there as usize).ok_or_else(eio)?;
        beyond.fill(0);
        if part.is_empty() { Ok(()) } else { backing.node().read(at, part) }
    }

    fn unpack(&self, at: u64, len: u64) -> io::Result<Arc<Vec<u8>>> {
        if self.data.is_some() {
            return Err(eio()); // no such clusters with a data file
        }
        let mut last = self.unpacked.lock();
        if let Some((from, cluster)) = &*last
            && *from == at
        {
            return Ok(cluster.clone());
        }
        let there = self.file.len()?.saturating_sub(at).min(len);
        let packed = self.file.read_all(at, there)?;
        let mut cluster = vec![0; self.geo.cluster() as usize];
        compressed::unpack(self.header.compression, &packed, &mut cluster)?;
        let cluster = Arc::new(cluster);
        *last = Some((at, cluster.clone()));
        Ok(cluster)
    }

    // ---- writing ----

    pub(super) fn write_guest(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let len = buf.len() as u64;
        self.write_either(offset, len, |runs| self.write_runs(runs, buf), || Cow::Borrowed(buf))
    }

    /// Writes to clusters that stay what they are by `in_place`, which is given where they are; else `bytes` to new ones. Writes begin in the
    /// order they come, so that what a guest writes one after the other, several at a time, lies one after the other.
    fn write_either<'a>(
        &self,
        offset: u64,
        len: u64,
        in_place: impl FnOnce(&[(u64, u64)]) -> io::Result<()>,
        bytes: impl FnOnce() -> Cow<'a, [u8]>,
    ) -> io::Result<()> {
        self.check(offset, len)?;
        let turn = self.turn.lock();
        {
            let _shared = self.lock.read();
            if let Some(runs) = self.in_place(offset, len)? {
                MutexGuard::unlock_fair(turn);
                return in_place(&runs);
            }
        }
        let done = self.write_anew(offset, &bytes());
        MutexGuard::unlock_fair(turn);
        done
    }

    fn write_anew(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let _alone = self.lock.write();
        let mut meta = self.meta.lock();
        // In portions, so that clusters that wait to be written stay few.
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let stop = self.geo.floor(at) + (self.geo.cluster() << 4).max(1 << 20);
            let (part, more) = rest.split_at_checked((stop - at) as usize).unwrap_or((rest, &[]));
            self.write_new(&mut meta, at, part)?;
            at += part.len() as u64;
            rest = more;
            if meta.is_full() {
                self.commit(&mut meta)?;
            }
        }
        Ok(())
    }

    /// Writes memory of the guest's: without a copy where clusters stay what they are.
    pub(super) fn write_guest_from(&self, offset: u64, from: &RamRanges) -> io::Result<()> {
        let in_place = |runs: &[(u64, u64)]| {
            let mut done = 0;
            for (to, len) in runs {
                self.data().write_from(*to, &from.part(done, *len))?;
                done += len;
            }
            Ok(())
        };
        self.write_either(offset, from.len(), in_place, || Cow::Owned(from.to_vec()))
    }

    /// Where a range is, if all of it can be written in place.
    fn in_place(&self, offset: u64, len: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
        let mut meta = self.meta.lock();
        let mut runs: Vec<(u64, u64)> = vec![];
        for (at, len) in self.geo.pieces(offset, len) {
            let Place::Here { at: to, copied: true } = self.placed(&mut meta, at)?.1 else {
                return Ok(None);
            };
            self.check_data(&mut meta, to, at)?;
            let to = to + at % self.geo.cluster();
            match runs.last_mut() {
                Some((start, n)) if *start + *n == to => *n += len,
                _ => runs.push((to, len)),
            }
        }
        Ok(Some(runs))
    }

    /// A cluster that is about to be written in place holds guest data: of guest cluster `guest` only, with a data file.
    fn check_data(&self, meta: &mut Meta, to: u64, guest: u64) -> io::Result<()> {
        let fits = match &self.data {
            Some(_) => to == self.geo.floor(guest),
            None => match meta.refs()?.kind(to) {
                Some(kind) => {
                    let text = format!("Preventing invalid write on metadata (overlaps with {})", kind.words());
                    return Err(self.corrupt(meta, &text, Some((to, self.geo.cluster()))));
                }
                None => self.file.contains(to, 1)?,
            },
        };
        if fits { Ok(()) } else { Err(eio()) }
    }

    fn write_runs(&self, runs: &[(u64, u64)], buf: &[u8]) -> io::Result<()> {
        let mut rest = buf;
        for (to, len) in runs {
            let (part, more) = rest.split_at_checked(*len as usize).ok_or_else(eio)?;
            self.data().write(*to, part)?;
            rest = more;
        }
        Ok(())
    }

    /// Finds or takes a host cluster for guest cluster `guest`. None: it is written in place.
    fn step(&self, meta: &mut Meta, guest: u64) -> io::Result<(Step, bool)> {
        let (entry, place) = self.placed(meta, guest)?;
        let keep = |to| Step { guest, entry, to, taken: false };
        match place {
            Place::Here { at, copied: true } => {
                self.check_data(meta, at, guest)?;
                Ok((keep(at), true))
            }
            Place::Zero { at: Some(at), copied: true } => {
                self.check_data(meta, at, guest)?;
                Ok((keep(at), false))
            }
            _ if self.data.is_some() => Ok((keep(self.geo.floor(guest)), false)),
            _ => Ok((Step { guest, entry, to: meta.alloc(&self.file)?, taken: true }, false)),
        }
    }

    pub(super) fn write_new(&self, meta: &mut Meta, offset: u64, buf: &[u8]) -> io::Result<()> {
        let mut steps = vec![];
        let mut named = 0;
        let done = self.write_steps(meta, offset, buf, &mut steps).and_then(|()| {
            // The data is with the host: now the tables may name it.
            for step in &steps {
                let new = step.to | COPIED;
                if step.entry != new {
                    meta.set_entry(&self.file, step.guest, new)?;
                    named += 1;
                    self.let_go(meta, step.entry, step.to, false)?;
                } else {
                    named += 1;
                }
            }
            Ok(())
        });
        if done.is_err() {
            let unused: Vec<u64> = steps.iter().skip(named).filter(|s| s.taken).map(|s| s.to).collect();
            meta.refs()?.give_back(&self.file, &unused)?;
        }
        done
    }

    fn write_steps(&self, meta: &mut Meta, offset: u64, buf: &[u8], steps: &mut Vec<Step>) -> io::Result<()> {
        let cluster = self.geo.cluster();
        // What is written as it is, joined where the host clusters follow each other: first byte and part of `buf`.
        let mut plain: Vec<(u64, usize, usize)> = vec![];
        for (at, len) in self.geo.pieces(offset, buf.len() as u64) {
            let (step, in_place) = self.step(meta, at)?;
            let (to, taken) = (step.to, step.taken);
            let old = self.geo.place(step.entry)?;
            steps.push(step);
            let from = (at - offset) as usize;
            let within = at % cluster;
            if !in_place && len != cluster {
                let reads_zero = match old {
                    Place::Zero { .. } => true,
                    Place::Nowhere => self.backing.is_none(),
                    _ => false,
                };
                if reads_zero {
                    self.blank(to, taken)?;
                } else {
                    let part = buf.get(from..from + len as usize).ok_or_else(eio)?;
                    self.copy_up(meta, at, part, to)?;
                    continue;
                }
            }
            let start = to + within;
            match plain.last_mut() {
                Some((first, f, n)) if *first + *n as u64 == start && *f + *n == from => *n += len as usize,
                _ => plain.push((start, from, len as usize)),
            }
        }
        for (to, from, len) in plain {
            self.data().write(to, buf.get(from..from + len).ok_or_else(eio)?)?;
        }
        Ok(())
    }

    /// Makes a host cluster that is written in part read as zeros elsewhere. One that was just taken and lies behind the file does already.
    fn blank(&self, to: u64, taken: bool) -> io::Result<()> {
        if taken && self.data().len()? <= to {
            return Ok(());
        }
        self.data().edge.node().write_zeroes(to, self.geo.cluster(), false)
    }

    /// Writes a whole host cluster: `part` at the place of `guest`, around it what the guest cluster holds now.
    fn copy_up(&self, meta: &mut Meta, guest: u64, part: &[u8], to: u64) -> io::Result<()> {
        let first = self.geo.floor(guest);
        let mut whole = vec![0; self.geo.cluster() as usize];
        let there = (self.size().next_multiple_of(crate::SECTOR) - first).min(self.geo.cluster()) as usize;
        let runs = self.sources(meta, first, there as u64)?;
        self.fetch(&runs, first, whole.get_mut(..there).ok_or_else(eio)?)?;
        let within = (guest - first) as usize;
        whole.get_mut(within..within + part.len()).ok_or_else(eio)?.copy_from_slice(part);
        self.data().write(to, &whole)
    }

    /// What an entry named that has been replaced is not referred to any more. `kept`: the host cluster that stays in use.
    fn let_go(&self, meta: &mut Meta, entry: u64, kept: u64, discard: bool) -> io::Result<()> {
        if self.data.is_some() {
            return Ok(());
        }
        match self.geo.place(entry)? {
            Place::Here { at, .. } | Place::Zero { at: Some(at), .. } if at != kept => meta.free(Free { at, discard }),
            Place::Compressed { at, len } => {
                let bits = self.geo.cluster_bits;
                for n in at >> bits..=(at + len - 1) >> bits {
                    meta.free(Free { at: n << bits, discard });
                }
            }
            _ => {}
        }
        Ok(())
    }

    // ---- zeros, discards, sizes ----

    /// Pieces of a range, and whether each is all that the image has of a cluster. Spans without an L2 table are left out if `skip`.
    fn cluster_pieces(&self, meta: &Meta, offset: u64, len: u64, skip: bool) -> Vec<(u64, u64, bool)> {
        let (end, size) = (offset + len, self.size());
        let (mut at, mut found) = (offset, vec![]);
        while at < end && found.len() < 1 << 12 {
            let (missing, span_end) = meta.l2_missing(at);
            let stop =
                if missing && skip { end.min(span_end) } else { end.min(self.geo.floor(at) + self.geo.cluster()) };
            let cluster_end = self.geo.floor(at) + self.geo.cluster();
            let whole = at % self.geo.cluster() == 0 && (stop == cluster_end || stop >= size);
            found.push((at, stop - at, whole && !(missing && skip)));
            at = stop;
        }
        found
    }

    /// Does something with every piece, in portions.
    fn in_portions(
        &self,
        offset: u64,
        len: u64,
        skip: bool,
        each: impl Fn(&mut Meta, u64, u64, bool) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut at = offset;
        while at < offset + len {
            let mut meta = self.meta.lock();
            for (from, n, whole) in self.cluster_pieces(&meta, at, offset + len - at, skip) {
                if !(skip && meta.l2_missing(from).0) {
                    each(&mut meta, from, n, whole)?;
                }
                at = from + n;
                if meta.is_full() {
                    self.commit(&mut meta)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn zero_guest(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.check(offset, len)?;
        let _alone = self.lock.write();
        self.zero_alone(offset, len, unmap)
    }

    fn zero_alone(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let raw = self.header.is_data_file_raw();
        self.in_portions(offset, len, self.backing.is_none() && !raw, |meta, at, n, whole| {
            let (entry, place) = self.placed(meta, at)?;
            let reads_zero = match place {
                Place::Nowhere => self.backing.is_none(),
                Place::Zero { .. } => true,
                _ => false,
            };
            if raw {
                self.data().edge.node().write_zeroes(at, n, unmap)?;
            }
            if reads_zero && !(unmap && matches!(place, Place::Zero { at: Some(_), .. })) {
                return Ok(());
            }
            if !whole || !self.geo.v3 {
                return if reads_zero { Ok(()) } else { self.write_new(meta, at, &vec![0; n as usize]) };
            }
            let (new, kept) = match place {
                Place::Here { at, copied: true } if !unmap || self.data.is_some() => (at | COPIED | ZERO, at),
                _ => (ZERO, 0),
            };
            meta.set_entry(&self.file, at, new)?;
            self.let_go(meta, entry, kept, self.pass_discard)
        })
    }

    pub(super) fn discard_guest(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check(offset, len)?;
        if !self.geo.v3 && self.backing.is_some() {
            return Ok(()); // what the backing file has would show
        }
        let _alone = self.lock.write();
        let raw = self.header.is_data_file_raw();
        self.in_portions(offset, len, self.backing.is_none(), |meta, at, n, whole| {
            let (entry, place) = self.placed(meta, at)?;
            if !whole || matches!(place, Place::Zero { at: None, .. }) || (entry == 0 && self.backing.is_none()) {
                return Ok(());
            }
            if raw {
                self.data().edge.node().write_zeroes(at, n, true)?;
            } else if self.data.is_some() && self.pass_discard {
                self.data().edge.node().discard(at, n)?;
            }
            meta.set_entry(&self.file, at, if self.geo.v3 { ZERO } else { 0 })?;
            self.let_go(meta, entry, 0, self.pass_discard)
        })
    }

    pub(super) fn resize_guest(&self, new: u64) -> io::Result<()> {
        let _alone = self.lock.write();
        let old = self.size();
        if !self.geo.v3 && !self.snapshots.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::ENOTSUP)); // snapshots do not say their size
        }
        if new < old {
            let kept = new.next_multiple_of(self.geo.cluster());
            // What is cut off must not come back when the image grows.
            self.zero_alone(new, kept.min(old) - new, false)?;
            self.in_portions(kept.min(old), old - kept.min(old), true, |meta, at, _, _| {
                let entry = meta.entry(&self.file, at)?;
                if entry == 0 {
                    return Ok(());
                }
                meta.set_entry(&self.file, at, 0)?;
                self.let_go(meta, entry, 0, self.pass_discard)
            })?;
        }
        if let Some(data) = &self.data {
            data.edge.node().resize(new)?;
        }
        {
            let mut meta = self.meta.lock();
            self.commit(&mut meta)?;
            meta.resize(&self.file, self.data.as_ref(), new)?;
        }
        self.size.store(new, Ordering::Release);
        if new > old {
            let backed = match &self.backing {
                Some(b) => b.node().len()?.min(new),
                None => 0,
            };
            let end = backed.max(old.next_multiple_of(self.geo.cluster()).min(new));
            self.zero_alone(old, end - old, false)?;
        }
        Ok(())
    }
}
