//! Synchronous rtnetlink over one socket: many changes in one write, one answer each, no task and no allocation of
//! sequence numbers across threads. The socket may have been opened in another namespace and acts there.

use std::{io, os::fd::OwnedFd};

use nix::sys::socket::SockProtocol;
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE,
        NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    },
    packet_route::RouteNetlinkMessage,
};

use super::{
    Error,
    socket::{self, Socket},
};

/// Room for one batch of answers, and what the kernel sizes parts of a dump by.
const BUFFER: usize = 32 * 1024;
/// Changes in one write: their answers, about 800 bytes each, must fit into the socket's receive buffer (208 KiB).
const CHUNK: usize = 128;
/// Attempts at one list. Something that changes while the kernel lists makes the list worthless: what exists may be missing.
const DUMPS: usize = 20;

/// One thing to change, and how an error names it.
#[derive(Debug)]
pub struct Change {
    what: String,
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Change {
    /// Makes something new; fails where it exists.
    pub fn create(what: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self { what: what.into(), message, flags: NLM_F_CREATE | NLM_F_EXCL }
    }

    /// Makes something or overwrites what is there.
    pub fn put(what: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self { what: what.into(), message, flags: NLM_F_CREATE | NLM_F_REPLACE }
    }

    /// Changes or removes something that exists.
    #[expect(
        clippy::self_named_constructors,
        reason = "beside `create` and `put` it reads as the verb it is"
    )]
    pub fn change(what: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self { what: what.into(), message, flags: 0 }
    }
}

/// What the kernel answered.
struct Found {
    messages: Vec<RouteNetlinkMessage>,
    /// Nothing changed while the kernel listed.
    whole: bool,
}

/// A connection to the routing side of one network namespace.
#[derive(Debug)]
pub struct Rtnetlink {
    socket: Socket,
    sequence: u32,
}

impl Rtnetlink {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn open() -> Result<Self, Error> {
        Self::over(open_socket().map_err(|source| Error::Socket { source })?)
    }

    /// Takes a socket that somebody opened, in whatever namespace.
    ///
    /// # Errors
    /// When it is no socket.
    pub fn over(socket: OwnedFd) -> Result<Self, Error> {
        let socket = Socket::over(socket).map_err(|source| Error::Socket { source })?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Does all changes in order, many in one write. It goes on after a refused one; the first refusal is reported.
    ///
    /// # Errors
    /// The first change that was refused, by its name.
    pub fn apply(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        let mut changes = changes.into_iter().peekable();
        let mut refused = None;
        while changes.peek().is_some() {
            refused = refused.or(self.apply_chunk(changes.by_ref().take(CHUNK))?);
        }
        refused.map_or(Ok(()), Err)
    }

    /// Does these in one write and gives the first refusal.
    fn apply_chunk(&mut self, changes: impl Iterator<Item = Change>) -> Result<Option<Error>, Error> {
        let first = self.sequence + 1;
        let mut bytes = Vec::new();
        let mut names = Vec::new();
        for Change { what, message, flags } in changes {
            append(&mut bytes, self.message(message, flags | NLM_F_ACK));
            names.push(what);
        }
        self.write(&bytes)?;
        let mut refused = None;
        let mut open = names.len();
        while open > 0 {
            for answer in self.read()? {
                let Some(what) =
                    answer.header.sequence_number.checked_sub(first).and_then(|n| names.get(n as usize))
                else {
                    continue;
                };
                if let NetlinkPayload::Error(error) = answer.payload {
                    open -= 1;
                    if error.code.is_some() && refused.is_none() {
                        refused = Some(Error::Refused { what: what.clone(), source: error.to_io() });
                    }
                }
            }
        }
        Ok(refused)
    }

    /// Asks for one object. What queue a link has the kernel tells its listeners, and the asker only where that is asked for
    /// (`rtnetlink_send` in `qdisc_notify`, Linux 6.18); elsewhere the flag means nothing.
    ///
    /// # Errors
    /// What the kernel says where it is not there, for example.
    pub fn get(&mut self, what: &str, question: RouteNetlinkMessage) -> Result<RouteNetlinkMessage, Error> {
        let mut found = self.ask(what, question, NLM_F_ACK | NLM_F_ECHO)?.messages;
        found.pop().ok_or_else(|| Error::Answer { reason: format!("{what}: nothing was sent") })
    }

    /// Asks for all objects of a kind, again where some changed meanwhile.
    ///
    /// # Errors
    /// What the kernel says, or that no attempt gave a whole list.
    pub fn dump(
        &mut self,
        what: &str,
        question: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for question in std::iter::repeat_n(question, DUMPS) {
            let found = self.ask(what, question, NLM_F_DUMP)?;
            if found.whole {
                return Ok(found.messages);
            }
        }
        Err(Error::Torn { what: what.to_owned() })
    }

    fn ask(&mut self, what: &str, question: RouteNetlinkMessage, flags: u16) -> Result<Found, Error> {
        let mut bytes = Vec::new();
        append(&mut bytes, self.message(question, flags));
        self.write(&bytes)?;
        let mut found = Found { messages: Vec::new(), whole: true };
        loop {
            for answer in self.read()? {
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                found.whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => found.messages.push(message),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(Error::Refused { what: what.to_owned(), source: error.to_io() });
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(found),
                    _ => {}
                }
            }
        }
    }

    fn message(&mut self, message: RouteNetlinkMessage, flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message))
    }

    fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        self.socket.write(bytes).map_err(|source| Error::Socket { source })
    }

    fn read(&self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, Error> {
        parse(&self.socket.read(BUFFER).map_err(|source| Error::Socket { source })?)
    }
}

/// A routing socket of the calling thread's namespace.
///
/// # Errors
/// When the kernel gives none.
pub fn open_socket() -> io::Result<OwnedFd> {
    socket::open(SockProtocol::NetlinkRoute)
}

fn append(bytes: &mut Vec<u8>, mut message: NetlinkMessage<RouteNetlinkMessage>) {
    message.finalize();
    let (start, length) = (bytes.len(), message.buffer_len());
    bytes.resize(start + length.next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..start + length]);
}

fn parse(mut bytes: &[u8]) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, Error> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let message = NetlinkMessage::deserialize(bytes)
            .map_err(|error| Error::Answer { reason: error.to_string() })?;
        let length = (message.header.length as usize).next_multiple_of(4).clamp(4, bytes.len().max(4));
        bytes = bytes.get(length..).unwrap_or_default();
        messages.push(message);
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_core::DoneMessage;
    use rtnetlink::packet_route::link::LinkMessage;
    use std::os::unix::net::UnixDatagram;

    /// Answers so many questions for links: each with one more link than the one before, and torn but for the one `whole`.
    fn kernel(socket: &UnixDatagram, questions: u32, whole: u32) {
        for number in 1..=questions {
            let mut buffer = [0; 4096];
            let length = socket.recv(&mut buffer).unwrap();
            let asked = parse(&buffer[..length]).unwrap().remove(0);
            let torn = if number == whole { 0 } else { NLM_F_DUMP_INTR };
            let mut bytes = Vec::new();
            for index in 1..=number {
                let mut link = LinkMessage::default();
                link.header.index = index;
                let answer = NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link));
                append(&mut bytes, NetlinkMessage::new(asked.header, answer));
            }
            let mut header = asked.header;
            header.flags |= torn;
            append(&mut bytes, NetlinkMessage::new(header, NetlinkPayload::Done(DoneMessage::default())));
            socket.send(&bytes).unwrap();
        }
    }

    fn list(questions: u32, whole: u32) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let (ours, kernels) = UnixDatagram::pair().unwrap();
        let answering = std::thread::spawn(move || kernel(&kernels, questions, whole));
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let found = Rtnetlink::over(ours.into()).unwrap().dump("list links", question);
        drop(answering.join());
        found
    }

    #[test]
    fn a_list_that_changed_while_it_was_made_is_asked_for_again() {
        assert_eq!(list(3, 3).unwrap().len(), 3);
    }

    #[test]
    fn a_list_that_is_never_whole_is_an_error() {
        let error = list(u32::try_from(DUMPS).unwrap(), 0).unwrap_err();
        assert!(matches!(error, Error::Torn { .. }), "{error}");
    }
}
