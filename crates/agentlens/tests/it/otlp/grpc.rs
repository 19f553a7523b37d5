//! OTLP over gRPC: calls over HTTP/2 with prior knowledge, on the same address as everything else.

use bytes::Bytes;
use data_encoding::{BASE64, BASE64_NOPAD};
use http_body_util::{BodyExt, Full};
use hyper::HeaderMap;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

use super::client::{SIGNALS, Status, events, good, partial, span, take_room, traces, zstd};
use crate::samples::{MEGABYTE, gzip};
use crate::world::{Api, World};

on_both_engines!(
    calls_of_every_signal_succeed,
    messages_may_be_compressed,
    a_bad_span_is_a_partial_success,
    credentials_are_metadata,
    broken_calls_are_refused_for_good,
    messages_beyond_the_limits_are_refused_without_a_time_to_retry,
    what_is_no_call_is_told_over_http,
    many_calls_share_a_connection,
    a_full_server_says_when_to_come_back,
);

fn method(signal: &str) -> String {
    let service = match signal {
        "traces" => "trace.v1.TraceService",
        "logs" => "logs.v1.LogsService",
        _ => "metrics.v1.MetricsService",
    };
    format!("/opentelemetry.proto.collector.{service}/Export")
}

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

/// What a call was answered.
#[derive(Debug)]
struct Called {
    http_status: u16,
    headers: HeaderMap,
    /// The trailers, or the headers where there are none.
    trailers: HeaderMap,
    body: Bytes,
}

impl Called {
    #[track_caller]
    fn status(&self) -> i32 {
        assert_eq!(self.http_status, 200);
        assert_eq!(self.headers["content-type"], "application/grpc");
        self.trailers["grpc-status"].to_str().unwrap().parse().unwrap()
    }

    /// The partial success of a call that succeeded.
    #[track_caller]
    fn partial(&self, signal: &str) -> Option<(i64, String)> {
        assert_eq!(self.status(), 0, "{self:?}");
        assert!(!self.headers.contains_key("grpc-status"), "the status stands behind the message");
        assert_eq!(self.body[0], 0);
        let length = usize::try_from(u32::from_be_bytes(self.body[1..5].try_into().unwrap())).unwrap();
        assert_eq!(length, self.body.len() - 5);
        partial(signal, &self.body[5..])
    }

    /// The message of a call that failed with the given code.
    #[track_caller]
    fn fault(&self, case: &str, code: i32) -> String {
        assert_eq!(self.status(), code, "{case}: {self:?}");
        assert!(self.body.is_empty(), "{case}");
        let message = self.trailers["grpc-message"].to_str().unwrap().to_owned();
        assert!(!message.is_empty(), "{case}");
        assert_eq!(self.trailers.contains_key("grpc-status-details-bin"), code == 14, "{case}");
        message
    }
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn connect(address: &str) -> Sender {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn call_on(sender: &mut Sender, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Called {
    let mut request = hyper::Request::post(format!("http://x{path}")).header("te", "trailers");
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let (http_status, headers) = (response.status().as_u16(), response.headers().clone());
    let collected = response.into_body().collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_else(|| headers.clone());
    Called { http_status, headers, trailers, body: collected.to_bytes() }
}

/// A call in which the given headers replace the right ones; an empty value leaves one out.
async fn call(world: &Api, signal: &str, changes: &[(&str, &str)], body: Vec<u8>) -> Called {
    let authorization = format!("Bearer {}", world.key());
    let mut headers = vec![("content-type", "application/grpc"), ("authorization", &*authorization)];
    headers.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    headers.extend(changes);
    let mut sender = connect(world.address().strip_prefix("http://").unwrap()).await;
    call_on(&mut sender, &method(signal), &headers, body).await
}

async fn calls_of_every_signal_succeed(world: World) {
    for signal in SIGNALS {
        for content_type in ["application/grpc", "application/grpc+proto", "Application/GRPC; x=y"] {
            let called =
                call(&world, signal, &[("content-type", content_type)], frame(0, &good(signal))).await;
            assert_eq!(called.partial(signal), None, "{signal} {content_type}");
        }
        assert_eq!(call(&world, signal, &[], frame(0, b"")).await.partial(signal), None, "an empty request");
    }
    let trace = rand::random();
    let body = frame(0, &traces(vec![span(trace, 1), span(trace, 2)]));
    assert_eq!(call(&world, "traces", &[], body).await.partial("traces"), None);
    assert_eq!(events(&world, trace).await.len(), 2);
}

async fn messages_may_be_compressed(world: World) {
    type Compress = fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, u8, Compress); 7] = [
        ("gzip", 1, gzip),
        ("GZIP", 1, gzip),
        ("zstd", 1, zstd),
        // What compresses badly is sent as it is.
        ("gzip", 0, <[u8]>::to_vec),
        ("zstd", 0, <[u8]>::to_vec),
        ("identity", 0, <[u8]>::to_vec),
        ("", 0, <[u8]>::to_vec),
    ];
    for (encoding, flag, compress) in cases {
        let trace = rand::random();
        let message = compress(&traces((1..=200).map(|number| span(trace, number)).collect()));
        let called = call(&world, "traces", &[("grpc-encoding", encoding)], frame(flag, &message)).await;
        assert_eq!(called.partial("traces"), None, "{encoding} {flag}");
        assert_eq!(events(&world, trace).await.len(), 200, "{encoding} {flag}");
    }
}

async fn a_bad_span_is_a_partial_success(world: World) {
    let trace = rand::random();
    let mut bad = span(trace, 2);
    bad.span_id.clear();
    let body = frame(0, &traces(vec![span(trace, 1), bad]));
    let (rejected, message) = call(&world, "traces", &[], body).await.partial("traces").unwrap();
    assert_eq!(rejected, 1);
    assert!(message.contains("spanId"), "{message}");
    assert_eq!(events(&world, trace).await.len(), 1);
}

async fn credentials_are_metadata(world: World) {
    let key = world.key().to_owned();
    let unknown = world.run_json(&["key", "generate"])["api_key"].as_str().unwrap().to_owned();
    let reader = world.make_key(&["--scope", "events:read"]).key().to_owned();
    let basic = format!("Basic {}", BASE64.encode(format!("user:{key}").as_bytes()));
    for (name, value, code) in [
        ("authorization", format!("Bearer {key}"), 0),
        ("x-api-key", key.clone(), 0),
        ("authorization", basic, 0),
        ("authorization", String::new(), 16),
        ("authorization", format!("Bearer {unknown}"), 16),
        ("authorization", key, 16),
        ("x-api-key", unknown, 16),
        ("authorization", format!("Bearer {reader}"), 7),
    ] {
        let changes = [("authorization", ""), (name, &*value)];
        let called = call(&world, "traces", &changes, frame(0, &good("traces"))).await;
        if code == 0 {
            assert_eq!(called.partial("traces"), None, "{name} {value}");
        } else {
            called.fault(&value, code);
        }
    }
}

async fn broken_calls_are_refused_for_good(world: World) {
    let good = good("traces");
    let whole = frame(0, &good);
    let two = [frame(0, &good), frame(0, &good)].concat();
    let cases: [(&str, &str, Vec<u8>, i32); 14] = [
        ("no message", "", Vec::new(), 3),
        ("half a prefix", "", vec![0, 0, 0], 3),
        ("a prefix without its message", "", whole[..5].to_vec(), 3),
        ("a message cut off", "", whole[..whole.len() - 1].to_vec(), 3),
        ("two messages", "", two, 3),
        ("bytes behind the message", "", [whole.clone(), vec![1]].concat(), 3),
        ("an unknown flag", "", frame(2, &good), 3),
        ("compressed without saying how", "", frame(1, &gzip(&good)), 3),
        ("compressed as identity", "identity", frame(1, &gzip(&good)), 3),
        ("an unknown compression", "snappy", frame(1, &good), 12),
        ("no gzip", "gzip", frame(1, &good), 3),
        ("gzip cut off", "gzip", frame(1, &gzip(&good)[..20]), 3),
        ("no protobuf", "", frame(0, b"\xff\xff\xff"), 3),
        ("JSON", "", frame(0, b"{\"resourceSpans\":[]}"), 3),
    ];
    for (case, encoding, body, code) in cases {
        let called = call(&world, "traces", &[("grpc-encoding", encoding)], body).await;
        called.fault(case, code);
        assert_eq!(called.headers["grpc-accept-encoding"], "identity,gzip,zstd", "{case}");
    }
    world.settled().await;
    assert_eq!(world.read("/api/events").await["total"], 0);
}

async fn messages_beyond_the_limits_are_refused_without_a_time_to_retry(world: World) {
    let bomb = vec![0; 65 * MEGABYTE];
    let cases = [
        ("", frame(0, &vec![0; 16 * MEGABYTE])),
        ("gzip", frame(1, &gzip(&bomb))),
        ("zstd", frame(1, &zstd(&bomb))),
    ];
    for (encoding, body) in cases {
        let message = call(&world, "traces", &[("grpc-encoding", encoding)], body).await.fault(encoding, 8);
        assert!(message.contains("bytes"), "{message}");
    }
}

async fn what_is_no_call_is_told_over_http(world: World) {
    for content_type in
        ["", "application/json", "application/x-protobuf", "application/grpc+json", "application/grpc-web"]
    {
        let called = call(&world, "traces", &[("content-type", content_type)], frame(0, b"")).await;
        assert_eq!(called.http_status, 415, "{content_type}");
    }
    let mut sender = connect(world.address().strip_prefix("http://").unwrap()).await;
    let unknown = "/opentelemetry.proto.collector.trace.v1.TraceService/Import";
    assert_eq!(call_on(&mut sender, unknown, &[], Vec::new()).await.http_status, 404);
    let answer = world.get(&method("traces")).await;
    assert_eq!(answer.status, 405);
}

async fn many_calls_share_a_connection(world: World) {
    let trace = rand::random();
    let authorization = format!("Bearer {}", world.key());
    let sender = connect(world.address().strip_prefix("http://").unwrap()).await;
    let calls: Vec<_> = (1..=50)
        .map(|number| {
            let (mut sender, authorization) = (sender.clone(), authorization.clone());
            tokio::spawn(async move {
                let headers = [("content-type", "application/grpc"), ("authorization", &*authorization)];
                let body = frame(0, &traces(vec![span(trace, number)]));
                call_on(&mut sender, &method("traces"), &headers, body).await.partial("traces")
            })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), None);
    }
    assert_eq!(events(&world, trace).await.len(), 50);
}

async fn a_full_server_says_when_to_come_back(world: World) {
    let held = take_room(&world).await;
    let unfolds = frame(1, &gzip(&vec![0; 4 * MEGABYTE]));
    let called = call(&world, "traces", &[("grpc-encoding", "gzip")], unfolds).await;
    called.fault("full", 14);
    assert_eq!(retry_after_s(&called), 1);
    drop(held);
}

/// When to retry is in the details of the status.
fn retry_after_s(called: &Called) -> u8 {
    let details = called.trailers["grpc-status-details-bin"].as_bytes();
    let status = Status::decode(&*BASE64_NOPAD.decode(details).unwrap()).unwrap();
    let detail = status.details[0].clone();
    let name = b"type.googleapis.com/google.rpc.RetryInfo";
    assert!(detail.windows(name.len()).any(|window| window == name));
    // The last byte of all is the number of seconds.
    detail[detail.len() - 1]
}

#[test]
fn a_further_address_serves_the_same() {
    crate::world::run_embedded(|mut world| async move {
        world.stop_gracefully().await;
        world.start_server_with(&["--otlp-listen", "127.0.0.1:0", "--log-format", "json"]).await;
        let log = world.log();
        let line = log.lines().find(|line| line.contains("listening for OTLP too")).unwrap();
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let address = line["address"].as_str().unwrap();
        let authorization = format!("Bearer {}", world.key());
        let headers = [("content-type", "application/grpc"), ("authorization", &*authorization)];
        let mut sender = connect(address).await;
        let called = call_on(&mut sender, &method("traces"), &headers, frame(0, &good("traces"))).await;
        assert_eq!(called.partial("traces"), None);
        let health = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .get(format!("http://{address}/api/health"));
        assert_eq!(health.send().await.unwrap().status(), 200);
        drop(sender);
        world.stop_gracefully().await;
    });
}
