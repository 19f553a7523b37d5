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
        .route("/refused", post(|| async { axum::http::StatusCode::UNAUTHORIZED }))
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
        let service = Service { router, timeouts, reading: None, proxies: Arc::default() };
        async move { serve(listener, service, &connections, closing).await }
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

#[tokio::test]
async fn a_large_answer_must_be_taken_at_a_rate() {
    let server = server(100, SHORT).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // Some of it all the time, so the connection never stands still for as long as it may, but far below the rate.
    let mut piece = vec![0; 4096];
    let dripping = async {
        while client.read(&mut piece).await.is_ok_and(|read| read > 0) {
            sleep(SHORT.write / 3).await;
        }
    };
    let closed = async {
        while server.connections.used() == 0 {
            sleep(SHORT.check_every).await;
        }
        while server.connections.used() > 0 {
            sleep(SHORT.check_every).await;
        }
    };
    let closed = std::pin::pin!(closed);
    tokio::time::timeout(PATIENCE, async {
        tokio::select! { () = dripping => {}, () = closed => {} }
    })
    .await
    .expect("the connection stays");
}

#[tokio::test]
async fn a_client_that_is_still_sending_gets_its_refusal() {
    let server = server(100, Timeouts::default()).await;
    for _ in 0..5 {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        let length = 8 * 1024 * 1024;
        let head = format!("POST /refused HTTP/1.1\r\nHost: a\r\ncontent-length: {length}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        // All of it before the answer is looked at, as plain clients do.
        for _ in 0..length / 65536 {
            client.write_all(&[b'x'; 65536]).await.unwrap();
        }
        let mut buffer = vec![0; 4096];
        let read = tokio::time::timeout(PATIENCE, client.read(&mut buffer)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&buffer[..read]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
}

#[tokio::test]
async fn a_large_answer_keeps_its_turn_until_it_is_taken() {
    let org = agentlens_domain::ids::OrgId::parse("acme").unwrap();
    let reads = FairShare::new(Rule::new(10));
    let with_turn = |size: usize| {
        let (reads, org) = (reads.clone(), org.clone());
        get(move |turn: axum::Extension<HeldTurn>| async move {
            turn.keep(reads.try_take(&org, 1).unwrap());
            vec![b'x'; size]
        })
    };
    let router = Router::new().route("/api/small", with_turn(1000)).route("/api/large", with_turn(32 << 20));
    let reading = Some(Arc::new(Reading::start().unwrap()));
    let service = Service { router, timeouts: Timeouts::default(), reading, proxies: Arc::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = FairShare::new(Rule::new(100));
    let serving =
        tokio::spawn(async move { serve(listener, service, &connections, CancellationToken::new()).await });

    let mut client = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut client, "/api/small").await.starts_with("HTTP/1.1 200"));
    assert_eq!(reads.used(), 0);
    assert!(ask(&mut client, "/api/large").await.starts_with("HTTP/1.1 200"));
    assert_eq!(reads.used(), 1);
    let mut rest = vec![0; 1 << 20];
    let taken = async {
        while reads.used() > 0 {
            assert!(client.read(&mut rest).await.unwrap() > 0);
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.unwrap();
    // One that is never taken: its connection's end gives the turn back.
    let mut client = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut client, "/api/large").await.starts_with("HTTP/1.1 200"));
    assert_eq!(reads.used(), 1);
    drop(client);
    let given_back = async {
        while reads.used() > 0 {
            sleep(SHORT.check_every).await;
        }
    };
    tokio::time::timeout(PATIENCE, given_back).await.unwrap();
    serving.abort();
}
