//! Connections to the API server. Inside the cluster the known addresses stand in for DNS: the certificate is
//! checked against `kubernetes.default.svc`, and an address that does not answer is passed over at connect time.

use std::{
    future::{Ready, ready},
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::{
    client::legacy::{
        Client as HttpClient,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use kube::{Client, Config, client::ConfigExt, config::KubeConfigOptions};
use tower::{BoxError, Service, ServiceBuilder};

use crate::ApiServers;

/// A connection attempt is given up after this time; with several addresses they share it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that acknowledges nothing for this time is gone.
const DEAD_PEER: Duration = Duration::from_secs(15);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The pod's service account cannot be read.
    #[error("no service account in this pod and no kubeconfig: run inside the cluster")]
    InCluster(#[source] Box<kube::config::InClusterError>),
    /// No kubeconfig and no service account.
    #[error("no way to a cluster: set KUBECONFIG or pass a context")]
    Kubeconfig(#[source] Box<kube::config::InferConfigError>),
    /// The kubeconfig does not hold what was asked for.
    #[error("the kubeconfig cannot be used")]
    Context(#[source] Box<kube::config::KubeconfigError>),
    /// TLS or authentication cannot be set up.
    #[error("setting up the connection to the API server")]
    Setup(#[source] Box<kube::Error>),
}

/// A client with the pod's service account. The addresses of `servers` are tried in turn at every new connection;
/// while there are none, the environment's `KUBERNETES_SERVICE_HOST` is used, which needs a working service network.
///
/// # Errors
/// If the service account cannot be read or TLS cannot be set up. The API server need not answer yet.
pub fn connect(servers: &ApiServers) -> Result<Client, ConnectError> {
    if servers.addresses().is_empty() {
        let config = Config::incluster_env().map_err(|error| ConnectError::InCluster(Box::new(error)))?;
        return Client::try_from(config).map_err(|error| ConnectError::Setup(Box::new(error)));
    }
    // The URL `https://kubernetes.default.svc/` has no port, so that each address keeps its own.
    let config = Config::incluster_dns().map_err(|error| ConnectError::InCluster(Box::new(error)))?;
    through(config, servers.clone()).map_err(|error| ConnectError::Setup(Box::new(error)))
}

/// A client of the person at the keyboard: kubeconfig (and `context` in it), else the pod's service account.
///
/// # Errors
/// If neither can be used.
pub async fn connect_as_user(context: Option<&str>) -> Result<Client, ConnectError> {
    let config = match context {
        None => Config::infer().await.map_err(|error| ConnectError::Kubeconfig(Box::new(error)))?,
        Some(context) => {
            let options = KubeConfigOptions { context: Some(context.to_owned()), ..Default::default() };
            Config::from_kubeconfig(&options).await.map_err(|error| ConnectError::Context(Box::new(error)))?
        }
    };
    Client::try_from(config).map_err(|error| ConnectError::Setup(Box::new(error)))
}

fn through(config: Config, servers: ApiServers) -> Result<Client, kube::Error> {
    let mut tcp = HttpConnector::new_with_resolver(Known(servers));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(DEAD_PEER / 3));
    tcp.set_keepalive_interval(Some(DEAD_PEER / 3));
    tcp.set_keepalive_retries(Some(2));
    tcp.set_tcp_user_timeout(Some(DEAD_PEER));
    let https = config.rustls_https_connector_with_connector(tcp)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build(https));
    Ok(Client::new(service, config.default_namespace))
}

/// Answers every name with the known addresses.
#[derive(Clone)]
struct Known(ApiServers);

impl Service<Name> for Known {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(self.0.addresses().into_iter()))
    }
}
