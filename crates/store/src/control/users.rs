//! People and their membership of orgs.

use serde_json::json;

use agentlens_domain::ids::UserId;
use agentlens_domain::permissions::Caller;

use super::Control;
use crate::args;
use crate::error::StoreError;
use crate::write::Record;

impl Control {
    /// How many people there are.
    pub async fn count_users(&self) -> Result<i64, StoreError> {
        Ok(self.find::<i64>("select count(*) from users", args![]).await?.unwrap_or(0))
    }

    /// Makes a person who owns the caller's org. The password comes as an argon2id hash.
    pub async fn insert_owner(
        &self,
        caller: &Caller,
        user: &UserId,
        email: &str,
        password_hash: &str,
    ) -> Result<(), StoreError> {
        let (user, email, password_hash) = (user.to_string(), email.to_owned(), password_hash.to_owned());
        let now_us = self.clock.now_us();
        self.write(caller, "members.create", move |tx| {
            Box::pin(async move {
                let insert = "insert into users (user_id, email, password_hash, email_verified_us, created_us)
                     select $2, $3, $4, $5, $5 where exists (select 1 from orgs where org_id = $1) on conflict do nothing";
                if tx.execute(insert, args![&user, &email, password_hash, now_us]).await? == 0 {
                    return Err(StoreError::Exists("user"));
                }
                let join =
                    "insert into org_members (org_id, user_id, role, created_us) values ($1, $2, 'owner', $3)";
                tx.execute(join, args![&user, now_us]).await?;
                Ok(Record::of(user).after(json!({ "email": email, "role": "owner" })).returning(()))
            })
        })
        .await
    }
}
