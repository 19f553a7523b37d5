//! How mail leaves: through an SMTP server, or, where there is none, into the log.

use crate::envelope::{Envelope, Sender};
use crate::error::MailError;
use crate::links::PublicUrl;
use crate::smtp::{InvalidSmtpServer, Smtp, SmtpServer};

/// Sends mail.
#[derive(Debug)]
pub struct Mailer {
    public_url: PublicUrl,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Smtp(Box<Smtp>),
    Log,
}

impl Mailer {
    /// A mailer without a mail server: each mail is one line in the log, under the target `agentlens::mail`, with its link. Whoever
    /// reads the log can use the links.
    pub fn log(public_url: PublicUrl) -> Self {
        Self { public_url, way: Way::Log }
    }

    /// A mailer that hands mail to a server. Reads the system's certificates if the connection is encrypted.
    ///
    /// # Errors
    /// When the certificates can't be used.
    pub fn smtp(
        public_url: PublicUrl,
        sender: Sender,
        server: SmtpServer,
    ) -> Result<Self, InvalidSmtpServer> {
        Ok(Self { public_url, way: Way::Smtp(Box::new(Smtp::new(sender, server)?)) })
    }

    /// Whether mail only goes into the log. An answer that says "look into your mailbox" then has to say something else.
    pub fn is_log(&self) -> bool {
        matches!(self.way, Way::Log)
    }

    /// Sends a mail. The same envelope may be sent again: its bytes and its `Message-ID` stay the same.
    ///
    /// If the future is dropped, the mail may have been sent or not.
    ///
    /// # Errors
    /// When the mail is not sent; the error says whether to try again.
    pub async fn send(&self, envelope: &Envelope) -> Result<(), MailError> {
        match &self.way {
            Way::Smtp(smtp) => smtp.send(envelope, &self.public_url).await,
            Way::Log => {
                self.write_to_log(envelope);
                Ok(())
            }
        }
    }

    fn write_to_log(&self, envelope: &Envelope) {
        let Envelope { to, message, .. } = envelope;
        let subject = message.content(&self.public_url).subject;
        if message.token().is_some() {
            let link = message.link(&self.public_url);
            tracing::info!(target: "agentlens::mail", "Mail to {to}, not sent because there is no mail server: {subject}: {link}");
        } else {
            tracing::info!(target: "agentlens::mail", "Mail to {to}, not sent because there is no mail server: {subject}");
        }
    }
}
