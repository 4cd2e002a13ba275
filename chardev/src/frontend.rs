//! The end of a character device that a device or monitor owns.

use crate::channel::Channel;
use crate::{Error, Result};
use parking_lot::Mutex;
use std::sync::Arc;

/// What happens on a channel besides bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The other end is there.
    Opened,
    /// The other end went away.
    Closed,
    /// A break was received.
    Break,
    /// The multiplexer's keyboard now belongs to this front end.
    MuxIn,
    /// The multiplexer's keyboard went to another front end.
    MuxOut,
}

/// Takes bytes from the host.
pub type ReceiveFn = Box<dyn Fn(&[u8]) + Send + Sync>;

/// How a front end is called; always on the event loop's thread, with no lock held.
pub struct Handlers {
    /// How many bytes can be taken now; 0 stops the channel until [`CharFrontend::accept_input`].
    pub can_receive: Box<dyn Fn() -> usize + Send + Sync>,
    /// Takes bytes, at most as many as `can_receive` said.
    pub receive: ReceiveFn,
    /// Takes an event.
    pub event: Box<dyn Fn(Event) + Send + Sync>,
}

/// The owner's end of a channel; unattached until [`CharFrontend::attach`].
#[derive(Default)]
pub struct CharFrontend {
    to: Mutex<Option<(Arc<Channel>, usize)>>,
}

impl CharFrontend {
    /// Takes `channel` for this front end.
    ///
    /// # Errors
    /// When another front end has it, or a multiplexer has no room.
    pub fn attach(&self, channel: &Arc<Channel>) -> Result<()> {
        let tag = channel.attach()?;
        if let Some((old, tag)) = self.to.lock().replace((channel.clone(), tag)) {
            old.detach(tag);
        }
        Ok(())
    }

    /// Gives the channel back.
    pub fn detach(&self) {
        let old = self.to.lock().take();
        if let Some((channel, tag)) = old {
            channel.detach(tag);
        }
    }

    /// The channel, if there is one.
    pub fn channel(&self) -> Option<Arc<Channel>> {
        self.to.lock().as_ref().map(|(c, _)| c.clone())
    }

    fn attached(&self) -> Option<(Arc<Channel>, usize)> {
        self.to.lock().clone()
    }

    /// Whether bytes go anywhere.
    pub fn is_attached(&self) -> bool {
        self.to.lock().is_some()
    }

    /// Sets who is called; [`Event::Opened`] follows from the event loop if the other end is there already.
    pub fn set_handlers(&self, handlers: Handlers) {
        if let Some((channel, tag)) = self.attached() {
            channel.set_handlers(tag, handlers);
        }
    }

    /// Writes without blocking; how many bytes were taken. Without a channel, or with nobody at the other end, all are.
    pub fn write(&self, bytes: &[u8]) -> usize {
        self.attached().map_or(bytes.len(), |(channel, _)| channel.write(bytes))
    }

    /// Takes all of `bytes`: what the host does not take now waits in memory.
    pub fn write_all(&self, bytes: &[u8]) {
        if let Some((channel, _)) = self.attached() {
            channel.write_all(bytes);
        }
    }

    /// How many bytes of [`CharFrontend::write_all`] still wait.
    pub fn queued(&self) -> usize {
        self.attached().map_or(0, |(channel, _)| channel.queued())
    }

    /// Calls `job` once, on the event loop's thread, when a write would take bytes again.
    pub fn on_writable(&self, job: impl FnOnce() + Send + 'static) {
        if let Some((channel, _)) = self.attached() {
            channel.on_writable(Box::new(job));
        }
    }

    /// Says that `can_receive` would now return more than before.
    pub fn accept_input(&self) {
        if let Some((channel, _)) = self.attached() {
            channel.accept_input();
        }
    }

    /// Lets the terminal show what is typed (QMP), or not (a serial line).
    pub fn set_echo(&self, on: bool) {
        if let Some((channel, _)) = self.attached() {
            channel.set_echo(on);
        }
    }

    /// Says whether anybody behind this front end takes part: a guest that has the port open. True until something else is said.
    pub fn set_open(&self, on: bool) {
        if let Some((channel, tag)) = self.attached() {
            channel.set_frontend_open(tag, on);
        }
    }

    /// Gives the multiplexer's keyboard to this front end, if it sits behind one.
    pub fn take_focus(&self) {
        if let Some((channel, tag)) = self.attached() {
            channel.set_focus(tag);
        }
    }

    /// The attached channel, or the error that names it missing.
    ///
    /// # Errors
    /// When nothing is attached.
    pub fn require(&self, owner: &str) -> Result<Arc<Channel>> {
        self.channel().ok_or_else(|| Error::Config(format!("Can't create {owner} device, empty char device")))
    }
}

impl Drop for CharFrontend {
    fn drop(&mut self) {
        self.detach();
    }
}

impl std::fmt::Debug for CharFrontend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CharFrontend").field(&self.channel().map(|c| c.label().to_owned())).finish()
    }
}
