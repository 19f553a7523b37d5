//! HTTP: authentication, one folder per feature, periodic jobs. The only crate that knows HTTP.
//!
//! A handler is thin: extractor, one call, response. The extractor is the permission: [`auth::Scope`] authenticates, checks
//! the key's scope and hands over the org's handle.

pub mod api;
pub mod auth;
mod body;
pub mod client;
pub mod error;
mod event_schema;
pub mod features;
pub mod feed;
pub mod ingest_requests;
pub mod jobs;
mod json_body;
pub mod keys;
mod listen;
pub mod metrics;
pub mod people;
mod permissions;
pub mod positions;
pub mod post;
pub mod proxies;
pub mod query;
mod rates;
pub mod reading;
mod refusals;
pub mod router;
pub mod shares;
pub mod spans;
pub mod state;

pub use router::{openapi, serve_api, serve_probes};
pub use state::AppState;
