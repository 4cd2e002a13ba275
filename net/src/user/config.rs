//! Options of `user`, understood.

use hw_core::opts::Opts;
use qom::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Where connections to an address of the virtual network lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Shell command started for each connection.
    Command(String),
    /// A character device, as `-serial` takes it, which is there from the start.
    Device(String),
}

/// An address of the virtual network forwarded to a program or a character device.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestForward {
    pub at: (Ipv4Addr, u16),
    pub to: Target,
}

/// A port of the host that leads into the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostForward {
    pub udp: bool,
    pub host: SocketAddr,
    pub guest: SocketAddr,
}

/// The virtual network.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub ipv4: bool,
    pub ipv6: bool,
    pub restrict: bool,
    pub net: Ipv4Addr,
    pub mask: Ipv4Addr,
    pub host: Ipv4Addr,
    /// The network's own name server.
    pub dns: Ipv4Addr,
    /// The one that guests are told of.
    pub told_dns: Ipv4Addr,
    pub dhcp_start: Ipv4Addr,
    pub prefix6: Ipv6Addr,
    pub prefix6_len: u8,
    pub host6: Ipv6Addr,
    pub dns6: Ipv6Addr,
    pub told_dns6: Ipv6Addr,
    pub hostname: Option<String>,
    pub domain: Option<String>,
    pub search: Vec<String>,
    pub bootfile: Option<String>,
    pub tftp: Option<PathBuf>,
    pub tftp_server: Option<String>,
    pub host_forwards: Vec<String>,
    pub guest_forwards: Vec<GuestForward>,
}

fn bad(text: impl Into<String>) -> Error {
    Error::generic(text)
}

fn address<T: std::str::FromStr>(opts: &mut Opts, key: &str, what: &str) -> Result<Option<T>> {
    let Some(text) = opts.take_str(key)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| bad(format!("Failed to parse {what}")))
}

/// `10.0.2.0/24`, `10.0.2.0/255.255.255.0`, `10.0.2.0`: network and mask.
fn network(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (net, mask) = text.split_once('/').map_or((text, None), |(n, m)| (n, Some(m)));
    let net: Ipv4Addr = net.parse().ok()?;
    let bits = match mask {
        Some(m) => match m.parse::<u32>() {
            Ok(len @ 4..=32) => u32::MAX << (32 - len),
            Ok(_) => return None,
            Err(_) => {
                let mask = u32::from(m.parse::<Ipv4Addr>().ok()?);
                (mask.leading_ones() == mask.count_ones() && mask != 0).then_some(mask)?
            }
        },
        // By class, as before CIDR.
        None if net.octets() < [128, 0, 0, 0] => 0xff00_0000,
        None if net.octets() < [0xff, 0xff, 0, 0] && net.octets() < [192, 0, 0, 0] => 0xffff_0000,
        None => 0xffff_ff00,
    };
    Some((Ipv4Addr::from(u32::from(net) & bits), Ipv4Addr::from(bits)))
}

impl Config {
    /// Takes the options out.
    ///
    /// # Errors
    /// One that is none, or addresses that do not fit each other.
    pub fn take(opts: &mut Opts) -> Result<Self> {
        let (v4, v6) = (opts.take_bool("ipv4")?, opts.take_bool("ipv6")?);
        // Asking for one alone leaves the other out.
        let (ipv4, ipv6) = match (v4, v6) {
            (None, None) => (true, true),
            (Some(a), None) => (a, !a),
            (None, Some(b)) => (!b, b),
            (Some(a), Some(b)) => (a, b),
        };
        if !ipv4 && !ipv6 {
            return Err(bad("IPv4 and IPv6 disabled"));
        }
        let text = match (opts.take_str("net")?, opts.take_str("ip")?) {
            (Some(net), _) => Some(net),
            (None, ip) => ip.map(|ip| if ip.contains('/') { ip } else { format!("{ip}/24") }),
        };
        let (net, mask) = match &text {
            Some(t) => network(t).ok_or_else(|| bad("Failed to parse network address"))?,
            None => (Ipv4Addr::new(10, 0, 2, 0), Ipv4Addr::new(255, 255, 255, 0)),
        };
        let inside = |n: u32| Ipv4Addr::from(u32::from(net) | n & !u32::from(mask));
        let host = address(opts, "host", "host address")?.unwrap_or_else(|| inside(2));
        let restrict = opts.take_bool("restrict")?.unwrap_or(false);
        let told_dns = address(opts, "dns", "DNS server address")?.unwrap_or_else(|| inside(3));
        let dhcp_start = address(opts, "dhcpstart", "DHCP start address")?.unwrap_or_else(|| inside(15));
        let is_inside = |a: Ipv4Addr| u32::from(a) & u32::from(mask) == u32::from(net);
        if !is_inside(host) {
            return Err(bad("Host doesn't belong to network"));
        }
        // One elsewhere is reached as any other host is; the network's own stays where it would be.
        let dns = if is_inside(told_dns) { told_dns } else { inside(3) };
        if restrict && dns != told_dns {
            return Err(bad("DNS doesn't belong to network"));
        }
        if host == dns {
            return Err(bad("DNS must be different from host"));
        }
        if !is_inside(dhcp_start) {
            return Err(bad("DHCP doesn't belong to network"));
        }
        let last = u32::from(dhcp_start).checked_add(super::dhcp::LEASES - 1);
        let last = last.ok_or_else(|| bad("DHCP range does not fit"))?;
        if [host, dns].iter().any(|a| (u32::from(dhcp_start)..=last).contains(&u32::from(*a))) {
            return Err(bad("DNS and host must be different from the DHCP range"));
        }
        let net6 = opts.take_str("ipv6-net")?;
        let (net6, len6) = net6.as_deref().map_or((None, None), |t| match t.split_once('/') {
            Some((net, len)) => (Some(net), Some(len)),
            None => (Some(t), None),
        });
        let net6 = net6.map(|t| t.parse().map_err(|_| bad("Failed to parse IPv6 prefix"))).transpose()?;
        let len6 = len6.map(|t| t.parse().map_err(|_| bad("Invalid IPv6 prefix length"))).transpose()?;
        let prefix6: Option<Ipv6Addr> = net6.or(address(opts, "ipv6-prefix", "IPv6 prefix")?);
        let prefix6 = prefix6.unwrap_or_else(|| Ipv6Addr::from(0xfec0u128 << 112));
        let given6 = opts.take_number("ipv6-prefixlen")?;
        let prefix6_len = match len6.or(given6) {
            None => 64,
            Some(n @ 0..=126) => n as u8,
            Some(_) => return Err(bad("Invalid IPv6 prefix length")),
        };
        let mask6 = u128::MAX.checked_shl(128 - u32::from(prefix6_len)).unwrap_or(0);
        let prefix6 = Ipv6Addr::from(u128::from(prefix6) & mask6);
        let inside6 = |n: u128| Ipv6Addr::from(u128::from(prefix6) | n);
        let host6 = address(opts, "ipv6-host", "IPv6 host address")?.unwrap_or_else(|| inside6(2));
        let told_dns6 = address(opts, "ipv6-dns", "IPv6 DNS server address")?.unwrap_or_else(|| inside6(3));
        let dns6 = if u128::from(told_dns6) & mask6 == u128::from(prefix6) { told_dns6 } else { inside6(3) };
        if u128::from(host6) & mask6 != u128::from(prefix6) {
            return Err(bad("IPv6 Host doesn't belong to network"));
        }
        if restrict && dns6 != told_dns6 {
            return Err(bad("IPv6 DNS doesn't belong to network"));
        }
        if host6 == dns6 {
            return Err(bad("IPv6 DNS must be different from IPv6 host"));
        }
        let domain = opts.take_str("domainname")?;
        if domain.as_ref().is_some_and(|d| d.is_empty() || d.len() > 255) {
            return Err(bad("'domainname' parameter must have 1 to 255 characters"));
        }
        for key in ["smb", "smbserver"] {
            if opts.has(key) {
                return Err(bad(format!("parameter '{key}' of QEMU is not built yet")));
            }
        }
        let forwards = opts.take_list("guestfwd")?;
        let guest_forwards = forwards.iter().map(|t| guest_forward(t, host, dns, is_inside)).collect::<Result<_>>()?;
        let tftp = opts.take_str("tftp")?.map(PathBuf::from);
        if let Some(path) = tftp.as_ref().filter(|p| !p.is_dir()) {
            return Err(bad(format!("tftp: '{}' is not a directory", path.display())));
        }
        Ok(Self {
            ipv4,
            ipv6,
            restrict,
            net,
            mask,
            host,
            dns,
            told_dns,
            dhcp_start,
            prefix6,
            prefix6_len,
            host6,
            dns6,
            told_dns6,
            hostname: opts.take_str("hostname")?,
            domain,
            search: opts.take_list("dnssearch")?,
            bootfile: opts.take_str("bootfile")?,
            tftp,
            tftp_server: opts.take_str("tftp-server-name")?,
            host_forwards: opts.take_list("hostfwd")?,
            guest_forwards,
        })
    }

    /// Whether an address is one of the virtual network's.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(a) => u32::from(a) & u32::from(self.mask) == u32::from(self.net),
            IpAddr::V6(a) => {
                let shift = 128 - u32::from(self.prefix6_len);
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                u128::from(a) & mask == u128::from(self.prefix6)
            }
        }
    }

    /// The host's address in the family of `like`.
    pub fn host_for(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.host.into() } else { self.host6.into() }
    }

    /// Reads a rule `[tcp|udp]:[host]:port-[guest]:port`.
    ///
    /// # Errors
    /// It is none.
    pub fn host_forward(&self, text: &str) -> Result<HostForward> {
        let wrong = |why: &str| bad(format!("Invalid host forwarding rule '{text}' ({why})"));
        let (from, to) = text.split_once('-').ok_or_else(|| wrong("Missing guest address separator"))?;
        let (udp, host) = host_end(from).map_err(wrong)?;
        let (guest, port) = to.rsplit_once(':').ok_or_else(|| wrong("Missing guest port separator"))?;
        let port: u16 = port.parse().ok().filter(|p| *p != 0).ok_or_else(|| wrong("Bad guest port"))?;
        let guest: IpAddr = match guest.trim_matches(['[', ']']) {
            "" => self.dhcp_start.into(),
            g => g.parse().map_err(|_| wrong("Bad guest address"))?,
        };
        Ok(HostForward { udp, host, guest: SocketAddr::new(guest, port) })
    }
}

/// The host's end of a rule: `tcp::5555`, `udp:127.0.0.1:53`.
pub fn host_end(text: &str) -> Result<(bool, SocketAddr), &'static str> {
    let (proto, at) = text.split_once(':').ok_or("Missing protocol separator")?;
    let udp = match proto {
        "tcp" | "" => false,
        "udp" => true,
        _ => return Err("Bad protocol name"),
    };
    let (host, port) = at.rsplit_once(':').ok_or("Missing host port separator")?;
    let port = port.parse().map_err(|_| "Bad host port")?;
    let host: IpAddr = match host.trim_matches(['[', ']']) {
        "" => Ipv4Addr::UNSPECIFIED.into(),
        h => h.parse().map_err(|_| "Bad host address")?,
    };
    Ok((udp, SocketAddr::new(host, port)))
}

/// `tcp:SERVER:PORT-cmd:COMMAND`, `tcp:SERVER:PORT-DEVICE`.
fn guest_forward(
    text: &str,
    host: Ipv4Addr,
    dns: Ipv4Addr,
    is_inside: impl Fn(Ipv4Addr) -> bool,
) -> Result<GuestForward> {
    let wrong = || bad(format!("Invalid guest forwarding rule '{text}'"));
    let (at, to) = text.split_once('-').ok_or_else(wrong)?;
    let at = at.strip_prefix("tcp:").or_else(|| at.strip_prefix(':')).ok_or_else(wrong)?;
    let (server, port) = at.split_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().ok().filter(|p| *p != 0).ok_or_else(wrong)?;
    let server = if server.is_empty() { host } else { server.parse().map_err(|_| wrong())? };
    if !is_inside(server) || server == dns || (server == host && port == 0) {
        return Err(bad(format!("Conflicting/invalid host:port in guest forwarding rule '{text}'")));
    }
    let to = match to.strip_prefix("cmd:") {
        Some(command) => Target::Command(command.to_owned()),
        None => Target::Device(to.to_owned()),
    };
    Ok(GuestForward { at: (server, port), to })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let mut o = crate::keyval(pairs.iter().copied()).unwrap();
        let c = Config::take(&mut o).map_err(|e| e.to_string())?;
        o.finish().map_err(|e| e.to_string())?;
        Ok(c)
    }

    #[test]
    fn a_network_at_the_end_of_the_address_space_is_refused() {
        assert!(parsed(&[("net", "255.255.255.240/28")]).unwrap_err().contains("DHCP range does not fit"));
    }

    #[test]
    fn defaults_are_qemus() {
        let c = parsed(&[]).unwrap();
        let text =
            format!("{}/{} {} {} {} {} {} {}", c.net, c.mask, c.host, c.dns, c.dhcp_start, c.prefix6, c.host6, c.dns6);
        assert_eq!(text, "10.0.2.0/255.255.255.0 10.0.2.2 10.0.2.3 10.0.2.15 fec0:: fec0::2 fec0::3");
        assert!(c.ipv4 && c.ipv6 && !c.restrict);
        assert!(c.contains("10.0.2.77".parse().unwrap()) && !c.contains("10.0.3.1".parse().unwrap()));
        assert!(c.contains("fec0::77".parse().unwrap()) && !c.contains("fec1::1".parse().unwrap()));
    }

    #[test]
    fn networks_are_read_and_checked() {
        let c = parsed(&[("net", "192.168.76.0/24"), ("dhcpstart", "192.168.76.9"), ("ipv6", "off")]).unwrap();
        assert_eq!((c.host.to_string().as_str(), c.ipv4, c.ipv6), ("192.168.76.2", true, false));
        for (key, value, message) in [
            ("net", "x", "Failed to parse network address"),
            ("net", "10.0.2.0/255.0.255.0", "Failed to parse network address"),
            ("host", "10.0.3.2", "Host doesn't belong to network"),
            ("dns", "10.0.2.2", "DNS must be different from host"),
            ("ipv6-net", "fd00::x/64", "Failed to parse IPv6 prefix"),
            ("ipv6-net", "fd00::/x", "Invalid IPv6 prefix length"),
            ("ipv6-net", "fd00::/127", "Invalid IPv6 prefix length"),
            ("dhcpstart", "1.2.3.4", "DHCP doesn't belong to network"),
            ("dhcpstart", "10.0.2.1", "DNS and host must be different from the DHCP range"),
            ("ipv6-prefixlen", "127", "Invalid IPv6 prefix length"),
            ("smb", "/x", "parameter 'smb' of QEMU is not built yet"),
            ("speed", "1", "Parameter 'speed' is unexpected"),
        ] {
            assert_eq!(parsed(&[(key, value)]).unwrap_err(), message);
        }
    }

    #[test]
    fn a_name_server_may_be_elsewhere() {
        let c = parsed(&[("dns", "1.2.3.4"), ("ipv6-net", "fd00:1::/48"), ("ipv6-dns", "2001:db8::1")]).unwrap();
        assert_eq!(
            format!("{} {} {} {}", c.dns, c.told_dns, c.dns6, c.told_dns6),
            "10.0.2.3 1.2.3.4 fd00:1::3 2001:db8::1"
        );
        assert_eq!((c.prefix6_len, c.host6.to_string().as_str()), (48, "fd00:1::2"));
        for (key, value, message) in [
            ("dns", "1.2.3.4", "DNS doesn't belong to network"),
            ("ipv6-dns", "2001:db8::1", "IPv6 DNS doesn't belong to network"),
        ] {
            assert_eq!(parsed(&[("restrict", "on"), (key, value)]).unwrap_err(), message);
        }
    }

    #[test]
    fn forwarding_rules_are_read() {
        let c = parsed(&[("guestfwd", "tcp:10.0.2.100:80-cmd:cat")]).unwrap();
        assert_eq!(c.guest_forwards[0].to, Target::Command("cat".into()));
        let c = parsed(&[("guestfwd", "tcp::80-tcp:127.0.0.1:4-2")]).unwrap();
        let forward = &c.guest_forwards[0];
        assert_eq!((forward.at.0, &forward.to), (c.host, &Target::Device("tcp:127.0.0.1:4-2".into())));
        let r = c.host_forward("tcp:127.0.0.1:5555-:22").unwrap();
        assert_eq!((r.host.to_string(), r.guest.to_string()), ("127.0.0.1:5555".into(), "10.0.2.15:22".into()));
        assert!(c.host_forward("udp::53-10.0.2.16:53").unwrap().udp);
        for bad in ["", "tcp", "tcp:1", "x::1-:2", "tcp::1-2", "tcp::y-:2", "tcp::1-:0", "tcp:z:1-:2", "tcp::1"] {
            assert!(c.host_forward(bad).unwrap_err().to_string().starts_with("Invalid host forwarding rule"), "{bad}");
        }
        assert!(parsed(&[("guestfwd", "tcp:10.0.2.3:80-cmd:cat")]).is_err());
    }
}
