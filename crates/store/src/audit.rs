//! The audit log at rest: two chains for each org, one beside its own data and one in the control tables.

use agentlens_domain::audit::{AuditEntry, AuditKey, AuditSeal, AuditVerifier, NO_AUDIT_SEAL};
use agentlens_domain::ids::OrgId;
use agentlens_domain::permissions::Caller;

use crate::error::StoreError;
use crate::statement::FromRow;
use crate::tenant::Org;
use crate::transaction::Tx;
use crate::write::Record;
use crate::{args, row_type};

/// Entries that are read at a time while a chain is verified.
const ENTRIES_AT_A_TIME: i64 = 1_000;

/// The statements on the tables of one database.
pub(crate) struct AuditTables {
    name: &'static str,
    lock_head: &'static str,
    set_head: &'static str,
    insert: &'static str,
    list: &'static str,
    newest: &'static str,
    page: &'static str,
    head: &'static str,
}

/// Acts on an org's own data.
pub(crate) const TENANT_AUDIT: AuditTables = AuditTables {
    name: "org",
    lock_head: "insert into audit_heads (org_id, last_seq, last_seal, head_seal) values ($1, 0, $2, $2)
       on conflict (org_id) do update set last_seq = audit_heads.last_seq returning last_seq, last_seal, head_seal",
    set_head: "update audit_heads set last_seq = $2, last_seal = $3, head_seal = $4 where org_id = $1",
    insert: "insert into audit_log (org_id, seq, at_us, actor, workspace, origin, act, target, details, seal)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    list: "select seq, at_us, actor, workspace, origin, act, target, details, seal from audit_log where org_id = $1 and seq > $2 order by seq limit $3",
    newest: "select seq, at_us, actor, workspace, origin, act, target, details, seal from audit_log where org_id = $1 order by seq desc limit $2",
    page: "select seq, at_us, actor, workspace, origin, act, target, details, seal from audit_log
       where org_id = $1 and seq < $2 and at_us >= $3 and at_us <= $4
         and ($5 = '' or actor = $5 or substr(actor, 1, length($5) + 1) = $5 || ':')
         and ($6 = '' or act = $6 or substr(act, 1, length($6) + 1) = $6 || '.')
         and ($7 = '' or target = $7)
       order by seq desc limit $8",
    head: "select last_seq, last_seal, head_seal from audit_heads where org_id = $1",
};

/// Acts on the control tables.
pub(crate) const CONTROL_AUDIT: AuditTables = AuditTables {
    name: "control",
    lock_head: "insert into control_audit_heads (org_id, last_seq, last_seal, head_seal) values ($1, 0, $2, $2)
       on conflict (org_id) do update set last_seq = control_audit_heads.last_seq returning last_seq, last_seal, head_seal",
    set_head: "update control_audit_heads set last_seq = $2, last_seal = $3, head_seal = $4 where org_id = $1",
    insert: "insert into control_audit_log (org_id, seq, at_us, actor, workspace, origin, act, target, details, seal)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    list: "select seq, at_us, actor, workspace, origin, act, target, details, seal from control_audit_log where org_id = $1 and seq > $2 order by seq limit $3",
    newest: "select seq, at_us, actor, workspace, origin, act, target, details, seal from control_audit_log where org_id = $1 order by seq desc limit $2",
    page: "select seq, at_us, actor, workspace, origin, act, target, details, seal from control_audit_log
       where org_id = $1 and seq < $2 and at_us >= $3 and at_us <= $4
         and ($5 = '' or actor = $5 or substr(actor, 1, length($5) + 1) = $5 || ':')
         and ($6 = '' or act = $6 or substr(act, 1, length($6) + 1) = $6 || '.')
         and ($7 = '' or target = $7)
       order by seq desc limit $8",
    head: "select last_seq, last_seal, head_seal from control_audit_heads where org_id = $1",
};

impl AuditTables {
    /// What the seals call an org's chain here.
    pub(crate) fn chain(&self, org: &OrgId) -> String {
        format!("{}/{org}", self.name)
    }
}

row_type! {
    struct Head {
        pub seq: i64,
        pub seal: AuditSeal,
        pub head_seal: AuditSeal,
    }
}

row_type! {
    /// An entry as it is stored.
    pub struct AuditRow {
        /// Its number in its chain.
        pub seq: i64,
        /// When, microseconds UTC.
        pub at_us: i64,
        /// Who.
        pub actor: String,
        /// In which workspace.
        pub workspace: Option<String>,
        /// From where, as JSON.
        pub origin: String,
        /// What was done.
        pub act: String,
        /// To what.
        pub target: String,
        /// What changed, as JSON.
        pub details: String,
        /// Its seal.
        pub seal: AuditSeal,
    }
}

impl AuditRow {
    fn entry(&self) -> AuditEntry {
        AuditEntry {
            seq: self.seq,
            at_us: self.at_us,
            actor: self.actor.clone(),
            workspace: self.workspace.clone(),
            origin: self.origin.clone(),
            act: self.act.clone(),
            target: self.target.clone(),
            details: self.details.clone(),
        }
    }
}

/// Adds an entry to a chain; its number is given here. The head's row stays locked until the transaction ends, so that two
/// writers never continue the same entry.
pub(crate) async fn append(
    tx: &Tx<'_>,
    key: &AuditKey,
    tables: &AuditTables,
    chain: &str,
    entry: AuditEntry,
) -> Result<AuditSeal, StoreError> {
    let head: Head = tx.find(tables.lock_head, args![&NO_AUDIT_SEAL]).await?.ok_or(StoreError::NotFound)?;
    let is_right = head.seq == 0 || key.seal_head(chain, head.seq, &head.seal) == head.head_seal;
    // A head that someone set by hand is not continued: what follows it never verifies, so the cut stays visible.
    let previous = if is_right { head.seal } else { [0xff; 32] };
    let entry = AuditEntry { seq: head.seq + 1, ..entry };
    let seal = key.seal_entry(chain, &previous, &entry);
    let AuditEntry { seq, at_us, actor, workspace, origin, act, target, details } = entry;
    let args = args![seq, at_us, actor, workspace, origin, act, target, details, &seal];
    tx.execute(tables.insert, args).await?;
    tx.execute(tables.set_head, args![seq, &seal, &key.seal_head(chain, seq, &seal)]).await?;
    Ok(seal)
}

/// Which entries are read. An empty text is no condition.
#[derive(Debug, Clone)]
pub struct AuditFilter {
    /// Who, such as `key:key_1`, or a kind of them, such as `person`.
    pub actor: String,
    /// What was done, such as `keys.revoke`, or what it was done to, such as `keys`.
    pub act: String,
    /// The id of what it was done to.
    pub target: String,
    /// From when on, microseconds UTC.
    pub from_us: i64,
    /// Until when.
    pub to_us: i64,
}

/// The place after which a page goes on: the last number that was read of each chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditPlace {
    /// Of the chain beside the org's own data.
    pub tenant_seq: i64,
    /// Of the chain in the control tables.
    pub control_seq: i64,
}

impl AuditPlace {
    /// Before the newest entries.
    pub const START: Self = Self { tenant_seq: i64::MAX, control_seq: i64::MAX };
}

/// An entry with the name of its chain.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedEntry {
    /// `org` or `control`.
    pub chain: &'static str,
    /// The entry.
    pub row: AuditRow,
}

/// A page of both chains.
#[derive(Debug)]
pub struct AuditPage {
    /// The newest first.
    pub entries: Vec<LoggedEntry>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<AuditPlace>,
}

/// Joins what was read of both chains, each from its newest entry on. The order within a chain is that of its numbers, even where the
/// clock was set back.
fn join(tenant: Vec<AuditRow>, control: Vec<AuditRow>, after: AuditPlace, limit: usize) -> AuditPage {
    let (mut tenant, mut control) = (tenant.into_iter().peekable(), control.into_iter().peekable());
    let (mut entries, mut place) = (Vec::new(), after);
    while entries.len() < limit {
        let is_of_tenant = match (tenant.peek(), control.peek()) {
            (Some(one), Some(other)) => one.at_us > other.at_us,
            (one, _) => one.is_some(),
        };
        let (source, chain) =
            if is_of_tenant { (&mut tenant, TENANT_AUDIT.name) } else { (&mut control, CONTROL_AUDIT.name) };
        let Some(row) = source.next() else { break };
        let seq = if is_of_tenant { &mut place.tenant_seq } else { &mut place.control_seq };
        *seq = row.seq;
        entries.push(LoggedEntry { chain, row });
    }
    let has_more = tenant.peek().is_some() || control.peek().is_some();
    AuditPage { entries, next: has_more.then_some(place) }
}

/// What was found when an org's audit log was verified.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Entries that hold.
    pub entries: i64,
    /// A line for each chain that is broken.
    pub broken: Vec<String>,
}

/// The audit log of an org.
#[derive(Clone, Copy)]
pub struct Audit<'o>(&'o Org);

impl Org {
    /// Its audit log.
    pub fn audit(&self) -> Audit<'_> {
        Audit(self)
    }
}

impl Audit<'_> {
    /// The newest entries of both of the org's chains, newest first.
    pub async fn list(self, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let mut rows: Vec<AuditRow> = self.0.fetch(TENANT_AUDIT.newest, args![limit]).await?;
        rows.extend(
            self.0.control.fetch_of::<AuditRow>(self.0.id(), CONTROL_AUDIT.newest, args![limit]).await?,
        );
        rows.sort_by_key(|row| std::cmp::Reverse((row.at_us, row.seq)));
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(rows)
    }

    /// A page of both of the org's chains, newest first, after a place.
    pub async fn page(
        self,
        filter: &AuditFilter,
        after: AuditPlace,
        limit: u32,
    ) -> Result<AuditPage, StoreError> {
        let args = |seq: i64| {
            let (from_us, to_us) = (filter.from_us, filter.to_us);
            args![seq, from_us, to_us, &filter.actor, &filter.act, &filter.target, i64::from(limit) + 1]
        };
        let tenant = self.fetch(&TENANT_AUDIT, TENANT_AUDIT.page, args(after.tenant_seq)).await?;
        let control = self.fetch(&CONTROL_AUDIT, CONTROL_AUDIT.page, args(after.control_seq)).await?;
        Ok(join(tenant, control, after, usize::try_from(limit).unwrap_or(usize::MAX)))
    }

    /// Notes that someone took the log away.
    pub async fn note_export(self, caller: &Caller) -> Result<(), StoreError> {
        let org = self.0.id().to_string();
        let control = &self.0.control;
        control
            .write(caller, "audit.export", move |_| {
                Box::pin(async move { Ok(Record::of(org).returning(())) })
            })
            .await
    }

    /// Verifies both of the org's chains.
    pub async fn verify(self) -> Result<AuditReport, StoreError> {
        let mut report = AuditReport::default();
        let counted_before = self.counted().await?;
        for tables in [&TENANT_AUDIT, &CONTROL_AUDIT] {
            let chain = tables.chain(self.0.id());
            let mut verifier = AuditVerifier::new(&self.0.control.audit, &chain);
            let (mut after, mut begins_with_creation) = (0, false);
            let broken = loop {
                let rows: Vec<AuditRow> =
                    self.fetch(tables, tables.list, args![after, ENTRIES_AT_A_TIME]).await?;
                let Some(last) = rows.last().map(|row| row.seq) else { break None };
                begins_with_creation |= rows.iter().any(|row| row.seq == 1 && row.act == "orgs.create");
                after = last;
                let found = rows.iter().find_map(|row| match verifier.push(&row.entry(), &row.seal) {
                    Ok(()) => {
                        report.entries += 1;
                        None
                    }
                    Err(error) => Some(error),
                });
                if found.is_some() {
                    break found;
                }
            };
            let head: Option<Head> = self.fetch(tables, tables.head, args![]).await?.into_iter().next();
            let broken =
                broken.or_else(|| verifier.finish(head.map(|head| (head.seq, head.head_seal))).err());
            let is_broken = broken.is_some();
            report.broken.extend(broken.map(|error| format!("{chain}: {error}")));
            if tables.name == TENANT_AUDIT.name && !is_broken {
                // Entries are added while this runs.
                let fits = counted_before <= after && after <= self.counted().await?;
                let counted = counted_before;
                report.broken.extend(
                    (!fits)
                        .then(|| format!("{chain}: there are {after} entries, but {counted} were written")),
                );
            }
            // The creation of the org is its first entry there.
            if tables.name == CONTROL_AUDIT.name && !begins_with_creation {
                report.broken.push(format!("{chain}: the entry about the creation of the org is missing"));
            }
        }
        Ok(report)
    }

    /// How many entries the org's own chain has by its sealed counters; none if their row is missing, which verification of the
    /// counters reports.
    async fn counted(self) -> Result<i64, StoreError> {
        let sql = "select audit_seq from org_state where org_id = $1";
        Ok(self.0.find::<i64>(sql, args![]).await?.unwrap_or_default())
    }

    async fn fetch<T: FromRow>(
        self,
        tables: &AuditTables,
        sql: &'static str,
        args: Vec<crate::statement::Value>,
    ) -> Result<Vec<T>, StoreError> {
        if tables.name == TENANT_AUDIT.name {
            self.0.fetch(sql, args).await
        } else {
            self.0.control.fetch_of(self.0.id(), sql, args).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(of: &[(i64, i64)]) -> Vec<AuditRow> {
        let text = String::new;
        let row = |&(seq, at_us)| AuditRow {
            seq,
            at_us,
            actor: text(),
            workspace: None,
            origin: text(),
            act: text(),
            target: text(),
            details: text(),
            seal: NO_AUDIT_SEAL,
        };
        of.iter().map(row).collect()
    }

    #[test]
    fn both_chains_are_joined_by_time_and_each_keeps_its_order() {
        // In the chain of the control tables the clock was set back.
        let (tenant, control) = ([(3, 50), (2, 30), (1, 10)], [(3, 20), (2, 40), (1, 5)]);
        let (mut place, mut seen) = (AuditPlace::START, Vec::new());
        loop {
            let after = |all: &[(i64, i64)], seq| {
                let left: Vec<_> = all.iter().copied().filter(|row| row.0 < seq).take(3).collect();
                rows(&left)
            };
            let page = join(after(&tenant, place.tenant_seq), after(&control, place.control_seq), place, 2);
            seen.extend(page.entries.iter().map(|entry| (entry.chain, entry.row.seq)));
            let Some(next) = page.next else { break };
            place = next;
        }
        let expected = [("org", 3), ("org", 2), ("control", 3), ("control", 2), ("org", 1), ("control", 1)];
        assert_eq!(seen, expected);
    }
}
