//! Backends that are a socket of the host, and hubs.

mod address;
mod datagram;
mod hub;
mod passt;
mod stream;
mod tap;
