//! An org's outbox: what a change of its data must cause elsewhere, written in the transaction of the change.
//!
//! Delivery is at least once. What fails is tried again with growing pauses, and after [`MAX_ATTEMPTS`] it becomes a dead
//! letter that stays until someone tries it again.

use std::sync::Arc;

use async_trait::async_trait;

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::{OrgId, ulid_at};

use crate::control::{Control, append_change};
use crate::error::StoreError;
use crate::tenant::Org;
use crate::transaction::Tx;
use crate::{args, row_type};

/// News for the change feed; the body is a topic.
pub(crate) const CHANGE: &str = "change";
/// Tries of one message before it is given up.
const MAX_ATTEMPTS: i64 = 12;
/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE_US: i64 = 1_000_000;
/// The longest pause.
const LONGEST_PAUSE_US: i64 = 3_600_000_000;
/// Messages that are delivered at a time.
const MESSAGES_AT_A_TIME: u32 = 100;

row_type! {
    /// A message that waits, or that was given up.
    pub struct OutboxMessage {
        /// Its id; ids sort by time.
        pub message_id: String,
        /// What kind of message it is, which decides who delivers it.
        pub kind: String,
        /// The message itself.
        pub body: String,
        /// Tries that failed.
        pub attempts: i64,
        /// Why the last try failed.
        pub last_error: Option<String>,
    }
}

/// What became of an outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Messages that were delivered.
    pub delivered: u64,
    /// Messages that still wait.
    pub waiting: i64,
}

/// Delivers messages of one kind.
#[async_trait]
pub trait Target: Send + Sync {
    /// The kind.
    fn kind(&self) -> &'static str;

    /// Delivers a message of an org. The same may come twice.
    async fn deliver(&self, org: &OrgId, body: &str) -> Result<(), StoreError>;
}

/// Everyone who delivers.
#[derive(Clone)]
pub struct Targets(Vec<Arc<dyn Target>>);

impl Targets {
    /// What the store itself delivers.
    pub(crate) fn of(control: &Control) -> Self {
        Self(vec![Arc::new(ChangeFeed { control: control.clone() })])
    }

    /// Others, by their kinds.
    pub fn new(targets: Vec<Arc<dyn Target>>) -> Self {
        Self(targets)
    }

    async fn deliver(&self, org: &OrgId, message: &OutboxMessage) -> Result<(), StoreError> {
        match self.0.iter().find(|target| target.kind() == message.kind) {
            Some(target) => target.deliver(org, &message.body).await,
            None => Err(StoreError::Refused(format!("nobody delivers `{}`", message.kind))),
        }
    }
}

/// Puts news of a change of an org's data into the change feed.
struct ChangeFeed {
    control: Control,
}

#[async_trait]
impl Target for ChangeFeed {
    fn kind(&self) -> &'static str {
        CHANGE
    }

    async fn deliver(&self, org: &OrgId, body: &str) -> Result<(), StoreError> {
        let topic = Topic::parse(body).ok_or_else(|| StoreError::Refused(format!("no topic `{body}`")))?;
        let at_us = self.control.clock.now_us();
        self.control.transact(org, move |tx| Box::pin(append_change(tx, topic, at_us))).await
    }
}

/// Adds a message to the outbox of the transaction's org.
pub(crate) async fn append(tx: &Tx<'_>, kind: &str, body: &str, now_us: i64) -> Result<(), StoreError> {
    let sql = "insert into outbox (org_id, message_id, kind, body, created_us, due_us, attempts) values ($1, $2, $3, $4, $5, $5, 0)";
    tx.execute(sql, args![ulid_at(now_us), kind, body, now_us]).await.map(|_| ())
}

/// The outbox of an org.
#[derive(Clone, Copy)]
pub struct Outbox<'o>(&'o Org);

impl Org {
    /// Its outbox.
    pub fn outbox(&self) -> Outbox<'_> {
        Outbox(self)
    }
}

impl Outbox<'_> {
    /// Delivers what is due.
    pub async fn deliver(self, targets: &Targets, now_us: i64) -> Result<Delivery, StoreError> {
        let mut delivery = Delivery::default();
        let due: Vec<OutboxMessage> = self
            .0
            .fetch(
                "select message_id, kind, body, attempts, last_error from outbox
                 where org_id = $1 and dead_us is null and due_us <= $2 order by message_id limit $3",
                args![now_us, MESSAGES_AT_A_TIME],
            )
            .await?;
        for message in due {
            let delivered = targets.deliver(self.0.id(), &message).await;
            let (sql, args) = match delivered {
                Ok(()) => {
                    delivery.delivered += 1;
                    ("delete from outbox where org_id = $1 and message_id = $2", args![&message.message_id])
                }
                Err(error) => failed(&message, &error, now_us),
            };
            self.0.execute_all(vec![(sql.to_owned(), args)]).await?;
        }
        let waiting: Option<i64> =
            self.0.find("select count(*) from outbox where org_id = $1 and dead_us is null", args![]).await?;
        Ok(Delivery { waiting: waiting.unwrap_or(0), ..delivery })
    }

    /// Messages that were given up, oldest first.
    pub async fn list_dead(self, limit: u32) -> Result<Vec<OutboxMessage>, StoreError> {
        self.0
            .fetch(
                "select message_id, kind, body, attempts, last_error from outbox
             where org_id = $1 and dead_us is not null order by message_id limit $2",
                args![limit],
            )
            .await
    }

    /// Has a message that was given up delivered again.
    pub async fn retry_dead(self, message_id: &str, now_us: i64) -> Result<(), StoreError> {
        let sql = "update outbox set dead_us = null, attempts = 0, due_us = $3 where org_id = $1 and message_id = $2 and dead_us is not null";
        let changed = self.0.execute_all(vec![(sql.to_owned(), args![message_id, now_us])]).await?;
        if changed.first() == Some(&1) { Ok(()) } else { Err(StoreError::NotFound) }
    }
}

fn failed(
    message: &OutboxMessage,
    error: &StoreError,
    now_us: i64,
) -> (&'static str, Vec<crate::statement::Value>) {
    let attempts = message.attempts + 1;
    let dead_us = (attempts >= MAX_ATTEMPTS).then_some(now_us);
    let sql = "update outbox set attempts = $3, due_us = $4, last_error = $5, dead_us = $6 where org_id = $1 and message_id = $2";
    (sql, args![&message.message_id, attempts, now_us + pause_us(attempts), error.to_string(), dead_us])
}

/// How long after a failure the next try comes.
fn pause_us(attempts: i64) -> i64 {
    let doublings = attempts.saturating_sub(1).clamp(0, 12);
    FIRST_PAUSE_US.saturating_mul(1 << doublings).min(LONGEST_PAUSE_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        assert_eq!([1, 2, 3].map(pause_us), [1_000_000, 2_000_000, 4_000_000]);
        assert_eq!(pause_us(12), 2_048_000_000);
        assert_eq!(pause_us(i64::MAX), LONGEST_PAUSE_US);
    }
}
