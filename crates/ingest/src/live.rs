//! Notifies subscribers that an org has new events. Notifications carry only positions and subscribers read the events from the
//! store, so a slow or returning subscriber misses nothing.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::watch;

use agentlens_domain::ids::OrgId;

/// The subscriptions of one process.
#[derive(Clone, Default)]
pub struct Live {
    orgs: Arc<Mutex<FxHashMap<OrgId, watch::Sender<i64>>>>,
}

impl Live {
    /// Announces that an org's events now reach `position`.
    pub fn advance(&self, org: &OrgId, position: i64) {
        if let Some(sender) = self.orgs.lock().get(org) {
            sender.send_if_modified(|known| {
                let is_news = position > *known;
                *known = position.max(*known);
                is_news
            });
        }
    }

    /// Subscribes to an org's position. `position` is the initial one if there is no other subscriber.
    pub fn subscribe(&self, org: &OrgId, position: i64) -> watch::Receiver<i64> {
        let mut orgs = self.orgs.lock();
        orgs.retain(|_, sender| sender.receiver_count() > 0);
        let sender = orgs.entry(org.clone()).or_insert_with(|| watch::Sender::new(position));
        sender.subscribe()
    }

    /// Orgs with subscribers. A node without workers polls their positions.
    pub fn followed(&self) -> Vec<OrgId> {
        self.orgs
            .lock()
            .iter()
            .filter(|(_, sender)| sender.receiver_count() > 0)
            .map(|(org, _)| org.clone())
            .collect()
    }
}
