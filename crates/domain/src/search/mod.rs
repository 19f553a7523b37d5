//! Exact substring search over stored payloads, in any script, without a search engine.
//!
//! Events are indexed in segments of consecutive positions. A segment is cut into at most 64 blocks
//! and knows for every gram (four consecutive bytes of folded text) which blocks contain it. A query
//! asks a few of its grams, reads only the blocks that have them all, and checks every text there.
//! What is searched is what is shown; see [`fold`]. The index may name a block in vain but never misses one; see [`Query`] and [`SegmentBuilder`].

mod bitmap;
mod builder;
mod fold;
mod gram;
mod query;
mod radix;
mod shard;
mod unescape;

pub use builder::{Segment, SegmentBuilder, block_ranges};
pub use fold::{fold, fold_for_index};
pub use gram::SHARDS;
pub use query::Query;

#[cfg(test)]
mod tests;
