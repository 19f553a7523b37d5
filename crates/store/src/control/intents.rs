//! Intents: notes that an org's outbox may hold something. Outboxes lie in thousands of places, so nobody looks into all.

use agentlens_domain::ids::{OrgId, ulid_at, ulid_of};

use super::Control;
use crate::args;
use crate::error::StoreError;

/// Who noted an intent is given this long before anyone else looks.
const GRACE_US: i64 = 5_000_000;
/// An intent without anything in the outbox is kept this long: longer than any transaction takes.
const KEPT_US: i64 = 3_600_000_000;
/// Orgs of one page.
const ORGS_AT_A_TIME: i64 = 500;

impl Control {
    /// Notes that an org's outbox may soon hold something; returns the intent's id.
    pub async fn note_intent(&self, org: &OrgId, now_us: i64) -> Result<String, StoreError> {
        let intent = ulid_at(now_us);
        let insert = "insert into outbox_intents (intent_id, org_id) values ($1, $2)";
        self.execute_all(vec![(insert, args![&intent, org.as_str()])]).await?;
        Ok(intent)
    }

    /// Removes an intent whose messages are delivered.
    pub(crate) async fn delete_intent(&self, intent: &str) -> Result<(), StoreError> {
        let delete = "delete from outbox_intents where intent_id = $1";
        self.execute_all(vec![(delete, args![intent])]).await.map(|_| ())
    }

    /// Orgs whose outbox may hold something that is not being delivered right now: a page in the order of their ids, after one of
    /// them. The last page is empty.
    pub async fn orgs_with_intents(
        &self,
        now_us: i64,
        after: Option<&OrgId>,
    ) -> Result<Vec<OrgId>, StoreError> {
        let names: Vec<String> = self
            .fetch(
                "select distinct org_id from outbox_intents where intent_id < $1 and org_id > $2 order by org_id limit $3",
                args![
                    ulid_of(now_us - GRACE_US, 0),
                    after.map_or("", OrgId::as_str),
                    ORGS_AT_A_TIME
                ],
            )
            .await?;
        Ok(names.iter().filter_map(|name| OrgId::parse(name).ok()).collect())
    }

    /// Removes an org's intents that are so old that their transactions have ended. Its outbox must be empty.
    pub async fn delete_old_intents(&self, org: &OrgId, now_us: i64) -> Result<(), StoreError> {
        let delete = "delete from outbox_intents where org_id = $1 and intent_id < $2";
        let args = args![org.as_str(), ulid_of(now_us - KEPT_US, 0)];
        self.execute_all(vec![(delete, args)]).await.map(|_| ())
    }
}
