//! The stream of one shard in Redis: reads and decodes messages, counts attempts, and removes finished messages.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use redis::aio::ConnectionManager;
use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use redis::{ErrorKind, RedisError, Script, ServerErrorKind};

use agentlens_domain::batches::Batch;
use agentlens_domain::ids::OrgId;

use crate::message::{self, MessageError};
use crate::queue::redis::{GROUP, Keys, room_of};
use crate::queue::size_of_batch;

/// Messages that are read at a time.
pub(super) const READ_MESSAGES: usize = 128;
/// A message is applied alone once this many attempts were started by other processes, because it may have ended them.
const SUSPECT_ATTEMPTS: u64 = 2;
/// How long a read waits for messages.
const BLOCK_MS: u64 = 250;

/// Acknowledges and removes one message. Counters change only if the acknowledgement succeeds, so they never change twice.
const FINISH: &str = "
if redis.call('xack', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('xdel', KEYS[1], ARGV[2])
if redis.call('hincrby', KEYS[2], ARGV[3], -tonumber(ARGV[4])) <= 0 then redis.call('hdel', KEYS[2], ARGV[3]) end
if redis.call('hincrby', KEYS[3], ARGV[6], -tonumber(ARGV[5])) <= 0 then redis.call('hdel', KEYS[3], ARGV[6]) end
return 1";

/// The id of a message; ids sort in the order of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MessageId {
    millis: u64,
    sequence: u64,
}

impl FromStr for MessageId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (millis, sequence) = text.split_once('-').ok_or(())?;
        Ok(Self { millis: millis.parse().map_err(|_| ())?, sequence: sequence.parse().map_err(|_| ())? })
    }
}

#[cfg(test)]
impl MessageId {
    pub(super) fn millis(self) -> u64 {
        self.millis
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

/// A message without its batch.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) id: MessageId,
    pub(super) org: OrgId,
    pub(super) key: String,
    pub(super) events: i64,
    /// The encoded bytes.
    pub(super) raw: Vec<u8>,
    /// The number of attempts to apply it that were started. Redis stores it.
    pub(super) attempts: u64,
    /// Whether this process made one of them.
    pub(super) was_tried_here: bool,
}

/// The decoded bytes of a message.
#[derive(Debug)]
pub(super) enum Content {
    Whole(Batch),
    /// They are not a batch; the reason.
    Broken(String),
    /// A batch that only a newer program can read.
    Newer,
    /// The batch was taken to be applied.
    Taken,
}

/// A message that our program wrote.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) head: Head,
    pub(super) content: Content,
}

impl Message {
    /// The number of events to store.
    pub(super) fn event_count(&self) -> usize {
        if let Content::Whole(batch) = &self.content { batch.events.len() } else { 0 }
    }

    /// Whether it may have ended a process before.
    pub(super) fn is_suspect(&self) -> bool {
        self.head.attempts >= SUSPECT_ATTEMPTS && !self.head.was_tried_here
    }

    /// Approximate bytes that it takes in memory.
    pub(super) fn size_bytes(&self) -> usize {
        let batch = if let Content::Whole(batch) = &self.content { size_of_batch(batch) } else { 0 };
        self.head.raw.len() + batch
    }
}

/// An entry of the stream.
pub(super) enum Entry {
    Ours(Box<Message>),
    /// The id of an entry that our program did not write.
    Foreign(String),
}

/// A message that was read and is not finished.
pub(super) struct Pending {
    pub(super) id: MessageId,
    pub(super) attempts: u64,
}

/// One shard's stream. Cheap to clone.
#[derive(Clone)]
pub(super) struct ShardStream {
    keys: Keys,
    name: Arc<str>,
    consumer: Arc<str>,
    connection: ConnectionManager,
    finish: Arc<Script>,
}

impl ShardStream {
    pub(super) fn new(keys: &Keys, shard: u64, consumer: &Arc<str>, connection: ConnectionManager) -> Self {
        Self {
            keys: keys.clone(),
            name: keys.stream(shard).into(),
            consumer: Arc::clone(consumer),
            connection,
            finish: Arc::new(Script::new(FINISH)),
        }
    }

    /// Waits for new messages. It uses the caller's connection, because a blocking read delays all later commands on
    /// its connection.
    pub(super) async fn read(&self, connection: &mut ConnectionManager) -> Result<Vec<Entry>, RedisError> {
        let reply: Option<StreamReadReply> = redis::cmd("XREADGROUP")
            .arg("GROUP")
            .arg(GROUP)
            .arg(&*self.consumer)
            .arg("COUNT")
            .arg(READ_MESSAGES)
            .arg("BLOCK")
            .arg(BLOCK_MS)
            .arg("STREAMS")
            .arg(&*self.name)
            .arg(">")
            .query_async(connection)
            .await?;
        let ids = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        Ok(decode(ids.map(|id| (id, 0)).collect()).await)
    }

    /// The number of messages that any worker read and did not finish.
    pub(super) async fn pending_count(&self) -> Result<usize, RedisError> {
        let (count, ..): (usize, Option<String>, Option<String>, redis::Value) = redis::cmd("XPENDING")
            .arg(&*self.name)
            .arg(GROUP)
            .query_async(&mut self.connection.clone())
            .await?;
        Ok(count)
    }

    /// The first unfinished messages after a given one.
    pub(super) async fn list_pending(&self, after: Option<MessageId>) -> Result<Vec<Pending>, RedisError> {
        let start = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        let rows: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
            .arg(&*self.name)
            .arg(GROUP)
            .arg(start)
            .arg("+")
            .arg(READ_MESSAGES)
            .query_async(&mut self.connection.clone())
            .await?;
        Ok(rows
            .into_iter()
            .filter_map(|(id, _, _, deliveries)| Some(Pending { id: id.parse().ok()?, attempts: deliveries }))
            .collect())
    }

    /// Reads unfinished messages without counting a delivery. Those that are no longer in the stream are acknowledged.
    pub(super) async fn fetch(&self, pending: &[Pending]) -> Result<Vec<Entry>, RedisError> {
        let mut connection = self.connection.clone();
        let mut pipe = redis::pipe();
        for message in pending {
            let id = message.id.to_string();
            pipe.cmd("XRANGE").arg(&*self.name).arg(&id).arg(&id);
        }
        let replies: Vec<StreamRangeReply> = pipe.query_async(&mut connection).await?;
        let mut found = Vec::with_capacity(pending.len());
        let mut gone = redis::pipe();
        let mut is_any_gone = false;
        for (message, reply) in pending.iter().zip(replies) {
            match reply.ids.into_iter().next() {
                Some(id) => found.push((id, message.attempts)),
                None => {
                    is_any_gone = true;
                    gone.cmd("XACK").arg(&*self.name).arg(GROUP).arg(message.id.to_string()).ignore();
                }
            }
        }
        if is_any_gone {
            gone.query_async::<()>(&mut connection).await?;
        }
        Ok(decode(found).await)
    }

    /// Stores the number of attempts in Redis, so that it survives this process. All given messages get the same number.
    pub(super) async fn count_attempts(&self, ids: &[MessageId], attempts: u64) -> Result<(), RedisError> {
        let mut claim = redis::cmd("XCLAIM");
        claim.arg(&*self.name).arg(GROUP).arg(&*self.consumer).arg(0);
        for id in ids {
            claim.arg(id.to_string());
        }
        claim.arg("RETRYCOUNT").arg(attempts).arg("JUSTID");
        claim.query_async(&mut self.connection.clone()).await
    }

    /// Acknowledges and removes messages.
    pub(super) async fn finish(&self, messages: &[Head]) -> Result<(), RedisError> {
        let mut connection = self.connection.clone();
        let mut pipe = redis::pipe();
        for message in messages {
            pipe.invoke_script(
                self.finish
                    .key(&*self.name)
                    .key(self.keys.waiting(message.org.as_str()))
                    .key(self.keys.room())
                    .arg(GROUP)
                    .arg(message.id.to_string())
                    .arg(&message.key)
                    .arg(message.events)
                    .arg(room_of(&message.raw))
                    .arg(message.org.as_str()),
            )
            .ignore();
        }
        match pipe.query_async(&mut connection).await {
            // A pipeline only sends the digest of the script. A Redis that restarted does not know it.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.finish.prepare_invoke().load_async(&mut connection).await?;
                pipe.query_async(&mut connection).await
            }
            other => other,
        }
    }

    /// Removes an entry that our program did not write.
    pub(super) async fn remove_foreign(&self, id: &str) -> Result<(), RedisError> {
        redis::pipe()
            .cmd("XACK")
            .arg(&*self.name)
            .arg(GROUP)
            .arg(id)
            .ignore()
            .cmd("XDEL")
            .arg(&*self.name)
            .arg(id)
            .ignore()
            .query_async(&mut self.connection.clone())
            .await
    }
}

/// Decodes on the blocking pool, because a full read takes some milliseconds.
async fn decode(ids: Vec<(StreamId, u64)>) -> Vec<Entry> {
    if ids.is_empty() {
        return Vec::new();
    }
    let read = move || {
        ids.into_iter()
            .map(|(id, attempts)| {
                read_message(&id, attempts)
                    .map_or(Entry::Foreign(id.id), |message| Entry::Ours(Box::new(message)))
            })
            .collect()
    };
    // If the task fails, its messages are still unfinished and will be listed again.
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn read_message(stream_id: &StreamId, attempts: u64) -> Option<Message> {
    let id = stream_id.id.parse().ok()?;
    let org = OrgId::parse(&stream_id.get::<String>("org")?).ok()?;
    let raw: Vec<u8> = stream_id.get("batch")?;
    let (key, events) = (stream_id.get("key")?, stream_id.get("events")?);
    let content = match message::decode(&raw) {
        Ok(batch) => Content::Whole(batch),
        Err(MessageError::UnknownVersion(version)) if message::is_newer(version) => Content::Newer,
        Err(error) => Content::Broken(error.to_string()),
    };
    Some(Message { head: Head { id, org, key, events, raw, attempts, was_tried_here: false }, content })
}
