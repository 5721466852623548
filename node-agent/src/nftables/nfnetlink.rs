//! The conversation with nftables: questions, and transactions that the kernel takes whole or not at all.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
        sockopt::ReceiveTimeout,
    },
    time::TimeVal,
};

use super::encode::{self, Element, Message, Table, within};

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
const PATIENCE: TimeVal = TimeVal::new(10, 0);
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

/// A socket to nftables of the calling thread's network namespace.
pub(crate) struct Nfnetlink {
    socket: OwnedFd,
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
        let protocol = SockProtocol::NetlinkNetFilter;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(failed)?;
        setsockopt(&socket, ReceiveTimeout, &PATIENCE).map_err(failed)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Whether the kernel's table carries the mark of this one and as many rules.
    pub(crate) fn holds(&mut self, table: &Table) -> Result<bool, Error> {
        let found = match self.ask(encode::GETTABLE, ACK, &encode::table_name(table.name)) {
            Ok(found) => found,
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => return Ok(false),
            Err(error) => return Err(Error::Socket(error)),
        };
        let marked = found.iter().any(|body| attribute(body, encode::TABLE_USERDATA) == Some(&table.mark()));
        let rules =
            self.ask(encode::GETRULE, DUMP, &encode::table_name(table.name)).map_err(Error::Socket)?;
        let name = [table.name.as_bytes(), &[0]].concat();
        let ours = rules.iter().filter(|body| attribute(body, encode::RULE_TABLE) == Some(&name));
        Ok(marked && ours.count() == table.rules)
    }

    /// Whether there is a table of this name.
    pub(crate) fn has(&mut self, name: &str) -> Result<bool, Error> {
        match self.ask(encode::GETTABLE, ACK, &encode::table_name(name)) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(false),
            Err(error) => Err(Error::Socket(error)),
        }
    }

    /// The elements of a map; none of a map that is not there.
    pub(crate) fn elements(&mut self, table: &str, map: &str) -> Result<Vec<Element>, Error> {
        match self.ask(encode::GETSETELEM, DUMP, &encode::map_name(table, map)) {
            Ok(found) => Ok(found.iter().flat_map(|body| encode::elements_of(body)).collect()),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(Vec::new()),
            Err(error) => Err(Error::Socket(error)),
        }
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
        self.write(&bytes).map_err(Error::Socket)?;
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

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        self.each(SUBSYSTEM << 8 | kind, flags, INET, body, |body| found.push(body.to_vec()))?;
        Ok(found)
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
        self.write(&question)?;
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

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        Ok(send(self.socket.as_raw_fd(), bytes, MsgFlags::empty()).map(drop)?)
    }

    fn read(&self) -> io::Result<Vec<Answer>> {
        let mut buffer = vec![0; BUFFER];
        let length = loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(nix::Error::EINTR) => {}
                other => break other?,
            }
        };
        Ok(answers(&buffer[..length]))
    }
}

fn failed(errno: nix::Error) -> Error {
    Error::Socket(errno.into())
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

/// The payload of the first attribute of a kind, behind the netfilter header.
fn attribute(body: &[u8], wanted: u16) -> Option<&[u8]> {
    within(body.get(4..)?, wanted)
}
