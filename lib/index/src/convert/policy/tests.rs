//! Objects in, values out.
