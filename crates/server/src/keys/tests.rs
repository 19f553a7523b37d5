use tokio::time::Instant;

use agentlens_domain::keys::{KeyKind, KeyOptions};
use agentlens_store::{NewKey, NewOrg, News};

use super::*;

/// A cache over a store of its own, whose feed was just read.
async fn cache(directory: &tempfile::TempDir) -> KeyCache {
    let secret = ServerSecret::generate();
    let store = Store::open_sqlite(directory.path(), &secret).await.unwrap();
    let caller = Caller::service("test", &OrgId::default_org());
    let org = NewOrg { name: "one".to_owned(), retention_days: None };
    store.control().create_org(&caller, org, None).await.unwrap();
    let cache = KeyCache::new(store, secret);
    read_news(&cache).await;
    cache
}

async fn read_news(cache: &KeyCache) {
    match cache.store.read_changes().await.unwrap() {
        News::Anything => cache.forget_all(),
        News::Changes(changes) => cache.forget(&changes),
    }
    cache.read_unread().await;
}

async fn store_key(cache: &KeyCache, key: &ApiKey) {
    let caller = Caller::service("test", &OrgId::default_org());
    let row = NewKey::of(&cache.secret, key, &KeyOptions::everything("test"));
    cache.store.control().insert_key(&caller, row, None).await.unwrap();
}

fn client(last: u8) -> ClientAddress {
    ClientAddress([192, 0, 2, last].into())
}

async fn is_known(cache: &KeyCache, key: &ApiKey, from: u8) -> bool {
    match cache.authenticate(key.reveal(), client(from), 0).await {
        Ok(_) => true,
        Err(KeyError::Invalid) => false,
        Err(error) => panic!("{error:?}"),
    }
}

// The clock of these tests stands still but for what is waited for, so the penalty of a guess shows that the store was asked.

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_looked_up_once_until_a_key_changes() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(&directory).await;
    let key = ApiKey::generate(KeyKind::Live);
    let before = Instant::now();
    for _ in 0..20 {
        assert!(!is_known(&cache, &key, 1).await);
    }
    assert_eq!(before.elapsed(), GUESS_PENALTY);

    store_key(&cache, &key).await;
    read_news(&cache).await;
    assert!(is_known(&cache, &key, 1).await);
}

#[tokio::test(start_paused = true)]
async fn guesses_of_one_network_hold_up_neither_another_network_nor_known_keys() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Arc::new(cache(&directory).await);
    let (used, fresh) = (ApiKey::generate(KeyKind::Live), ApiKey::generate(KeyKind::Live));
    store_key(&cache, &used).await;
    store_key(&cache, &fresh).await;
    read_news(&cache).await;
    assert!(is_known(&cache, &used, 1).await);

    let before = Instant::now();
    let guesses: Vec<_> = (0..80)
        .map(|_| {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { is_known(&cache, &ApiKey::generate(KeyKind::Live), 1).await })
        })
        .collect();
    tokio::task::yield_now().await;
    // From the network of the guesses, no key need wait: neither one whose entry was dropped meanwhile, nor one never used.
    cache.entries.clear();
    assert!(is_known(&cache, &used, 1).await);
    assert!(is_known(&cache, &fresh, 1).await);
    // Nor need one from elsewhere that was made just now, of which this node has not heard.
    let newest = ApiKey::generate(KeyKind::Live);
    store_key(&cache, &newest).await;
    assert!(is_known(&cache, &newest, 2).await);
    assert_eq!(before.elapsed(), Duration::ZERO);

    for guess in guesses {
        assert!(!guess.await.unwrap());
    }
    // Eight at a time.
    assert_eq!(before.elapsed(), GUESS_PENALTY * 10);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_revoked_while_it_was_looked_up_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(&directory).await;
    let key = ApiKey::generate(KeyKind::Live);
    store_key(&cache, &key).await;
    read_news(&cache).await;
    let principal = cache.authenticate(key.reveal(), client(1), 0).await.unwrap();
    let caller = Caller::service("test", &OrgId::default_org());
    cache.store.control().revoke_key(&caller, &principal.key_id).await.unwrap();
    // The entry is still there, and stays valid until the feed is read.
    assert!(is_known(&cache, &key, 1).await);
    read_news(&cache).await;
    assert!(!is_known(&cache, &key, 1).await);
    assert!(!cache.is_still_valid(&principal, 0).await);
}
