//! The two engines: they open connections, run statements and hold the few functions that truly differ.

pub(crate) mod postgres;
pub(crate) mod sqlite;
