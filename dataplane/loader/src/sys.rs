//! The calls of bpf(2) that aya lacks or hides, and others that nobody wraps, each as one safe function over descriptors and bytes.

use std::{
    ffi::CString,
    io, mem,
    net::{Ipv4Addr, UdpSocket},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

mod filter;
mod map;
mod run;

pub(crate) use filter::{Direction, filter_attach, filter_attached};
pub(crate) use map::{delete, dump, lookup, update};
pub(crate) use run::{Ran, Run, test_run};

const BPF_OBJ_PIN: u32 = 6;
const BPF_OBJ_GET: u32 = 7;
const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;
const BPF_PROG_QUERY: u32 = 16;
const BPF_LINK_CREATE: u32 = 28;
const BPF_LINK_UPDATE: u32 = 29;

const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
/// In front of the programs of others.
const BPF_F_BEFORE: u32 = 1 << 3;

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook<'a> {
    /// At a cgroup, with the number of the attach type.
    Cgroup(BorrowedFd<'a>, u32),
    /// At a device's ingress, by its index.
    Ingress(u32),
    /// At a device's egress, by its index.
    Egress(u32),
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    /// The link's id.
    pub(crate) id: u32,
    /// The id of the program in it.
    pub(crate) program: u32,
    /// tcx: index of the device, 0 when it is gone. cgroup: id of the cgroup, 0 when it is gone.
    pub(crate) target: u64,
}

/// The number by which programs know the network namespace of the calling thread. Never 0, never given again. Linux 5.14.
///
/// # Errors
/// When the kernel gives no socket.
pub fn netns_cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let (mut cookie, mut size) = (0_u64, 8);
    let (value, length) = ((&raw mut cookie).cast(), &raw mut size);
    // SAFETY: both outlive the call, and the value is as large as it is said to be.
    let got = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, value, length)
    };
    if got == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Attaches a program; the link lives as long as its descriptor or its pin.
pub(crate) fn link_create(program: BorrowedFd<'_>, hook: Hook<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        relative: u32,
        reserved: u32,
        revision: u64,
    }
    let (target, attach_type, flags) = match hook {
        Hook::Cgroup(cgroup, attach_type) => (cgroup.as_raw_fd().cast_unsigned(), attach_type, 0),
        Hook::Ingress(ifindex) => (ifindex, BPF_TCX_INGRESS, BPF_F_BEFORE),
        Hook::Egress(ifindex) => (ifindex, BPF_TCX_EGRESS, BPF_F_BEFORE),
    };
    let program = program.as_raw_fd().cast_unsigned();
    let mut attr = Attr { program, target, attach_type, flags, ..Attr::default() };
    // SAFETY: the attributes hold no pointers.
    let fd = unsafe { bpf(BPF_LINK_CREATE, &mut attr) }?;
    owned(fd)
}

/// Puts another program into a link, at once: no packet sees none or both.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link: RawFd,
        program: RawFd,
        flags: u32,
        old: u32,
    }
    let mut attr = Attr { link: link.as_raw_fd(), program: program.as_raw_fd(), flags: 0, old: 0 };
    // SAFETY: the attributes hold no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// What the kernel says of a link.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    /// The head of `bpf_link_info`: type, id, program, and a union that starts with the device or the cgroup.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        reserved: u32,
        low: u32,
        high: u32,
        rest: [u64; 8],
    }
    #[repr(C)]
    struct Attr {
        fd: RawFd,
        len: u32,
        info: u64,
    }
    const CGROUP: u32 = 3;
    let mut info = Info::default();
    let mut attr = Attr {
        fd: link.as_raw_fd(),
        len: u32::try_from(mem::size_of::<Info>()).expect("a small struct"),
        info: (&raw mut info).addr() as u64,
    };
    // SAFETY: `info` is valid for writes of `len` bytes and outlives the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let high = if info.kind == CGROUP { u64::from(info.high) << 32 } else { 0 };
    Ok(LinkInfo { id: info.id, program: info.program, target: high | u64::from(info.low) })
}

#[repr(C)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens a pinned object.
pub(crate) fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjectAttr { path: path.as_ptr().addr() as u64, fd: 0, flags: 0 };
    // SAFETY: the path is a string that ends in zero and outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attr) }?;
    owned(fd)
}

/// Pins an object.
pub(crate) fn object_pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = object.as_raw_fd().cast_unsigned();
    let mut attr = ObjectAttr { path: path.as_ptr().addr() as u64, fd, flags: 0 };
    // SAFETY: the path is a string that ends in zero and outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Asks for the number of programs at a device's ingress; `EINVAL` means a kernel without tcx.
pub(crate) fn query_tcx(ifindex: u32) -> io::Result<u32> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        reserved: u32,
        rest: [u64; 4],
    }
    let mut attr = Attr { target: ifindex, attach_type: BPF_TCX_INGRESS, ..Attr::default() };
    // SAFETY: there is room for no program ids, and none is asked for.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    Ok(attr.count)
}

/// The magic number of the file system that a path lies in.
pub(crate) fn file_system(path: &Path) -> io::Result<i64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut info = mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the path ends in zero, `info` is valid for writes.
    if unsafe { libc::statfs(path.as_ptr(), info.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, and filled by the call.
    Ok(unsafe { info.assume_init() }.f_type)
}

fn owned(fd: i64) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for this call alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The system call itself.
///
/// # Safety
/// Every pointer in `attr` must be valid for what `command` does with it.
unsafe fn bpf<T>(command: u32, attr: &mut T) -> io::Result<i64> {
    // SAFETY: `attr` is as long as said; its pointers are the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), mem::size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
