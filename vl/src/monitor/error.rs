//! An error as QMP replies it.

use serde_json::{Value, json};

/// Class and description of an error reply.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{desc}")]
pub struct QmpError {
    /// QAPI error class.
    pub class: &'static str,
    /// One line for people.
    pub desc: String,
}

/// Result of a QMP command.
pub type QmpResult<T = Value> = Result<T, QmpError>;

impl QmpError {
    /// Class `GenericError`.
    pub fn generic(desc: impl Into<String>) -> Self {
        Self { class: "GenericError", desc: desc.into() }
    }

    /// Class `CommandNotFound`.
    pub fn not_found(desc: impl Into<String>) -> Self {
        Self { class: "CommandNotFound", desc: desc.into() }
    }

    /// The `error` member of a reply.
    pub fn to_value(&self) -> Value {
        json!({"class": self.class, "desc": self.desc})
    }
}

impl From<qom::Error> for QmpError {
    fn from(e: qom::Error) -> Self {
        Self { class: e.class(), desc: e.to_string() }
    }
}

impl From<chardev::Error> for QmpError {
    fn from(e: chardev::Error) -> Self {
        Self::generic(e.to_string())
    }
}
