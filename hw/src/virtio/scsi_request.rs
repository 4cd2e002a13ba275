//! Requests, task management and events of a SCSI adapter, as bytes. Source: virtio 1.2 §5.6.6.

use crate::scsi::cdb::Cdb;

/// Bytes of a request before the command.
pub(super) const HEADER: usize = 19;
/// Most bytes of a control request.
pub(super) const CONTROL: usize = 24;
/// Bytes of an event.
pub(super) const EVENT: usize = 16;

/// A command of the driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Which unit.
    pub lun: [u8; 8],
    /// The driver's name for it.
    pub id: u64,
    pub cdb: Cdb,
}

fn array<const N: usize>(b: &[u8], at: usize) -> [u8; N] {
    b.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

/// Understands header and command.
pub(super) fn parse_request(head: &[u8]) -> Request {
    let cdb = Cdb::new(head.get(HEADER..).unwrap_or_default());
    Request { lun: array(head, 0), id: u64::from_le_bytes(array(head, 8)), cdb }
}

/// Target and unit of an address; `None`: of a form that there is not.
pub(super) fn unit_of(lun: [u8; 8]) -> Option<(u32, u32)> {
    let [one, target, high, low, ..] = lun;
    if one != 1 || !(high == 0 || (0x40..0x80).contains(&high)) {
        return None;
    }
    Some((target.into(), (u32::from(high) << 8 | u32::from(low)) & 0x3fff))
}

/// The device's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Response {
    /// Bytes that were not moved.
    pub resid: u32,
    /// SCSI status.
    pub status: u8,
    /// What became of the request.
    pub response: u8,
    pub sense: Vec<u8>,
}

impl Response {
    /// Bytes before the sense data.
    pub const FIXED: usize = 12;
    /// Also: a function is complete.
    pub const OK: u8 = 0;
    pub const OVERRUN: u8 = 1;
    pub const ABORTED: u8 = 2;
    pub const BAD_TARGET: u8 = 3;
    pub const RESET: u8 = 4;
    pub const FAILURE: u8 = 9;
    pub const FUNCTION_SUCCEEDED: u8 = 10;
    pub const FUNCTION_REJECTED: u8 = 11;
    pub const INCORRECT_LUN: u8 = 12;

    /// The request did not come to the unit, or did not end there.
    pub fn failed(response: u8) -> Self {
        Self { response, ..Self::default() }
    }

    /// As the driver sees it, with room for `size` bytes of sense data.
    pub fn bytes(&self, size: usize) -> Vec<u8> {
        let sense = self.sense.get(..self.sense.len().min(size)).unwrap_or_default();
        let mut b = (sense.len() as u32).to_le_bytes().to_vec();
        b.extend(self.resid.to_le_bytes());
        b.extend([0, 0, self.status, self.response]);
        b.extend(sense);
        b.resize(Self::FIXED + size, 0);
        b
    }
}

/// What a control request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    AbortTask,
    /// Also CLEAR TASK SET: there is one initiator.
    AbortTaskSet,
    NexusReset,
    UnitReset,
    QueryTask,
    QueryTaskSet,
    /// Asks for, or subscribes to, asynchronous notifications: there are none.
    Query,
    Unknown,
}

/// A control request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Control {
    pub function: Function,
    pub lun: [u8; 8],
    pub id: u64,
}

/// Understands a control request; `room`: bytes for the answer. `None`: it is too short.
pub(super) fn parse_control(head: &[u8], room: u64) -> Option<Control> {
    if head.len() < 4 {
        return None;
    }
    let long = |at| u32::from_le_bytes(array(head, at));
    let (function, len, answer) = match long(0) {
        0 => {
            let function = match long(4) {
                0 => Function::AbortTask,
                1 | 3 => Function::AbortTaskSet,
                4 => Function::NexusReset,
                5 => Function::UnitReset,
                6 => Function::QueryTask,
                7 => Function::QueryTaskSet,
                _ => Function::Unknown, // CLEAR ACA and what there is not
            };
            (function, CONTROL, 1)
        }
        1 | 2 => (Function::Query, 16, 5),
        _ => (Function::Unknown, 4, 1),
    };
    if head.len() < len || room < answer {
        return None;
    }
    Some(Control { function, lun: array(head, 8), id: u64::from_le_bytes(array(head, 16)) })
}

/// Events.
pub(super) mod event {
    pub const NO_EVENT: u32 = 0;
    pub const TRANSPORT_RESET: u32 = 1;
    pub const PARAM_CHANGE: u32 = 3;
    const MISSED: u32 = 1 << 31;
    /// Reasons of a transport reset.
    pub const RESCAN: u32 = 1;
    pub const REMOVED: u32 = 2;

    /// As the driver sees it; `missed`: others found no buffer.
    pub fn bytes(what: u32, missed: bool, unit: Option<(u32, u32)>, reason: u32) -> [u8; super::EVENT] {
        let mut b = [0; super::EVENT];
        let lun = unit.map_or([0; 4], |(target, lun)| {
            let [high, low, ..] = crate::scsi::bus::lun_bytes(lun);
            [1, target as u8, high, low]
        });
        crate::scsi::put(&mut b, 0, &(what | if missed { MISSED } else { 0 }).to_le_bytes());
        crate::scsi::put(&mut b, 4, &lun);
        crate::scsi::put(&mut b, 12, &reason.to_le_bytes());
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_two_forms() {
        assert_eq!(unit_of([1, 7, 0, 5, 0, 0, 0, 0]), Some((7, 5)));
        assert_eq!(unit_of([1, 7, 0x52, 0x34, 0, 0, 0, 0]), Some((7, 0x1234)));
        assert_eq!((unit_of([0; 8]), unit_of([1, 0, 0x80, 0, 0, 0, 0, 0])), (None, None));
    }

    #[test]
    fn control_requests_have_a_length() {
        let mut b = [0; CONTROL];
        b[4] = 5;
        assert_eq!(parse_control(&b, 1).unwrap().function, Function::UnitReset);
        assert_eq!((parse_control(&b[..23], 1), parse_control(&b, 0)), (None, None));
        b[4] = 2;
        assert_eq!(parse_control(&b, 1).unwrap().function, Function::Unknown);
        b[0] = 1;
        assert_eq!((parse_control(&b[..16], 5).unwrap().function, parse_control(&b, 4)), (Function::Query, None));
    }
}
