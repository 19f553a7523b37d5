//! Dialects: how each client names the same facts, and the one model they are read into.
//!
//! [`events_of_traces`] and [`events_of_logs`] turn a decoded request into events: the payload is what arrived, the
//! [`Arrival`](agentlens_domain::spans::Arrival) beside it holds the facts that were read from it. [`present`] reads the
//! payloads of a span's arrivals again when the span is shown. Both use the table in `attributes.toml`, so a new rule
//! applies to new spans at once and to old ones when they are shown.

mod answers;
mod arrivals;
mod arriving;
mod clients;
mod field;
mod kinds;
mod log_calls;
mod logs;
mod names;
mod payload;
mod present;
mod providers;
mod python;
mod raw;
mod reading;
mod table;
mod tokens;
mod traces;

pub use arriving::{Context, Normalised, Refused};
pub use clients::ClientReport;
pub use logs::events_of_logs;
pub use present::present;
pub use traces::events_of_traces;

#[cfg(test)]
mod tests;
