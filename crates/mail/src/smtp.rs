//! An SMTP server: its address, and the delivery of one mail to it.
//!
//! Each mail has a connection of its own. Mail is rare here, and a connection that is kept would have to be thrown away whenever a send
//! is cancelled.
//!
//! A refusal is permanent only if it is about this recipient or this mail. When the server refuses the connection, the password or the
//! sender, whatever its code, that is about the configuration: the mail waits until an operator has put it right.

use std::error::Error as _;
use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use percent_encoding::percent_decode_str;
use tokio::time::timeout;
use url::Url;

use crate::envelope::{Envelope, Sender};
use crate::error::{Cause, Failure, MailError};
use crate::links::PublicUrl;

/// The port for `smtp://`.
const SUBMISSION_PORT: u16 = 587;
/// The port for `smtps://`.
const SUBMISSIONS_PORT: u16 = 465;
/// Time for a TCP connection to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a whole mail, from the name of the server to its last answer. Servers that look for viruses take long to answer, and a mail
/// that is given up too early arrives twice.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a goodbye. The mail is sent by then.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a file with a password.
const MAX_PASSWORD_BYTES: u64 = 4_096;

/// Where mail is handed to. `Debug` doesn't show the password.
///
/// | address | connection | port |
/// |---|---|---|
/// | `smtps://user:password@mail.example` | encrypted from the start; the safest | 465 |
/// | `smtp://user:password@mail.example` | encrypted by STARTTLS before anything is sent; plain if the host is this machine | 587 |
/// | `smtp://mail.example?tls=required` | encrypted by STARTTLS, also on this machine | 587 |
/// | `smtp://mail.example?tls=none` | never encrypted | 587 |
///
/// User and password are percent-encoded, as in every address.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpServer {
    host: String,
    port: u16,
    encryption: Encryption,
    user: Option<String>,
    password: Option<String>,
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    None,
    StartTls,
    FromTheStart,
}

/// Why an address is not one of an SMTP server. It never repeats the address, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSmtpServer {
    /// It can't be read at all.
    #[error(
        "the mail server must be an address such as smtps://user:password@mail.example or smtp://localhost:25"
    )]
    Address,
    /// Something after the host.
    #[error(
        "the address of the mail server must end with the host or the port, or with ?tls=required or ?tls=none after smtp://"
    )]
    Parameter,
    /// One without the other.
    #[error("the mail server has a password but no user, or a user but no password")]
    HalfCredentials,
    /// The file with the password.
    #[error("the file with the password of the mail server {0}")]
    PasswordFile(String),
    /// The system's certificates.
    #[error("the mail server can't be reached encrypted: {0}")]
    Certificates(String),
}

impl FromStr for SmtpServer {
    type Err = InvalidSmtpServer;

    fn from_str(text: &str) -> Result<Self, InvalidSmtpServer> {
        let url = Url::parse(text.trim()).map_err(|_| InvalidSmtpServer::Address)?;
        let host = url.host_str().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_plain =
            |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || !host.bytes().all(is_plain) {
            return Err(InvalidSmtpServer::Address);
        }
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(InvalidSmtpServer::Parameter);
        }
        let encryption = match (url.scheme(), url.query()) {
            ("smtps", None) => Encryption::FromTheStart,
            ("smtp", None) if is_this_machine(host) => Encryption::None,
            ("smtp", None | Some("tls=required")) => Encryption::StartTls,
            ("smtp", Some("tls=none")) => Encryption::None,
            ("smtp" | "smtps", Some(_)) => return Err(InvalidSmtpServer::Parameter),
            _ => return Err(InvalidSmtpServer::Address),
        };
        let port = match encryption {
            Encryption::FromTheStart => SUBMISSIONS_PORT,
            Encryption::StartTls | Encryption::None => SUBMISSION_PORT,
        };
        Ok(Self {
            host: host.to_owned(),
            port: url.port().unwrap_or(port),
            encryption,
            user: Some(decode(url.username())?).filter(|user| !user.is_empty()),
            password: url.password().map(decode).transpose()?,
            timeout: SEND_TIMEOUT,
        })
    }
}

fn decode(text: &str) -> Result<String, InvalidSmtpServer> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| InvalidSmtpServer::Address)?;
    Ok(decoded.into_owned())
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl SmtpServer {
    /// The same server with a password from a file; a line break at its end is no part of it.
    ///
    /// # Errors
    /// When the file can't be read, or doesn't hold one line.
    pub fn with_password_file(mut self, path: &Path) -> Result<Self, InvalidSmtpServer> {
        let wrong = |reason: &str| InvalidSmtpServer::PasswordFile(format!("({}) {reason}", path.display()));
        let unreadable = |error: std::io::Error| wrong(&format!("can't be read: {error}"));
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MAX_PASSWORD_BYTES {
            return Err(wrong(&format!("has more than {MAX_PASSWORD_BYTES} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        let password = password.strip_suffix('\r').unwrap_or(password);
        if password.is_empty() || password.contains(['\n', '\r']) {
            return Err(wrong("must hold one line"));
        }
        self.password = Some(password.to_owned());
        Ok(self)
    }

    /// The same server with another time for a whole mail than a minute.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl fmt::Debug for SmtpServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SmtpServer")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("encryption", &self.encryption)
            .field("has_credentials", &self.user.is_some())
            .finish_non_exhaustive()
    }
}

/// A server that is ready to be used.
pub(crate) struct Smtp {
    sender: Sender,
    server: SmtpServer,
    hello: ClientId,
    tls: Option<TlsParameters>,
    credentials: Option<Credentials>,
}

impl fmt::Debug for Smtp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Smtp")
            .field("sender", &self.sender)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Smtp {
    pub(crate) fn new(sender: Sender, server: SmtpServer) -> Result<Self, InvalidSmtpServer> {
        let credentials = match (&server.user, &server.password) {
            (Some(user), Some(password)) => Some(Credentials::new(user.clone(), password.clone())),
            (None, None) => None,
            _ => return Err(InvalidSmtpServer::HalfCredentials),
        };
        let tls = match server.encryption {
            Encryption::None => None,
            Encryption::StartTls | Encryption::FromTheStart => {
                let parameters = TlsParameters::new(server.host.clone());
                Some(parameters.map_err(|error| InvalidSmtpServer::Certificates(error.to_string()))?)
            }
        };
        // Servers check that the name exists; the sender's domain does, and the name of this machine may not.
        let hello = ClientId::Domain(sender.domain().to_owned());
        Ok(Self { sender, server, hello, tls, credentials })
    }

    pub(crate) async fn send(&self, envelope: &Envelope, public_url: &PublicUrl) -> Result<(), MailError> {
        let bytes = envelope
            .mime(&self.sender, public_url)
            .map_err(|error| MailError::Permanent(Failure::new(Cause::Content, &error.to_string())))?;
        let mut connection = None;
        let outcome = timeout(self.server.timeout, self.deliver(&mut connection, envelope, &bytes)).await;
        let Ok(outcome) = outcome else {
            let waited = format!("{} s", self.server.timeout.as_secs_f32());
            return Err(MailError::Temporary(Failure::new(Cause::Timeout, &waited)));
        };
        // A connection whose encryption failed can't carry anything; the library panics if it has to.
        let is_usable = !matches!(outcome, Err((Step::Encrypt, _)));
        if let Some(mut connection) = connection.filter(|_| is_usable) {
            // Whether the server says goodbye changes nothing.
            timeout(QUIT_TIMEOUT, connection.quit()).await.ok();
        }
        outcome.map_err(|(step, error)| step.classify(&error, envelope))
    }

    async fn deliver(
        &self,
        kept: &mut Option<AsyncSmtpConnection>,
        envelope: &Envelope,
        bytes: &[u8],
    ) -> Result<(), (Step, Error)> {
        let connection = kept.insert(self.connect().await.map_err(|error| (Step::Connect, error))?);
        if let (Encryption::StartTls, Some(tls)) = (self.server.encryption, &self.tls) {
            connection.starttls(tls.clone(), &self.hello).await.map_err(|error| (Step::Encrypt, error))?;
        }
        if let Some(credentials) = &self.credentials {
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            connection.auth(&mechanisms, credentials).await.map_err(|error| (Step::Authenticate, error))?;
        }
        let sender = Mail::new(Some(self.sender.address().clone()), Vec::new());
        connection.command(sender).await.map_err(|error| (Step::Sender, error))?;
        let recipient = Rcpt::new(envelope.to.address().clone(), Vec::new());
        connection.command(recipient).await.map_err(|error| (Step::Recipient, error))?;
        connection.command(Data).await.map_err(|error| (Step::Content, error))?;
        connection.message(bytes).await.map_err(|error| (Step::Content, error))?;
        Ok(())
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let address = (self.server.host.as_str(), self.server.port);
        let tls = match self.server.encryption {
            Encryption::FromTheStart => self.tls.clone(),
            Encryption::StartTls | Encryption::None => None,
        };
        AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT_TIMEOUT), &self.hello, tls, None).await
    }
}

/// How far a mail came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    Encrypt,
    Authenticate,
    Sender,
    Recipient,
    Content,
}

impl Step {
    fn classify(self, error: &Error, envelope: &Envelope) -> MailError {
        let wants_credentials = error
            .status()
            .is_some_and(|code| matches!(code.to_string().as_str(), "530" | "534" | "535" | "538"));
        let is_refusal = error.is_transient() || error.is_permanent();
        let cause = match self {
            _ if wants_credentials => Cause::Credentials,
            Self::Encrypt => Cause::Encryption,
            Self::Connect if is_failed_handshake(error) => Cause::Encryption,
            // What isn't an answer of the server is about the connection, but for a server without a way to sign in.
            Self::Authenticate if error.is_permanent() || error.is_client() => Cause::Credentials,
            Self::Sender if is_refusal => Cause::Sender,
            Self::Recipient if is_refusal => Cause::Recipient,
            Self::Content if is_refusal => Cause::Content,
            _ => Cause::Connection,
        };
        let failure = Failure::new(cause, &without_token(&error.to_string(), envelope));
        if error.is_permanent() && matches!(cause, Cause::Recipient | Cause::Content) {
            MailError::Permanent(failure)
        } else {
            MailError::Temporary(failure)
        }
    }
}

/// Whether the two sides could not agree on a connection that is encrypted from the start. The library reports that like a connection
/// that was refused; what is below it says that what came made no sense.
fn is_failed_handshake(error: &Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return error.kind() == ErrorKind::InvalidData;
        }
        source = error.source();
    }
    false
}

/// Servers that refuse a mail may quote from it.
fn without_token(detail: &str, envelope: &Envelope) -> String {
    match envelope.message.token() {
        Some(token) => detail.replace(token.reveal(), "(token)"),
        None => detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> SmtpServer {
        text.parse().unwrap()
    }

    #[test]
    fn the_address_says_how_to_connect() {
        for (text, host, port, encryption) in [
            ("smtps://mail.example", "mail.example", 465, Encryption::FromTheStart),
            ("smtps://localhost:1", "localhost", 1, Encryption::FromTheStart),
            ("smtp://mail.example", "mail.example", 587, Encryption::StartTls),
            (" smtp://mail.example:25/ ", "mail.example", 25, Encryption::StartTls),
            ("smtp://mail.example?tls=none", "mail.example", 587, Encryption::None),
            ("smtp://10.0.0.1", "10.0.0.1", 587, Encryption::StartTls),
            ("smtp://127.0.0.1:2525", "127.0.0.1", 2525, Encryption::None),
            ("smtp://[::1]:2525", "::1", 2525, Encryption::None),
            ("smtp://LOCALHOST", "LOCALHOST", 587, Encryption::None),
            ("smtp://localhost.example", "localhost.example", 587, Encryption::StartTls),
            ("smtp://localhost?tls=required", "localhost", 587, Encryption::StartTls),
        ] {
            let server = server(text);
            assert_eq!(
                (server.host.as_str(), server.port, server.encryption),
                (host, port, encryption),
                "{text}"
            );
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in
            ["", "mail.example", "mail.example:25", "http://mail.example", "smtp://", "smtp://a b", "smtp:x"]
        {
            assert_eq!(text.parse::<SmtpServer>(), Err(InvalidSmtpServer::Address), "{text}");
        }
        for text in [
            "smtp://mail.example?tls=maybe",
            "smtp://mail.example?tls=opportunistic",
            "smtps://mail.example?tls=none",
            "smtp://mail.example/x",
            "smtp://mail.example#x",
        ] {
            assert_eq!(text.parse::<SmtpServer>(), Err(InvalidSmtpServer::Parameter), "{text}");
        }
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        let both = server("smtp://ann%40a.example:p%2F%20+w%C3%A9@mail.example?tls=none");
        assert_eq!(both.user.as_deref(), Some("ann@a.example"));
        assert_eq!(both.password.as_deref(), Some("p/ +wé"));
        let sender = || "noreply@lens.example".parse::<Sender>().unwrap();
        let shown = format!("{both:?} {:?}", Smtp::new(sender(), both.clone()).unwrap());
        assert!(!shown.contains("ann") && !shown.contains("+w"), "{shown}");
        for half in ["smtp://ann@mail.example?tls=none", "smtp://:secret@mail.example?tls=none"] {
            assert_eq!(Smtp::new(sender(), server(half)).unwrap_err(), InvalidSmtpServer::HalfCredentials);
        }
        let error = "smtp://ann:secret@mail.example/x".parse::<SmtpServer>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }

    #[test]
    fn a_password_can_lie_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            server("smtps://ann:old@mail.example").with_password_file(file.path())
        };
        for text in ["new", "new\n", "new\r\n"] {
            assert_eq!(read(text).unwrap().password.as_deref(), Some("new"));
        }
        for text in ["", "\n", "new\nnew", &"x".repeat(5_000)] {
            assert!(matches!(read(text), Err(InvalidSmtpServer::PasswordFile(_))), "{text}");
        }
        let missing = file.path().with_extension("missing");
        assert!(server("smtps://ann@mail.example").with_password_file(&missing).is_err());
    }
}
