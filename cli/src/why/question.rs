//! What is asked: two ends, a protocol and a port, as they are typed.

use std::{fmt, net::IpAddr, str::FromStr};

use netkeel_dataplane_common::services::Protocol;

/// One end of the traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// `namespace/pod`, or `pod/namespace/pod`.
    Pod { namespace: String, name: String },
    /// `node/name`: the node itself and its host-network pods.
    Node(String),
    /// An address of whoever has it.
    Address(IpAddr),
}

/// The far end, and what the traffic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) end: End,
    /// None asks for every protocol and port at once.
    pub(crate) port: Option<(Protocol, u16)>,
}

/// Why a command line makes no sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0} is no end of traffic: write NAMESPACE/POD, node/NAME or an address")]
    End(String),
    #[error("{0} is no port: write a number from 1 to 65535, with /udp behind it for UDP")]
    Port(String),
}

impl FromStr for End {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        let pod = |namespace: &str, name: &str| Self::Pod { namespace: namespace.into(), name: name.into() };
        match parts[..] {
            _ if parts.contains(&"") => Err(Error::End(text.to_owned())),
            [address] => self::address(address).map(Self::Address).ok_or_else(|| Error::End(text.to_owned())),
            ["node", name] => Ok(Self::Node(name.to_owned())),
            [namespace, name] | ["pod", namespace, name] => Ok(pod(namespace, name)),
            _ => Err(Error::End(text.to_owned())),
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some((end, port)) = text.rsplit_once(':').filter(|_| address(text).is_none()) else {
            return Ok(Self { end: text.parse()?, port: None });
        };
        if end.contains(':') && !(end.starts_with('[') && end.ends_with(']')) {
            return Err(Error::End(text.to_owned()));
        }
        let wrong = || Error::Port(port.to_owned());
        let (number, protocol) = match port.split_once('/') {
            None | Some((_, "tcp")) => (port.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((number, "udp")) => (number, Protocol::Udp),
            Some(_) => return Err(wrong()),
        };
        let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
        Ok(Self { end: end.parse()?, port: Some((protocol, number)) })
    }
}

/// An address, one of IPv6 with brackets or without; a v4-mapped one is IPv4.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address: IpAddr = bare.unwrap_or(text).parse().ok()?;
    (bare.is_none() || address.is_ipv6()).then(|| address.to_canonical())
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "pod {namespace}/{name}"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl Target {
    /// The traffic in words: `TCP port 80`.
    pub(crate) fn traffic(&self) -> String {
        match self.port {
            None => "every protocol and port".to_owned(),
            Some((protocol, port)) => format!("{} port {port}", name(protocol)),
        }
    }
}

/// The name of a protocol as policies write it.
pub(crate) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_ports_are_read_as_they_are_typed() {
        let pod = |namespace: &str, name: &str| End::Pod { namespace: namespace.into(), name: name.into() };
        let address = |text: &str| End::Address(text.parse().unwrap());
        for (text, end, port) in [
            ("shop/cart", pod("shop", "cart"), None),
            ("shop/cart:80", pod("shop", "cart"), Some((Protocol::Tcp, 80))),
            ("shop/cart:80/tcp", pod("shop", "cart"), Some((Protocol::Tcp, 80))),
            ("pod/node/cart:53/udp", pod("node", "cart"), Some((Protocol::Udp, 53))),
            ("node/n1:10250", End::Node("n1".into()), Some((Protocol::Tcp, 10250))),
            ("10.0.0.1:65535", address("10.0.0.1"), Some((Protocol::Tcp, 65535))),
            ("fd00::1", address("fd00::1"), None),
            ("fd00::1:80", address("fd00::1:80"), None),
            ("[fd00::1]", address("fd00::1"), None),
            ("[fd00::1]:80", address("fd00::1"), Some((Protocol::Tcp, 80))),
            ("[fd00::1]:53/udp", address("fd00::1"), Some((Protocol::Udp, 53))),
            ("::ffff:10.0.0.1", address("10.0.0.1"), None),
        ] {
            assert_eq!(text.parse::<Target>().unwrap(), Target { end, port }, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_answered_with_what_would() {
        for text in
            ["", "cart", "shop/", "/cart", "a/b/c", "fd00::g", "[10.0.0.1]", "10.0.0.256", "shop/cart/80"]
        {
            let error = text.parse::<End>().unwrap_err().to_string();
            assert!(error.contains("write NAMESPACE/POD"), "{text}: {error}");
        }
        let error = "fd00::1:80/udp".parse::<Target>().unwrap_err().to_string();
        assert!(
            error.contains("is no end of traffic"),
            "an address of IPv6 with a port has brackets: {error}"
        );
        for text in ["shop/cart:", "shop/cart:0", "shop/cart:65536", "shop/cart:http", "shop/cart:80/sctp"] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("is no port"), "{text}: {error}");
        }
    }
}
