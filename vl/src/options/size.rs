//! Numbers and sizes as QEMU's options spell them.

/// An unsigned number: decimal, `0x…` or octal with a leading `0`.
pub fn number(text: &str) -> Option<u64> {
    let t = text.trim_start();
    if let Some(hex) = t.strip_prefix("0x").or_else(|| t.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    if t.len() > 1 && t.starts_with('0') {
        return u64::from_str_radix(t, 8).ok();
    }
    t.parse().ok()
}

/// Bytes: a number, possibly with a decimal fraction, and a suffix of B, K, M, G, T, P or E (either case).
/// Without a suffix the unit is `unit` bytes.
pub fn size(text: &str, unit: u64) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok()?.checked_mul(unit);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (mantissa, suffix) = text.split_at(digits);
    let scale = match suffix {
        "" => unit,
        _ => 1 << (10 * ["B", "K", "M", "G", "T", "P", "E"].iter().position(|s| s.eq_ignore_ascii_case(suffix))?),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() {
        return None;
    }
    let bytes = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    if fraction.is_empty() {
        return Some(bytes);
    }
    let part = format!("0.{fraction}").parse::<f64>().ok()? * scale as f64;
    bytes.checked_add(part as u64)
}

/// `on`, `off` and their synonyms.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "on" | "yes" | "true" | "y" => Some(true),
        "off" | "no" | "false" | "n" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (t, v) in [
            ("64", Some(64 << 20)),
            ("262144k", Some(256 << 20)),
            ("1.5G", Some(3 << 29)),
            ("0x10", Some(16 << 20)),
            ("7B", Some(7)),
            ("1E", Some(1 << 60)),
            ("16E", None),
            ("", None),
            ("G", None),
            ("1x", None),
            ("-1", None),
            ("1MB", None),
        ] {
            assert_eq!(size(t, 1 << 20), v, "{t}");
        }
    }

    #[test]
    fn numbers_and_switches() {
        assert_eq!((number("0x1f"), number("010"), number("12"), number("x")), (Some(31), Some(8), Some(12), None));
        assert_eq!((boolean("on"), boolean("no"), boolean("1")), (Some(true), Some(false), None));
    }
}
