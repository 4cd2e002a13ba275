//! Errors of the object model, worded as QEMU words them, each with its QAPI error class.

use std::borrow::Cow;
use std::fmt;

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was wrong, where, and what would be accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A message of class `GenericError`.
    #[error("{0}")]
    Generic(String),
    /// A message with another QAPI class (`CommandNotFound`, `DeviceNotActive`, …).
    #[error("{desc}")]
    Class {
        /// The QAPI class name.
        class: &'static str,
        /// The message.
        desc: String,
    },
    /// No type has this name.
    #[error("invalid object type: {name}{}", DidYouMean(near))]
    UnknownType {
        /// What was asked for.
        name: String,
        /// The nearest names.
        near: Vec<String>,
    },
    /// Abstract types have no instances.
    #[error("object type '{0}' is abstract")]
    AbstractType(&'static str),
    /// Neither the class nor the object has this property.
    #[error("Property '{ty}.{name}' not found{}", DidYouMean(near))]
    PropertyNotFound {
        /// The object's type.
        ty: &'static str,
        /// The property asked for.
        name: String,
        /// The nearest names.
        near: Vec<String>,
    },
    /// The property has no getter.
    #[error("Property '{ty}.{name}' is not readable")]
    NotReadable {
        /// The object's type.
        ty: &'static str,
        /// The property.
        name: String,
    },
    /// The property has no setter.
    #[error("Property '{ty}.{name}' is not writable")]
    NotWritable {
        /// The object's type.
        ty: &'static str,
        /// The property.
        name: String,
    },
    /// The object is frozen and the property is not `live`.
    #[error("Attempt to set property '{name}' on {who} (type '{ty}') after it was realized")]
    Realized {
        /// The object's type.
        ty: &'static str,
        /// The property.
        name: String,
        /// `device 'id'` or `anonymous device`.
        who: String,
    },
    /// The property's type refuses the value.
    #[error("{}", reject.message(ty, name))]
    Value {
        /// The object's type.
        ty: &'static str,
        /// The property.
        name: String,
        /// Why.
        reject: Box<Reject>,
    },
    /// The object already has a property, or child, of this name.
    #[error("attempt to add duplicate property '{name}' to object (type '{ty}')")]
    DuplicateProperty {
        /// The object's type.
        ty: &'static str,
        /// The property.
        name: String,
    },
    /// No object at this path (class `DeviceNotFound`).
    #[error("Device '{0}' not found")]
    DeviceNotFound(String),
    /// A partial path that fits several objects.
    #[error("Path '{0}' does not uniquely identify an object")]
    Ambiguous(String),
    /// Start-up: two types of one name.
    #[error("type '{name}' is registered twice: {first} and {second}")]
    DuplicateType {
        /// The name.
        name: String,
        /// Where it was registered first, `file:line`.
        first: &'static str,
        /// Where it was registered again.
        second: &'static str,
    },
    /// Start-up: a parent or interface that is not registered.
    #[error("type '{name}' ({place}) has the unknown {role} '{parent}'{}", DidYouMean(near))]
    UnknownParent {
        /// The type.
        name: String,
        /// Where it was registered.
        place: &'static str,
        /// `parent` or `interface`.
        role: &'static str,
        /// The name nobody registered.
        parent: String,
        /// The nearest names.
        near: Vec<String>,
    },
    /// Start-up: a type that is its own ancestor.
    #[error("type '{name}' ({place}) is its own ancestor")]
    Cycle {
        /// The type.
        name: String,
        /// Where it was registered.
        place: &'static str,
    },
    /// An error with what was being done in front of it. Keeps the class of the cause.
    #[error("{what}: {cause}")]
    Context {
        /// What was attempted.
        what: String,
        /// What went wrong.
        cause: Box<Error>,
    },
}

impl Error {
    /// An error of class `GenericError`.
    pub fn generic(message: impl Into<String>) -> Self {
        Self::Generic(message.into())
    }

    /// The same error with `what: ` in front.
    pub fn context(self, what: impl Into<String>) -> Self {
        Self::Context { what: what.into(), cause: Box::new(self) }
    }

    /// Name of the QAPI error class.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Class { class, .. } => class,
            Self::DeviceNotFound(_) => "DeviceNotFound",
            Self::Context { cause, .. } => cause.class(),
            _ => "GenericError",
        }
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::Generic(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::Generic(message.to_owned())
    }
}

struct DidYouMean<'a>(&'a [String]);

impl fmt::Display for DidYouMean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rest @ .., last] = self.0 else { return Ok(()) };
        f.write_str(" (did you mean ")?;
        for (i, name) in rest.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "'{name}'")?;
        }
        if !rest.is_empty() {
            f.write_str(" or ")?;
        }
        write!(f, "'{last}'?)")
    }
}

/// Why a value was refused by a property type. The property layer adds the name.
#[derive(Clone, Debug)]
pub struct Reject {
    path: String,
    kind: RejectKind,
}

#[derive(Clone, Debug)]
enum RejectKind {
    Type(Cow<'static, str>),
    Expects(Cow<'static, str>),
    Accepts { value: String, accepted: String },
    Custom { value: String, expected: Cow<'static, str> },
    Missing,
    Unexpected(Vec<String>),
    Other(Box<Error>),
}

impl Reject {
    fn new(kind: RejectKind) -> Self {
        Self { path: String::new(), kind }
    }

    /// A JSON value of the wrong kind: "Invalid parameter type for 'x', expected: …".
    pub fn wrong_type(expected: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectKind::Type(expected.into()))
    }

    /// "Parameter 'x' expects …".
    pub fn expects(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectKind::Expects(what.into()))
    }

    /// "Parameter 'x' does not accept value 'v' (accepted: a, b)".
    pub fn not_among(value: impl Into<String>, accepted: &[&str]) -> Self {
        Self::new(RejectKind::Accepts { value: value.into(), accepted: accepted.join(", ") })
    }

    /// "Property 'type.x' doesn't take value 'v': expected …", for types with a syntax of their own.
    pub fn value(value: impl Into<String>, expected: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectKind::Custom { value: value.into(), expected: expected.into() })
    }

    /// A member of a structure that must be given and is not.
    pub fn missing() -> Self {
        Self::new(RejectKind::Missing)
    }

    /// A member the structure does not have; `known` are those it has.
    pub fn unexpected(key: &str, known: &[&str]) -> Self {
        Self::new(RejectKind::Unexpected(crate::nearest(key, known.iter().copied()))).at(key)
    }

    /// The same, said of member `key` of the value.
    pub fn at(mut self, key: &str) -> Self {
        self.path = format!(".{key}{}", self.path);
        self
    }

    /// The same, said of element `index` of the value.
    pub fn at_index(mut self, index: usize) -> Self {
        self.path = format!("[{index}]{}", self.path);
        self
    }

    pub(crate) fn message(&self, ty: &str, name: &str) -> String {
        let at = &self.path;
        match &self.kind {
            RejectKind::Type(t) => format!("Invalid parameter type for '{name}{at}', expected: {t}"),
            RejectKind::Expects(t) => format!("Parameter '{name}{at}' expects {t}"),
            RejectKind::Accepts { value, accepted } => {
                format!("Parameter '{name}{at}' does not accept value '{value}' (accepted: {accepted})")
            }
            RejectKind::Custom { value, expected } => {
                format!("Property '{ty}.{name}{at}' doesn't take value '{value}': expected {expected}")
            }
            RejectKind::Missing => format!("Parameter '{name}{at}' is missing"),
            RejectKind::Unexpected(near) => format!("Parameter '{name}{at}' is unexpected{}", DidYouMean(near)),
            RejectKind::Other(e) => e.to_string(),
        }
    }

    /// As the property layer reports it.
    pub(crate) fn into_error(self, ty: &'static str, name: &str) -> Error {
        match self.kind {
            RejectKind::Other(e) => *e,
            _ => Error::Value { ty, name: name.to_owned(), reject: Box::new(self) },
        }
    }
}

impl From<Error> for Reject {
    fn from(e: Error) -> Self {
        Self::new(RejectKind::Other(Box::new(e)))
    }
}
