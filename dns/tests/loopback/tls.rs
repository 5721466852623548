//! DNS over TLS, asked by a real client while the certificate comes, changes, is bad and goes.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use netkeel_dns::server::tls;
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::CancellationToken;

use crate::client::{PATIENCE, data, handler, question};

const NAME: &str = "dns.example";

/// Puts a new certificate into the folder, and gives what a client trusts then.
fn certificate(folder: &Path) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    fs::write(folder.join("tls.crt"), &certificate).unwrap();
    certificate
}

/// The answer of a server that has this certificate.
async fn ask(server: SocketAddr, certificate: &str) -> io::Result<Vec<String>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"dot".to_vec()];
    let stream = TcpStream::connect(server).await?;
    let name = ServerName::try_from(NAME).unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let mut replies = vec![];
    // two on one connection
    for _ in 0..2 {
        let packet = question("web.shop.svc.cluster.local.", RecordType::A).to_vec().unwrap();
        stream.write_all(&[&[0, u8::try_from(packet.len()).unwrap()], &packet[..]].concat()).await?;
        let mut reply = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut reply).await?;
        replies.extend(data(&Message::from_vec(&reply).unwrap()));
    }
    Ok(replies)
}

/// Waits until the server answers with this certificate.
async fn answers(server: SocketAddr, certificate: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        match timeout(PATIENCE, ask(server, certificate)).await.expect("an answer or an error") {
            Ok(replies) => {
                assert_eq!(replies, ["10.96.0.7", "10.96.0.7"]);
                return;
            }
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn becomes_closed(server: SocketAddr) {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(server).await.is_ok() {
        assert!(Instant::now() < end, "the port is open");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_over_tls_follows_its_certificate() {
    let (handler, metrics, registry) = handler(&[]);
    let folder = tempfile::tempdir().unwrap();
    // A port that is free, and taken by nobody else in the meantime, as all others ask for any.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving =
        tokio::spawn(tls::serve(folder.path().into(), vec![address], (handler, metrics), stop.clone()));
    let counted = async |line: &str| {
        let end = Instant::now() + PATIENCE;
        while !registry.encode().lines().any(|have| have == line) {
            assert!(Instant::now() < end, "{line} is not in\n{}", registry.encode());
            sleep(Duration::from_millis(50)).await;
        }
    };
    counted("netkeel_dns_tls_loads_total{result=\"missing\"} 1").await;
    assert!(TcpStream::connect(address).await.is_err(), "without a certificate the port is closed");

    let first = certificate(folder.path());
    answers(address, &first).await;
    counted("netkeel_dns_tls_open 1").await;
    let second = certificate(folder.path());
    answers(address, &second).await;
    assert!(ask(address, &first).await.is_err(), "the first certificate is not the server's any more");

    // it is there and cannot be read, as a link to itself, for a few looks
    let [file, aside, link] = ["tls.crt", "aside", "link"].map(|name| folder.path().join(name));
    fs::copy(&file, &aside).unwrap();
    std::os::unix::fs::symlink("tls.crt", &link).unwrap();
    fs::rename(&link, &file).unwrap();
    assert!(fs::read(&file).is_err());
    let end = Instant::now() + Duration::from_millis(4500);
    while Instant::now() < end {
        assert!(TcpStream::connect(address).await.is_ok(), "the port is closed");
        sleep(Duration::from_millis(50)).await;
    }
    fs::rename(&aside, &file).unwrap();
    answers(address, &second).await;

    fs::write(folder.path().join("tls.key"), "no key").unwrap();
    counted("netkeel_dns_tls_loads_total{result=\"bad\"} 1").await;
    answers(address, &second).await;

    fs::remove_file(folder.path().join("tls.crt")).unwrap();
    becomes_closed(address).await;
    counted("netkeel_dns_tls_open 0").await;
    answers(address, &certificate(folder.path())).await;
    stop.cancel();
    timeout(PATIENCE, serving).await.expect("an end in time").unwrap();
    becomes_closed(address).await;
}
