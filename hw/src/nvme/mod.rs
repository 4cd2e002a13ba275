//! NVM Express: types `nvme`, `nvme-bus`, `nvme-ns`. Source: NVM Express 1.4 (base specification).
//!
//! A controller ([`ctrl`]) fetches commands from submission queues in guest memory and posts completions to completion queues. What a command
//! does is data first (`spec`, `identify`, `data`), then either an answer at once (`admin`) or a *job* (`io`): a value that is part
//! of the state until its completion is posted, as IDE's jobs are. A namespace ([`ns`]) is a drive.
//! Not modelled: SR-IOV, zones, placement, metadata and protection information, controller memory buffers, persistent memory regions,
//! shadow doorbells, copy, formatting, namespace management, subsystems of several controllers.

mod admin;
pub mod ctrl;
mod data;
mod identify;
mod io;
pub mod ns;
mod queues;
mod spec;
