//! Requests to addresses that customers choose, such as webhooks: the one way out of the server.
//!
//! A customer's address must not reach what only the server can reach: its own machine, the private network, the metadata
//! service of the cloud. [`Outbound`] resolves names itself, drops the addresses that are not public, and connects only to
//! what is left, so a name that resolves differently a moment later gains nothing. It follows no redirect, uses no proxy, and
//! bounds time, body and headers. Operators allow private hosts and networks by an [`AllowList`].
//!
//! A crate of its own, so that nothing else in the program makes HTTP clients for customers' addresses.

mod address;
mod allow;
mod client;
mod policy;

pub use address::is_public;
pub use allow::{Allow, AllowList, InvalidAllow};
pub use client::{Bounds, Outbound, Request, Response};
pub use policy::OutboundError;
pub use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
pub use reqwest::{Method, StatusCode, Url};
