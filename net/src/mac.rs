//! Ethernet addresses.

use parking_lot::RwLock;
use qom::{Error, Level, Property, PropertyField};
use serde::{Deserialize, Serialize};
use std::fmt;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// `52:54:00:12:34:56` or with dashes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for b in &mut bytes {
            let part =
                parts.next().filter(|p| (1..=2).contains(&p.len()) && p.bytes().all(|c| c.is_ascii_hexdigit()))?;
            *b = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }

    /// Whether it is a group's (or everybody's).
    pub fn is_multicast(self) -> bool {
        self.0.first().is_some_and(|b| b & 1 != 0)
    }

    /// Whether all bytes are zero: no address was given.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The `mac` property of cards: zero until it is set or realize chooses one.
#[derive(Debug, Default)]
pub struct MacProp(RwLock<MacAddr>);

impl MacProp {
    /// The address.
    pub fn get(&self) -> MacAddr {
        *self.0.read()
    }
    /// Sets it.
    pub fn set(&self, mac: MacAddr) {
        *self.0.write() = mac;
    }
}

impl PropertyField for MacProp {
    fn property<O: Level>(name: &'static str, f: fn(&O) -> &Self) -> Property {
        Property::computed::<String>(name)
            .getter(move |o: &O| Ok(f(o).get().to_string()))
            .setter(move |o: &O, text: String| {
                let at = format!("{}.{name}", o.base().type_name());
                let wrong = || Error::generic(format!("Property '{at}' doesn't take value '{text}'"));
                f(o).set(MacAddr::parse(&text).ok_or_else(wrong)?);
                Ok(())
            })
            .describe("Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        let mac = MacAddr::parse("52-54:0:12:34:Ab").unwrap();
        assert_eq!((mac.to_string().as_str(), mac.is_multicast()), ("52:54:00:12:34:ab", false));
        for bad in ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "52:54:00:12:34:+6", "1:2:3:4:5:"] {
            assert_eq!(MacAddr::parse(bad), None, "{bad}");
        }
        assert!(MacAddr::BROADCAST.is_multicast() && MacAddr::default().is_zero());
    }
}
