//! The second factor.

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::UserId;
use agentlens_domain::permissions::Caller;

use crate::control::Control;
use crate::error::StoreError;
use crate::write::Record;
use crate::{args, row_type};

row_type! {
    /// The seed of a person's codes.
    pub struct TotpRow {
        /// The seed, encrypted.
        pub sealed_secret: Vec<u8>,
        /// Since when codes are asked for; none until the first was entered.
        pub confirmed_us: Option<i64>,
        /// The step of the last code that was taken.
        pub last_step: i64,
    }
}

impl Control {
    /// The seed of a person's codes.
    pub async fn find_totp(&self, user: &UserId) -> Result<Option<TotpRow>, StoreError> {
        self.find(
            "select sealed_secret, confirmed_us, last_step from user_totp where user_id = $1",
            args![user.as_str()],
        )
        .await
    }

    /// Stores a seed that becomes the second factor once a code of it was entered. Refused while there is a second factor.
    pub async fn offer_totp(&self, caller: &Caller, sealed_secret: Vec<u8>) -> Result<(), StoreError> {
        self.write(caller, "factors.offer", move |tx| {
            Box::pin(async move {
                let insert = "insert into user_totp (user_id, sealed_secret) values ($1, $2)
                     on conflict (user_id) do update set sealed_secret = excluded.sealed_secret, last_step = 0
                     where user_totp.confirmed_us is null";
                if tx.execute(insert, args![sealed_secret]).await? == 0 {
                    return Err(StoreError::Exists("second factor"));
                }
                Ok(crate::write::Audited::unchanged(()))
            })
        })
        .await
    }

    /// Makes the offered seed the second factor, with its recovery codes, and ends all sessions but one.
    pub async fn confirm_totp(
        &self,
        caller: &Caller,
        step: i64,
        codes: Vec<[u8; 32]>,
        kept_session: Option<String>,
    ) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        self.write(caller, "factors.create", move |tx| {
            Box::pin(async move {
                let confirm = "update user_totp set confirmed_us = $2, last_step = $3 where user_id = $1 and confirmed_us is null";
                if tx.execute(confirm, args![now_us, step]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                replace_codes(tx, codes).await?;
                super::sessions::end_all(tx, kept_session.as_deref()).await?;
                Ok(Record::of("totp").changing(Topic::People).returning(()))
            })
        })
        .await
    }

    /// New recovery codes instead of all older ones.
    pub async fn set_recovery_codes(&self, caller: &Caller, codes: Vec<[u8; 32]>) -> Result<(), StoreError> {
        self.write(caller, "factors.new_recovery_codes", move |tx| {
            Box::pin(async move {
                replace_codes(tx, codes).await?;
                Ok(Record::of("recovery_codes").returning(()))
            })
        })
        .await
    }

    /// Takes the second factor away.
    pub async fn remove_totp(&self, caller: &Caller) -> Result<(), StoreError> {
        self.write(caller, "factors.remove", move |tx| {
            Box::pin(async move {
                if tx.execute("delete from user_totp where user_id = $1", args![]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                tx.execute("delete from recovery_codes where user_id = $1", args![]).await?;
                Ok(Record::of("totp").changing(Topic::People).returning(()))
            })
        })
        .await
    }

    /// Takes a code by its step: true once for each step.
    pub async fn take_totp_step(&self, user: &UserId, step: i64) -> Result<bool, StoreError> {
        let take = "update user_totp set last_step = $2 where user_id = $1 and last_step < $2";
        let taken = self.execute_all(vec![(take, args![user.as_str(), step])]).await?;
        Ok(taken.iter().sum::<u64>() == 1)
    }

    /// Takes a recovery code: true once.
    pub async fn take_recovery_code(&self, user: &UserId, digest: &[u8; 32]) -> Result<bool, StoreError> {
        let take =
            "update recovery_codes set used_us = $3 where user_id = $1 and digest = $2 and used_us is null";
        let taken = self.execute_all(vec![(take, args![user.as_str(), digest, self.clock.now_us()])]).await?;
        Ok(taken.iter().sum::<u64>() == 1)
    }

    /// How many recovery codes a person has left.
    pub async fn count_recovery_codes(&self, user: &UserId) -> Result<i64, StoreError> {
        let count = "select count(*) from recovery_codes where user_id = $1 and used_us is null";
        Ok(self.find(count, args![user.as_str()]).await?.unwrap_or(0))
    }
}

async fn replace_codes(tx: &crate::transaction::Tx<'_>, codes: Vec<[u8; 32]>) -> Result<(), StoreError> {
    tx.execute("delete from recovery_codes where user_id = $1", args![]).await?;
    for code in codes {
        tx.execute("insert into recovery_codes (user_id, digest) values ($1, $2)", args![&code]).await?;
    }
    Ok(())
}
