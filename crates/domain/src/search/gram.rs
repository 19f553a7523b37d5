//! Grams: what the index knows of a text. Everything here is part of the stored format.

/// Every text is followed by a zero byte, so that the three bytes that end it begin a gram too.
pub(super) const PADDING: u8 = 0;

/// How many shards the grams of a segment are spread over.
const SHARD_BITS: u32 = 8;

/// No UTF-8 byte has these five bits set, so no gram of a text equals a facet's.
const FACET_MARK: u32 = 0xf800_0000;

/// Four consecutive bytes as one number, so that grams sort as their bytes do.
#[inline]
pub(super) fn gram(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes)
}

/// The gram that stands for an event having a facet. Different facets may share one.
pub(super) fn facet_gram(name: &str, value: &str) -> u32 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    // FNV-1a; the byte between the parts is in neither, so moving text between them changes the hash.
    let bytes = name.bytes().chain([0xff]).chain(value.bytes());
    let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    let folded = (hash ^ hash >> 32) as u32;
    FACET_MARK | folded
}

/// The shard a gram is kept in. Grams that share their first three bytes share it, so that a needle
/// of three bytes is a range of one shard.
#[inline]
pub(super) fn shard_of(gram: u32) -> u16 {
    let spread = (gram >> 8).wrapping_mul(0x9e37_79b1);
    (spread >> (u32::BITS - SHARD_BITS)) as u16
}

/// How many shards a segment can have.
pub const SHARDS: usize = 1 << SHARD_BITS;
