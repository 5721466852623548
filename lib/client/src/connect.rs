//! Connections to the API server. Inside the cluster the known addresses stand in for DNS: the certificate is
//! checked against `kubernetes.default.svc`, and an address that does not answer is passed over at connect time.

use std::{
    future::{Ready, ready},
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Uri};
use hyper_util::{
    client::legacy::{
        Client as HttpClient, ResponseFuture,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{ClientBuilder, ConfigExt},
    config::KubeConfigOptions,
};
use rand::seq::SliceRandom;
use tower::{BoxError, Service, ServiceBuilder, util::MapRequestLayer};
use tower_http::timeout::ResponseBodyTimeoutLayer;

use crate::ApiServers;

/// A connection attempt is given up after this time; with several addresses they share it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request whose answer has not begun after this time, connecting and TLS included, has failed: the API server may be frozen.
/// So has one whose answer stops in the middle for as long; the answer of a watch ends before (see `watch`).
/// Longer than it waits for a webhook by default, which is 10 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A peer that acknowledges nothing for this time is gone, and with it what ran over the connection.
const DEAD_PEER: Duration = Duration::from_secs(12);

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

/// A client with the pod's service account. The addresses of `servers` are tried in random order at every new connection;
/// while there are none, the environment's `KUBERNETES_SERVICE_HOST` is used, which needs a working service network.
///
/// # Errors
/// If the service account cannot be read or TLS cannot be set up. The API server need not answer yet.
pub fn connect(servers: &ApiServers) -> Result<Client, ConnectError> {
    if servers.addresses().is_empty() {
        let mut config = Config::incluster_env().map_err(|error| ConnectError::InCluster(Box::new(error)))?;
        // As `through` does: kube itself waits for 295 s.
        (config.connect_timeout, config.read_timeout) = (Some(CONNECT_TIMEOUT), Some(ANSWER_TIMEOUT));
        return ClientBuilder::try_from(config)
            .map(|builder| builder.with_layer(&MapRequestLayer::new(as_of_now)).build())
            .map_err(|error| ConnectError::Setup(Box::new(error)));
    }
    // The URL `https://kubernetes.default.svc/` has no port, so that each address keeps its own.
    let config = Config::incluster_dns().map_err(|error| ConnectError::InCluster(Box::new(error)))?;
    through(config, servers.clone(), ANSWER_TIMEOUT).map_err(|error| ConnectError::Setup(Box::new(error)))
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

fn through(config: Config, servers: ApiServers, limit: Duration) -> Result<Client, kube::Error> {
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
        .map_request(as_of_now)
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(ResponseBodyTimeoutLayer::new(limit))
        .map_future(move |answer: ResponseFuture| async move {
            match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer.map_err(BoxError::from),
                Err(_) => Err(BoxError::from(format!("no answer from the API server within {limit:?}"))),
            }
        })
        .service(HttpClient::builder(TokioExecutor::new()).build(https));
    Ok(Client::new(service, config.default_namespace))
}

/// kube asks for what a streamed list begins with "at version 0", as it is in an API server's cache, however old; without a version it is as of
/// now, as with a list (Kubernetes API concepts, "Streaming lists").
fn as_of_now<B>(mut request: Request<B>) -> Request<B> {
    if let Some(uri) = without_version(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

fn without_version(uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    if !query.split('&').any(|pair| pair == "sendInitialEvents=true") {
        return None;
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| *pair != "resourceVersion=0").collect();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{}?{}", uri.path(), kept.join("&")).parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Answers every name with the known addresses, shuffled: clients spread over the API servers, and one that is frozen is not always first.
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
        let mut addresses = self.0.addresses();
        addresses.shuffle(&mut rand::rng());
        ready(Ok(addresses.into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn an_api_server_that_takes_a_connection_and_says_nothing_is_given_up() {
        let frozen = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let servers = ApiServers::parse(&frozen.local_addr().unwrap().to_string()).unwrap();
        let config = Config::new("http://kubernetes.default.svc/".parse().unwrap());
        let client = through(config, servers, Duration::from_millis(200)).unwrap();
        let answer = tokio::time::timeout(CONNECT_TIMEOUT / 2, client.apiserver_version()).await;
        assert!(matches!(answer, Ok(Err(kube::Error::Service(_)))), "{answer:?}");
    }

    #[tokio::test]
    async fn an_answer_that_stops_in_the_middle_is_given_up() {
        let stalling = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = stalling.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = stalling.accept().await.unwrap();
            stream.read_exact(&mut [0; 16]).await.unwrap();
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
            stream.write_all(head).await.unwrap();
            std::future::pending::<()>().await;
        });
        let config = Config::new("http://kubernetes.default.svc/".parse().unwrap());
        let client =
            through(config, ApiServers::parse(&address).unwrap(), Duration::from_millis(200)).unwrap();
        let answer = tokio::time::timeout(CONNECT_TIMEOUT / 2, client.apiserver_version()).await;
        server.abort();
        assert!(matches!(answer, Ok(Err(kube::Error::Service(_)))), "{answer:?}");
    }

    #[tokio::test]
    async fn streamed_lists_are_as_of_now_and_other_requests_stay_as_they_are() {
        let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        let streamed = format!("/api/v1/services?watch=true&{initial}");
        for (wanted, asked) in [
            (format!("{streamed}&resourceVersion=0"), streamed.as_str()),
            (
                "/api/v1/services?watch=true&resourceVersion=0".into(),
                "/api/v1/services?watch=true&resourceVersion=0",
            ),
            ("/version".into(), "/version"),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                String::from_utf8_lossy(&request[..length]).into_owned()
            });
            let config = Config::new("http://kubernetes.default.svc/".parse().unwrap());
            let client = through(config, ApiServers::parse(&address).unwrap(), CONNECT_TIMEOUT).unwrap();
            client.request_text(Request::get(wanted).body(vec![]).unwrap()).await.unwrap();
            let head = server.await.unwrap();
            assert_eq!(head.split(' ').nth(1), Some(asked), "{head}");
        }
    }

    #[tokio::test]
    async fn every_api_server_comes_first_at_times() {
        let known = Known(ApiServers::parse("10.0.0.1:6443,10.0.0.2:6443").unwrap());
        let mut first = HashSet::new();
        for _ in 0..100 {
            let mut addresses = known.clone().call("kubernetes.default.svc".parse().unwrap()).await.unwrap();
            first.extend(addresses.next());
        }
        assert_eq!(first.len(), 2);
    }
}
