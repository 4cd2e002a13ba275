//! The property type of `addr`: device and function, `1f.2`.

use crossbeam_utils::atomic::AtomicCell;
use qom::{Input, PropType, Reject};
use serde_json::Value;

/// Device (slot) and function of a PCI function; negative: not chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devfn(pub i32);

impl Default for Devfn {
    fn default() -> Self {
        Self(-1)
    }
}

impl Devfn {
    /// Device number and function number.
    pub const fn new(slot: u8, function: u8) -> Self {
        Self((slot as i32) << 3 | function as i32 & 7)
    }

    /// The byte of configuration addresses, if it is chosen.
    pub fn byte(self) -> Option<u8> {
        u8::try_from(self.0).ok()
    }

    fn parse(text: &str) -> Option<Self> {
        let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
        let hex = |s: &str, max: u8| {
            let s = s.strip_prefix("0x").unwrap_or(s);
            let digits = s.bytes().all(|b| b.is_ascii_hexdigit());
            u8::from_str_radix(s, 16).ok().filter(|v| digits && *v <= max)
        };
        Some(Self::new(hex(slot, 0x1f)?, hex(function, 7)?))
    }
}

impl PropType for Devfn {
    type Cell = AtomicCell<Self>;
    const TYPE: &'static str = "str";

    fn to_json(&self) -> Value {
        self.0.into()
    }

    fn take(input: Input<'_>) -> Result<Self, Reject> {
        let expected = || Reject::expects("a PCI address DEVICE[.FUNCTION] in hexadecimal, such as '1f.2'");
        match input {
            Input::Json(Value::Number(n)) => n
                .as_i64()
                .and_then(|n| i32::try_from(n).ok())
                .filter(|n| (-1..256).contains(n))
                .map(Self)
                .ok_or_else(expected),
            i => Self::parse(i.string()?).ok_or_else(expected),
        }
    }

    fn human(&self) -> String {
        match self.byte() {
            Some(b) => format!("{:02x}.{:x}", b >> 3, b & 7),
            None => "<unset>".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hexadecimal_device_and_function() {
        let t = |s| Devfn::take(Input::Text(s)).ok().map(|d| d.0);
        assert_eq!((t("1f.2"), t("3"), t("0.7"), t("0x1.0x2")), (Some(0xfa), Some(0x18), Some(7), Some(0xa)));
        for bad in ["20", "1.8", "", ".", "1.", "0x", "+1", "1.2.3"] {
            assert_eq!(t(bad), None, "{bad}");
        }
        assert_eq!((Devfn(0xfa).human(), Devfn(-1).human()), ("1f.2".into(), "<unset>".into()));
    }
}
