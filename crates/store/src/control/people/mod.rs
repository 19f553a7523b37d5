//! People: their accounts. What a person does to the own account is in a log of the person's own, see [`Caller::alone`].

mod factors;
mod guesses;
mod identities;
mod mail;
mod mail_tokens;
mod sessions;

pub use factors::TotpRow;
pub use identities::{IdentityRow, NewIdentity};
pub use mail::{MailRow, NewMail};
pub use mail_tokens::{MailPurpose, MailTokenRow, NewMailToken};
pub use sessions::{BrowserSessionRow, NewBrowserSession};

use serde_json::json;

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::{OrgId, UserId};
use agentlens_domain::permissions::{Caller, Role};

use super::{Control, ControlPlace};
use crate::error::StoreError;
use crate::transaction::Tx;
use crate::write::Record;
use crate::{args, row_type};

row_type! {
    /// A person.
    pub struct PersonRow {
        /// The person's id.
        pub user_id: String,
        /// The address, as it was typed.
        pub email: String,
        /// The address by which mailboxes are compared.
        pub email_key: String,
        /// The name for people.
        pub name: String,
        /// The argon2id hash; none for a person who signs in by other means only.
        pub password_hash: Option<String>,
        /// When the password was set last.
        pub password_changed_us: Option<i64>,
        /// What the dashboard keeps for the person, as JSON.
        pub preferences: String,
        /// Which version of the terms was accepted.
        pub terms_version: Option<String>,
        /// When the account was made, microseconds UTC.
        pub created_us: i64,
        /// When it was disabled.
        pub disabled_us: Option<i64>,
        /// Whether a second factor is asked for.
        pub has_second_factor: bool,
    }
}

row_type! {
    /// An org of a person.
    pub struct PersonsOrgRow {
        /// The org.
        pub org_id: String,
        /// Its name.
        pub name: String,
        /// The person's role in it.
        pub role: String,
        /// Since when, microseconds UTC.
        pub created_us: i64,
    }
}

/// A person about to be stored.
#[derive(Debug, Clone)]
pub struct NewPerson {
    /// The person's id.
    pub user_id: UserId,
    /// The address, as it was typed.
    pub email: String,
    /// The address by which mailboxes are compared.
    pub email_key: String,
    /// The name for people.
    pub name: String,
    /// The argon2id hash of the password, if there is one.
    pub password_hash: Option<String>,
    /// Which version of the terms was accepted.
    pub terms_version: Option<String>,
}

/// The columns of a person.
macro_rules! person_columns {
    () => {
        "u.user_id, u.email, u.email_key, u.name, u.password_hash, u.password_changed_us, u.preferences, u.terms_version, u.created_us,
         u.disabled_us, exists (select 1 from user_totp t where t.user_id = u.user_id and t.confirmed_us is not null)"
    };
}

impl NewPerson {
    /// Stores the person in any transaction; refused if the address has an account.
    pub(super) async fn insert(&self, tx: &Tx<'_>, now_us: i64) -> Result<(), StoreError> {
        // The condition is always true. It names `$1`, which is bound in every statement.
        let insert = "insert into users (user_id, email, email_key, name, password_hash, password_changed_us, terms_version, terms_accepted_us, created_us)
             select $2, $3, $4, $5, $6, $7, $8, $9, $10 where $1 <> '' on conflict do nothing";
        let password_changed_us = self.password_hash.as_ref().map(|_| now_us);
        let accepted_us = self.terms_version.as_ref().map(|_| now_us);
        let args = args![
            self.user_id.as_str(),
            &self.email,
            &self.email_key,
            &self.name,
            self.password_hash.clone(),
            password_changed_us,
            self.terms_version.clone(),
            accepted_us,
            now_us,
        ];
        if tx.execute(insert, args).await? == 0 { Err(StoreError::Exists("account")) } else { Ok(()) }
    }
}

impl Control {
    /// How many people there are.
    pub async fn count_users(&self) -> Result<i64, StoreError> {
        Ok(self.find::<i64>("select count(*) from users", args![]).await?.unwrap_or(0))
    }

    /// The person with an address.
    pub async fn find_person_by_email(&self, email_key: &str) -> Result<Option<PersonRow>, StoreError> {
        self.find(
            concat!("select ", person_columns!(), " from users u where u.email_key = $1"),
            args![email_key],
        )
        .await
    }

    /// One person.
    pub async fn find_person(&self, user: &UserId) -> Result<Option<PersonRow>, StoreError> {
        self.find(
            concat!("select ", person_columns!(), " from users u where u.user_id = $1"),
            args![user.as_str()],
        )
        .await
    }

    /// People in the order of their addresses, after one.
    pub async fn list_people(&self, after_email: &str, limit: u32) -> Result<Vec<PersonRow>, StoreError> {
        self.fetch(
            concat!(
                "select ",
                person_columns!(),
                " from users u where u.email_key > $1 order by u.email_key limit $2"
            ),
            args![after_email, limit],
        )
        .await
    }

    /// The orgs of a person, by name.
    pub async fn orgs_of(&self, user: &UserId) -> Result<Vec<PersonsOrgRow>, StoreError> {
        let sql = match self.place {
            ControlPlace::Sqlite(_) => {
                "select m.org_id, o.name, m.role, m.created_us
                 from org_members m join orgs o on o.org_id = m.org_id and o.deleted_us is null
                 where m.user_id = $1 order by o.name, m.org_id"
            }
            ControlPlace::Postgres(_) => "select org_id, name, role, created_us from orgs_of_user($1)",
        };
        self.fetch(sql, args![user.as_str()]).await
    }

    /// Makes a person, who is in no org yet.
    pub async fn create_person(&self, caller: &Caller, person: NewPerson) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        self.write(caller, "people.create", move |tx| {
            Box::pin(async move {
                person.insert(tx, now_us).await?;
                let after = json!({ "email": person.email, "name": person.name, "terms_version": person.terms_version });
                Ok(Record::of(person.user_id.as_str()).after(after).returning(()))
            })
        })
        .await
    }

    /// Makes a person who has a role in the caller's org.
    pub async fn create_member(
        &self,
        caller: &Caller,
        person: NewPerson,
        role: Role,
    ) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        self.write(caller, "members.create", move |tx| {
            Box::pin(async move {
                person.insert(tx, now_us).await?;
                super::members::insert_member(tx, person.user_id.as_str(), role, now_us).await?;
                let after = json!({ "email": person.email, "role": role.as_str() });
                Ok(Record::of(person.user_id.as_str()).after(after).changing(Topic::Members).returning(()))
            })
        })
        .await
    }

    /// Sets the caller's own name and preferences, where given.
    pub async fn update_person(
        &self,
        caller: &Caller,
        name: Option<String>,
        preferences: Option<String>,
    ) -> Result<(), StoreError> {
        self.write(caller, "people.update", move |tx| {
            Box::pin(async move {
                let find = "select name from users where user_id = $1";
                let before: String = tx.find(find, args![]).await?.ok_or(StoreError::NotFound)?;
                let update = "update users set name = coalesce($2, name), preferences = coalesce($3, preferences) where user_id = $1";
                tx.execute(update, args![name.clone(), preferences]).await?;
                // What the dashboard keeps is no administrative act.
                let Some(name) = name else { return Ok(crate::write::Audited::unchanged(())) };
                let record = Record::of("self").before(json!({ "name": before })).after(json!({ "name": name }));
                Ok(record.changing(Topic::People).returning(()))
            })
        })
        .await
    }

    /// Sets the caller's own password, ends all sessions but one, and voids what was mailed before.
    pub async fn set_password(
        &self,
        caller: &Caller,
        password_hash: String,
        kept_session: Option<String>,
        token: Option<[u8; 32]>,
    ) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        self.write(caller, "people.set_password", move |tx| {
            Box::pin(async move {
                if let Some(token) = token {
                    mail_tokens::take(tx, &token, MailPurpose::Reset, now_us).await?;
                }
                let update = "update users set password_hash = $2, password_changed_us = $3 where user_id = $1 and disabled_us is null";
                if tx.execute(update, args![password_hash, now_us]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                mail_tokens::void_of_person(tx).await?;
                let ended = sessions::end_all(tx, kept_session.as_deref()).await?;
                let record = Record::of("self").after(json!({ "sessions_ended": ended }));
                Ok(record.changing(Topic::People).returning(()))
            })
        })
        .await
    }

    /// Refuses to take the last owner who can sign in from an org.
    async fn keep_owners(&self, user: UserId) -> Result<(), StoreError> {
        let others = "select count(*) from org_members m join users u on u.user_id = m.user_id and u.disabled_us is null
             where m.org_id = $1 and m.role = 'owner' and m.user_id <> $2";
        for org in self.orgs_of(&user).await?.iter().filter(|org| org.role == Role::Owner.as_str()) {
            let org = OrgId::parse(&org.org_id).map_err(|_| StoreError::NotFound)?;
            let left: Vec<i64> = self.fetch_of(&org, others, args![user.as_str()]).await?;
            if left.first() == Some(&0) {
                return Err(StoreError::LastOwner);
            }
        }
        Ok(())
    }

    /// Disables an account, or enables it again. A disabled one has no sessions and can't sign in.
    pub async fn set_disabled(&self, caller: &Caller, is_disabled: bool) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        let act = if is_disabled { "people.disable" } else { "people.enable" };
        if is_disabled {
            self.keep_owners(user_of(caller)?).await?;
        }
        self.write(caller, act, move |tx| {
            Box::pin(async move {
                let update = "update users set disabled_us = $2 where user_id = $1";
                if tx.execute(update, args![is_disabled.then_some(now_us)]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                if is_disabled {
                    sessions::end_all(tx, None).await?;
                    mail_tokens::void_of_person(tx).await?;
                }
                Ok(Record::of("self").changing(Topic::People).returning(()))
            })
        })
        .await
    }
}

/// The person whose account a caller acts on.
fn user_of(caller: &Caller) -> Result<UserId, StoreError> {
    UserId::parse(caller.org.as_str()).map_err(|_| StoreError::NotFound)
}

/// The orgs of rows, whose ids are ours.
pub fn org_ids(rows: &[PersonsOrgRow]) -> Vec<OrgId> {
    rows.iter().filter_map(|row| OrgId::parse(&row.org_id).ok()).collect()
}
