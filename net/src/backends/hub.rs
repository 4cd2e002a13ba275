//! `hubport`: a hub copies each frame to all its other ports.

use crate::backend::BackendDef;
use crate::client::{Client, End, Parcel};
use crate::nets::Nets;
use hw_core::opts::Opts;
use qom::{Error, Result};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

struct HubPort {
    hub: i64,
    nets: Weak<Nets>,
    me: Weak<Client>,
}

impl End for HubPort {
    fn receive(&self, frames: &mut VecDeque<Parcel>) {
        let (Some(nets), Some(me)) = (self.nets.upgrade(), self.me.upgrade()) else { return frames.clear() };
        let others = nets.clients();
        let others = others.iter().filter(|c| !Arc::ptr_eq(c, &me) && c.end().and_then(|e| e.hub()) == Some(self.hub));
        let others: Vec<_> = others.collect();
        for frame in frames.drain(..) {
            for port in &others {
                port.send(frame.clone());
            }
        }
    }

    fn hub(&self) -> Option<i64> {
        Some(self.hub)
    }
}

fn open(nets: &Arc<Nets>, client: &Arc<Client>, opts: &mut Opts) -> Result<Arc<dyn End>> {
    let hub = opts.take_number("hubid")?.ok_or_else(|| Error::generic("Parameter 'hubid' is missing"))?;
    let hub = i64::from(i32::try_from(hub).map_err(|_| Error::generic("Parameter 'hubid' expects a 32-bit number"))?);
    if let Some(id) = opts.take_str("netdev")? {
        let peer = nets.netdev(&id).ok_or_else(|| Error::generic(format!("netdev '{id}' not found")))?;
        if peer.peer().is_some() {
            return Err(Error::generic(format!("netdev '{id}' is in use")));
        }
        nets.connect(client, &peer);
    }
    client.set_info(format!("hubid={hub}"));
    Ok(Arc::new(HubPort { hub, nets: Arc::downgrade(nets), me: Arc::downgrade(client) }))
}

inventory::submit! { BackendDef { name: "hubport", open } }
