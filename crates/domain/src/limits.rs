//! Every limit of the product that is a number, in one place. Plans add theirs in the catalogue.
//!
//! An error that a limit causes names the limit and its value; the texts are made from these constants.

/// Events in one request.
pub const MAX_BATCH_EVENTS: usize = 10_000;
/// Bytes of a request body as received, before decompression.
pub const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a request body after decompression.
pub const MAX_DECOMPRESSED_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of one event's payload in its canonical text; such a payload is kept whole. Of a longer one the largest parts are cut.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;
/// Bytes of one event's metadata in its canonical text; of longer ones the largest parts are cut.
pub const MAX_METADATA_BYTES: usize = 64 * 1024;
/// Bytes of a session id, an agent id or an event id given by a client.
pub const MAX_ID_BYTES: usize = 256;
/// Bytes of an `Idempotency-Key`.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;
/// Nesting of a payload or of metadata.
pub const MAX_JSON_DEPTH: usize = 256;
/// Characters of the preview that lists show.
pub const PREVIEW_CHARS: usize = 200;
/// Bytes of a name read from a payload into a typed column (tool, model, provider, user, call id).
pub const MAX_NAME_BYTES: usize = 256;
/// Environments of a workspace besides those that every workspace has.
pub const MAX_ENVIRONMENTS: usize = 50;
/// Bytes of the name of an environment.
pub const MAX_ENVIRONMENT_BYTES: usize = 64;
/// Tags of a session, and bytes of one of them.
pub const MAX_TAGS: usize = 64;
/// How far an event's timestamp may lie in the future (a client's clock is seldom exact), in microseconds: 24 h.
pub const MAX_FUTURE_US: i64 = 24 * 3600 * 1_000_000;
/// The earliest timestamp of an event: 2000-01-01T00:00:00Z, in microseconds.
pub const MIN_TIMESTAMP_US: i64 = 946_684_800_000_000;
/// How long a call or a span may take, in microseconds: ten years. A longer time is a clock's mistake.
pub const MAX_DURATION_US: i64 = 3653 * 24 * 3600 * 1_000_000;
/// Rows of a page unless the request says otherwise.
pub const DEFAULT_PAGE_ROWS: u32 = 50;
/// Rows of a page at most.
pub const MAX_PAGE_ROWS: u32 = 1_000;
/// The deepest row that `offset` reaches; cursors reach every row.
pub const MAX_OFFSET_ROWS: u32 = 10_000;
/// A list's `total` is exact up to this number and capped at it beyond.
pub const MAX_COUNTED_ROWS: i64 = 10_000;
/// Events of one timeline answer.
pub const MAX_TIMELINE_EVENTS: u32 = 10_000;
/// Bytes of payloads and metadata after which a page of events ends early (it holds at least one event). The next page goes on
/// from `nextCursor` or `nextSeq`.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of request bodies that are read and parsed at the same time, as they are after decompression.
pub const MAX_BODIES_IN_MEMORY_BYTES: usize = 256 * 1024 * 1024;
/// Minutes without an event after which an open session is shown as idle.
pub const SESSION_IDLE_MINUTES: i64 = 30;
/// Bytes of a search text.
pub const MAX_SEARCH_BYTES: usize = 1_024;
/// Rows that one search answer reads at most before it hands back a cursor to go on from.
pub const MAX_SEARCH_SCAN_EVENTS: usize = 50_000;
/// Events that one analytics answer counts one by one, where its range or its days begin or end between two hours; and bytes of
/// what is read for that. Beyond, whole hours and days are used, and the answer says so.
pub const MAX_EDGE_EVENTS: i64 = 50_000;
/// See [`MAX_EDGE_EVENTS`].
pub const MAX_EDGE_BYTES: i64 = 64 * 1024 * 1024;
/// Rows of a table of analytics, unless the request says otherwise.
pub const DEFAULT_TABLE_ROWS: u32 = 100;
/// Subscribers of the live stream on one server.
pub const MAX_STREAM_SUBSCRIBERS: usize = 1_000;
/// Subscribers of the live stream of one org on one server.
pub const MAX_ORG_STREAM_SUBSCRIBERS: usize = 100;
/// Bytes of events that a live stream reads ahead of what was sent (at least one event).
pub const MAX_STREAM_AHEAD_BYTES: usize = 256 * 1024;
/// Bytes of an answer beyond which its JSON is written on a thread of its own.
pub const LARGE_ANSWER_BYTES: usize = 128 * 1024;
/// Chains up to this long are verified whole whenever a page of their session is read; of longer ones, the page alone.
pub const MAX_VERIFIED_EVENTS: i64 = 2_000;
/// API keys of one org that are not revoked (plans set lower ones).
pub const MAX_ACTIVE_KEYS: i64 = 1_000;
/// Characters of a refused number literal that an error repeats.
pub const MAX_ERROR_LITERAL_CHARS: usize = 40;
/// Characters of the path to an offending value that an error repeats.
pub const MAX_ERROR_PATH_CHARS: usize = 200;
/// Events of one segment of the search index.
pub const SEGMENT_EVENTS: usize = 4096;
/// Bytes of text after which a segment is closed before it has that many events.
pub const SEGMENT_TEXT_BYTES: usize = 8 * 1024 * 1024;
/// Events of one block, the unit in which the search index points at events.
pub const BLOCK_EVENTS: usize = 64;
/// Bytes of text after which a block is closed before it has that many events.
pub const BLOCK_TEXT_BYTES: usize = 128 * 1024;
