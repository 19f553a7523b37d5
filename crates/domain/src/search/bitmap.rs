//! How a set of blocks is written: as many bytes as it has blocks while they are few.
//!
//! | first byte | then | meaning |
//! |---|---|---|
//! | `0..=63` | | that block |
//! | `64..=127` | one block | that block (less 64) and the next byte's |
//! | `131..=135` | 3 to 7 blocks | the blocks listed |
//! | `254` | eight bytes | the bitmap, big endian |
//! | `255` | | all 64 blocks |

const PAIR: u8 = 64;
const LIST: u8 = 128;
const MAX_LISTED: u32 = 7;
const RAW: u8 = 254;
const ALL: u8 = 255;

/// Appends a set of blocks.
#[inline]
pub(super) fn write(blocks: u64, out: &mut Vec<u8>) {
    let first = blocks.trailing_zeros() as u8;
    match blocks.count_ones() {
        1 => out.push(first),
        2 => out.extend_from_slice(&[PAIR + first, 63 - blocks.leading_zeros() as u8]),
        64 => out.push(ALL),
        count @ 3..=MAX_LISTED => {
            out.push(LIST + count as u8);
            let mut left = blocks;
            while left != 0 {
                out.push(left.trailing_zeros() as u8);
                left &= left - 1;
            }
        }
        _ => {
            out.push(RAW);
            out.extend_from_slice(&blocks.to_be_bytes());
        }
    }
}

/// Takes a set of blocks off the front of `bytes`; `None` if there is none.
#[inline]
pub(super) fn read(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    let length = match first {
        0..PAIR | ALL => 0,
        PAIR..LIST => 1,
        RAW => 8,
        _ => usize::from(first - LIST),
    };
    let (listed, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    match first {
        0..PAIR => Some(1 << first),
        ALL => Some(u64::MAX),
        RAW => Some(u64::from_be_bytes(listed.try_into().ok()?)),
        PAIR..LIST => Some(1 << (first - PAIR) | bits(listed)?),
        _ => bits(listed),
    }
}

fn bits(blocks: &[u8]) -> Option<u64> {
    blocks.iter().try_fold(0, |bits, &block| Some(bits | 1_u64.checked_shl(u32::from(block))?))
}
