//! Secrets that were mailed: each is bound to one address and one purpose, expires, and is used once.

use agentlens_domain::ids::UserId;

use super::mail::NewMail;
use crate::control::Control;
use crate::error::StoreError;
use crate::transaction::Tx;
use crate::{args, row_type};

/// What a mailed secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailPurpose {
    /// To prove an address at sign-up.
    SignUp,
    /// To set a new password.
    Reset,
}

impl MailPurpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::SignUp => "sign_up",
            Self::Reset => "reset",
        }
    }
}

row_type! {
    /// A mailed secret that can be used.
    pub struct MailTokenRow {
        /// The address that it was sent to.
        pub email_key: String,
        /// The person, if there is an account.
        pub user_id: Option<String>,
        /// What was asked for, as JSON.
        pub state: String,
        /// Until when it can be used, microseconds UTC.
        pub expires_us: i64,
    }
}

/// A mailed secret about to be stored.
#[derive(Debug)]
pub struct NewMailToken {
    /// Its digest.
    pub digest: [u8; 32],
    /// What it is for.
    pub purpose: MailPurpose,
    /// The address that it is sent to.
    pub email_key: String,
    /// The person, if there is an account.
    pub user_id: Option<UserId>,
    /// What was asked for, as JSON.
    pub state: String,
    /// Until when it can be used, microseconds UTC.
    pub expires_us: i64,
}

/// Uses a secret in the transaction of what it is for.
pub(super) async fn take(
    tx: &Tx<'_>,
    digest: &[u8; 32],
    purpose: MailPurpose,
    now_us: i64,
) -> Result<(), StoreError> {
    let take = "update mail_tokens set used_us = $4 where digest = $2 and purpose = $3 and used_us is null and expires_us > $4 and $1 <> ''";
    let taken = tx.execute(take, args![digest, purpose.as_str(), now_us]).await?;
    if taken == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

/// Voids all secrets that were mailed to the transaction's person, and sign-ins that are half done: they began with what guarded the
/// account until now.
pub(super) async fn void_of_person(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.execute("delete from login_flows where user_id = $1", args![]).await?;
    tx.execute("delete from mail_tokens where user_id = $1", args![]).await.map(|_| ())
}

/// Voids all sign-ups with an address.
pub(super) async fn void_sign_ups(tx: &Tx<'_>, email_key: &str) -> Result<(), StoreError> {
    let void = "delete from mail_tokens where email_key = $2 and purpose = 'sign_up' and $1 <> ''";
    tx.execute(void, args![email_key]).await.map(|_| ())
}

impl Control {
    /// Stores a secret and the mail that carries it, or a mail alone. Of secrets to reset a password, only the newest can be used. One for
    /// a sign-up doesn't void older ones, or a stranger could void a link by asking for another: each holds the password that
    /// was chosen with it.
    pub async fn insert_mail_token(
        &self,
        token: Option<NewMailToken>,
        mail: NewMail,
    ) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        let mut statements = Vec::new();
        if let Some(token) = token {
            if token.purpose == MailPurpose::Reset {
                let void = "delete from mail_tokens where email_key = $1 and purpose = $2";
                statements.push((void, args![&token.email_key, token.purpose.as_str()]));
            }
            statements.push((
                "insert into mail_tokens (digest, purpose, email_key, user_id, state, created_us, expires_us) values ($1, $2, $3, $4, $5, $6, $7)",
                args![
                    &token.digest,
                    token.purpose.as_str(),
                    &token.email_key,
                    token.user_id.map(|user| user.to_string()),
                    token.state,
                    now_us,
                    token.expires_us
                ],
            ));
        }
        statements.push(self.sealed(mail).statement(now_us));
        self.execute_all(statements).await.map(|_| ())
    }

    /// A secret that can still be used.
    pub async fn find_mail_token(
        &self,
        digest: &[u8; 32],
        purpose: MailPurpose,
    ) -> Result<Option<MailTokenRow>, StoreError> {
        self.find(
            "select email_key, user_id, state, expires_us from mail_tokens where digest = $1 and purpose = $2 and used_us is null and expires_us > $3",
            args![digest, purpose.as_str(), self.clock.now_us()],
        )
        .await
    }

    /// Makes the person of a sign-up, and voids all other sign-ups with the address.
    pub async fn finish_sign_up(
        &self,
        caller: &agentlens_domain::permissions::Caller,
        digest: [u8; 32],
        person: super::NewPerson,
    ) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        self.write(caller, "people.create", move |tx| {
            Box::pin(async move {
                take(tx, &digest, MailPurpose::SignUp, now_us).await?;
                person.insert(tx, now_us).await?;
                void_sign_ups(tx, &person.email_key).await?;
                let after = serde_json::json!({ "email": person.email, "name": person.name, "terms_version": person.terms_version });
                Ok(crate::write::Record::of(person.user_id.as_str()).after(after).returning(()))
            })
        })
        .await
    }

    /// Deletes what has expired: mailed secrets, half-done sign-ins, sessions and counters of guesses. Returns how many rows.
    pub async fn trim_people(&self, guesses_before_us: i64) -> Result<u64, StoreError> {
        let now_us = self.clock.now_us();
        let deleted = self
            .execute_all(vec![
                ("delete from mail_tokens where expires_us < $1", args![now_us]),
                ("delete from login_flows where expires_us < $1", args![now_us]),
                (
                    "delete from browser_sessions where expires_us < $1 or seen_us + idle_us < $1",
                    args![now_us],
                ),
                ("delete from guesses where last_us < $1", args![guesses_before_us]),
            ])
            .await?;
        Ok(deleted.iter().sum())
    }
}
