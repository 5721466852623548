//! A resolver on loopback for each protocol, that says what a test tells it to, and can be taken down and come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record};
use netkeel_crds::cluster_network::dns::{Forwarding, Protocol};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a resolver says to a question.
pub(crate) enum Say {
    /// This message, after a while.
    Message(Message, Duration),
    /// These bytes as they are.
    Bytes(Vec<u8>),
    /// The first bytes of a message over a stream, and the end of the connection.
    Half,
    Nothing,
}

type Script = Arc<dyn Fn(&Message) -> Say + Send + Sync>;

/// A running resolver. It goes when this is dropped.
pub(crate) struct Resolver {
    pub address: SocketAddr,
    pub forwarding: Forwarding,
    counts: Arc<Counts>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Counts {
    asked: AtomicUsize,
    connections: AtomicUsize,
    open: watch::Sender<usize>,
}

impl Resolver {
    /// A resolver that is asked over `protocol` and answers as `script` says.
    pub(crate) async fn start(
        protocol: Protocol,
        script: impl Fn(&Message) -> Say + Send + Sync + 'static,
    ) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), protocol, "dns.example", script).await
    }

    /// The same at an address, with a certificate of `name`; `dns.example` is asked for.
    pub(crate) async fn start_at(
        address: SocketAddr,
        protocol: Protocol,
        name: &str,
        script: impl Fn(&Message) -> Say + Send + Sync + 'static,
    ) -> Self {
        let (counts, stop, script): (Arc<Counts>, _, Script) =
            (Arc::default(), CancellationToken::new(), Arc::new(script));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let is_secure = matches!(protocol, Protocol::TLS | Protocol::HTTPS);
        let (acceptor, authority) = certificate(name, protocol == Protocol::HTTPS);
        let forwarding = Forwarding {
            protocol,
            tls_server_name: is_secure.then(|| "dns.example".to_owned()),
            ca_certificates: is_secure.then_some(authority),
            timeout_milliseconds: 300,
            ..Forwarding::default()
        };
        if protocol == Protocol::UDP {
            let socket = UdpSocket::bind(address).await.unwrap();
            spawn(&stop, datagrams(socket, script.clone(), counts.clone()));
        }
        let accepting = (counts.clone(), stop.clone());
        spawn(&stop, async move {
            let (counts, stop) = accepting;
            while let Ok((stream, _)) = listener.accept().await {
                let (script, counts, acceptor) = (script.clone(), counts.clone(), acceptor.clone());
                counts.connections.fetch_add(1, Ordering::SeqCst);
                spawn(&stop, async move {
                    counts.open.send_modify(|open| *open += 1);
                    if !is_secure {
                        frames(stream, script, &counts).await;
                    } else if let Ok(stream) = acceptor.accept(stream).await {
                        match protocol {
                            Protocol::HTTPS => requests(stream, script, counts.clone()).await,
                            _ => frames(stream, script, &counts).await,
                        }
                    }
                    counts.open.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { address, forwarding, counts, _stop: stop.drop_guard() }
    }

    /// How many questions came.
    pub(crate) fn asked(&self) -> usize {
        self.counts.asked.load(Ordering::SeqCst)
    }

    /// How many connections came.
    pub(crate) fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Waits until no connection is open.
    pub(crate) async fn is_left(&self) {
        self.counts.open.subscribe().wait_for(|open| *open == 0).await.unwrap();
    }
}

fn spawn(stop: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    });
}

/// What accepts TLS with a certificate of `name`, and the authority that signed it, in PEM.
fn certificate(name: &str, http: bool) -> (TlsAcceptor, String) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    if http {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    (TlsAcceptor::from(Arc::new(config)), authority)
}

async fn said(script: &Script, counts: &Counts, packet: &[u8]) -> Option<Vec<u8>> {
    counts.asked.fetch_add(1, Ordering::SeqCst);
    match script(&Message::from_vec(packet).unwrap()) {
        Say::Message(message, after) => {
            tokio::time::sleep(after).await;
            Some(message.to_vec().unwrap())
        }
        Say::Bytes(bytes) => Some(bytes),
        Say::Half => Some(vec![]),
        Say::Nothing => None,
    }
}

async fn datagrams(socket: UdpSocket, script: Script, counts: Arc<Counts>) {
    let (socket, mut buffer) = (Arc::new(socket), [0; 4096]);
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        let (packet, script, counts, socket) =
            (buffer[..length].to_vec(), script.clone(), counts.clone(), socket.clone());
        tokio::spawn(async move {
            if let Some(bytes) = said(&script, &counts, &packet).await {
                let _ = socket.send_to(&bytes, client).await;
            }
        });
    }
}

/// Each question is answered when its time has come, so that replies overtake each other.
async fn frames(stream: impl AsyncRead + AsyncWrite + Send + 'static, script: Script, counts: &Arc<Counts>) {
    let (mut read, write) = tokio::io::split(stream);
    let write = Arc::new(tokio::sync::Mutex::new(write));
    let cut = CancellationToken::new();
    loop {
        let next = async {
            let mut packet = vec![0; usize::from(read.read_u16().await?)];
            read.read_exact(&mut packet).await?;
            Ok::<_, std::io::Error>(packet)
        };
        let packet = tokio::select! {
            packet = next => packet,
            () = cut.cancelled() => return,
        };
        let Ok(packet) = packet else { return };
        let (script, counts, write, cut) = (script.clone(), counts.clone(), write.clone(), cut.clone());
        tokio::spawn(async move {
            let Some(bytes) = said(&script, &counts, &packet).await else { return };
            let mut write = write.lock().await;
            if bytes.is_empty() {
                let _ = write.write_all(&[&[1, 0], &packet[..]].concat()).await;
                let _ = write.flush().await;
                return cut.cancel();
            }
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            let _ = write.write_all(&[&length[..], &bytes].concat()).await;
            let _ = write.flush().await;
        });
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    script: Script,
    counts: Arc<Counts>,
) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (script, counts) = (script.clone(), counts.clone());
        tokio::spawn(async move {
            assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/dns-query"));
            assert_eq!(request.uri().host(), Some("dns.example"));
            assert_eq!(request.headers()["content-type"], "application/dns-message");
            let mut body = request.into_body();
            let mut packet = vec![];
            while let Some(chunk) = body.data().await {
                packet.extend_from_slice(&chunk.unwrap());
            }
            assert_eq!(packet[..2], [0, 0], "RFC 8484 section 4.1");
            let Some(bytes) = said(&script, &counts, &packet).await else {
                return tokio::time::sleep(Duration::from_mins(1)).await;
            };
            let status = if bytes.is_empty() { 502 } else { 200 };
            let response = http::Response::builder()
                .status(status)
                .header("content-type", "application/dns-message")
                .body(())
                .unwrap();
            let mut stream = respond.send_response(response, bytes.is_empty()).unwrap();
            if !bytes.is_empty() {
                stream.send_data(Bytes::from(bytes), true).unwrap();
            }
        });
    }
}

/// The reply to `query` with an address whose last byte is `last`.
pub(crate) fn address(query: &Message, ttl: u32, last: u8) -> Message {
    let mut reply = query.clone();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.recursion_available = true;
    let name = query.queries[0].name().clone();
    reply.answers = vec![Record::from_rdata(name, ttl, RData::A(A::new(192, 0, 2, last)))];
    reply
}

/// The reply that there is no such name, for `ttl` seconds.
pub(crate) fn missing(query: &Message, ttl: u32) -> Message {
    let mut reply = coded(query, ResponseCode::NXDomain);
    let zone = Name::from_ascii("example.").unwrap();
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, ttl);
    reply.authorities = vec![Record::from_rdata(zone, 3600, RData::SOA(soa))];
    reply
}

/// The reply with this code and nothing else.
pub(crate) fn coded(query: &Message, code: ResponseCode) -> Message {
    let mut reply = address(query, 0, 0);
    reply.answers.clear();
    reply.metadata.response_code = code;
    reply
}

/// Says this at once.
pub(crate) fn at_once(message: Message) -> Say {
    Say::Message(message, Duration::ZERO)
}
