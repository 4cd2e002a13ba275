//! Installed systems on disks of their own: a Debian made of packages ([`image()`]), how it is booted and looked at ([`System`]), and what
//! must hold on every kind of disk ([`cycle()`]) and with a network ([`update()`]); discs and floppies with boot loaders ([`disc`]).

mod cycle;
pub mod disc;
mod image;
mod system;

pub use cycle::{cycle, update};
pub use image::{image, sparse_copy};
pub use system::{BUSES, Bus, LOGIN, System, bare_machine, check, copy_as, usual_machine};
