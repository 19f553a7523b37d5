//! The first start of a server: its first key and its first person, made once, whatever starts at the same time.

use serde_json::json;

use agentlens_domain::changes::Topic;
use agentlens_domain::permissions::{Caller, Role};

use super::Control;
use super::keys::{INSERT_KEY, NewKey};
use super::members::insert_member;
use super::people::NewPerson;
use crate::args;
use crate::error::StoreError;
use crate::write::{Audited, Record};

/// The setting that the first node takes: whoever inserts it makes the key and the person.
const FIRST_START: &str = "first_start";

/// What a first start made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FirstStart {
    /// The key is stored.
    pub has_key: bool,
    /// The person is stored.
    pub has_login: bool,
}

impl Control {
    /// Whether a node has made the first key and the first person.
    pub async fn is_started(&self) -> Result<bool, StoreError> {
        Ok(self.find_setting(FIRST_START).await?.is_some())
    }

    /// Stores the first key and the first person of the caller's org, in one transaction. Of nodes that start at once, one
    /// stores both and the others neither. A key is only stored while the org has none, a person only while there is none.
    pub async fn first_start(
        &self,
        caller: &Caller,
        key: Option<NewKey>,
        login: NewPerson,
    ) -> Result<FirstStart, StoreError> {
        let now_us = self.clock.now_us();
        self.write(caller, "orgs.first_start", move |tx| {
            Box::pin(async move {
                let user = login.user_id.as_str();
                // The insert waits for a node that is inserting the same. The condition only names the org.
                let take =
                    "insert into settings (name, value) select $2, $3 where $1 <> '' on conflict do nothing";
                if tx.execute(take, args![FIRST_START, user]).await? == 0 {
                    return Ok(Audited::unchanged(FirstStart::default()));
                }
                let mut made = FirstStart::default();
                let count = "select count(*) from api_keys where org_id = $1";
                if let Some(key) = &key
                    && tx.find(count, args![]).await? == Some(0_i64)
                {
                    tx.execute(INSERT_KEY, key.args(now_us)).await?;
                    made.has_key = true;
                }
                if tx.find("select count(*) from users where $1 <> ''", args![]).await? == Some(0_i64) {
                    login.insert(tx, now_us).await?;
                    insert_member(tx, user, Role::Owner, now_us).await?;
                    made.has_login = true;
                }
                let key_id = key.filter(|_| made.has_key).map(|key| key.key_id);
                let user = made.has_login.then_some(user);
                let after = json!({ "key_id": key_id, "user_id": user });
                Ok(Record::of(FIRST_START).after(after).changing(Topic::Keys).returning(made))
            })
        })
        .await
    }
}
