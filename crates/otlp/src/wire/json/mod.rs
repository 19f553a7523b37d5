//! Requests in OTLP's JSON.
//!
//! `envelope` reads the resources and scopes of a body and keeps each span, log record or metric as JSON text.
//! `messages` then reads these texts one by one. So only an unreadable item is refused, and the refusal names its
//! number.
//!
//! Names may be in lowerCamelCase or `snake_case`, `null` is an absent field, and numbers may be strings. Unknown fields
//! are ignored, and the last of two equal names wins.

mod envelope;
mod messages;
mod tree;

pub(super) use envelope::read;
pub(super) use messages::FromJson;
#[cfg(test)]
pub(super) use messages::MAX_ITEM_VALUES;
