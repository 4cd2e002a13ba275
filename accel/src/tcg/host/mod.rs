//! Host-instruction thunks: small safe functions with inline assembly inside and a software path beside.

pub mod lock;
