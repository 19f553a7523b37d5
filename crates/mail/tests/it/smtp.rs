//! Mail over a real SMTP server on loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use agentlens_mail::{Cause, Content, MailError, Mailer, Message, SmtpServer};
use serde_json::Value as Json;

use crate::mail_server::MailServer;
use crate::samples::{TOKEN, envelope, every_kind, invitation, public_url, reset};

/// Where a test of its own process finds its server.
const CHILD: &str = "AGENTLENS_TEST_SMTP_URL";

fn mailer(url: &str) -> Mailer {
    let server: SmtpServer = url.parse().unwrap();
    mailer_of(server.with_timeout(Duration::from_secs(20)), "noreply@lens.example")
}

fn mailer_of(server: SmtpServer, sender: &str) -> Mailer {
    Mailer::smtp(public_url(), sender.parse().unwrap(), server).unwrap()
}

fn plain(server: &MailServer) -> Mailer {
    mailer(&format!("smtp://127.0.0.1:{}", server.port))
}

fn header<'m>(mail: &'m Json, name: &str) -> &'m str {
    let headers = mail["headers"].as_array().unwrap();
    let found: Vec<_> = headers.iter().filter(|header| header[0] == name).collect();
    assert_eq!(found.len(), 1, "{name} in {headers:?}");
    found[0][1].as_str().unwrap()
}

/// Whether it is temporary, and the cause.
fn failed(outcome: Result<(), MailError>) -> (bool, Cause) {
    let error = outcome.unwrap_err();
    (matches!(error, MailError::Temporary(_)), error.failure().cause)
}

#[tokio::test]
async fn every_kind_arrives_whole() {
    let server = MailServer::start(&[]);
    let mailer = plain(&server);
    for message in every_kind() {
        mailer.send(&envelope("ann@example.com", message)).await.unwrap();
    }
    let mails = server.mails();
    assert_eq!(mails.len(), every_kind().len());
    for (mail, message) in mails.iter().zip(every_kind()) {
        let Content { subject, text, html } = message.content(&public_url());
        assert_eq!(header(mail, "Subject"), subject);
        assert_eq!(mail["text"], text);
        assert_eq!(mail["html"], html);
        assert_eq!(header(mail, "From"), "AgentLens <noreply@lens.example>");
        assert_eq!(header(mail, "To"), "ann@example.com");
        assert_eq!(header(mail, "Date"), "Sat, 28 Nov 2026 14:05:09 +0000");
        assert_eq!(header(mail, "Message-ID"), "<01KB5M0000000000000000MAIL@lens.example>");
        assert_eq!(header(mail, "Auto-Submitted"), "auto-generated");
        assert_eq!(mail["headers"].as_array().unwrap().len(), 8, "{}", mail["headers"]);
        assert_eq!(
            (&mail["from"], &mail["to"]),
            (&"noreply@lens.example".into(), &["ann@example.com"].into())
        );
        assert_eq!(mail["hello"], "lens.example");
        let raw = mail["raw"].as_str().unwrap();
        assert!(raw.is_ascii());
        assert!(raw.lines().all(|line| line.len() <= 78), "{raw}");
    }
}

#[tokio::test]
async fn a_repetition_is_the_same_mail() {
    let server = MailServer::start(&[]);
    for _ in 0..2 {
        plain(&server).send(&envelope("ann@example.com", invitation("Zoë’s", "Ann"))).await.unwrap();
    }
    let mails = server.mails();
    assert_eq!(mails[0]["raw"], mails[1]["raw"]);
}

#[tokio::test]
async fn names_inject_no_header() {
    let server = MailServer::start(&[]);
    let injections = [
        "Acme\r\nBcc: victim@example.com",
        "Acme\nContent-Type: text/html\n\n<b>x",
        "Acme\r\n.\r\nMAIL FROM:<x@example.com>",
        "=?utf-8?q?Acme=0D=0ABcc:_victim@example.com?=",
        "--=_agentlens_01KB5M0000000000000000MAIL--",
        ".",
        "株式会社\u{2028}エージェント 👩\u{200d}🔬",
    ];
    for name in injections {
        plain(&server).send(&envelope("ann@example.com", invitation(name, name))).await.unwrap();
    }
    let mails = server.mails();
    assert_eq!(mails.len(), injections.len());
    for (mail, name) in mails.iter().zip(injections) {
        let Content { subject, text, html } = invitation(name, name).content(&public_url());
        assert_eq!(mail["text"], text);
        assert_eq!(mail["html"], html);
        assert_eq!(mail["to"], Json::from(["ann@example.com"]));
        assert_eq!(mail["headers"].as_array().unwrap().len(), 8, "{}", mail["headers"]);
        // An encoded word that someone typed is decoded by whoever reads the header; it can't become a line.
        if !name.starts_with("=?") {
            assert_eq!(header(mail, "Subject"), subject);
        }
    }
}

#[tokio::test]
async fn credentials_are_sent_and_wrong_ones_are_told_apart() {
    let server = MailServer::start(&["--login", "ann@lens.example:p/ w\u{e9}"]);
    let send = async |credentials: &str| {
        let mailer = mailer(&format!("smtp://{credentials}127.0.0.1:{}", server.port));
        mailer.send(&envelope("ann@example.com", reset())).await
    };
    send("ann%40lens.example:p%2F%20w%C3%A9@").await.unwrap();
    assert_eq!(server.mails()[0]["user"], "ann@lens.example");
    // Nothing is lost while the password is wrong or missing: the mail can be sent once it is right.
    for wrong in ["ann%40lens.example:secret@", "bob:p%2F%20w%C3%A9@", ""] {
        let outcome = send(wrong).await;
        let shown = format!("{outcome:?} {}", outcome.clone().unwrap_err());
        assert!(!shown.contains("secret") && !shown.contains(TOKEN), "{shown}");
        assert_eq!(failed(outcome), (true, Cause::Credentials), "{wrong}");
    }
    // A server that has no way to sign in.
    let open = MailServer::start(&[]);
    let outcome = mailer(&format!("smtp://ann:secret@127.0.0.1:{}", open.port));
    let outcome = outcome.send(&envelope("ann@example.com", reset())).await;
    assert_eq!(failed(outcome), (true, Cause::Credentials));
    assert_eq!(server.mails().len() + open.mails().len(), 1);
}

#[tokio::test]
async fn refusals_are_temporary_or_permanent() {
    let server = MailServer::start(&[]);
    for (to, is_temporary, cause) in [
        ("reply-450@example.com", true, Cause::Recipient),
        ("reply-452@example.com", true, Cause::Recipient),
        ("reply-550@example.com", false, Cause::Recipient),
        ("reply-553@example.com", false, Cause::Recipient),
        ("reply-530@example.com", true, Cause::Credentials),
        ("content-451@example.com", true, Cause::Content),
        ("content-554@example.com", false, Cause::Content),
    ] {
        let outcome = plain(&server).send(&envelope(to, reset())).await;
        let shown = outcome.clone().unwrap_err().to_string();
        assert!(shown.contains("welcome") || cause == Cause::Credentials, "{shown}");
        assert!(!shown.contains(TOKEN), "{shown}");
        assert_eq!(failed(outcome), (is_temporary, cause), "{to}");
    }
    // Whatever the code, a refused sender is the operator's matter, not this mail's.
    for sender in ["reply-450@lens.example", "reply-550@lens.example"] {
        let server = format!("smtp://127.0.0.1:{}", server.port).parse().unwrap();
        let outcome = mailer_of(server, sender).send(&envelope("ann@example.com", reset())).await;
        assert_eq!(failed(outcome), (true, Cause::Sender), "{sender}");
    }
    assert_eq!(server.mails(), Vec::<Json>::new());
}

#[tokio::test]
async fn no_server_is_temporary() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let outcome =
        mailer(&format!("smtp://127.0.0.1:{port}")).send(&envelope("ann@example.com", reset())).await;
    assert_eq!(failed(outcome), (true, Cause::Connection));
}

#[tokio::test]
async fn a_server_that_takes_no_mail_or_is_none_is_temporary() {
    for greeting in ["554 no mail here\r\n", "421 later\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(greeting.as_bytes()).unwrap();
            // Reads what comes until the other side closes, so that the greeting is not lost in a reset.
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            BufReader::new(stream).lines().map_while(Result::ok).for_each(drop);
        });
        let outcome =
            mailer(&format!("smtp://127.0.0.1:{port}")).send(&envelope("ann@example.com", reset())).await;
        assert_eq!(failed(outcome), (true, Cause::Connection), "{greeting}");
        answering.join().unwrap();
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let server = MailServer::start(&[]);
    let quick: SmtpServer = format!("smtp://127.0.0.1:{}", server.port).parse().unwrap();
    let mailer = mailer_of(quick.with_timeout(Duration::from_millis(500)), "noreply@lens.example");
    let outcome = mailer.send(&envelope("stall@example.com", reset())).await;
    assert_eq!(failed(outcome), (true, Cause::Timeout));
}

#[tokio::test]
async fn encryption_is_demanded() {
    let bare = MailServer::start(&[]);
    let outcome = mailer(&format!("smtp://localhost:{}?tls=required", bare.port));
    let outcome = outcome.send(&envelope("ann@example.com", reset())).await;
    assert_eq!(failed(outcome), (true, Cause::Encryption));
    assert_eq!(bare.mails(), Vec::<Json>::new());
    // The system does not trust the authority of these.
    for (tls, url) in
        [("starttls", "smtp://localhost:PORT?tls=required"), ("always", "smtps://localhost:PORT")]
    {
        let server = MailServer::start(&["--tls", tls]);
        let mailer = mailer(&url.replace("PORT", &server.port.to_string()));
        let outcome = mailer.send(&envelope("ann@example.com", reset())).await;
        assert_eq!(failed(outcome), (true, Cause::Encryption), "{tls}");
        assert_eq!(server.mails(), Vec::<Json>::new());
    }
}

#[test]
fn a_trusted_server_gets_mail_encrypted() {
    for (tls, url) in [
        ("starttls", "smtp://ann:secret@localhost:PORT?tls=required"),
        ("starttls", "smtp://ann:secret@127.0.0.1:PORT?tls=required"),
        ("always", "smtps://ann:secret@localhost:PORT"),
    ] {
        let server = MailServer::start(&["--tls", tls, "--login", "ann:secret"]);
        // What the system trusts is read from the environment, so this needs a process of its own.
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "smtp::sends_in_a_process_of_its_own"])
            .env("SSL_CERT_FILE", server.authority())
            .env(CHILD, url.replace("PORT", &server.port.to_string()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let mails = server.mails();
        assert_eq!(mails.len(), 1, "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!((&mails[0]["encrypted"], &mails[0]["user"]), (&true.into(), &"ann".into()));
    }
}

/// Part of `a_trusted_server_gets_mail_encrypted`, which starts it; alone it has nothing to do.
#[tokio::test]
async fn sends_in_a_process_of_its_own() {
    let Ok(url) = std::env::var(CHILD) else { return };
    mailer(&url).send(&envelope("ann@example.com", Message::AddressTaken)).await.unwrap();
}
