//! A program as the one filter of ours at a device's ingress or egress (`clsact`, `bpf` filter with direct action), by rtnetlink.
//! It belongs to the device and goes with it; attaching again replaces it in one step (docs/adr/0006).

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// `struct nlmsghdr`, then `struct tcmsg` (linux/rtnetlink.h).
const HEADER: usize = 16;
/// Handle of our filter, and its priority: before those of others, which are given out from 49152 down.
const HANDLE: u32 = 1;
const PRIORITY: u32 = 1;
/// `ETH_P_ALL` in network byte order, as `tcm_info` wants it.
const ALL_PROTOCOLS: u32 = 0x0003_u16.to_be() as u32;
/// `TC_H_CLSACT` as the parent of the qdisc, its ingress and its egress.
const CLSACT: u32 = 0xffff_fff1;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// The handle that the `clsact` qdisc always has.
const CLSACT_HANDLE: u32 = 0xffff_0000;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// The program's return value is the verdict.
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

const CREATE: i32 = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE;

/// Which packets of a device a filter sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// What comes from the device.
    Ingress,
    /// What goes to it.
    Egress,
}

impl Direction {
    const fn parent(self) -> u32 {
        match self {
            Self::Ingress => INGRESS,
            Self::Egress => EGRESS,
        }
    }
}

/// Makes `program` the filter of the device in this direction, in place of one that is there.
pub(crate) fn filter_attach(
    program: BorrowedFd<'_>,
    ifindex: u32,
    direction: Direction,
    name: &str,
) -> io::Result<()> {
    let socket = open()?;
    let mut qdisc = Message::new(libc::RTM_NEWQDISC, CREATE | libc::NLM_F_EXCL, ifindex);
    qdisc.target(CLSACT_HANDLE, CLSACT, 0);
    qdisc.attribute(TCA_KIND, b"clsact\0");
    match qdisc.request(&socket) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
        _ => {}
    }
    let mut filter = Message::new(libc::RTM_NEWTFILTER, CREATE, ifindex);
    filter.target(HANDLE, direction.parent(), (PRIORITY << 16) | ALL_PROTOCOLS);
    filter.attribute(TCA_KIND, b"bpf\0");
    let mut options = Vec::new();
    append(&mut options, TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
    append(&mut options, TCA_BPF_NAME, &[name.as_bytes(), b"\0"].concat());
    append(&mut options, TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes());
    filter.attribute(TCA_OPTIONS, &options);
    filter.request(&socket)
}

/// Whether our filter is on the device in this direction.
pub(crate) fn filter_attached(ifindex: u32, direction: Direction) -> io::Result<bool> {
    let mut filter = Message::new(libc::RTM_GETTFILTER, libc::NLM_F_REQUEST | libc::NLM_F_ACK, ifindex);
    filter.target(HANDLE, direction.parent(), (PRIORITY << 16) | ALL_PROTOCOLS);
    filter.attribute(TCA_KIND, b"bpf\0");
    match filter.request(&open()?) {
        Ok(()) => Ok(true),
        // No such filter; no qdisc to ask; no device.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// One request.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: i32, ifindex: u32) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(0_u32.to_ne_bytes()); // the length, once it is known
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(u16::try_from(flags).unwrap_or_default().to_ne_bytes());
        bytes.extend([0; 8]); // sequence and port: one request a socket
        bytes.extend([0; 4]); // any family
        bytes.extend(ifindex.to_ne_bytes());
        Self(bytes)
    }

    /// The rest of `struct tcmsg`.
    fn target(&mut self, handle: u32, parent: u32, info: u32) {
        for word in [handle, parent, info] {
            self.0.extend(word.to_ne_bytes());
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        append(&mut self.0, kind, value);
    }

    /// Sends the request and waits for the kernel's word on it.
    fn request(mut self, socket: &OwnedFd) -> io::Result<()> {
        let length = u32::try_from(self.0.len()).map_err(io::Error::other)?;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        // SAFETY: the buffer is as long as said.
        let sent = unsafe { libc::send(socket.as_raw_fd(), self.0.as_ptr().cast(), self.0.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut answer = [0_u8; 8192];
        loop {
            // SAFETY: the buffer is as long as said.
            let got = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
            let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
            if let Some(code) = verdict(&answer[..got]) {
                return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
        }
    }
}

/// The number in the answer's `NLMSG_ERROR`, 0 for an acknowledgement; none where the answer is something else.
fn verdict(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (i32::from(kind) == libc::NLMSG_ERROR).then_some(code)
}

/// `struct rtattr` and its value, padded to four bytes.
fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = mem::size_of::<[u16; 2]>() + value.len();
    bytes.extend(u16::try_from(length).unwrap_or_default().to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn open() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for this call alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
