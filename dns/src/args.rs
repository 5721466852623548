//! The command line, checked and turned into a `Config`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use hickory_proto::rr::Name;
use ipnet::IpNet;
use netkeel_crds::cluster_network::{Dns, Upstream};

use crate::forward::upstreams;
use crate::live::Base;
use crate::zone::Settings;

/// Cluster DNS of Netkeel.
#[derive(Debug, Parser)]
#[command(name = "netkeel-dns", version)]
pub struct Args {
    /// Domain that the names of Services end in
    #[arg(long, default_value = "cluster.local", value_parser = domain)]
    cluster_domain: Name,
    /// Address and port to answer at, over UDP and TCP; may be repeated
    #[arg(long, default_value = "0.0.0.0:53")]
    listen: Vec<SocketAddr>,
    /// Name of the ClusterNetwork whose spec.dns is followed; it takes the place of --upstream and --ttl
    #[arg(long)]
    cluster_network: Option<String>,
    /// Resolver for all other names, ADDRESS or ADDRESS:PORT; may be repeated [default: /etc/resolv.conf]
    #[arg(long = "upstream", value_parser = upstreams::parse)]
    upstreams: Vec<SocketAddr>,
    /// Range of service addresses, whose reverse names are never asked upstream; may be repeated
    #[arg(long = "service-cidr")]
    service_cidrs: Vec<IpNet>,
    /// NAMESPACE/NAME of the Service in front of this server
    #[arg(long, default_value = "kube-system/kube-dns", value_parser = service)]
    service: String,
    /// Time to live of answers, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=3600))]
    ttl: u32,
    /// Folder with tls.crt and tls.key: answer over TLS, too, at the addresses of --listen; both may come, change and go
    #[arg(long)]
    tls: Option<PathBuf>,
    /// Port of DNS over TLS
    #[arg(long, default_value_t = 853)]
    tls_port: u16,
    /// Address and port of /metrics, /healthz and /readyz
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9472)))]
    admin: SocketAddr,
    /// Seconds to go on answering after the signal to end
    #[arg(long, default_value_t = 5)]
    lame_duck: u64,
    /// Folder that outlives this process; what is known of the cluster is kept there for the next one
    #[arg(long)]
    state: Option<PathBuf>,
    /// OTLP/gRPC collector of traces, http://HOST:PORT
    #[arg(long)]
    traces_endpoint: Option<String>,
    /// Share of questions that are traced, 0 to 1
    #[arg(long, default_value_t = 0.01)]
    traces_sampling_ratio: f64,
}

/// How the server runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// What holds until a ClusterNetwork says otherwise.
    pub dns: Dns,
    /// What no ClusterNetwork changes.
    pub base: Base,
    /// The ClusterNetwork that is followed.
    pub cluster_network: Option<String>,
    /// Folder of the certificate for DNS over TLS, and the port.
    pub tls: Option<(PathBuf, u16)>,
    /// Where metrics and health are told.
    pub admin: SocketAddr,
    /// How long answers go on after the signal to end.
    pub lame_duck: Duration,
    /// Where what is known is kept for the next process.
    pub state: Option<PathBuf>,
    /// Collector of traces.
    pub traces_endpoint: Option<String>,
    /// Share of questions that are traced, 0 to 1.
    pub traces_sampling_ratio: f64,
}

impl Args {
    /// The configuration. The resolvers of the node are asked where no others are given.
    #[must_use]
    pub fn config(self, of_node: Vec<SocketAddr>) -> Config {
        let settings = Settings {
            ttl: self.ttl,
            dns_service: self.service,
            service_ranges: self.service_cidrs,
            ..Settings::new(self.cluster_domain)
        };
        let dns = Dns {
            cluster_domain: settings.domain.to_ascii().trim_end_matches('.').to_owned(),
            ttl_seconds: self.ttl,
            upstreams: self.upstreams.into_iter().map(Upstream::from).collect(),
            ..Dns::default()
        };
        Config {
            dns,
            base: Base { settings, listen: self.listen, of_node },
            cluster_network: self.cluster_network,
            tls: self.tls.map(|folder| (folder, self.tls_port)),
            admin: self.admin,
            lame_duck: Duration::from_secs(self.lame_duck),
            state: self.state,
            traces_endpoint: self.traces_endpoint.filter(|endpoint| !endpoint.is_empty()),
            traces_sampling_ratio: self.traces_sampling_ratio,
        }
    }
}

fn domain(text: &str) -> Result<Name, String> {
    let problem = || format!("{text:?} is no domain of host names such as cluster.local");
    let mut name = Name::from_ascii(text).map_err(|_| problem())?.to_lowercase();
    name.set_fqdn(true);
    if name.is_root() || name.is_wildcard() || text.parse::<IpAddr>().is_ok() {
        Err(problem())
    } else {
        Ok(name)
    }
}

/// `namespace/name` as `name.namespace`.
fn service(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(format!("{name}.{namespace}").to_lowercase())
        }
        _ => Err(format!("{text:?} is not NAMESPACE/NAME")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str], of_node: &[&str]) -> Config {
        let of_node = of_node.iter().map(|address| address.parse().unwrap()).collect();
        Args::try_parse_from([&["netkeel-dns"], arguments].concat()).unwrap().config(of_node)
    }

    #[test]
    fn without_arguments_the_server_fits_a_usual_cluster() {
        let config = config(&[], &["10.0.0.2:53", "127.0.0.53:53"]);
        assert_eq!(config.base.settings.domain.to_ascii(), "cluster.local.");
        assert_eq!(config.base.settings.dns_service, "kube-dns.kube-system");
        assert_eq!(config.base.listen, ["0.0.0.0:53".parse().unwrap()]);
        assert_eq!(config.admin, "0.0.0.0:9472".parse().unwrap());
        assert_eq!(
            config.base.upstreams(&config.dns),
            ["10.0.0.2:53".parse().unwrap()],
            "127.0.0.53 is this server itself"
        );
        assert_eq!((config.dns.ttl_seconds, config.lame_duck), (5, Duration::from_secs(5)));
    }

    #[test]
    fn upstreams_that_are_given_replace_those_of_the_node() {
        let config = config(&["--upstream", "10.0.0.9", "--upstream", "10.0.0.8:5353"], &["10.0.0.2:53"]);
        assert_eq!(
            config.base.upstreams(&config.dns),
            ["10.0.0.9:53", "10.0.0.8:5353"].map(|text| text.parse().unwrap())
        );
    }

    #[test]
    fn dns_over_tls_is_served_where_a_folder_is_named() {
        assert_eq!(config(&[], &[]).tls, None);
        let tls = |arguments: &[&str]| config(&[&["--tls", "/tls"], arguments].concat(), &[]).tls;
        assert_eq!(tls(&[]), Some(("/tls".into(), 853)));
        assert_eq!(tls(&["--tls-port", "8853"]), Some(("/tls".into(), 8853)));
    }

    #[test]
    fn arguments_without_sense_are_refused() {
        for arguments in [
            ["--cluster-domain", ""],
            ["--cluster-domain", "."],
            ["--cluster-domain", "a..b"],
            ["--upstream", "dns.example"],
            ["--service", "kube-dns"],
            ["--ttl", "3601"],
            ["--service-cidr", "10.96.0.0"],
        ] {
            assert!(
                Args::try_parse_from([&["netkeel-dns"], &arguments[..]].concat()).is_err(),
                "{arguments:?}"
            );
        }
    }
}
