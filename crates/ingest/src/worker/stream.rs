//! The stream of one shard in Redis: reading and decoding messages, counting attempts, finishing.

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
/// A message that processes which ended meanwhile may have tried so often is applied alone.
const SUSPECT_ATTEMPTS: u64 = 2;
/// How long a read waits for messages.
const BLOCK_MS: u64 = 250;

/// Acknowledges and removes one message; the counters move only with the acknowledgement, so never twice.
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

/// A message of ours, without its batch.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) id: MessageId,
    pub(super) org: OrgId,
    pub(super) key: String,
    pub(super) events: i64,
    /// The bytes as they are in the queue.
    pub(super) raw: Vec<u8>,
    /// How many attempts may have been made to apply it; Redis keeps the number.
    pub(super) attempts: u64,
    /// Whether one of them was made by this process.
    pub(super) was_tried_here: bool,
}

/// What the bytes of a message are.
#[derive(Debug)]
pub(super) enum Content {
    Whole(Batch),
    /// Not a batch, and why.
    Broken(String),
    /// A batch in a form that only a newer program can read.
    Newer,
    /// The batch is being applied.
    Taken,
}

/// A message of ours.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) head: Head,
    pub(super) content: Content,
}

impl Message {
    /// Events that a transaction has to store for it.
    pub(super) fn event_count(&self) -> usize {
        if let Content::Whole(batch) = &self.content { batch.events.len() } else { 0 }
    }

    /// Whether it may be what ended a process before.
    pub(super) fn is_suspect(&self) -> bool {
        self.head.attempts >= SUSPECT_ATTEMPTS && !self.head.was_tried_here
    }

    /// Bytes that it takes in memory, about.
    pub(super) fn size_bytes(&self) -> usize {
        let batch = if let Content::Whole(batch) = &self.content { size_of_batch(batch) } else { 0 };
        self.head.raw.len() + batch
    }
}

/// An entry of the stream.
pub(super) enum Entry {
    Ours(Box<Message>),
    /// Something that we did not write; its id.
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

    /// Waits for new messages over a connection of the caller: a read that waits would hold up all that is behind it.
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

    /// How many messages were read and are not finished, by whoever.
    pub(super) async fn pending_count(&self) -> Result<usize, RedisError> {
        let (count, ..): (usize, Option<String>, Option<String>, redis::Value) = redis::cmd("XPENDING")
            .arg(&*self.name)
            .arg(GROUP)
            .query_async(&mut self.connection.clone())
            .await?;
        Ok(count)
    }

    /// The first of them behind a message.
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

    /// Reads messages that are pending, without counting that as a delivery. What is not in the stream any more is
    /// acknowledged.
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

    /// Writes how often messages were tried, so that the number survives this process. All of them get the same one.
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
            // A pipeline sends only the script's digest, which a Redis that restarted does not know.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.finish.prepare_invoke().load_async(&mut connection).await?;
                pipe.query_async(&mut connection).await
            }
            other => other,
        }
    }

    /// Removes an entry that is not ours.
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

/// Decodes on the blocking pool: some milliseconds for a full read.
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
    // The messages of a task that failed are pending, and are listed again.
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
