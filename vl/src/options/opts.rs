//! `first,key=value,flag,key=a,,b`: the syntax inside an option's argument.
//!
//! The first item may lack its key (the list's implied key), `,,` stands for a comma in a value, later keys win. A bare word
//! after the first item switches something on (`server`) or, with `no` before it, off; QEMU still takes this short form of
//! `server=on` and warns.

use super::desc::{Desc, Kind};
use super::size;
use crate::nearest::did_you_mean;

/// What can be wrong in an option's argument; the text continues `qomet: -option argument: `.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OptError {
    /// A key the list does not have.
    #[error("Invalid parameter '{0}'{1}")]
    Unknown(String, String),
    /// A key that only QEMU has.
    #[error("parameter '{0}' of QEMU is not built yet")]
    NotBuilt(String),
    /// A key without a value where one is needed.
    #[error("Expected '=' after parameter '{0}'")]
    NoValue(String),
    /// A switch with another value.
    #[error("Parameter '{0}' expects 'on' or 'off'")]
    Switch(String),
    /// Not a number.
    #[error("Parameter '{0}' expects a number")]
    Number(String),
    /// Not a size.
    #[error(
        "Parameter '{0}' expects a non-negative number below 2^64, optionally with a suffix k, M, G, T, P or E for kilo-, mega-, giga-, tera-, peta- and exabytes"
    )]
    Size(String),
    /// An id with other characters.
    #[error("Parameter 'id' expects an identifier: letters, digits, '-', '.', '_', starting with a letter")]
    Id,
    /// A value outside a list.
    #[error("Parameter '{key}' does not accept value '{value}' (expected {expected})")]
    Choice {
        /// The parameter.
        key: String,
        /// What was given.
        value: String,
        /// What would do.
        expected: String,
    },
    /// A parameter that must be there.
    #[error("Parameter '{0}' is missing")]
    Missing(String),
    /// Everything else, in full.
    #[error("{0}")]
    Other(String),
}

/// Whether `id` may name an object: a letter, then letters, digits, `-`, `.`, `_`.
pub fn is_id(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

/// Whether `key` may name an option of something else.
fn is_key(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-._+[]".contains(c))
}

/// One parsed list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opts {
    /// Value of `id=`.
    pub id: Option<String>,
    /// All other pairs in their order.
    pub pairs: Vec<(String, String)>,
    /// `help` or `?` was given.
    pub help: bool,
    /// Warnings about the short form of switches, in full.
    pub warnings: Vec<String>,
}

/// Splits at single commas; `,,` is a comma. Returns items with the comma resolved, and for each the position of its first `=`.
fn items(text: &str) -> Vec<(String, Option<usize>)> {
    let mut out = vec![];
    let mut item = String::new();
    let mut equals = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ',' if chars.next_if_eq(&',').is_some() => item.push(','),
            ',' => out.push((std::mem::take(&mut item), equals.take())),
            '=' if equals.is_none() => {
                equals = Some(item.len());
                item.push('=');
            }
            _ => item.push(c),
        }
    }
    if !item.is_empty() || equals.is_some() {
        out.push((item, equals));
    }
    out
}

impl Opts {
    /// Parses `text` by `desc`.
    ///
    /// # Errors
    /// A key the list does not know, or a value that is not of the key's kind.
    pub fn parse(text: &str, desc: &Desc) -> Result<Self, OptError> {
        let mut opts = Self::default();
        opts.add(text, desc)?;
        Ok(opts)
    }

    /// Parses `text` and adds it: how an option given twice is merged.
    ///
    /// # Errors
    /// As [`Opts::parse`].
    pub fn add(&mut self, text: &str, desc: &Desc) -> Result<(), OptError> {
        for (i, (item, equals)) in items(text).into_iter().enumerate() {
            let (key, value) = match (equals, desc.implied) {
                (Some(at), _) => {
                    let (key, value) = item.split_at(at);
                    (key.to_owned(), value.get(1..).unwrap_or_default().to_owned())
                }
                (None, _) if item == "help" || item == "?" => {
                    self.help = true;
                    continue;
                }
                (None, Some(first)) if i == 0 => (first.to_owned(), item),
                (None, _) if desc.strict => return Err(OptError::NoValue(item)),
                (None, _) => self.short_form(item, desc),
            };
            self.set(key, value, desc)?;
        }
        Ok(())
    }

    fn short_form(&mut self, item: String, desc: &Desc) -> (String, String) {
        let known = |k: &str| desc.params.iter().any(|p| p.name == k);
        let (key, value) = match item.strip_prefix("no") {
            Some(rest) if !known(&item) && (known(rest) || desc.params.is_empty()) => (rest.to_owned(), "off"),
            _ => (item.clone(), "on"),
        };
        self.warnings.push(format!("short-form boolean option '{item}' deprecated, please use {key}={value} instead"));
        (key, value.to_owned())
    }

    fn set(&mut self, key: String, value: String, desc: &Desc) -> Result<(), OptError> {
        if key == "id" && desc.takes_id {
            if !is_id(&value) {
                return Err(OptError::Id);
            }
            self.id = Some(value);
            return Ok(());
        }
        if !desc.params.is_empty() {
            let Some(param) = desc.params.iter().find(|p| p.name == key) else {
                if desc.open && is_key(&key) {
                    self.pairs.push((key, value));
                    return Ok(());
                }
                let hint = did_you_mean(&key, desc.built().map(|p| p.name));
                return Err(OptError::Unknown(key, hint));
            };
            match param.kind {
                Kind::Bool if size::boolean(&value).is_none() => return Err(OptError::Switch(key)),
                Kind::Number if size::number(&value).is_none() => return Err(OptError::Number(key)),
                Kind::Signed if size::number(value.strip_prefix('-').unwrap_or(&value)).is_none() => {
                    return Err(OptError::Number(key));
                }
                Kind::NotBuilt => return Err(OptError::NotBuilt(key)),
                Kind::Size if size::size(&value, 1).is_none() => return Err(OptError::Size(key)),
                _ => {}
            }
        } else if !is_key(&key) {
            return Err(OptError::Unknown(key, String::new()));
        }
        self.pairs.push((key, value));
        Ok(())
    }

    /// Last value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Last value of `key`, owned.
    pub fn text(&self, key: &str) -> Option<String> {
        self.get(key).map(str::to_owned)
    }

    /// Takes all values of `key` out; the last one.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let last = self.text(key);
        self.pairs.retain(|(k, _)| k != key);
        last
    }

    /// `key` as a switch.
    ///
    /// # Errors
    /// When the value is neither.
    pub fn switch(&self, key: &str) -> Result<Option<bool>, OptError> {
        self.get(key).map(|v| size::boolean(v).ok_or_else(|| OptError::Switch(key.into()))).transpose()
    }

    /// `key` as a number.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(&self, key: &str) -> Result<Option<u64>, OptError> {
        self.get(key).map(|v| size::number(v).ok_or_else(|| OptError::Number(key.into()))).transpose()
    }

    /// `key` as bytes; a bare number counts `unit`s.
    ///
    /// # Errors
    /// When it is no size.
    pub fn size(&self, key: &str, unit: u64) -> Result<Option<u64>, OptError> {
        self.get(key).map(|v| size::size(v, unit).ok_or_else(|| OptError::Size(key.into()))).transpose()
    }

    /// `key`, which must be one of `choices`.
    ///
    /// # Errors
    /// When it is another word; the message lists the choices.
    pub fn choice<'a>(&self, key: &str, choices: &[&'a str]) -> Result<Option<&'a str>, OptError> {
        let Some(v) = self.get(key) else { return Ok(None) };
        let found = choices.iter().find(|c| **c == v).copied();
        found.map(Some).ok_or_else(|| OptError::Choice {
            key: key.into(),
            value: v.into(),
            expected: choices.join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::desc;

    #[test]
    fn implied_key_escapes_and_later_values() {
        let o = Opts::parse("unix,path=/a,,b=c,id=c0,path=/d", &desc::CHARDEV).unwrap();
        assert_eq!(o.id.as_deref(), Some("c0"));
        assert_eq!(o.pairs[0], ("backend".into(), "unix".into()));
        assert_eq!(o.pairs[1].1, "/a,b=c");
        assert_eq!(o.get("path"), Some("/d"));
        assert_eq!(Opts::parse("path=", &desc::CHARDEV).unwrap().get("path"), Some(""));
    }

    #[test]
    fn switches_have_a_short_form_with_a_warning() {
        let o = Opts::parse("socket,server,nowait", &desc::CHARDEV).unwrap();
        assert_eq!((o.switch("server"), o.switch("wait")), (Ok(Some(true)), Ok(Some(false))));
        assert_eq!(o.warnings.len(), 2);
        assert_eq!(Opts::parse("socket,server=maybe", &desc::CHARDEV), Err(OptError::Switch("server".into())));
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let e = Opts::parse("socket,serverr=on", &desc::CHARDEV).unwrap_err().to_string();
        assert_eq!(e, "Invalid parameter 'serverr' (did you mean 'server'?)");
        assert_eq!(Opts::parse("size=1Q", &desc::MEMORY).unwrap_err(), OptError::Size("size".into()));
        assert_eq!(Opts::parse("null,id=1x", &desc::CHARDEV).unwrap_err(), OptError::Id);
        assert_eq!(Opts::parse("pc,kernel", &desc::MACHINE).unwrap_err(), OptError::NoValue("kernel".into()));
    }

    #[test]
    fn help_is_asked_for_anywhere() {
        assert!(Opts::parse("e1000,help", &desc::DEVICE).unwrap().help);
        assert!(Opts::parse("?", &desc::MACHINE).unwrap().help);
    }
}
