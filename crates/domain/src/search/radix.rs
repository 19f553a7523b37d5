//! Sorting of many small numbers in time linear to their count.

/// Fewer numbers than this are sorted faster by comparison.
const MIN_COUNTED: usize = 192;

/// Sorts `numbers` by the bits from `low` up to `high`, above which there must be none set. Numbers
/// that agree on those bits come in any order.
pub(super) fn sort_bits(numbers: &mut Vec<u32>, spare: &mut Vec<u32>, low: u32, high: u32) {
    if numbers.len() < MIN_COUNTED {
        numbers.sort_unstable();
        return;
    }
    let mut shift = low;
    while shift < high {
        let bits = (high - shift).min(11);
        distribute(numbers, spare, shift, bits);
        std::mem::swap(numbers, spare);
        shift += bits;
    }
}

/// Copies `numbers` to `spare`, stably ordered by `bits` bits from `shift` on.
fn distribute(numbers: &[u32], spare: &mut Vec<u32>, shift: u32, bits: u32) {
    let mask = (1 << bits) - 1;
    let digit = |number: u32| (number >> shift & mask) as usize;
    let mut next = [0_u32; 1 << 11];
    for &number in numbers {
        next[digit(number)] += 1;
    }
    let mut sum = 0;
    for count in &mut next[..1 << bits] {
        sum += std::mem::replace(count, sum);
    }
    spare.resize(numbers.len(), 0);
    for &number in numbers {
        let place = &mut next[digit(number)];
        spare[*place as usize] = number;
        *place += 1;
    }
}
