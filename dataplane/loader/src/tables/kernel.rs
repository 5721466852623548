//! A table in the kernel: a map's descriptor with the types of its key and value.

use std::{
    collections::HashMap,
    hash::Hash,
    io,
    marker::PhantomData,
    mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use aya::Pod;

use super::{Table, TableError};
use crate::sys;

/// A map of the kernel. `get` on [`TUNNELS`](netkeel_dataplane_common::tunnels) gives the longest match, as in the kernel.
#[derive(Debug)]
pub struct KernelTable<K, V> {
    name: &'static str,
    capacity: u32,
    map: OwnedFd,
    entry: PhantomData<fn() -> (K, V)>,
}

impl<K: Pod, V: Pod> KernelTable<K, V> {
    /// The caller promises that the map has keys `K` and values `V`.
    pub(crate) const fn new(name: &'static str, capacity: u32, map: OwnedFd) -> Self {
        Self { name, capacity, map, entry: PhantomData }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    fn read_error(&self, source: io::Error) -> TableError {
        TableError::Read { table: self.name, source }
    }

    fn write_error(&self, source: io::Error) -> TableError {
        match source.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => {
                TableError::Full { table: self.name, capacity: self.capacity }
            }
            _ => TableError::Write { table: self.name, source },
        }
    }
}

impl<K: Pod + Eq + Hash, V: Pod> Table<K, V> for KernelTable<K, V> {
    fn dump(&self) -> Result<HashMap<K, V>, TableError> {
        let mut entries = HashMap::new();
        let lengths = (mem::size_of::<K>(), mem::size_of::<V>());
        sys::dump(self.fd(), lengths, |key, value| {
            entries.insert(from_bytes(key), from_bytes(value));
        })
        .map_err(|source| self.read_error(source))?;
        Ok(entries)
    }

    fn get(&self, key: &K) -> Result<Option<V>, TableError> {
        let mut value = vec![0; mem::size_of::<V>()];
        let found =
            sys::lookup(self.fd(), as_bytes(key), &mut value).map_err(|source| self.read_error(source))?;
        Ok(found.map(|()| from_bytes(&value)))
    }

    fn put(&mut self, key: &K, value: &V) -> Result<(), TableError> {
        sys::update(self.fd(), as_bytes(key), as_bytes(value)).map_err(|source| self.write_error(source))
    }

    fn remove(&mut self, key: &K) -> Result<(), TableError> {
        sys::delete(self.fd(), as_bytes(key)).map(drop).map_err(|source| self.write_error(source))
    }
}

fn as_bytes<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: `Pod` promises that every byte of the value is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), mem::size_of::<T>()) }
}

fn from_bytes<T: Pod>(bytes: &[u8]) -> T {
    assert_eq!(bytes.len(), mem::size_of::<T>(), "an element of the map's own length");
    // SAFETY: as long as `T`, and `Pod` promises that every bit pattern is one; the read need not be aligned.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}
