//! What `query-block`, `query-named-block-nodes` and `query-blockstats` answer, as QAPI's `block-core.json` has it.

use crate::backend::Backend;
use crate::blocks::Blocks;
use crate::node::Node;
use crate::stats::Stats;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Instant;

/// The node of the backing file.
fn backing(node: &Node) -> Option<Arc<Node>> {
    node.driver().children().into_iter().find(|(role, _)| *role == "backing").map(|(_, n)| n)
}

/// Nodes of the backing chain below a node, the nearest first.
fn chain(node: &Node) -> Vec<Arc<Node>> {
    std::iter::successors(backing(node), |n| backing(n)).collect()
}

/// `ImageInfo`; `backing`: with those of the backing chain.
fn image_info(node: &Node, backing: bool) -> Value {
    let below = if backing { chain(node) } else { vec![] };
    let mut info = below.iter().rev().fold(None, |inner, n| Some(with_backing(one_image(n), inner)));
    info = Some(with_backing(one_image(node), info));
    info.unwrap_or_default()
}

fn with_backing(mut info: Value, below: Option<Value>) -> Value {
    if let (Some(below), Some(map)) = (below, info.as_object_mut()) {
        map.insert("backing-image".into(), below);
    }
    info
}

fn one_image(node: &Node) -> Value {
    let mut v = json!({
        "filename": node.driver().filename(),
        "format": node.driver_name(),
        "virtual-size": node.len().unwrap_or(0),
        "dirty-flag": false,
    });
    if let (Some(size), Some(map)) = (node.driver().actual_size(), v.as_object_mut()) {
        map.insert("actual-size".into(), size.into());
    }
    if let (Some(Value::Object(more)), Some(map)) = (node.driver().specific(), v.as_object_mut()) {
        map.extend(more);
    }
    v
}

/// The limits of a drive's group, as `BlockDeviceInfo` has them.
fn limits(drive: Option<&Backend>) -> Map<String, Value> {
    const NAMES: [&str; 6] = ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"];
    let group = drive.and_then(Backend::group);
    let limits = group.as_ref().map(|g| g.limits()).unwrap_or_default();
    let mut map = Map::new();
    for (name, limit) in NAMES.iter().zip(&limits.all) {
        map.insert((*name).into(), limit.avg.into());
        if limit.max > 0 {
            map.insert(format!("{name}_max"), limit.max.into());
            map.insert(format!("{name}_max_length"), limit.length.into());
        }
    }
    if limits.iops_size > 0 {
        map.insert("iops_size".into(), limits.iops_size.into());
    }
    map.extend(group.map(|g| ("group".to_owned(), g.name().into())));
    map
}

/// `BlockDeviceInfo`. `drive`: the one above, if there is one; `flat`: without the images of the backing chain.
fn device_info(node: &Node, drive: Option<&Backend>, flat: bool) -> Value {
    let c = node.common();
    let below = chain(node);
    let children = node.driver().children();
    let children: Vec<Value> = children.iter().map(|(role, n)| json!({"child": role, "node-name": n.name()})).collect();
    let mut v = json!({
        "file": node.driver().filename(),
        "node-name": node.name(),
        "ro": node.is_read_only(),
        "drv": node.driver_name(),
        "backing_file_depth": below.len(),
        "children": children,
        "active": true,
        "encrypted": false,
        "detect_zeroes": c.detect_zeroes.name(),
        "image": image_info(node, !flat),
        "cache": {"writeback": drive.is_none_or(Backend::write_cache), "direct": c.cache.direct, "no-flush": c.cache.no_flush},
        "write_threshold": 0,
    });
    if let Some(map) = v.as_object_mut() {
        map.extend(limits(drive));
    }
    if let (Some(first), Some(map)) = (below.first(), v.as_object_mut()) {
        map.insert("backing_file".into(), first.driver().filename().into());
    }
    v
}

fn block_info(b: &Backend, flat: bool) -> Value {
    let tray = b.tray();
    let mut v = json!({
        "device": b.name(),
        "type": "unknown",
        "removable": b.is_removable(),
        "locked": tray.is_some_and(|t| t.1),
    });
    if let Some(map) = v.as_object_mut() {
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.into(), value);
            }
        };
        put("qdev", b.qdev().map(Value::from));
        put("tray_open", tray.map(|t| t.0.into()));
        put("io-status", b.io_status().map(Value::from));
        put("inserted", b.root().map(|n| device_info(&n, Some(b), flat)));
    }
    v
}

/// `BlockDeviceStats`; `drive`: of a drive, which counts what fails too.
fn stats(s: &Stats, drive: bool) -> Value {
    let mut v = json!({
        "rd_bytes": s.rd.bytes, "wr_bytes": s.wr.bytes, "zone_append_bytes": 0, "unmap_bytes": s.unmap.bytes,
        "rd_operations": s.rd.operations, "wr_operations": s.wr.operations, "zone_append_operations": 0,
        "flush_operations": s.flush.operations, "unmap_operations": s.unmap.operations,
        "rd_total_time_ns": s.rd.total_time_ns, "wr_total_time_ns": s.wr.total_time_ns,
        "zone_append_total_time_ns": 0,
        "flush_total_time_ns": s.flush.total_time_ns, "unmap_total_time_ns": s.unmap.total_time_ns,
        "wr_highest_offset": s.wr_highest_offset,
        "rd_merged": s.rd.merged, "wr_merged": s.wr.merged, "zone_append_merged": 0, "unmap_merged": 0,
        "failed_rd_operations": s.rd.failed, "failed_wr_operations": s.wr.failed,
        "failed_zone_append_operations": 0,
        "failed_flush_operations": s.flush.failed, "failed_unmap_operations": s.unmap.failed,
        "invalid_rd_operations": s.rd.invalid, "invalid_wr_operations": s.wr.invalid,
        "invalid_zone_append_operations": 0,
        "invalid_flush_operations": s.flush.invalid, "invalid_unmap_operations": s.unmap.invalid,
        "account_invalid": drive, "account_failed": drive,
        "timed_stats": [],
    });
    if let (Some(last), Some(map)) = (s.last, v.as_object_mut()) {
        let idle = Instant::now().duration_since(last).as_nanos() as u64;
        map.insert("idle_time_ns".into(), idle.into());
    }
    v
}

/// `BlockStats` of a node and those below.
fn node_stats(node: &Arc<Node>, of_drive: Option<&Stats>) -> Value {
    let counts = stats(of_drive.unwrap_or(&Stats::default()), of_drive.is_some());
    let mut v = json!({"node-name": node.name(), "stats": counts});
    for (role, child) in node.driver().children() {
        let key = if role == "backing" { "backing" } else { "parent" };
        if let Some(map) = v.as_object_mut() {
            map.insert(key.into(), node_stats(&child, None));
        }
    }
    v
}

impl Blocks {
    fn shown(&self) -> Vec<Arc<Backend>> {
        self.backends().into_iter().filter(|b| !b.name().is_empty() || b.is_attached()).collect()
    }

    /// `query-block`; `flat`: without the images of backing chains.
    pub fn query_block(&self, flat: bool) -> Value {
        self.shown().iter().map(|b| block_info(b, flat)).collect()
    }

    /// `query-named-block-nodes`; `flat`: without the images of backing chains.
    pub fn query_nodes(&self, flat: bool) -> Value {
        self.nodes().iter().map(|n| device_info(n, None, flat)).collect()
    }

    /// `query-blockstats`; `nodes`: of nodes, not drives.
    pub fn query_stats(&self, nodes: bool) -> Value {
        if nodes {
            return self.nodes().iter().map(|n| node_stats(n, None)).collect();
        }
        let of = |b: &Arc<Backend>| {
            let mut v = match b.root() {
                Some(n) => node_stats(&n, Some(&b.stats())),
                None => json!({"stats": stats(&b.stats(), true)}),
            };
            if let Some(map) = v.as_object_mut() {
                map.insert("device".into(), b.name().into());
                if let Some(qdev) = b.qdev() {
                    map.insert("qdev".into(), qdev.into());
                }
            }
            v
        };
        self.shown().iter().map(of).collect()
    }
}
