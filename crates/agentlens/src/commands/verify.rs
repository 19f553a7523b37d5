//! `agentlens verify`: walks the chains of one org or of all, from the stored bytes.

use serde::Serialize;
use serde_json::{Value, json};

use agentlens_domain::ids::OrgId;
use agentlens_store::{AuditReport, ChainReport, Store, StoreError};

use crate::boot::{find_org, open_store};
use crate::config::{Common, VerifyOptions};
use crate::output;

/// Verifies and reports; broken chains and orgs that can't be read make the command fail.
pub(crate) async fn run(options: VerifyOptions, common: &Common) -> Result<(), String> {
    let store = open_store(&common.store).await?;
    let asks_for_all = options.org.is_none();
    let orgs = match options.org {
        Some(org) => vec![find_org(&store, &org).await?],
        None => all_orgs(&store).await?,
    };
    let hidden =
        if asks_for_all { store.hidden_orgs().await.map_err(|error| error.to_string())? } else { Vec::new() };
    let lost = store.orgs_without_file().await.map_err(|error| error.to_string())?;
    let (mut sessions, mut events, mut broken, mut unreadable) = (0, 0, Vec::new(), Vec::new());
    let (mut audit_broken, mut wrong_sums, mut wrong_index) = (Vec::new(), Vec::new(), Vec::new());
    let mut notes = Vec::new();
    for org in orgs {
        if lost.contains(&org) {
            let reason = "its file is missing or empty: everything that it had is gone";
            unreadable.push((org.to_string(), reason.to_owned()));
            continue;
        }
        // One org that can't be read must not hide what is wrong with the others.
        match verify(&store, &org).await {
            Ok(Verified { chains: report, sums, index, audit }) => {
                wrong_sums.extend(sums.into_iter().map(|reason| (org.clone(), reason)));
                wrong_index.extend(index.into_iter().map(|reason| (org.clone(), reason)));
                audit_broken.extend(audit.broken.into_iter().map(|reason| (org.clone(), reason)));
                sessions += report.sessions_verified;
                events += report.total_events;
                notes.extend(report.notes.into_iter().map(|note| (org.clone(), note)));
                broken.extend(report.broken.into_iter().map(|fault| (org.clone(), fault)));
            }
            Err(error) => unreadable.push((org.to_string(), error.to_string())),
        }
    }
    unreadable.extend(hidden.into_iter().map(|(org, reason)| (org, reason.to_owned())));
    if common.json {
        let chains: Vec<_> = broken
            .iter()
            .map(|(org, fault)| json!({ "org_id": org, "session_id": fault.session_id, "failed_at_index": fault.failed_at_index, "failed_event_id": fault.failed_event_id, "reason": fault.reason }))
            .collect();
        output::json(
            &json!({ "verified": broken.is_empty() && wrong_sums.is_empty() && wrong_index.is_empty() && audit_broken.is_empty() && unreadable.is_empty(), "sessions_verified": sessions, "total_events": events, "broken_chains": chains, "wrong_sums": with_reasons(&wrong_sums), "wrong_search_index": with_reasons(&wrong_index), "broken_audit_logs": with_reasons(&audit_broken), "unreadable_orgs": with_reasons(&unreadable), "notes": with_reasons(&notes) }),
        );
    } else {
        output::line(&format!(
            "{} with {} verified",
            output::count(sessions, "session"),
            output::count(events, "event")
        ));
        for (org, fault) in &broken {
            output::line(&format!(
                "BROKEN  org {org}  session {}  event {}: {}",
                output::plain(&fault.session_id),
                output::plain(&fault.failed_event_id),
                output::plain(&fault.reason)
            ));
        }
        for (org, reason) in wrong_sums.iter().chain(&wrong_index) {
            output::line(&format!("WRONG  org {org}  {}", output::plain(reason)));
        }
        for (org, reason) in &audit_broken {
            output::line(&format!("BROKEN  org {org}  audit log: {}", output::plain(reason)));
        }
        for (org, note) in &notes {
            output::line(&format!("NOTE  org {org}  {}", output::plain(note)));
        }
        for (org, reason) in &unreadable {
            output::line(&format!("UNREADABLE  org {org}: {}", output::plain(reason)));
        }
    }
    conclude(broken.len() + audit_broken.len(), (wrong_sums.len(), wrong_index.len()), unreadable.len())
}

/// What verifying one org found.
struct Verified {
    chains: ChainReport,
    /// Sums of rollups and agents that differ from a count of their events.
    sums: Vec<String>,
    /// Where the search index differs from the events.
    index: Vec<String>,
    audit: AuditReport,
}

/// Verifies the chains of an org's sessions, the sums that are shown of them, the search index, and the audit log.
async fn verify(store: &Store, org: &OrgId) -> Result<Verified, StoreError> {
    let org = store.org(org).await?;
    Ok(Verified {
        chains: org.chains().verify_all().await?,
        sums: org.chains().verify_sums(store.clock().now_us()).await?,
        index: org.segments().verify(store.clock().now_us()).await?,
        audit: org.audit().verify().await?,
    })
}

fn with_reasons<T: Serialize>(orgs: &[(T, String)]) -> Vec<Value> {
    orgs.iter().map(|(org, reason)| json!({ "org_id": org, "reason": reason })).collect()
}

async fn all_orgs(store: &Store) -> Result<Vec<OrgId>, String> {
    let rows = store.control().list_orgs().await.map_err(|error| error.to_string())?;
    rows.iter().map(|row| OrgId::parse(&row.org_id).map_err(|error| error.to_string())).collect()
}

fn conclude(broken: usize, (sums, index): (usize, usize), unreadable: usize) -> Result<(), String> {
    let is_or_are = |count: usize| if count == 1 { "is" } else { "are" };
    let faults = [
        (broken, format!("{} {} broken", output::count(broken, "chain"), is_or_are(broken))),
        (sums, format!("{} {} wrong", output::count(sums, "sum"), is_or_are(sums))),
        (index, format!("{} in the search index", output::count(index, "fault"))),
        (unreadable, format!("{} can't be read", output::count(unreadable, "org"))),
    ];
    let faults: Vec<String> =
        faults.into_iter().filter(|(count, _)| *count > 0).map(|(_, text)| text).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}
