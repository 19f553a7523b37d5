//! Notifies subscribers that an org has new events. The hub carries only positions; what is new is read from the store, so a
//! subscriber that is slow or comes back later misses nothing.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::watch;

use agentlens_domain::ids::OrgId;

/// The hub of one process.
#[derive(Clone, Default)]
pub struct Live {
    orgs: Arc<Mutex<FxHashMap<OrgId, watch::Sender<i64>>>>,
}

impl Live {
    /// Tells that an org's events now reach `position`.
    pub fn advance(&self, org: &OrgId, position: i64) {
        if let Some(sender) = self.orgs.lock().get(org) {
            sender.send_if_modified(|known| {
                let is_news = position > *known;
                *known = position.max(*known);
                is_news
            });
        }
    }

    /// Follows an org's position, from what is known on.
    pub fn subscribe(&self, org: &OrgId, position: i64) -> watch::Receiver<i64> {
        let mut orgs = self.orgs.lock();
        orgs.retain(|_, sender| sender.receiver_count() > 0);
        let sender = orgs.entry(org.clone()).or_insert_with(|| watch::Sender::new(position));
        sender.subscribe()
    }

    /// Orgs with subscribers; on a node without workers their positions are looked up regularly.
    pub fn followed(&self) -> Vec<OrgId> {
        self.orgs
            .lock()
            .iter()
            .filter(|(_, sender)| sender.receiver_count() > 0)
            .map(|(org, _)| org.clone())
            .collect()
    }
}
