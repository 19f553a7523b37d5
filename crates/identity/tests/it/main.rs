//! Whole sign-ins over HTTP on this machine: against a real OpenID provider, and against doubles that lie, or that
//! play Google and GitHub.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "the doubles are shared with other tests by their path")]

#[path = "../doubles/mod.rs"]
mod doubles;

mod answers;
mod discovery;
mod flows;
mod github;
mod google;
mod id_tokens;
mod keys;
mod real_provider;
mod userinfo;
mod world;
