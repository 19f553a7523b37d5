//! What one org or client does to the server's memory, connections and metrics, nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::samples::{MEGABYTE, gzip, note};
use crate::world::World;

on_both_engines!(
    connections_that_send_nothing_hold_no_memory,
    a_dense_body_is_refused_before_it_is_read_whole,
    dense_spans_are_refused_before_they_are_decoded,
    invented_methods_share_one_label,
);

async fn connections_that_send_nothing_hold_no_memory(world: World) {
    let (_, other) = world.org("other");
    let address = world.address().strip_prefix("http://").unwrap().to_owned();
    // Together they declare more than twice the memory that there is for bodies.
    let _idle: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            let head = format!(
                "POST /api/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{{",
                other.key(),
                16 * MEGABYTE
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    for number in 0..20 {
        world.send(&[note("s", &number.to_string())]).await;
    }
    other.send(&[note("s", "its own")]).await;
}

async fn a_dense_body_is_refused_before_it_is_read_whole(world: World) {
    let dense = gzip(format!("[{}0]", "0,".repeat(33_000_000)).as_bytes());
    let request = world.request("POST", "/api/events").header("content-encoding", "gzip").body(dense);
    let refusal = world.answer(request).await.refusal(413);
    assert!(refusal["error"].as_str().unwrap().contains("10000 events"), "{refusal}");
}

async fn dense_spans_are_refused_before_they_are_decoded(world: World) {
    let field = |number: u8, bytes: &[u8]| {
        let mut field = vec![number << 3 | 2];
        prost::encode_length_delimiter(bytes.len(), &mut field).unwrap();
        field.extend_from_slice(bytes);
        field
    };
    let span = field(2, &b"\x4a\x00".repeat(1_990_000));
    let dense = gzip(&field(1, &field(2, &span)));
    assert!(dense.len() < MEGABYTE / 10);
    let request = world
        .request("POST", "/v1/traces")
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "gzip")
        .body(dense);
    let answer = world.answer(request).await;
    assert_eq!(answer.status, 413);
    assert!(answer.text.contains("500000 attributes"), "{}", answer.text);
}

async fn invented_methods_share_one_label(world: World) {
    let address = world.address().strip_prefix("http://").unwrap().to_owned();
    for number in 0..20 {
        let mut stream = TcpStream::connect(&address).unwrap();
        let method = format!("M{number}{}", "Z".repeat(20_000));
        let head = format!("{method} /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
    let metrics = world.get("/metrics").await.text;
    assert!(metrics.contains(r#"method="other",route="unmatched",status="404"} 20"#), "{metrics}");
    assert!(!metrics.contains("ZZZ") && !world.log().contains(&"Z".repeat(100)));
}
