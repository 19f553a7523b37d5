//! Batches: the accepted events of one request on their way from the gateway to an org's tables.

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

use crate::events::NewEvent;
use crate::ids::{BatchId, KeyId, WorkspaceId};
use crate::ledger::Refusals;

/// What one request brought, after validation. The org is not in it: it is the handle that the batch is applied to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Applying the same batch twice has the effect of once.
    pub batch_id: BatchId,
    /// The workspace of the key.
    pub workspace_id: WorkspaceId,
    /// The environment of the key.
    pub environment: String,
    /// The key that sent it.
    pub key_id: KeyId,
    /// When it was accepted, in microseconds UTC.
    pub received_us: i64,
    /// How many events the request held, refused ones included.
    pub received_count: u32,
    /// What validation refused.
    pub refused: Refusals,
    /// The accepted events in the order of the request.
    pub events: Vec<NewEvent>,
}

/// What became of one accepted event when it was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored, chained and counted.
    Stored {
        /// Its hash in the chain of its session.
        hash: [u8; 32],
    },
    /// The same event was stored before.
    Duplicate,
    /// Its id was used before for another content; it is not stored.
    Conflict,
    /// The store refused it; it is not stored.
    Refused,
}

/// What became of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// Its effect is in the tables now. One outcome per event, in the order of the events.
    Now(Vec<Outcome>),
    /// Its effect was in the tables already.
    Before,
}

/// An event of a group: the index of its batch, and its index in the batch.
pub type EventPlace = (usize, usize);

/// The batches that one transaction applies, and which of them were not applied before.
#[derive(Debug)]
pub struct Group<'a> {
    batches: &'a [Batch],
    is_new: Vec<bool>,
}

impl<'a> Group<'a> {
    /// A group. `is_new` has one value per batch.
    pub fn new(batches: &'a [Batch], is_new: Vec<bool>) -> Self {
        debug_assert_eq!(batches.len(), is_new.len());
        Self { batches, is_new }
    }

    /// Every batch, and whether it is new.
    pub fn batches(&self) -> impl Iterator<Item = (&'a Batch, bool)> {
        self.batches.iter().zip(self.is_new.iter().copied())
    }

    /// The new batches with their indices.
    pub fn new_batches(&self) -> impl Iterator<Item = (usize, &'a Batch)> {
        self.batches()
            .enumerate()
            .filter(|(_, (_, is_new))| *is_new)
            .map(|(index, (batch, _))| (index, batch))
    }

    /// The events of the new batches with their places.
    pub fn new_events(&self) -> impl Iterator<Item = (EventPlace, &'a Batch, &'a NewEvent)> {
        self.new_batches().flat_map(|(batch_index, batch)| {
            batch.events.iter().enumerate().map(move |(index, event)| ((batch_index, index), batch, event))
        })
    }

    /// How many events all its batches hold.
    pub fn event_count(&self) -> usize {
        self.batches.iter().map(|batch| batch.events.len()).sum()
    }

    /// The same value for every event.
    pub fn per_event<T: Clone>(&self, value: T) -> PerEvent<T> {
        let starts = self.batches.iter().scan(0, |next, batch| {
            let start = *next;
            *next += batch.events.len();
            Some(start)
        });
        PerEvent { starts: starts.collect(), values: vec![value; self.event_count()] }
    }
}

/// One value for each event of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerEvent<T> {
    /// Where the values of each batch begin.
    starts: Vec<usize>,
    values: Vec<T>,
}

impl<T> Index<EventPlace> for PerEvent<T> {
    type Output = T;

    fn index(&self, (batch, event): EventPlace) -> &T {
        &self.values[self.starts[batch] + event]
    }
}

impl<T> IndexMut<EventPlace> for PerEvent<T> {
    fn index_mut(&mut self, (batch, event): EventPlace) -> &mut T {
        &mut self.values[self.starts[batch] + event]
    }
}
