//! The x86 CPU: state, models, decode, semantics, MMU.
