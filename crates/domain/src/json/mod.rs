//! JSON text as clients send it, read and rewritten without building trees.
//!
//! [`canonicalize`] prints a text exactly as ECMAScript's `JSON.stringify(JSON.parse(text))` would,
//! because the published hash chain is defined over that form. [`Value`] looks into a text: it is
//! validated once, then members and elements are slices of it.
//!
//! Everything walks iteratively with a bounded depth, so hostile input costs an error, never a stack.

mod canonical;
mod error;
mod number;
mod path;
mod scan;
mod shorten;
mod string;
mod value;

pub use canonical::{Canonical, canonicalize};
pub use error::JsonError;
pub use shorten::shorten;
pub use string::write_string;
pub use value::{Kind, Member, Value};

pub(crate) use scan::plain_length;
pub(crate) use string::{Piece, Pieces, escape};

#[cfg(test)]
mod tests;
