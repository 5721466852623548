//! The node's own DNS servers: who is to be asked whether they answer, and what follows from it.

use std::net::SocketAddr;

use netkeel_core::{address::Address, service::Protocol};
use tokio::sync::watch;

use super::Agent;
use crate::own_dns::{self, Servers};

impl Agent {
    /// The node's own DNS servers, as they change: those that the node's clients are sent to before all others.
    #[must_use]
    pub fn dns_servers(&self) -> watch::Receiver<Servers> {
        self.dns.servers.subscribe()
    }

    /// These of the node's own DNS servers do not answer, and no others: the next [`Self::work`] sends clients elsewhere.
    pub fn dns_silent(&mut self, silent: &Servers) {
        for server in silent.difference(&self.dns.silent) {
            tracing::warn!(%server, "the node's own DNS server does not answer, others are asked while there are any");
        }
        for server in self.dns.silent.difference(silent) {
            tracing::info!(%server, "the node's own DNS server answers or is gone");
        }
        self.dns.silent.clone_from(silent);
        let addresses = silent.iter().map(|server| Address::from(server.ip())).collect();
        self.changed.extend(self.services.set_silent(&own_dns::service(), &addresses));
    }

    /// Tells who is to be asked, and whether one of them serves the node's clients.
    pub(super) fn follow_dns(&self) {
        let preferred = self.services.preferred(&own_dns::service(), Protocol::Udp);
        let now: Servers = preferred
            .into_iter()
            .map(|backend| SocketAddr::new(backend.address.ip(), u16::from_be(backend.port)))
            .collect();
        let local = now.difference(&self.dns.silent).next().is_some();
        self.with.metrics.dns_local.set(local.into());
        self.dns.servers.send_if_modified(|servers| {
            let new = *servers != now;
            *servers = now;
            new
        });
    }
}

/// The node's own DNS servers.
#[derive(Debug, Default)]
pub(super) struct OwnDns {
    servers: watch::Sender<Servers>,
    silent: Servers,
}
