//! The API server's addresses: where a program starts from, and what it learns later.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, api::ListParams};

/// Environment variable that names the first contact, `host:port,…`.
const ENVIRONMENT: &str = "NETKEEL_API_SERVERS";

/// How often [`ApiServers::follow`] asks.
const PERIOD: Duration = Duration::from_secs(30);

/// Why the addresses of the API server could not be read, kept or asked for.
#[derive(Debug, thiserror::Error)]
pub enum ServersError {
    /// A text is no list of addresses.
    #[error("{text:?} is not an API server address: write ip:port, several separated by commas")]
    Malformed {
        /// The part that could not be read.
        text: String,
    },
    /// The file could not be read or written.
    #[error("API server addresses in {path}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The `EndpointSlices` of the Service `kubernetes` could not be listed.
    #[error("listing the EndpointSlices of default/kubernetes")]
    List(#[source] Box<kube::Error>),
}

/// The addresses of the API server, shared by all who connect: a list that is replaced reaches existing clients at their next connection.
#[derive(Clone, Debug, Default)]
pub struct ApiServers(Arc<ArcSwap<Vec<SocketAddr>>>);

impl ApiServers {
    /// Reads `ip:port,…`; an empty text is an empty list.
    ///
    /// # Errors
    /// If a part is not an address with a port.
    pub fn parse(text: &str) -> Result<Self, ServersError> {
        let servers = Self::default();
        servers.replace(addresses(text)?);
        Ok(servers)
    }

    /// Reads the environment variable `NETKEEL_API_SERVERS`; unset is an empty list.
    ///
    /// # Errors
    /// If the variable holds no list of addresses.
    pub fn from_env() -> Result<Self, ServersError> {
        Self::parse(&std::env::var(ENVIRONMENT).unwrap_or_default())
    }

    /// The addresses, sorted; every connection tries them in an order of its own.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.load().to_vec()
    }

    /// Takes `addresses` in place of those known; says whether that is a change. An empty list is never taken.
    #[expect(clippy::must_use_candidate, reason = "the list is taken whether or not the caller asks")]
    pub fn replace(&self, mut addresses: Vec<SocketAddr>) -> bool {
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() || **self.0.load() == addresses {
            return false;
        }
        self.0.store(Arc::new(addresses));
        true
    }

    /// Adds the addresses kept in the file at `path` to those known; a missing file adds none.
    ///
    /// # Errors
    /// If the file is there and cannot be read, or holds something else.
    pub fn load(&self, path: &Path) -> Result<(), ServersError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(ServersError::File { path: path.display().to_string(), source }),
        };
        let kept: Vec<SocketAddr> =
            serde_json::from_str(&text).map_err(|_| ServersError::Malformed { text: text.clone() })?;
        self.replace(self.addresses().into_iter().chain(kept).collect());
        Ok(())
    }

    /// Keeps the addresses in the file at `path`, atomically.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ServersError> {
        let fail = |source| ServersError::File { path: path.display().to_string(), source };
        let text = serde_json::to_string(&self.addresses()).map_err(|error| fail(error.into()))?;
        let draft = path.with_extension("json.new");
        std::fs::write(&draft, text).map_err(fail)?;
        std::fs::rename(&draft, path).map_err(fail)
    }

    /// Asks the API server for its present addresses; says whether they changed.
    ///
    /// # Errors
    /// If the `EndpointSlices` of `default/kubernetes` cannot be listed.
    pub async fn refresh(&self, client: &Client) -> Result<bool, ServersError> {
        let api: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
        let of_kubernetes = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
        let slices = api.list(&of_kubernetes).await.map_err(|error| ServersError::List(Box::new(error)))?;
        Ok(self.replace(slices.items.iter().flat_map(serving).collect()))
    }

    /// Asks every half minute, for ever: for programs that no event tells that the API server moved. While there is no
    /// answer, the addresses stay.
    pub async fn follow(self, client: Client) {
        self.follow_every(PERIOD, &client).await;
    }

    async fn follow_every(self, period: Duration, client: &Client) {
        loop {
            match self.refresh(client).await {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(addresses = ?self.addresses(), "the API server's addresses changed");
                }
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the API server's addresses are as before"
                ),
            }
            tokio::time::sleep(period.mul_f64(rand::random_range(0.8..1.2))).await;
        }
    }
}

fn addresses(text: &str) -> Result<Vec<SocketAddr>, ServersError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_err(|_| ServersError::Malformed { text: part.to_owned() })).collect()
}

/// Every address of a slice with every port of it.
fn serving(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let ports: Vec<u16> =
        slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok()).collect();
    let ready = slice.endpoints.iter().filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
    });
    let ips = ready.flat_map(|endpoint| &endpoint.addresses).filter_map(|text| text.parse::<IpAddr>().ok());
    ips.flat_map(|ip| ports.iter().map(move |&port| SocketAddr::new(ip, port)).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use netkeel_testkit::api::FakeApi;
    use serde_json::{Value, json};

    #[test]
    fn a_list_is_read_whatever_its_spaces() {
        let servers = ApiServers::parse("10.0.0.2:6443, 10.0.0.1:6443,").unwrap();
        let want: Vec<SocketAddr> = vec!["10.0.0.1:6443".parse().unwrap(), "10.0.0.2:6443".parse().unwrap()];
        assert_eq!(servers.addresses(), want);
        assert!(ApiServers::parse("").unwrap().addresses().is_empty());
    }

    #[test]
    fn a_malformed_address_is_named() {
        let error = ApiServers::parse("10.0.0.1:6443,kubernetes").unwrap_err();
        assert!(error.to_string().contains("\"kubernetes\""), "{error}");
    }

    #[test]
    fn an_empty_list_never_replaces_what_is_known() {
        let servers = ApiServers::parse("10.0.0.1:6443").unwrap();
        assert!(!servers.replace(vec![]));
        assert_eq!(servers.addresses().len(), 1);
    }

    #[test]
    fn kept_addresses_come_back_and_a_missing_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api-servers.json");
        let servers = ApiServers::parse("10.0.0.1:6443").unwrap();
        servers.load(&path).unwrap();
        servers.save(&path).unwrap();
        let later = ApiServers::parse("10.0.0.9:6443").unwrap();
        later.load(&path).unwrap();
        assert_eq!(later.addresses().len(), 2);
    }

    #[test]
    fn a_slice_gives_every_ready_address_with_its_port() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "kubernetes"}, "addressType": "IPv4", "ports": [{"name": "https", "port": 6443}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}],
        }))
        .unwrap();
        assert_eq!(serving(&slice), ["10.0.0.1:6443".parse().unwrap()]);
    }

    fn slice(address: &str) -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "ports": [{"name": "https", "port": 6443}], "endpoints": [{"addresses": [address]}],
        })
    }

    async fn eventually(servers: &ApiServers, want: &str) {
        let want = ApiServers::parse(want).unwrap().addresses();
        let becomes = async {
            while servers.addresses() != want {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), becomes).await;
        assert!(waited.is_ok(), "{servers:?} instead of {want:?}");
    }

    #[tokio::test]
    async fn a_follower_learns_where_the_api_server_goes_and_keeps_it_while_there_is_no_answer() {
        let api = FakeApi::start().await.unwrap();
        let servers = ApiServers::parse("10.0.0.9:6443").unwrap();
        api.put(slice("10.0.0.1"));
        let (client, following) = (api.client().unwrap(), servers.clone());
        let task =
            tokio::spawn(async move { following.follow_every(Duration::from_millis(20), &client).await });
        eventually(&servers, "10.0.0.1:6443").await;
        api.set_down(true);
        tokio::time::sleep(Duration::from_millis(100)).await;
        eventually(&servers, "10.0.0.1:6443").await;
        api.put(slice("10.0.0.2"));
        api.set_down(false);
        eventually(&servers, "10.0.0.2:6443").await;
        task.abort();
    }
}
