//! Who may do what: one table of permissions, and the callers that it is asked about.
//!
//! A key's rights are its scopes alone. A person's rights are those of the role in the org. The server itself, and who
//! runs its commands on its machine, may do everything. The match in [`Permission::granted_to`] has no default arm, so a
//! new permission does not compile until the table says who has it.

use serde::Serialize;

use crate::ids::{KeyId, OrgId, UserId, WorkspaceId};
use crate::keys::KeyScope;

/// A person's role in an org. Roles are sets of permissions: an auditor may do things that a member may not, and the
/// other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything, plan and deletion of the org included.
    Owner,
    /// Everything but plan, deletion and owners.
    Admin,
    /// Reads, and verifies chains and audit data.
    Auditor,
    /// Reads and writes; manages neither keys nor people.
    Member,
    /// Reads.
    Viewer,
}

impl Role {
    /// Every role.
    pub const EVERY: [Self; 5] = [Self::Owner, Self::Admin, Self::Auditor, Self::Member, Self::Viewer];

    /// The name at rest and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Auditor => "auditor",
            Self::Member => "member",
            Self::Viewer => "viewer",
        }
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::EVERY.into_iter().find(|role| role.as_str() == text)
    }
}

/// What a request may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Send events.
    EventsWrite,
    /// Read events, sessions, agents and analytics.
    EventsRead,
    /// Verify chains and read audit data.
    AuditRead,
    /// Make, list and revoke keys.
    KeysManage,
}

impl Permission {
    /// Every permission.
    pub const EVERY: [Self; 4] = [Self::EventsWrite, Self::EventsRead, Self::AuditRead, Self::KeysManage];

    /// The name on the wire and in `openapi.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventsWrite => "events:write",
            Self::EventsRead => "events:read",
            Self::AuditRead => "audit:read",
            Self::KeysManage => "keys:manage",
        }
    }

    /// Whether requests with it only read, so that they take turns to read.
    pub fn is_reading(self) -> bool {
        match self {
            Self::EventsRead | Self::AuditRead => true,
            Self::EventsWrite | Self::KeysManage => false,
        }
    }

    /// The table: the roles and the scopes that have this permission. The scope `*` has all.
    pub fn granted_to(self) -> (&'static [Role], &'static [KeyScope]) {
        use Role::{Admin, Auditor, Member, Owner};
        match self {
            Self::EventsWrite => (&[Owner, Admin, Member], &[KeyScope::EventsWrite]),
            Self::EventsRead => (&Role::EVERY, &[KeyScope::EventsRead]),
            Self::AuditRead => (&[Owner, Admin, Auditor], &[KeyScope::AuditRead]),
            Self::KeysManage => (&[Owner, Admin], &[KeyScope::KeysManage]),
        }
    }
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A program with an API key.
    Key {
        /// The key.
        key_id: KeyId,
        /// What it was made for.
        scopes: Vec<KeyScope>,
    },
    /// A person who is a member of the org.
    Person {
        /// The person.
        user_id: UserId,
        /// The role in this org.
        role: Role,
    },
    /// A part of the server itself, or who runs its commands on its machine.
    Service {
        /// Its name, such as `cli` or `retention`.
        name: &'static str,
    },
}

/// Where an act came from, for the audit log. Nothing of it is known of commands and of what the server does by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The id of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The browser session of a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
}

/// Who acts, and in which org and workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The org.
    pub org: OrgId,
    /// The workspace; none for what concerns the org as a whole.
    pub workspace: Option<WorkspaceId>,
    /// Who.
    pub actor: Actor,
    /// From where.
    pub origin: Origin,
}

impl Caller {
    /// A part of the server, acting on an org as a whole.
    pub fn service(name: &'static str, org: &OrgId) -> Self {
        Self { org: org.clone(), workspace: None, actor: Actor::Service { name }, origin: Origin::default() }
    }

    /// Whether this caller has a permission.
    pub fn may(&self, permission: Permission) -> bool {
        let (roles, granted) = permission.granted_to();
        match &self.actor {
            Actor::Key { scopes, .. } => {
                scopes.iter().any(|scope| *scope == KeyScope::All || granted.contains(scope))
            }
            Actor::Person { role, .. } => roles.contains(role),
            Actor::Service { .. } => true,
        }
    }

    /// Who, as it is written down: `key:key_...`, `person:user_...` or `service:cli`.
    pub fn actor_name(&self) -> String {
        match &self.actor {
            Actor::Key { key_id, .. } => format!("key:{key_id}"),
            Actor::Person { user_id, .. } => format!("person:{user_id}"),
            Actor::Service { name } => format!("service:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(actor: Actor) -> Caller {
        Caller { org: OrgId::default_org(), workspace: None, actor, origin: Origin::default() }
    }

    fn allowed(actor: Actor) -> Vec<&'static str> {
        let caller = caller(actor);
        Permission::EVERY.into_iter().filter(|it| caller.may(*it)).map(Permission::as_str).collect()
    }

    #[test]
    fn each_role_may_do_what_the_table_says() {
        let of = |role| allowed(Actor::Person { user_id: UserId::random(), role });
        let all = ["events:write", "events:read", "audit:read", "keys:manage"];
        assert_eq!(of(Role::Owner), all);
        assert_eq!(of(Role::Admin), all);
        assert_eq!(of(Role::Auditor), ["events:read", "audit:read"]);
        assert_eq!(of(Role::Member), ["events:write", "events:read"]);
        assert_eq!(of(Role::Viewer), ["events:read"]);
    }

    #[test]
    fn a_key_may_do_what_its_scopes_say_and_nothing_else() {
        let of =
            |scopes: &[KeyScope]| allowed(Actor::Key { key_id: KeyId::random(), scopes: scopes.to_vec() });
        assert_eq!(of(&[]), Vec::<&str>::new());
        assert_eq!(of(&[KeyScope::All]).len(), Permission::EVERY.len());
        assert_eq!(of(&[KeyScope::AuditRead, KeyScope::EventsWrite]), ["events:write", "audit:read"]);
        // Each scope but `*` is the one of the permission with its name.
        for permission in Permission::EVERY {
            let scope = KeyScope::parse(permission.as_str()).unwrap();
            assert_eq!(of(&[scope]), [permission.as_str()]);
        }
        assert_eq!(KeyScope::EVERY.len(), Permission::EVERY.len() + 1);
    }

    #[test]
    fn callers_and_roles_have_names() {
        assert_eq!(Caller::service("cli", &OrgId::default_org()).actor_name(), "service:cli");
        let user_id = UserId::random();
        let name = format!("person:{user_id}");
        assert_eq!(caller(Actor::Person { user_id, role: Role::Viewer }).actor_name(), name);
        assert!(Role::EVERY.iter().all(|role| Role::parse(role.as_str()) == Some(*role)));
        assert_eq!(Role::parse("root"), None);
    }
}
