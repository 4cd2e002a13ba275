//! Memory, interrupts, clocks, qdev, buses: what every device stands on.
pub mod event_loop;
