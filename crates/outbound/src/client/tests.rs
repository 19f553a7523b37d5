use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const SMALL: Bounds = Bounds {
    timeout: Duration::from_millis(500),
    connect_timeout: Duration::from_millis(500),
    max_request_bytes: 100,
    max_header_bytes: 1_000,
    max_response_bytes: 1_000,
};

/// A server on this machine that gives every request the same bytes, a piece at a time, and tells what it was asked.
async fn server(
    pieces: Vec<Vec<u8>>,
    pause: Duration,
) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, questions) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (pieces, asked) = (pieces.clone(), asked.clone());
            tokio::spawn(async move {
                let mut buffer = vec![0; 4096];
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                let _ = asked.send(String::from_utf8_lossy(&buffer[..read]).into_owned());
                for piece in pieces {
                    if stream.write_all(&piece).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(pause).await;
                }
            });
        }
    });
    (address, questions)
}

async fn answering(answer: &str) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    server(vec![answer.as_bytes().to_vec()], Duration::ZERO).await
}

fn outbound(entries: &[&str]) -> Outbound {
    let allowed = AllowList::new(entries.iter().map(|entry| entry.parse().unwrap()).collect());
    Outbound::new(allowed, SMALL).unwrap()
}

fn get(url: &str) -> Request {
    Request { method: Method::GET, url: url.parse().unwrap(), headers: HeaderMap::new(), body: Bytes::new() }
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: b\r\n\r\nhello";

#[tokio::test]
async fn an_allowed_address_is_asked() {
    let (address, mut questions) = answering(HELLO).await;
    for (entry, host) in
        [("127.0.0.0/8", "127.0.0.1"), ("127.0.0.1", "2130706433"), ("localhost", "localhost")]
    {
        let url = format!("http://{host}:{}/hook?x=1", address.port());
        let mut request = get(&url);
        request.method = Method::POST;
        request.headers.insert("x-signature", "abc".parse().unwrap());
        request.body = Bytes::from_static(b"{}");
        let answer = outbound(&[entry]).send(request).await.unwrap();
        assert_eq!((answer.status.as_u16(), &*answer.body), (200, b"hello".as_slice()));
        assert_eq!(answer.headers["x-a"], "b");
        let asked = questions.recv().await.unwrap();
        assert!(asked.starts_with("POST /hook?x=1 HTTP/1.1\r\n") && asked.ends_with("\r\n\r\n{}"), "{asked}");
        assert!(asked.contains("x-signature: abc") && asked.contains("user-agent: AgentLens/"), "{asked}");
    }
}

#[tokio::test]
async fn nothing_is_sent_to_what_is_not_allowed() {
    let (address, mut questions) = answering(HELLO).await;
    let port = address.port();
    let strict = outbound(&[]);
    for host in ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "localhost"] {
        let result = strict.send(get(&format!("https://{host}:{port}/"))).await;
        assert!(matches!(result, Err(OutboundError::NotPublic(_))), "{host}: {result:?}");
    }
    // Allowed by name, and resolved to something else: `localhost` is listed here, its address by another name is not.
    let result = outbound(&["localhost"]).send(get(&format!("http://127.0.0.1:{port}/"))).await;
    assert_eq!(result.unwrap_err(), OutboundError::NotHttps);
    let result = strict.send(get(&format!("http://localhost:{port}/"))).await;
    assert_eq!(result.unwrap_err(), OutboundError::NotHttps);
    let unknown = strict.send(get("https://no-such-host.invalid/")).await;
    assert_eq!(unknown.unwrap_err(), OutboundError::UnknownHost("no-such-host.invalid".to_owned()));
    assert!(questions.try_recv().is_err(), "the server was asked");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (target, mut questions) = answering(HELLO).await;
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{}/secret\r\ncontent-length: 0\r\n\r\n",
        target.port()
    );
    let (address, _) = answering(&redirect).await;
    let answer = outbound(&["127.0.0.1"]).send(get(&format!("http://{address}/"))).await.unwrap();
    assert_eq!(answer.status.as_u16(), 302);
    assert!(questions.try_recv().is_err(), "the redirect was followed");
}

#[tokio::test]
async fn what_comes_and_goes_is_bounded() {
    let client = outbound(&["127.0.0.1"]);
    let large = "x".repeat(1_001);
    let declared = format!("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n{large}");
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{large}\r\n0\r\n\r\n");
    let until_closed = format!("HTTP/1.1 200 OK\r\n\r\n{large}");
    for answer in [declared, chunked, until_closed] {
        let (address, _) = answering(&answer).await;
        let result = client.send(get(&format!("http://{address}/"))).await;
        assert_eq!(result.unwrap_err(), OutboundError::ResponseTooLarge(1_000));
    }
    let (address, _) =
        answering(&format!("HTTP/1.1 200 OK\r\nx-a: {large}\r\ncontent-length: 0\r\n\r\n")).await;
    let result = client.send(get(&format!("http://{address}/"))).await;
    assert_eq!(result.unwrap_err(), OutboundError::HeadersTooLarge(1_000));
    let mut request = get(&format!("http://{address}/"));
    request.body = Bytes::from(vec![0; 101]);
    assert_eq!(client.send(request).await.unwrap_err(), OutboundError::RequestTooLarge(100));
    for name in FORBIDDEN_HEADERS {
        let mut request = get(&format!("http://{address}/"));
        request.headers.insert(&name, "x".parse().unwrap());
        assert_eq!(client.send(request).await.unwrap_err(), OutboundError::ForbiddenHeader(name.to_string()));
    }
}

#[tokio::test]
async fn an_answer_that_never_ends_is_given_up() {
    let client = outbound(&["127.0.0.1"]);
    let endless = |head: &str| {
        let drops = std::iter::repeat_n(b"x".to_vec(), 500);
        std::iter::once(head.as_bytes().to_vec()).chain(drops).collect::<Vec<_>>()
    };
    for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nx-a: ", ""] {
        let (address, _) = server(endless(head), Duration::from_millis(20)).await;
        let result = client.send(get(&format!("http://{address}/"))).await;
        match (head, result.unwrap_err()) {
            ("", OutboundError::Failed(_)) | (_, OutboundError::TimedOut(_)) => {}
            (head, error) => panic!("{head:?}: {error}"),
        }
    }
    let (address, _) = answering("no http").await;
    let result = client.send(get(&format!("http://{address}/"))).await;
    assert!(matches!(result, Err(OutboundError::Failed(_))), "{result:?}");
}

#[tokio::test]
async fn an_address_is_checked_when_it_is_stored() {
    let client = outbound(&[]);
    assert_eq!(
        client.parse_url(" https://hooks.example.com/a?b#c ").unwrap().host_str(),
        Some("hooks.example.com")
    );
    for text in ["", "x", "https://", "https://exa mple.com", "https://[::1", "https://1.2.3.4.5/", "/path"] {
        assert!(matches!(client.parse_url(text), Err(OutboundError::InvalidUrl(_))), "{text}");
    }
    let long = format!("https://example.com/{}", "x".repeat(MAX_URL_BYTES));
    assert!(matches!(client.parse_url(&long), Err(OutboundError::InvalidUrl(_))));
    assert_eq!(
        client.parse_url("https://10.0.0.1/").unwrap_err(),
        OutboundError::NotPublic("10.0.0.1".to_owned())
    );
}
