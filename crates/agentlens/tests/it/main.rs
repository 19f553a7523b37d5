//! Tests that enter by the front door: HTTP and the command line, against the real binary on both engines.
//!
//! Each test has a server of its own ([`world::World`]). The cloud form needs `AGENTLENS_TEST_DATABASE_OWNER_URL`,
//! `AGENTLENS_TEST_DATABASE_URL` and `AGENTLENS_TEST_REDIS_URL` (see `scripts/services.sh`).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why on standard error"
)]

/// Makes a test of each named `async fn(World)` on each engine: `<module>::embedded::<name>` and `<module>::cloud::<name>`.
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        on_the_embedded_form!($($name),+);
        on_the_cloud_form!($($name),+);
    };
}

/// The same for what has a meaning on the embedded form only.
macro_rules! on_the_embedded_form {
    ($($name:ident),+ $(,)?) => {
        mod embedded {
            $(#[test] fn $name() { crate::world::run_embedded(super::$name); })+
        }
    };
}

/// The same for what has a meaning on the cloud form only.
macro_rules! on_the_cloud_form {
    ($($name:ident),+ $(,)?) => {
        mod cloud {
            $(#[test] fn $name() { crate::world::run_cloud(super::$name); })+
        }
    };
}

// Both crates try the same providers; each uses a part of what they can do.
#[path = "../../../identity/tests/doubles/mod.rs"]
#[expect(dead_code, unreachable_pub, reason = "the tests of the crate `identity` use the rest")]
mod doubles;

mod agents;
mod analytics;
mod attacks;
mod audit;
mod away;
mod bodies;
mod bounded_reads;
mod chains;
mod changes;
mod clock;
mod dead_letters;
mod environments;
mod events;
mod fairness;
mod files;
mod hostile;
mod ids;
mod ingest;
mod injection;
mod isolation;
mod jobs;
mod keys;
mod keys_api;
mod ledger;
mod lost_rights;
mod mail;
mod neighbours;
mod org_deletion;
mod orgs;
mod otel_corpus;
mod otel_counting;
mod otel_orders;
mod otel_requests;
mod otel_sessions;
mod otel_trace;
mod otlp;
mod pages;
mod parameters;
mod people;
mod permissions;
mod prices;
mod providers;
mod samples;
mod search;
mod server;
mod sessions;
mod start;
mod stream;
mod sums;
mod tables;
mod tampering;
mod world;
