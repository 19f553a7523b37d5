//! The environments of a workspace. Which names have room is decided in the transaction that stores the events, under the lock of
//! the org, so that concurrent workers agree.

use rustc_hash::FxHashSet;

use agentlens_domain::batches::Batch;
use agentlens_domain::environments::{OTHER, is_standard};
use agentlens_domain::events::NewEvent;
use agentlens_domain::limits::MAX_ENVIRONMENTS;

/// The names of a group that not every workspace has, by workspace, in the order of their appearance.
pub(crate) type Named<'a> = Vec<(&'a str, Vec<&'a str>)>;

/// Which environments the events of a group belong to.
#[derive(Debug, Default)]
pub(crate) struct Environments<'a> {
    /// (workspace, name) that the workspace has no room for.
    beyond: FxHashSet<(&'a str, &'a str)>,
}

/// The environment that an event names, else that of its key.
fn named<'a>(batch: &'a Batch, event: &'a NewEvent) -> &'a str {
    event.environment.as_deref().unwrap_or(&batch.environment)
}

/// The names that must be looked up. Mostly there are none.
pub(crate) fn names_to_look_up<'a>(batches: &'a [Batch], fresh: &[bool]) -> Named<'a> {
    let (mut all, mut seen) = (Named::new(), FxHashSet::default());
    for (_, batch) in batches.iter().enumerate().filter(|(index, _)| fresh[*index]) {
        let workspace = batch.workspace_id.as_str();
        for name in batch.events.iter().map(|event| named(batch, event)).filter(|name| !is_standard(name)) {
            if !seen.insert((workspace, name)) {
                continue;
            }
            match all.iter_mut().find(|(known, _)| *known == workspace) {
                Some((_, names)) => names.push(name),
                None => all.push((workspace, vec![name])),
            }
        }
    }
    all
}

impl<'a> Environments<'a> {
    /// Takes in the names of a workspace, given those that it has. Returns the names that are added to it.
    pub(crate) fn settle(
        &mut self,
        workspace: &'a str,
        names: &[&'a str],
        known: &FxHashSet<String>,
    ) -> Vec<&'a str> {
        let (mut added, room) = (Vec::new(), MAX_ENVIRONMENTS.saturating_sub(known.len()));
        for name in names.iter().filter(|name| !known.contains(**name)) {
            if added.len() < room {
                added.push(*name);
            } else {
                self.beyond.insert((workspace, name));
            }
        }
        added
    }

    /// The environment of an event.
    pub(crate) fn of(&self, batch: &'a Batch, event: &'a NewEvent) -> &'a str {
        let name = named(batch, event);
        if self.has_room(batch, name) { name } else { OTHER }
    }

    /// The environment of the batch's key.
    pub(crate) fn of_key(&self, batch: &'a Batch) -> &'a str {
        if self.has_room(batch, &batch.environment) { &batch.environment } else { OTHER }
    }

    /// Whether an event belongs to another environment than it names.
    pub(crate) fn is_beyond(&self, batch: &'a Batch, event: &'a NewEvent) -> bool {
        !self.has_room(batch, named(batch, event))
    }

    fn has_room(&self, batch: &'a Batch, name: &'a str) -> bool {
        self.beyond.is_empty() || !self.beyond.contains(&(batch.workspace_id.as_str(), name))
    }
}
