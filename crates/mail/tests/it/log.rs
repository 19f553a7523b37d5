//! Mail without a mail server.

use std::io::Write;
use std::sync::{Arc, Mutex};

use agentlens_mail::{Mailer, Message};
use tracing_subscriber::fmt::MakeWriter;

use crate::samples::{envelope, invitation, public_url, reset};

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Written {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

async fn logged(message: Message) -> String {
    let written = Written::default();
    let subscriber =
        tracing_subscriber::fmt().with_writer(written.clone()).without_time().with_ansi(false).finish();
    let mailer = Mailer::log(public_url());
    assert!(mailer.is_log());
    let _guard = tracing::subscriber::set_default(subscriber);
    mailer.send(&envelope("ann@example.com", message)).await.unwrap();
    let bytes = written.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_link_is_one_line_that_can_be_copied() {
    assert_eq!(
        logged(reset()).await,
        " INFO agentlens::mail: Mail to ann@example.com, not sent because there is no mail server: \
         Choose a new password: https://lens.example/reset#q7wYz-4Tn_0pLr\n"
    );
}

#[tokio::test]
async fn mail_without_a_link_is_mentioned() {
    assert_eq!(
        logged(Message::AddressTaken).await,
        " INFO agentlens::mail: Mail to ann@example.com, not sent because there is no mail server: \
         You already have an account\n"
    );
}

#[tokio::test]
async fn names_forge_no_line() {
    let line = logged(invitation("Acme\n INFO agentlens::mail: forged", "\u{1b}[2J")).await;
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    assert!(!line.contains('\u{1b}'), "{line}");
}
