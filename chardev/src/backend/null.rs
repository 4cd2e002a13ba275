//! `null`, and `vc` without a display: takes everything, gives nothing.

use super::Backend;
use crate::channel::Channel;
use hw_core::event_loop::{EventLoop, Job};
use std::sync::Arc;

pub(crate) struct Null {
    events: EventLoop,
    name: &'static str,
}

impl Null {
    pub(crate) fn new(channel: &Arc<Channel>, name: &'static str) -> Self {
        channel.start_open();
        Self { events: channel.host().events.clone(), name }
    }
}

impl Backend for Null {
    fn write(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn on_writable(&self, job: Job) {
        self.events.post(job);
    }
    fn filename(&self) -> String {
        self.name.into()
    }
}
