//! Applies one group of an org's messages, removes them from the stream, and handles failures.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::RedisError;
use tokio::sync::OwnedSemaphorePermit;

use agentlens_domain::batches::Batch;
use agentlens_domain::ids::{BatchId, OrgId};
use agentlens_store::{DeadLetter, Org, StoreError};

use super::Worker;
use super::lanes::Group;
use super::stream::{Content, Head, Message, MessageId, ShardStream};
use crate::apply;
use crate::lease::Held;
use crate::message;

/// A batch becomes a dead letter once this many attempts failed and it has been failing for `MAX_FAILING`. If the worker process
/// ended during each of the attempts, their number alone is enough.
const MAX_ATTEMPTS: u64 = 5;
const MAX_FAILING: Duration = Duration::from_secs(30);
/// How long a suspect message waits while another one is applied.
const SUSPECT_WAIT: Duration = Duration::from_secs(1);

/// Applies one group.
pub(super) struct Job {
    pub(super) worker: Worker,
    pub(super) stream: ShardStream,
    pub(super) held: Held,
}

/// The outcome of a job.
pub(super) struct Done {
    pub(super) org: OrgId,
    /// The messages that are not finished, in order.
    pub(super) rest: Vec<Message>,
    /// Whether they are left because of a failure.
    pub(super) has_failed: bool,
}

/// The outcome of an attempt to apply messages.
enum Attempt {
    Stored,
    /// The lease is lost; nothing was tried.
    Lost,
    Failed(StoreError),
}

impl Job {
    pub(super) async fn run(self, group: Group) -> Result<Done, RedisError> {
        let Group { org, messages, failing_for } = group;
        let mut rest = VecDeque::from(messages);
        let has_failed = self.work(&org, &mut rest, failing_for).await?;
        Ok(Done { org, rest: rest.into(), has_failed })
    }

    /// Removes finished messages from `rest`; returns whether one failed and must be tried again.
    async fn work(
        &self,
        org: &OrgId,
        rest: &mut VecDeque<Message>,
        failing_for: Duration,
    ) -> Result<bool, RedisError> {
        if let Some(reason) = rest.front().and_then(reason_to_give_up) {
            return self.give_up_first(org, rest, &reason).await;
        }
        let _alone = self.suspect_permit(rest.front()).await;
        match self.attempt(org, rest.make_contiguous()).await? {
            Attempt::Stored => {
                let heads: Vec<Head> = rest.drain(..).map(|message| message.head).collect();
                self.stream.finish(&heads).await?;
                return Ok(false);
            }
            Attempt::Lost => return Ok(false),
            Attempt::Failed(error) if error.is_away() => {
                tracing::warn!(org.id = %org, error = %error, "the store is away; the batches stay in the queue");
                return Ok(true);
            }
            Attempt::Failed(error) if rest.len() == 1 => {
                return self.handle_failure(org, rest, error, failing_for).await;
            }
            // One of them is the cause. They are tried one by one, in order.
            Attempt::Failed(_) => {}
        }
        while !rest.is_empty() {
            let first = rest.make_contiguous().get_mut(..1).unwrap_or_default();
            match self.attempt(org, first).await? {
                Attempt::Stored => self.finish_first(rest).await?,
                Attempt::Lost => return Ok(false),
                Attempt::Failed(error) => {
                    let is_to_be_retried = self.handle_failure(org, rest, error, failing_for).await?;
                    if is_to_be_retried {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// A message that may have ended a worker process before is applied while no other such message of this process is. If
    /// the process ends again, the attempt is counted for the right message.
    async fn suspect_permit(&self, first: Option<&Message>) -> Option<OwnedSemaphorePermit> {
        if !first?.is_suspect() {
            return None;
        }
        let permit = Arc::clone(&self.worker.suspects).acquire_owned();
        tokio::time::timeout(SUSPECT_WAIT, permit).await.ok()?.ok()
    }

    /// Applies messages in one transaction. It takes their batches and puts them back.
    async fn attempt(&self, org: &OrgId, messages: &mut [Message]) -> Result<Attempt, RedisError> {
        if !self.held.is_held() {
            return Ok(Attempt::Lost);
        }
        let again: Vec<(MessageId, u64)> = messages
            .iter()
            .filter(|message| message.head.attempts > 0)
            .map(|message| (message.head.id, message.head.attempts))
            .collect();
        // Counted first, because the process may end during the attempt.
        self.count_attempts(&again, 1).await?;
        let result = self.store(org, messages).await;
        match &result {
            Err(error) if error.is_away() => self.count_attempts(&again, 0).await?,
            Err(_) => {
                for message in messages {
                    message.head.attempts += 1;
                    message.head.was_tried_here = true;
                }
            }
            Ok(()) => {}
        }
        Ok(match result {
            // The org was deleted with its data, so there is nothing to do.
            Ok(()) | Err(StoreError::NotFound) => Attempt::Stored,
            Err(error) => Attempt::Failed(error),
        })
    }

    async fn count_attempts(&self, messages: &[(MessageId, u64)], more: u64) -> Result<(), RedisError> {
        for same in messages.chunk_by(|one, other| one.1 == other.1) {
            let ids: Vec<MessageId> = same.iter().map(|(id, _)| *id).collect();
            let attempts = same.first().map_or(0, |(_, attempts)| *attempts);
            self.stream.count_attempts(&ids, attempts + more).await?;
        }
        Ok(())
    }

    async fn store(&self, org: &OrgId, messages: &mut [Message]) -> Result<(), StoreError> {
        let org = self.open(org).await?;
        let mut batches = Vec::with_capacity(messages.len());
        for message in messages.iter_mut() {
            match std::mem::replace(&mut message.content, Content::Taken) {
                Content::Whole(batch) => batches.push(batch),
                other => message.content = other,
            }
        }
        let batches = Arc::new(batches);
        let result = apply::apply(&org, &batches).await;
        let mut batches = Arc::try_unwrap(batches).unwrap_or_else(|shared| shared.to_vec()).into_iter();
        for message in messages.iter_mut().filter(|message| matches!(message.content, Content::Taken)) {
            if let Some(batch) = batches.next() {
                message.content = Content::Whole(batch);
            }
        }
        let report = result?;
        self.worker.live.advance(org.id(), report.last_position);
        self.worker.indexer.follow(&org, report.last_position - report.indexed_position).await;
        Ok(())
    }

    /// The handle of the org. While an owner can undo its deletion, its messages wait as they do when the store is away.
    async fn open(&self, org: &OrgId) -> Result<Org, StoreError> {
        let store = &self.worker.store;
        match store.org(org).await {
            Err(StoreError::NotFound) if store.control().is_being_deleted(org).await? => {
                Err(StoreError::Unavailable("the org is being deleted".to_owned()))
            }
            other => other,
        }
    }

    /// Handles a failure of the first message on its own. Returns whether to try it again; otherwise it is finished.
    async fn handle_failure(
        &self,
        org: &OrgId,
        rest: &mut VecDeque<Message>,
        error: StoreError,
        failing_for: Duration,
    ) -> Result<bool, RedisError> {
        let Some(first) = rest.front_mut() else { return Ok(false) };
        let attempt = first.head.attempts;
        tracing::error!(org.id = %org, error = %error, attempt, "a batch could not be applied");
        if error.is_of_input() {
            match self.store_without_refused(org, first, error.to_string()).await {
                Ok(()) => {
                    self.finish_first(rest).await?;
                    return Ok(false);
                }
                Err(error) => {
                    tracing::error!(org.id = %org, error = %error, "a refused batch stays in the queue");
                    return Ok(true);
                }
            }
        }
        if error.is_away() || attempt < MAX_ATTEMPTS || failing_for < MAX_FAILING {
            return Ok(true);
        }
        self.give_up_first(org, rest, &error.to_string()).await
    }

    /// Stores the events of a batch that the store accepts. The others become a dead letter.
    async fn store_without_refused(
        &self,
        org: &OrgId,
        message: &mut Message,
        reason: String,
    ) -> Result<(), StoreError> {
        let Content::Whole(batch) = &message.content else { return self.bury(org, message, &reason).await };
        let org = self.worker.store.org(org).await?;
        let (indexes, reason) = apply::refused_events(&org, batch, reason).await?;
        if indexes.len() == batch.events.len() {
            return self.bury(org.id(), message, &reason).await;
        }
        if !self.held.is_held() {
            return Err(StoreError::Unavailable("the lease of the shard was lost".to_owned()));
        }
        let mut good = batch.clone();
        let refused = apply::take_events(&mut good, &indexes);
        let refused = Batch { batch_id: refused_id(batch), ..apply::part_of(batch, refused) };
        good.received_count = good.received_count.saturating_sub(refused.received_count);
        if !refused.events.is_empty() {
            let raw = message::encode(&refused).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let letter = DeadLetter {
                batch_id: refused.batch_id.as_str().to_owned(),
                key_id: message.head.key.clone(),
                failed_us: org.clock().now_us(),
                reason,
                event_count: i64::from(refused.received_count),
            };
            // The dead letter is written first. If the process ends before the rest is applied, the batch is tried again and
            // overwrites the letter.
            org.dead_letters().insert(&letter, &raw).await?;
            self.worker.counters.buried.fetch_add(1, Ordering::Relaxed);
        }
        let report = apply::apply(&org, &Arc::new(vec![good])).await?;
        self.worker.live.advance(org.id(), report.last_position);
        Ok(())
    }

    /// Moves the first message to the dead letters. Returns whether that failed and must be tried again.
    async fn give_up_first(
        &self,
        org: &OrgId,
        rest: &mut VecDeque<Message>,
        reason: &str,
    ) -> Result<bool, RedisError> {
        let Some(first) = rest.front() else { return Ok(false) };
        if let Err(error) = self.bury(org, first, reason).await {
            tracing::error!(org.id = %org, error = %error, "a dead letter could not be kept; the batch stays in the queue");
            return Ok(true);
        }
        self.finish_first(rest).await?;
        Ok(false)
    }

    async fn finish_first(&self, rest: &mut VecDeque<Message>) -> Result<(), RedisError> {
        if let Some(first) = rest.front() {
            self.stream.finish(std::slice::from_ref(&first.head)).await?;
        }
        rest.pop_front();
        Ok(())
    }

    async fn bury(&self, org: &OrgId, message: &Message, reason: &str) -> Result<(), StoreError> {
        let org = match self.open(org).await {
            // The org was deleted with its data.
            Err(StoreError::NotFound) => return Ok(()),
            other => other?,
        };
        let batch_id = match &message.content {
            Content::Whole(batch) => batch.batch_id.as_str().to_owned(),
            _ => format!("stream-{}", message.head.id),
        };
        tracing::error!(org.id = %org.id(), batch.id = %batch_id, reason, "a batch goes to the dead letters");
        let letter = DeadLetter {
            batch_id,
            key_id: message.head.key.clone(),
            failed_us: org.clock().now_us(),
            reason: reason.to_owned(),
            event_count: message.head.events,
        };
        org.dead_letters().insert(&letter, &message.head.raw).await?;
        self.worker.counters.buried.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The reason not to try a message at all; `None` if it can be tried.
fn reason_to_give_up(message: &Message) -> Option<String> {
    let head = &message.head;
    match &message.content {
        Content::Broken(reason) => Some(reason.clone()),
        _ if head.attempts >= MAX_ATTEMPTS && !head.was_tried_here => Some(format!(
            "{} attempts were begun and none was finished: a worker ended each time",
            head.attempts
        )),
        _ => None,
    }
}

/// The batch id for the events that the store refused. It is the same for each attempt, so a retry overwrites the dead letter.
fn refused_id(batch: &Batch) -> BatchId {
    BatchId::parse(&format!("{}-refused", batch.batch_id)).unwrap_or_else(|_| batch.batch_id.clone())
}
