//! Mail to people: what it says, and how it leaves the server.
//!
//! A [`Message`] says what happened, as data that an outbox can keep. An [`Envelope`] adds who gets it, when it was written, and an id
//! that stays the same when it is sent again. A [`Mailer`] turns it into text and HTML and hands it to an SMTP server. Without an SMTP
//! server it writes the link to the log.
//!
//! Links are built from the [`PublicUrl`] alone, and tokens stand in the fragment, which browsers don't send to servers. What people
//! chose, such as names, goes through [`Name`], which can't break a line, a header or the direction of a text.

mod envelope;
mod error;
mod links;
mod mailer;
mod messages;
mod names;
mod smtp;
mod templates;

pub use envelope::{Envelope, InvalidEnvelope, MessageId, Recipient, Sender};
pub use error::{Cause, Failure, MailError};
pub use links::{InvalidPublicUrl, InvalidToken, LinkToken, Page, PublicUrl};
pub use mailer::Mailer;
pub use messages::{FactorChange, Message};
pub use names::Name;
pub use smtp::{InvalidSmtpServer, SmtpServer};
pub use templates::Content;
