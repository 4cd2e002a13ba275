//! A network card, type `virtio-net-device`. Source: virtio 1.2 §5.1. What is received: `net_filter`; checksums and segmentation that
//! the driver leaves to the card are done here (`net::offload`), whatever the backend. Queues: receive, transmit, control.
//! Not modelled: several pairs of queues, receive-side scaling and hashes, coalescing (RSC), tunnels, stand-by for another card.

use super::device::{VirtioDevice, VirtioDeviceClass, VirtioImpl, feature, status};
use super::net_filter::{Changed, Filter, Refused};
use super::ring::{Chain, total};
use hw_core::{Category, Device, DeviceClass, DeviceImpl, Locked, MachineCell, Timer};
use net::checksum::check;
use net::client::{MAX_FRAME, takes};
use net::offload::VnetHeader;
use net::{MacAddr, MacProp, Nic, NicHandlers, Parcel, PeerSlot};
use qom::{Class, Error, Input, Object, OnOffAuto, Prop, Property, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Features. §5.1.3
pub(super) mod f {
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    pub const MTU: u64 = 1 << 3;
    pub const MAC: u64 = 1 << 5;
    pub const GSO: u64 = 1 << 6;
    pub const GUEST_TSO4: u64 = 1 << 7;
    pub const GUEST_TSO6: u64 = 1 << 8;
    pub const GUEST_ECN: u64 = 1 << 9;
    pub const GUEST_UFO: u64 = 1 << 10;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const HOST_ECN: u64 = 1 << 13;
    pub const HOST_UFO: u64 = 1 << 14;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
    pub const CTRL_VQ: u64 = 1 << 17;
    pub const CTRL_RX: u64 = 1 << 18;
    pub const CTRL_VLAN: u64 = 1 << 19;
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    pub const MQ: u64 = 1 << 22;
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
    pub const GUEST_USO4: u64 = 1 << 54;
    pub const GUEST_USO6: u64 = 1 << 55;
    pub const HOST_USO: u64 = 1 << 56;
    pub const HASH_REPORT: u64 = 1 << 57;
    pub const RSS: u64 = 1 << 60;
    pub const RSC_EXT: u64 = 1 << 61;
    pub const STANDBY: u64 = 1 << 62;
    pub const SPEED_DUPLEX: u64 = 1 << 63;
    /// Those about what the guest receives.
    pub const GUEST_OFFLOADS: u64 =
        GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_UFO | GUEST_USO4 | GUEST_USO6;
}

/// Properties for features: name, bit, default.
const FEATURES: [(&str, u64, bool); 28] = [
    ("csum", f::CSUM, true),
    ("guest_csum", f::GUEST_CSUM, true),
    ("gso", f::GSO, true),
    ("guest_tso4", f::GUEST_TSO4, true),
    ("guest_tso6", f::GUEST_TSO6, true),
    ("guest_ecn", f::GUEST_ECN, true),
    ("guest_ufo", f::GUEST_UFO, true),
    ("guest_announce", f::GUEST_ANNOUNCE, true),
    ("host_tso4", f::HOST_TSO4, true),
    ("host_tso6", f::HOST_TSO6, true),
    ("host_ecn", f::HOST_ECN, true),
    ("host_ufo", f::HOST_UFO, true),
    ("mrg_rxbuf", f::MRG_RXBUF, true),
    ("status", f::STATUS, true),
    ("ctrl_vq", f::CTRL_VQ, true),
    ("ctrl_rx", f::CTRL_RX, true),
    ("ctrl_vlan", f::CTRL_VLAN, true),
    ("ctrl_rx_extra", f::CTRL_RX_EXTRA, true),
    ("ctrl_mac_addr", f::CTRL_MAC_ADDR, true),
    ("ctrl_guest_offloads", f::CTRL_GUEST_OFFLOADS, true),
    ("mq", f::MQ, false),
    ("guest_uso4", f::GUEST_USO4, true),
    ("guest_uso6", f::GUEST_USO6, true),
    ("host_uso", f::HOST_USO, true),
    ("rss", f::RSS, false),
    ("hash", f::HASH_REPORT, false),
    ("guest_rsc_ext", f::RSC_EXT, false),
    ("failover", f::STANDBY, false),
];

/// Queues.
const RX: usize = 0;
const TX: usize = 1;
const CTRL: usize = 2;
/// Entries of the control queue, and least and most of the others.
const CTRL_SIZE: u16 = 64;
const MIN_SIZE: u16 = 256;
const MAX_RX_SIZE: u16 = 1024;
/// Most bytes of a command that are looked at.
const MAX_COMMAND: u64 = 128 << 10;
/// Nanoseconds until transmission goes on where it let others have the machine.
const AGAIN: u64 = 1_000;
/// Most bytes that are sent at a time.
const BURST: usize = 4 << 20;

/// Bits of the status in the configuration space.
const LINK_UP: u16 = 1;
const ANNOUNCE: u16 = 2;

/// What the guest can observe besides rings and registers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct NetState {
    filter: Filter,
    /// When transmission begins or goes on.
    tx_at: Option<u64>,
}

/// Type `virtio-net-device`.
#[derive(Object)]
#[qom(name = "virtio-net-device", parent = VirtioDevice, methods(DeviceClass, VirtioDeviceClass),
    class_init = VirtioNet::class_init, instance_init = VirtioNet::instance_init)]
pub struct VirtioNet {
    parent: VirtioDevice,
    #[property]
    mac: MacProp,
    #[property]
    netdev: PeerSlot,
    bootindex: Prop<i32>,
    #[property]
    tx: Prop<String>,
    #[property(name = "x-txtimer", default = 150_000)]
    tx_timer: Prop<u32>,
    #[property(name = "x-txburst", default = 256)]
    tx_burst: Prop<i32>,
    #[property(name = "rx_queue_size", default = 256)]
    rx_queue_size: Prop<u16>,
    #[property(name = "tx_queue_size", default = 256)]
    tx_queue_size: Prop<u16>,
    #[property(name = "host_mtu", default = 0)]
    host_mtu: Prop<u16>,
    #[property(default = -1)]
    speed: Prop<i32>,
    #[property]
    duplex: Prop<String>,
    #[property(name = "rsc_interval", default = 300_000)]
    rsc_interval: Prop<u32>,
    // (Tunnels are features of a second word, which is never offered.)
    #[property(name = "guest_tunnel", default = true)]
    guest_tunnel: Prop<bool>,
    #[property(name = "guest_tunnel_csum", default = true)]
    guest_tunnel_csum: Prop<bool>,
    #[property(name = "host_tunnel", default = true)]
    host_tunnel: Prop<bool>,
    #[property(name = "host_tunnel_csum", default = true)]
    host_tunnel_csum: Prop<bool>,
    #[property(name = "hash-ipv4", default = OnOffAuto::Auto)]
    hash_ipv4: Prop<OnOffAuto>,
    #[property(name = "hash-tcp4", default = OnOffAuto::Auto)]
    hash_tcp4: Prop<OnOffAuto>,
    #[property(name = "hash-udp4", default = OnOffAuto::Auto)]
    hash_udp4: Prop<OnOffAuto>,
    #[property(name = "hash-ipv6", default = OnOffAuto::Auto)]
    hash_ipv6: Prop<OnOffAuto>,
    #[property(name = "hash-tcp6", default = OnOffAuto::Auto)]
    hash_tcp6: Prop<OnOffAuto>,
    #[property(name = "hash-udp6", default = OnOffAuto::Auto)]
    hash_udp6: Prop<OnOffAuto>,
    #[property(name = "hash-ipv6ex", default = OnOffAuto::Auto)]
    hash_ipv6ex: Prop<OnOffAuto>,
    #[property(name = "hash-tcp6ex", default = OnOffAuto::Auto)]
    hash_tcp6ex: Prop<OnOffAuto>,
    #[property(name = "hash-udp6ex", default = OnOffAuto::Auto)]
    hash_udp6ex: Prop<OnOffAuto>,
    #[state]
    state: MachineCell<NetState>,
    timer: Timer,
    nic: Nic,
}

/// `ebpf-rss-fds`: for what is not built.
fn refuse_fds(_: &dyn Object, input: Input<'_>) -> std::result::Result<(), qom::Reject> {
    if matches!(input, Input::Json(Value::Array(a)) if a.is_empty()) || input.shown().is_empty() {
        return Ok(());
    }
    Err(Error::generic("ebpf-rss-fds is not built yet").into())
}

impl VirtioNet {
    fn class_init(c: &mut Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Network];
        let v = c.edit::<VirtioDeviceClass>();
        (v.device_id, v.name) = (1, "virtio-net");
        for (name, bit, on) in FEATURES {
            VirtioDevice::feature_property(c, name, bit, on);
        }
        c.property(Property::computed::<i32>("bootindex").getter(|d: &VirtioNet| Ok(d.bootindex.get() - 1)).setter(
            |d: &VirtioNet, n: i32| {
                d.bootindex.set(n.saturating_add(1));
                Ok(())
            },
        ));
        let fds = Property::new("ebpf-rss-fds", "list").reader(|_| Ok(json!([]))).writer(refuse_fds);
        c.property(fds.default_value(json!([])));
    }

    fn instance_init(&self) -> Result<()> {
        self.timer.init(self, Self::go_on);
        self.want(FEATURES.iter().filter(|f| f.2).fold(0, |all, f| all | f.1));
        Ok(())
    }

    /// Position in the boot order, if it has one.
    pub fn boot_index(&self) -> Option<i32> {
        Some(self.bootindex.get() - 1).filter(|n| *n >= 0)
    }

    fn check_properties(&self, m: &mut Locked) -> Result<()> {
        for (name, bit) in
            [("rss", f::RSS), ("hash", f::HASH_REPORT), ("guest_rsc_ext", f::RSC_EXT), ("failover", f::STANDBY)]
        {
            if self.wants(bit) {
                return Err(Error::generic(format!("{name}=on is not built yet")));
            }
        }
        let hashes = [
            &self.hash_ipv4,
            &self.hash_tcp4,
            &self.hash_udp4,
            &self.hash_ipv6,
            &self.hash_tcp6,
            &self.hash_udp6,
            &self.hash_ipv6ex,
            &self.hash_tcp6ex,
            &self.hash_udp6ex,
        ];
        if hashes.iter().any(|p| p.get() == OnOffAuto::On) {
            return Err(Error::generic("hashes of received packets (hash-…=on) are not built yet"));
        }
        if !matches!(self.duplex.get().as_str(), "" | "half" | "full") {
            return Err(Error::generic("'duplex' must be 'half' or 'full'"));
        }
        if self.speed.get() < -1 {
            return Err(Error::generic("'speed' must be between 0 and INT_MAX"));
        }
        // (Other sizes of the transmit queue are for backends in other processes.)
        for (name, size, max) in
            [("rx", self.rx_queue_size.get(), MAX_RX_SIZE), ("tx", self.tx_queue_size.get(), MIN_SIZE)]
        {
            if !(MIN_SIZE..=max).contains(&size) || !size.is_power_of_two() {
                return Err(Error::generic(format!(
                    "Invalid {name}_queue_size (= {size}), must be a power of 2 between {MIN_SIZE} and {max}"
                )));
            }
        }
        let tx = self.tx.get();
        if !matches!(tx.as_str(), "" | "timer" | "bh") {
            let text = "valid options: \"timer\" \"bh\"; defaulting to \"bh\"";
            self.core().events.warning.notify(m, &format!("virtio-net: Unknown option tx={tx}, {text}"));
        }
        if self.mac.get().is_multicast() {
            return Err(Error::generic("NIC cannot have multicast MAC address (odd 1st byte)"));
        }
        Ok(())
    }

    /// Features that properties with values of their own imply.
    fn implied(&self) -> u64 {
        let mtu = if self.host_mtu.get() != 0 { f::MTU } else { 0 };
        let speed = if self.speed.get() >= 0 || !self.duplex.get().is_empty() { f::SPEED_DUPLEX } else { 0 };
        f::MAC | mtu | speed
    }

    fn model(&self) -> &'static str {
        let part_of = self.parent().filter(|p| p.cast::<Device>().is_some());
        part_of.map_or(self.type_name(), |p| p.type_name())
    }

    fn show_address(&self, m: &Locked) {
        self.nic.set_info(self.model(), self.state.ro(m).filter.mac);
    }

    fn features_now(&self, m: &Locked) -> u64 {
        self.regs().ro(m).features
    }

    /// Bytes of the header before each frame. §5.1.6
    fn header_len(&self, m: &Locked) -> usize {
        let counts = self.features_now(m) & (f::MRG_RXBUF | feature::VERSION_1) != 0;
        VnetHeader::LEN + if counts { 2 } else { 0 }
    }

    /// Whether the driver drives a queue.
    fn is_up(&self, m: &Locked, queue: usize) -> bool {
        let regs = self.regs().ro(m);
        regs.status & status::DRIVER_OK != 0 && self.is_working(m) && regs.queues.get(queue).is_some_and(|q| q.enabled)
    }

    // ---- reception ----

    fn can_receive(&self, m: &mut Locked) -> bool {
        // Without a driver frames are lost; without buffers the sender waits.
        !self.is_up(m, RX) || !self.is_empty(m, RX)
    }

    fn receive(&self, m: &mut Locked, frame: &[u8]) -> bool {
        let valid = self.state.ro(m).filter.offloads & f::GUEST_CSUM != 0 && check(frame).upper == Some(true);
        let header = VnetHeader { flags: if valid { VnetHeader::DATA_VALID } else { 0 }, ..VnetHeader::default() };
        self.receive_with(m, frame, &header)
    }

    /// A frame with a header that the driver accepts: what it says is still to be done need not be done in a machine.
    fn receive_unfinished(&self, m: &mut Locked, frame: &[u8], header: &VnetHeader) -> bool {
        let needs = match header.gso_type {
            VnetHeader::NONE => f::GUEST_CSUM,
            VnetHeader::TCPV4 => f::GUEST_CSUM | f::GUEST_TSO4,
            _ => f::GUEST_CSUM | f::GUEST_TSO6,
        };
        // (The driver may have changed its mind since the frame was sent: then it is lost.)
        self.state.ro(m).filter.offloads & needs != needs || self.receive_with(m, frame, header)
    }

    /// Says which unfinished frames the driver accepts now.
    fn show_offloads(&self, m: &Locked) {
        let offloads = self.state.ro(m).filter.offloads;
        let accepted = |needs: u64, bit: u8| if offloads & needs == needs { bit } else { 0 };
        let large = |needs, bit| accepted(f::GUEST_CSUM | needs, bit);
        let tcp = large(f::GUEST_TSO4, takes::TCPV4) | large(f::GUEST_TSO6, takes::TCPV6);
        self.nic.set_takes(accepted(f::GUEST_CSUM, takes::CHECKSUM) | tcp);
    }

    fn receive_with(&self, m: &mut Locked, frame: &[u8], header: &VnetHeader) -> bool {
        if !self.is_up(m, RX) || !self.state.ro(m).filter.wants(frame) {
            return true;
        }
        let header_len = self.header_len(m);
        let need = (header_len + frame.len()) as u64;
        let mergeable = self.has_feature(m, f::MRG_RXBUF);
        let mut chains: Vec<(Chain, u32)> = vec![];
        let mut room = 0u64;
        while room < need {
            let Some(chain) = self.pop(m, RX) else {
                // Not enough yet: all stay where they are.
                chains.iter().rev().for_each(|(c, _)| self.unpop(m, RX, c));
                return false;
            };
            let len = total(&chain.writable);
            if (chains.is_empty() && len < header_len as u64) || len == 0 {
                self.set_broken(m, "virtio-net: a receive buffer has no room for the header");
                return true;
            }
            let mine = len.min(need - room);
            room += mine;
            chains.push((chain, mine as u32));
            if room < need && !mergeable {
                // It will never fit.
                chains.iter().rev().for_each(|(c, _)| self.unpop(m, RX, c));
                return true;
            }
        }
        let mut bytes = Vec::with_capacity(need as usize);
        bytes.extend(header.to_bytes());
        bytes.extend((chains.len() as u16).to_le_bytes());
        bytes.truncate(header_len);
        bytes.extend_from_slice(frame);
        let mut rest = bytes.as_slice();
        for (chain, len) in &chains {
            let (piece, left) = rest.split_at(rest.len().min(*len as usize));
            self.write_to(m, &chain.writable, 0, piece);
            rest = left;
        }
        let done: Vec<(&Chain, u32)> = chains.iter().map(|(c, len)| (c, *len)).collect();
        self.push_all(m, RX, &done);
        self.interrupt(m, RX);
        true
    }

    // ---- transmission ----

    fn arm(&self, m: &mut Locked, at: Option<u64>) {
        self.state.rw(m).tx_at = at;
        self.timer.arm(m, at);
    }

    fn transmit_later(&self, m: &mut Locked, wait: u64) {
        let at = m.clock.now().saturating_add(wait);
        self.arm(m, Some(at));
    }

    /// The driver has frames.
    fn transmit_asked(&self, m: &mut Locked) {
        // With `tx=timer` the first one waits for more; whoever comes while it waits ends that.
        if self.tx.get() == "timer" && self.state.ro(m).tx_at.is_none() {
            self.transmit_later(m, self.tx_timer.get().into());
        } else {
            self.transmit(m);
        }
    }

    /// Sends what the driver has, a part of it at once: one notification must not hold the machine for long.
    fn transmit(&self, m: &mut Locked) {
        self.arm(m, None);
        if !self.is_up(m, TX) {
            return;
        }
        let mut chains = self.tx_burst.get().max(1);
        let mut bytes = BURST;
        let mut sent = false;
        while self.nic.can_send() {
            if chains == 0 || bytes == 0 {
                self.transmit_later(m, AGAIN);
                break;
            }
            let Some(chain) = self.pop(m, TX) else { break };
            chains -= 1;
            let Some(frames) = self.take(m, &chain) else { break };
            for frame in frames {
                // What a frame costs at least.
                bytes = bytes.saturating_sub(frame.len() + 256);
                self.nic.send(frame);
            }
            self.push(m, TX, &chain, 0);
            sent = true;
        }
        if sent {
            self.interrupt(m, TX);
        }
    }

    /// The frames of a chain; `None`: the driver does not keep to the rules.
    fn take(&self, m: &mut Locked, chain: &Chain) -> Option<Vec<Parcel>> {
        let header_len = self.header_len(m);
        let len = total(&chain.readable);
        let Some(size) = len.checked_sub(header_len as u64) else {
            self.set_broken(m, "virtio-net header incorrect");
            return None;
        };
        if size > MAX_FRAME as u64 || size == 0 {
            return Some(vec![]);
        }
        let mut header = [0; VnetHeader::LEN];
        self.read_from(m, &chain.readable, 0, &mut header);
        let mut frame = vec![0; size as usize];
        let n = self.read_from(m, &chain.readable, header_len as u64, &mut frame);
        frame.truncate(n);
        let mut header = VnetHeader::from_bytes(header);
        // What the driver may not ask for is not looked at.
        let features = self.features_now(m);
        if features & f::CSUM == 0 {
            header.flags = 0;
        }
        let large = match header.gso_type & !VnetHeader::ECN {
            VnetHeader::TCPV4 => f::HOST_TSO4,
            VnetHeader::TCPV6 => f::HOST_TSO6,
            VnetHeader::UDP => f::HOST_UFO,
            _ => f::HOST_USO,
        };
        // (GSO: segmentation of every kind, for old drivers.)
        if features & (large | f::GSO) == 0 {
            header.gso_type = VnetHeader::NONE;
        }
        let tcp = matches!(header.gso_type & !VnetHeader::ECN, VnetHeader::TCPV4 | VnetHeader::TCPV6);
        if tcp || (header.gso_type == VnetHeader::NONE && header.flags & VnetHeader::NEEDS_CSUM != 0) {
            // Whoever gets it may be able to do without.
            return Some(vec![Parcel { frame, rest: Some(header) }]);
        }
        Some(header.frames(frame).unwrap_or_default().into_iter().map(Parcel::from).collect())
    }

    /// Goes on where work was left.
    fn go_on(&self, m: &mut Locked) {
        self.transmit(m);
        self.control(m);
    }

    // ---- control ----

    fn control(&self, m: &mut Locked) {
        if !self.is_up(m, CTRL) {
            return;
        }
        let mut done = false;
        for _ in 0..CTRL_SIZE {
            let Some(chain) = self.pop(m, CTRL) else { break };
            let len = total(&chain.readable);
            if len < 2 || chain.writable.is_empty() {
                self.set_broken(m, "virtio-net ctrl missing headers");
                return;
            }
            let mut bytes = vec![0; len.min(MAX_COMMAND) as usize];
            self.read_from(m, &chain.readable, 0, &mut bytes);
            let features = self.features_now(m);
            let result = match bytes.as_slice() {
                [class, command, data @ ..] => self.state.rw(m).filter.command(*class, *command, data, features),
                _ => Err(Refused),
            };
            match result {
                Ok(Changed::Address) => {
                    self.show_address(m);
                    self.nic.rx_filter_changed();
                }
                Ok(Changed::Filter) => self.nic.rx_filter_changed(),
                Ok(Changed::Offloads) => self.show_offloads(m),
                Ok(Changed::Nothing) | Err(Refused) => {}
            }
            self.write_to(m, &chain.writable, 0, &[result.is_err().into()]);
            self.push(m, CTRL, &chain, 1);
            done = true;
        }
        if done {
            self.interrupt(m, CTRL);
            // More than the queue holds at once: the driver goes on while it is worked through.
            if !self.is_empty(m, CTRL) {
                self.transmit_later(m, AGAIN);
            }
        }
    }

    fn link_changed(&self, m: &mut Locked, _up: bool) {
        self.config_changed(m);
    }

    fn rx_filter(&self, m: &mut Locked) -> Value {
        let features = self.features_now(m);
        self.state.ro(m).filter.describe(features)
    }
}

impl VirtioImpl for VirtioNet {
    fn features(&self, offered: u64) -> u64 {
        offered | self.implied()
    }

    /// §5.1.4; as long as the features that need it.
    fn config(&self, m: &Locked) -> Vec<u8> {
        let filter = &self.state.ro(m).filter;
        let mut status = if self.nic.is_link_up() { LINK_UP } else { 0 };
        if filter.announce {
            status |= ANNOUNCE;
        }
        let mut c = filter.mac.0.to_vec();
        c.extend(status.to_le_bytes());
        c.extend(1u16.to_le_bytes()); // pairs of queues
        c.extend(self.host_mtu.get().to_le_bytes());
        c.extend(self.speed.get().to_le_bytes());
        c.push(match self.duplex.get().as_str() {
            "half" => 0,
            "full" => 1,
            _ => 0xff,
        });
        let implied = self.implied();
        let has = |feature: u64| self.wants(feature) || implied & feature != 0;
        let ends = [(f::SPEED_DUPLEX, 17), (f::MTU, 12), (f::MQ, 10), (f::STATUS, 8)];
        c.truncate(ends.into_iter().find(|(feature, _)| has(*feature)).map_or(6, |(_, end)| end));
        c
    }

    /// Old drivers set the address here. §5.1.4
    fn set_config(&self, m: &mut Locked, at: usize, bytes: &[u8]) {
        if self.features_now(m) & (f::CTRL_MAC_ADDR | feature::VERSION_1) != 0 {
            return;
        }
        let filter = &mut self.state.rw(m).filter;
        let before = filter.mac;
        for (to, from) in filter.mac.0.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
        if filter.mac != before {
            self.show_address(m);
            self.nic.rx_filter_changed();
        }
    }

    fn handle_queue(&self, m: &mut Locked, n: usize) {
        match n {
            RX => self.nic.flush(),
            TX => self.transmit_asked(m),
            _ => self.control(m),
        }
    }

    fn status_changed(&self, m: &mut Locked, new: u8) {
        let features = self.features_now(m);
        let modern = features & feature::VERSION_1 != 0;
        if new & status::FEATURES_OK != 0 && new & status::DRIVER_OK == 0 || !modern && new & status::DRIVER_OK != 0 {
            self.state.rw(m).filter.negotiated(features);
            self.show_offloads(m);
        }
    }

    fn stop(&self, m: &mut Locked, queue: Option<usize>) {
        if queue.is_none() {
            self.arm(m, None);
            self.state.rw(m).filter = Filter::new(self.mac.get());
            self.show_offloads(m);
            self.nic.purge();
            self.show_address(m);
        }
    }
}

impl DeviceImpl for VirtioNet {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.check_properties(m)?;
        crate::i386::drives::check_boot_index(self.scope(), self.boot_index())?;
        self.set_queues(m, [self.rx_queue_size.get(), self.tx_queue_size.get(), CTRL_SIZE]);
        self.parent_realize(m)?;
        let handlers = NicHandlers {
            can_receive: Self::can_receive,
            receive: Self::receive,
            receive_unfinished: Some(Self::receive_unfinished),
            link_changed: Self::link_changed,
            peer_ready: Some(Self::transmit),
            rx_filter: Some(Self::rx_filter),
        };
        let done = self.nic.realize(self, self.model(), &self.mac, &self.netdev, handlers);
        done.inspect_err(|_| self.parent_unrealize(m))?;
        let mac: MacAddr = self.mac.get();
        self.state.rw(m).filter = Filter::new(mac);
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.parent_unrealize(m);
        self.nic.unrealize(self, &self.mac);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        let features = self.features_now(m);
        if !self.state.ro(m).filter.is_possible(features) {
            return Err(Error::generic("virtio-net: impossible state"));
        }
        self.parent_post_load(m)?;
        self.show_address(m);
        self.show_offloads(m);
        // The guest is somewhere else now, or the network is: it may want to say so. §5.1.6.5.4
        if self.features_now(m) & f::GUEST_ANNOUNCE != 0 && self.is_up(m, CTRL) {
            self.state.rw(m).filter.announce = true;
            self.config_changed(m);
        }
        if self.is_up(m, TX) {
            self.transmit_later(m, 0);
        }
        self.nic.flush();
        Ok(())
    }
}
