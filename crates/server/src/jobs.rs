//! Jobs on a clock. Each runs on one node at a time is not required of them: they are idempotent.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use agentlens_domain::ids::OrgId;
use agentlens_store::{Store, StoreError};

use crate::metrics::Metrics;

/// How often retention runs.
const RETENTION_EVERY: Duration = Duration::from_secs(3600);
/// How often a node without workers looks up the positions of followed orgs.
const FOLLOW_EVERY: Duration = Duration::from_millis(300);

/// Deletes what expired, org by org, every hour until shutdown.
pub async fn retention(store: Store, metrics: std::sync::Arc<Metrics>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        if let Err(error) = retention_once(&store, &metrics).await {
            tracing::error!(error = %error, "retention failed; it is tried again in an hour");
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(RETENTION_EVERY) => {}
        }
    }
}

async fn retention_once(store: &Store, metrics: &Metrics) -> Result<(), StoreError> {
    let now_us = store.clock().now_us();
    store.make_partitions(now_us).await?;
    let mut is_recorded = true;
    for row in store.control().list_orgs().await? {
        let Ok(org) = OrgId::parse(&row.org_id) else { continue };
        // An org that can't even be opened must not keep the others from theirs.
        let deleted = match store.tenant(&org).await {
            Ok(tenant) => tenant.delete_expired(now_us).await,
            Err(error) => Err(error),
        };
        match deleted {
            Ok(0) => {}
            Ok(rows) => tracing::info!(org.id = %org, rows, "expired rows deleted"),
            Err(error) => {
                is_recorded = false;
                tracing::error!(org.id = %org, error = %error, "retention of an org failed");
            }
        }
    }
    // A partition holds events of all orgs: it goes when each of them has recorded what it loses.
    let dropped = if is_recorded { store.drop_partitions(now_us).await? } else { 0 };
    if dropped > 0 {
        tracing::info!(partitions = dropped, "expired days dropped");
    }
    metrics.note_retention(now_us);
    Ok(())
}

/// Tells this node's live streams of events that other nodes stored, until shutdown.
pub async fn follow_positions(store: Store, live: agentlens_ingest::Live, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(FOLLOW_EVERY) => {}
        }
        for org in live.followed() {
            let position = match store.tenant(&org).await {
                Ok(tenant) => tenant.last_position().await,
                Err(error) => Err(error),
            };
            match position {
                Ok(position) => live.advance(&org, position),
                Err(error) => {
                    tracing::warn!(org.id = %org, error = %error, "the position of a followed org can't be read")
                }
            }
        }
    }
}
