//! What a multiplexer writes to and reads from: another channel, of which it is the front end.

use super::Backend;
use crate::Result;
use crate::channel::Channel;
use crate::frontend::{CharFrontend, Handlers};
use hw_core::event_loop::Job;
use std::sync::Arc;

pub(crate) struct Link {
    base: CharFrontend,
}

impl Link {
    pub(crate) fn new(mux: &Arc<Channel>, base: &Arc<Channel>) -> Result<Self> {
        let front = CharFrontend::default();
        front.attach(base)?;
        let (can, take, event) = (Arc::downgrade(mux), Arc::downgrade(mux), Arc::downgrade(mux));
        if base.is_open() {
            mux.start_open();
        }
        front.set_handlers(Handlers {
            can_receive: Box::new(move || can.upgrade().map_or(0, |m| m.can_receive())),
            receive: Box::new(move |bytes| {
                if let Some(m) = take.upgrade() {
                    m.receive(bytes);
                }
            }),
            event: Box::new(move |e| {
                if let Some(m) = event.upgrade()
                    && !(e == crate::Event::Opened && m.is_open())
                {
                    m.event(e);
                }
            }),
        });
        Ok(Self { base: front })
    }
}

impl Backend for Link {
    fn write(&self, bytes: &[u8]) -> usize {
        self.base.write(bytes)
    }
    fn on_writable(&self, job: Job) {
        self.base.on_writable(job);
    }
    fn accept_input(&self) {
        self.base.accept_input();
    }
    fn filename(&self) -> String {
        "mux".into()
    }
    fn set_echo(&self, on: bool) {
        self.base.set_echo(on);
    }
    fn close(&self) {
        self.base.detach();
    }
}
