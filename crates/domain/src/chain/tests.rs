use super::*;
use crate::json::canonicalize;
use crate::keys::ServerSecret;

const SESSION: Record<'_> = Record {
    id: "01HZX3V9K2ABCDEFGHJKMNPQRS",
    timestamp: "2026-01-02T03:04:05.678Z",
    session_id: "sess-1",
    agent_id: "agent-1",
    event_type: "tool_call",
    severity: "info",
    payload: "{}",
    metadata: "{}",
    prev_hash: None,
};

const FIRST: &str = "87bff11cb6b7b38c860d1de37f3d19ca8d6966f45f9d0c4f50b5d94189022940";
const SECOND: &str = "467ef1315406044f86456a8c1294398fd5e34e9b2d2cc083f1161171e5923a29";
const THIRD: &str = "1eaf17ccc9e8b59c83067a95f59b82f9f386c1ab5101fc5a411dd0942cd4b1b2";

fn canonical(text: &str) -> String {
    canonicalize(text).unwrap().text
}

fn parse(text: &str) -> Hash {
    text.parse().unwrap()
}

fn link(seq: i64, prev_hash: Option<Hash>, hash: Hash) -> Link {
    Link { seq, prev_hash, hash, recomputed: hash }
}

#[test]
fn first_published_vector_holds() {
    let payload = canonical(
        "{\"toolName\":\"search\",\"callId\":\"c-1\",\"arguments\":{\"q\":\"héllo \\\"w\\\"\\n/\u{2028} 😀\",\
         \"n\":1.0,\"big\":1e21,\"small\":1e-7,\"z\":-0.0,\"arr\":[1,2.50]}}",
    );
    assert!(payload.contains(r#""n":1,"big":1e+21,"small":1e-7,"z":0,"arr":[1,2.5]"#), "{payload}");
    assert_eq!(hash(&Record { payload: &payload, ..SESSION }).to_string(), FIRST);
}

#[test]
fn second_published_vector_holds() {
    let record = Record {
        id: "01HZX3V9K2ABCDEFGHJKMNPQRT",
        timestamp: "2026-01-02T03:04:06.000Z",
        event_type: "tool_response",
        payload: r#"{"callId":"c-1","toolName":"search","result":null,"durationMs":12.5}"#,
        metadata: r#"{"source":"test","b":true}"#,
        prev_hash: Some(&parse(FIRST)),
        ..SESSION
    };
    assert_eq!(hash(&record).to_string(), SECOND);
}

#[test]
fn third_published_vector_holds() {
    let payload = canonical(r#"{"type":"x","data":{"10":"a","2":"b","k":1}}"#);
    assert_eq!(payload, r#"{"type":"x","data":{"2":"b","10":"a","k":1}}"#);
    let record = Record {
        id: "01HZX3V9K2ABCDEFGHJKMNPQRV",
        event_type: "custom",
        payload: &payload,
        prev_hash: Some(&parse(SECOND)),
        ..SESSION
    };
    assert_eq!(hash(&record).to_string(), THIRD);
}

#[test]
fn ids_are_hashed_as_json_strings() {
    let mut printed = String::new();
    crate::json::write_string("s\"\\\u{1}\n é", &mut printed);
    let text = format!(
        "{{\"v\":2,\"id\":\"{}\",\"timestamp\":\"{}\",\"sessionId\":{printed},\"agentId\":\"agent-1\",\
         \"eventType\":\"tool_call\",\"severity\":\"info\",\"payload\":{{}},\"metadata\":{{}},\"prevHash\":null}}",
        SESSION.id, SESSION.timestamp
    );
    let expected: [u8; 32] = Sha256::digest(text).into();
    assert_eq!(hash(&Record { session_id: "s\"\\\u{1}\n é", ..SESSION }), Hash::from(expected));
}

#[test]
fn hashes_are_printed_and_parsed_as_lower_case_hex() {
    assert_eq!(parse(FIRST).to_string(), FIRST);
    assert_eq!(Hash::from_slice(parse(FIRST).as_bytes()), Some(parse(FIRST)));
    assert_eq!(Hash::from_slice(&[0; 31]), None);
    for wrong in ["", "87", &FIRST.to_uppercase(), &format!("{FIRST}00"), &FIRST.replace('8', "g")] {
        assert_eq!(wrong.parse::<Hash>(), Err(HashParseError), "{wrong}");
    }
}

/// A chain of links, each with its seal over the columns.
fn sealed(key: &SealKey, links: &[Link]) -> Vec<(Link, Seal)> {
    let mut previous = NO_SEAL;
    let seals = links.iter().map(|link| {
        previous = key.seal_event(&previous, &link.hash, b"columns");
        (*link, previous)
    });
    seals.collect()
}

fn key() -> SealKey {
    SealKey::of(&ServerSecret::generate())
}

#[test]
fn unbroken_chain_holds() {
    let (key, first, second) = (key(), parse(FIRST), parse(SECOND));
    let chain = sealed(&key, &[link(1, None, first), link(2, Some(first), second)]);
    let mut verifier = Verifier::new();
    assert_eq!(verifier.head(), None);
    for (link, seal) in &chain {
        assert_eq!(verifier.push(link, &key, seal, b"columns"), Ok(()));
    }
    assert_eq!(verifier.head(), Some((2, second)));
    let (last, seal) = &chain[1];
    let mut later = Verifier::starting_after(1, first, chain[0].1);
    assert_eq!(later.push(last, &key, seal, b"columns"), Ok(()));
}

#[test]
fn breaks_are_reported_in_the_published_words() {
    let (key, first, second) = (key(), parse(FIRST), parse(SECOND));
    let reported = |mut verifier: Verifier, link: Link| {
        verifier.push(&link, &key, &NO_SEAL, b"columns").unwrap_err().to_string()
    };
    let after_first = || Verifier::starting_after(1, first, NO_SEAL);

    assert_eq!(
        reported(Verifier::new(), link(1, None, first)),
        "Event 0 seal does not match its stored columns (seq 1)"
    );
    assert_eq!(
        reported(Verifier::new(), link(1, Some(first), second)),
        "First event must have prevHash = null"
    );
    assert_eq!(
        reported(after_first(), Link { recomputed: first, ..link(2, Some(first), second) }),
        format!("Event 1 hash mismatch: expected {FIRST}, got {SECOND} (seq 2)")
    );
    for wrong in [None, Some(second)] {
        assert_eq!(
            reported(after_first(), link(2, wrong, second)),
            "Event 1 prevHash does not match previous event's hash (seq 2)"
        );
    }
}

#[test]
fn gaps_repetitions_and_a_missing_start_are_breaks() {
    let (key, first) = (key(), parse(FIRST));
    for (seq, got) in [(0, 2), (5, 5), (5, 7), (5, -1)] {
        let mut verifier =
            if seq == 0 { Verifier::new() } else { Verifier::starting_after(seq, first, NO_SEAL) };
        let expected = Break::SequenceGap { index: seq, expected: seq + 1, got };
        assert_eq!(verifier.push(&link(got, None, first), &key, &NO_SEAL, b""), Err(expected));
    }
}

#[test]
fn changed_columns_and_a_foreign_key_break_the_seal() {
    let (key, first, second) = (key(), parse(FIRST), parse(SECOND));
    let chain = sealed(&key, &[link(1, None, first), link(2, Some(first), second)]);
    let pushed = |key: &SealKey, covered: &[u8]| Verifier::new().push(&chain[0].0, key, &chain[0].1, covered);
    assert_eq!(pushed(&key, b"columns"), Ok(()));
    assert_eq!(pushed(&key, b"Columns"), Err(Break::SealMismatch { index: 0 }));
    assert_eq!(pushed(&self::key(), b"columns"), Err(Break::SealMismatch { index: 0 }));
    // A seal that was right in another place is wrong here: it continues the one before it.
    let alone = key.seal_event(&NO_SEAL, &second, b"columns");
    let mut verifier = Verifier::starting_after(1, first, chain[0].1);
    assert_eq!(verifier.push(&chain[1].0, &key, &alone, b"columns"), Err(Break::SealMismatch { index: 1 }));
}
