//! The public keys of providers: kept, and fetched again when a token names one that isn't known.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use agentlens_outbound::Url;
use data_encoding::BASE64URL_NOPAD;
use lru::LruCache;
use openidconnect::core::CoreJsonWebKeySet;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::discovery::is_younger;
use crate::error::SignInError;
use crate::http::Http;
use crate::id_token::ALGORITHM_NAMES;

/// How long keys are used, so that a key that a provider withdraws is not believed for ever.
const MAX_AGE: Duration = Duration::from_secs(3_600);
/// How often an unknown key may lead to a request: anybody can make up key ids.
const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// Providers whose keys are kept.
const MAX_SETS: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// Keys of one provider.
const MAX_KEYS: usize = 50;
/// Bytes of each text in a key. A modulus of 4,096 bits, the longest that is verified with, takes 683.
const MAX_KEY_TEXT_BYTES: usize = 1_024;
/// Bytes of the modulus of an RSA key: shorter ones can be broken.
const MIN_MODULUS_BYTES: usize = 256;

/// The keys of all providers.
pub(crate) struct KeySets {
    sets: Mutex<LruCache<String, Arc<KeySet>>>,
}

/// The keys of one provider.
pub(crate) struct KeySet {
    url: Url,
    /// One request at a time; who waited for it uses what it brought.
    turn: Semaphore,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    keys: Option<Arc<CoreJsonWebKeySet>>,
    fetched_us: i64,
    tried_us: Option<i64>,
}

impl KeySets {
    pub(crate) fn new() -> Self {
        Self { sets: Mutex::new(LruCache::new(MAX_SETS)) }
    }

    /// The keys at an address.
    pub(crate) fn at(&self, url: &Url) -> Arc<KeySet> {
        let mut sets = self.sets.lock();
        let set = sets.get_or_insert_ref(url.as_str(), || {
            Arc::new(KeySet { url: url.clone(), turn: Semaphore::new(1), held: Mutex::default() })
        });
        Arc::clone(set)
    }
}

impl KeySet {
    /// The keys, fetched if they are not known or too old.
    pub(crate) async fn current(
        &self,
        http: &Http,
        now_us: i64,
    ) -> Result<Arc<CoreJsonWebKeySet>, SignInError> {
        if let Some(keys) = self.fresh(now_us) {
            return Ok(keys);
        }
        let _turn = self.turn.acquire().await;
        match self.fresh(now_us) {
            Some(keys) => Ok(keys),
            None => self.fetch(http, now_us).await,
        }
    }

    /// Other keys than those which didn't help. `None`: there are none, or the provider was asked a moment ago.
    pub(crate) async fn newer(
        &self,
        http: &Http,
        than: &Arc<CoreJsonWebKeySet>,
        now_us: i64,
    ) -> Result<Option<Arc<CoreJsonWebKeySet>>, SignInError> {
        let _turn = self.turn.acquire().await;
        if let Some(keys) = self.fresh(now_us).filter(|keys| !Arc::ptr_eq(keys, than)) {
            return Ok(Some(keys));
        }
        if self.held.lock().tried_us.is_some_and(|tried_us| is_younger(tried_us, now_us, MIN_INTERVAL)) {
            return Ok(None);
        }
        self.fetch(http, now_us).await.map(Some)
    }

    fn fresh(&self, now_us: i64) -> Option<Arc<CoreJsonWebKeySet>> {
        let held = self.held.lock();
        held.keys.clone().filter(|_| is_younger(held.fetched_us, now_us, MAX_AGE))
    }

    async fn fetch(&self, http: &Http, now_us: i64) -> Result<Arc<CoreJsonWebKeySet>, SignInError> {
        self.held.lock().tried_us = Some(now_us);
        let published: Published = http.get_json("the provider's keys", self.url.clone()).await?;
        let keys = Arc::new(published.usable()?);
        let mut held = self.held.lock();
        held.keys = Some(Arc::clone(&keys));
        held.fetched_us = now_us;
        Ok(keys)
    }
}

/// Keys as they are published.
#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}

impl Published {
    /// Those keys that can verify an id token of the allowed algorithms.
    fn usable(self) -> Result<CoreJsonWebKeySet, SignInError> {
        if self.keys.len() > MAX_KEYS {
            return Err(SignInError::InvalidAnswer("the provider publishes too many keys".into()));
        }
        let keys = self.keys.into_iter().filter(is_usable);
        let keys: Vec<_> = keys.filter_map(|key| serde_json::from_value(key).ok()).collect();
        if keys.is_empty() {
            return Err(SignInError::InvalidAnswer("the provider publishes no key that can be used".into()));
        }
        Ok(CoreJsonWebKeySet::new(keys))
    }
}

/// Whether a key is public, for signatures, of an allowed algorithm, and strong. A symmetric key must never get into
/// the set, nor one whose private half is published, too.
fn is_usable(key: &Value) -> bool {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let is_short = ["kid", "n", "e", "x", "y"]
        .iter()
        .all(|name| text(name).is_none_or(|value| value.len() <= MAX_KEY_TEXT_BYTES));
    let is_strong = match text("kty") {
        Some("RSA") => {
            text("n").and_then(|modulus| BASE64URL_NOPAD.decode(modulus.as_bytes()).ok()).is_some_and(
                |modulus| modulus.iter().skip_while(|byte| **byte == 0).count() >= MIN_MODULUS_BYTES,
            )
        }
        Some("EC") => text("crv") == Some("P-256"),
        Some("OKP") => text("crv") == Some("Ed25519"),
        _ => false,
    };
    is_strong
        && is_short
        && key.get("d").is_none()
        && text("use").is_none_or(|purpose| purpose == "sig")
        && text("alg").is_none_or(|algorithm| ALGORITHM_NAMES.contains(&algorithm))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_strong_public_keys_of_allowed_algorithms_are_used() {
        let modulus = |bytes: usize| BASE64URL_NOPAD.encode(&vec![0xff; bytes]);
        let rsa = |modulus: String| json!({"kty": "RSA", "n": modulus, "e": "AQAB"});
        assert!(is_usable(&rsa(modulus(256))) && is_usable(&rsa(modulus(512))));
        assert!(!is_usable(&rsa(modulus(255))) && !is_usable(&rsa(modulus(128))));
        let padded: Vec<u8> = [0; 200].into_iter().chain([0xff; 128]).collect();
        assert!(!is_usable(&rsa(BASE64URL_NOPAD.encode(&padded))), "leading zeros make no key longer");
        for refused in [
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!({"kty": "EC", "crv": "P-384"}),
            json!({"kty": "EC", "crv": "P-256", "use": "enc"}),
            json!({"kty": "EC", "crv": "P-256", "alg": "ES384"}),
            json!({"kty": "OKP", "crv": "X25519"}),
            json!({"kty": "EC", "crv": "P-256", "d": "AA"}),
            json!({"kty": "EC", "crv": "P-256", "kid": "x".repeat(1_025)}),
            json!({"crv": "P-256"}),
            json!("RSA"),
        ] {
            assert!(!is_usable(&refused), "{refused}");
        }
        for used in
            [json!({"kty": "EC", "crv": "P-256", "use": "sig"}), json!({"kty": "OKP", "crv": "Ed25519"})]
        {
            assert!(is_usable(&used), "{used}");
        }
    }
}
