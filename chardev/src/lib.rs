//! Character backends.
