//! One mail: who gets it, when it was written, by which id it is recognised, and what it says.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use lettre::Address;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder, MultiPart, SinglePart};
use serde::{Deserialize, Serialize};

use crate::links::PublicUrl;
use crate::messages::Message;
use crate::names::Name;

/// Characters of an id.
const MAX_ID_CHARS: usize = 40;
/// Characters of an address (RFC 5321).
const MAX_ADDRESS_CHARS: usize = 254;
/// 9999-12-31T23:59:59Z: later dates can't be written.
const LAST_DATE_US: i64 = 253_402_300_799_000_000;
/// Who mail is from, unless the operator says otherwise.
const SENDER_NAME: &str = "AgentLens";

/// A mail on its way out. As JSON it may lie in an outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The same for every attempt, so that mail servers and readers recognise a repetition.
    pub id: MessageId,
    /// Who gets it.
    pub to: Recipient,
    /// When it was written, microseconds UTC: the same for every attempt, too.
    pub at_us: i64,
    /// What it says.
    pub message: Message,
}

/// Why an envelope can't be addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEnvelope {
    /// The id would not fit into a header.
    #[error("the id of a mail must have 1 to {MAX_ID_CHARS} characters of a-z, A-Z, 0-9, `_` and `-`")]
    Id,
    /// The address is not one.
    #[error(
        "the address must be one plain e-mail address in ASCII, of at most {MAX_ADDRESS_CHARS} characters"
    )]
    Address,
}

/// What a mail is recognised by: the left side of its `Message-ID`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId(String);

/// An address that a mail goes to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Recipient(Address);

/// Who mail is from: `AgentLens <noreply@lens.example>`. Without a name, the name is AgentLens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender(Mailbox);

impl Envelope {
    /// Addresses a message.
    ///
    /// # Errors
    /// When the id or the address can't stand in a mail.
    pub fn new(id: &str, to: &str, at_us: i64, message: Message) -> Result<Self, InvalidEnvelope> {
        Ok(Self { id: id.parse()?, to: to.parse()?, at_us, message })
    }

    /// The mail as bytes: ASCII, the same for the same envelope.
    pub(crate) fn mime(
        &self,
        sender: &Sender,
        public_url: &PublicUrl,
    ) -> Result<Vec<u8>, lettre::error::Error> {
        let content = self.message.content(public_url);
        let id = &self.id.0;
        let date_us = u64::try_from(self.at_us.clamp(0, LAST_DATE_US)).unwrap_or(0);
        let message_id = format!("<{id}@{}>", sender.domain());
        // The equals sign can't stand in the parts, which are quoted-printable, so no part can contain the boundary.
        let parts = MultiPart::alternative()
            .boundary(format!("=_agentlens_{id}"))
            .singlepart(part(ContentType::TEXT_PLAIN, content.text))
            .singlepart(part(ContentType::TEXT_HTML, content.html));
        let mail = MessageBuilder::new()
            .from(sender.0.clone())
            .to(Mailbox::new(None, self.to.0.clone()))
            .subject(content.subject)
            .date(UNIX_EPOCH + Duration::from_micros(date_us))
            .message_id(Some(message_id))
            // Keeps holiday notices and other robots from answering (RFC 3834).
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ))
            .multipart(parts)?;
        Ok(mail.formatted())
    }
}

fn part(content_type: ContentType, body: String) -> SinglePart {
    SinglePart::builder().header(content_type).header(ContentTransferEncoding::QuotedPrintable).body(body)
}

impl FromStr for MessageId {
    type Err = InvalidEnvelope;

    fn from_str(text: &str) -> Result<Self, InvalidEnvelope> {
        let is_plain = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'_' | b'-');
        if text.is_empty() || text.len() > MAX_ID_CHARS || !text.bytes().all(is_plain) {
            return Err(InvalidEnvelope::Id);
        }
        Ok(Self(text.to_owned()))
    }
}

impl Recipient {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    pub(crate) fn address(&self) -> &Address {
        &self.0
    }
}

impl FromStr for Recipient {
    type Err = InvalidEnvelope;

    fn from_str(text: &str) -> Result<Self, InvalidEnvelope> {
        // Servers that take other alphabets are rare, so an address needs its domain in ASCII before it comes here.
        if text.len() > MAX_ADDRESS_CHARS || !text.bytes().all(|letter| letter.is_ascii_graphic()) {
            return Err(InvalidEnvelope::Address);
        }
        text.parse().map(Self).map_err(|_| InvalidEnvelope::Address)
    }
}

impl FromStr for Sender {
    type Err = InvalidEnvelope;

    fn from_str(text: &str) -> Result<Self, InvalidEnvelope> {
        let text = text.trim();
        let (name, address) = match text.strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
            Some((name, address)) => (name.trim().trim_matches('"').trim(), address),
            None => ("", text),
        };
        let Recipient(address) = address.parse()?;
        let name = if name.is_empty() { SENDER_NAME.to_owned() } else { Name::new(name).into() };
        Ok(Self(Mailbox::new(Some(name), address)))
    }
}

impl Sender {
    pub(crate) fn address(&self) -> &Address {
        &self.0.email
    }

    /// The domain of the address.
    pub(crate) fn domain(&self) -> &str {
        self.0.email.domain()
    }
}

macro_rules! text_of {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidEnvelope;

            fn try_from(text: String) -> Result<Self, InvalidEnvelope> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

text_of!(MessageId);
text_of!(Recipient);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_addresses_that_break_headers_are_refused() {
        let make = |id: &str, to: &str| Envelope::new(id, to, 0, Message::AddressTaken).map(|_| ());
        assert_eq!(make("01JX-a_b", "ann+x@example.com"), Ok(()));
        for id in ["", "a b", "a>", "a\r\nb", "a@b", &"a".repeat(MAX_ID_CHARS + 1)] {
            assert_eq!(make(id, "ann@example.com"), Err(InvalidEnvelope::Id), "{id}");
        }
        let long = format!("ann@{}example.com", "a.".repeat(130));
        for to in [
            "",
            "ann",
            "@example.com",
            "ann@",
            "Ann <ann@example.com>",
            "ann@example.com, bob@example.com",
            "ann@example.com\r\nBcc: bob@example.com",
            "ann@example.com>",
            "änn@example.com",
            "ann@bücher.example",
            "ann@example.com ",
            &long,
        ] {
            assert_eq!(make("a", to), Err(InvalidEnvelope::Address), "{to}");
        }
    }

    #[test]
    fn a_sender_has_a_name() {
        let written = |text: &str| text.parse::<Sender>().map(|sender| sender.0.to_string());
        assert_eq!(written("noreply@lens.example").unwrap(), "AgentLens <noreply@lens.example>");
        assert_eq!(written(" <noreply@lens.example>").unwrap(), "AgentLens <noreply@lens.example>");
        assert_eq!(written("\"Lens\" <noreply@lens.example>").unwrap(), "Lens <noreply@lens.example>");
        assert_eq!(written("Lens\r\nBcc: x <a@b.example>").unwrap(), "\"Lens Bcc: x\" <a@b.example>");
        for text in ["", "lens.example", "Lens <noreply>", "a@b.example, c@d.example"] {
            assert_eq!(written(text), Err(InvalidEnvelope::Address), "{text}");
        }
    }
}
