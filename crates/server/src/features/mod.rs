//! One folder per feature. Features do not import each other; they meet in domain or store.

pub mod account;
pub mod agents;
pub mod analytics;
pub mod audit;
pub mod audit_log;
pub mod dead_letters;
pub mod deletions;
pub mod docs;
pub mod events;
pub mod health;
pub mod ingest;
pub mod keys;
pub mod org;
pub mod otlp;
pub mod pages;
pub mod prices;
pub mod sessions;
pub mod sign_in;
pub mod stats;
pub mod stream;
pub mod unbuilt;
