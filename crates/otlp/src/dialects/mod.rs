//! Dialects: how each client says the same thing, and the one model that it is read into.
//!
//! [`events_of_traces`] and [`events_of_logs`] turn a decoded request into events: the payload is what arrived, the
//! [`Arrival`](agentlens_domain::spans::Arrival) beside it is what could be read. [`present`] reads the payloads of a
//! span's arrivals again, for someone who looks at it. Both read through the one table in `attributes.toml`, so that a
//! rule that is added there holds for new spans at once and for old ones when they are shown.

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
