//! Questions over connections that stay: several are under way on one at a time, and answers come in any order (RFC 7766
//! sections 6.2.1 and 7, RFC 7858 section 3.3).

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::dial::{Dial, Stream};
use super::exchange::answers;

/// A connection on which nothing has come for this long is closed.
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// Connections to one resolver; another one is opened when each has `BUSY` questions under way.
const LINES: usize = 4;
const BUSY: usize = 32;
/// Questions under way on one connection: half of the ids, so that a free one is quickly found.
const MOST: usize = 1 << 15;

/// The connections to one resolver.
#[derive(Debug)]
pub(super) struct Lines {
    dial: Dial,
    open: Mutex<Vec<Line>>,
    /// Held by who opens a connection: the others wait for it.
    dialing: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Line {
    questions: mpsc::Sender<Question>,
    waiting: Arc<AtomicUsize>,
    /// How many messages have come.
    heard: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Question {
    packet: Vec<u8>,
    reply: oneshot::Sender<Vec<u8>>,
}

/// Counts a question as long as it is waited for.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lines {
    pub(super) fn new(dial: Dial) -> Self {
        Self { dial, open: Mutex::default(), dialing: tokio::sync::Mutex::default() }
    }

    /// The reply to `packet`, until `end`. A connection that the resolver has closed meanwhile is opened again.
    pub(super) async fn ask(&self, packet: &[u8], end: Instant) -> Result<Vec<u8>> {
        let within = |error| move |_| Error::from(error);
        loop {
            let (line, fresh) = timeout_at(end, self.line()).await.map_err(within(ErrorKind::TimedOut))??;
            let heard = line.heard.load(Ordering::Relaxed);
            let _waiting = Waiting::new(&line.waiting);
            let (reply, replied) = oneshot::channel();
            let asked = async {
                let question = Question { packet: packet.to_vec(), reply };
                line.questions.send(question).await.map_err(within_send)?;
                replied.await.map_err(|_| Error::from(ErrorKind::UnexpectedEof))
            };
            match timeout_at(end, asked).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(_)) if !fresh => self.leave(&line),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    if line.heard.load(Ordering::Relaxed) == heard {
                        self.leave(&line); // not one word since: it leads nowhere
                    }
                    return Err(ErrorKind::TimedOut.into());
                }
            }
        }
    }

    /// The connection with the fewest questions, and whether it is a new one.
    async fn line(&self) -> Result<(Line, bool)> {
        if let Some(line) = self.known() {
            return Ok((line, false));
        }
        let _dialing = self.dialing.lock().await;
        if let Some(line) = self.known() {
            return Ok((line, false));
        }
        let stream = self.dial.connect().await?;
        let (questions, received) = mpsc::channel(BUSY);
        let line = Line { questions, waiting: Arc::default(), heard: Arc::default() };
        tokio::spawn(drive(stream, received, line.heard.clone()));
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
        Ok((line, true))
    }

    fn known(&self) -> Option<Line> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|line| !line.questions.is_closed());
        let load = |line: &&Line| line.waiting.load(Ordering::Relaxed);
        let least = open.iter().min_by_key(load)?;
        (open.len() >= LINES || load(&least) < BUSY).then(|| least.clone())
    }

    fn leave(&self, line: &Line) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other| !other.questions.same_channel(&line.questions));
    }
}

fn within_send(_: mpsc::error::SendError<Question>) -> Error {
    ErrorKind::BrokenPipe.into()
}

/// Questions by the id that they have on the connection.
type Asked = Mutex<UnderWay>;

#[derive(Debug)]
struct UnderWay {
    by_id: HashMap<u16, Question>,
    /// With so many those are dropped that nobody waits for any more.
    full: usize,
}

impl Default for UnderWay {
    fn default() -> Self {
        Self { by_id: HashMap::new(), full: BUSY }
    }
}

impl UnderWay {
    /// Drops questions that nobody waits for, each time that they may be half of all.
    fn sweep(&mut self) {
        if self.by_id.len() >= self.full {
            self.by_id.retain(|_, question| !question.reply.is_closed());
            self.full = (2 * self.by_id.len()).clamp(BUSY, MOST);
        }
    }
}

/// Carries questions and replies until either side ends, or nothing has come for a while.
async fn drive(stream: Box<dyn Stream>, questions: mpsc::Receiver<Question>, heard: Arc<AtomicUsize>) {
    let (read, write) = tokio::io::split(stream);
    let asked = Asked::default();
    let reading = replies(read, &asked, &heard);
    tokio::pin!(reading);
    let result = tokio::select! {
        result = &mut reading => result,
        result = send(write, questions, &asked) => match result {
            Ok(()) => reading.await, // nobody asks any more; what was asked is still told
            Err(error) => Err(error),
        },
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to a resolver ended");
    }
}

async fn send(
    mut write: impl AsyncWrite + Unpin,
    mut questions: mpsc::Receiver<Question>,
    asked: &Asked,
) -> Result<()> {
    while let Some(question) = questions.recv().await {
        let Some(frame) = enter(asked, question) else { continue };
        write.write_all(&frame).await?;
        write.flush().await?;
    }
    Ok(())
}

/// Gives `question` an id of its own, to be found by; `None`, which ends the wait, where too many are under way.
fn enter(asked: &Asked, mut question: Question) -> Option<Vec<u8>> {
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    asked.sweep();
    if asked.by_id.len() >= MOST {
        return None;
    }
    let mut id = rand::random();
    while asked.by_id.contains_key(&id) {
        id = rand::random();
    }
    question.packet.get_mut(..2)?.copy_from_slice(&id.to_be_bytes());
    let length = u16::try_from(question.packet.len()).ok()?;
    let frame = [&length.to_be_bytes(), question.packet.as_slice()].concat();
    asked.by_id.insert(id, question);
    Some(frame)
}

async fn replies(mut read: impl AsyncRead + Unpin, asked: &Asked, heard: &AtomicUsize) -> Result<()> {
    loop {
        let Ok(length) = timeout(IDLE, read.read_u16()).await else { return Ok(()) };
        let mut reply = vec![0; usize::from(length?)];
        timeout(IDLE, read.read_exact(&mut reply)).await??;
        let id = reply.first_chunk().map(|id| u16::from_be_bytes(*id)).ok_or(ErrorKind::InvalidData)?;
        let question = asked.lock().unwrap_or_else(PoisonError::into_inner).by_id.remove(&id);
        let Some(question) = question else { continue }; // not ours, or given up
        if !answers(&reply, &question.packet) {
            return Err(Error::new(ErrorKind::InvalidData, "a reply to another question"));
        }
        heard.fetch_add(1, Ordering::Relaxed);
        let _ = question.reply.send(reply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> (Question, oneshot::Receiver<Vec<u8>>) {
        let (reply, replied) = oneshot::channel();
        (Question { packet: vec![0; 40], reply }, replied)
    }

    #[test]
    fn questions_that_nobody_waits_for_any_more_are_dropped() {
        let asked = Asked::default();
        let ids = |asked: &Asked| asked.lock().unwrap().by_id.len();
        let waited: Vec<_> = (0..100).map(|_| question()).collect();
        let waited: Vec<_> = waited
            .into_iter()
            .map(|(question, replied)| (enter(&asked, question).expect("there is room"), replied))
            .collect();
        for _ in 0..10_000 {
            assert!(enter(&asked, question().0).is_some());
            assert!(ids(&asked) <= 2 * waited.len() + BUSY, "{} are kept", ids(&asked));
        }
        drop(waited);
        for _ in 0..1000 {
            assert!(enter(&asked, question().0).is_some());
        }
        assert!(ids(&asked) <= BUSY, "{} are kept", ids(&asked));
    }

    #[test]
    fn no_more_questions_are_under_way_than_ids_are_quickly_found_for() {
        let asked = Asked::default();
        let all: Vec<_> = (0..MOST).map(|_| question()).collect();
        let (all, waited): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        assert!(all.into_iter().all(|question| enter(&asked, question).is_some()));
        assert!(enter(&asked, question().0).is_none());
        drop(waited);
        assert!(enter(&asked, question().0).is_some());
    }
}
