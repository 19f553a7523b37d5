//! The books: what each holder has, and the requests that wait.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::rule::{Rule, Shortage};
use crate::share::{FairShare, Holder, Share};

/// What all holders have.
pub(crate) struct Held<K> {
    used: u64,
    holders: FxHashMap<K, Entry>,
    waiting: usize,
    tickets: u64,
}

impl<K> Default for Held<K> {
    fn default() -> Self {
        Self { used: 0, holders: FxHashMap::default(), waiting: 0, tickets: 0 }
    }
}

#[derive(Default)]
struct Entry {
    held: u64,
    waiting: VecDeque<Request>,
}

struct Request {
    amount: u64,
    ticket: u64,
    granted: oneshot::Sender<()>,
}

impl<K: Holder> Held<K> {
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    pub(crate) fn of(&self, holder: &K) -> u64 {
        self.holders.get(holder).map_or(0, |entry| entry.held)
    }

    pub(crate) fn take(&mut self, rule: Rule, holder: &K, amount: u64) -> Result<(), Shortage> {
        if amount == 0 {
            return Ok(());
        }
        rule.check(self.used, self.of(holder), amount)?;
        self.used += amount;
        self.holders.entry(holder.clone()).or_default().held += amount;
        Ok(())
    }

    pub(crate) fn give_back(&mut self, holder: &K, amount: u64) {
        self.used = self.used.saturating_sub(amount);
        if let Some(entry) = self.holders.get_mut(holder) {
            entry.held = entry.held.saturating_sub(amount);
        }
        self.tidy(holder);
    }

    /// Whether a request that waits would be served before a new one of this holder.
    pub(crate) fn is_anyone_before(&self, holder: &K) -> bool {
        let held = self.of(holder);
        self.waiting > 0 && self.holders.values().any(|entry| !entry.waiting.is_empty() && entry.held <= held)
    }

    /// Queues a request, unless as many as may wait do.
    pub(crate) fn wait(
        &mut self,
        holder: &K,
        amount: u64,
        most: usize,
    ) -> Option<(u64, oneshot::Receiver<()>)> {
        let entry = self.holders.entry(holder.clone()).or_default();
        if entry.waiting.len() >= most {
            return None;
        }
        self.tickets += 1;
        self.waiting += 1;
        let (granted, receiver) = oneshot::channel();
        entry.waiting.push_back(Request { amount, ticket: self.tickets, granted });
        Some((self.tickets, receiver))
    }

    pub(crate) fn forget(&mut self, holder: &K, ticket: u64) {
        if let Some(entry) = self.holders.get_mut(holder)
            && let Some(place) = entry.waiting.iter().position(|request| request.ticket == ticket)
        {
            entry.waiting.remove(place);
            self.waiting -= 1;
        }
        self.tidy(holder);
    }

    /// Grants requests as long as the first in line may have what it asks for. Nobody passes the first, so a large request
    /// is not overtaken by small ones for ever.
    pub(crate) fn serve(&mut self, rule: Rule) {
        while self.waiting > 0 {
            let first = self
                .holders
                .iter()
                .filter_map(|(holder, entry)| {
                    entry.waiting.front().map(|request| (entry.held, request.ticket, holder))
                })
                .min_by_key(|(held, ticket, _)| (*held, *ticket));
            let Some((_, _, holder)) = first else { return };
            let holder = holder.clone();
            let Some(entry) = self.holders.get_mut(&holder) else { return };
            let Some(amount) = entry.waiting.front().map(|request| request.amount) else { return };
            if rule.check(self.used, entry.held, amount).is_err() {
                return;
            }
            let Some(request) = entry.waiting.pop_front() else { return };
            self.waiting -= 1;
            // Whoever went away in this instant gets nothing.
            if request.granted.send(()).is_ok() {
                entry.held += amount;
                self.used += amount;
            }
            self.tidy(&holder);
        }
    }

    fn tidy(&mut self, holder: &K) {
        if self.holders.get(holder).is_some_and(|entry| entry.held == 0 && entry.waiting.is_empty()) {
            self.holders.remove(holder);
        }
    }
}

/// A request in the queue. Dropped early, it leaves the queue, or gives back what it was granted in that instant.
pub(crate) struct Waiting<K: Holder> {
    pub(crate) of: FairShare<K>,
    pub(crate) holder: K,
    pub(crate) amount: u64,
    pub(crate) ticket: u64,
    pub(crate) granted: Option<oneshot::Receiver<()>>,
}

impl<K: Holder> Waiting<K> {
    /// Returns when the request is granted.
    pub(crate) async fn granted(&mut self) {
        if let Some(granted) = &mut self.granted {
            // The books never drop a request that somebody waits for.
            let _ = granted.await;
        }
    }

    /// What was granted.
    pub(crate) fn into_share(mut self) -> Share<K> {
        self.granted = None;
        Share { of: self.of.clone(), holder: self.holder.clone(), amount: self.amount }
    }
}

impl<K: Holder> Drop for Waiting<K> {
    fn drop(&mut self) {
        let Some(mut granted) = self.granted.take() else { return };
        granted.close();
        match granted.try_recv() {
            Ok(()) => self.of.give_back(&self.holder, self.amount),
            Err(_) => self.of.forget(&self.holder, self.ticket),
        }
    }
}
