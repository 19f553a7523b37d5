//! Mail that has to be sent. It is written in the transaction of what it is about, and sent by a job.

use agentlens_domain::ids::ulid_at;
use data_encoding::BASE64;

use crate::control::Control;
use crate::error::StoreError;
use crate::transaction::Tx;
use crate::{args, row_type};

/// Tries of one mail before it is given up.
const MAX_ATTEMPTS: i64 = 12;
/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE_US: i64 = 5_000_000;
/// How long sending one may take. Then another node tries.
const CLAIM_US: i64 = 120_000_000;
/// The longest pause.
const LONGEST_PAUSE_US: i64 = 3_600_000_000;

row_type! {
    /// A mail that waits.
    pub struct MailRow {
        /// Its id.
        pub mail_id: String,
        /// To whom.
        pub address: String,
        /// What it says, as JSON.
        pub message: String,
        /// When it was written, microseconds UTC.
        pub created_us: i64,
        /// When it is due.
        pub due_us: i64,
        /// Tries that failed.
        pub attempts: i64,
    }
}

/// A mail about to be written.
#[derive(Debug, Clone)]
pub struct NewMail {
    /// To whom.
    pub address: String,
    /// What it says, as JSON.
    pub message: String,
}

const INSERT: &str =
    "insert into mail_outbox (mail_id, address, message, created_us, due_us) values ($1, $2, $3, $4, $4)";

impl NewMail {
    pub(super) fn statement(self, now_us: i64) -> (&'static str, Vec<crate::statement::Value>) {
        (INSERT, args![ulid_at(now_us), self.address, self.message, now_us])
    }

    /// Writes the mail in a transaction.
    pub(crate) async fn insert(self, tx: &Tx<'_>, now_us: i64) -> Result<(), StoreError> {
        let insert = "insert into mail_outbox (mail_id, address, message, created_us, due_us) select $2, $3, $4, $5, $5 where $1 <> ''";
        tx.execute(insert, args![ulid_at(now_us), self.address, self.message, now_us]).await.map(|_| ())
    }
}

/// What the text of a mail is encrypted for.
const CONTEXT: &str = "mail";

impl Control {
    /// The same mail with its text encrypted: it may hold a link that is as good as a password.
    pub(crate) fn sealed(&self, mail: NewMail) -> NewMail {
        let message = BASE64.encode(&self.secrets.seal(CONTEXT, mail.message.as_bytes()));
        NewMail { message, ..mail }
    }

    /// The text of a mail; empty if it can't be read.
    fn opened(&self, row: MailRow) -> MailRow {
        let sealed = BASE64.decode(row.message.as_bytes()).ok();
        let opened = sealed.and_then(|sealed| self.secrets.open(CONTEXT, &sealed).ok());
        let message = opened.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        MailRow { message, ..row }
    }

    /// Writes a mail by itself.
    pub async fn insert_mail(&self, mail: NewMail) -> Result<(), StoreError> {
        let mail = self.sealed(mail);
        self.execute_all(vec![mail.statement(self.clock.now_us())]).await.map(|_| ())
    }

    /// Mail that is due, oldest first.
    pub async fn due_mail(&self, limit: u32) -> Result<Vec<MailRow>, StoreError> {
        let due = "select mail_id, address, message, created_us, due_us, attempts from mail_outbox where due_us <= $1 and given_up_us is null order by due_us limit $2";
        let rows: Vec<MailRow> = self.fetch(due, args![self.clock.now_us(), limit]).await?;
        Ok(rows.into_iter().map(|row| self.opened(row)).collect())
    }

    /// Claims a mail for a while: of nodes that see it due at once, one sends it.
    pub async fn claim_mail(&self, mail: &MailRow) -> Result<bool, StoreError> {
        let claim =
            "update mail_outbox set due_us = $3 where mail_id = $1 and due_us = $2 and given_up_us is null";
        let until_us = self.clock.now_us() + CLAIM_US;
        let claimed = self.execute_all(vec![(claim, args![&mail.mail_id, mail.due_us, until_us])]).await?;
        Ok(claimed.iter().sum::<u64>() == 1)
    }

    /// A mail was sent: nothing is kept of it, because it may hold a secret.
    pub async fn mail_sent(&self, mail_id: &str) -> Result<(), StoreError> {
        self.execute_all(vec![("delete from mail_outbox where mail_id = $1", args![mail_id])])
            .await
            .map(|_| ())
    }

    /// A mail could not be sent: it is tried again later, or given up, and then keeps no text.
    pub async fn mail_failed(&self, mail: &MailRow, error: &str, is_final: bool) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        let attempts = mail.attempts + 1;
        let statement = if is_final || attempts >= MAX_ATTEMPTS {
            (
                "update mail_outbox set attempts = $2, last_error = $3, given_up_us = $4, message = '{}' where mail_id = $1",
                args![&mail.mail_id, attempts, error, now_us],
            )
        } else {
            let doublings = u32::try_from(mail.attempts).unwrap_or(0).min(20);
            let pause_us = (FIRST_PAUSE_US << doublings).min(LONGEST_PAUSE_US);
            (
                "update mail_outbox set attempts = $2, last_error = $3, due_us = $4 where mail_id = $1",
                args![&mail.mail_id, attempts, error, now_us + pause_us],
            )
        };
        self.execute_all(vec![statement]).await.map(|_| ())
    }

    /// Deletes what was given up before an instant; returns how many.
    pub async fn trim_mail(&self, before_us: i64) -> Result<u64, StoreError> {
        let deleted = self
            .execute_all(vec![("delete from mail_outbox where given_up_us < $1", args![before_us])])
            .await?;
        Ok(deleted.iter().sum())
    }
}
