//! The conversation with netfilter: questions, and transactions of nftables that the kernel takes whole or not at all.

use std::io;

use nix::sys::socket::SockProtocol;

use super::{
    attribute::behind_header,
    encode::{self, Element, Message, Table},
};
use crate::link::socket::{self, Socket};

const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
/// Without it a rule comes before those that are there.
const APPEND: u16 = 0x800;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;
const INET: u8 = 1;
const HEADER: usize = 16;
const BUFFER: usize = 64 * 1024;

/// What went wrong with the table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed: without nftables in the kernel there is none.
    #[error("talk to nftables: use a kernel with CONFIG_NF_TABLES_INET")]
    Socket(#[source] io::Error),
    /// Flows could not be listed or forgotten.
    #[error("forget flows of UDP: use a kernel with CONFIG_NF_CT_NETLINK")]
    Conntrack(#[source] io::Error),
    /// The kernel refused the table.
    #[error(
        "write an nftables table of Netkeel: the kernel needs CONFIG_NFT_MASQ, CONFIG_NFT_NAT, CONFIG_NFT_CT and CONFIG_NFT_FIB_INET"
    )]
    Refused(#[source] io::Error),
}

/// A socket to netfilter of the calling thread's network namespace.
pub(crate) struct Nfnetlink {
    socket: Socket,
    sequence: u32,
}

/// An answer of the kernel.
struct Answer {
    kind: u16,
    sequence: u32,
    body: Vec<u8>,
}

impl Nfnetlink {
    pub(crate) fn open() -> Result<Self, Error> {
        let socket = socket::open(SockProtocol::NetlinkNetFilter).and_then(Socket::over);
        Ok(Self { socket: socket.map_err(Error::Socket)?, sequence: 0 })
    }

    /// Whether the kernel's table carries the mark of this one and as many rules.
    pub(crate) fn holds(&mut self, table: &Table) -> Result<bool, Error> {
        let name = encode::table_name(table.name);
        let found = self.ask(encode::GETTABLE, ACK, &name)?;
        let mark = table.mark();
        if !found.iter().any(|body| behind_header(body, encode::TABLE_USERDATA) == Some(&mark)) {
            return Ok(false);
        }
        let rules = self.ask(encode::GETRULE, DUMP, &name)?;
        let name = encode::text(table.name);
        let ours = rules.iter().filter(|body| behind_header(body, encode::RULE_TABLE) == Some(&name));
        Ok(ours.count() == table.rules)
    }

    /// Whether there is a table of this name.
    pub(crate) fn has(&mut self, name: &str) -> Result<bool, Error> {
        Ok(!self.ask(encode::GETTABLE, ACK, &encode::table_name(name))?.is_empty())
    }

    /// The elements of a map; none of a map that is not there.
    pub(crate) fn elements(&mut self, table: &str, map: &str) -> Result<Vec<Element>, Error> {
        let found = self.ask(encode::GETSETELEM, DUMP, &encode::map_name(table, map))?;
        Ok(found.iter().flat_map(|body| encode::elements_of(body)).collect())
    }

    /// Does all of it or nothing.
    pub(crate) fn commit(&mut self, messages: &[Message]) -> Result<(), Error> {
        let mut bytes = self.message(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &[]);
        let first = self.sequence + 1;
        for message in messages {
            let flags = REQUEST | ACK | if message.create { CREATE | APPEND } else { 0 };
            bytes.extend(self.message(SUBSYSTEM << 8 | message.kind, flags, INET, 0, &message.body));
        }
        let last = self.sequence;
        bytes.extend(self.message(BATCH_END, REQUEST, 0, SUBSYSTEM, &[]));
        self.socket.write(&bytes).map_err(Error::Socket)?;
        let mut refused = None;
        let mut done = first - 1;
        while done < last {
            for answer in self.read().map_err(Error::Socket)? {
                // An error of the batch itself carries the number of its first message and ends it.
                if answer.kind == ERROR {
                    refused = refused.or(error_of(&answer.body));
                    done = if answer.sequence < first { last } else { done.max(answer.sequence) };
                }
            }
        }
        refused.map_or(Ok(()), |source| Err(Error::Refused(source)))
    }

    /// Asks nftables; nothing of what is not there.
    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let mut found = Vec::new();
        match self.each(SUBSYSTEM << 8 | kind, flags, INET, body, |body| found.push(body.to_vec())) {
            Err(error) if error.raw_os_error() != Some(nix::libc::ENOENT) => Err(Error::Socket(error)),
            _ => Ok(found),
        }
    }

    /// Asks any subsystem of netfilter; gives the bodies of its answers, with the netfilter header, one after the other.
    pub(crate) fn each(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        body: &[u8],
        mut see: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let question = self.message(kind, REQUEST | flags, family, 0, body);
        self.socket.write(&question)?;
        loop {
            for answer in self.read()?.into_iter().filter(|answer| answer.sequence == self.sequence) {
                match answer.kind {
                    ERROR => return error_of(&answer.body).map_or(Ok(()), Err),
                    DONE => return Ok(()),
                    _ => see(&answer.body),
                }
            }
        }
    }

    /// One message with its netlink and netfilter headers.
    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        let length = u32::try_from(HEADER + 4 + body.len()).expect("a rule is short");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend([family, 0]);
        bytes.extend(resource.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn read(&self) -> io::Result<Vec<Answer>> {
        Ok(answers(&self.socket.read(BUFFER)?))
    }
}

/// The messages of one datagram.
fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|byte| header[at + byte]));
        let (length, sequence) = (word(0) as usize, word(8));
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(body) = bytes.get(HEADER..length) else { break };
        answers.push(Answer { kind, sequence, body: body.to_vec() });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// The error that an error message carries; none when it acknowledges.
fn error_of(body: &[u8]) -> Option<io::Error> {
    let code = i32::from_ne_bytes(*body.first_chunk()?);
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}
