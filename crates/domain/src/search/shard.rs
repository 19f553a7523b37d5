//! One shard's stored bytes: a checksum, then ascending grams, each as a variable-length difference
//! to the one before, followed by the [`bitmap`] of the blocks it is in.

use std::ops::RangeInclusive;

use super::bitmap;
use super::gram::SHARDS;

const CHECKSUM_BYTES: usize = 4;

/// Writes the shards of one segment. Grams must arrive in ascending order.
pub(super) struct ShardWriter {
    shards: Vec<Vec<u8>>,
    last: Vec<u32>,
}

impl ShardWriter {
    pub(super) fn new() -> Self {
        Self { shards: vec![Vec::new(); SHARDS], last: vec![0; SHARDS] }
    }

    #[inline]
    pub(super) fn write(&mut self, shard: u16, gram: u32, blocks: u64) {
        let (out, last) = (&mut self.shards[usize::from(shard)], &mut self.last[usize::from(shard)]);
        if out.is_empty() {
            out.extend_from_slice(&[0; CHECKSUM_BYTES]);
        }
        let mut difference = gram - *last;
        *last = gram;
        while difference >= 0x80 {
            out.push(difference as u8 | 0x80);
            difference >>= 7;
        }
        out.push(difference as u8);
        bitmap::write(blocks, out);
    }

    /// The shards that have any gram, sealed with their checksums.
    pub(super) fn finish(self) -> Vec<(u16, Vec<u8>)> {
        let numbered = (0_u16..).zip(self.shards);
        numbered
            .filter_map(|(number, mut bytes)| {
                let sum = checksum(bytes.get(CHECKSUM_BYTES..)?);
                bytes[..CHECKSUM_BYTES].copy_from_slice(&sum);
                Some((number, bytes))
            })
            .collect()
    }
}

/// The blocks that any gram within `grams` is in; `None` if the bytes are corrupt.
pub(super) fn blocks_of(bytes: &[u8], grams: RangeInclusive<u32>) -> Option<u64> {
    let (sum, entries) = bytes.split_first_chunk::<CHECKSUM_BYTES>()?;
    if checksum(entries) == *sum { blocks_unchecked(entries, grams) } else { None }
}

/// As [`blocks_of`], once the checksum holds.
pub(super) fn blocks_unchecked(entries: &[u8], grams: RangeInclusive<u32>) -> Option<u64> {
    let mut rest = entries;
    let mut gram = 0_u32;
    let mut found = 0;
    while !rest.is_empty() {
        gram = gram.checked_add(read_difference(&mut rest)?)?;
        if gram > *grams.end() {
            break;
        }
        let blocks = bitmap::read(&mut rest)?;
        if gram >= *grams.start() {
            found |= blocks;
        }
    }
    Some(found)
}

/// Whether a shard names every block that another one names, for each of its grams; not if one of them is corrupt.
pub(super) fn covers(bytes: &[u8], other: &[u8]) -> bool {
    covers_unless_corrupt(bytes, other).unwrap_or(false)
}

fn covers_unless_corrupt(bytes: &[u8], other: &[u8]) -> Option<bool> {
    let (mut entries, mut needed) = (Entries::of(bytes)?, Entries::of(other)?);
    while !needed.rest.is_empty() {
        let (gram, blocks) = needed.read()?;
        let found = loop {
            if entries.rest.is_empty() {
                return Some(false);
            }
            let (stored, blocks) = entries.read()?;
            if stored >= gram {
                break if stored == gram { blocks } else { 0 };
            }
        };
        if blocks & !found != 0 {
            return Some(false);
        }
    }
    Some(true)
}

/// The grams of a shard, each with its blocks.
struct Entries<'bytes> {
    rest: &'bytes [u8],
    gram: u32,
}

impl<'bytes> Entries<'bytes> {
    /// `None` if the bytes are corrupt.
    fn of(bytes: &'bytes [u8]) -> Option<Self> {
        let (sum, rest) = bytes.split_first_chunk::<CHECKSUM_BYTES>()?;
        (checksum(rest) == *sum).then_some(Self { rest, gram: 0 })
    }

    fn read(&mut self) -> Option<(u32, u64)> {
        self.gram = self.gram.checked_add(read_difference(&mut self.rest)?)?;
        Some((self.gram, bitmap::read(&mut self.rest)?))
    }
}

#[inline]
fn read_difference(bytes: &mut &[u8]) -> Option<u32> {
    let mut difference = 0_u64;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        difference |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return u32::try_from(difference).ok();
        }
    }
    None
}

/// Tells damaged bytes from good ones; no protection against intent.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(bytes.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    let tail = rest.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
    let sum = mix(mix(sum, tail), FACTOR);
    ((sum ^ sum >> 32) as u32).to_be_bytes()
}
