//! A mergeable sketch of durations, for rollups that answer "p95 over these hours" without raw events.
//!
//! Values are counted in buckets whose bounds grow by 1.75 % (40 to the doubling), so any quantile is
//! within 1.1 % of the true one, whatever the distribution. Bucket bounds are integers from one table,
//! not logarithms of the machine's maths library: the same values give the same bytes on every machine,
//! in any order and by any merge tree, so a recount can be compared byte for byte.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Quantiles are within this fraction of the true value.
pub const RELATIVE_ERROR: f64 = 0.011;

/// Values below this (a power of two) have a bucket each: down there, a bucket of 1.75 % is narrower
/// than a microsecond.
const EXACT_BELOW: u64 = 1 << EXACT_BITS;
const EXACT_BITS: u32 = 8;

/// First byte of an encoding; another layout takes another number.
const VERSION: u8 = 1;
/// First byte of an encoded change that removes something.
const CHANGE_VERSION: u8 = 2;

/// Buckets to each doubling of the value.
const BUCKETS_PER_OCTAVE: usize = 40;

/// One more than the highest bucket: one for each exact value, then 40 for each octave up to `i64::MAX`.
const BUCKETS: u16 = (EXACT_BELOW as usize + BUCKETS_PER_OCTAVE * (63 - EXACT_BITS as usize)) as u16;

/// Lower bounds of the buckets in an octave: 2^63 · 2^(j/40), rounded to the nearest integer.
#[rustfmt::skip]
const BOUNDS: [u64; BUCKETS_PER_OCTAVE] = [
    0x8000000000000000, 0x823cc648f66c8b8d, 0x84838f9f4c1d6531, 0x86d488d02741f366,
    0x892fdf7128332131, 0x8b95c1e3ea8bd6e7, 0x8e065f5995efc600, 0x9081e7d67ec6b349,
    0x93088c35d733a4b5, 0x959a7e2d709097a6, 0x9837f0518db8a96f, 0x9ae11618c66be6c2,
    0x9d9623dffc19470e, 0xa0574eee605caf68, 0xa324cd798d8034ea, 0xa5fed6a9b15138ea,
    0xa8e5a29dca9b622b, 0xabd96a6ff99ce521, 0xaeda6839e3c902b9, 0xb1e8d7192b2f2122,
    0xb504f333f9de6484, 0xb82ef9bda19f3707, 0xbb6728fb505dbf9b, 0xbeadc048d9a1de59,
    0xc203001d9572e35d, 0xc5672a115506dadd, 0xc8da80e16d9ef5e3, 0xcc5d4875d9f44ba6,
    0xcfefc5e67299eb90, 0xd3923f803dbafba5, 0xd744fccad69d6af4, 0xdb08468ded53933c,
    0xdedc66d6df09010a, 0xe2c1a8fe67587dbc, 0xe6b859ae6b1b638d, 0xeac0c6e7dd24392f,
    0xeedb4008bd58906d, 0xf30815d232a02a7b, 0xf7479a6ec021747f, 0xfb9a21789645884f,
];

/// Durations in microseconds, counted by bucket.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    /// Non-empty buckets by rising index.
    buckets: Vec<Bucket>,
    sum_us: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bucket {
    index: u16,
    count: u64,
}

impl Latency {
    /// Counts one duration in microseconds; a negative one (a clock that went back) counts as 0.
    pub fn add(&mut self, us: i64) {
        let value = us.max(0).unsigned_abs();
        self.sum_us = self.sum_us.saturating_add(value);
        let index = bucket_of(value);
        match self.buckets.binary_search_by_key(&index, |bucket| bucket.index) {
            Ok(at) => self.buckets[at].count = self.buckets[at].count.saturating_add(1),
            Err(at) => self.buckets.insert(at, Bucket { index, count: 1 }),
        }
    }

    /// Adds what another sketch counted, as if every duration had been added here.
    pub fn merge(&mut self, other: &Latency) {
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        let mut merged = Vec::with_capacity(self.buckets.len() + other.buckets.len());
        let (mut left, mut right) = (self.buckets.as_slice(), other.buckets.as_slice());
        while let ([mine, left_rest @ ..], [theirs, right_rest @ ..]) = (left, right) {
            if mine.index < theirs.index {
                merged.push(*mine);
                left = left_rest;
            } else if theirs.index < mine.index {
                merged.push(*theirs);
                right = right_rest;
            } else {
                merged.push(Bucket { index: mine.index, count: mine.count.saturating_add(theirs.count) });
                (left, right) = (left_rest, right_rest);
            }
        }
        merged.extend_from_slice(left);
        merged.extend_from_slice(right);
        self.buckets = merged;
    }

    /// Takes away what another sketch counted; what was never counted here is left out of account.
    ///
    /// A sum that has reached its maximum no longer says how far it went beyond, so nothing is taken from it. Either way it is
    /// brought back between the least and the greatest sum that the buckets allow.
    pub fn subtract(&mut self, other: &Latency) {
        if other.is_empty() {
            return;
        }
        if self.sum_us != u64::MAX {
            self.sum_us = self.sum_us.saturating_sub(other.sum_us);
        }
        for taken in &other.buckets {
            if let Ok(at) = self.buckets.binary_search_by_key(&taken.index, |bucket| bucket.index) {
                self.buckets[at].count = self.buckets[at].count.saturating_sub(taken.count);
            }
        }
        self.buckets.retain(|bucket| bucket.count > 0);
        self.sum_us = self.sum_us.clamp(self.total(lowest_value), self.total(highest_value));
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum: u64, bucket| sum.saturating_add(bucket.count))
    }

    /// The exact sum of all durations in microseconds, stopping at `i64::MAX`.
    pub fn sum_us(&self) -> i64 {
        i64::try_from(self.sum_us).unwrap_or(i64::MAX)
    }

    /// The mean duration in microseconds, rounded down; exact, because the sum is. `None` if empty.
    pub fn mean_us(&self) -> Option<i64> {
        self.sum_us.checked_div(self.count()).map(|mean| i64::try_from(mean).unwrap_or(i64::MAX))
    }

    /// The duration in microseconds that a fraction `q` of all durations does not exceed, by nearest
    /// rank, within [`RELATIVE_ERROR`]. `None` if empty or if `q` is not from 0 to 1.
    pub fn quantile(&self, q: f64) -> Option<i64> {
        let count = self.count();
        if count == 0 || !(0.0..=1.0).contains(&q) {
            return None;
        }
        let rank = ((q * count as f64).ceil() as u64).clamp(1, count);
        let mut passed = 0_u64;
        let holder = self.buckets.iter().find(|bucket| {
            passed = passed.saturating_add(bucket.count);
            passed >= rank
        });
        holder.map(|bucket| typical_value(bucket.index))
    }

    /// The sketch as bytes: a version, the sum, then for each bucket its distance from the one before
    /// and its count, all as LEB128 varints. Equal contents give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(11 + 3 * self.buckets.len());
        bytes.push(VERSION);
        write_varint(&mut bytes, self.sum_us);
        let mut next_index = 0;
        for bucket in &self.buckets {
            write_varint(&mut bytes, u64::from(bucket.index - next_index));
            write_varint(&mut bytes, bucket.count);
            next_index = bucket.index + 1;
        }
        bytes
    }

    /// Reads [`Latency::encode`]'s bytes. `None` for anything it would not have written, so that decoding
    /// and encoding again gives the same bytes.
    pub fn decode(bytes: &[u8]) -> Option<Latency> {
        let (&version, mut rest) = bytes.split_first()?;
        if version != VERSION {
            return None;
        }
        let sum_us = read_varint(&mut rest)?;
        let mut buckets = Vec::new();
        let mut next_index = 0_u16;
        while !rest.is_empty() {
            let gap = u16::try_from(read_varint(&mut rest)?).ok()?;
            let index = next_index.checked_add(gap).filter(|&index| index < BUCKETS)?;
            let count = read_varint(&mut rest).filter(|&count| count > 0)?;
            buckets.push(Bucket { index, count });
            next_index = index + 1;
        }
        let sketch = Latency { buckets, sum_us };
        sketch.has_possible_sum().then_some(sketch)
    }

    /// Whether the buckets can add up to the sum.
    fn has_possible_sum(&self) -> bool {
        (self.total(lowest_value)..=self.total(highest_value)).contains(&self.sum_us)
    }

    /// The sum of the durations if each were as long as its bucket's `bound`.
    fn total(&self, bound: fn(u16) -> u64) -> u64 {
        let sum =
            |sum: u64, bucket: &Bucket| sum.saturating_add(bound(bucket.index).saturating_mul(bucket.count));
        self.buckets.iter().fold(0, sum)
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        Self::decode(bytes).ok_or_else(|| de::Error::custom("not a sketch of durations"))
    }
}

/// A change of a sketch as bytes: durations that come to it, and durations that were counted in it and no longer are.
/// Where none go, the bytes are those of the sketch that comes.
pub fn encode_change(added: &Latency, removed: &Latency) -> Vec<u8> {
    let added = added.encode();
    if removed.is_empty() {
        return added;
    }
    let mut bytes = vec![CHANGE_VERSION];
    write_varint(&mut bytes, added.len() as u64);
    bytes.extend_from_slice(&added);
    bytes.extend_from_slice(&removed.encode());
    bytes
}

/// Whether the bytes are those of a change of nothing.
pub fn is_no_change(bytes: &[u8]) -> bool {
    bytes == [VERSION, 0]
}

/// Reads [`encode_change`]'s bytes: what comes and what goes.
pub fn decode_change(bytes: &[u8]) -> Option<(Latency, Latency)> {
    let Some(mut rest) = bytes.strip_prefix(&[CHANGE_VERSION]) else {
        return Some((Latency::decode(bytes)?, Latency::default()));
    };
    let length = usize::try_from(read_varint(&mut rest)?).ok()?;
    let (added, removed) = rest.split_at_checked(length)?;
    Some((Latency::decode(added)?, Latency::decode(removed)?))
}

/// The bucket of a value up to `i64::MAX`.
fn bucket_of(value: u64) -> u16 {
    if value < EXACT_BELOW {
        return value as u16;
    }
    let shift = value.leading_zeros();
    // The first bound is 2^63 and the shifted value is not below it, so at least one bound is passed.
    let passed = BOUNDS.partition_point(|&bound| bound <= value << shift);
    let octave = (63 - shift - EXACT_BITS) as usize;
    (EXACT_BELOW as usize + octave * BUCKETS_PER_OCTAVE + passed - 1) as u16
}

/// The lowest whole value in a bucket.
fn lowest_value(index: u16) -> u64 {
    let Some(above) = usize::from(index).checked_sub(EXACT_BELOW as usize) else { return u64::from(index) };
    let octave = (above / BUCKETS_PER_OCTAVE) as u32;
    if octave >= 63 - EXACT_BITS {
        return 1 << 63;
    }
    let shift = 63 - EXACT_BITS - octave;
    let bound = BOUNDS[above % BUCKETS_PER_OCTAVE];
    // Rounded up.
    (bound >> shift) + u64::from(bound & ((1 << shift) - 1) != 0)
}

/// The highest whole value in a bucket.
fn highest_value(index: u16) -> u64 {
    lowest_value(index + 1) - 1
}

/// The value that is relatively closest to both ends of a bucket: their harmonic mean.
fn typical_value(index: u16) -> i64 {
    let (lowest, highest) = (u128::from(lowest_value(index)), u128::from(highest_value(index)));
    let sum = (lowest + highest).max(1);
    i64::try_from((2 * lowest * highest + sum / 2) / sum).unwrap_or(i64::MAX)
}

fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes one varint off the front; `None` if it is cut short, too large, or longer than it need be.
fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let payload = u64::from(byte & 0x7f);
        if (payload << shift) >> shift != payload || (byte == 0 && shift > 0) {
            return None;
        }
        value |= payload << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
