//! When an API server was last heard on each of a program's watches. A watch that is served says something at least every
//! `WATCH_SECONDS`, if only that it ends, so that an age beyond twice that means silence, not a quiet cluster.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body::{Body as HttpBody, Frame, SizeHint};
use kube::Client;
use kube::client::Body;

/// The last signs of life on a program's watches. Clones share them. A watch that has been given up counts no more.
#[derive(Clone, Debug, Default)]
pub struct Signs(Arc<Mutex<Vec<Weak<Sign>>>>);

impl Signs {
    /// A client for one watch, whose signs of life count from now on, as long as there is the client or an answer that it got.
    #[must_use]
    pub fn attend(&self, client: &Client) -> Client {
        let sign = Arc::new(Sign { began: Instant::now(), last: AtomicU64::new(0) });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&sign));
        let inner = client.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (inner, sign) = (inner.clone(), sign.clone());
            async move {
                let response = inner.send(request).await?;
                let sign = response.status().is_success().then_some(sign);
                Ok::<_, kube::Error>(response.map(|body| Heard { body, sign }))
            }
        });
        Client::new(service, client.default_namespace())
    }

    /// For how long the watch has been silent that has been so for longest.
    #[must_use]
    pub fn age(&self) -> Duration {
        let mut signs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        signs.retain(|sign| sign.strong_count() > 0);
        signs.iter().filter_map(Weak::upgrade).map(|sign| sign.age()).max().unwrap_or_default()
    }
}

/// When one watch was last heard.
#[derive(Debug)]
struct Sign {
    began: Instant,
    /// Milliseconds after `began`.
    last: AtomicU64,
}

impl Sign {
    fn heard(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

/// An answer whose parts, and whose end, are signs of life. That it begins is none: a server that is stuck may still begin.
struct Heard {
    body: Body,
    sign: Option<Arc<Sign>>,
}

impl HttpBody for Heard {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let (Poll::Ready(None | Some(Ok(_))), Some(sign)) = (&polled, &self.sign) {
            sign.heard();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
