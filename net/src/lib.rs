//! The network: clients, what connects them, and the backends that reach the host.
//!
//! A [`Client`] is one end of a link: a card's (`nic`) or a backend's ([`backend::BackendDef`], found by name in a registry filled at link
//! time). Two clients that are each other's *peers* exchange Ethernet frames; a `hubport` belongs to a hub that copies frames among its
//! ports. A frame is put into the receiver's inbox ([`Client::send`]), and the event loop's thread hands inboxes to their
//! owners ([`Nets::deliver`]) with no lock held. An owner that cannot take a frame leaves it there; whoever sends learns that the
//! inbox is full, stops reading from the host, and is told when there is room again ([`End::peer_ready`]). An inbox holds at most
//! [`client::INBOX`] frames: what a sender that does not listen puts beyond that is lost, as on a wire.
//!
//! Not here yet: `l2tpv3`, `vde`, `bridge`, `netmap`, `vhost-user`, `vhost-vdpa`, the default network card.
#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

pub mod backend;
mod backends;
pub mod checksum;
pub mod client;
pub mod filter;
pub mod guest_port;
mod hostfd;
mod join;
mod mac;
mod nets;
mod nic;
pub mod offload;
pub mod user;

pub use client::{Client, End, Frame, Parcel};
pub use guest_port::GuestPort;
pub use hw_core::opts::Opts;
pub use mac::MacAddr;
pub use nets::{Nets, NicRequest};
pub use nic::{Busy, MacProp, Nic, NicHandlers, PeerSlot};

/// Options of a backend as text; those that are lists in QAPI's `Netdev` may come again.
///
/// # Errors
/// A key that is both a value and an object.
pub fn keyval<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> qom::Result<Opts> {
    Opts::keyval_with(pairs, &["hostfwd", "guestfwd", "dnssearch", "search", "tcp-ports", "udp-ports", "param"])
}
