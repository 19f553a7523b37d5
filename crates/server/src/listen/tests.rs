use std::convert::Infallible;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use agentlens_fairness::Rule;

use super::*;

/// Short enough to test, long enough for a busy machine.
const SHORT: Timeouts = Timeouts {
    head: Duration::from_millis(300),
    idle: Duration::from_millis(900),
    write: Duration::from_millis(300),
    check_every: Duration::from_millis(20),
};
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    connections: FairShare<ClientNetwork>,
    closing: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

async fn server(max_connections: u64, timeouts: Timeouts) -> Server {
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/large", get(|| async { vec![b'x'; 64 * 1024 * 1024] }))
        .route(
            "/slow",
            get(|| async {
                sleep(SHORT.idle * 2).await;
                "at last"
            }),
        )
        .route(
            "/endless",
            get(|| async { Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>()) }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = FairShare::new(Rule::new(max_connections).with_greed(3));
    let closing = CancellationToken::new();
    let serving = tokio::spawn({
        let (connections, closing) = (connections.clone(), closing.clone());
        async move { serve(listener, router, &connections, timeouts, None, closing).await }
    });
    Server { address, connections, closing, serving }
}

use bytes::Bytes;

/// What comes until the server closes the connection; what was there is lost if it is reset.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    let _ = read.expect("the server keeps the connection");
    String::from_utf8_lossy(&all).into_owned()
}

async fn ask(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    let mut buffer = vec![0; 4096];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let server = server(100, SHORT).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    // Also one that speaks HTTP/2 and asks nothing: it is told to go away, and then closed.
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    rest(&mut silent).await;
    while server.connections.used() > 0 {
        sleep(SHORT.check_every).await;
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_cut_off() {
    let server = server(100, SHORT).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let (mut reader, mut writer) = slow.split();
    let begun = Instant::now();
    let drip = async {
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nx-header: ".iter().chain(std::iter::repeat(&b'x')) {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(SHORT.head / 20).await;
        }
    };
    let closed = async {
        let mut buffer = [0; 100];
        while reader.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    tokio::time::timeout(PATIENCE, async {
        tokio::select! { () = drip => {}, () = closed => {} }
    })
    .await
    .unwrap();
    assert!(begun.elapsed() >= SHORT.head);
}

#[tokio::test]
async fn a_pause_between_requests_and_a_slow_answer_are_fine() {
    let server = server(100, SHORT).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..3 {
        assert!(ask(&mut client, "/").await.ends_with("hello"));
        // Longer than a head may take.
        sleep(SHORT.head + SHORT.check_every * 3).await;
    }
    assert!(ask(&mut client, "/slow").await.ends_with("at last"));
    assert!(ask(&mut client, "/").await.contains("content-length: 5"));
}

#[tokio::test]
async fn a_client_that_takes_no_answer_is_cut_off() {
    let server = server(100, SHORT).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let closed = async {
        while server.connections.used() == 0 {
            sleep(SHORT.check_every).await;
        }
        while server.connections.used() > 0 {
            sleep(SHORT.check_every).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the connection stays");
}

#[tokio::test]
async fn one_address_cannot_hold_all_connections() {
    let server = server(8, Timeouts::default()).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        assert!(ask(&mut client, "/").await.ends_with("hello"));
        held.push(client);
    }
    let mut refused = TcpStream::connect(server.address).await.unwrap();
    let answer = rest(&mut refused).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("Too many connections from this address"), "{answer}");
    let elsewhere = ClientNetwork::of("192.0.2.1".parse().unwrap());
    assert!(server.connections.try_take(&elsewhere, 1).is_ok());
    drop(held);
    while server.connections.used() > 0 {
        sleep(SHORT.check_every).await;
    }
    let mut client = TcpStream::connect(server.address).await.unwrap();
    assert!(ask(&mut client, "/").await.ends_with("hello"));
}

#[tokio::test]
async fn what_is_under_way_is_finished_when_the_server_stops() {
    let server = server(100, SHORT).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    assert!(ask(&mut idle, "/").await.ends_with("hello"));
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    while server.connections.used() < 2 {
        sleep(SHORT.check_every).await;
    }
    sleep(SHORT.check_every).await;
    server.closing.cancel();
    assert_eq!(rest(&mut idle).await, "");
    assert!(rest(&mut busy).await.ends_with("at last"));
    tokio::time::timeout(PATIENCE, server.serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
