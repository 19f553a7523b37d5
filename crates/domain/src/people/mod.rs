//! People: their addresses and names, how they prove who they are, and which role they may give to whom.
//!
//! Each module is a rule on values. Who stores what it returns, and compares it in the same transaction, is the store.

pub mod email;
pub mod guessing;
pub mod names;
pub mod redirects;
pub mod roles;
pub mod tokens;
pub mod totp;
