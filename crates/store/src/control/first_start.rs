//! The first start of a server: its first key and its first person, made once, whatever starts at the same time.

use agentlens_domain::ids::{OrgId, UserId};

use super::Control;
use super::keys::{BUMP_VERSION, NewKey};
use crate::args;
use crate::error::StoreError;
use crate::statement::Value;

/// The setting that the first node takes: whoever inserts it makes the key and the person.
const FIRST_START: &str = "first_start";

/// A person about to be stored as the owner of an org.
#[derive(Debug)]
pub struct NewLogin {
    /// The person's id.
    pub user_id: UserId,
    /// The e-mail address to sign in with.
    pub email: String,
    /// The password's argon2id hash.
    pub password_hash: String,
}

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

    /// Stores the first key and the first person, in one transaction. Of nodes that start at once, one stores both and
    /// the others neither. A key is only stored while the org has none, a person only while there is none.
    pub async fn first_start(
        &self,
        org: &OrgId,
        key: Option<&NewKey>,
        login: &NewLogin,
        now_us: i64,
    ) -> Result<FirstStart, StoreError> {
        // The insert waits for a node that is inserting the same; from then on the value says whose turn it is.
        let take = "insert into settings (name, value) values ($1, $2) on conflict do nothing";
        let insert_key = "insert into api_keys (org_id, key_id, digest, shown_prefix, name, workspace_id, environment, scopes, created_us, expires_us)
             select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
             where exists (select 1 from settings where name = $11 and value = $12)
               and not exists (select 1 from api_keys where org_id = $1)";
        let insert_user = "insert into users (user_id, email, password_hash, email_verified_us, created_us)
             select $1, $2, $3, $4, $4
             where exists (select 1 from settings where name = $5 and value = $1)
               and not exists (select 1 from users)";
        let insert_member = "insert into org_members (org_id, user_id, role, created_us)
             select $1, $2, 'owner', $3 where exists (select 1 from users where user_id = $2)";
        let user = login.user_id.as_str();
        let mut statements = vec![(take, args![FIRST_START, user])];
        if let Some(key) = key {
            let mut args = key.args(org, now_us);
            args.extend([Value::from(FIRST_START), Value::from(user)]);
            statements.push((insert_key, args));
        }
        statements.extend([
            (BUMP_VERSION, args![]),
            (insert_user, args![user, &login.email, &login.password_hash, now_us, FIRST_START]),
            (insert_member, args![org.as_str(), user, now_us]),
        ]);
        let changed = self.execute_all(statements).await?;
        let has_key = key.is_some() && changed.get(1) == Some(&1);
        Ok(FirstStart { has_key, has_login: changed.last() == Some(&1) })
    }
}
