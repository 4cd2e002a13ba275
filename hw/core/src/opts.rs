//! Options shaped as QAPI's unions (`BlockdevOptions`, `Netdev`), their leaves typed (JSON) or text (`key=value`), which a backend takes
//! out one by one.

use qom::{Error, Result};
use serde_json::{Map, Value, json};

/// Options that have not been looked at yet. Each accessor takes its option out; [`Opts::finish`] complains about the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opts {
    map: Map<String, Value>,
    text: bool,
    path: String,
}

/// Most dots in a key. (Objects in objects are gone through by calls.)
const DEEPEST: usize = 64;

/// A child of what the options are of: one that exists, or options of a new one.
#[derive(Clone, Debug, PartialEq)]
pub enum Child {
    /// Its name.
    Reference(String),
    /// Options.
    Inline(Opts),
}

impl Opts {
    /// Typed options, as JSON has them.
    pub fn json(map: Map<String, Value>) -> Self {
        Self { map, text: false, path: String::new() }
    }

    /// Options whose leaves are text; keys may be dotted (`file.filename`).
    ///
    /// # Errors
    /// A key that is both a value and an object.
    pub fn keyval<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        Self::keyval_with(pairs, &[])
    }

    /// The same where the keys in `lists` may come again: they become lists of `{"str": value}` (QAPI's `String`).
    ///
    /// # Errors
    /// As [`Opts::keyval`].
    pub fn keyval_with<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, lists: &[&str]) -> Result<Self> {
        let mut map = Map::new();
        for (key, value) in pairs {
            if key.matches('.').count() > DEEPEST {
                return Err(Error::generic(format!(
                    "Parameter '{}…' has too many parts",
                    key.get(..32).unwrap_or_default()
                )));
            }
            if lists.contains(&key) {
                if let Some(list) = map.entry(key).or_insert_with(|| json!([])).as_array_mut() {
                    list.push(json!({"str": value}))
                }
            } else {
                put(&mut map, key, value, key)?;
            }
        }
        Ok(Self { map, text: true, path: String::new() })
    }

    /// Whether the leaves are text.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// Whether there is such an option.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Puts a text or typed value, if there is none yet.
    pub fn or_insert(&mut self, key: &str, value: impl Into<Value>) {
        if !self.has(key) {
            let value = value.into();
            let value = match (&value, self.text) {
                (Value::Bool(b), true) => Value::from(if *b { "on" } else { "off" }),
                (Value::Number(n), true) => Value::from(n.to_string()),
                _ => value,
            };
            self.map.insert(key.into(), value);
        }
    }

    /// Puts a text.
    pub fn set(&mut self, key: &str, value: &str) {
        self.map.insert(key.into(), value.into());
    }

    /// No options, of the same form.
    pub fn empty(&self) -> Self {
        Self { map: Map::new(), text: self.text, path: String::new() }
    }

    /// Puts an object.
    pub fn put_object(&mut self, key: &str, value: Opts) {
        self.map.insert(key.into(), Value::Object(value.map));
    }

    /// All that is left.
    pub fn into_map(self) -> Map<String, Value> {
        self.map
    }

    fn at(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        Error::generic(format!("Invalid parameter type for '{}', expected: {expected}", self.at(key)))
    }

    /// A text.
    ///
    /// # Errors
    /// It is something else.
    pub fn take_str(&mut self, key: &str) -> Result<Option<String>> {
        match self.map.shift_remove(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(_) => Err(self.wrong(key, "string")),
        }
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// It is something else, or missing.
    pub fn require_str(&mut self, key: &str) -> Result<String> {
        let at = self.at(key);
        self.take_str(key)?.ok_or_else(|| Error::generic(format!("Parameter '{at}' is missing")))
    }

    /// A switch.
    ///
    /// # Errors
    /// It is something else.
    pub fn take_bool(&mut self, key: &str) -> Result<Option<bool>> {
        match (self.map.shift_remove(key), self.text) {
            (None, _) => Ok(None),
            (Some(Value::Bool(b)), _) => Ok(Some(b)),
            (Some(Value::String(s)), true) => match s.as_str() {
                "on" | "yes" | "true" | "y" => Ok(Some(true)),
                "off" | "no" | "false" | "n" => Ok(Some(false)),
                _ => Err(Error::generic(format!("Parameter '{}' expects 'on' or 'off'", self.at(key)))),
            },
            _ => Err(self.wrong(key, "boolean")),
        }
    }

    /// A number of bytes.
    ///
    /// # Errors
    /// It is something else, or negative.
    pub fn take_size(&mut self, key: &str) -> Result<Option<u64>> {
        match (self.map.shift_remove(key), self.text) {
            (None, _) => Ok(None),
            (Some(Value::Number(n)), _) => n.as_u64().map(Some).ok_or_else(|| {
                Error::generic(format!("Parameter '{}' expects a non-negative number below 2^64", self.at(key)))
            }),
            (Some(Value::String(s)), true) => size(&s).map(Some).ok_or_else(|| {
                Error::generic(format!("Parameter '{}' expects a non-negative number below 2^64", self.at(key)))
            }),
            _ => Err(self.wrong(key, "integer")),
        }
    }

    /// A number that is not negative.
    ///
    /// # Errors
    /// It is something else.
    pub fn take_number(&mut self, key: &str) -> Result<Option<u64>> {
        match (self.map.shift_remove(key), self.text) {
            (None, _) => Ok(None),
            (Some(Value::Number(n)), _) => n
                .as_u64()
                .map(Some)
                .ok_or_else(|| Error::generic(format!("Parameter '{}' expects a non-negative number", self.at(key)))),
            (Some(Value::String(s)), true) => {
                let n = s.strip_prefix("0x").map_or_else(|| s.parse().ok(), |h| u64::from_str_radix(h, 16).ok());
                n.map(Some).ok_or_else(|| Error::generic(format!("Parameter '{}' expects a number", self.at(key))))
            }
            _ => Err(self.wrong(key, "integer")),
        }
    }

    /// A list of texts, in QAPI's form `[{"str": …}]`.
    ///
    /// # Errors
    /// It is something else.
    pub fn take_list(&mut self, key: &str) -> Result<Vec<String>> {
        match self.map.shift_remove(key) {
            None => Ok(vec![]),
            Some(Value::Array(items)) => {
                let item = |v: &Value| v.get("str").and_then(Value::as_str).map(str::to_owned);
                items.iter().map(|v| item(v).ok_or_else(|| self.wrong(key, "array"))).collect()
            }
            Some(_) => Err(self.wrong(key, "array")),
        }
    }

    /// One of some words.
    ///
    /// # Errors
    /// It is another.
    pub fn take_choice(&mut self, key: &str, choices: &[&'static str]) -> Result<Option<&'static str>> {
        let Some(v) = self.take_str(key)? else { return Ok(None) };
        let found = choices.iter().find(|c| **c == v).copied();
        found.map(Some).ok_or_else(|| {
            let at = self.at(key);
            Error::generic(format!("Parameter '{at}' does not accept value '{v}' (accepted: {})", choices.join(", ")))
        })
    }

    /// An object.
    ///
    /// # Errors
    /// It is something else.
    pub fn take_object(&mut self, key: &str) -> Result<Option<Opts>> {
        match self.map.shift_remove(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { map, text: self.text, path: format!("{}.", self.at(key)) })),
            Some(_) => Err(self.wrong(key, "object")),
        }
    }

    /// A child node.
    ///
    /// # Errors
    /// Neither a name nor options.
    pub fn take_child(&mut self, key: &str) -> Result<Option<Child>> {
        match self.map.get(key) {
            None => Ok(None),
            Some(Value::String(_)) => Ok(self.take_str(key)?.map(Child::Reference)),
            Some(_) => Ok(self.take_object(key)?.map(Child::Inline)),
        }
    }

    /// Whether an option is JSON's null; takes it.
    pub fn take_null(&mut self, key: &str) -> bool {
        let null = self.map.get(key).is_some_and(Value::is_null);
        if null {
            self.map.shift_remove(key);
        }
        null
    }

    /// All options have been taken.
    ///
    /// # Errors
    /// One is left.
    pub fn finish(&self) -> Result<()> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(key) => Err(Error::generic(format!("Parameter '{}' is unexpected", self.at(key)))),
        }
    }

    /// All options of block driver `driver` have been taken.
    ///
    /// # Errors
    /// One is left, which the driver does not have.
    pub fn finish_driver(&self, driver: &str) -> Result<()> {
        match self.map.keys().next().filter(|_| self.text) {
            None => self.finish(),
            Some(key) => {
                let at = self.at(key);
                Err(Error::generic(format!("Block driver '{driver}' does not support the option '{at}'")))
            }
        }
    }
}

fn put(map: &mut Map<String, Value>, path: &str, value: &str, whole: &str) -> Result<()> {
    let clash = || Error::generic(format!("Parameters '{whole}' and its parts cannot be given together"));
    match path.split_once('.') {
        None if map.get(path).is_some_and(Value::is_object) => Err(clash()),
        None => {
            map.insert(path.to_owned(), value.into());
            Ok(())
        }
        Some((head, rest)) => match map.entry(head).or_insert_with(|| Map::new().into()) {
            Value::Object(inner) => put(inner, rest, value, whole),
            _ => Err(clash()),
        },
    }
}

/// `64k`, `0x200`, `1G`.
fn size(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok();
    }
    let (digits, shift) = match text.char_indices().next_back()? {
        (at, c) if c.is_ascii_alphabetic() => {
            let shift = "BKMGTPE".find(c.to_ascii_uppercase())? * 10;
            (text.get(..at)?, shift)
        }
        _ => (text, 0),
    };
    let n: u64 = digits.parse().ok()?;
    n.checked_shl(shift as u32).filter(|v| v >> shift == n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_text_becomes_objects() {
        let mut o = Opts::keyval([("file.driver", "file"), ("file.filename", "/a"), ("read-only", "on")]).unwrap();
        assert_eq!(o.take_bool("read-only").unwrap(), Some(true));
        let Some(Child::Inline(mut file)) = o.take_child("file").unwrap() else { unreachable!() };
        assert_eq!(file.take_str("filename").unwrap().as_deref(), Some("/a"));
        assert_eq!(
            file.finish_driver("file").unwrap_err().to_string(),
            "Block driver 'file' does not support the option 'file.driver'"
        );
        assert!(Opts::keyval([("a.b", "1"), ("a", "2")]).is_err() && Opts::keyval([("a", "1"), ("a.b", "2")]).is_err());
    }

    #[test]
    fn json_is_typed() {
        let json = |v: Value| Opts::json(v.as_object().unwrap().clone());
        let mut o = json(json!({"read-only": "on", "size": -1, "offset": 4096}));
        let text = |e: qom::Error| e.to_string();
        assert_eq!(
            o.take_bool("read-only").map_err(text).unwrap_err(),
            "Invalid parameter type for 'read-only', expected: boolean"
        );
        assert!(o.take_size("size").is_err());
        assert_eq!(o.take_size("offset").unwrap(), Some(4096));
        assert_eq!(
            json(json!({"x": 1})).finish_driver("raw").map_err(text).unwrap_err(),
            "Parameter 'x' is unexpected"
        );
    }

    #[test]
    fn sizes() {
        assert_eq!(
            (size("64k"), size("1G"), size("0x200"), size("7")),
            (Some(65536), Some(1 << 30), Some(512), Some(7))
        );
        assert_eq!((size(""), size("k"), size("1X"), size("99999999E")), (None, None, None, None));
    }

    #[test]
    fn text_and_json_come_to_the_same() {
        let mut text = Opts::keyval_with(
            [("hostfwd", "a"), ("hostfwd", "b"), ("restrict", "on"), ("addr.path", "/x"), ("n", "0x10")],
            &["hostfwd"],
        )
        .unwrap();
        let map = json!({"hostfwd": [{"str": "a"}, {"str": "b"}], "restrict": true, "addr": {"path": "/x"}, "n": 16});
        let mut typed = Opts::json(map.as_object().unwrap().clone());
        for o in [&mut text, &mut typed] {
            assert_eq!(o.take_list("hostfwd").unwrap(), ["a", "b"]);
            assert_eq!((o.take_bool("restrict").unwrap(), o.take_number("n").unwrap()), (Some(true), Some(16)));
            let mut addr = o.take_object("addr").unwrap().unwrap();
            assert_eq!(addr.require_str("type").unwrap_err().to_string(), "Parameter 'addr.type' is missing");
            assert_eq!(addr.finish().unwrap_err().to_string(), "Parameter 'addr.path' is unexpected");
            o.finish().unwrap();
        }
    }
}
