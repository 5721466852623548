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
use crate::batch::{self, Batch, Origin};
use crate::handler::{Handler, Outcome, Pending};
use crate::limit::rate::Rate;
use crate::limit::{Gate, Verdict};
use crate::message::{Transport, UDP_LIMIT};
use crate::metrics::Reason;
use crate::slice;
use crate::wire::{HEADER, put_cut};

/// After so many full batches the socket's queue is looked at. When a batch is not full, there is none.
const FULL: u32 = 4;

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
        if let Err(error) = slice::short() {
            tracing::info!(%error, "datagrams wait for other threads of this processor");
        }
        let (mut batch, mut turn, common) = (Batch::new(), 0_usize, self.handler.common());
        let (mut quick, mut gate, mut full) = (Vec::new(), Gate::new(self.handler.limits()), 0);
        while !stop.is_cancelled() {
            match batch.receive(&self.socket) {
                Ok(()) => {}
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    gate.now = gate.limits.at(Instant::now());
                    self.look(&mut gate);
                    self.hold_back(&mut gate);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot receive datagrams");
                    thread::sleep(PAUSE);
                    continue;
                }
            }
            full = if batch.is_full() { full + 1 } else { 0 };
            if full >= FULL || gate.overload.is_on() {
                full = 0;
                self.look(&mut gate);
            }
            let (since, zone, live) = (Instant::now(), self.handler.zone(), self.handler.live());
            gate.now = gate.limits.at(since);
            self.hold_back(&mut gate);
            gate.rate = Rate::of(&live.dns.rate_limit);
            for (packet, origin, reply) in batch.each() {
                turn = turn.wrapping_add(1);
                let client = origin.client();
                match gate.verdict(client.ip(), packet.len() == HEADER) {
                    Verdict::Pass => {}
                    Verdict::Cut => {
                        put_cut(packet, UDP_LIMIT, reply);
                        continue;
                    }
                    Verdict::Drop => continue,
                }
                match self.handler.quick(&zone, &live, (packet, client), (turn, since), reply) {
                    Some(answered) => quick.push((client, answered)),
                    None => self.answer(packet, origin, reply),
                }
            }
            drop((zone, live));
            gate.count();
            // Before they are sent: who has a reply finds it counted. The time is that of the batch, whose first one waits for the last.
            let took = since.elapsed();
            quick.drain(..).for_each(|(client, answered)| common.seen(client, answered, took));
            if let Some(error) = batch.send(&self.socket) {
                tracing::debug!(%error, "cannot send a reply");
            }
        }
    }

    /// Looks at what waits in the socket's queue.
    fn look(&self, gate: &mut Gate<'_>) {
        match batch::queue(&self.socket) {
            Ok(queue) => {
                let lost = gate.overload.see(queue);
                if lost > 0 {
                    gate.limits.count(Reason::Queue, lost.into());
                }
            }
            Err(error) => tracing::debug!(%error, "the queue of datagrams cannot be seen"),
        }
    }

    /// Tells the kernel whose datagrams are held back.
    fn hold_back(&self, gate: &mut Gate<'_>) {
        let overload = gate.overload.is_on();
        let sieve = &mut gate.overload.sieve;
        sieve.ease(gate.now, overload);
        if let Some(clients) = sieve.change()
            && let Err(error) = batch::hold_back(&self.socket, clients)
        {
            tracing::debug!(%error, "a flood cannot be held back by the kernel");
        }
    }

    fn answer(&self, packet: &[u8], origin: Origin, reply: &mut Vec<u8>) {
        match self.handler.start(packet, Transport::Udp, origin.client()) {
            Outcome::Reply(bytes) => *reply = bytes,
            Outcome::Nothing => {}
            Outcome::Later(pending) => self.ask(pending, origin, reply),
        }
    }

    fn ask(&self, pending: Box<Pending>, mut origin: Origin, reply: &mut Vec<u8>) {
        let Some(place) = self.handler.place(&pending) else {
            *reply = self.handler.refuse(&pending);
            return;
        };
        let (socket, handler) = (self.socket.clone(), self.handler.clone());
        let later = async move {
            let reply = handler.finish(pending).await;
            drop(place);
            if let Err(error) = origin.send(&socket, &reply) {
                tracing::debug!(%error, client = %origin.client(), "cannot send a reply");
            }
        };
        self.asking.spawn_on(later, &self.runtime);
    }
}
