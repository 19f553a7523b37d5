//! What mail says (`golden`), how it reaches a real SMTP server (`smtp`), and how it is written without one (`log`).
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod golden;
mod log;
#[path = "../../../../tests/mail/server.rs"]
mod mail_server;
mod samples;
mod smtp;
