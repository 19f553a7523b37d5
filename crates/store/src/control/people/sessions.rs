//! Browsers in which people are signed in, and sign-ins that are half done.

use serde_json::json;

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::UserId;
use agentlens_domain::permissions::Caller;

use crate::control::Control;
use crate::error::StoreError;
use crate::transaction::Tx;
use crate::write::Record;
use crate::{args, row_type};

row_type! {
    /// A session.
    pub struct BrowserSessionRow {
        /// Its public id.
        pub session_id: String,
        /// Whose it is.
        pub user_id: String,
        /// When the person signed in, microseconds UTC.
        pub created_us: i64,
        /// When it was used last, to the minute.
        pub seen_us: i64,
        /// How long it may stay unused, in microseconds.
        pub idle_us: i64,
        /// When it ends in any case.
        pub expires_us: i64,
        /// When the person proved who they are, last.
        pub proved_us: i64,
        /// How: words such as `password totp`.
        pub methods: String,
        /// The org's identity provider that vouched for the person.
        pub connection_id: Option<String>,
        /// From where it was begun.
        pub address: Option<String>,
        /// By which program.
        pub user_agent: Option<String>,
    }
}

macro_rules! session_columns {
    () => {
        "s.session_id, s.user_id, s.created_us, s.seen_us, s.idle_us, s.expires_us, s.proved_us, s.methods, s.connection_id, s.address, s.user_agent"
    };
}

/// A session about to be stored.
#[derive(Debug, Clone)]
pub struct NewBrowserSession {
    /// Its public id.
    pub session_id: String,
    /// The digest of its cookie.
    pub digest: [u8; 32],
    /// How long it may stay unused, in microseconds.
    pub idle_us: i64,
    /// When it ends in any case.
    pub expires_us: i64,
    /// How the person proved who they are.
    pub methods: String,
    /// The org's identity provider that vouched for the person.
    pub connection_id: Option<String>,
}

/// Ends all sessions of the transaction's person but one; returns how many.
pub(super) async fn end_all(tx: &Tx<'_>, kept: Option<&str>) -> Result<u64, StoreError> {
    let end = "delete from browser_sessions where user_id = $1 and session_id <> $2";
    tx.execute(end, args![kept.unwrap_or_default()]).await
}

impl Control {
    /// Writes a sign-in into the log of the caller's org, of which the person is a member.
    pub async fn note_sign_in(
        &self,
        caller: &Caller,
        user: &UserId,
        methods: &str,
    ) -> Result<(), StoreError> {
        let (user, methods) = (user.to_string(), methods.to_owned());
        self.write(caller, "sessions.create", move |_| {
            Box::pin(async move { Ok(Record::of(user).after(json!({ "methods": methods })).returning(())) })
        })
        .await
    }

    /// Writes into the log of the caller's org, or of the person alone, that somebody could not sign in as this person.
    pub async fn note_refused_sign_in(
        &self,
        caller: &Caller,
        user: &UserId,
        why: &str,
    ) -> Result<(), StoreError> {
        let (user, why) = (user.to_string(), why.to_owned());
        self.write(caller, "sessions.refuse", move |_| {
            Box::pin(async move { Ok(Record::of(user).after(json!({ "reason": why })).returning(())) })
        })
        .await
    }

    /// Signs the caller in. `replaced` is the digest of the session that the browser had before.
    pub async fn start_session(
        &self,
        caller: &Caller,
        session: NewBrowserSession,
        replaced: Option<[u8; 32]>,
    ) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        let origin = caller.origin.clone();
        self.write(caller, "sessions.create", move |tx| {
            Box::pin(async move {
                let insert = "insert into browser_sessions (user_id, session_id, digest, created_us, seen_us, idle_us, expires_us, proved_us, methods, connection_id,
                       address, user_agent)
                     select $1, $2, $3, $4, $4, $5, $6, $4, $7, $8, $9, $10
                     where exists (select 1 from users where user_id = $1 and disabled_us is null)";
                let args = args![
                    &session.session_id,
                    &session.digest,
                    now_us,
                    session.idle_us,
                    session.expires_us,
                    &session.methods,
                    session.connection_id,
                    origin.address,
                    origin.user_agent,
                ];
                if tx.execute(insert, args).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                let mut record = Record::of(session.session_id).after(json!({ "methods": session.methods }));
                if let Some(replaced) = replaced {
                    let end = "delete from browser_sessions where user_id = $1 and digest = $2";
                    tx.execute(end, args![&replaced]).await?;
                    record = record.changing(Topic::People);
                }
                Ok(record.returning(()))
            })
        })
        .await
    }

    /// The session of a cookie, unless it has ended or its person is disabled.
    pub async fn find_session(&self, digest: &[u8; 32]) -> Result<Option<BrowserSessionRow>, StoreError> {
        self.find(
            concat!(
                "select ",
                session_columns!(),
                " from browser_sessions s join users u on u.user_id = s.user_id and u.disabled_us is null
                 where s.digest = $1 and s.expires_us > $2 and s.seen_us + s.idle_us > $2"
            ),
            args![digest, self.clock.now_us()],
        )
        .await
    }

    /// The sessions of a person, the one used last first.
    pub async fn list_sessions_of(&self, user: &UserId) -> Result<Vec<BrowserSessionRow>, StoreError> {
        self.fetch(
            concat!(
                "select ",
                session_columns!(),
                " from browser_sessions s
                 where s.user_id = $1 and s.expires_us > $2 and s.seen_us + s.idle_us > $2
                 order by s.seen_us desc, s.session_id"
            ),
            args![user.as_str(), self.clock.now_us()],
        )
        .await
    }

    /// Ends one of the caller's sessions.
    pub async fn end_session(&self, caller: &Caller, session_id: &str) -> Result<(), StoreError> {
        let session_id = session_id.to_owned();
        self.write(caller, "sessions.end", move |tx| {
            Box::pin(async move {
                let end = "delete from browser_sessions where user_id = $1 and session_id = $2";
                if tx.execute(end, args![&session_id]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                Ok(Record::of(session_id).changing(Topic::People).returning(()))
            })
        })
        .await
    }

    /// Ends all of the caller's sessions but one; returns how many.
    pub async fn end_sessions(&self, caller: &Caller, kept: Option<String>) -> Result<u64, StoreError> {
        self.write(caller, "sessions.end_all", move |tx| {
            Box::pin(async move {
                let ended = end_all(tx, kept.as_deref()).await?;
                let record = Record::of("self").after(json!({ "sessions_ended": ended }));
                Ok(record.changing(Topic::People).returning(ended))
            })
        })
        .await
    }

    /// A new cookie for the session, and, if it is a proof, that the caller has proved who they are again.
    pub async fn renew_session(
        &self,
        caller: &Caller,
        session_id: &str,
        digest: [u8; 32],
        methods: &str,
        is_proof: bool,
    ) -> Result<(), StoreError> {
        let (session_id, methods, now_us) = (session_id.to_owned(), methods.to_owned(), self.clock.now_us());
        self.write(caller, "sessions.prove", move |tx| {
            Box::pin(async move {
                let renew = "update browser_sessions set digest = $3, methods = $4, proved_us = coalesce($5, proved_us) where user_id = $1 and session_id = $2";
                if tx.execute(renew, args![&session_id, &digest, &methods, is_proof.then_some(now_us)]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                let record = Record::of(session_id).after(json!({ "methods": methods }));
                Ok(record.changing(Topic::People).returning(()))
            })
        })
        .await
    }

    /// Notes when sessions were last used.
    pub async fn touch_sessions(&self, used: Vec<(String, i64)>) -> Result<(), StoreError> {
        // In one order on every node, or two that touch the same sessions would wait for each other.
        let mut used = used;
        used.sort_unstable();
        let touch = "update browser_sessions set seen_us = $2 where session_id = $1 and seen_us < $2";
        self.execute_all(used.into_iter().map(|(id, at_us)| (touch, args![id, at_us])).collect())
            .await
            .map(|_| ())
    }

    /// Stores a half-done sign-in.
    pub async fn insert_login_flow(
        &self,
        digest: &[u8; 32],
        kind: &str,
        user: Option<&UserId>,
        state: &str,
        expires_us: i64,
    ) -> Result<(), StoreError> {
        let insert = "insert into login_flows (digest, kind, user_id, state, created_us, expires_us) values ($1, $2, $3, $4, $5, $6)";
        let user = user.map(ToString::to_string);
        let args = args![digest, kind, user, state, self.clock.now_us(), expires_us];
        self.execute_all(vec![(insert, args)]).await.map(|_| ())
    }

    /// The state and the person of a half-done sign-in, of which this is one more try. `None` once it has expired or had `max_tries`.
    pub async fn try_login_flow(
        &self,
        digest: &[u8; 32],
        kind: &str,
        max_tries: i64,
    ) -> Result<Option<(String, Option<UserId>)>, StoreError> {
        let now_us = self.clock.now_us();
        let count = "update login_flows set tries = tries + 1 where digest = $1 and kind = $2 and tries < $3 and expires_us > $4";
        let counted = self.execute_all(vec![(count, args![digest, kind, max_tries, now_us])]).await?;
        if counted.iter().sum::<u64>() == 0 {
            return Ok(None);
        }
        let row: Option<FlowRow> = self
            .find(
                "select state, user_id from login_flows where digest = $1 and kind = $2",
                args![digest, kind],
            )
            .await?;
        Ok(row.map(|row| (row.state, row.user_id.and_then(|id| UserId::parse(&id).ok()))))
    }

    /// Ends a half-done sign-in: it is used once. Returns whether it was still there.
    pub async fn end_login_flow(&self, digest: &[u8; 32]) -> Result<bool, StoreError> {
        let ended =
            self.execute_all(vec![("delete from login_flows where digest = $1", args![digest])]).await?;
        Ok(ended.iter().sum::<u64>() > 0)
    }
}

row_type! {
    struct FlowRow {
        pub state: String,
        pub user_id: Option<String>,
    }
}
