//! One datagram socket and its thread.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{PAUSE, SLOW};
use crate::batch::{Batch, Origin};
use crate::handler::{Handler, Outcome, Pending};
use crate::message::Transport;

/// Answers until `stop`; what upstream resolvers were asked by then is still waited for, for `SLOW` at most.
pub(super) async fn serve(socket: UdpSocket, handler: Handler, stop: CancellationToken) {
    let (socket, asking, (end, ended)) = (Arc::new(socket), TaskTracker::new(), oneshot::channel::<()>());
    let runtime = tokio::runtime::Handle::current();
    let thread = Thread { socket, handler, asking: asking.clone(), runtime };
    let spawned = thread::Builder::new().name("datagrams".to_owned()).spawn(move || {
        thread.run(&stop);
        drop(end);
    });
    match spawned {
        Ok(_) => drop(ended.await),
        Err(error) => tracing::error!(%error, "no thread for datagrams can be had"),
    }
    asking.close();
    let _ = timeout(SLOW, asking.wait()).await;
}

struct Thread {
    socket: Arc<UdpSocket>,
    handler: Handler,
    asking: TaskTracker,
    runtime: tokio::runtime::Handle,
}

impl Thread {
    fn run(&self, stop: &CancellationToken) {
        let (mut batch, mut turn, common) = (Batch::new(), 0_usize, self.handler.common());
        let mut quick = Vec::new();
        while !stop.is_cancelled() {
            match batch.receive(&self.socket) {
                Ok(()) => {}
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot receive datagrams");
                    thread::sleep(PAUSE);
                    continue;
                }
            }
            let (since, zone) = (Instant::now(), self.handler.zone());
            for (packet, origin, reply) in batch.each() {
                turn = turn.wrapping_add(1);
                let client = origin.client();
                match self.handler.quick(&zone, (packet, client), (turn, since), reply) {
                    Some(answered) => quick.push((client, answered)),
                    None => self.answer(packet, origin, reply),
                }
            }
            drop(zone);
            // Before they are sent: who has a reply finds it counted. The time is that of the batch, whose first one waits for the last.
            let took = since.elapsed();
            quick.drain(..).for_each(|(client, answered)| common.seen(client, answered, took));
            if let Some(error) = batch.send(&self.socket) {
                tracing::debug!(%error, "cannot send a reply");
            }
        }
    }

    fn answer(&self, packet: &[u8], origin: Origin, reply: &mut Vec<u8>) {
        match self.handler.start(packet, Transport::Udp, origin.client()) {
            Outcome::Reply(bytes) => *reply = bytes,
            Outcome::Nothing => {}
            Outcome::Later(pending) => self.ask(pending, origin),
        }
    }

    fn ask(&self, pending: Box<Pending>, mut origin: Origin) {
        let (socket, handler) = (self.socket.clone(), self.handler.clone());
        let later = async move {
            let reply = handler.finish(pending).await;
            if let Err(error) = origin.send(&socket, &reply) {
                tracing::debug!(%error, client = %origin.client(), "cannot send a reply");
            }
        };
        self.asking.spawn_on(later, &self.runtime);
    }
}
