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
    /// Everything, owners and deletion of the org included.
    Owner,
    /// Everything but owners and deletion.
    Admin,
    /// Reads, and verifies chains and audit data.
    Auditor,
    /// Reads and writes, dead letters included; manages neither keys nor people.
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
    /// Read what the org is: its name, workspaces, members and use.
    OrgRead,
    /// Change the org's name and settings.
    OrgManage,
    /// Invite and remove members, and change their roles.
    MembersManage,
    /// Make, rename and archive workspaces and environments.
    WorkspacesManage,
    /// Set prices of models.
    PricesManage,
    /// See, replay and drop batches that could not be applied.
    DeadLettersManage,
    /// Choose the identity provider that members sign in with, and that adds and removes them. No key may: who chooses the
    /// provider decides who everyone is.
    SsoManage,
    /// Make, change and remove owners.
    OwnersManage,
    /// Delete the org.
    OrgDelete,
}

impl Permission {
    /// Every permission.
    pub const EVERY: [Self; 13] = [
        Self::EventsWrite,
        Self::EventsRead,
        Self::AuditRead,
        Self::KeysManage,
        Self::OrgRead,
        Self::OrgManage,
        Self::MembersManage,
        Self::WorkspacesManage,
        Self::PricesManage,
        Self::DeadLettersManage,
        Self::SsoManage,
        Self::OwnersManage,
        Self::OrgDelete,
    ];

    /// The name on the wire and in `openapi.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventsWrite => "events:write",
            Self::EventsRead => "events:read",
            Self::AuditRead => "audit:read",
            Self::KeysManage => "keys:manage",
            Self::OrgRead => "org:read",
            Self::OrgManage => "org:manage",
            Self::MembersManage => "members:manage",
            Self::WorkspacesManage => "workspaces:manage",
            Self::PricesManage => "prices:manage",
            Self::DeadLettersManage => "dead_letters:manage",
            Self::SsoManage => "sso:manage",
            Self::OwnersManage => "owners:manage",
            Self::OrgDelete => "org:delete",
        }
    }

    /// Whether requests with it read an org's data, so that they take turns to read.
    pub fn is_reading(self) -> bool {
        match self {
            Self::EventsRead | Self::AuditRead => true,
            Self::EventsWrite
            | Self::KeysManage
            | Self::OrgRead
            | Self::OrgManage
            | Self::MembersManage
            | Self::WorkspacesManage
            | Self::PricesManage
            | Self::DeadLettersManage
            | Self::SsoManage
            | Self::OwnersManage
            | Self::OrgDelete => false,
        }
    }

    /// The table: the roles and the scopes that have this permission. The scope `*` has all that any other scope has; what no
    /// scope has is for people only.
    pub fn granted_to(self) -> (&'static [Role], &'static [KeyScope]) {
        use Role::{Admin, Auditor, Member, Owner};
        match self {
            Self::EventsWrite => (&[Owner, Admin, Member], &[KeyScope::EventsWrite]),
            Self::EventsRead => (&Role::EVERY, &[KeyScope::EventsRead]),
            Self::AuditRead => (&[Owner, Admin, Auditor], &[KeyScope::AuditRead]),
            Self::KeysManage => (&[Owner, Admin], &[KeyScope::KeysManage]),
            Self::OrgRead => (&Role::EVERY, &[KeyScope::OrgRead]),
            Self::OrgManage => (&[Owner, Admin], &[KeyScope::OrgManage]),
            Self::MembersManage => (&[Owner, Admin], &[KeyScope::MembersManage]),
            Self::WorkspacesManage => (&[Owner, Admin], &[KeyScope::WorkspacesManage]),
            Self::PricesManage => (&[Owner, Admin], &[KeyScope::PricesManage]),
            Self::DeadLettersManage => (&[Owner, Admin, Member], &[KeyScope::DeadLettersManage]),
            Self::SsoManage => (&[Owner, Admin], &[]),
            Self::OwnersManage | Self::OrgDelete => (&[Owner], &[]),
        }
    }

    fn is_granted_to_role(self, role: Role) -> bool {
        self.granted_to().0.contains(&role)
    }

    fn is_granted_to_scopes(self, scopes: &[KeyScope]) -> bool {
        let granted = self.granted_to().1;
        !granted.is_empty() && scopes.iter().any(|scope| *scope == KeyScope::All || granted.contains(scope))
    }
}

/// Permissions together, to be compared with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermissionSet(u32);

impl PermissionSet {
    /// What a role may do.
    pub fn of_role(role: Role) -> Self {
        Self::of(|permission| permission.is_granted_to_role(role))
    }

    /// What a key with these scopes may do.
    pub fn of_scopes(scopes: &[KeyScope]) -> Self {
        Self::of(|permission| permission.is_granted_to_scopes(scopes))
    }

    /// Whether it is in the set.
    pub fn contains(self, permission: Permission) -> bool {
        self.0 & bit(permission) != 0
    }

    /// Whether the other set has all of this one.
    pub fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// The permissions in the set, in the order of the table.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::EVERY.into_iter().filter(move |permission| self.contains(*permission))
    }

    fn of(is_in: impl Fn(Permission) -> bool) -> Self {
        Self(Permission::EVERY.into_iter().filter(|it| is_in(*it)).fold(0, |set, it| set | bit(it)))
    }
}

fn bit(permission: Permission) -> u32 {
    1 << permission as u32
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

    /// A person who acts on the own account and not in an org. What is logged and told of it is kept under the person's id.
    pub fn alone(user: &UserId, origin: Origin) -> Self {
        // In no org there is nothing that a role allows.
        let actor = Actor::Person { user_id: user.clone(), role: Role::Viewer };
        Self { org: OrgId::of_person(user), workspace: None, actor, origin }
    }

    /// The server's operator or a part of the server, acting on a person's account.
    pub fn service_on(name: &'static str, user: &UserId) -> Self {
        Self::service(name, &OrgId::of_person(user))
    }

    /// The person who acts; `None` for keys and services.
    pub fn person(&self) -> Option<&UserId> {
        match &self.actor {
            Actor::Person { user_id, .. } => Some(user_id),
            Actor::Key { .. } | Actor::Service { .. } => None,
        }
    }

    /// Whether it is this person who acts.
    pub fn is_person(&self, user: &UserId) -> bool {
        self.person() == Some(user)
    }

    /// Whether this caller has a permission.
    pub fn may(&self, permission: Permission) -> bool {
        match &self.actor {
            Actor::Key { scopes, .. } => permission.is_granted_to_scopes(scopes),
            Actor::Person { role, .. } => permission.is_granted_to_role(*role),
            Actor::Service { .. } => true,
        }
    }

    /// All permissions of this caller.
    pub fn permissions(&self) -> PermissionSet {
        PermissionSet::of(|permission| self.may(permission))
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

    /// The permissions with the roles that have them (owner, admin, auditor, member, viewer), and whether a key can.
    const TABLE: [(&str, &str, bool); 13] = [
        ("events:write", "oa-m-", true),
        ("events:read", "oaumv", true),
        ("audit:read", "oau--", true),
        ("keys:manage", "oa---", true),
        ("org:read", "oaumv", true),
        ("org:manage", "oa---", true),
        ("members:manage", "oa---", true),
        ("workspaces:manage", "oa---", true),
        ("prices:manage", "oa---", true),
        ("dead_letters:manage", "oa-m-", true),
        ("sso:manage", "oa---", false),
        ("owners:manage", "o----", false),
        ("org:delete", "o----", false),
    ];

    #[test]
    fn each_role_may_do_what_the_table_says() {
        assert_eq!(Permission::EVERY.map(Permission::as_str), TABLE.map(|(name, ..)| name));
        for (role, letter) in Role::EVERY.into_iter().zip("oaumv".chars()) {
            let expected: Vec<&str> = TABLE
                .into_iter()
                .filter(|(_, roles, _)| roles.contains(letter))
                .map(|(name, ..)| name)
                .collect();
            assert_eq!(allowed(Actor::Person { user_id: UserId::random(), role }), expected, "{role:?}");
            assert_eq!(
                PermissionSet::of_role(role).iter().map(Permission::as_str).collect::<Vec<_>>(),
                expected
            );
        }
    }

    #[test]
    fn roles_are_sets_and_not_ranks() {
        let within = |one, other| PermissionSet::of_role(one).is_within(PermissionSet::of_role(other));
        assert!(Role::EVERY.iter().all(|role| within(*role, Role::Owner) && within(Role::Viewer, *role)));
        assert!(within(Role::Member, Role::Admin) && within(Role::Auditor, Role::Admin));
        assert!(!within(Role::Auditor, Role::Member) && !within(Role::Member, Role::Auditor));
        assert!(!within(Role::Owner, Role::Admin));
    }

    #[test]
    fn a_key_may_do_what_its_scopes_say_and_nothing_else() {
        let of =
            |scopes: &[KeyScope]| allowed(Actor::Key { key_id: KeyId::random(), scopes: scopes.to_vec() });
        let for_keys: Vec<&str> =
            TABLE.into_iter().filter(|(.., can_key)| *can_key).map(|(name, ..)| name).collect();
        assert_eq!(of(&[]), Vec::<&str>::new());
        assert_eq!(of(&[KeyScope::All]), for_keys);
        assert_eq!(of(&KeyScope::EVERY[1..]), for_keys);
        assert_eq!(of(&[KeyScope::AuditRead, KeyScope::EventsWrite]), ["events:write", "audit:read"]);
        // Each scope but `*` is the one of the permission with its name; what is for people only has none.
        assert!(KeyScope::EVERY[1..].iter().all(|scope| of(&[*scope]) == [scope.as_str()]));
        assert_eq!(KeyScope::EVERY.len(), for_keys.len() + 1);
    }

    #[test]
    fn a_caller_has_the_set_of_what_it_may() {
        let scopes = vec![KeyScope::EventsRead, KeyScope::OrgRead];
        let set = PermissionSet::of_scopes(&scopes);
        assert_eq!(caller(Actor::Key { key_id: KeyId::random(), scopes }).permissions(), set);
        let service = Caller::service("cli", &OrgId::default_org()).permissions();
        assert!(Permission::EVERY.iter().all(|it| service.contains(*it)));
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
