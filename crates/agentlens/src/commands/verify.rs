//! `agentlens verify`: walks the chains of one org or of all, from the stored bytes.

use serde_json::json;

use agentlens_domain::ids::OrgId;

use crate::boot::open_store;
use crate::config::VerifyOptions;
use crate::output;

/// Verifies and reports; broken chains make the command fail.
pub(crate) async fn run(options: VerifyOptions) -> Result<(), String> {
    let store = open_store(&options.store).await?;
    let names = match options.org {
        Some(org) => vec![org],
        None => store
            .control()
            .list_orgs()
            .await
            .map_err(|error| error.to_string())?
            .into_iter()
            .map(|org| org.org_id)
            .collect(),
    };
    let (mut sessions, mut events, mut broken) = (0, 0, Vec::new());
    for name in names {
        let org = OrgId::parse(&name).map_err(|error| error.to_string())?;
        let tenant = store.tenant(&org).await.map_err(|error| format!("org {org}: {error}"))?;
        let report = tenant.verify_all(None, None).await.map_err(|error| format!("org {org}: {error}"))?;
        sessions += report.sessions_verified;
        events += report.total_events;
        broken.extend(report.broken.into_iter().map(|fault| (name.clone(), fault)));
    }
    if options.json {
        let chains: Vec<_> = broken
            .iter()
            .map(|(org, fault)| json!({ "org_id": org, "session_id": fault.session_id, "failed_at_index": fault.failed_at_index, "failed_event_id": fault.failed_event_id, "reason": fault.reason }))
            .collect();
        output::json(
            &json!({ "verified": broken.is_empty(), "sessions_verified": sessions, "total_events": events, "broken_chains": chains }),
        );
    } else {
        output::line(&format!("{sessions} sessions with {events} events verified"));
        for (org, fault) in &broken {
            output::line(&format!(
                "BROKEN  org {org}  session {}  event {} ({}): {}",
                fault.session_id, fault.failed_event_id, fault.failed_at_index, fault.reason
            ));
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(format!("{} chains are broken", broken.len())) }
}
