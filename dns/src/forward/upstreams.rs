//! Who the upstream resolvers are: as told, or as a resolv.conf says.

use std::net::{IpAddr, SocketAddr};

/// The port of DNS.
pub(crate) const PORT: u16 = 53;

/// Reads `address` or `address:port` (`[address]:port` for IPv6).
///
/// # Errors
/// The text is neither.
pub fn parse(text: &str) -> Result<SocketAddr, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>()
        .map(|address| SocketAddr::new(address, PORT))
        .or_else(|_| text.parse())
        .map_err(|_| format!("upstream {text:?} is not an address or address:port"))
}

/// The name servers of a resolv.conf. Lines that cannot be read are skipped, as resolvers do.
#[must_use]
pub fn from_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let (keyword, rest) = line.trim().split_once(char::is_whitespace)?;
        let address = rest.split_whitespace().next().filter(|_| keyword == "nameserver")?;
        parse(address.split('%').next()?).ok()
    };
    text.lines().filter_map(server).collect()
}

/// The name servers of a node: those that its `resolv.conf` names; where these are only local ones, such as the stub of systemd-resolved, those
/// that systemd-resolved itself asks, where it says so.
#[must_use]
pub fn of_node(resolv_conf: &str, systemd: Option<&str>) -> Vec<SocketAddr> {
    let named = from_resolv_conf(resolv_conf);
    match systemd {
        Some(systemd) if named.iter().all(|server| server.ip().is_loopback()) => from_resolv_conf(systemd),
        _ => named,
    }
}

/// Whether questions to `upstream` come back to a server that listens at `listen`.
#[must_use]
pub fn is_self(upstream: SocketAddr, listen: SocketAddr) -> bool {
    let local = upstream.ip().is_loopback() || upstream.ip().is_unspecified();
    upstream.port() == listen.port()
        && (upstream.ip() == listen.ip() || (local && listen.ip().is_unspecified()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_a_port_are_read() {
        for (text, expected) in [
            ("10.0.0.53", Some("10.0.0.53:53")),
            ("10.0.0.53:5353", Some("10.0.0.53:5353")),
            ("fd00::53", Some("[fd00::53]:53")),
            ("[fd00::53]", Some("[fd00::53]:53")),
            ("[fd00::53]:5353", Some("[fd00::53]:5353")),
            ("dns.example", None),
            ("", None),
        ] {
            assert_eq!(parse(text).ok(), expected.map(|text| text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_resolv_conf_names_its_servers_in_order() {
        let text = "# nameserver 1.1.1.1\nsearch a b\nnameserver 10.0.0.2\n nameserver\tfe80::1%eth0 # x\n\
                    nameserver\nnameserver what\noptions ndots:5\nnameserver fd00::2";
        let expected = ["10.0.0.2:53", "[fe80::1]:53", "[fd00::2]:53"];
        assert_eq!(from_resolv_conf(text), expected.map(|text| text.parse().unwrap()));
    }

    #[test]
    fn behind_the_stub_of_systemd_are_the_resolvers_that_it_asks() {
        let servers =
            |text: &[&str]| text.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let (stub, real) = ("nameserver 127.0.0.53\n", "nameserver 10.0.0.2\n");
        assert_eq!(of_node(stub, Some(real)), servers(&["10.0.0.2:53"]));
        assert_eq!(of_node("", Some(real)), servers(&["10.0.0.2:53"]));
        assert_eq!(of_node(stub, None), servers(&["127.0.0.53:53"]));
        assert_eq!(of_node("nameserver 10.0.0.9\n", Some(real)), servers(&["10.0.0.9:53"]));
        let both = "nameserver 127.0.0.53\nnameserver 10.0.0.9\n";
        assert_eq!(of_node(both, Some(real)), servers(&["127.0.0.53:53", "10.0.0.9:53"]));
    }

    #[test]
    fn a_server_knows_itself_among_its_upstreams() {
        for (upstream, listen, expected) in [
            ("127.0.0.53:53", "0.0.0.0:53", true),
            ("127.0.0.1:5353", "0.0.0.0:53", false),
            ("10.0.0.2:53", "0.0.0.0:53", false),
            ("10.0.0.2:53", "10.0.0.2:53", true),
            ("127.0.0.2:53", "127.0.0.1:53", false),
        ] {
            assert_eq!(is_self(upstream.parse().unwrap(), listen.parse().unwrap()), expected, "{upstream}");
        }
    }
}
