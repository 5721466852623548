//! `spec.observability.traces.endpoint`: an address, or a Service that the operator looks up for all programs, which
//! do not ask DNS for it.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Service;

/// Port of OTLP over gRPC.
const OTLP: u16 = 4317;

/// Where traces are to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collector {
    /// An address.
    Address(SocketAddr),
    /// A port of a Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Port of the Service.
        port: u16,
    },
}

impl Collector {
    /// What `endpoint` means; none for an empty one, and for one that the API would have refused.
    #[must_use]
    pub fn parse(endpoint: &str) -> Option<Self> {
        let host = endpoint.strip_prefix("http://")?.trim_end_matches('/');
        if let Ok(address) = host.parse::<SocketAddr>() {
            return Some(Self::Address(address));
        }
        if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(Self::Address(SocketAddr::new(ip, OTLP)));
        }
        let (host, port) = match host.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (host, OTLP),
        };
        let mut labels = host.split('.');
        let (name, namespace) = (labels.next()?, labels.next()?);
        let of_cluster = labels.next().is_none_or(|third| third == "svc");
        let whole = !name.is_empty() && !namespace.is_empty() && of_cluster;
        whole.then(|| Self::Service { namespace: namespace.to_owned(), name: name.to_owned(), port })
    }
}

/// An endpoint as programs take it.
#[must_use]
pub fn endpoint(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// The address of a Service; none for one without an address of its own, such as a headless one.
#[must_use]
pub fn address_of(service: &Service, port: u16) -> Option<SocketAddr> {
    let ip: IpAddr = service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok()?;
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(namespace: &str, name: &str, port: u16) -> Collector {
        Collector::Service { namespace: namespace.to_owned(), name: name.to_owned(), port }
    }

    #[test]
    fn an_endpoint_is_an_address_or_a_service() {
        let address = |text: &str| Some(Collector::Address(text.parse().unwrap()));
        for (endpoint, meant) in [
            (netkeel_crds::COLLECTOR, Some(service("observability", "jaeger-collector", 4317))),
            ("http://otel.monitoring/", Some(service("monitoring", "otel", 4317))),
            ("http://otel.monitoring.svc:55680", Some(service("monitoring", "otel", 55680))),
            ("http://otel.monitoring.svc.cluster.local:4317/", Some(service("monitoring", "otel", 4317))),
            ("http://192.0.2.9:55680", address("192.0.2.9:55680")),
            ("http://192.0.2.9", address("192.0.2.9:4317")),
            ("http://[2001:db8::9]:4318/", address("[2001:db8::9]:4318")),
            ("http://[2001:db8::9]", address("[2001:db8::9]:4317")),
            ("", None),
            ("https://otel.monitoring", None),
            ("http://collector.example.com", None),
            ("http://jaeger", None),
            ("http://otel.monitoring:many", None),
        ] {
            assert_eq!(Collector::parse(endpoint), meant, "{endpoint}");
        }
    }

    #[test]
    fn a_headless_service_has_no_address() {
        for (ip, address) in
            [("10.96.1.2", Some("10.96.1.2:4317".parse().unwrap())), ("None", None), ("", None)]
        {
            let service: Service =
                serde_json::from_value(json!({"spec": {"clusterIP": ip}})).expect("a Service");
            assert_eq!(address_of(&service, 4317), address, "{ip}");
        }
        assert_eq!(address_of(&Service::default(), 4317), None);
    }
}
