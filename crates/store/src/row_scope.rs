//! The rows that a transaction may see and write.

use agentlens_domain::ids::{OrgId, WorkspaceId};

/// The rows that a transaction may see and write. PostgreSQL's row security enforces it: where nothing is named, nothing is seen.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RowScope<'a> {
    /// An org's rows of the control tables.
    Control(&'a OrgId),
    /// The data of all of an org's workspaces.
    Org(&'a OrgId),
    /// The data of one workspace, and what the org's workspaces share.
    Workspace(&'a OrgId, &'a WorkspaceId),
}

impl<'a> RowScope<'a> {
    pub(crate) fn org(self) -> &'a OrgId {
        match self {
            Self::Control(org) | Self::Org(org) | Self::Workspace(org, _) => org,
        }
    }

    /// The statements that name it to row security for the rest of a transaction. Ids need no quoting by their type. These are
    /// literals in `SET LOCAL`, because Citus carries nothing else to its workers.
    pub(crate) fn set_local(self) -> String {
        let org = self.org();
        match self {
            Self::Control(_) => format!("set local app.current_org = '{org}'"),
            Self::Org(_) => {
                format!("set local app.current_org = '{org}'; set local app.current_workspace = '*'")
            }
            Self::Workspace(_, workspace) => {
                format!(
                    "set local app.current_org = '{org}'; set local app.current_workspace = '{workspace}'"
                )
            }
        }
    }
}
