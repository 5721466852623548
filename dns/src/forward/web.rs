//! Questions over HTTP/2 (RFC 8484): one connection to a resolver carries them all.

use std::io::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::{Method, Request, StatusCode, header};
use tokio::time::{Instant, sleep, timeout_at};

use super::dial::{Dial, Stream};
use super::exchange::answers;
use super::lines::IDLE;

/// The content type of a message (RFC 8484 section 6).
const MESSAGE: &str = "application/dns-message";
/// Longest message, in bytes.
const LONGEST: usize = 65_535;

/// The connection to one resolver.
#[derive(Debug)]
pub(super) struct Web {
    dial: Dial,
    uri: String,
    open: Mutex<Option<Session>>,
    /// Held by who opens a connection: the others wait for it.
    dialing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Session {
    requests: SendRequest<Bytes>,
    used: Arc<Used>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:?})", self.used)
    }
}

/// How a connection is used.
#[derive(Debug)]
struct Used {
    waiting: AtomicUsize,
    last: Mutex<Instant>,
    /// How many replies have come.
    heard: AtomicUsize,
}

impl Used {
    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_idle(&self) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.load(Ordering::Relaxed) == 0 && last.elapsed() >= IDLE
    }
}

/// Counts a question as long as it is waited for.
struct Waiting<'a>(&'a Used);

impl<'a> Waiting<'a> {
    fn new(used: &'a Used) -> Self {
        used.waiting.fetch_add(1, Ordering::Relaxed);
        used.touch();
        Self(used)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Web {
    /// The way to the resolver whose certificate has `name`, and which answers at `path`.
    pub(super) fn new(dial: Dial, name: &str, path: &str) -> Self {
        let uri = match dial.address.port() {
            443 => format!("https://{name}{path}"),
            port => format!("https://{name}:{port}{path}"),
        };
        Self { dial, uri, open: Mutex::default(), dialing: tokio::sync::Mutex::default() }
    }

    /// The reply to `packet`, until `end`. A connection that the resolver has closed meanwhile is opened again.
    pub(super) async fn ask(&self, packet: &[u8], end: Instant) -> Result<Vec<u8>> {
        let mut packet = packet.to_vec();
        packet.get_mut(..2).ok_or(ErrorKind::InvalidInput)?.fill(0); // RFC 8484 section 4.1: so that HTTP can cache it
        let late = |_| Error::from(ErrorKind::TimedOut);
        loop {
            let (session, fresh) = timeout_at(end, self.session()).await.map_err(late)??;
            let _waiting = Waiting::new(&session.used);
            let heard = session.used.heard.load(Ordering::Relaxed);
            match timeout_at(end, self.post(&session, &packet)).await {
                Ok(Ok(reply)) => {
                    session.used.heard.fetch_add(1, Ordering::Relaxed);
                    return Ok(reply);
                }
                Ok(Err(Failed::Connection(_))) if !fresh => self.leave(&session),
                Ok(Err(Failed::Connection(error))) => {
                    self.leave(&session);
                    return Err(Error::other(error));
                }
                Ok(Err(Failed::Reply(error))) => return Err(error),
                Err(_) => {
                    if session.used.heard.load(Ordering::Relaxed) == heard {
                        self.leave(&session); // not one word since: it leads nowhere
                    }
                    return Err(ErrorKind::TimedOut.into());
                }
            }
        }
    }

    async fn post(&self, session: &Session, packet: &[u8]) -> std::result::Result<Vec<u8>, Failed> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.uri)
            .header(header::CONTENT_TYPE, MESSAGE)
            .header(header::ACCEPT, MESSAGE)
            .header(header::CONTENT_LENGTH, packet.len())
            .body(())
            .map_err(|error| Failed::Reply(Error::other(error)))?;
        let mut requests = session.requests.clone().ready().await?;
        let (response, mut body) = requests.send_request(request, false)?;
        body.send_data(Bytes::copy_from_slice(packet), true)?;
        let response = response.await?;
        let wrong = |what: String| Failed::Reply(Error::new(ErrorKind::InvalidData, what));
        if response.status() != StatusCode::OK {
            return Err(wrong(format!("HTTP status {}", response.status())));
        }
        let mut body = response.into_body();
        let mut reply = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            reply.extend_from_slice(&chunk);
            if reply.len() > LONGEST {
                return Err(wrong("a reply longer than a message can be".to_owned()));
            }
            body.flow_control().release_capacity(chunk.len())?;
        }
        if answers(&reply, packet) { Ok(reply) } else { Err(wrong("no reply to the question".to_owned())) }
    }

    /// The open connection, or a new one, and whether it is new.
    async fn session(&self) -> Result<(Session, bool)> {
        if let Some(session) = self.known() {
            return Ok((session, false));
        }
        let _dialing = self.dialing.lock().await;
        if let Some(session) = self.known() {
            return Ok((session, false));
        }
        let stream = self.dial.connect().await?;
        let (requests, connection) = h2::client::handshake(stream).await.map_err(Error::other)?;
        let used = Arc::new(Used {
            waiting: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
            heard: AtomicUsize::new(0),
        });
        tokio::spawn(drive(connection, used.clone()));
        let session = Session { requests, used };
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
        Ok((session, true))
    }

    fn known(&self) -> Option<Session> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn leave(&self, session: &Session) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|other| Arc::ptr_eq(&other.used, &session.used)) {
            *open = None;
        }
    }
}

/// Why there is no reply.
enum Failed {
    /// The connection is of no use any more.
    Connection(h2::Error),
    /// The resolver said something else.
    Reply(Error),
}

impl From<h2::Error> for Failed {
    fn from(error: h2::Error) -> Self {
        Self::Connection(error)
    }
}

/// Carries requests until the connection ends, or has not been used for a while.
async fn drive(connection: Connection<Box<dyn Stream>, Bytes>, used: Arc<Used>) {
    tokio::pin!(connection);
    loop {
        tokio::select! {
            result = &mut connection => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection to a resolver ended");
                }
                return;
            }
            () = sleep(IDLE) => if used.is_idle() {
                return;
            }
        }
    }
}
