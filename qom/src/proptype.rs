//! Property types: how a value is kept, shown as JSON, and taken from JSON or from QEMU's text syntax.

use crate::error::Reject;
use crossbeam_utils::atomic::AtomicCell;
use parking_lot::RwLock;
use serde_json::Value;
use std::fmt;

/// A value on its way into a property.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// From QMP or code.
    Json(&'a Value),
    /// From a command line or a compat table: `on`, `0x10`, `4G`.
    Text(&'a str),
    /// A structure or list from a command line (`smp.cpus=4,smp.cores=2`): JSON whose leaves are text.
    Keyval(&'a Value),
}

impl<'a> Input<'a> {
    /// A part of a `Keyval` tree; its leaves are [`Input::Text`].
    pub fn keyval(v: &'a Value) -> Self {
        match v {
            Value::String(s) => Self::Text(s),
            v => Self::Keyval(v),
        }
    }

    fn part(&self, v: &'a Value) -> Self {
        match self {
            Self::Json(_) => Self::Json(v),
            _ => Self::keyval(v),
        }
    }

    /// Members of a structure.
    pub fn members(&self) -> Result<Vec<(&'a str, Self)>, Reject> {
        match self {
            Self::Json(Value::Object(m)) | Self::Keyval(Value::Object(m)) => {
                Ok(m.iter().map(|(k, v)| (k.as_str(), self.part(v))).collect())
            }
            _ => Err(Reject::wrong_type("object")),
        }
    }

    /// Elements of a list; `Keyval` also writes one as members `0`, `1`, ….
    pub fn elements(&self) -> Result<Vec<Self>, Reject> {
        match self {
            Self::Json(Value::Array(a)) | Self::Keyval(Value::Array(a)) => Ok(a.iter().map(|v| self.part(v)).collect()),
            Self::Keyval(Value::Object(m)) => (0..m.len())
                .map(|i| m.get(&i.to_string()).map(Self::keyval).ok_or_else(|| Reject::missing().at(&i.to_string())))
                .collect(),
            _ => Err(Reject::wrong_type("array")),
        }
    }

    /// The value as the user wrote it, for messages.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(s) => (*s).to_owned(),
            Self::Json(Value::String(s)) => s.clone(),
            Self::Json(v) | Self::Keyval(v) => v.to_string(),
        }
    }

    /// A string.
    pub fn string(&self) -> Result<&'a str, Reject> {
        match self {
            Self::Text(s) => Ok(s),
            Self::Json(Value::String(s)) => Ok(s),
            _ => Err(Reject::wrong_type("string")),
        }
    }
}

/// A type that properties can have. Implement it for types with a syntax of their own (a PCI address, a MAC address).
pub trait PropType: Clone + Send + Sync + 'static {
    /// Where a [`Prop`] keeps it: [`AtomicCell`] for small `Copy` types, [`RwLock`] for the others.
    type Cell: PropCell<Self>;
    /// The type's name in `qom-list`.
    const TYPE: &'static str;
    /// As QMP shows it.
    fn to_json(&self) -> Value;
    /// From QMP or text.
    fn take(input: Input<'_>) -> Result<Self, Reject>;
    /// As `info qtree` shows it.
    fn human(&self) -> String {
        human(&self.to_json())
    }
    /// The accepted texts, for enumerations.
    fn values() -> &'static [&'static str] {
        &[]
    }
    /// What a structure's member is when it is not given; `None`: it must be given.
    fn absent() -> Option<Self> {
        None
    }
    /// A list written as one text.
    fn take_list(_text: &str) -> Result<Vec<Self>, Reject> {
        Err(Reject::wrong_type("array"))
    }
}

/// A JSON value as `info qtree` shows it: integers in two bases, strings quoted.
pub fn human(v: &Value) -> String {
    match v {
        Value::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(u), _) => format!("{u} ({u:#x})"),
            (None, Some(i)) => format!("{i} ({i:#x})"),
            _ => n.to_string(),
        },
        v => v.to_string(),
    }
}

/// Where a [`Prop`] keeps its value.
pub trait PropCell<T>: Send + Sync {
    /// A cell with `v` in it.
    fn new(v: T) -> Self;
    /// A copy of the value.
    fn load(&self) -> T;
    /// Calls `f` with the value; `f` must not touch the cell.
    fn read<R>(&self, f: impl FnOnce(&T) -> R) -> R;
    /// Replaces the value.
    fn store(&self, v: T);
}

impl<T: Copy + Send> PropCell<T> for AtomicCell<T> {
    fn new(v: T) -> Self {
        Self::new(v)
    }
    fn load(&self) -> T {
        AtomicCell::load(self)
    }
    fn read<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&AtomicCell::load(self))
    }
    fn store(&self, v: T) {
        AtomicCell::store(self, v);
    }
}

impl<T: Clone + Send + Sync> PropCell<T> for RwLock<T> {
    fn new(v: T) -> Self {
        Self::new(v)
    }
    fn load(&self) -> T {
        RwLock::read(self).clone()
    }
    fn read<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&RwLock::read(self))
    }
    fn store(&self, v: T) {
        *self.write() = v;
    }
}

/// A property's value in a field: written through `&self`, read as one plain load for small types.
pub struct Prop<T: PropType>(T::Cell);

impl<T: PropType> Prop<T> {
    /// A field with the value `v`.
    pub fn new(v: T) -> Self {
        Self(T::Cell::new(v))
    }
    /// The value.
    pub fn get(&self) -> T {
        self.0.load()
    }
    /// Sets the value. The owner's own code may do so at any time; the property layer checks freezing first.
    pub fn set(&self, v: T) {
        self.0.store(v);
    }
    /// The value as QMP shows it.
    pub fn json(&self) -> Value {
        self.0.read(PropType::to_json)
    }
    /// Calls `f` with the value, which may be locked meanwhile: `f` must not touch the property.
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        self.0.read(f)
    }
}

impl<T: PropType + Default> Default for Prop<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: PropType + fmt::Debug> fmt::Debug for Prop<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.read(|v| v.fmt(f))
    }
}

/// `strtoull(s, NULL, 0)`'s syntax: blanks, sign, then hexadecimal after `0x`, octal after `0`, else decimal.
fn integer(text: &str) -> Option<i128> {
    let t = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let (negative, t) = match t.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, t.strip_prefix('+').unwrap_or(t)),
    };
    let (radix, digits) = match t.strip_prefix("0x").or_else(|| t.strip_prefix("0X")) {
        Some(hex) => (16, hex),
        None if t.len() > 1 && t.starts_with('0') => (8, t.get(1..)?),
        None => (10, t),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let v = i128::from(u64::from_str_radix(digits, radix).ok()?);
    Some(if negative { -v } else { v })
}

macro_rules! ints {
    ($($t:ty, $name:literal, $text:expr;)*) => { $(
        impl PropType for $t {
            type Cell = AtomicCell<$t>;
            const TYPE: &'static str = $name;
            fn to_json(&self) -> Value {
                (*self).into()
            }
            fn take(input: Input<'_>) -> Result<Self, Reject> {
                let range = || Reject::expects(format!(concat!($name, " ({} to {})"), <$t>::MIN, <$t>::MAX));
                let v = match input {
                    Input::Json(Value::Number(n)) => match (n.as_i64(), n.as_u64()) {
                        (Some(i), _) => i128::from(i),
                        (None, Some(u)) => i128::from(u),
                        (None, None) => return Err(Reject::wrong_type("integer")),
                    },
                    Input::Text(s) => {
                        let narrow: fn(i128) -> i128 = $text;
                        narrow(integer(s).ok_or_else(range)?)
                    }
                    _ => return Err(Reject::wrong_type("integer")),
                };
                <$t>::try_from(v).map_err(|_| range())
            }
            fn take_list(text: &str) -> Result<Vec<Self>, Reject> {
                int_list(text, |s| Self::take(Input::Text(s)))
            }
        }
    )* };
}
// `-1` is a way to write the largest uint64, but of no smaller type.
ints! {
    u8, "uint8", |v| v;
    u16, "uint16", |v| v;
    u32, "uint32", |v| v;
    u64, "uint64", |v| if (i128::from(i64::MIN)..0).contains(&v) { v + (1 << 64) } else { v };
    i8, "int8", |v| v;
    i16, "int16", |v| v;
    i32, "int32", |v| v;
    i64, "int64", |v| v;
}

/// Most elements a list of ranges may have: `0-4294967295` is a mistake, not a wish.
const LIST_MAX: usize = 1 << 16;

/// `1,3-5`.
fn int_list<T: Copy + PartialOrd + TryFrom<i128>>(
    text: &str,
    one: impl Fn(&str) -> Result<T, Reject>,
) -> Result<Vec<T>, Reject>
where
    i128: From<T>,
{
    let mut all = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        // a '-' in front is a sign
        let dash = part.char_indices().skip(1).find(|c| c.1 == '-').map(|c| part.split_at(c.0));
        let (first, last) = match dash {
            Some((first, rest)) => (one(first)?, one(rest.strip_prefix('-').unwrap_or(rest))?),
            None => (one(part)?, one(part)?),
        };
        let (first, last) = (i128::from(first), i128::from(last));
        let room = (LIST_MAX - all.len()) as i128;
        if first > last || last - first >= room {
            return Err(Reject::expects("a list of integers and ranges such as 1,3-5"));
        }
        all.extend((first..=last).filter_map(|v| T::try_from(v).ok()));
    }
    Ok(all)
}

impl PropType for bool {
    type Cell = AtomicCell<bool>;
    const TYPE: &'static str = "bool";
    fn to_json(&self) -> Value {
        (*self).into()
    }
    fn take(input: Input<'_>) -> Result<Self, Reject> {
        match input {
            Input::Json(Value::Bool(b)) => Ok(*b),
            Input::Text("on" | "yes" | "true" | "y") => Ok(true),
            Input::Text("off" | "no" | "false" | "n") => Ok(false),
            Input::Text(_) => Err(Reject::expects("'on' or 'off'")),
            _ => Err(Reject::wrong_type("boolean")),
        }
    }
}

impl PropType for String {
    type Cell = RwLock<String>;
    const TYPE: &'static str = "str";
    fn to_json(&self) -> Value {
        self.as_str().into()
    }
    fn take(input: Input<'_>) -> Result<Self, Reject> {
        input.string().map(str::to_owned)
    }
}

/// A number of bytes, type `size`: as text with a fraction and a suffix `B K M G T P E` (powers of 1024).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// Parses QEMU's size syntax with bytes as the unit of plain numbers.
    pub fn parse(text: &str) -> Option<u64> {
        Self::parse_unit(text, 1)
    }

    /// Parses QEMU's size syntax; a number without a suffix counts `unit` bytes (`-m` counts mebibytes).
    pub fn parse_unit(text: &str, unit: u64) -> Option<u64> {
        let t = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
        let t = t.strip_prefix('+').unwrap_or(t);
        if let Some(hex) = t.strip_prefix("0x").or_else(|| t.strip_prefix("0X")) {
            // no suffix after a hexadecimal number: B and E are digits
            let digits = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
            return digits.then(|| u64::from_str_radix(hex, 16).ok()?.checked_mul(unit)).flatten();
        }
        let (number, scale) = match t.char_indices().next_back()? {
            (_, c) if c.is_ascii_digit() || c == '.' => (t, unit),
            (i, c) => {
                let power = "BKMGTPE".find(c.to_ascii_uppercase())?;
                (t.get(..i)?, 1 << (10 * power))
            }
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || whole.len() + fraction.len() == 0 {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let fraction = fraction.trim_end_matches('0');
        if !fraction.is_empty() && scale == 1 {
            return None; // a part of a byte
        }
        // fixed point with 64 bits behind the point, least significant digit first
        let tenth = |v: u128, d: u8| ((u128::from(d - b'0') << 64) + v) / 10;
        let part = fraction.bytes().rev().fold(0, tenth);
        let bytes = (part * u128::from(scale) + (1 << 63)) >> 64; // to the nearest byte
        whole.checked_mul(scale)?.checked_add(u64::try_from(bytes).ok()?)
    }
}

impl PropType for Size {
    type Cell = AtomicCell<Size>;
    const TYPE: &'static str = "size";
    fn to_json(&self) -> Value {
        self.0.into()
    }
    fn take(input: Input<'_>) -> Result<Self, Reject> {
        match input {
            Input::Text(s) => Self::parse(s).map(Size).ok_or_else(|| {
                Reject::expects("a non-negative number of bytes below 2^64, with an optional suffix k, M, G, T, P or E")
            }),
            Input::Json(_) => u64::take(input).map(Size),
            Input::Keyval(_) => Err(Reject::wrong_type("size")),
        }
    }
    fn human(&self) -> String {
        format!("{} ({})", self.0, size_text(self.0))
    }
}

impl From<u64> for Size {
    fn from(v: u64) -> Self {
        Self(v)
    }
}

/// A size with three significant digits and a binary unit: `128 MiB`.
pub fn size_text(v: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut scaled, mut at) = (v as f64, 0);
    while scaled >= 1000.0 && at + 1 < UNITS.len() {
        scaled /= 1024.0;
        at += 1;
    }
    let unit = UNITS.get(at).copied().unwrap_or("B");
    let digits = if scaled >= 100.0 {
        0
    } else if scaled >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

impl<T: PropType> PropType for Vec<T> {
    type Cell = RwLock<Vec<T>>;
    const TYPE: &'static str = "list";
    fn to_json(&self) -> Value {
        self.iter().map(PropType::to_json).collect()
    }
    fn take(input: Input<'_>) -> Result<Self, Reject> {
        if let Input::Text(s) = input {
            return T::take_list(s);
        }
        let each = |(i, e): (usize, Input<'_>)| T::take(e).map_err(|r| r.at_index(i));
        input.elements()?.into_iter().enumerate().map(each).collect()
    }
}

impl<T: PropType> PropType for Option<T> {
    type Cell = RwLock<Option<T>>;
    const TYPE: &'static str = T::TYPE;
    fn to_json(&self) -> Value {
        self.as_ref().map_or(Value::Null, PropType::to_json)
    }
    fn take(input: Input<'_>) -> Result<Self, Reject> {
        match input {
            Input::Json(Value::Null) => Ok(None),
            i => T::take(i).map(Some),
        }
    }
    fn values() -> &'static [&'static str] {
        T::values()
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// An enumeration that properties can have: written by `#[derive(PropEnum)]`.
pub trait PropEnum: Copy + PartialEq + Send + Sync + 'static {
    /// QAPI name of the type.
    const TYPE: &'static str;
    /// The accepted texts, in order.
    const NAMES: &'static [&'static str];
    /// The values of [`Self::NAMES`].
    const VALUES: &'static [Self];

    /// The value's text.
    fn as_str(self) -> &'static str;

    /// The value with this text.
    fn from_text(text: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|n| *n == text)?;
        Self::VALUES.get(at).copied()
    }
}

/// `on`, `off`, or left to the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, crate::PropEnum)]
#[qom(name = "OnOffAuto")]
pub enum OnOffAuto {
    /// Yes.
    On,
    /// No.
    Off,
    /// Left to whoever reads it.
    #[default]
    Auto,
}

/// [`PropType::take`] of an enumeration.
#[doc(hidden)]
pub fn take_enum<E: PropEnum>(input: Input<'_>) -> Result<E, Reject> {
    let text = input.string()?;
    E::from_text(text).ok_or_else(|| Reject::not_among(text, E::NAMES))
}

/// [`PropType::to_json`] of a structure's member.
#[doc(hidden)]
pub fn put_member<T: PropType>(map: &mut serde_json::Map<String, Value>, key: &str, v: &T) {
    match v.to_json() {
        Value::Null => {}
        v => drop(map.insert(key.to_owned(), v)),
    }
}

/// The members of a structure on its way into a property.
#[doc(hidden)]
pub struct Members<'a>(Vec<(&'a str, Input<'a>)>);

impl<'a> Members<'a> {
    /// Checks that there are no others than `known`.
    pub fn of(input: &Input<'a>, known: &[&str]) -> Result<Self, Reject> {
        let all = input.members()?;
        match all.iter().find(|(k, _)| !known.contains(k)) {
            Some((k, _)) => Err(Reject::unexpected(k, known)),
            None => Ok(Self(all)),
        }
    }

    /// The member `key`.
    pub fn take<T: PropType>(&self, key: &str) -> Result<T, Reject> {
        match self.0.iter().find(|(k, _)| *k == key) {
            Some((_, v)) => T::take(*v).map_err(|r| r.at(key)),
            None => T::absent().ok_or_else(|| Reject::missing().at(key)),
        }
    }
}
