//! `agentlens workspace`: the workspaces of an org.

use serde_json::json;

use agentlens_domain::ids::WorkspaceId;
use agentlens_domain::people::names::{Name, NameOf};
use agentlens_domain::permissions::Caller;
use agentlens_domain::time::format_rfc3339;
use agentlens_store::StoreError;

use crate::boot::{find_org, open_store};
use crate::config::{Common, WorkspaceCommand};
use crate::output;

/// Runs a command on workspaces.
pub(crate) async fn run(command: WorkspaceCommand, common: &Common) -> Result<(), String> {
    match command {
        WorkspaceCommand::Create { name, id, org } => create(&name, id, &org, common).await,
        WorkspaceCommand::List { org } => list(&org, common).await,
    }
}

async fn create(name: &str, id: Option<String>, org: &str, common: &Common) -> Result<(), String> {
    let name = Name::parse(NameOf::Workspace, name).map_err(|error| error.to_string())?;
    let id = id.or_else(|| name.slug()).ok_or("give an --id: the name has no letter that an id can have")?;
    let workspace = WorkspaceId::parse(&id).map_err(|error| format!("--id: {error}"))?;
    let store = open_store(&common.store).await?;
    let org = find_org(&store, org).await?;
    let caller = Caller::service("cli", &org);
    let made = store.control().create_workspace(&caller, &workspace, name.as_str(), None).await;
    made.map_err(|error| match error {
        StoreError::Exists(_) => format!("org {org} has a workspace {workspace} already"),
        other => other.to_string(),
    })?;
    if common.json {
        output::json(&json!({ "workspace_id": workspace, "name": name.as_str(), "org_id": org }));
    } else {
        output::line(&format!("Workspace {workspace} ({})", name.as_str()));
    }
    Ok(())
}

async fn list(org: &str, common: &Common) -> Result<(), String> {
    let store = open_store(&common.store).await?;
    let org = find_org(&store, org).await?;
    let rows = store.control().list_workspaces(&org).await.map_err(|error| error.to_string())?;
    if common.json {
        let all: Vec<_> = rows
            .iter()
            .map(|row| json!({ "workspace_id": row.workspace_id, "name": row.name, "created_at": format_rfc3339(row.created_us), "archived_at": row.archived_us.map(format_rfc3339) }))
            .collect();
        output::json(&json!({ "workspaces": all }));
        return Ok(());
    }
    let mut table = output::Table::new(&["WORKSPACE", "NAME", "CREATED", "ARCHIVED"]);
    for row in rows {
        let archived = row.archived_us.map(format_rfc3339).unwrap_or_default();
        table.row([row.workspace_id, row.name, format_rfc3339(row.created_us), archived]);
    }
    table.print();
    Ok(())
}
