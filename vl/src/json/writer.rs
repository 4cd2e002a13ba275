//! JSON text in QEMU's layout: `", "` between members, `": "` after keys, ASCII only.

use serde_json::Value;
use std::fmt::Write;

/// On one line, without a line end.
pub fn to_text(v: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, v, None);
    out
}

/// Indented by four spaces a level, for `pretty=on` and people.
pub fn to_pretty(v: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, v, Some(0));
    out
}

/// `indent`: the level of the line that `v` starts on, or everything on one line.
fn write_value(out: &mut String, v: &Value, indent: Option<usize>) {
    match v {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => drop(write!(out, "{n}")),
        Value::String(s) => write_text(out, s),
        Value::Array(a) => {
            let items = a.iter().map(|v| (None, v));
            write_members(out, ('[', ']'), items, indent);
        }
        Value::Object(o) => {
            let items = o.iter().map(|(k, v)| (Some(k.as_str()), v));
            write_members(out, ('{', '}'), items, indent);
        }
    }
}

fn write_members<'a>(
    out: &mut String,
    (open, close): (char, char),
    items: impl Iterator<Item = (Option<&'a str>, &'a Value)>,
    indent: Option<usize>,
) {
    let inner = indent.map(|i| i + 1);
    let line = |out: &mut String, level: Option<usize>| {
        if let Some(level) = level {
            out.push('\n');
            out.extend(std::iter::repeat_n("    ", level));
        }
    };
    out.push(open);
    let mut empty = true;
    for (key, v) in items {
        if !empty {
            out.push_str(if indent.is_some() { "," } else { ", " });
        }
        empty = false;
        line(out, inner);
        if let Some(key) = key {
            write_text(out, key);
            out.push_str(": ");
        }
        write_value(out, v, inner);
    }
    if !empty {
        line(out, indent);
    }
    out.push(close);
}

fn write_text(out: &mut String, s: &str) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            _ => {
                let mut units = [0u16; 2];
                for u in c.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{u:04X}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_line_and_pretty() {
        let v = json!({"a": [1, "x\"\n"], "b": {}, "c": []});
        assert_eq!(to_text(&v), r#"{"a": [1, "x\"\n"], "b": {}, "c": []}"#);
        assert_eq!(to_pretty(&json!({"a": [1, 2]})), "{\n    \"a\": [\n        1,\n        2\n    ]\n}");
        assert_eq!(to_text(&json!("ä😀\u{7f}")), r#""\u00E4\uD83D\uDE00\u007F""#);
    }
}
