//! What a port does: it fetches commands and gives them to its drive, moves the data of those that go by the data register, and says
//! how they ended. Source: AHCI 1.3.1 §5.3 (port state machine), §5.5 (commands), §6.2 (errors), §10.4 (resets).
//!
//! A command that the drive is at belongs to its registers and its job ([`crate::ide::transfer`]), a queued one to the port
//! ([`super::ncq`]). Nobody starves: what is done at once is bounded by the slots and by the bytes of a command.

use super::Ich9Ahci;
use super::fis::{self, ACMD, Command, HEADER, Header, PRD, PRDT, Prd, TaskFile, area};
use super::regs::{Current, Effect, PortRegs, TFD_BSY, Table, control, pxis};
use crate::ide::bus::IdeDevice;
use crate::ide::drive::{Block, DriveRegs, Kind, status};
use crate::ide::transfer::{IdeChannel, Piece, gather, scatter};
use hw_core::{AddressSpace, Locked};
use qom::{Handle, Ref};

/// Bytes of the table that are read at once.
const TABLE_PART: u64 = 4096;
/// Bytes of a command FIS, at most: 16 words of 4.
const MAX_FIS: u8 = 64;
/// Bytes of an ATAPI command that a drive takes.
const PACKET: usize = 12;

/// A port of a controller.
#[derive(Clone, Copy)]
pub(super) struct Port<'a> {
    pub ahci: &'a Ich9Ahci,
    pub n: usize,
}

impl DriveRegs {
    /// The registers as FISes carry them.
    pub(super) fn task_file(&self) -> TaskFile {
        let [_, count, low, mid, high] = self.hob;
        TaskFile {
            status: self.status,
            error: self.error,
            lba: u64::from_le_bytes([self.lba_low, self.lba_mid, self.lba_high, low, mid, high, 0, 0]),
            device: self.select,
            count: u16::from_le_bytes([self.nsector, count]),
        }
    }

    /// Takes the registers of a command but for the command itself.
    pub(super) fn load(&mut self, c: &Command) {
        let [feature, old_feature] = c.features.to_le_bytes();
        let [count, old_count] = c.count.to_le_bytes();
        let [low, mid, high, old_low, old_mid, old_high, _, _] = c.lba.to_le_bytes();
        (self.feature, self.nsector) = (feature, count);
        (self.lba_low, self.lba_mid, self.lba_high) = (low, mid, high);
        self.hob = [old_feature, old_count, old_low, old_mid, old_high];
        self.select = c.device;
    }
}

impl Port<'_> {
    pub(super) fn regs<R: Default>(&self, m: &Locked, f: impl FnOnce(&PortRegs) -> R) -> R {
        self.ahci.ports().ro(m).get(self.n).map(f).unwrap_or_default()
    }

    pub(super) fn edit<R: Default>(&self, m: &mut Locked, f: impl FnOnce(&mut PortRegs) -> R) -> R {
        self.ahci.ports().rw(m).get_mut(self.n).map(f).unwrap_or_default()
    }

    pub(super) fn drive(&self) -> Option<Ref<IdeDevice>> {
        self.ahci.bus(self.n)?.unit(0)
    }

    fn current(&self, m: &Locked) -> Option<Current> {
        self.regs(m, |r| r.current)
    }

    // ---- memory ----

    /// The memory of bytes `skip` to `skip + want` of a table; fewer if it ends before. The table remembers where they began.
    pub(super) fn pieces(&self, m: &mut Locked, table: &mut Table, skip: u64, want: u64) -> Vec<Piece> {
        if table.start > skip || table.reached > table.prds {
            *table = Table::new(table.at, table.prds);
        }
        let (mut seen, mut got, mut out) = (table.start, 0u64, vec![]);
        let mut left = u64::from(table.prds - table.reached) * PRD;
        let mut at = table.at.wrapping_add(PRDT + u64::from(table.reached) * PRD);
        while got < want && left > 0 {
            let mut part = vec![0; left.min(TABLE_PART) as usize];
            if !self.ahci.read_memory(m, at, &mut part) {
                break;
            }
            (at, left) = (at.wrapping_add(part.len() as u64), left - part.len() as u64);
            for prd in part.chunks_exact(PRD as usize).map(Prd::parse) {
                let end = seen.saturating_add(prd.len);
                if end <= skip {
                    // Nothing of it is asked for again.
                    (table.reached, table.start) = (table.reached + 1, end);
                }
                let from = skip.saturating_sub(seen).min(prd.len);
                let n = (prd.len - from).min(want - got);
                if n > 0 {
                    let tell = prd.interrupt && from + n == prd.len;
                    out.push(Piece { addr: prd.addr.wrapping_add(from), len: n, tell });
                    got += n;
                }
                seen = end;
                if got == want {
                    break;
                }
            }
        }
        out
    }

    /// [`Port::pieces`] of the command at work.
    fn current_pieces(&self, m: &mut Locked, skip: u64, want: u64) -> Vec<Piece> {
        let Some(mut current) = self.current(m) else { return vec![] };
        let pieces = self.pieces(m, &mut current.table, skip, want);
        self.edit(m, |r| r.current = Some(current));
        pieces
    }

    /// Puts a FIS from the drive into the receive area, if the guest wants to have it.
    pub(super) fn receive(&self, m: &mut Locked, offset: u64, fis: &[u8]) {
        let base = self.regs(m, |r| (r.cmd & super::regs::pxcmd::FRE != 0).then_some(r.fb));
        if let Some(fb) = base
            && !self.ahci.write_memory(m, fb.wrapping_add(offset), fis)
        {
            self.edit(m, |r| r.halt(pxis::HBFS));
        }
    }

    // ---- commands ----

    /// Fetches commands as long as there are any that the drive takes. An interrupt may be due afterwards.
    pub(super) fn issue(&self, m: &mut Locked) {
        if self.ahci.enter(self.n) {
            while let Some(slot) = self.regs(m, PortRegs::next_slot) {
                self.fetch(m, slot);
            }
            self.ahci.leave(self.n);
        }
        self.ahci.update_irq(m);
    }

    fn fetch(&self, m: &mut Locked, slot: u8) {
        let list = self.edit(m, |r| {
            r.ccs = slot;
            r.clb
        });
        let mut bytes = [0; HEADER];
        if !self.ahci.read_memory(m, list.wrapping_add(u64::from(slot) * HEADER as u64), &mut bytes) {
            return self.edit(m, |r| r.halt(pxis::HBFS));
        }
        let header = Header::parse(&bytes);
        let mut fis = vec![0; header.fis_len.min(MAX_FIS).into()];
        if !self.ahci.read_memory(m, header.table, &mut fis) {
            return self.edit(m, |r| r.halt(pxis::HBFS));
        }
        let wrong = usize::from(header.fis_len) < fis::REGISTER || header.fis_len > MAX_FIS;
        let Some(command) = Command::parse(&fis).filter(|_| !wrong) else {
            return self.edit(m, |r| r.halt(pxis::IFS)); // the drive refuses the FIS
        };
        let table = Table::new(header.table, header.prds);
        let Some(drive) = self.drive().filter(|_| command.port == 0) else {
            // Nobody answers: the guest waits in vain, until it resets the port.
            return self.begin(m, Current { slot, table, moved: 0 });
        };
        if !command.is_command {
            return self.set_control(m, slot, &command, &drive);
        }
        let disk = drive.info().kind == Kind::Hd;
        match command.command {
            super::ncq::READ | super::ncq::WRITE if disk => self.queue(m, slot, &command, table, &drive),
            _ if self.regs(m, |r| !r.queued.is_empty()) => {
                // A command that is not queued ends those that are.
                self.forget(m);
                self.refuse(m, &drive);
            }
            code => {
                self.begin(m, Current { slot, table, moved: 0 });
                drive.regs().rw(m).load(&command);
                drive.execute(m, code);
            }
        }
    }

    fn begin(&self, m: &mut Locked, current: Current) {
        self.edit(m, |r| {
            r.tfd |= TFD_BSY;
            r.current = Some(current);
        });
    }

    /// The control register is written: SRST resets when it goes away. ATA/ATAPI-7 volume 3 §17.6
    fn set_control(&self, m: &mut Locked, slot: u8, c: &Command, drive: &IdeDevice) {
        let was = self.edit(m, |r| {
            r.clear_issued(slot);
            std::mem::replace(&mut r.control, c.control)
        });
        if was & !c.control & control::SRST != 0 {
            self.forget(m);
            drive.soft_reset(m);
            self.edit(m, |r| r.signature_waits = true);
            self.send_signature(m);
        }
    }

    /// What the port is at is forgotten; of the drive's job, that must not be done any more.
    pub(super) fn forget(&self, m: &mut Locked) {
        let at_work = self.edit(m, |r| {
            let at_work = r.current.is_some();
            r.forget();
            at_work
        });
        self.ahci.forget_queued(self.n);
        if let Some(drive) = self.drive().filter(|_| at_work) {
            drive.cancel(m, false);
        }
    }

    /// The drive does not take a command.
    pub(super) fn refuse(&self, m: &mut Locked, drive: &IdeDevice) {
        drive.regs().rw(m).abort();
        self.end(m, drive, None);
    }

    /// A command has ended as the drive's registers say; `slot`: it was not queued, and its bit is cleared if it ended well.
    pub(super) fn end(&self, m: &mut Locked, drive: &IdeDevice, slot: Option<u8>) {
        let t = drive.regs().ro(m).task_file();
        let interrupt = self.regs(m, PortRegs::interrupts_enabled);
        self.receive(m, area::RFIS, &t.d2h(interrupt));
        self.edit(m, |r| {
            r.current = None;
            r.tfd = t.tfd();
            // That it interrupts shows also if it failed: SeaBIOS before 1.17 waits for that, for half a minute.
            let failed = t.status & status::ERR != 0;
            r.is |= if interrupt && (failed || !r.halted) { pxis::DHRS } else { 0 };
            match slot {
                _ if failed => r.halt(pxis::TFES),
                Some(slot) if !r.halted => r.clear_issued(slot),
                _ => {}
            }
        });
    }

    // ---- data that goes by the drive's data register ----

    /// The drive's registers have changed: moves the blocks it has or wants, and ends the command that is done.
    fn drive_changed(&self, m: &mut Locked, c: &Cable, drive: &IdeDevice) {
        while let Some(current) = self.current(m) {
            match drive.regs().ro(m).block() {
                Some(block) => self.move_block(m, c, drive, current, block),
                None if drive.regs().ro(m).is_idle() && drive.regs().ro(m).job.is_none() => {
                    self.set_moved(m, current);
                    self.end(m, drive, Some(current.slot));
                }
                None => break,
            }
        }
        self.issue(m);
    }

    /// Says in the command's header how many bytes were moved: PRDBC.
    fn set_moved(&self, m: &mut Locked, current: Current) {
        let at = self.regs(m, |r| r.clb).wrapping_add(u64::from(current.slot) * HEADER as u64 + 4);
        if !self.ahci.write_memory(m, at, &(current.moved as u32).to_le_bytes()) {
            self.edit(m, |r| r.halt(pxis::HBFS));
        }
    }

    /// Moves a block between the drive's buffer and memory. §5.3
    fn move_block(&self, m: &mut Locked, c: &Cable, drive: &IdeDevice, current: Current, block: Block) {
        let len = block.bytes();
        let before = drive.regs().ro(m).task_file();
        let moved = match block {
            Block::Packet(_) => {
                let mut packet = [0; PACKET];
                if !self.ahci.read_memory(m, current.table.at.wrapping_add(ACMD), &mut packet) {
                    return self.give_up(m, drive, pxis::HBFS);
                }
                drive.regs().rw(m).fill(&packet);
                0
            }
            Block::In(_) => {
                let pieces = self.current_pieces(m, current.moved, len);
                let data = drive.regs().rw(m).take();
                scatter(c, m, &pieces, &data)
            }
            Block::Out(_) => {
                let pieces = self.current_pieces(m, current.moved, len);
                // What is not there is not written.
                match gather(c, m, &pieces) {
                    None => return self.give_up(m, drive, 0),
                    Some(data) if (data.len() as u64) < len => return self.give_up(m, drive, pxis::OFS),
                    Some(data) => drive.regs().rw(m).fill(&data),
                }
                len
            }
        };
        drive.block_over(m);
        let end = drive.regs().ro(m).status();
        let from_device = matches!(block, Block::In(_));
        let interrupt = from_device && self.regs(m, PortRegs::interrupts_enabled);
        self.receive(m, area::PSFIS, &before.pio_setup(from_device, interrupt, end, len as u16));
        self.edit(m, |r| {
            if let Some(current) = &mut r.current {
                current.moved = current.moved.saturating_add(moved);
            }
            if from_device {
                r.is |= if interrupt { pxis::PSS } else { 0 } | if moved < len { pxis::OFS } else { 0 };
            }
        });
    }

    /// The drive is told that the command cannot go on.
    fn give_up(&self, m: &mut Locked, drive: &IdeDevice, why: u32) {
        self.edit(m, |r| r.is |= why);
        drive.regs().rw(m).abort();
    }

    // ---- resets ----

    /// The guest has written a register.
    pub(super) fn act(&self, m: &mut Locked, effect: Effect) {
        match effect {
            Effect::None => return self.ahci.update_irq(m),
            Effect::Issue => {}
            Effect::Stop => {
                self.forget(m);
                self.edit(m, PortRegs::stop);
            }
            Effect::Receive => self.send_signature(m),
            Effect::Down => self.take_down(m),
            Effect::Up => self.bring_up(m, true),
        }
        self.issue(m);
    }

    /// COMRESET: the drive is as after power-on, nothing is known of it.
    pub(super) fn take_down(&self, m: &mut Locked) {
        self.forget(m);
        if let Some(drive) = self.drive() {
            drive.power_on(m);
        }
        self.edit(m, PortRegs::link_down);
    }

    /// The link comes up, if there is a drive.
    pub(super) fn bring_up(&self, m: &mut Locked, changed: bool) {
        let device = self.drive().is_some();
        self.edit(m, |r| r.link_up(device, changed));
        self.send_signature(m);
    }

    /// The drive's first FIS after a reset, as soon as it can be received. §10.4.2
    fn send_signature(&self, m: &mut Locked) {
        let ready = self.regs(m, |r| r.signature_waits && r.cmd & super::regs::pxcmd::FRE != 0);
        let Some(drive) = self.drive().filter(|_| ready) else { return };
        // Diagnostic code: passed.
        let t = TaskFile { error: 1, ..drive.regs().ro(m).task_file() };
        self.edit(m, |r| {
            r.signature_waits = false;
            (r.tfd, r.sig) = (t.tfd(), t.signature());
        });
        self.receive(m, area::RFIS, &t.d2h(false));
    }
}

/// A port as its drive sees it.
pub(super) struct Cable {
    pub ahci: Handle<Ich9Ahci>,
    pub n: usize,
}

impl Cable {
    fn with<R: Default>(&self, f: impl FnOnce(Port<'_>) -> R) -> R {
        self.ahci.with(|ahci| f(Port { ahci, n: self.n })).unwrap_or_default()
    }
}

impl IdeChannel for Cable {
    fn pieces(&self, m: &mut Locked, skip: u64, want: u64) -> Vec<Piece> {
        self.with(|p| p.current_pieces(m, skip, want))
    }

    fn dma_space(&self) -> Option<AddressSpace> {
        self.ahci.with(|ahci| ahci.dma_space())
    }

    fn dma_read(&self, m: &mut Locked, addr: u64, buf: &mut [u8]) -> bool {
        self.with(|p| {
            let done = p.ahci.read_memory(m, addr, buf);
            if !done {
                p.edit(m, |r| r.halt(pxis::HBDS));
            }
            done
        })
    }

    fn dma_write(&self, m: &mut Locked, addr: u64, data: &[u8]) {
        self.with(|p| {
            if !p.ahci.write_memory(m, addr, data) {
                p.edit(m, |r| r.halt(pxis::HBDS));
            }
        });
    }

    fn piece_done(&self, m: &mut Locked) {
        self.with(|p| p.edit(m, |r| r.is |= pxis::DPS));
    }

    fn is_active(&self, m: &Locked) -> bool {
        self.with(|p| p.current(m).is_some())
    }

    fn transfer_ended(&self, m: &mut Locked, moved: u64, _longer: bool) {
        self.with(|p| {
            p.edit(m, |r| {
                if let Some(c) = &mut r.current {
                    c.moved = moved;
                }
            });
        });
    }

    /// §6.1.5: the command ends with what had a place.
    fn too_short(&self, m: &mut Locked, drive: &IdeDevice, _moved: u64) {
        self.with(|p| p.edit(m, |r| r.is |= pxis::OFS));
        self.changed(m, drive, false);
    }

    fn changed(&self, m: &mut Locked, drive: &IdeDevice, _irq: bool) {
        self.with(|p| p.drive_changed(m, self, drive));
    }

    fn attached(&self, m: &mut Locked) {
        self.with(|p| p.bring_up(m, false));
    }

    fn detached(&self, m: &mut Locked) {
        self.with(|p| {
            p.forget(m);
            p.edit(m, PortRegs::link_down);
        });
    }

    fn units(&self) -> u32 {
        1
    }

    fn queue_depth(&self) -> u8 {
        super::regs::SLOTS
    }
}
