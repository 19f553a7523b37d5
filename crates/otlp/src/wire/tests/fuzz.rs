//! Random and damaged bytes: no decoder panics or hangs, and each reads what a reference parser reads.
//!
//! Runs for `AGENTLENS_FUZZ_SECONDS` (default 3) over a deterministic sequence of cases. A longer run covers more of the
//! sequence, and another `AGENTLENS_FUZZ_SEED` gives another sequence.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use prost::Message;

use super::requests::{log_requests, spellings, trace_requests};
use crate::wire::{Decoded, Encoding, WireError, decode_logs, decode_metrics, decode_traces};

/// Much more than a case of a few kilobytes takes, even on a busy machine.
const MAX_CASE: Duration = Duration::from_secs(20);

#[test]
fn no_bytes_harm_a_decoder() {
    let seconds: f64 = setting("AGENTLENS_FUZZ_SECONDS", 3.0);
    let seed: u64 = setting("AGENTLENS_FUZZ_SEED", 20_260_901);
    let (end, mut runner) = (Instant::now() + Duration::from_secs_f64(seconds), runner(seed));
    let (mut cases, mut readable) = (0_u64, 0_u64);
    while Instant::now() < end {
        let originals = originals(&mut runner);
        for round in 0..16 {
            for original in &originals {
                let bytes = if round == 0 { random(&mut runner) } else { mutated(&mut runner, original) };
                let start = Instant::now();
                readable += u64::from(decode_everyway(&bytes));
                assert!(start.elapsed() < MAX_CASE, "{:?} took {:?}", bytes, start.elapsed());
                cases += 1;
            }
        }
    }
    println!("seed {seed}: {cases} cases in {seconds} s, {readable} readable");
    assert!(readable > 0 && readable < cases * 6);
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    let Ok(text) = std::env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}"))
}

fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn pick<S: Strategy>(runner: &mut TestRunner, strategy: S) -> S::Value {
    strategy.new_tree(runner).unwrap().current()
}

/// A valid request of each signal in each encoding.
fn originals(runner: &mut TestRunner) -> [Vec<u8>; 6] {
    let spelling = pick(runner, spellings());
    let traces = pick(runner, trace_requests());
    let logs = pick(runner, log_requests());
    [
        traces.encode_to_vec(),
        logs.encode_to_vec(),
        b"\x0a\x0b\x12\x09\x12\x03\x0a\x01a\x12\x02\x2a\x00".to_vec(),
        spelling.traces(&traces).into_bytes(),
        spelling.logs(&logs).into_bytes(),
        br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"a"},{"gauge":{}}]}]}]}"#.to_vec(),
    ]
}

fn random(runner: &mut TestRunner) -> Vec<u8> {
    pick(runner, prop::collection::vec(any::<u8>(), 0..200))
}

/// Pieces with a meaning in one of the encodings.
const PIECES: [&[u8]; 24] = [
    b"null",
    b"{}",
    b"[]",
    b"\"\"",
    b"1e400",
    b"-0.0",
    b"\"\\ud800\"",
    b"\\u",
    b"\\",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"[[[[[[[[[[[[[[[[",
    b"\"value\":",
    b"true",
    b"\xff\xfe",
    b"\x0a\xff\xff\xff\xff\x0f",
    b"\x12\x02\x0a\x00",
    b"\x0b\x0b\x0b",
    b"\x00",
];

fn mutated(runner: &mut TestRunner, original: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..pick(runner, 1..5_usize) {
        let at = pick(runner, 0..=bytes.len());
        let until = (at + pick(runner, 0..24_usize)).min(bytes.len());
        match pick(runner, 0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1_u8 << pick(runner, 0..8),
            1 => drop(bytes.drain(at..until)),
            2 => {
                let piece = bytes[at..until].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            3 => bytes.truncate(at),
            4 => drop(bytes.splice(at..until, pick(runner, prop::sample::select(&PIECES[..])).to_vec())),
            5 => drop(bytes.splice(at..at, pick(runner, prop::sample::select(&PIECES[..])).to_vec())),
            _ => drop(bytes.splice(at..until, pick(runner, prop::collection::vec(any::<u8>(), 0..4)))),
        }
    }
    bytes
}

/// Reads the bytes with all six decoders and returns how many accept them.
fn decode_everyway(bytes: &[u8]) -> u8 {
    let traces = decode_traces(Encoding::Protobuf, bytes);
    let logs = decode_logs(Encoding::Protobuf, bytes);
    let metrics = decode_metrics(Encoding::Protobuf, bytes);
    let readable = [traces.is_ok(), logs.is_ok(), metrics.is_ok()];
    agrees_with_prost::<ExportTraceServiceRequest>(bytes, traces);
    agrees_with_prost::<ExportLogsServiceRequest>(bytes, logs);
    if let Ok(expected) = ExportMetricsServiceRequest::decode(bytes) {
        let scopes = expected.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
        let count: usize = scopes.map(|scope| scope.metrics.len()).sum();
        assert_eq!(metrics, Ok(Decoded { request: count, broken: Vec::new(), repaired: 0 }));
    }
    let json = [
        decode_traces(Encoding::Json, bytes).err(),
        decode_logs(Encoding::Json, bytes).err(),
        decode_metrics(Encoding::Json, bytes).err(),
    ];
    if let Ok(serde_json::Value::Object(_)) = serde_json::from_slice(bytes) {
        assert_eq!(json, [const { None }; 3], "{}", String::from_utf8_lossy(bytes));
    }
    let readable = readable.into_iter().chain(json.map(|error| error.is_none()));
    readable.map(u8::from).sum()
}

/// Asserts that a request that prost can read is read in the same way.
fn agrees_with_prost<T: Message + Default>(bytes: &[u8], ours: Result<Decoded<T>, WireError>) {
    if let Ok(expected) = T::decode(bytes) {
        let ours = ours.unwrap();
        assert_eq!((ours.broken, ours.repaired), (Vec::new(), 0));
        assert_eq!(ours.request.encode_to_vec(), expected.encode_to_vec());
    }
}
