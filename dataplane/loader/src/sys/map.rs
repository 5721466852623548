//! The map calls of bpf(2), over bytes.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::bpf;

const BPF_MAP_LOOKUP_ELEM: u32 = 1;
const BPF_MAP_UPDATE_ELEM: u32 = 2;
const BPF_MAP_DELETE_ELEM: u32 = 3;
const BPF_MAP_LOOKUP_BATCH: u32 = 24;

#[repr(C)]
struct ElementAttr {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl ElementAttr {
    fn new(map: BorrowedFd<'_>, key: &[u8], value: u64) -> Self {
        Self {
            map: map.as_raw_fd().cast_unsigned(),
            reserved: 0,
            key: key.as_ptr().addr() as u64,
            value,
            flags: 0,
        }
    }
}

/// Reads one element; `None` when there is none. The lengths must be the map's.
pub(crate) fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<Option<()>> {
    let mut attr = ElementAttr::new(map, key, value.as_mut_ptr().addr() as u64);
    // SAFETY: both buffers outlive the call and have the map's lengths (the caller's promise).
    found(unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) })
}

/// Writes one element. The lengths must be the map's.
pub(crate) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attr = ElementAttr::new(map, key, value.as_ptr().addr() as u64);
    // SAFETY: both buffers outlive the call and have the map's lengths (the caller's promise).
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// Removes one element; `None` when there is none. The length must be the map's.
pub(crate) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<Option<()>> {
    let mut attr = ElementAttr::new(map, key, 0);
    // SAFETY: the key outlives the call and has the map's length (the caller's promise).
    found(unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) })
}

fn found(result: io::Result<i64>) -> io::Result<Option<()>> {
    match result {
        Ok(_) => Ok(Some(())),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads all elements, many with each call; hands every key and value to `each`.
pub(crate) fn dump(
    map: BorrowedFd<'_>,
    (key_len, value_len): (usize, usize),
    mut each: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        from: u64,
        next: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        element_flags: u64,
        flags: u64,
    }
    /// The position is a key or a bucket's number: longer than either.
    type Position = [u64; 8];
    /// Enough for nearly every bucket; a fuller one makes the kernel ask for more.
    const COUNT: usize = 1024;

    let (mut here, mut next) = (None::<Position>, Position::default());
    let mut room = COUNT;
    loop {
        let (mut keys, mut values) = (vec![0; key_len * room], vec![0; value_len * room]);
        let mut attr = Attr {
            from: here.as_ref().map_or(0, |here| here.as_ptr().addr() as u64),
            next: next.as_mut_ptr().addr() as u64,
            keys: keys.as_mut_ptr().addr() as u64,
            values: values.as_mut_ptr().addr() as u64,
            count: u32::try_from(room).map_err(io::Error::other)?,
            map: map.as_raw_fd().cast_unsigned(),
            ..Attr::default()
        };
        // SAFETY: the buffers have room for `count` elements of the map's lengths and outlive the call.
        let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) };
        let last = match result {
            Ok(_) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                Some(libc::ENOSPC) => {
                    room *= 2;
                    continue;
                }
                _ => return Err(error),
            },
        };
        let read = attr.count as usize;
        keys.chunks_exact(key_len)
            .zip(values.chunks_exact(value_len))
            .take(read)
            .for_each(|(k, v)| each(k, v));
        if last {
            return Ok(());
        }
        here = Some(next);
    }
}
