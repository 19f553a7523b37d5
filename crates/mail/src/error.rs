//! Why a mail did not leave.

use std::fmt;

use crate::names::one_line;

/// Characters of an explanation.
const MAX_DETAIL_CHARS: usize = 300;

/// A mail that was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// It may be sent later: the server can't be reached, asks to wait, or is not set up as it should be.
    #[error("the mail was not sent yet: {0}")]
    Temporary(Failure),
    /// The server refused this mail or its recipient for good.
    #[error("the mail can't be sent: {0}")]
    Permanent(Failure),
}

impl MailError {
    /// What failed, and how.
    pub fn failure(&self) -> &Failure {
        match self {
            Self::Temporary(failure) | Self::Permanent(failure) => failure,
        }
    }
}

/// What failed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub cause: Cause,
    /// The explanation of the server or the system, in one line and without secrets.
    pub detail: String,
}

impl Failure {
    pub(crate) fn new(cause: Cause, detail: &str) -> Self {
        Self { cause, detail: one_line(detail, MAX_DETAIL_CHARS) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.cause.sentence(), self.detail)
    }
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// There is no connection, or the server refuses all of them.
    Connection,
    /// The connection can't be encrypted, or the server's certificate is not trusted.
    Encryption,
    /// The server wants a user and a password, or other ones.
    Credentials,
    /// The server does not send mail from the configured sender.
    Sender,
    /// The server does not take mail for the recipient.
    Recipient,
    /// The server does not take the mail itself.
    Content,
    /// It took too long.
    Timeout,
}

impl Cause {
    /// A name for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Encryption => "encryption",
            Self::Credentials => "credentials",
            Self::Sender => "sender",
            Self::Recipient => "recipient",
            Self::Content => "content",
            Self::Timeout => "timeout",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Connection => "the mail server can't be reached",
            Self::Encryption => "the connection to the mail server can't be encrypted",
            Self::Credentials => "the mail server does not accept the user and the password",
            Self::Sender => "the mail server does not accept the sender",
            Self::Recipient => "the mail server does not accept the recipient",
            Self::Content => "the mail server does not accept the mail",
            Self::Timeout => "the mail server does not answer in time",
        }
    }
}
