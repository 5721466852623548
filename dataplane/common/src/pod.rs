//! Declares map types as plain data for user space.

/// Pins the size of a map type, and lets user space read and write it as bytes.
macro_rules! map_abi {
    ($($name:ident: $size:literal),+ $(,)?) => {$(
        const _: () = assert!(size_of::<$name>() == $size, concat!(stringify!($name), " is a map ABI"));
        #[cfg(feature = "user")]
        // SAFETY: `repr(C)` of integers and byte arrays; the asserted size is the sum of the fields, so
        // there is no padding and every bit pattern is valid.
        unsafe impl aya::Pod for $name {}
    )+};
}

pub(crate) use map_abi;
