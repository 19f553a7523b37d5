//! One file per command.

pub(crate) mod dead_letters;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod documents;
mod greeting;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod migrate;
pub(crate) mod orgs;
pub(crate) mod prices;
pub(crate) mod secrets;
pub(crate) mod serve;
pub(crate) mod users;
pub(crate) mod verify;
pub(crate) mod workspaces;
