//! What a network card takes, and the commands by which a driver says so. Source: virtio 1.2 §5.1.6.5.

use super::net::f;
use net::MacAddr;
use net::checksum::word;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Most addresses of both tables.
const MAX_ADDRESSES: usize = 64;
/// Words of the table of VLANs.
const VLAN_WORDS: usize = 4096 / 32;
/// Bytes of an address.
const MAC: usize = 6;

/// Classes of commands, and the commands of each. §5.1.6.5.1 and following
mod class {
    pub const RX: u8 = 0;
    pub const MAC: u8 = 1;
    pub const VLAN: u8 = 2;
    pub const ANNOUNCE: u8 = 3;
    pub const MQ: u8 = 4;
    pub const GUEST_OFFLOADS: u8 = 5;
}

/// What a command changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// What the card takes.
    Filter,
    /// The station's address, which is part of that.
    Address,
    /// What the driver takes unfinished.
    Offloads,
    /// Nothing that anybody sees.
    Nothing,
}

/// A command that is none, or comes without what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// A table of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Table {
    addresses: Vec<MacAddr>,
    /// The driver gave more than there is room for: all of the kind are taken.
    overflow: bool,
}

impl Table {
    fn has(&self, mac: MacAddr) -> bool {
        self.overflow || self.addresses.contains(&mac)
    }

    fn shown(&self) -> Vec<String> {
        self.addresses.iter().map(ToString::to_string).collect()
    }
}

/// All that commands change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Filter {
    /// The station's address.
    pub mac: MacAddr,
    promisc: bool,
    all_multicast: bool,
    all_unicast: bool,
    no_multicast: bool,
    no_unicast: bool,
    no_broadcast: bool,
    unicast: Table,
    multicast: Table,
    vlans: Vec<u32>,
    /// Offloads for what the guest receives that are in force: features.
    pub offloads: u64,
    /// The driver is asked to tell the network where the guest is.
    pub announce: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self::new(MacAddr::default())
    }
}

impl Filter {
    /// After a reset: all is taken.
    pub fn new(mac: MacAddr) -> Self {
        Self {
            mac,
            promisc: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Table::default(),
            multicast: Table::default(),
            vlans: vec![u32::MAX; VLAN_WORDS],
            offloads: 0,
            announce: false,
        }
    }

    /// The driver accepted features.
    pub fn negotiated(&mut self, features: u64) {
        self.offloads = features & f::GUEST_OFFLOADS;
        let vlans = if features & f::CTRL_VLAN != 0 { 0 } else { u32::MAX };
        self.vlans.fill(vlans);
    }

    /// Whether a snapshot may hold this.
    pub fn is_possible(&self, features: u64) -> bool {
        self.vlans.len() == VLAN_WORDS
            && self.unicast.addresses.len() + self.multicast.addresses.len() <= MAX_ADDRESSES
            && self.offloads & !features == 0
    }

    /// Whether a frame is for this station.
    pub fn wants(&self, frame: &[u8]) -> bool {
        let Some(to) = frame.first_chunk::<MAC>().map(|b| MacAddr(*b)) else { return false };
        if self.promisc {
            return true;
        }
        if word(frame, 12) == Some(0x8100) {
            let id = word(frame, 14).unwrap_or(0) & 0xfff;
            if self.vlans.get(usize::from(id >> 5)).is_none_or(|w| w >> (id & 31) & 1 == 0) {
                return false;
            }
        }
        if to == MacAddr::BROADCAST {
            return !self.no_broadcast;
        }
        if to.is_multicast() {
            return !self.no_multicast && (self.all_multicast || self.multicast.has(to));
        }
        !self.no_unicast && (self.all_unicast || to == self.mac || self.unicast.has(to))
    }

    /// Carries out a command.
    pub fn command(&mut self, class: u8, command: u8, data: &[u8], features: u64) -> Result<Changed, Refused> {
        let has = |feature: u64| if features & feature != 0 { Ok(()) } else { Err(Refused) };
        match (class, command) {
            (class::RX, 0..=5) => {
                has(if command < 2 { f::CTRL_RX } else { f::CTRL_RX_EXTRA })?;
                self.receive_mode(command, *data.first().ok_or(Refused)? != 0);
                Ok(Changed::Filter)
            }
            (class::MAC, 0) => {
                has(f::CTRL_RX)?;
                self.set_tables(data)?;
                Ok(Changed::Filter)
            }
            (class::MAC, 1) => {
                has(f::CTRL_MAC_ADDR)?;
                self.mac = MacAddr(data.try_into().map_err(|_| Refused)?);
                Ok(Changed::Address)
            }
            (class::VLAN, 0 | 1) => {
                has(f::CTRL_VLAN)?;
                let id = data.first_chunk().map(|b| u16::from_le_bytes(*b)).filter(|id| *id < 4096).ok_or(Refused)?;
                let word = self.vlans.get_mut(usize::from(id >> 5)).ok_or(Refused)?;
                let bit = 1 << (id & 31);
                *word = if command == 0 { *word | bit } else { *word & !bit };
                Ok(Changed::Filter)
            }
            (class::ANNOUNCE, 0) => {
                has(f::GUEST_ANNOUNCE)?;
                if !std::mem::take(&mut self.announce) {
                    return Err(Refused);
                }
                Ok(Changed::Nothing)
            }
            (class::MQ, 0) => {
                has(f::MQ)?;
                // (There is one pair.)
                if data.first_chunk().map(|b| u16::from_le_bytes(*b)) != Some(1) {
                    return Err(Refused);
                }
                Ok(Changed::Nothing)
            }
            (class::GUEST_OFFLOADS, 0) => {
                has(f::CTRL_GUEST_OFFLOADS)?;
                let wanted = data.first_chunk().map(|b| u64::from_le_bytes(*b)).ok_or(Refused)?;
                if wanted & !(features & f::GUEST_OFFLOADS) != 0 {
                    return Err(Refused);
                }
                self.offloads = wanted;
                Ok(Changed::Offloads)
            }
            _ => Err(Refused),
        }
    }

    fn receive_mode(&mut self, command: u8, on: bool) {
        let mode = match command {
            0 => &mut self.promisc,
            1 => &mut self.all_multicast,
            2 => &mut self.all_unicast,
            3 => &mut self.no_multicast,
            4 => &mut self.no_unicast,
            _ => &mut self.no_broadcast,
        };
        *mode = on;
    }

    /// Two tables, each a count and addresses: unicast, multicast. Nothing changes unless both are whole.
    fn set_tables(&mut self, data: &[u8]) -> Result<(), Refused> {
        fn table(data: &[u8], room: usize) -> Result<(Table, &[u8]), Refused> {
            let (count, rest) = data.split_first_chunk().ok_or(Refused)?;
            let count = u32::from_le_bytes(*count) as usize;
            let len = count.checked_mul(MAC).ok_or(Refused)?;
            let (mine, rest) = rest.split_at_checked(len).ok_or(Refused)?;
            if count > room {
                return Ok((Table { addresses: vec![], overflow: true }, rest));
            }
            let all = mine.chunks_exact(MAC).filter_map(|b| b.try_into().ok().map(MacAddr));
            Ok((Table { addresses: all.collect(), overflow: false }, rest))
        }
        let (unicast, rest) = table(data, MAX_ADDRESSES)?;
        let (multicast, rest) = table(rest, MAX_ADDRESSES - unicast.addresses.len())?;
        if !rest.is_empty() {
            return Err(Refused);
        }
        (self.unicast, self.multicast) = (unicast, multicast);
        Ok(())
    }

    /// `query-rx-filter`, without the card's name.
    pub fn describe(&self, features: u64) -> Value {
        let state = |none: bool, all: bool| match (none, all) {
            (true, _) => "none",
            (_, true) => "all",
            _ => "normal",
        };
        let vlans = (0..4096u32).filter(|id| {
            self.vlans.get((id >> 5) as usize).is_some_and(|w| w >> (id & 31) & 1 != 0) && features & f::CTRL_VLAN != 0
        });
        json!({
            "promiscuous": self.promisc,
            "multicast": state(self.no_multicast, self.all_multicast),
            "unicast": state(self.no_unicast, self.all_unicast),
            "vlan": state(false, features & f::CTRL_VLAN == 0),
            "broadcast-allowed": !self.no_broadcast,
            "multicast-overflow": self.multicast.overflow,
            "unicast-overflow": self.unicast.overflow,
            "main-mac": self.mac.to_string(),
            "vlan-table": vlans.collect::<Vec<_>>(),
            "unicast-table": self.unicast.shown(),
            "multicast-table": self.multicast.shown(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = f::CTRL_RX | f::CTRL_RX_EXTRA | f::CTRL_VLAN | f::CTRL_MAC_ADDR | f::MQ | f::GUEST_ANNOUNCE;
    const OWN: MacAddr = MacAddr([0x52, 0x54, 0, 1, 2, 3]);
    const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 9, 9, 9]);
    const GROUP: MacAddr = MacAddr([1, 0, 0x5e, 0, 0, 1]);

    fn frame(to: MacAddr) -> Vec<u8> {
        [&to.0[..], &[2; 50]].concat()
    }

    fn tables(unicast: &[MacAddr], multicast: &[MacAddr]) -> Vec<u8> {
        let one =
            |t: &[MacAddr]| [(t.len() as u32).to_le_bytes().to_vec(), t.iter().flat_map(|m| m.0).collect()].concat();
        [one(unicast), one(multicast)].concat()
    }

    #[test]
    fn modes_and_tables_choose() {
        let mut x = Filter::new(OWN);
        let taken = |x: &Filter| [OWN, OTHER, GROUP, MacAddr::BROADCAST].map(|to| x.wants(&frame(to)));
        assert_eq!(taken(&x), [true; 4]);
        for (command, on, expected) in [
            (0, 0, [true, false, false, true]),
            (1, 1, [true, false, true, true]),
            (2, 7, [true, true, true, true]),
            (3, 1, [true, true, false, true]),
            (4, 1, [false, false, false, true]),
            (5, 1, [false, false, false, false]),
            (0, 1, [true, true, true, true]),
        ] {
            assert_eq!(x.command(0, command, &[on], ALL), Ok(Changed::Filter));
            assert_eq!(taken(&x), expected, "command {command}");
        }
        let mut x = Filter::new(OWN);
        _ = x.command(0, 0, &[0], ALL);
        assert_eq!(x.command(1, 0, &tables(&[OTHER], &[GROUP]), ALL), Ok(Changed::Filter));
        assert_eq!(taken(&x), [true; 4]);
        assert_eq!(x.command(1, 1, &GROUP.0, ALL), Ok(Changed::Address));
        assert_eq!(taken(&x), [false, true, true, true]);
        // Too many: all are taken.
        assert_eq!(x.command(1, 0, &tables(&[OWN; 60], &[GROUP; 5]), ALL), Ok(Changed::Filter));
        let shown = x.describe(ALL);
        assert_eq!((&shown["multicast-overflow"], &shown["unicast-overflow"]), (&json!(true), &json!(false)));
        assert_eq!((shown["unicast-table"].as_array().unwrap().len(), &shown["multicast-table"]), (60, &json!([])));
        assert!(x.wants(&frame(MacAddr([3; 6]))) && !x.wants(&frame(MacAddr([4; 6]))));
    }

    #[test]
    fn vlans_are_taken_when_they_were_added() {
        let mut x = Filter::new(OWN);
        let mut tagged = frame(OWN);
        tagged.splice(12..12, [0x81, 0, 0x20, 5]);
        _ = x.command(0, 0, &[0], ALL);
        assert!(x.wants(&tagged));
        x.negotiated(ALL);
        assert!(!x.wants(&tagged) && x.wants(&frame(OWN)));
        assert_eq!(x.command(2, 0, &[5, 0], ALL), Ok(Changed::Filter));
        assert!(x.wants(&tagged));
        assert_eq!((&x.describe(ALL)["vlan-table"], &x.describe(ALL)["vlan"]), (&json!([5]), &json!("normal")));
        assert_eq!(x.command(2, 1, &[5, 0], ALL), Ok(Changed::Filter));
        assert!(!x.wants(&tagged));
        assert_eq!((&x.describe(0)["vlan-table"], &x.describe(0)["vlan"]), (&json!([]), &json!("all")));
    }

    #[test]
    fn commands_that_are_none_change_nothing() {
        let mut x = Filter::new(OWN);
        x.negotiated(ALL);
        let before = x.clone();
        let long = tables(&[OTHER], &[]);
        let many = [u32::MAX.to_le_bytes(), [0; 4]].concat();
        let bad: [(u8, u8, &[u8]); 16] = [
            (0, 0, &[]),
            (0, 6, &[1]),
            (1, 0, &[]),
            (1, 0, &long[..long.len() - 1]),
            (1, 0, &[&long[..], &[0]].concat()),
            (1, 0, &many),
            (1, 1, &[1; 5]),
            (1, 1, &[1; 7]),
            (1, 2, &[1; 6]),
            (2, 0, &[1]),
            (2, 0, &[0, 0x10]),
            (3, 0, &[]),
            (4, 0, &[2, 0]),
            (4, 1, &[0; 64]),
            (5, 0, &[0; 8]),
            (9, 0, &[]),
        ];
        for (class, command, data) in bad {
            assert_eq!(x.command(class, command, data, ALL), Err(Refused), "{class} {command}");
            // Without its feature no command is one.
            assert_eq!(x.command(class, command, data, 0), Err(Refused), "{class} {command}");
        }
        assert_eq!(x, before);
        assert_eq!(x.command(0, 0, &[0], 0), Err(Refused));
        x.announce = true;
        assert_eq!((x.command(3, 0, &[], ALL), x.announce), (Ok(Changed::Nothing), false));
        let offloads = f::CTRL_GUEST_OFFLOADS | f::GUEST_CSUM | f::GUEST_TSO4;
        x.negotiated(offloads);
        assert_eq!(x.offloads, f::GUEST_CSUM | f::GUEST_TSO4);
        assert_eq!(x.command(5, 0, &f::GUEST_CSUM.to_le_bytes(), offloads), Ok(Changed::Offloads));
        assert_eq!(x.command(5, 0, &f::GUEST_TSO6.to_le_bytes(), offloads), Err(Refused));
        assert_eq!(x.offloads, f::GUEST_CSUM);
    }
}
