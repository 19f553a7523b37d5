use std::collections::HashMap;

use proptest::prelude::*;
use unicode_normalization::UnicodeNormalization;

use super::*;
use crate::limits::{BLOCK_EVENTS, SEGMENT_EVENTS, SEGMENT_TEXT_BYTES};

fn folded(payload: &str) -> String {
    let mut out = String::new();
    fold(payload, &mut out);
    out
}

fn segment(texts: &[String]) -> Segment {
    let mut builder = SegmentBuilder::new();
    for (position, text) in (0..).zip(texts) {
        builder.push(position, text, &[("agent", &format!("a{position}"))]);
    }
    builder.finish()
}

fn candidates(segment: &Segment, query: &Query) -> u64 {
    let shards: HashMap<u16, &[u8]> =
        segment.shards.iter().map(|(number, bytes)| (*number, bytes.as_slice())).collect();
    let fetched = query.shards();
    let shard = |number| {
        assert!(fetched.contains(&number), "shard {number} was not announced");
        shards.get(&number).copied()
    };
    let candidates = query.candidates(shard);
    for known in 0..=fetched.len() {
        let some = query.candidates_by(|number| fetched[..known].contains(&number), shard);
        assert_eq!(some & candidates, candidates, "{known} shards exclude what all of them leave");
    }
    candidates
}

/// The positions at which the whole search finds `needle`.
fn search(texts: &[String], needle: &str, facets: &[(&str, &str)]) -> Vec<i64> {
    let segment = segment(texts);
    let query = Query::new(needle, facets);
    let blocks = candidates(&segment, &query);
    let ranges = block_ranges(&segment.block_starts, segment.last_position, blocks);
    ranges.into_iter().flatten().filter(|position| query.matches(&texts[*position as usize])).collect()
}

fn is_candidate(segment: &Segment, query: &Query, position: i64) -> bool {
    let blocks = candidates(segment, query);
    block_ranges(&segment.block_starts, segment.last_position, blocks)
        .iter()
        .any(|range| range.contains(&position))
}

/// Texts in which every number is written out of a simple generator: the same in every run.
fn digits(seed: u64, length: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{:016x}", state.wrapping_mul(0x2545_f491_4f6c_dd1d))
    };
    (0..length.div_ceil(16)).map(next).collect::<String>()[..length].to_owned()
}

#[test]
fn payloads_fold_to_their_text_in_lower_case() {
    assert_eq!(folded(r#"{"toolName":"Search"}"#), r#"{"toolname":"search"}"#);
    assert_eq!(folded(r#"{"t":"Say \"HI\"\n\\\t/"}"#), "{\"t\":\"say \"hi\"\n\\\t/\"}");
    assert_eq!(
        folded(r#"["天気 ÄÖ","ΣΑΣ","\ud83d\ude00","\ud83d","\u001f"]"#),
        "[\"天気 äö\",\"σασ\",\"😀\",\"\u{fffd}\",\"\u{1f}\"]"
    );
    assert_eq!(folded("\\"), "\\");
    assert_eq!(folded(r"a\u12\q"), r"a\u12\q");
}

#[test]
fn text_is_found_as_json_and_as_words() {
    let texts: Vec<String> = [
        r#"{"toolName":"Search","q":"say \"hi\" to Ärzte"}"#,
        r#"{"toolName":"fetch","q":"今日の天気は晴れです"}"#,
        r#"{"n":12.5,"x":[1,2,3]}"#,
    ]
    .map(folded)
    .to_vec();
    let at = |needle: &str| search(&texts, needle, &[]);
    assert_eq!(at(r#""toolName":"search""#), [0]);
    assert_eq!(at(r#"SAY "hi""#), [0]);
    assert_eq!(at("ÄRZ"), [0]);
    assert_eq!(at("天気"), [1]);
    assert_eq!(at("晴"), [1]);
    assert_eq!(at("toolname"), [0, 1]);
    assert_eq!(at("3]}"), [2]);
    assert_eq!(at("5"), [2]);
    assert_eq!(at("nowhere"), [] as [i64; 0]);
}

/// The payloads whose text holds `needle`, by way of the index.
fn found_in(payloads: &[String], needle: &str) -> Vec<usize> {
    let indexed = |payload: &String| {
        let mut out = String::new();
        fold_for_index(payload, &mut out);
        out
    };
    let segment = segment(&payloads.iter().map(indexed).collect::<Vec<_>>());
    let query = Query::new(needle, &[]);
    let blocks = candidates(&segment, &query);
    let ranges = block_ranges(&segment.block_starts, segment.last_position, blocks);
    let candidates = ranges.into_iter().flatten().map(|position| position as usize);
    candidates.filter(|position| query.matches(&folded(&payloads[*position]))).collect()
}

/// A JSON string as Python's `json.dumps` writes it: in ASCII.
fn ascii_json(text: &str) -> String {
    let mut out = String::new();
    for character in serde_json::to_string(text).unwrap().chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            let mut units = [0; 2];
            character
                .encode_utf16(&mut units)
                .iter()
                .for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    out
}

/// A payload that holds the text in JSON in JSON, so many times.
fn nested(text: &str, times: usize) -> String {
    let inner =
        (0..times).fold(text.to_owned(), |text, _| format!("[{{\"content\": {}}}]", ascii_json(&text)));
    serde_json::json!({ "attributes": { "gen_ai.input.messages": inner } }).to_string()
}

#[test]
fn what_is_shown_is_found_however_often_it_was_encoded() {
    let text = "Ask about 退款政策, he said \"cancel my order\"\nplease: C:\\New\\tmp 😀 Ünï";
    for times in 0..MAX_NESTED {
        let payloads = [nested("nothing of it", times), nested(text, times)];
        for needle in [
            "退款政策",
            "退款",
            "退",
            "\"cancel my order\"",
            "order\"\nplease",
            "order",
            "C:\\New\\tmp",
            "\\new",
            "😀 ünï",
            "said \"c",
            "about 退款政策, he said \"cancel my order\"\nplease: C:\\New",
        ] {
            assert_eq!(found_in(&payloads, needle), [1], "{needle:?} encoded {times} times");
        }
    }
}

#[test]
fn pythons_escapes_are_undone() {
    let payload =
        serde_json::json!({ "a": r"{'q': 'it\'s caf\xe9 \U0001F600', 'p': 'C:\\New'}" }).to_string();
    for needle in ["it's", "café", "😀", "c:\\new"] {
        assert_eq!(found_in(std::slice::from_ref(&payload), needle), [0], "{needle}");
    }
}

#[test]
fn composed_and_decomposed_texts_are_the_same() {
    for (composed, decomposed) in [
        ("Café Ångström", "Cafe\u{301} A\u{30a}ngstro\u{308}m"),
        ("한국어", "\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}\u{110b}\u{1165}"),
    ] {
        for times in 0..MAX_NESTED {
            for (stored, needle) in [(composed, decomposed), (decomposed, composed), (decomposed, decomposed)]
            {
                assert_eq!(found_in(&[nested(stored, times)], needle), [0], "{needle} encoded {times} times");
            }
        }
    }
}

/// How many times a text may be encoded inside the payload's own JSON.
const MAX_NESTED: usize = 4;

proptest! {
    #[test]
    fn any_piece_of_any_text_is_found(
        text in r#"[a-zA-Z0-9 "\\/nuxé退款\u{0301}\u{110b}\u{1165}😀\n\t]{4,60}"#,
        cut in any::<(prop::sample::Index, prop::sample::Index)>(),
        times in 0..MAX_NESTED,
    ) {
        // A piece that begins or ends within a composed character is no piece of what is shown.
        let characters: Vec<char> = text.nfc().collect();
        let (one, other) = (cut.0.index(characters.len()), cut.1.index(characters.len()));
        let (start, end) = (one.min(other), one.max(other) + 1);
        let is_mark = |at: usize| characters.get(at).is_some_and(|c| matches!(c, '\u{301}' | '\u{110b}' | '\u{1165}'));
        prop_assume!(!is_mark(start) && !is_mark(end) && end - start >= 3);
        let needle: String = characters[start..end].iter().collect();
        prop_assert_eq!(found_in(&[nested(&text, times)], &needle), [0], "{}", nested(&text, times));
    }
}

#[test]
fn facets_narrow_to_their_blocks() {
    let texts: Vec<String> = (0..1000).map(|n| format!("common text {n}")).collect();
    assert_eq!(search(&texts, "text 7", &[("agent", "a70")]), [70, 71, 72, 73, 74, 75, 76, 77, 78, 79]);
    assert_eq!(search(&texts, "", &[("agent", "a0")]).len(), BLOCK_EVENTS);
    assert_eq!(search(&texts, "text", &[("agent", "a0"), ("agent", "a999")]), [] as [i64; 0]);
    assert_eq!(search(&texts, "text", &[("agen", "ta0")]), [] as [i64; 0]);
}

#[test]
fn only_short_needles_without_facets_need_a_scan() {
    let needs_scan = |needle, facets| Query::new(needle, facets).needs_scan();
    assert!(needs_scan("", &[]) && needs_scan("ab", &[]));
    assert!(!needs_scan("abc", &[]) && !needs_scan("ab", &[("a", "b")]) && !needs_scan("天", &[]));
    assert_eq!(Query::new("ab", &[]).candidates(|_| None), u64::MAX);
    assert!(Query::new(&"long needle ".repeat(50), &[]).shards().len() <= 6);
}

#[test]
fn segments_fill_and_start_again() {
    let mut builder = SegmentBuilder::new();
    assert!(builder.is_empty());
    for position in 0..SEGMENT_EVENTS as i64 {
        assert!(!builder.is_full());
        builder.push(position + 100, "some text", &[]);
    }
    assert!(builder.is_full() && builder.len() == SEGMENT_EVENTS);
    let first = builder.finish();
    assert_eq!((first.first_position, first.last_position), (100, 99 + SEGMENT_EVENTS as i64));
    let starts: Vec<i64> = (0..64).map(|block| 100 + block * BLOCK_EVENTS as i64).collect();
    assert_eq!(first.block_starts, starts);
    assert_eq!(candidates(&first, &Query::new("some", &[])), u64::MAX);

    builder.push(7, "other", &[]);
    let second = builder.finish();
    assert_eq!(
        (second.first_position, second.last_position, second.block_starts.as_slice()),
        (7, 7, &[7][..])
    );
    assert_eq!(candidates(&second, &Query::new("other", &[])), 1);
    assert_eq!(candidates(&second, &Query::new("some", &[])), 0);

    let empty = builder.finish();
    assert_eq!((empty.block_starts.len(), empty.shards.len()), (0, 0));
    assert!(block_ranges(&empty.block_starts, empty.last_position, u64::MAX).is_empty());
}

#[test]
fn large_texts_start_blocks_and_fill_segments() {
    let text = digits(1, 100_000);
    let mut builder = SegmentBuilder::new();
    let mut pushed = 0;
    while !builder.is_full() {
        builder.push(pushed, &text, &[]);
        pushed += 1;
    }
    assert_eq!(pushed as usize, SEGMENT_TEXT_BYTES.div_ceil(text.len()));
    let starts: Vec<i64> = (0..pushed).step_by(2).collect();
    assert_eq!(builder.finish().block_starts, starts);
}

#[test]
fn the_last_block_takes_the_rest() {
    let texts: Vec<String> = (0..70_000).step_by(10).map(|n| format!("event {n:05}.")).collect();
    let segment = segment(&texts);
    assert_eq!(segment.block_starts.len(), 64);
    assert_eq!(search(&texts, "event 69990.", &[]), [6999]);
    assert!(is_candidate(&segment, &Query::new("event 69990.", &[]), 6999));
}

#[test]
fn candidate_blocks_join_to_ranges() {
    let starts = [10, 20, 30, 40];
    assert_eq!(block_ranges(&starts, 45, 0b1011), vec![10..30, 40..46]);
    assert_eq!(block_ranges(&starts, 45, u64::MAX), vec![10..46]);
    assert!(block_ranges(&starts, 45, 0b1_0000).is_empty());
}

#[test]
fn random_needles_leave_few_candidates() {
    let texts: Vec<String> =
        (0..4096).map(|n| format!("{{\"id\":\"{}\",\"n\":{n}}}", digits(n, 64))).collect();
    let segment = segment(&texts);
    let mut in_vain = 0;
    for position in (0..4096).step_by(64) {
        let query = Query::new(&texts[position][8..40], &[]);
        in_vain += candidates(&segment, &query).count_ones() - 1;
    }
    assert!(in_vain < 64, "{in_vain} blocks read in vain by 64 needles");
    let absent =
        (0..64).map(|n| candidates(&segment, &Query::new(&digits(n + 1_000_000, 32), &[])).count_ones());
    assert!(absent.sum::<u32>() < 64);
}

#[test]
fn bitmaps_survive_writing_and_reading() {
    let mut sets = vec![u64::MAX, u64::MAX >> 1, 1, 1 << 63, 0b11, 1 | 1 << 63, 0xff, 0x7f, 0x7f << 57];
    sets.extend((0..64).map(|block| 1 << block));
    sets.extend((0..64).map(|block| u64::MAX >> block));
    for blocks in sets {
        let mut bytes = Vec::new();
        bitmap::write(blocks, &mut bytes);
        assert_eq!(bitmap::read(&mut bytes.as_slice()), Some(blocks), "{blocks:b}");
        assert_eq!(bitmap::read(&mut &bytes[..bytes.len() - 1]), None, "{blocks:b}");
    }
}

#[test]
fn damaged_shards_exclude_nothing() {
    let segment = segment(&["the quick brown fox".to_owned()]);
    let query = Query::new("zebra", &[]);
    assert_eq!(candidates(&segment, &query), 0);
    for (_, bytes) in &segment.shards {
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(query.candidates(|_| Some(&damaged)), u64::MAX);
            assert_eq!(query.candidates(|_| Some(&bytes[..at])), u64::MAX);
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]{0,12}",
        2 => "[a-zA-Z0-9{}\":, ]{0,200}",
        2 => prop::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter),
        1 => "[天気晴れ日本\u{0}İẞΣ]{0,9}",
        1 => (any::<u64>(), 0..3000_usize).prop_map(|(seed, length)| digits(seed, length)),
    ]
}

proptest! {
    #[test]
    fn no_part_of_a_text_is_ever_missed(
        texts in prop::collection::vec(text(), 1..300),
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..30_usize), 20),
    ) {
        let lower: Vec<String> = texts.iter().map(|text| folded(&text.replace('\\', ""))).collect();
        let segment = segment(&lower);
        for (which, start, length) in picks {
            let position = which.index(texts.len());
            let text: Vec<char> = texts[position].chars().filter(|&character| character != '\\').collect();
            if text.is_empty() {
                continue;
            }
            let start = start.index(text.len());
            let needle: String = text[start..text.len().min(start + length)].iter().collect();
            for facets in [&[][..], &[("agent", &*format!("a{position}"))]] {
                let query = Query::new(&needle, facets);
                prop_assert!(query.matches(&lower[position]), "{needle:?} in {:?}", lower[position]);
                prop_assert!(is_candidate(&segment, &query, position as i64), "{needle:?}");
            }
        }
    }

    #[test]
    fn arbitrary_shard_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), needle in text()) {
        let _ = Query::new(&needle, &[("a", "b")]).candidates(|_| Some(&bytes));
        let _ = bitmap::read(&mut bytes.as_slice());
        let _ = shard::blocks_unchecked(&bytes, 0..=u32::MAX);
    }

    #[test]
    fn numbers_sort_by_their_bits(mut numbers in prop::collection::vec(any::<u32>(), 0..1000)) {
        let mut expected = numbers.clone();
        expected.sort_unstable();
        radix::sort_bits(&mut numbers, &mut Vec::new(), 0, 32);
        prop_assert_eq!(numbers, expected);
    }
}

#[test]
fn a_segment_covers_what_is_left_of_its_events() {
    let texts: Vec<String> = (0..300).map(|seed| folded(&digits(seed, 40))).collect();
    let whole = segment(&texts);
    let part = |kept: fn(i64) -> bool| {
        let mut builder = SegmentBuilder::new();
        let mut starts = whole.block_starts.iter().copied().peekable();
        for (position, text) in (0..).zip(&texts).filter(|(position, _)| kept(*position)) {
            while let Some(start) = starts.next_if(|start| *start <= position) {
                builder.start_block(start);
            }
            builder.push(position, text, &[("agent", &format!("a{position}"))]);
        }
        starts.for_each(|start| builder.start_block(start));
        builder.finish()
    };
    assert_eq!(part(|_| true), whole);
    for kept in [|position| position % 3 == 0, |position| position > 70, |position| position < 70, |_| false]
    {
        assert!(whole.covers(&part(kept)));
    }
    assert!(!part(|position| position != 17).covers(&whole));
    let mut damaged = whole.clone();
    damaged.shards[3].1[5] ^= 1;
    assert!(!damaged.covers(&whole));
    damaged.shards.remove(3);
    assert!(!damaged.covers(&whole));
}
