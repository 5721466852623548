//! Schemas of values that are text in the API and typed in Rust.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use crate::rule::rules;

/// Schema of a CIDR: canonical, so that one network has one spelling. 43 is the longest IPv6 CIDR.
pub(crate) struct CidrText;

impl JsonSchema for CidrText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Cidr".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 43, "x-kubernetes-validations": rules(&[
            ("isCIDR(self) && cidr(self) == cidr(self).masked()", "must be a CIDR without host bits, such as 10.244.0.0/16"),
        ])})
    }
}

/// Schema of an IP address. 39 is the longest IPv6 address.
pub(crate) struct IpText;

impl JsonSchema for IpText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Ip".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 39, "x-kubernetes-validations": rules(&[
            ("isIP(self)", "must be an IP address"),
        ])})
    }
}

/// Schema of a domain name in lower case, without a dot at its end. 253 is the longest.
pub(crate) struct DomainText;

impl JsonSchema for DomainText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Domain".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": r"^[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?([.][a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*$"})
    }
}

/// Schema of a zone: a domain name as above, or `.` for all names.
pub(crate) struct ZoneText;

impl JsonSchema for ZoneText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Zone".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": r"^([.]|[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?([.][a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*)$"})
    }
}

/// A resolver that names outside the cluster are sent to: `ip`, `ip:port` or `[ip]:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Its address.
    pub ip: IpAddr,
    /// Its port; without one, that of the protocol it is asked over.
    pub port: Option<u16>,
}

impl Upstream {
    /// Where it is asked, at the port `usual` unless it says another one.
    #[must_use]
    pub fn at(self, usual: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(usual))
    }
}

impl From<SocketAddr> for Upstream {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip(), port: Some(address.port()) }
    }
}

impl FromStr for Upstream {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.parse::<IpAddr>().map(|ip| Self { ip, port: None });
        bare.or_else(|_| text.parse::<SocketAddr>().map(Self::from))
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => self.ip.fmt(f),
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
        }
    }
}

impl Serialize for Upstream {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Upstream {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Upstream".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 47, "x-kubernetes-validations": rules(&[(
            "isIP(self) || (self.matches('^([0-9.]+|[[][0-9a-fA-F:.]+[]]):[1-9][0-9]{0,4}$') \
             && isIP(self.substring(0, self.lastIndexOf(':')).replace('[', '').replace(']', '')) \
             && int(self.substring(self.lastIndexOf(':') + 1)) <= 65535)",
            "must be an IP address, or an IP address and a port such as 192.0.2.1:5353 or [2001:db8::1]:5353",
        )])})
    }
}

/// Largest packet of pods in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mtu {
    /// Each node takes that of the link that carries its address, less the overlay's header.
    #[default]
    Auto,
    /// The same on all nodes.
    Bytes(u16),
}

impl Serialize for Mtu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("Auto"),
            Self::Bytes(bytes) => serializer.serialize_u16(*bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Mtu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Null => Ok(Self::Auto), // the schema of a number or text lets null pass
            Value::String(text) if text == "Auto" => Ok(Self::Auto),
            Value::Number(number) => {
                let bytes = number.as_u64().and_then(|bytes| u16::try_from(bytes).ok());
                bytes.map(Self::Bytes).ok_or_else(|| de::Error::custom("mtu is not a size of packets"))
            }
            _ => Err(de::Error::custom("mtu is neither Auto nor a number")),
        }
    }
}

impl JsonSchema for Mtu {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Mtu".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "x-kubernetes-validations": rules(&[
            ("type(self) == int ? self >= 1280 && self <= 9216 : self == 'Auto'", "must be Auto or a number from 1280 to 9216"),
        ])})
    }
}
