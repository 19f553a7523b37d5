//! Environments: the words by which senders keep production, previews and sandboxes apart.
//!
//! An event belongs to the environment that it names, else to that of its key. A workspace has three of its own and takes as many
//! new ones as [`MAX_ENVIRONMENTS`](crate::limits::MAX_ENVIRONMENTS) says; events that name further ones belong to [`OTHER`].

use rustc_hash::FxHashSet;

use crate::batches::{Batch, Group};
use crate::events::NewEvent;
use crate::limits::{MAX_ENVIRONMENT_BYTES, MAX_ENVIRONMENTS};

/// The environments that every workspace has.
pub const STANDARD: [&str; 3] = ["production", "staging", "development"];

/// The environment of events whose own has no room in the workspace, or whose name is none.
pub const OTHER: &str = "other";

/// Why a text does not name an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// It is too long.
    #[error("has {0} bytes; the limit is {MAX_ENVIRONMENT_BYTES} bytes")]
    TooLong(usize),
    /// It holds a line break or another control character.
    #[error("must not hold control characters")]
    Control,
}

/// Whether every workspace has it.
pub fn is_standard(name: &str) -> bool {
    name == OTHER || STANDARD.contains(&name)
}

/// Reads a name that someone chose. `None` for a blank text.
pub fn parse(text: &str) -> Result<Option<&str>, EnvironmentError> {
    let name = text.trim();
    if name.len() > MAX_ENVIRONMENT_BYTES {
        return Err(EnvironmentError::TooLong(name.len()));
    }
    if name.chars().any(char::is_control) {
        return Err(EnvironmentError::Control);
    }
    Ok((!name.is_empty()).then_some(name))
}

/// Reads a name out of data that must not be refused for it: what can't be a name is [`OTHER`].
pub fn read(text: &str) -> Option<&str> {
    parse(text).unwrap_or(Some(OTHER))
}

/// The environment that an event names, else that of its key.
fn named<'a>(batch: &'a Batch, event: &'a NewEvent) -> &'a str {
    event.environment.as_deref().unwrap_or(&batch.environment)
}

/// The names of environments that a group uses and that not every workspace has: by workspace, in the order of their first use.
pub fn names_to_look_up<'a>(group: &Group<'a>) -> Vec<(&'a str, Vec<&'a str>)> {
    let (mut all, mut seen) = (Vec::<(&str, Vec<&str>)>::new(), FxHashSet::default());
    for (_, batch, event) in group.new_events() {
        let (workspace, name) = (batch.workspace_id.as_str(), named(batch, event));
        if is_standard(name) || !seen.insert((workspace, name)) {
            continue;
        }
        match all.iter_mut().find(|(known, _)| *known == workspace) {
            Some((_, names)) => names.push(name),
            None => all.push((workspace, vec![name])),
        }
    }
    all
}

/// Which environments the events of a group belong to. It is computed in the transaction that stores the events, under the lock
/// of the org, so that concurrent workers agree on the names that are added.
#[derive(Debug, Default)]
pub struct Environments<'a> {
    /// (workspace, name) for which the workspace has no room.
    beyond: FxHashSet<(&'a str, &'a str)>,
}

impl<'a> Environments<'a> {
    /// Adds as many new names to a workspace as it has room for, given the `known` names that it has. Returns those that are added.
    pub fn add_names(
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
    pub fn of(&self, batch: &'a Batch, event: &'a NewEvent) -> &'a str {
        let name = named(batch, event);
        if self.has_room(batch, name) { name } else { OTHER }
    }

    /// The environment of the batch's key.
    pub fn of_key(&self, batch: &'a Batch) -> &'a str {
        if self.has_room(batch, &batch.environment) { &batch.environment } else { OTHER }
    }

    /// Whether an event is stored under [`OTHER`] because its workspace has no room for the name.
    pub fn is_beyond(&self, batch: &'a Batch, event: &'a NewEvent) -> bool {
        !self.has_room(batch, named(batch, event))
    }

    fn has_room(&self, batch: &'a Batch, name: &'a str) -> bool {
        self.beyond.is_empty() || !self.beyond.contains(&(batch.workspace_id.as_str(), name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_sane_word_is_a_name() {
        for name in ["production", "prod", "preview/pr-12", "bedrock-agentcore:default", "тест", "Dev Alice"]
        {
            assert_eq!(parse(&format!(" {name}\n")), Ok(Some(name)));
        }
        assert_eq!(parse("  "), Ok(None));
        let long = "é".repeat(MAX_ENVIRONMENT_BYTES);
        assert_eq!(parse(&long), Err(EnvironmentError::TooLong(2 * MAX_ENVIRONMENT_BYTES)));
        assert_eq!(parse("a\u{1b}b"), Err(EnvironmentError::Control));
        assert_eq!(
            (read(&long), read("a\nb"), read(" a "), read("")),
            (Some(OTHER), Some(OTHER), Some("a"), None)
        );
    }
}
