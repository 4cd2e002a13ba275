//! Screens and input.
