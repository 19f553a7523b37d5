//! The promises of the sketch, as properties.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn sketch(values: &[i64]) -> Latency {
    let mut sketch = Latency::default();
    values.iter().for_each(|&value| sketch.add(value));
    sketch
}

/// Durations of every order of magnitude, small ones as likely as huge ones.
fn duration_us() -> impl Strategy<Value = i64> {
    (0_u32..63, any::<i64>()).prop_map(|(bits, value)| (value & i64::MAX) >> bits)
}

#[test]
fn bounds_are_the_documented_powers() {
    for (position, bound) in BOUNDS.into_iter().enumerate() {
        let exact = 2_f64.powi(63) * 2_f64.powf(position as f64 / 40.0);
        assert!((bound as f64 / exact - 1.0).abs() < 1e-15, "{position}");
    }
}

#[test]
fn buckets_tile_all_values() {
    assert_eq!(lowest_value(0), 0);
    assert_eq!(highest_value(BUCKETS - 1), i64::MAX as u64);
    for index in 0..BUCKETS {
        assert_eq!(bucket_of(lowest_value(index)), index);
        assert_eq!(bucket_of(highest_value(index)), index);
        let typical = typical_value(index) as f64;
        for end in [lowest_value(index), highest_value(index)] {
            assert!(
                (typical - end as f64).abs() <= RELATIVE_ERROR * end as f64,
                "{index}: {typical} for {end}"
            );
        }
    }
}

#[test]
fn an_empty_sketch_has_no_quantiles() {
    let empty = Latency::default();
    assert_eq!((empty.count(), empty.sum_us(), empty.mean_us(), empty.quantile(0.5)), (0, 0, None, None));
    assert_eq!(Latency::decode(&empty.encode()), Some(empty));
}

#[test]
fn a_few_values_by_hand() {
    let ten =
        sketch(&[120_000, 250_000, 300_000, 410_000, 800_000, 950_000, 1_200_000, 2_000_000, 4_500_000, -7]);
    assert_eq!(ten.count(), 10);
    assert_eq!(ten.sum_us(), 10_530_000);
    assert_eq!(ten.mean_us(), Some(1_053_000));
    assert_eq!(ten.quantile(0.0), Some(0));
    let median = ten.quantile(0.5).unwrap();
    assert!((405_490..=414_510).contains(&median), "{median}");
    assert_eq!(ten.quantile(1.1), None);
    assert_eq!(ten.quantile(f64::NAN), None);
    assert!(ten.encode().len() < 60, "{} bytes", ten.encode().len());
}

#[test]
fn sums_stop_at_the_end() {
    let mut huge = sketch(&[i64::MAX, i64::MAX, i64::MAX]);
    assert_eq!(huge.sum_us(), i64::MAX);
    assert_eq!(Latency::decode(&huge.encode()).as_ref(), Some(&huge));
    let copy = huge.clone();
    huge.merge(&copy);
    assert_eq!(Latency::decode(&huge.encode()), Some(huge));
}

#[test]
fn hostile_bytes_are_refused() {
    let refused: [&[u8]; 11] = [
        &[],
        &[2, 0],
        &[1],
        &[1, 0x80],
        &[1, 0x80, 0], // a varint longer than need be
        &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], // more than 64 bits
        &[1, 0, 0],    // a bucket without a count
        &[1, 0, 0, 0], // a count of nothing
        &[1, 0, 0xff, 0xff, 0x7f, 1], // no such bucket
        &[1, 7, 3, 1], // one value of 3 does not sum to 7
        &[1, 3, 3, 1, 0],
    ];
    for bytes in refused {
        assert_eq!(Latency::decode(bytes), None, "{bytes:?}");
    }
    assert_eq!(Latency::decode(&[1, 3, 3, 1]), Some(sketch(&[3])));
}

proptest! {
    #[test]
    fn quantiles_are_close(values in vec(duration_us(), 1..400), q in 0.0..=1.0_f64) {
        let mut sorted = values.clone();
        sorted.sort_unstable();
        let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
        let exact = sorted[rank - 1] as f64;
        let found = sketch(&values).quantile(q).unwrap() as f64;
        prop_assert!((found - exact).abs() <= RELATIVE_ERROR * exact, "{} for {}", found, exact);
    }

    #[test]
    fn any_merge_tree_gives_the_same_bytes(
        values in vec(duration_us(), 0..200),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
        swaps in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..50),
        joins in vec(any::<prop::sample::Index>(), 8),
    ) {
        let whole = sketch(&values);
        let mut shuffled = values.clone();
        for (left, right) in swaps.iter().filter(|_| !values.is_empty()) {
            shuffled.swap(left.index(values.len()), right.index(values.len()));
        }
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(shuffled.len() + 1)).collect();
        ends.extend([0, shuffled.len()]);
        ends.sort_unstable();
        let mut parts: Vec<Latency> = ends.windows(2).map(|pair| sketch(&shuffled[pair[0]..pair[1]])).collect();
        let mut join = joins.iter();
        while parts.len() > 1 {
            let at = join.next().map_or(0, |join| join.index(parts.len() - 1));
            // Through its bytes, as a rollup would.
            let right = Latency::decode(&parts.remove(at + 1).encode()).unwrap();
            parts[at].merge(&right);
        }
        prop_assert_eq!(parts[0].encode(), whole.encode());
        prop_assert_eq!(parts[0].count(), values.len() as u64);
    }

    #[test]
    fn decoding_never_panics_and_is_canonical(bytes in vec(any::<u8>(), 0..64)) {
        let mut versioned = vec![VERSION];
        versioned.extend_from_slice(&bytes);
        if let Some(sketch) = Latency::decode(&versioned) {
            prop_assert_eq!(sketch.encode(), versioned);
        }
        let _ = Latency::decode(&bytes);
    }

    #[test]
    fn encodings_are_small(values in vec(1_000_i64..600_000_000, 1..2000)) {
        let sketch = sketch(&values);
        prop_assert!(sketch.encode().len() <= 8 + 4 * sketch.buckets.len());
    }
}

#[test]
fn what_was_added_can_be_taken_away() {
    let (mut all, mut gone) = (Latency::default(), Latency::default());
    for us in [5, 1_000, 1_000, 250_000, 9_000_000] {
        all.add(us);
    }
    let kept = all.clone();
    for us in [77, 1_000, 88_000_000] {
        all.add(us);
        gone.add(us);
    }
    let (added, removed) = decode_change(&encode_change(&Latency::default(), &gone)).unwrap();
    all.merge(&added);
    all.subtract(&removed);
    assert_eq!(all, kept);
    assert_eq!(Latency::decode(&encode_change(&kept, &Latency::default())).unwrap(), kept);
    assert_eq!(decode_change(&[2, 200]), None);
    assert!(is_no_change(&encode_change(&Latency::default(), &Latency::default())));
    for (added, removed) in [(&kept, &Latency::default()), (&Latency::default(), &kept), (&kept, &kept)] {
        assert!(!is_no_change(&encode_change(added, removed)));
    }
}

#[test]
fn a_saturated_sum_stays_readable_while_durations_are_taken_away() {
    let ten_years_us = 315_619_200_000_000;
    let mut many = Latency::default();
    many.add(ten_years_us);
    for _ in 0..17 {
        let copy = many.clone();
        many.merge(&copy);
    }
    assert_eq!(many.sum_us, u64::MAX);
    let mut gone = Latency::default();
    gone.add(ten_years_us);
    many.subtract(&gone);
    assert_eq!((many.count(), many.sum_us), ((1 << 17) - 1, u64::MAX));
    let half = Latency::decode(&many.encode()).unwrap();
    for _ in 0..16 {
        let copy = gone.clone();
        gone.merge(&copy);
    }
    many.subtract(&gone);
    assert_eq!(many.count(), half.count() - (1 << 16));
    assert_eq!(Latency::decode(&many.encode()), Some(many.clone()));
    let p95 = many.quantile(0.95).unwrap() as f64;
    assert!((p95 / ten_years_us as f64 - 1.0).abs() <= RELATIVE_ERROR);
}

#[test]
fn what_was_never_added_leaves_the_sketch_readable() {
    let (mut some, mut other) = (Latency::default(), Latency::default());
    some.add(5);
    some.add(9_000_000);
    other.add(8_000_000);
    some.subtract(&other);
    assert_eq!(Latency::decode(&some.encode()), Some(some.clone()));
    assert_eq!(some.count(), 2);
}
