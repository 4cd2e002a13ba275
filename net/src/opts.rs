//! Options of a backend: an object shaped as QAPI's `Netdev`, its leaves typed (JSON) or text (`key=value`).

use qom::{Error, Result};
use serde_json::{Map, Value, json};

/// Options that have not been looked at yet. Each accessor takes its option out; [`Opts::finish`] complains about the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opts {
    map: Map<String, Value>,
    text: bool,
    path: String,
}

/// Keys that may be given several times; QAPI's lists of `String`.
const LISTS: [&str; 3] = ["hostfwd", "guestfwd", "dnssearch"];

impl Opts {
    /// Typed options, as JSON has them.
    pub fn json(map: Map<String, Value>) -> Self {
        Self { map, text: false, path: String::new() }
    }

    /// Options whose leaves are text; keys may be dotted (`addr.path`), and those of lists may come again.
    ///
    /// # Errors
    /// A key that is both a value and an object.
    pub fn keyval<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut map = Map::new();
        for (key, value) in pairs {
            if LISTS.contains(&key) {
                let list = map.entry(key).or_insert_with(|| json!([]));
                if let Some(list) = list.as_array_mut() {
                    list.push(json!({"str": value}));
                }
            } else {
                put(&mut map, key, value, key)?;
            }
        }
        Ok(Self { map, text: true, path: String::new() })
    }

    /// Whether there is such an option.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Puts a text.
    pub fn set(&mut self, key: &str, value: &str) {
        self.map.insert(key.into(), value.into());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_come_to_the_same() {
        let mut text =
            Opts::keyval([("hostfwd", "a"), ("hostfwd", "b"), ("restrict", "on"), ("addr.path", "/x"), ("n", "0x10")])
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
        assert!(Opts::keyval([("a.b", "1"), ("a", "2")]).is_err());
    }
}
