//! The keys by which the server signs. One signs at a time; the public halves of all stay, so that what was signed can be checked.

use agentlens_domain::signing::SigningKey;

use super::Control;
use crate::error::StoreError;
use crate::{args, row_type};

row_type! {
    struct SealedKey {
        pub key_id: String,
        pub sealed_secret: Option<Vec<u8>>,
    }
}

/// What a sealed secret is for.
fn context(key_id: &str) -> String {
    format!("signing key {key_id}")
}

impl Control {
    /// The key that signs now. The first call on any node makes it.
    pub async fn signing_key(&self) -> Result<SigningKey, StoreError> {
        if let Some(key) = self.find_signing_key().await? {
            return Ok(key);
        }
        let secret = SigningKey::new_secret();
        let key = SigningKey::of(&secret).ok_or(StoreError::NotFound)?;
        let sealed = self.secrets.seal(&context(key.key_id()), &secret);
        let insert = "insert into signing_keys (key_id, public_key, sealed_secret, slot, created_us) values ($1, $2, $3, 1, $4) on conflict do nothing";
        let args = args![key.key_id(), key.public_key(), sealed, self.clock.now_us()];
        self.execute_all(vec![(insert, args)]).await?;
        // Of nodes that start at once, one made it.
        self.find_signing_key().await?.ok_or(StoreError::NotFound)
    }

    async fn find_signing_key(&self) -> Result<Option<SigningKey>, StoreError> {
        let find = "select key_id, sealed_secret from signing_keys where slot = 1";
        let Some(row) = self.find::<SealedKey>(find, args![]).await? else { return Ok(None) };
        let unreadable = || StoreError::Corrupt("the signing key can't be decrypted".to_owned());
        let sealed = row.sealed_secret.ok_or_else(unreadable)?;
        let secret = self.secrets.open(&context(&row.key_id), &sealed).map_err(|_| unreadable())?;
        let key = SigningKey::of(&secret).filter(|key| key.key_id() == row.key_id);
        Ok(Some(key.ok_or_else(unreadable)?))
    }

    /// The public halves of all keys, the newest first.
    pub async fn public_keys(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let sql = "select public_key from signing_keys order by created_us desc, key_id";
        let rows: Vec<crate::statement::Row> = self.fetch(sql, args![]).await?;
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Makes a new key that signs from now on, and forgets the secret of the one before; returns the id of the new one.
    pub async fn rotate_signing_key(&self) -> Result<String, StoreError> {
        let secret = SigningKey::new_secret();
        let key = SigningKey::of(&secret).ok_or(StoreError::NotFound)?;
        let sealed = self.secrets.seal(&context(key.key_id()), &secret);
        let now_us = self.clock.now_us();
        let retire =
            "update signing_keys set slot = null, sealed_secret = null, retired_us = $1 where slot = 1";
        let insert = "insert into signing_keys (key_id, public_key, sealed_secret, slot, created_us) values ($1, $2, $3, 1, $4)";
        let args = args![key.key_id(), key.public_key(), sealed, now_us];
        self.execute_all(vec![(retire, args![now_us]), (insert, args)]).await?;
        Ok(key.key_id().to_owned())
    }
}
