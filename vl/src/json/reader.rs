//! An incremental JSON reader: bytes go in one at a time, a value comes out with its closing byte.
//!
//! Beyond RFC 8259 it takes strings in single quotes, as QMP does. Limits keep a hostile peer from using up memory or stack:
//! 1024 levels, two million tokens, 64 MiB of token text per value. After a stray byte the reader skips to the next control
//! character (a newline, say) or to a byte 0xFE or 0xFF, which no JSON text contains; the connection stays usable.

use serde_json::{Map, Number, Value};

/// Deepest nesting of objects and arrays.
const MAX_DEPTH: usize = 1 << 10;
/// Most tokens of one value.
const MAX_TOKENS: usize = 2 << 20;
/// Most bytes of token text of one value.
const MAX_BYTES: usize = 64 << 20;

/// Why a text is not JSON; the message is what QMP replies.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JsonError {
    /// Not a token, not a value, or a limit.
    #[error("JSON parse error, {0}")]
    Parse(String),
    /// More nested, longer or more numerous than allowed.
    #[error("JSON {0} limit exceeded")]
    Limit(&'static str),
}

fn parse_error<T>(what: impl Into<String>) -> Result<T, JsonError> {
    Err(JsonError::Parse(what.into()))
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// One of `{ } [ ] , :`.
    Punct(u8),
    /// Text between the quotes, escapes unresolved.
    Text(Vec<u8>),
    Number(Vec<u8>),
    Word(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Start,
    /// In a string, which this quote ends; true after a backslash.
    Text(u8, bool),
    Number,
    Word,
    /// Skipping after a stray byte.
    Recover,
}

/// Assembles values from bytes.
#[derive(Debug)]
pub struct Reader {
    state: State,
    text: Vec<u8>,
    tokens: Vec<Token>,
    bytes: usize,
    braces: isize,
    brackets: isize,
}

impl Default for Reader {
    fn default() -> Self {
        Self { state: State::Start, text: vec![], tokens: vec![], bytes: 0, braces: 0, brackets: 0 }
    }
}

impl Reader {
    /// Takes one byte. `Some` when it completed a value or made clear that there is none.
    pub fn push(&mut self, byte: u8) -> Option<Result<Value, JsonError>> {
        match self.state {
            State::Start => self.start(byte),
            State::Text(quote, escaped) => self.in_text(byte, quote, escaped),
            State::Number => match byte {
                b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E' => self.keep(byte),
                _ if !is_number(&self.text) => self.stray(byte),
                _ => {
                    let text = std::mem::take(&mut self.text);
                    self.ended(Token::Number(text), byte)
                }
            },
            State::Word => match byte {
                b'a'..=b'z' => self.keep(byte),
                _ => {
                    let text = std::mem::take(&mut self.text);
                    self.ended(Token::Word(text), byte)
                }
            },
            State::Recover => {
                if matches!(byte, 0..=0x1f | 0xfe..) {
                    self.state = State::Start;
                }
                None
            }
        }
    }

    /// End of input: an unfinished value is an error, nothing is nothing.
    pub fn finish(&mut self) -> Option<Result<Value, JsonError>> {
        // A space ends a number or a word and changes nothing else.
        if let Some(done) = self.push(b' ') {
            return Some(done);
        }
        let unfinished = !self.tokens.is_empty() || matches!(self.state, State::Text(..));
        *self = Self::default();
        unfinished.then(|| parse_error("premature end of input"))
    }

    fn keep(&mut self, byte: u8) -> Option<Result<Value, JsonError>> {
        self.text.push(byte);
        (self.bytes + self.text.len() > MAX_BYTES).then(|| self.give_up(JsonError::Limit("token size")))
    }

    fn give_up(&mut self, e: JsonError) -> Result<Value, JsonError> {
        *self = Self { state: State::Recover, ..Self::default() };
        Err(e)
    }

    /// `byte` does not continue the token that `self.text` holds.
    fn stray(&mut self, byte: u8) -> Option<Result<Value, JsonError>> {
        self.text.push(byte);
        let shown = String::from_utf8_lossy(&self.text).into_owned();
        let error = self.give_up(JsonError::Parse(format!("stray '{shown}'")));
        if matches!(byte, 0..=0x1f | 0xfe..) {
            self.state = State::Start;
        }
        Some(error)
    }

    fn start(&mut self, byte: u8) -> Option<Result<Value, JsonError>> {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => None,
            b'{' | b'}' | b'[' | b']' | b',' | b':' => self.token(Token::Punct(byte)),
            b'"' | b'\'' => {
                self.state = State::Text(byte, false);
                None
            }
            b'-' | b'0'..=b'9' => {
                self.state = State::Number;
                self.keep(byte)
            }
            b'a'..=b'z' => {
                self.state = State::Word;
                self.keep(byte)
            }
            _ => self.stray(byte),
        }
    }

    fn in_text(&mut self, byte: u8, quote: u8, escaped: bool) -> Option<Result<Value, JsonError>> {
        match byte {
            0..=0x1f | 0xfe.. => {
                self.text.insert(0, quote);
                self.stray(byte)
            }
            _ if byte == quote && !escaped => {
                self.state = State::Start;
                let text = std::mem::take(&mut self.text);
                self.token(Token::Text(text))
            }
            _ => {
                self.state = State::Text(quote, byte == b'\\' && !escaped);
                self.keep(byte)
            }
        }
    }

    /// A number or word ended before `byte`, which starts something new.
    fn ended(&mut self, token: Token, byte: u8) -> Option<Result<Value, JsonError>> {
        self.state = State::Start;
        let done = self.token(token);
        if done.is_some() && !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            // A value stood at top level and another token follows at once: keep the token for the next value.
            let next = self.start(byte);
            return if matches!(next, Some(Err(_))) { next } else { done };
        }
        done.or_else(|| self.start(byte))
    }

    fn token(&mut self, token: Token) -> Option<Result<Value, JsonError>> {
        match &token {
            Token::Punct(b'{') => self.braces += 1,
            Token::Punct(b'}') => self.braces -= 1,
            Token::Punct(b'[') => self.brackets += 1,
            Token::Punct(b']') => self.brackets -= 1,
            Token::Punct(_) => self.bytes += 1,
            Token::Text(t) | Token::Number(t) | Token::Word(t) => self.bytes += t.len(),
        }
        self.tokens.push(token);
        if self.bytes > MAX_BYTES {
            return Some(self.give_up(JsonError::Limit("token size")));
        }
        if self.tokens.len() > MAX_TOKENS {
            return Some(self.give_up(JsonError::Limit("token count")));
        }
        if self.braces.max(0).saturating_add(self.brackets.max(0)).unsigned_abs() > MAX_DEPTH {
            return Some(self.give_up(JsonError::Limit("nesting depth")));
        }
        let open = self.braces >= 0 && self.brackets >= 0 && (self.braces > 0 || self.brackets > 0);
        if open {
            return None;
        }
        let tokens = std::mem::take(self).tokens;
        Some(Parser { tokens: tokens.into_iter().peekable() }.whole())
    }
}

/// `-?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)?`
fn is_number(text: &[u8]) -> bool {
    fn digits(t: &[u8]) -> (usize, &[u8]) {
        let n = t.iter().take_while(|c| c.is_ascii_digit()).count();
        (n, t.get(n..).unwrap_or_default())
    }
    let t = text.strip_prefix(b"-").unwrap_or(text);
    let (n, rest) = digits(t);
    if n == 0 || (n > 1 && t.first() == Some(&b'0')) {
        return false;
    }
    let mut rest = rest;
    if let Some(frac) = rest.strip_prefix(b".") {
        let (n, after) = digits(frac);
        if n == 0 {
            return false;
        }
        rest = after;
    }
    if let [b'e' | b'E', exp @ ..] = rest {
        let (n, after) = digits(exp.strip_prefix(b"+").or_else(|| exp.strip_prefix(b"-")).unwrap_or(exp));
        return n > 0 && after.is_empty();
    }
    rest.is_empty()
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Parser {
    fn whole(mut self) -> Result<Value, JsonError> {
        let v = self.value()?;
        if self.tokens.next().is_some() { parse_error("expecting end of input") } else { Ok(v) }
    }

    fn value(&mut self) -> Result<Value, JsonError> {
        match self.tokens.next() {
            Some(Token::Punct(b'{')) => self.object(),
            Some(Token::Punct(b'[')) => self.array(),
            Some(Token::Text(t)) => Ok(Value::String(unescape(&t)?)),
            Some(Token::Number(t)) => number(&t),
            Some(Token::Word(w)) => match &*w {
                b"true" => Ok(Value::Bool(true)),
                b"false" => Ok(Value::Bool(false)),
                b"null" => Ok(Value::Null),
                _ => parse_error(format!("invalid keyword '{}'", String::from_utf8_lossy(&w))),
            },
            _ => parse_error("expecting value"),
        }
    }

    fn object(&mut self) -> Result<Value, JsonError> {
        let mut map = Map::new();
        if self.tokens.next_if_eq(&Token::Punct(b'}')).is_some() {
            return Ok(map.into());
        }
        loop {
            let Some(Token::Text(key)) = self.tokens.next() else {
                return parse_error("key is not a string in object");
            };
            let key = unescape(&key)?;
            if self.tokens.next() != Some(Token::Punct(b':')) {
                return parse_error("missing : in object pair");
            }
            let value = self.value()?;
            if map.insert(key, value).is_some() {
                return parse_error("duplicate key");
            }
            match self.tokens.next() {
                Some(Token::Punct(b'}')) => return Ok(map.into()),
                Some(Token::Punct(b',')) => {}
                _ => return parse_error("expected separator in dict"),
            }
        }
    }

    fn array(&mut self) -> Result<Value, JsonError> {
        let mut list = vec![];
        if self.tokens.next_if_eq(&Token::Punct(b']')).is_some() {
            return Ok(list.into());
        }
        loop {
            list.push(self.value()?);
            match self.tokens.next() {
                Some(Token::Punct(b']')) => return Ok(list.into()),
                Some(Token::Punct(b',')) => {}
                _ => return parse_error("expected separator in list"),
            }
        }
    }
}

/// Integers that fit stay integers (signed, then unsigned 64 bit); everything else is a double.
fn number(text: &[u8]) -> Result<Value, JsonError> {
    let text = str::from_utf8(text).unwrap_or_default();
    if let Ok(v) = text.parse::<i64>() {
        return Ok(v.into());
    }
    if let Ok(v) = text.parse::<u64>() {
        return Ok(v.into());
    }
    match text.parse::<f64>().ok().and_then(Number::from_f64) {
        Some(n) => Ok(n.into()),
        None => parse_error(format!("number '{text}' is out of range")),
    }
}

fn unescape(raw: &[u8]) -> Result<String, JsonError> {
    let Ok(raw) = str::from_utf8(raw) else { return parse_error("invalid UTF-8 sequence in string") };
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some(c @ ('"' | '\'' | '\\' | '/')) => out.push(c),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('u') => out.push(unicode(&mut chars)?),
            Some(c) => return parse_error(format!("invalid escape sequence '\\{c}' in string")),
            None => return parse_error("invalid escape sequence in string"),
        }
    }
    Ok(out)
}

/// After `\u`: four hex digits, and the second half of a surrogate pair.
fn unicode(chars: &mut std::str::Chars<'_>) -> Result<char, JsonError> {
    let unit = |chars: &mut std::str::Chars<'_>| -> Option<u32> {
        (0..4).try_fold(0, |v, _| Some(v << 4 | chars.next()?.to_digit(16)?))
    };
    let bad = || JsonError::Parse("invalid hex escape sequence in string".into());
    let first = unit(chars).ok_or_else(bad)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first).ok_or_else(bad);
    }
    if (chars.next(), chars.next()) != (Some('\\'), Some('u')) {
        return Err(bad());
    }
    let second = unit(chars).filter(|u| (0xdc00..0xe000).contains(u)).ok_or_else(bad)?;
    char::from_u32(0x1_0000 + ((first - 0xd800) << 10 | (second - 0xdc00))).ok_or_else(bad)
}

/// Reads one value that must be all of `text`.
///
/// # Errors
/// When it is not JSON, or more than one value.
pub fn from_str(text: &str) -> Result<Value, JsonError> {
    let mut r = Reader::default();
    let mut found = None;
    for b in text.bytes() {
        match (r.push(b), &found) {
            (Some(v), None) => found = Some(v?),
            (Some(_), Some(_)) => return parse_error("expecting end of input"),
            (None, _) => {}
        }
    }
    match (r.finish(), found) {
        (None, Some(v)) => Ok(v),
        (Some(v), None) => v,
        (Some(_), Some(_)) => parse_error("expecting end of input"),
        (None, None) => parse_error("expecting value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn all(text: &[u8]) -> Vec<Result<Value, JsonError>> {
        let mut r = Reader::default();
        let mut out: Vec<_> = text.iter().filter_map(|b| r.push(*b)).collect();
        out.extend(r.finish());
        out
    }

    #[test]
    fn a_value_is_complete_with_its_closing_brace() {
        let mut r = Reader::default();
        let (last, head) = br#"{"a": [1, -2.5, 18446744073709551615, true, null], "b": {}}"#.split_last().unwrap();
        assert!(head.iter().all(|b| r.push(*b).is_none()));
        assert_eq!(r.push(*last), Some(Ok(json!({"a": [1, -2.5, u64::MAX, true, null], "b": {}}))));
    }

    #[test]
    fn single_quotes_and_escapes() {
        assert_eq!(from_str(r#"{'a': 'it\'s "x"'}"#), Ok(json!({"a": "it's \"x\""})));
        assert_eq!(from_str(r#""\ud83d\ude00\n\u00e4""#), Ok(json!("😀\nä")));
        for bad in [r#""\q""#, r#""\u12g4""#, r#""\ud800x""#, r#""\udc00""#] {
            assert!(from_str(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_json_is_said_once_and_the_next_line_is_read() {
        let text = |e: &Result<Value, JsonError>| e.as_ref().unwrap_err().to_string();
        let r = all(b"@garbage {} here\n{'ok': 1}\n");
        assert_eq!(text(&r[0]), "JSON parse error, stray '@'");
        assert_eq!(r[1], Ok(json!({"ok": 1})));
        assert_eq!(r.len(), 2);
        let r = all(b"{ 'a' 1 }{'b': 2}");
        assert_eq!(text(&r[0]), "JSON parse error, missing : in object pair");
        assert_eq!(r[1], Ok(json!({"b": 2})));
        assert_eq!(text(&all(b"{'a': tru}")[0]), "JSON parse error, invalid keyword 'tru'");
        assert_eq!(text(&all(b"}")[0]), "JSON parse error, expecting value");
        assert_eq!(text(&all(b"{'a': 1, 'a': 2}")[0]), "JSON parse error, duplicate key");
        assert_eq!(all(b"{'a\xff{'b': 2}").last(), Some(&Ok(json!({"b": 2}))));
    }

    #[test]
    fn numbers_follow_the_grammar() {
        for bad in ["01", "-", "1.", ".5", "1e", "+1", "1e400"] {
            assert!(from_str(bad).is_err(), "{bad}");
        }
        for (good, v) in
            [("0", json!(0)), ("-0", json!(0)), ("1e2", json!(100.0)), ("9223372036854775808", json!(1u64 << 63))]
        {
            assert_eq!(from_str(good), Ok(v), "{good}");
        }
    }

    #[test]
    fn limits_hold_and_end_with_the_line() {
        let deep = [b"[".repeat(MAX_DEPTH + 1), b"\n1\n".to_vec()].concat();
        let r = all(&deep);
        assert_eq!(r[0], Err(JsonError::Limit("nesting depth")));
        assert_eq!(r[1], Ok(json!(1)));
        let fits = [b"[".repeat(MAX_DEPTH), b"]".repeat(MAX_DEPTH)].concat();
        assert!(all(&fits)[0].is_ok());
    }

    #[test]
    fn an_unfinished_value_is_an_error_at_the_end() {
        assert!(all(b"{'a': ").last().unwrap().is_err());
        assert!(all(b"'abc").last().unwrap().is_err());
        assert!(all(b" \r\n").is_empty());
        assert!(from_str("{} {}").is_err() && from_str("").is_err());
    }
}
