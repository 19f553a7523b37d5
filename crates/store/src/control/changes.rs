//! The change feed: every change of settings, in the order of commits. Each node reads what is new some times a second and
//! drops what it had cached of it.

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::OrgId;

use super::Control;
use crate::error::StoreError;
use crate::transaction::Tx;
use crate::{args, row_type};

/// Changes that are read at a time. A node that is further behind drops everything instead.
const CHANGES_AT_A_TIME: i64 = 1_000;
/// Changes are kept this long. A node that was away for longer drops everything.
const KEPT_US: i64 = 3_600_000_000;

row_type! {
    struct ChangeRow {
        pub newest: i64,
        pub seq: Option<i64>,
        pub org_id: Option<String>,
        pub topic: Option<String>,
    }
}

/// A change that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The org whose settings changed.
    pub org: OrgId,
    /// What changed; none if a newer program wrote it, so it may be anything.
    pub topic: Option<Topic>,
}

/// What was read of the feed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct News {
    /// The number of the newest change.
    pub(crate) newest: i64,
    /// What changed; `None` if it can't be known any more, so anything may have.
    pub(crate) changes: Option<Vec<Change>>,
}

/// Adds a change to the feed. The counter's row stays locked until the transaction ends, so numbers are in the order of
/// commits, and a node that read a number has seen all below it.
pub(crate) async fn append_change(tx: &Tx<'_>, topic: Topic, at_us: i64) -> Result<(), StoreError> {
    // The condition is always true. It names `$1`, which is bound in every statement.
    let count =
        "update change_counter set newest = newest + 1 where counter = 1 and $1 <> '' returning newest";
    let seq: i64 = tx.find(count, args![]).await?.ok_or(StoreError::NotFound)?;
    let insert = "insert into changes (org_id, seq, topic, at_us) values ($1, $2, $3, $4)";
    tx.execute(insert, args![seq, topic.as_str(), at_us]).await.map(|_| ())
}

/// Adds the news about a person to the feed, in the transaction of an org.
pub(crate) async fn append_change_of_person(tx: &Tx<'_>, user: &str, at_us: i64) -> Result<(), StoreError> {
    let count =
        "update change_counter set newest = newest + 1 where counter = 1 and $1 <> '' returning newest";
    let seq: i64 = tx.find(count, args![]).await?.ok_or(StoreError::NotFound)?;
    let insert = "insert into changes (org_id, seq, topic, at_us) select $2, $3, $4, $5 where $1 <> ''";
    tx.execute(insert, args![user, seq, Topic::People.as_str(), at_us]).await.map(|_| ())
}

impl Control {
    /// What changed after the change of a number, in one statement.
    pub(crate) async fn changes_after(&self, last: i64) -> Result<News, StoreError> {
        let rows: Vec<ChangeRow> = self
            .fetch(
                "select n.newest, c.seq, c.org_id, c.topic from change_counter n left join changes c on c.seq > $1
                 where n.counter = 1 order by c.seq limit $2",
                args![last, CHANGES_AT_A_TIME],
            )
            .await?;
        let newest = rows.first().ok_or(StoreError::NotFound)?.newest;
        let count = i64::try_from(rows.iter().filter(|row| row.seq.is_some()).count()).unwrap_or(i64::MAX);
        // Numbers have no gaps, so fewer rows than numbers means that rows were trimmed, or are too many to read.
        let changes = (count == newest - last).then(|| rows.into_iter().filter_map(change_of).collect());
        Ok(News { newest, changes })
    }

    /// Deletes changes that every node has read long ago; returns how many.
    pub async fn trim_changes(&self, now_us: i64) -> Result<u64, StoreError> {
        let deleted =
            self.execute_all(vec![("delete from changes where at_us < $1", args![now_us - KEPT_US])]).await?;
        Ok(deleted.iter().sum())
    }
}

fn change_of(row: ChangeRow) -> Option<Change> {
    let org = OrgId::parse(&row.org_id?).ok()?;
    Some(Change { org, topic: Topic::parse(&row.topic?) })
}
