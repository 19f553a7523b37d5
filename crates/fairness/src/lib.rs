//! Fair shares of what a process has only so much of: memory for bodies, bytes in a queue, permits to read, connections.
//!
//! A [`FairShare`] counts who holds how much. Its [`Rule`] lets a holder take more only while what it holds in the end is
//! at most `greed` times what is left for everyone else. So no holder can take everything, however hard it tries: alone it
//! gets `greed / (greed + 1)` of the capacity, and somebody who comes later always finds room.
//!
//! Example: of 256 MiB with a greed of 2, one org can hold 170 MiB. Two such orgs hold 102 MiB each, and 51 MiB are free.
//!
//! A crate of its own, so that ingest, store and server share the one type that decides who has to wait.

mod rule;
mod share;
mod waiting;

pub use rule::{Rule, Shortage};
pub use share::{FairShare, Holder, Share};
