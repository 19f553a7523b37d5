//! Ways to sign in beside the password: what providers call a person.

use serde_json::json;

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::UserId;
use agentlens_domain::permissions::Caller;

use super::NewPerson;
use crate::control::Control;
use crate::error::StoreError;
use crate::transaction::Tx;
use crate::write::Record;
use crate::{args, row_type};

row_type! {
    /// A way to sign in of a person.
    pub struct IdentityRow {
        /// `google`, `github`, or `oidc:` and the id of an org's connection.
        pub provider: String,
        /// What the provider calls the person.
        pub subject: String,
        /// The address that the provider knew when the way was added.
        pub email: Option<String>,
        /// When that was, microseconds UTC.
        pub created_us: i64,
    }
}

/// A way to sign in, about to be stored.
#[derive(Debug, Clone)]
pub struct NewIdentity {
    /// `google`, `github`, or `oidc:` and the id of an org's connection.
    pub provider: String,
    /// What the provider calls the person.
    pub subject: String,
    /// The address that the provider knows.
    pub email: Option<String>,
}

impl NewIdentity {
    /// Gives it to the transaction's person. Refused if it is somebody's, or if the person has another one of this provider.
    pub(super) async fn insert(&self, tx: &Tx<'_>, user: &str, now_us: i64) -> Result<(), StoreError> {
        // The condition names `$1`, which is bound in every statement and need not be the person.
        let insert = "insert into user_identities (user_id, provider, subject, email, created_us)
             select $2, $3, $4, $5, $6 where $1 <> ''
             and not exists (select 1 from user_identities where user_id = $2 and provider = $3)
             on conflict do nothing";
        let args = args![user, &self.provider, &self.subject, self.email.clone(), now_us];
        if tx.execute(insert, args).await? == 0 { Err(StoreError::Exists("identity")) } else { Ok(()) }
    }
}

impl Control {
    /// The person whom a provider knows by a subject.
    pub async fn find_identity(&self, provider: &str, subject: &str) -> Result<Option<UserId>, StoreError> {
        let find = "select user_id from user_identities where provider = $1 and subject = $2";
        let found: Option<String> = self.find(find, args![provider, subject]).await?;
        Ok(found.and_then(|id| UserId::parse(&id).ok()))
    }

    /// A person's ways to sign in beside the password.
    pub async fn identities_of(&self, user: &UserId) -> Result<Vec<IdentityRow>, StoreError> {
        self.fetch(
            "select provider, subject, email, created_us from user_identities where user_id = $1 order by provider, subject",
            args![user.as_str()],
        )
        .await
    }

    /// Lets the caller sign in through a provider. Refused if the identity is another person's, or if the caller has one of this
    /// provider already.
    pub async fn link_identity(&self, caller: &Caller, identity: NewIdentity) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        let user = caller.person().ok_or(StoreError::NotFound)?.to_string();
        self.write(caller, "identities.link", move |tx| {
            Box::pin(async move {
                identity.insert(tx, &user, now_us).await?;
                let after = json!({ "subject": identity.subject, "email": identity.email });
                Ok(Record::of(identity.provider).after(after).returning(()))
            })
        })
        .await
    }

    /// Takes a way to sign in from the caller, and ends all sessions but one. Refused if it is the last one.
    pub async fn unlink_identity(
        &self,
        caller: &Caller,
        provider: &str,
        kept_session: Option<String>,
    ) -> Result<(), StoreError> {
        let provider = provider.to_owned();
        self.write(caller, "identities.unlink", move |tx| {
            Box::pin(async move {
                // The person's row stays locked, so that of two ways that are taken away at once one is left.
                let lock =
                    "update users set name = name where user_id = $1 returning case when password_hash is null then cast(0 as bigint) else cast(1 as bigint) end";
                let has_password: i64 = tx.find(lock, args![]).await?.ok_or(StoreError::NotFound)?;
                let remove = "delete from user_identities where user_id = $1 and provider = $2";
                if tx.execute(remove, args![&provider]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                let left = "select count(*) from user_identities where user_id = $1";
                let left: i64 = tx.find(left, args![]).await?.unwrap_or(0);
                if has_password == 0 && left == 0 {
                    return Err(StoreError::LastWayToSignIn);
                }
                // A sign-in that waits for its code may have begun with it.
                tx.execute("delete from login_flows where user_id = $1", args![]).await?;
                super::sessions::end_all(tx, kept_session.as_deref()).await?;
                Ok(Record::of(provider).changing(Topic::People).returning(()))
            })
        })
        .await
    }

    /// Makes a person who signs in through a provider, which has verified the address; all other sign-ups with it are void.
    pub async fn create_person_of_provider(
        &self,
        caller: &Caller,
        person: NewPerson,
        identity: NewIdentity,
    ) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        self.write(caller, "people.create", move |tx| {
            Box::pin(async move {
                person.insert(tx, now_us).await?;
                identity.insert(tx, person.user_id.as_str(), now_us).await?;
                super::mail_tokens::void_sign_ups(tx, &person.email_key).await?;
                let after = json!({
                    "email": person.email, "name": person.name, "terms_version": person.terms_version,
                    "provider": identity.provider, "subject": identity.subject,
                });
                Ok(Record::of(person.user_id.as_str()).after(after).returning(()))
            })
        })
        .await
    }
}
