//! Mail leaves: what people and orgs are told lies in an outbox until the mail server has taken it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use agentlens_mail::{Envelope, MailError, Mailer, Message};
use agentlens_store::{MailRow, Store, StoreError};

/// How often it is looked whether mail is due.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Mails that are sent one after another before it is looked again.
const AT_A_TIME: u32 = 20;

/// Sends mail until shutdown. Several nodes may do it at once: each mail is claimed first.
pub async fn send_mail(store: Store, mailer: Mailer, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        if let Err(error) = send_due(&store, &mailer).await {
            tracing::warn!(error = %error, "mail can't be read or marked");
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
    }
}

async fn send_due(store: &Store, mailer: &Mailer) -> Result<(), StoreError> {
    for mail in store.control().due_mail(AT_A_TIME).await? {
        if store.control().claim_mail(&mail).await? {
            send(store, mailer, &mail).await?;
        }
    }
    Ok(())
}

async fn send(store: &Store, mailer: &Mailer, mail: &MailRow) -> Result<(), StoreError> {
    let message: Result<Message, _> = serde_json::from_str(&mail.message);
    let envelope = message.map_err(|error| error.to_string()).and_then(|message| {
        Envelope::new(&mail.mail_id, &mail.address, mail.created_us, message)
            .map_err(|error| error.to_string())
    });
    let sent = match envelope {
        Ok(envelope) => mailer.send(&envelope).await.map_err(|error| {
            let is_final = matches!(error, MailError::Permanent(_));
            (error.to_string(), is_final)
        }),
        Err(unreadable) => Err((unreadable, true)),
    };
    match sent {
        Ok(()) => store.control().mail_sent(&mail.mail_id).await,
        Err((error, is_final)) => {
            tracing::warn!(mail.id = mail.mail_id, error, is_final, "a mail was not sent");
            store.control().mail_failed(mail, &error, is_final).await
        }
    }
}
