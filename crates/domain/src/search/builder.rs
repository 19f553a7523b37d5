//! Building a segment: the grams of each block are sorted as the block fills, and all blocks are
//! merged at the end.
//!
//! Both steps sort by digits, in time linear to the text. What is kept until the end is four bytes
//! per distinct gram of a block, so a full segment of the worst text takes four times its size.

use std::ops::Range;

use super::gram::{PADDING, facet_gram, gram, shard_of};
use super::radix::sort_bits;
use super::shard::ShardWriter;
use crate::limits::{BLOCK_EVENTS, BLOCK_TEXT_BYTES, SEGMENT_EVENTS, SEGMENT_TEXT_BYTES};

/// A segment's blocks are the bits of one `u64`.
const MAX_BLOCKS: usize = 64;

/// The index of consecutive events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The position of the first event; 0 if there is none.
    pub first_position: i64,
    /// The position of the last event; -1 if there is none.
    pub last_position: i64,
    /// The position of each block's first event. A block ends where the next one starts.
    pub block_starts: Vec<i64>,
    /// Which blocks each gram is in, by shard number; see [`super::Query::shards`].
    pub shards: Vec<(u16, Vec<u8>)>,
}

impl Segment {
    /// Whether it names every block that another one names, for each of its grams. Both must have the same blocks.
    pub fn covers(&self, other: &Self) -> bool {
        let shard = |number: u16| self.shards.iter().find(|(own, _)| *own == number);
        self.block_starts == other.block_starts
            && other.shards.iter().all(|(number, needed)| {
                shard(*number).is_some_and(|(_, stored)| super::shard::covers(stored, needed))
            })
    }
}

/// The half-open ranges of positions that the blocks in `candidates` hold, adjacent ones joined.
/// `block_starts` and `last_position` are those of the [`Segment`].
pub fn block_ranges(block_starts: &[i64], last_position: i64, candidates: u64) -> Vec<Range<i64>> {
    let ends = block_starts.iter().skip(1).copied().chain([last_position.saturating_add(1)]);
    let mut ranges: Vec<Range<i64>> = Vec::new();
    for (block, (&start, end)) in block_starts.iter().zip(ends).enumerate().take(MAX_BLOCKS) {
        if candidates >> block & 1 == 0 {
            continue;
        }
        match ranges.last_mut() {
            Some(range) if range.end == start => range.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

/// Collects events into a [`Segment`]. Its buffers are kept from one segment to the next.
pub struct SegmentBuilder {
    block_starts: Vec<i64>,
    last_position: i64,
    events: usize,
    text_bytes: usize,
    block_events: usize,
    block_text_bytes: usize,
    /// Distinct grams of finished blocks, ascending within each.
    blocks: Vec<Box<[u32]>>,
    /// Grams of the block being filled; few are repeated.
    grams: Vec<u32>,
    spare: Vec<u32>,
    recent: RecentGrams,
}

impl Default for SegmentBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl SegmentBuilder {
    /// Starts an empty segment.
    pub fn new() -> Self {
        Self {
            block_starts: Vec::with_capacity(MAX_BLOCKS),
            last_position: -1,
            events: 0,
            text_bytes: 0,
            block_events: 0,
            block_text_bytes: 0,
            blocks: Vec::with_capacity(MAX_BLOCKS),
            grams: Vec::new(),
            spare: Vec::new(),
            recent: RecentGrams::new(),
        }
    }

    /// Adds an event. Positions must ascend; `text` is what [`super::fold_for_index`] made of the payload; a
    /// facet is a property that queries can ask for together with a text, such as its agent.
    pub fn push(&mut self, position: i64, text: &str, facets: &[(&str, &str)]) {
        let block_full = self.block_events >= BLOCK_EVENTS || self.block_text_bytes >= BLOCK_TEXT_BYTES;
        if self.block_starts.is_empty() {
            self.block_starts.push(position);
        } else if block_full && self.block_starts.len() < MAX_BLOCKS {
            self.finish_block();
            self.block_starts.push(position);
        }
        self.last_position = position;
        self.events += 1;
        self.block_events += 1;
        self.text_bytes += text.len();
        self.block_text_bytes += text.len();
        self.add_grams(text.as_bytes());
        for (name, value) in facets {
            self.add(facet_gram(name, value));
        }
    }

    /// Starts a block where one of a stored segment starts, to compare what is left of its events with it. Not more than 64.
    pub fn start_block(&mut self, position: i64) {
        if !self.block_starts.is_empty() {
            self.finish_block();
        }
        self.block_starts.push(position);
    }

    /// Whether the segment should be finished before the next event.
    pub fn is_full(&self) -> bool {
        self.events >= SEGMENT_EVENTS || self.text_bytes >= SEGMENT_TEXT_BYTES
    }

    /// How many events the segment has.
    pub fn len(&self) -> usize {
        self.events
    }

    /// Whether the segment has no event.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Hands the segment over and starts an empty one.
    pub fn finish(&mut self) -> Segment {
        self.finish_block();
        let segment = Segment {
            first_position: self.block_starts.first().copied().unwrap_or(0),
            last_position: self.last_position,
            block_starts: std::mem::take(&mut self.block_starts),
            shards: self.merge(),
        };
        self.blocks.clear();
        self.last_position = -1;
        self.events = 0;
        self.text_bytes = 0;
        segment
    }

    #[inline]
    fn add(&mut self, gram: u32) {
        if self.recent.insert(gram) {
            self.grams.push(gram);
        }
    }

    fn add_grams(&mut self, text: &[u8]) {
        let Some((&[first, second, third], rest)) = text.split_first_chunk() else { return };
        let mut window = gram([0, first, second, third]);
        for &byte in rest.iter().chain([&PADDING]) {
            window = window << 8 | u32::from(byte);
            self.add(window);
        }
    }

    fn finish_block(&mut self) {
        sort_bits(&mut self.grams, &mut self.spare, 0, u32::BITS);
        self.grams.dedup();
        self.blocks.push(self.grams.as_slice().into());
        self.grams.clear();
        self.recent.clear();
        self.block_events = 0;
        self.block_text_bytes = 0;
    }

    /// Merges the blocks' grams, slice by slice of their highest bits: a slice is small enough to
    /// be sorted in the cache, and grams without the slice's bits leave room for the block's number.
    fn merge(&mut self) -> Vec<(u16, Vec<u8>)> {
        let mut writer = ShardWriter::new();
        let mut rests: Vec<&[u32]> = self.blocks.iter().map(AsRef::as_ref).collect();
        while let Some(slice) =
            rests.iter().filter_map(|rest| rest.first()).min().map(|gram| gram >> SLICE_SHIFT)
        {
            for (block, rest) in (0_u32..).zip(&mut rests) {
                let length = rest.iter().take_while(|&gram| gram >> SLICE_SHIFT == slice).count();
                let (taken, left) = rest.split_at(length);
                self.grams.extend(taken.iter().map(|gram| (gram & SLICE_MASK) << BLOCK_BITS | block));
                *rest = left;
            }
            sort_bits(&mut self.grams, &mut self.spare, BLOCK_BITS, BLOCK_BITS + SLICE_SHIFT);
            write_slice(&mut writer, slice << SLICE_SHIFT, &self.grams);
            self.grams.clear();
        }
        writer.finish()
    }
}

const BLOCK_BITS: u32 = MAX_BLOCKS.trailing_zeros();
const SLICE_SHIFT: u32 = 20;
const SLICE_MASK: u32 = (1 << SLICE_SHIFT) - 1;

/// Writes the sorted grams of one slice, each of which carries a block number below it.
fn write_slice(writer: &mut ShardWriter, slice: u32, grams: &[u32]) {
    for same in grams.chunk_by(|left, right| left >> BLOCK_BITS == right >> BLOCK_BITS) {
        let gram = slice | same[0] >> BLOCK_BITS;
        let blocks = same.iter().fold(0_u64, |blocks, entry| blocks | 1 << (entry % MAX_BLOCKS as u32));
        writer.write(shard_of(gram), gram, blocks);
    }
}

/// Remembers recent grams of a block, so that most repetitions are dropped before sorting.
struct RecentGrams {
    /// The block's number above the gram, so that a new block forgets without clearing.
    slots: Box<[u64]>,
    block: u64,
}

impl RecentGrams {
    const BITS: u32 = 14;

    fn new() -> Self {
        Self { slots: vec![0; 1 << Self::BITS].into(), block: 1 }
    }

    /// Whether the gram is not remembered; it is from now on.
    #[inline]
    fn insert(&mut self, gram: u32) -> bool {
        let slot = gram.wrapping_mul(0x9e37_79b1) >> (u32::BITS - Self::BITS);
        let entry = self.block << 32 | u64::from(gram);
        std::mem::replace(&mut self.slots[slot as usize], entry) != entry
    }

    fn clear(&mut self) {
        self.block += 1;
        if self.block > u64::from(u32::MAX) {
            self.slots.fill(0);
            self.block = 1;
        }
    }
}
