//! Events in, tables out.
