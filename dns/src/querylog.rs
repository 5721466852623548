//! The log of questions: lines go through a bounded queue to a thread of its own, so that a log that is slow to be written costs lines,
//! which are counted, and no answer its time. The thread and its queue are there from the first line on.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use netkeel_crds::cluster_network::dns::{LoggedQueries, QueryLog as Told};
use netkeel_telemetry::metrics::Counter;

use crate::message::Transport;
use crate::metrics;

/// Lines that wait to be written, at most.
const WAITING: usize = 1024;

/// Which questions are logged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logged {
    queries: LoggedQueries,
    /// Share of them, 0 to 1.
    ratio: f64,
}

impl Logged {
    pub(crate) fn new(told: &Told) -> Self {
        Self { queries: told.queries, ratio: told.sample_ratio }
    }

    /// Whether a question that was answered with `code` is logged; `None` is one that got no answer.
    pub(crate) fn wants(self, code: Option<ResponseCode>) -> bool {
        let denial = code == Some(ResponseCode::NXDomain);
        let error = !denial && code != Some(ResponseCode::NoError);
        let concerns = match self.queries {
            LoggedQueries::None => false,
            LoggedQueries::Errors => error,
            LoggedQueries::Denials => error || denial,
            LoggedQueries::All => true,
        };
        concerns && (self.ratio >= 1.0 || rand::random::<f64>() < self.ratio)
    }
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) client: SocketAddr,
    /// Name and type; `None` where the question could not be read.
    pub(crate) asked: Option<(Name, RecordType)>,
    /// `None` where no answer was sent.
    pub(crate) code: Option<ResponseCode>,
    pub(crate) transport: Transport,
    pub(crate) took: Duration,
    /// Of the answer, in bytes.
    pub(crate) size: usize,
}

type Writer = fn(Line);

/// Where lines go. Clones share the queue.
#[derive(Clone, Debug)]
pub(crate) struct QueryLog {
    queue: Arc<OnceLock<SyncSender<Line>>>,
    dropped: Counter,
    writer: Writer,
}

impl QueryLog {
    /// A log that counts in `dropped` the lines that it has no room for.
    pub(crate) fn new(dropped: Counter) -> Self {
        Self { queue: Arc::default(), dropped, writer: write }
    }

    /// The same with lines handed to `writer`.
    #[cfg(test)]
    pub(crate) fn to(dropped: Counter, writer: Writer) -> Self {
        Self { writer, ..Self::new(dropped) }
    }

    /// Writes a line soon, if there is room. Never waits.
    pub(crate) fn put(&self, line: Line) {
        if self.queue.get_or_init(|| self.start()).try_send(line).is_err() {
            self.dropped.inc();
        }
    }

    /// The thread ends with the last clone of this.
    fn start(&self) -> SyncSender<Line> {
        let (sender, lines) = sync_channel(WAITING);
        let writer = self.writer;
        let run = move |lines: Receiver<Line>| lines.iter().for_each(writer);
        if let Err(error) = thread::Builder::new().name("query-log".to_owned()).spawn(move || run(lines)) {
            tracing::error!(%error, "no thread for the query log can be had: its lines are dropped");
        }
        sender
    }
}

fn write(line: Line) {
    let Line { client, asked, code, transport, took, size } = line;
    let (name, rtype) =
        asked.map_or_else(Default::default, |(name, rtype)| (name.to_ascii(), rtype.to_string()));
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    tracing::info!(
        target: "netkeel_dns::query",
        %client,
        name,
        r#type = rtype,
        rcode = code.map_or("NONE", metrics::name),
        transport = if transport == Transport::Udp { "udp" } else { "tcp" },
        took_microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        size,
        "query"
    );
}

#[cfg(test)]
mod tests;
