//! The waiting messages of one shard, in a lane for each org. An org that fails or is slow does not delay the others.
//!
//! A lane keeps the order of the stream, and at most one group of its messages is applied at a time. Messages that
//! exceed the memory limits are kept by id only and fetched again before their turn.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use agentlens_domain::ids::OrgId;

use super::stream::{Content, Message, MessageId, Pending, READ_MESSAGES};

/// Events that are applied in one transaction.
const MAX_GROUP_EVENTS: usize = 5_000;
/// Bytes of messages in memory for one org, and for all orgs of a shard. The first message of a lane is kept even beyond them.
const MAX_LANE_BYTES: usize = 8 << 20;
const MAX_SHARD_BYTES: usize = 32 << 20;
/// How long an org waits after its first failure. The pause doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Messages of one org that are applied together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) org: OrgId,
    pub(super) messages: Vec<Message>,
    /// How long the first of them has been failing.
    pub(super) failing_for: Duration,
}

/// The lanes of one shard.
#[derive(Default)]
pub(super) struct Lanes {
    orgs: FxHashMap<OrgId, Lane>,
    /// Orgs that can be applied, in the order of their turns.
    ready: VecDeque<OrgId>,
    /// Orgs that wait after a failure, by the end of their pause.
    parked: BTreeSet<(Instant, OrgId)>,
    /// Orgs whose messages should be fetched.
    fetches: VecDeque<OrgId>,
    held_bytes: usize,
    blocked: usize,
}

#[derive(Default)]
struct Lane {
    /// Sorted by id.
    waiting: VecDeque<Waiting>,
    state: State,
    held_bytes: usize,
    is_fetching: bool,
    failures: u32,
    failing: Option<(MessageId, Instant)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is in the queue of orgs that can be applied.
    #[default]
    Ready,
    /// One of its groups is being applied.
    Running,
    /// It waits after a failure.
    Parked,
    /// Its next message must be fetched first.
    Starved,
    /// Only a newer program can read its next message.
    Blocked,
}

struct Waiting {
    id: MessageId,
    attempts: u64,
    size_bytes: usize,
    message: Option<Box<Message>>,
}

impl Lane {
    fn is_next_blocked(&self) -> bool {
        self.waiting
            .front()
            .and_then(|waiting| waiting.message.as_ref())
            .is_some_and(|message| matches!(message.content, Content::Newer))
    }

    /// Removes the first message if it is in memory.
    fn pop(&mut self) -> Option<(Box<Message>, usize)> {
        let message = self.waiting.front_mut()?.message.take()?;
        let waiting = self.waiting.pop_front()?;
        self.held_bytes -= waiting.size_bytes;
        Some((message, waiting.size_bytes))
    }
}

fn must_be_applied_alone(message: &Message) -> bool {
    !matches!(message.content, Content::Whole(_)) || message.is_suspect()
}

impl Lanes {
    /// Adds a message that was read.
    pub(super) fn push(&mut self, message: Box<Message>) {
        let org = message.head.org.clone();
        let (id, attempts, size_bytes) = (message.head.id, message.head.attempts, message.size_bytes());
        let is_new = !self.orgs.contains_key(&org);
        let lane = self.orgs.entry(org.clone()).or_default();
        let place = match lane.waiting.binary_search_by_key(&id, |waiting| waiting.id) {
            Ok(_) => return,
            Err(place) => place,
        };
        // If a message is not in memory, none after it may be: it would take the memory that the earlier one needs first.
        let has_room = lane.waiting.is_empty()
            || (lane.held_bytes + size_bytes <= MAX_LANE_BYTES
                && self.held_bytes + size_bytes <= MAX_SHARD_BYTES
                && lane.waiting.back().is_none_or(|last| last.message.is_some()));
        if has_room {
            lane.held_bytes += size_bytes;
            self.held_bytes += size_bytes;
        }
        lane.waiting
            .insert(place, Waiting { id, attempts, size_bytes, message: has_room.then_some(message) });
        if is_new {
            self.ready.push_back(org);
        }
    }

    /// The next group to apply, from the org whose turn it is.
    pub(super) fn next_group(&mut self, now: Instant) -> Option<Group> {
        while let Some((end, _)) = self.parked.first()
            && *end <= now
            && let Some((_, org)) = self.parked.pop_first()
        {
            self.make_ready(&org);
        }
        while let Some(org) = self.ready.pop_front() {
            let Some(lane) = self.orgs.get_mut(&org) else { continue };
            if lane.waiting.is_empty() {
                self.orgs.remove(&org);
                continue;
            }
            if lane.is_next_blocked() {
                lane.state = State::Blocked;
                self.blocked += 1;
                continue;
            }
            let Some((first, mut size_bytes)) = lane.pop() else {
                lane.state = State::Starved;
                self.want_fetch(&org);
                continue;
            };
            lane.state = State::Running;
            let failing = lane.failing.filter(|(id, _)| *id == first.head.id);
            let failing_for =
                failing.map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(since));
            let is_alone = must_be_applied_alone(&first);
            let mut events = first.event_count();
            let mut messages = vec![*first];
            while !is_alone
                && messages.len() < READ_MESSAGES
                && let Some(next) = lane.waiting.front().and_then(|waiting| waiting.message.as_ref())
                && !must_be_applied_alone(next)
                && events + next.event_count() <= MAX_GROUP_EVENTS
                && let Some((next, bytes)) = lane.pop()
            {
                events += next.event_count();
                size_bytes += bytes;
                messages.push(*next);
            }
            self.held_bytes -= size_bytes;
            self.want_fetch(&org);
            return Some(Group { org, messages, failing_for });
        }
        None
    }

    /// Ends a group. `rest` holds its unfinished messages in order. After a failure the org pauses.
    pub(super) fn end_group(&mut self, org: &OrgId, rest: Vec<Message>, has_failed: bool, now: Instant) {
        let Some(lane) = self.orgs.get_mut(org) else { return };
        let head = rest.first().map(|message| message.head.id);
        for message in rest.into_iter().rev() {
            let size_bytes = message.size_bytes();
            lane.held_bytes += size_bytes;
            self.held_bytes += size_bytes;
            lane.waiting.push_front(Waiting {
                id: message.head.id,
                attempts: message.head.attempts,
                size_bytes,
                message: Some(Box::new(message)),
            });
        }
        match head.filter(|_| has_failed) {
            Some(head) => {
                if lane.failing.is_none_or(|(id, _)| id != head) {
                    (lane.failing, lane.failures) = (Some((head, now)), 0);
                }
                let pause = FIRST_PAUSE.saturating_mul(1 << lane.failures.min(8)).min(LONGEST_PAUSE);
                lane.failures += 1;
                lane.state = State::Parked;
                self.parked.insert((now + pause, org.clone()));
            }
            None if lane.waiting.is_empty() => {
                self.orgs.remove(org);
            }
            None => {
                (lane.failing, lane.failures) = (None, 0);
                self.make_ready(org);
            }
        }
    }

    fn make_ready(&mut self, org: &OrgId) {
        if let Some(lane) = self.orgs.get_mut(org) {
            lane.state = State::Ready;
            self.ready.push_back(org.clone());
        }
    }

    fn want_fetch(&mut self, org: &OrgId) {
        let Some(lane) = self.orgs.get_mut(org) else { return };
        let is_missing = |waiting: Option<&Waiting>| waiting.is_some_and(|waiting| waiting.message.is_none());
        // The lane can't proceed without its first message. Later ones are fetched when there is memory for them.
        let is_wanted = is_missing(lane.waiting.front())
            || (is_missing(lane.waiting.back()) && lane.held_bytes <= MAX_LANE_BYTES / 2);
        if is_wanted && !lane.is_fetching {
            lane.is_fetching = true;
            self.fetches.push_back(org.clone());
        }
    }

    /// The next messages to fetch: the first messages of an org that are not in memory, as many as the limits allow.
    pub(super) fn next_fetch(&mut self) -> Option<(OrgId, Vec<Pending>)> {
        let org = self.fetches.pop_front()?;
        let lane = self.orgs.get_mut(&org)?;
        let (mut lane_bytes, mut all_bytes) = (lane.held_bytes, self.held_bytes);
        let missing = lane.waiting.iter().skip_while(|waiting| waiting.message.is_some());
        let mut wanted = Vec::new();
        for waiting in missing.take_while(|waiting| waiting.message.is_none()).take(READ_MESSAGES) {
            (lane_bytes, all_bytes) = (lane_bytes + waiting.size_bytes, all_bytes + waiting.size_bytes);
            if !wanted.is_empty() && (lane_bytes > MAX_LANE_BYTES || all_bytes > MAX_SHARD_BYTES) {
                break;
            }
            wanted.push(Pending { id: waiting.id, attempts: waiting.attempts });
        }
        if wanted.is_empty() {
            lane.is_fetching = false;
            return None;
        }
        Some((org, wanted))
    }

    /// Adds fetched messages. Those that were requested but not found have left the stream.
    pub(super) fn end_fetch(&mut self, org: &OrgId, asked: &[MessageId], messages: Vec<Message>) {
        let Some(lane) = self.orgs.get_mut(org) else { return };
        lane.is_fetching = false;
        for message in messages {
            if let Ok(place) = lane.waiting.binary_search_by_key(&message.head.id, |waiting| waiting.id)
                && let Some(waiting) = lane.waiting.get_mut(place)
                && waiting.message.is_none()
            {
                lane.held_bytes += waiting.size_bytes;
                self.held_bytes += waiting.size_bytes;
                waiting.message = Some(Box::new(message));
            }
        }
        lane.waiting.retain(|waiting| waiting.message.is_some() || !asked.contains(&waiting.id));
        if lane.state == State::Starved {
            if lane.waiting.is_empty() {
                self.orgs.remove(org);
            } else {
                self.make_ready(org);
            }
        }
    }

    /// Whether a group can be applied now.
    pub(super) fn is_any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the next pause ends.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.parked.first().map(|(end, _)| *end)
    }

    /// How many orgs wait after a failure.
    pub(super) fn parked_orgs(&self) -> usize {
        self.parked.len()
    }

    /// How many orgs wait for a newer program.
    pub(super) fn blocked_orgs(&self) -> usize {
        self.blocked
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::Head;
    use super::*;

    fn message(org: &str, millis: u64, size_bytes: usize) -> Box<Message> {
        let head = Head {
            id: format!("{millis}-0").parse().unwrap(),
            org: OrgId::parse(org).unwrap(),
            key: "key".to_owned(),
            events: 1,
            raw: vec![0; size_bytes],
            attempts: 0,
            was_tried_here: false,
        };
        let batch = agentlens_domain::batches::Batch {
            batch_id: agentlens_domain::ids::BatchId::at(0),
            workspace_id: agentlens_domain::ids::WorkspaceId::default_workspace(),
            environment: "production".to_owned(),
            key_id: agentlens_domain::ids::KeyId::random(),
            received_us: 0,
            received_count: 1,
            refused: agentlens_domain::ledger::Refusals::default(),
            events: Vec::new(),
        };
        Box::new(Message { head, content: Content::Whole(batch) })
    }

    fn ids(messages: &[Message]) -> Vec<String> {
        messages.iter().map(|message| message.head.id.to_string()).collect()
    }

    #[test]
    fn an_org_that_fails_pauses_alone_and_keeps_its_order() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        for (org, millis) in [("p", 1), ("q", 2), ("p", 3)] {
            lanes.push(message(org, millis, 10));
        }
        let group = lanes.next_group(now).unwrap();
        assert_eq!((group.org.as_str(), ids(&group.messages)), ("p", vec!["1-0".into(), "3-0".into()]));
        let (org, failed) = (group.org, group.messages);
        lanes.end_group(&org, failed, true, now);
        lanes.push(message("p", 4, 10));
        let group = lanes.next_group(now).unwrap();
        assert_eq!(group.org.as_str(), "q");
        lanes.end_group(&group.org, Vec::new(), false, now);
        assert!(lanes.next_group(now).is_none());
        assert_eq!(lanes.next_wake(), Some(now + FIRST_PAUSE));
        let later = now + FIRST_PAUSE;
        let group = lanes.next_group(later).unwrap();
        assert_eq!(ids(&group.messages), ["1-0", "3-0", "4-0"]);
        assert_eq!(group.failing_for, FIRST_PAUSE);
        // A second failure of the same message doubles the pause. Another message starts with the first pause.
        lanes.end_group(&org, group.messages, true, later);
        assert_eq!(lanes.next_wake(), Some(later + 2 * FIRST_PAUSE));
        let mut group = lanes.next_group(later + 2 * FIRST_PAUSE).unwrap();
        lanes.end_group(&org, group.messages.split_off(1), true, later);
        assert_eq!(lanes.next_wake(), Some(later + FIRST_PAUSE));
    }

    #[test]
    fn what_does_not_fit_into_memory_is_fetched_in_its_turn() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let size = MAX_LANE_BYTES / 4;
        for millis in 0..10 {
            lanes.push(message("p", millis, size));
        }
        assert!(lanes.held_bytes <= MAX_LANE_BYTES);
        let mut seen = Vec::new();
        while let Some(group) = lanes.next_group(now) {
            seen.extend(ids(&group.messages));
            let (org, wanted) = lanes.next_fetch().unwrap_or((group.org.clone(), Vec::new()));
            let asked: Vec<MessageId> = wanted.iter().map(|pending| pending.id).collect();
            let fetched = asked.iter().map(|id| *message("p", id.millis(), size)).collect();
            lanes.end_fetch(&org, &asked, fetched);
            assert!(lanes.held_bytes <= MAX_LANE_BYTES);
            lanes.end_group(&group.org, Vec::new(), false, now);
        }
        assert_eq!(seen, (0..10).map(|millis| format!("{millis}-0")).collect::<Vec<_>>());
        assert_eq!((lanes.held_bytes, lanes.orgs.len()), (0, 0));
    }

    #[test]
    fn an_older_message_that_comes_late_is_fetched_first() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.push(message("p", 2, MAX_LANE_BYTES - 10));
        lanes.push(message("p", 1, 100));
        assert!(lanes.next_group(now).is_none());
        let (org, wanted) = lanes.next_fetch().unwrap();
        let asked: Vec<MessageId> = wanted.iter().map(|pending| pending.id).collect();
        lanes.end_fetch(&org, &asked, vec![*message("p", 1, 100)]);
        let group = lanes.next_group(now).unwrap();
        assert_eq!(ids(&group.messages), ["1-0", "2-0"]);
        lanes.end_group(&org, Vec::new(), false, now);
        // A message that has left the stream blocks nothing.
        lanes.push(message("p", 4, MAX_LANE_BYTES - 10));
        lanes.push(message("p", 3, 100));
        assert!(lanes.next_group(now).is_none());
        let (org, wanted) = lanes.next_fetch().unwrap();
        let asked: Vec<MessageId> = wanted.iter().map(|pending| pending.id).collect();
        lanes.end_fetch(&org, &asked, Vec::new());
        assert_eq!(ids(&lanes.next_group(now).unwrap().messages), ["4-0"]);
    }

    #[test]
    fn a_newer_message_blocks_its_org_only() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let mut newer = message("p", 1, 10);
        newer.content = Content::Newer;
        lanes.push(newer);
        lanes.push(message("p", 2, 10));
        lanes.push(message("q", 3, 10));
        assert_eq!(lanes.next_group(now).unwrap().org.as_str(), "q");
        assert!(lanes.next_group(now).is_none());
        assert_eq!(lanes.blocked_orgs(), 1);
    }
}
