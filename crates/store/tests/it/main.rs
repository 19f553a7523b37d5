//! The store's public functions on both engines, and what PostgreSQL itself must refuse.
//!
//! The tests on PostgreSQL need `AGENTLENS_TEST_DATABASE_OWNER_URL` and `AGENTLENS_TEST_DATABASE_URL` (see
//! `scripts/services.sh`); each makes a database of its own.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why on standard error"
)]

/// Makes a test of each named `async fn(World)` on each engine: `<module>::sqlite::<name>` and `<module>::postgres::<name>`.
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { crate::world::run_sqlite(super::$name); })+
        }
        mod postgres {
            $(#[test] fn $name() { crate::world::run_postgres(super::$name); })+
        }
    };
}

mod apply;
mod batches;
mod control;
mod guard;
mod ingest_requests;
mod isolation;
mod jobs;
mod purge;
mod reads;
mod retention;
mod same;
mod search_index;
mod spans;
mod tampering;
mod world;
mod write;
mod year;
