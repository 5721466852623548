//! Blocks sorted by what they are for: all names, the cluster's, or a zone's.

use netkeel_crds::cluster_network::dns::Placement;

use super::{Mapped, is_reverse, within};
use crate::migrate::{
    finding::Place,
    parser::{Block, Directive},
    value::{Served, served},
};

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All names that no other block serves.
    Root,
    /// Names of the cluster, which Netkeel serves itself.
    Cluster,
    /// A zone of somebody else.
    Stub,
}

/// A block.
#[derive(Debug)]
pub(super) struct Server<'a> {
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) zones: Vec<String>,
    pub(super) directives: &'a [Directive],
    /// It is served over TLS alone.
    pub(super) over_tls: bool,
}

impl<'a> Server<'a> {
    /// Its plugins of this name.
    pub(super) fn directives(&self, name: &'static str) -> impl Iterator<Item = &'a Directive> + use<'a> {
        self.directives.iter().filter(move |directive| directive.name == name && directive.unknown.is_none())
    }

    /// Names that it does not answer itself are sent to resolvers.
    pub(super) fn forwards_all(&self) -> bool {
        let forwards =
            self.directives.iter().filter(|directive| matches!(directive.name.as_str(), "forward" | "proxy"));
        forwards.into_iter().any(|forward| forward.args.first().is_some_and(|from| from == "."))
    }

    /// What it forwards all its names to.
    fn target(&self) -> Option<&'a [String]> {
        let forward =
            self.directives("forward").find(|forward| forward.args.first().is_some_and(|from| from == "."));
        forward.map(|forward| &forward.args[1..])
    }
}

/// The blocks that count: first those for all names, since others are compared with them.
pub(super) fn servers<'a>(blocks: &'a [Block], out: &mut Mapped) -> Vec<Server<'a>> {
    let port = main_port(blocks);
    let mut servers: Vec<Server<'a>> = blocks.iter().filter_map(|block| server(block, port, out)).collect();
    node_local(&mut servers, out);
    let plain: Vec<Vec<String>> =
        servers.iter().filter(|server| !server.over_tls).map(|server| server.zones.clone()).collect();
    servers.retain_mut(|server| {
        let twin = server.over_tls && plain.contains(&server.zones);
        if twin {
            // DNS over TLS is answered as all DNS is, so only its certificate is left to look at
            let tls = server.directives.iter().position(|directive| directive.name == "tls");
            server.directives = tls.map_or(&[], |tls| &server.directives[tls..=tls]);
            server.kind = Kind::Cluster;
        }
        true
    });
    servers.sort_by_key(|server| server.kind != Kind::Root);
    servers
}

/// The port of names: other ports are servers of their own.
fn main_port(blocks: &[Block]) -> u16 {
    let serves = |block: &&Block| block.directives.iter().any(|directive| directive.name == "kubernetes");
    let port_of = |block: &Block| {
        let mut keys =
            block.keys.iter().map(|key| served(&key.text)).filter(|served| served.protocol == "dns");
        keys.next().map(|served| served.port.unwrap_or(53))
    };
    let cluster = blocks.iter().filter(serves).find_map(port_of);
    cluster.or_else(|| blocks.iter().find_map(port_of)).unwrap_or(53)
}

fn server<'a>(block: &'a Block, port: u16, out: &mut Mapped) -> Option<Server<'a>> {
    let mut zones = Vec::new();
    let mut over_tls = true;
    for key in &block.keys {
        if let Some(name) = &key.unknown {
            let why = format!(
                "the value of {{${name}}} in the environment of CoreDNS is not known: give --env {name}=VALUE"
            );
            out.findings.unmapped(&key.place, "block", why);
            continue;
        }
        let what = served(&key.text);
        if let Some(why) = foreign(&what, port) {
            out.findings.unmapped(&key.place, format!("block {}", key.text), why);
            continue;
        }
        over_tls &= what.protocol == "tls";
        zones.extend(what.zones);
    }
    zones.sort();
    zones.dedup();
    let place = block.keys.first()?.place.clone();
    let kubernetes = block.directives.iter().any(|directive| directive.name == "kubernetes");
    let kind = match (zones.iter().any(String::is_empty), kubernetes) {
        (true, _) => Kind::Root,
        (false, true) => Kind::Cluster,
        (false, false) => Kind::Stub,
    };
    (!zones.is_empty()).then_some(Server { kind, place, zones, directives: &block.directives, over_tls })
}

/// Why something is not served.
fn foreign(what: &Served, port: u16) -> Option<String> {
    match (what.protocol.as_str(), what.port) {
        ("dns", None) if port == 53 => None,
        ("dns", Some(own)) if own == port => None,
        ("dns", own) => Some(format!(
            "a server of its own at port {}: Netkeel serves all names at port 53 of kube-dns; run another server for it",
            own.unwrap_or(53)
        )),
        ("tls", None | Some(853)) => None,
        ("tls", Some(own)) => Some(format!("DNS over TLS is served at port 853, not {own}")),
        (other, _) => Some(format!("Netkeel serves no {other}://: DNS over UDP, TCP and TLS alone")),
    }
}

/// The Corefile of a cache on every node (`NodeLocal DNSCache`): a server on every node, whose cluster zones are sent to kube-dns.
fn node_local(servers: &mut [Server<'_>], out: &mut Mapped) {
    let local = |word: &String| word.starts_with("169.254.") || word.contains("__PILLAR__LOCAL__");
    let Some(bind) =
        servers.iter().flat_map(|server| server.directives("bind")).find(|bind| bind.args.iter().any(local))
    else {
        return;
    };
    out.dns.placement = Placement::EveryNode;
    let why = "a cache on every node is spec.dns.placement EveryNode: remove the DaemonSet of NodeLocal DNSCache, and its address from the kubelets' clusterDNS";
    out.findings.note(&bind.place, "bind", why);
    let reverse = servers.iter().find(|server| server.zones.iter().all(|zone| is_reverse(zone)));
    let Some(kube_dns) = reverse.and_then(Server::target).map(<[String]>::to_vec) else { return };
    for server in servers.iter_mut().filter(|server| server.kind == Kind::Stub) {
        if server.target() == Some(&kube_dns) {
            server.kind = Kind::Cluster;
            out.served = true;
            if let Some(domain) = server.zones.iter().find(|zone| !is_reverse(zone)) {
                super::cluster::domain(domain, &server.place, out);
            }
        }
    }
}

/// A zone's block in which nothing answers is refused by CoreDNS.
pub(super) fn answers(server: &Server<'_>, out: &mut Mapped) {
    const SILENT: [&str; 12] = [
        "errors",
        "log",
        "cache",
        "loop",
        "reload",
        "bind",
        "prometheus",
        "health",
        "ready",
        "loadbalance",
        "debug",
        "bufsize",
    ];
    let silent = server.directives.iter().all(|directive| SILENT.contains(&directive.name.as_str()));
    if server.kind == Kind::Stub && silent {
        let why = "nothing in it answers, so CoreDNS refuses its names: refuse them with spec.dns.acl";
        out.findings.unmapped(&server.place, format!("block {}", server.zones.join(" ")), why);
    }
}

/// All names of a zone lie in one of these.
pub(super) fn covers(zones: &[String], zone: &str) -> bool {
    zones.iter().any(|outer| within(zone, outer))
}
