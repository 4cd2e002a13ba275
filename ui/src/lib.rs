//! Screens and input.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod console;
pub mod input;
pub mod keys;
pub mod picture;

pub use console::{GraphicConsole, GraphicHw, create_text_console, screendump};
pub use picture::Picture;
