//! People and their membership of orgs.

use agentlens_domain::ids::{OrgId, UserId};

use super::Control;
use crate::args;
use crate::error::StoreError;

impl Control {
    /// How many people there are.
    pub async fn count_users(&self) -> Result<i64, StoreError> {
        Ok(self.find::<i64>("select count(*) from users", args![]).await?.unwrap_or(0))
    }

    /// Makes a person who owns an org. The password comes as an argon2id hash.
    pub async fn insert_owner(
        &self,
        org: &OrgId,
        user: &UserId,
        email: &str,
        password_hash: &str,
        now_us: i64,
    ) -> Result<(), StoreError> {
        let insert = "insert into users (user_id, email, password_hash, email_verified_us, created_us) values ($1, $2, $3, $4, $4) on conflict do nothing";
        let join = "insert into org_members (org_id, user_id, role, created_us)
             select $1, $2, 'owner', $3 where exists (select 1 from users where user_id = $2)";
        let changed = self
            .execute_all(vec![
                (insert, args![user.as_str(), email, password_hash, now_us]),
                (join, args![org.as_str(), user.as_str(), now_us]),
            ])
            .await?;
        if changed.first() == Some(&1) { Ok(()) } else { Err(StoreError::Exists("user")) }
    }
}
