//! What things are and which rules hold. Pure: no I/O, no SQL, no HTTP. Time is an argument of every rule;
//! who hands it in asks a [`clock::Clock`].
//!
//! One file per noun. A rule is a function on values, tested beside the code. Everything that crosses
//! a boundary of the program (a request, a row, a queue message) is parsed here, once, into a type that
//! carries the proof, and is not checked again inside.

pub mod apply;
pub mod audit;
pub mod batches;
pub mod chain;
pub mod changes;
pub mod clock;
pub mod cost;
pub mod entitlements;
pub mod environments;
pub mod events;
pub mod ids;
pub mod json;
pub mod keys;
pub mod latency;
pub mod ledger;
pub mod limits;
pub mod page;
pub mod passwords;
pub mod people;
pub mod permissions;
pub mod rates;
pub mod rollups;
pub mod sealed_box;
pub mod search;
pub mod sessions;
pub mod signing;
pub mod spans;
pub mod time;
pub mod usage;
