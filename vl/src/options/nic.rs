//! `-netdev`, `-nic` and `-net`, understood and carried out.

use super::desc;
use super::opts::{OptError, Opts};
use crate::json;
use net::{Nets, NicRequest};
use qom::{Error, Result};
use serde_json::Value;
use std::sync::Arc;

fn other(e: &impl ToString) -> OptError {
    OptError::Other(e.to_string())
}

/// `-netdev`: JSON or a list whose first item may be the type.
///
/// # Errors
/// Neither.
pub fn netdev(text: &str) -> Result<net::Opts, OptError> {
    if text.starts_with('{') {
        return match json::from_str(text).map_err(|e| other(&e))? {
            Value::Object(map) => Ok(net::Opts::json(map)),
            _ => Err(OptError::Other("expected a JSON object".into())),
        };
    }
    let o = Opts::parse(text, &desc::NETDEV)?;
    net::keyval(o.pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()))).map_err(|e| other(&e))
}

fn mac(text: Option<String>) -> Result<Option<net::MacAddr>> {
    let Some(text) = text else { return Ok(None) };
    let mac = net::MacAddr::parse(&text).ok_or_else(|| Error::generic("invalid syntax for ethernet address"))?;
    if mac.is_multicast() {
        return Err(Error::generic("NIC cannot have multicast MAC address (odd 1st byte)"));
    }
    Ok(Some(mac))
}

/// What `-net KIND` stands for.
pub fn by_type(kind: &str) -> Opts {
    Opts { pairs: vec![("type".into(), kind.into())], ..Opts::default() }
}

fn backend(o: &Opts) -> Result<net::Opts> {
    net::keyval(o.pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())))
}

/// Acts on `-nic` (a card with its backend).
///
/// # Errors
/// A type or option that is none, or what the host says.
pub fn nic(nets: &Arc<Nets>, o: &Opts) -> Result<()> {
    let mut o = o.clone();
    let kind = o.take("type").unwrap_or_else(|| "user".into());
    let (model, mac) = (o.take("model"), mac(o.take("mac"))?);
    if kind == "nic" {
        return Err(Error::generic("'nic' is not supported as backend of -nic"));
    }
    let peer = match o.id.take() {
        Some(id) => {
            let mut opts = backend(&o)?;
            opts.set("type", &kind);
            opts.set("id", &id);
            nets.netdev_add(opts)?
        }
        None => nets.add_unnamed(&kind, backend(&o)?)?,
    };
    nets.request_nic(NicRequest { model, mac, peer: Some(peer) });
    Ok(())
}

/// Acts on `-net`: a card, or a backend, on hub 0.
///
/// # Errors
/// As [`nic`].
pub fn legacy(nets: &Arc<Nets>, o: &Opts) -> Result<()> {
    let mut o = o.clone();
    let kind = o.take("type").ok_or_else(|| Error::generic("Parameter 'type' is missing"))?;
    if kind != "nic" {
        if kind == "hubport" {
            return Err(Error::generic("Parameter 'type' does not accept value 'hubport' with -net"));
        }
        let peer = match o.id.take().or_else(|| o.take("name")) {
            Some(id) => {
                let mut opts = backend(&o)?;
                opts.set("type", &kind);
                opts.set("id", &id);
                nets.netdev_add(opts)?
            }
            None => nets.add_unnamed(&kind, backend(&o)?)?,
        };
        return nets.hub_port(Some(&peer)).map(drop);
    }
    let (model, mac) = (o.take("model"), mac(o.take("macaddr"))?);
    let peer = match o.take("netdev") {
        Some(id) => nets.netdev(&id).ok_or_else(|| Error::generic(format!("netdev '{id}' not found")))?,
        None => nets.hub_port(None)?,
    };
    if let Some((key, _)) = o.pairs.first() {
        return Err(Error::generic(format!("Parameter '{key}' is unexpected")));
    }
    nets.request_nic(NicRequest { model, mac, peer: Some(peer) });
    Ok(())
}
