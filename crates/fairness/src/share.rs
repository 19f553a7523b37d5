//! Who holds how much, and who waits for more.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::rule::{Rule, Shortage};
use crate::waiting::{Held, Waiting};

/// Requests of one holder that may wait at the same time.
const MAX_WAITING: usize = 1_000;

/// Whoever shares: an org, a client address.
pub trait Holder: Clone + Eq + Hash + Send + 'static {}

impl<K: Clone + Eq + Hash + Send + 'static> Holder for K {}

/// A limited resource of the process, shared fairly among holders. Cheap to clone; clones share it.
pub struct FairShare<K: Holder> {
    rule: Rule,
    held: Arc<Mutex<Held<K>>>,
}

impl<K: Holder> Clone for FairShare<K> {
    fn clone(&self) -> Self {
        Self { rule: self.rule, held: Arc::clone(&self.held) }
    }
}

impl<K: Holder> FairShare<K> {
    /// All of it free.
    pub fn new(rule: Rule) -> Self {
        Self { rule, held: Arc::new(Mutex::new(Held::default())) }
    }

    /// The rule.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// What all holders have together.
    pub fn used(&self) -> u64 {
        self.held.lock().used()
    }

    /// What one holder has.
    pub fn held_by(&self, holder: &K) -> u64 {
        self.held.lock().of(holder)
    }

    /// Takes `amount` now, or returns the reason for refusing. Taking zero always succeeds.
    ///
    /// # Errors
    /// When the rule does not allow it now.
    pub fn try_take(&self, holder: &K, amount: u64) -> Result<Share<K>, Shortage> {
        self.held.lock().take(self.rule, holder, amount)?;
        Ok(Share { of: self.clone(), holder: holder.clone(), amount })
    }

    /// Takes `amount` as soon as the rule allows it. Of those who wait, whoever holds least comes first, then whoever
    /// has waited longest.
    ///
    /// # Errors
    /// When it can never be had, when too many requests of this holder wait already, or when `patience` has passed.
    pub async fn take(&self, holder: &K, amount: u64, patience: Duration) -> Result<Share<K>, Shortage> {
        let mut waiting = {
            let mut held = self.held.lock();
            if !held.is_anyone_before(holder) {
                match held.take(self.rule, holder, amount) {
                    Ok(()) => return Ok(Share { of: self.clone(), holder: holder.clone(), amount }),
                    Err(shortage @ Shortage::TooLarge { .. }) => return Err(shortage),
                    Err(_) => {}
                }
            } else if amount > self.rule.most() {
                return Err(Shortage::TooLarge { most: self.rule.most() });
            }
            let (ticket, granted) = held.wait(holder, amount, MAX_WAITING).ok_or(Shortage::TooManyWaiting)?;
            Waiting { of: self.clone(), holder: holder.clone(), amount, ticket, granted: Some(granted) }
        };
        match tokio::time::timeout(patience, waiting.granted()).await {
            Ok(()) => Ok(waiting.into_share()),
            Err(_) => Err(Shortage::TimedOut),
        }
    }

    pub(crate) fn give_back(&self, holder: &K, amount: u64) {
        let mut held = self.held.lock();
        held.give_back(holder, amount);
        held.serve(self.rule);
    }

    /// Takes a request out of the queue that nobody waits for any more.
    pub(crate) fn forget(&self, holder: &K, ticket: u64) {
        let mut held = self.held.lock();
        held.forget(holder, ticket);
        held.serve(self.rule);
    }
}

/// What one holder has; given back when dropped.
#[must_use]
pub struct Share<K: Holder> {
    pub(crate) of: FairShare<K>,
    pub(crate) holder: K,
    pub(crate) amount: u64,
}

impl<K: Holder> Share<K> {
    /// How much it is.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Makes it at least `amount`.
    ///
    /// # Errors
    /// When the rule does not allow it now; what was held is still held then.
    pub fn grow_to(&mut self, amount: u64) -> Result<(), Shortage> {
        let more = amount.saturating_sub(self.amount);
        if more > 0 {
            self.of.held.lock().take(self.of.rule, &self.holder, more)?;
            self.amount = amount;
        }
        Ok(())
    }

    /// Makes it at most `amount`.
    pub fn shrink_to(&mut self, amount: u64) {
        let less = self.amount.saturating_sub(amount);
        if less > 0 {
            self.amount = amount;
            self.of.give_back(&self.holder, less);
        }
    }
}

impl<K: Holder> Drop for Share<K> {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.of.give_back(&self.holder, self.amount);
        }
    }
}

#[cfg(test)]
mod tests;
