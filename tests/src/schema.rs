//! QMP's types, as `query-qmp-schema` describes them, and what QEMU 11.1.3 says about them (`testdata/qmp-schema.json`): every
//! reply and event that [`crate::qmp::Qmp`] meets is checked against it.

use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::OnceLock;

/// A list of SchemaInfo by name.
pub struct Schema {
    infos: HashMap<String, Value>,
}

/// What an error's class may be (QAPI's `QapiErrorClass`).
const CLASSES: [&str; 5] = ["GenericError", "CommandNotFound", "DeviceNotActive", "DeviceNotFound", "KVMMissingCap"];

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_default()
}

fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
    v[key].as_array().map_or(&[], |l| l)
}

/// A member without a `default` must be there.
fn is_optional(member: &Value) -> bool {
    member.get("default").is_some()
}

impl Schema {
    /// From what `query-qmp-schema` returns.
    ///
    /// # Panics
    /// When that is no list.
    pub fn new(list: &Value) -> Self {
        let infos = list.as_array().expect("a list of SchemaInfo").iter();
        Self { infos: infos.map(|i| (text(i, "name").to_owned(), i.clone())).collect() }
    }

    /// QEMU's.
    ///
    /// # Panics
    /// When the file is broken.
    pub fn qemu() -> &'static Self {
        static QEMU: OnceLock<Schema> = OnceLock::new();
        QEMU.get_or_init(|| {
            let file: Value = serde_json::from_str(include_str!("../testdata/qmp-schema.json")).expect("JSON");
            Self::new(&file["schema"])
        })
    }

    /// Names of all commands (`command`) or events (`event`), sorted.
    pub fn named(&self, meta: &str) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.infos.values().filter(|i| i["meta-type"] == meta).map(|i| text(i, "name")).collect();
        names.sort_unstable();
        names
    }

    /// Checks the reply to command `name`.
    ///
    /// # Errors
    /// What does not fit, with its place.
    pub fn check_reply(&self, name: &str, reply: &Value) -> Result<(), String> {
        if let Some(error) = reply.get("error") {
            let fits = CLASSES.contains(&text(error, "class")) && error["desc"].is_string();
            return if fits { Ok(()) } else { Err(format!("{name}: not an error object: {error}")) };
        }
        let Some(info) = self.infos.get(name).filter(|i| i["meta-type"] == "command") else {
            return Err(format!("{name}: no such command"));
        };
        self.check(text(info, "ret-type"), &reply["return"], name)
    }

    /// Checks an event with its stamp.
    ///
    /// # Errors
    /// As [`Schema::check_reply`].
    pub fn check_event(&self, event: &Value) -> Result<(), String> {
        let name = text(event, "event");
        let Some(info) = self.infos.get(name).filter(|i| i["meta-type"] == "event") else {
            return Err(format!("{name}: no such event"));
        };
        let time = &event["timestamp"];
        if time["seconds"].as_u64().is_none() || time["microseconds"].as_u64().is_none_or(|us| us > 999_999) {
            return Err(format!("{name}: no time stamp: {event}"));
        }
        let none = Value::Object(Map::new());
        self.check(text(info, "arg-type"), event.get("data").unwrap_or(&none), name)
    }

    /// Checks `v` against type `ty`; `at` is where it was met.
    ///
    /// # Errors
    /// As [`Schema::check_reply`].
    pub fn check(&self, ty: &str, v: &Value, at: &str) -> Result<(), String> {
        let info = self.infos.get(ty).ok_or_else(|| format!("{at}: type '{ty}' is not described"))?;
        let wrong = |expected: &str| Err(format!("{at}: {v} is not {expected}"));
        match text(info, "meta-type") {
            "builtin" => {
                let fits = match text(info, "json-type") {
                    "string" => v.is_string(),
                    "int" => v.is_i64() || v.is_u64(),
                    "number" => v.is_number(),
                    "boolean" => v.is_boolean(),
                    "null" => v.is_null(),
                    _ => true,
                };
                if fits { Ok(()) } else { wrong(text(info, "json-type")) }
            }
            "enum" => match v.as_str() {
                Some(word) if list(info, "members").iter().any(|m| text(m, "name") == word) => Ok(()),
                _ => wrong(&format!("one of enum {ty}")),
            },
            "array" => match v.as_array() {
                Some(items) => items
                    .iter()
                    .enumerate()
                    .try_for_each(|(i, item)| self.check(text(info, "element-type"), item, &format!("{at}[{i}]"))),
                None => wrong("an array"),
            },
            "alternate" => {
                let fits = list(info, "members").iter().any(|m| self.check(text(m, "type"), v, at).is_ok());
                if fits { Ok(()) } else { wrong("any of the alternatives") }
            }
            "object" => match v.as_object() {
                Some(map) => self.check_object(info, map, at),
                None => wrong("an object"),
            },
            other => Err(format!("{at}: a value of meta-type '{other}'")),
        }
    }

    /// Members of an object type, those of the variant that `tag` gives the value for among them.
    fn members<'a>(&'a self, info: &'a Value, tag: impl Fn(&str) -> Option<String>) -> Vec<&'a Value> {
        let case = info["tag"].as_str().and_then(tag);
        let variant = list(info, "variants").iter().find(|v| Some(text(v, "case")) == case.as_deref());
        let more = variant.and_then(|v| self.infos.get(text(v, "type")));
        list(info, "members").iter().chain(more.map_or(&[][..], |m| list(m, "members"))).collect()
    }

    fn check_object(&self, info: &Value, map: &Map<String, Value>, at: &str) -> Result<(), String> {
        let members = self.members(info, |tag| map.get(tag)?.as_str().map(str::to_owned));
        for m in &members {
            let name = text(m, "name");
            match map.get(name) {
                Some(v) => self.check(text(m, "type"), v, &format!("{at}.{name}"))?,
                None if is_optional(m) => {}
                None => return Err(format!("{at}.{name} is missing")),
            }
        }
        match map.keys().find(|k| !members.iter().any(|m| text(m, "name") == **k)) {
            Some(key) => Err(format!("{at}.{key} is not in the schema")),
            None => Ok(()),
        }
    }

    /// Where this schema says something else than `theirs` about a command or event that both have, one line each:
    /// `command.argument: what`. Words that an enumeration lacks and members that an object lacks count, masked names and order do not.
    pub fn differences(&self, theirs: &Self) -> Vec<String> {
        let mut out = vec![];
        for info in self.infos.values() {
            let (name, meta) = (text(info, "name"), text(info, "meta-type"));
            if !matches!(meta, "command" | "event") {
                continue;
            }
            let Some(other) = theirs.infos.get(name).filter(|o| o["meta-type"] == info["meta-type"]) else {
                out.push(format!("{name}: unknown {meta}"));
                continue;
            };
            for (key, label) in [("arg-type", ""), ("ret-type", "=>")] {
                if let (Some(a), Some(b)) = (info[key].as_str(), other[key].as_str()) {
                    self.compare(a, theirs, b, &format!("{name}{label}"), &mut vec![], &mut out);
                }
            }
        }
        out.sort();
        out.dedup();
        out
    }

    fn compare(&self, a: &str, theirs: &Self, b: &str, at: &str, seen: &mut Vec<String>, out: &mut Vec<String>) {
        let none = Value::Null;
        let (x, y) = (self.infos.get(a).unwrap_or(&none), theirs.infos.get(b).unwrap_or(&none));
        if seen.iter().any(|s| s == b) {
            return; // a type that contains itself
        }
        let kind = |i: &Value| match text(i, "meta-type") {
            "builtin" => text(i, "json-type").to_owned(),
            other => other.to_owned(),
        };
        if kind(x) != kind(y) {
            out.push(format!("{at}: {} instead of {}", kind(x), kind(y)));
            return;
        }
        seen.push(b.to_owned());
        match text(x, "meta-type") {
            "array" => {
                self.compare(text(x, "element-type"), theirs, text(y, "element-type"), &format!("{at}[]"), seen, out);
            }
            "enum" => {
                let words = |i: &Value| -> Vec<String> {
                    list(i, "members").iter().map(|m| text(m, "name").to_owned()).collect()
                };
                let (ours, all) = (words(x), words(y));
                out.extend(ours.iter().filter(|w| !all.contains(w)).map(|w| format!("{at}: additional word {w}")));
                out.extend(all.iter().filter(|w| !ours.contains(w)).map(|w| format!("{at}: lacks word {w}")));
            }
            "object" => self.compare_objects(x, theirs, y, at, seen, out),
            _ => {}
        }
        seen.pop();
    }

    fn compare_objects(
        &self,
        x: &Value,
        theirs: &Self,
        y: &Value,
        at: &str,
        seen: &mut Vec<String>,
        out: &mut Vec<String>,
    ) {
        let at = if at.is_empty() { String::new() } else { format!("{at}.") };
        for m in list(x, "members") {
            let name = text(m, "name");
            match list(y, "members").iter().find(|o| text(o, "name") == name) {
                None => out.push(format!("{at}{name}: additional")),
                Some(o) if is_optional(m) != is_optional(o) => {
                    out.push(format!("{at}{name}: {}", if is_optional(m) { "optional" } else { "must be there" }));
                }
                Some(o) => self.compare(text(m, "type"), theirs, text(o, "type"), &format!("{at}{name}"), seen, out),
            }
        }
        for o in list(y, "members") {
            if !list(x, "members").iter().any(|m| text(m, "name") == text(o, "name")) {
                out.push(format!("{at}{}: missing", text(o, "name")));
            }
        }
        // A tag's word that is missing has been told; its variant is not told again.
        let tag = list(x, "members").iter().find(|m| text(m, "name") == text(x, "tag")).map(|m| text(m, "type"));
        let words = tag.and_then(|t| self.infos.get(t)).map_or(&[][..], |t| list(t, "members"));
        let is_word = |case: &str| words.iter().any(|w| text(w, "name") == case);
        for v in list(y, "variants").iter().filter(|v| is_word(text(v, "case"))) {
            match list(x, "variants").iter().find(|o| text(o, "case") == text(v, "case")) {
                Some(o) => {
                    self.compare(
                        text(o, "type"),
                        theirs,
                        text(v, "type"),
                        &format!("{at}({})", text(v, "case")),
                        seen,
                        out,
                    );
                }
                None => out.push(format!("{at}({}): missing variant", text(v, "case"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reply(name: &str, v: Value) -> Result<(), String> {
        Schema::qemu().check_reply(name, &json!({"return": v}))
    }

    #[test]
    fn replies_that_do_not_fit_are_found() {
        assert_eq!(reply("query-status", json!({"running": true, "status": "running"})), Ok(()));
        for (bad, place) in [
            (json!({"running": true}), "query-status.status is missing"),
            (json!({"running": 1, "status": "running"}), "query-status.running: 1 is not boolean"),
            (json!({"running": true, "status": "jogging"}), "query-status.status: \"jogging\" is not one of"),
            (json!({"running": true, "status": "running", "x": 1}), "query-status.x is not in the schema"),
            (json!([]), "query-status: [] is not an object"),
        ] {
            let e = reply("query-status", bad).unwrap_err();
            assert!(e.starts_with(place), "{e}");
        }
        assert!(reply("query-chardev", json!([{"label": "x"}])).unwrap_err().starts_with("query-chardev[0]."));
        let error = |class: &str| Schema::qemu().check_reply("x", &json!({"error": {"class": class, "desc": ""}}));
        assert!(error("GenericError").is_ok() && error("Error").is_err());
        let event = |data: Value| {
            let stamp = json!({"seconds": 1, "microseconds": 2});
            Schema::qemu().check_event(&json!({"event": "SHUTDOWN", "timestamp": stamp, "data": data}))
        };
        assert_eq!(event(json!({"guest": true, "reason": "guest-reset"})), Ok(()));
        assert!(event(json!({"guest": true})).is_err());
    }

    #[test]
    fn differences_are_named() {
        let schema = |members: Value, words: Value| {
            Schema::new(&json!([
                {"name": "query-status", "meta-type": "command", "arg-type": "a", "ret-type": "r"},
                {"name": "a", "meta-type": "object", "members": []},
                {"name": "r", "meta-type": "object", "members": members},
                {"name": "e", "meta-type": "enum", "members": words},
                {"name": "bool", "meta-type": "builtin", "json-type": "boolean"},
            ]))
        };
        let full = schema(
            json!([{"name": "running", "type": "bool"}, {"name": "status", "type": "e"}]),
            json!([{"name": "x"}]),
        );
        let less = schema(json!([{"name": "status", "type": "e", "default": null}]), json!([]));
        assert_eq!(full.differences(&full), [""; 0]);
        assert_eq!(less.differences(&full), ["query-status=>.running: missing", "query-status=>.status: optional"]);
        assert!(full.differences(Schema::qemu()).contains(&"query-status=>.status: additional word x".to_owned()));
    }
}
