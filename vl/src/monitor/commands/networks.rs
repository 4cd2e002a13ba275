//! Commands about the network.

use super::{Command, command};
use crate::monitor::schema::{Member, Ty, Union, opt, req};
use net::Opts;
use serde_json::json;

const TEXT: Ty = Ty::Object(&[req("str", Ty::Str)]);
const TEXTS: Ty = Ty::List(&TEXT);

static ADDRESS_UNION: Union = Union {
    base: &[req("type", Ty::Enum(&["inet", "unix", "fd"]))],
    tag: "type",
    variants: &[
        ("inet", &[req("host", Ty::Str), req("port", Ty::Str), opt("ipv4", Ty::Bool), opt("ipv6", Ty::Bool)]),
        ("unix", &[req("path", Ty::Str)]),
        ("fd", &[req("str", Ty::Str)]),
    ],
};
/// Where a socket is.
pub(crate) const ADDRESS: Ty = Ty::Union(&ADDRESS_UNION);

const USER: &[Member] = &[
    opt("hostname", Ty::Str),
    opt("restrict", Ty::Bool),
    opt("ipv4", Ty::Bool),
    opt("ipv6", Ty::Bool),
    opt("ip", Ty::Str),
    opt("net", Ty::Str),
    opt("host", Ty::Str),
    opt("tftp", Ty::Str),
    opt("bootfile", Ty::Str),
    opt("dhcpstart", Ty::Str),
    opt("dns", Ty::Str),
    opt("dnssearch", TEXTS),
    opt("domainname", Ty::Str),
    opt("ipv6-prefix", Ty::Str),
    opt("ipv6-prefixlen", Ty::Int),
    opt("ipv6-host", Ty::Str),
    opt("ipv6-dns", Ty::Str),
    opt("hostfwd", TEXTS),
    opt("guestfwd", TEXTS),
    opt("tftp-server-name", Ty::Str),
];

const PASST: &[Member] = &[
    opt("path", Ty::Str),
    opt("quiet", Ty::Bool),
    opt("vhost-user", Ty::Bool),
    opt("mtu", Ty::Int),
    opt("address", Ty::Str),
    opt("netmask", Ty::Str),
    opt("mac", Ty::Str),
    opt("gateway", Ty::Str),
    opt("interface", Ty::Str),
    opt("outbound", Ty::Str),
    opt("outbound-if4", Ty::Str),
    opt("outbound-if6", Ty::Str),
    opt("dns", Ty::Str),
    opt("search", TEXTS),
    opt("fqdn", Ty::Str),
    opt("dhcp-dns", Ty::Bool),
    opt("dhcp-search", Ty::Bool),
    opt("map-host-loopback", Ty::Str),
    opt("map-guest-addr", Ty::Str),
    opt("dns-forward", Ty::Str),
    opt("dns-host", Ty::Str),
    opt("tcp", Ty::Bool),
    opt("udp", Ty::Bool),
    opt("icmp", Ty::Bool),
    opt("dhcp", Ty::Bool),
    opt("ndp", Ty::Bool),
    opt("dhcpv6", Ty::Bool),
    opt("ra", Ty::Bool),
    opt("freebind", Ty::Bool),
    opt("ipv4", Ty::Bool),
    opt("ipv6", Ty::Bool),
    opt("tcp-ports", TEXTS),
    opt("udp-ports", TEXTS),
    opt("param", TEXTS),
];

/// Names of the kinds of backend.
fn kinds() -> Vec<&'static str> {
    net::backend::all().iter().map(|d| d.name).collect()
}

static ADD: Union = Union {
    base: &[req("id", Ty::Str), req("type", Ty::Words(kinds))],
    tag: "type",
    variants: &[
        ("dgram", &[opt("local", ADDRESS), opt("remote", ADDRESS)]),
        ("hubport", &[req("hubid", Ty::Int), opt("netdev", Ty::Str)]),
        ("passt", PASST),
        (
            "socket",
            &[
                opt("fd", Ty::Str),
                opt("listen", Ty::Str),
                opt("connect", Ty::Str),
                opt("mcast", Ty::Str),
                opt("localaddr", Ty::Str),
                opt("udp", Ty::Str),
            ],
        ),
        ("stream", &[req("addr", ADDRESS), opt("server", Ty::Bool), opt("reconnect-ms", Ty::Int)]),
        ("tap", &[opt("ifname", Ty::Str), opt("fd", Ty::Str), opt("script", Ty::Str), opt("downscript", Ty::Str)]),
        ("user", USER),
    ],
};

const RX_STATE: Ty = Ty::Enum(&["normal", "none", "all"]);
const RX_FILTER: Ty = Ty::Object(&[
    req("name", Ty::Str),
    req("promiscuous", Ty::Bool),
    req("multicast", RX_STATE),
    req("unicast", RX_STATE),
    req("vlan", RX_STATE),
    req("broadcast-allowed", Ty::Bool),
    req("multicast-overflow", Ty::Bool),
    req("unicast-overflow", Ty::Bool),
    req("main-mac", Ty::Str),
    req("vlan-table", Ty::List(&Ty::Int)),
    req("unicast-table", Ty::List(&Ty::Str)),
    req("multicast-table", Ty::List(&Ty::Str)),
]);

pub(super) static COMMANDS: &[Command] = &[
    Command {
        name: "netdev_add",
        args: &[],
        union: Some(&ADD),
        open: false,
        ret: None,
        features: &[],
        run: |vm, args| {
            vm.nets.netdev_add(Opts::json(args.0.clone()))?;
            Ok(json!({}))
        },
    },
    command("netdev_del", &[req("id", Ty::Str)], None, |vm, args| {
        vm.nets.netdev_del(args.str("id"))?;
        Ok(json!({}))
    }),
    command("set_link", &[req("name", Ty::Str), req("up", Ty::Bool)], None, |vm, args| {
        vm.nets.set_link(args.str("name"), args.bool("up"))?;
        Ok(json!({}))
    }),
    command("query-rx-filter", &[opt("name", Ty::Str)], Some(Ty::List(&RX_FILTER)), |vm, args| {
        Ok(vm.nets.rx_filters(args.opt_str("name"))?)
    }),
];
