//! Backing chains: which layers there are, and which of them have a range.

use crate::driver::Status;
use crate::node::Node;
use std::io;
use std::sync::Arc;

/// The node itself, or the one that it filters.
pub(crate) fn unfiltered(node: &Arc<Node>) -> Arc<Node> {
    std::iter::successors(Some(node.clone()), |n| n.filtered()).last().unwrap_or_else(|| node.clone())
}

/// The layers of a chain, the top first, without filters.
pub(crate) fn layers(top: &Arc<Node>) -> Vec<Arc<Node>> {
    std::iter::successors(Some(unfiltered(top)), |n| n.backing().map(|b| unfiltered(&b))).collect()
}

/// What the layers from `top` down to, but without, `base` have of a range: of its first bytes, and how many are alike. A layer that ends
/// before the range has zeros there: what lies below does not show.
pub(crate) fn status(
    top: &Arc<Node>,
    base: Option<&Arc<Node>>,
    offset: u64,
    mut len: u64,
) -> io::Result<(Status, u64)> {
    let base = base.map(unfiltered);
    for node in layers(top) {
        if base.as_ref().is_some_and(|b| Arc::ptr_eq(b, &node)) {
            break;
        }
        let size = node.len()?;
        let size = size.checked_next_multiple_of(crate::SECTOR).unwrap_or(size);
        if offset >= size {
            return Ok((Status::Zero, len));
        }
        len = len.min(size - offset);
        let (found, n) = node.driver().status(offset, len)?;
        len = len.min(n.max(1));
        if found != Status::Below {
            return Ok((found, len));
        }
    }
    Ok((Status::Below, len))
}

/// Copies into `top` what it has not of a range itself but a layer above `base` has.
///
/// # Errors
/// As the host says.
pub(crate) fn copy_up(top: &Arc<Node>, base: Option<&Arc<Node>>, offset: u64, len: u64) -> io::Result<()> {
    let top = unfiltered(top);
    let Some(below) = top.backing().filter(|_| !top.is_read_only()) else { return Ok(()) };
    let (mut at, end) = (offset, offset.saturating_add(len));
    while at < end {
        let (own, n) = status(&top, Some(&below), at, end - at)?;
        if own == Status::Below {
            let (there, n) = match base {
                Some(base) => status(&below, Some(base), at, n)?,
                // Without a base all of the chain counts, also what no layer has: it need not be looked for again.
                None => (Status::Data, n),
            };
            if there != Status::Below {
                top.populate(at, n)?;
            }
            at += n;
        } else {
            at += n;
        }
    }
    Ok(())
}
