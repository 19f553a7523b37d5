//! The kinds of mail, and the data that each of them shows.

use std::net::IpAddr;

use agentlens_domain::permissions::Role;
use serde::{Deserialize, Serialize};

use crate::links::{LinkToken, Page, PublicUrl};
use crate::names::Name;

/// What is mailed. As JSON it goes through an outbox: `{"kind": "verify_address", ...}`. Instants are microseconds UTC.
///
/// Its only secret is the token of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// Somebody signed up with this address; the link proves that it is theirs.
    VerifyAddress {
        /// The token of the link.
        token: LinkToken,
        /// When the link stops working.
        expires_us: i64,
    },
    /// Somebody signed up with this address, and it has an account already. Only its owner learns that.
    AddressTaken,
    /// A new password was asked for.
    ResetPassword {
        /// The token of the link.
        token: LinkToken,
        /// When the link stops working.
        expires_us: i64,
    },
    /// The password was changed.
    PasswordChanged {
        /// When.
        at_us: i64,
        /// From which address, as far as it is known.
        from: Option<IpAddr>,
    },
    /// The second factor was changed.
    SecondFactorChanged {
        /// What about it.
        change: FactorChange,
        /// When.
        at_us: i64,
        /// From which address, as far as it is known.
        from: Option<IpAddr>,
    },
    /// An invitation to an org.
    Invitation {
        /// The token of the link.
        token: LinkToken,
        /// The org.
        org: Name,
        /// Who invites: a name, or an address.
        inviter: Name,
        /// What the invited person would be in the org.
        #[serde(with = "role")]
        role: Role,
        /// When the link stops working.
        expires_us: i64,
    },
    /// An owner asked for the deletion of the org.
    OrgDeletionRequested {
        /// The org.
        org: Name,
        /// Who asked.
        requester: Name,
        /// When.
        at_us: i64,
        /// Until when it can be undone.
        undo_until_us: i64,
        /// By when everything is deleted.
        deleted_by_us: i64,
    },
    /// The deletion of the org was undone in time.
    OrgDeletionUndone {
        /// The org.
        org: Name,
        /// Who did it.
        undone_by: Name,
        /// When.
        at_us: i64,
    },
    /// The org is deleted.
    OrgDeleted {
        /// The org.
        org: Name,
        /// The id of the signed receipt.
        receipt_id: Name,
        /// When the deletion was complete.
        at_us: i64,
    },
    /// Somebody who had one of the org's API keys reported it as leaked, and it was revoked.
    KeyRevokedAsLeaked {
        /// The org.
        org: Name,
        /// The name of the key.
        key_name: Name,
        /// How the key begins, as far as lists show it. Never more.
        key_prefix: Name,
        /// When.
        at_us: i64,
    },
    /// An owner signed in with a password, past the single sign-on that the org demands.
    SsoBreakGlassUsed {
        /// The org.
        org: Name,
        /// Who.
        person: Name,
        /// When.
        at_us: i64,
        /// From which address, as far as it is known.
        from: Option<IpAddr>,
    },
    /// To operators: more people sign up than usual.
    SignUpAlarm {
        /// How many signed up.
        sign_ups: u64,
        /// Within how many minutes.
        minutes: u64,
        /// From how many on there is an alarm.
        limit: u64,
    },
}

/// What happened to a second factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactorChange {
    /// An authenticator app was added.
    AppAdded,
    /// The authenticator app was removed.
    AppRemoved,
    /// There are new recovery codes, and the old ones are void.
    RecoveryCodesReplaced,
    /// Somebody signed in with a recovery code.
    RecoveryCodeUsed,
}

impl FactorChange {
    /// The change as a sentence.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::AppAdded => "An authenticator app was added to your account.",
            Self::AppRemoved => "The authenticator app was removed from your account.",
            Self::RecoveryCodesReplaced => {
                "New recovery codes were made for your account. The old ones no longer work."
            }
            Self::RecoveryCodeUsed => {
                "A recovery code was used to sign in to your account. It can't be used again."
            }
        }
    }
}

impl Message {
    /// The name of the kind, as in JSON; for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::VerifyAddress { .. } => "verify_address",
            Self::AddressTaken => "address_taken",
            Self::ResetPassword { .. } => "reset_password",
            Self::PasswordChanged { .. } => "password_changed",
            Self::SecondFactorChanged { .. } => "second_factor_changed",
            Self::Invitation { .. } => "invitation",
            Self::OrgDeletionRequested { .. } => "org_deletion_requested",
            Self::OrgDeletionUndone { .. } => "org_deletion_undone",
            Self::OrgDeleted { .. } => "org_deleted",
            Self::KeyRevokedAsLeaked { .. } => "key_revoked_as_leaked",
            Self::SsoBreakGlassUsed { .. } => "sso_break_glass_used",
            Self::SignUpAlarm { .. } => "sign_up_alarm",
        }
    }

    /// The token, of kinds that have one.
    pub fn token(&self) -> Option<&LinkToken> {
        match self {
            Self::VerifyAddress { token, .. }
            | Self::ResetPassword { token, .. }
            | Self::Invitation { token, .. } => Some(token),
            _ => None,
        }
    }

    /// Where the mail leads. It is a secret if there is a [`Message::token`].
    pub fn link(&self, public_url: &PublicUrl) -> String {
        match self {
            Self::VerifyAddress { token, .. } => public_url.link(Page::Verify, token),
            Self::ResetPassword { token, .. } => public_url.link(Page::Reset, token),
            Self::Invitation { token, .. } => public_url.link(Page::Invite, token),
            _ => public_url.page(Page::Login),
        }
    }
}

/// Roles by their names.
mod role {
    use agentlens_domain::permissions::Role;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
    pub(super) fn serialize<S: Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(role.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
        let name = String::deserialize(deserializer)?;
        Role::parse(&name).ok_or_else(|| D::Error::custom(format!("`{name}` is not a role")))
    }
}
