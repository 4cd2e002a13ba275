//! Messages of a console's control queues. Source: virtio 1.2 §5.3.6.2.

use serde::{Deserialize, Serialize};

/// Bytes of a message without a name.
pub const LEN: usize = 8;

/// What a message is about.
pub mod event {
    pub const DEVICE_READY: u16 = 0;
    pub const DEVICE_ADD: u16 = 1;
    pub const DEVICE_REMOVE: u16 = 2;
    pub const PORT_READY: u16 = 3;
    pub const CONSOLE_PORT: u16 = 4;
    pub const PORT_OPEN: u16 = 6;
    pub const PORT_NAME: u16 = 7;
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Number of the port.
    pub id: u32,
    /// What happened.
    pub event: u16,
    /// More about it.
    pub value: u16,
    /// The port's name, of a [`event::PORT_NAME`].
    pub name: String,
}

impl Control {
    /// A message without a name.
    pub fn new(id: u32, event: u16, value: u16) -> Self {
        Self { id, event, value, name: String::new() }
    }

    /// What a driver sent.
    pub fn parse(bytes: [u8; LEN]) -> Self {
        let [i0, i1, i2, i3, e0, e1, v0, v1] = bytes;
        let half = |a, b| u16::from_le_bytes([a, b]);
        Self::new(u32::from_le_bytes([i0, i1, i2, i3]), half(e0, e1), half(v0, v1))
    }

    /// As the driver takes it; a name ends with a zero.
    pub fn bytes(&self) -> Vec<u8> {
        let mut b = self.id.to_le_bytes().to_vec();
        b.extend(self.event.to_le_bytes());
        b.extend(self.value.to_le_bytes());
        if self.event == event::PORT_NAME {
            b.extend(self.name.as_bytes());
            b.push(0);
        }
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_little_endian_and_names_end_with_a_zero() {
        let open = Control::new(0x0102, event::PORT_OPEN, 1);
        assert_eq!(open.bytes(), [2, 1, 0, 0, 6, 0, 1, 0]);
        assert_eq!(Control::parse([2, 1, 0, 0, 6, 0, 1, 0]), open);
        let name = Control { name: "a.b".into(), ..Control::new(1, event::PORT_NAME, 1) };
        assert_eq!(name.bytes(), b"\x01\0\0\0\x07\0\x01\0a.b\0");
    }
}
