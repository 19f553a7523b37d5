//! A message of every kind.

use agentlens_domain::permissions::Role;
use agentlens_mail::{Envelope, FactorChange, LinkToken, Message, PublicUrl};

/// 28 November 2026, 14:05:09 UTC.
pub(crate) const AT_US: i64 = 1_795_874_709_000_000;
const HOUR_US: i64 = 3_600_000_000;
pub(crate) const TOKEN: &str = "q7wYz-4Tn_0pLr";

pub(crate) fn public_url() -> PublicUrl {
    "https://lens.example".parse().unwrap()
}

pub(crate) fn envelope(to: &str, message: Message) -> Envelope {
    Envelope::new("01KB5M0000000000000000MAIL", to, AT_US, message).unwrap()
}

fn token() -> LinkToken {
    LinkToken::new(TOKEN).unwrap()
}

pub(crate) fn reset() -> Message {
    Message::ResetPassword { token: token(), expires_us: AT_US + HOUR_US / 2 }
}

pub(crate) fn invitation(org: &str, inviter: &str) -> Message {
    let (org, inviter) = (org.into(), inviter.into());
    Message::Invitation {
        token: token(),
        org,
        inviter,
        role: Role::Viewer,
        expires_us: AT_US + 168 * HOUR_US,
    }
}

/// One of each kind. The match fails to compile when a kind is added, as a reminder to add it here.
pub(crate) fn every_kind() -> Vec<Message> {
    let from = Some("203.0.113.9".parse().unwrap());
    let messages = vec![
        Message::VerifyAddress { token: token(), expires_us: AT_US + 24 * HOUR_US },
        Message::AddressTaken,
        reset(),
        Message::PasswordChanged { at_us: AT_US, from },
        Message::SecondFactorChanged { change: FactorChange::AppRemoved, at_us: AT_US, from: None },
        invitation("Müller & Söhne", "Ann O'Neil"),
        Message::OrgDeletionRequested {
            org: "Acme".into(),
            requester: "Ann O'Neil".into(),
            at_us: AT_US,
            undo_until_us: AT_US + 12 * HOUR_US,
            deleted_by_us: AT_US + 24 * HOUR_US,
        },
        Message::OrgDeletionUndone { org: "Acme".into(), undone_by: "ann@acme.example".into(), at_us: AT_US },
        Message::OrgDeleted {
            org: "Acme".into(),
            receipt_id: "01KB5M0000000000000000RCPT".into(),
            at_us: AT_US,
        },
        Message::KeyRevokedAsLeaked {
            org: "Acme".into(),
            key_name: "Nightly build".into(),
            key_prefix: "al_live_q7wY".into(),
            at_us: AT_US,
        },
        Message::SsoBreakGlassUsed { org: "Acme".into(), person: "Ann O'Neil".into(), at_us: AT_US, from },
        Message::SignUpAlarm { sign_ups: 240, minutes: 10, limit: 200 },
    ];
    for message in &messages {
        match message {
            Message::VerifyAddress { .. }
            | Message::AddressTaken
            | Message::ResetPassword { .. }
            | Message::PasswordChanged { .. }
            | Message::SecondFactorChanged { .. }
            | Message::Invitation { .. }
            | Message::OrgDeletionRequested { .. }
            | Message::OrgDeletionUndone { .. }
            | Message::OrgDeleted { .. }
            | Message::KeyRevokedAsLeaked { .. }
            | Message::SsoBreakGlassUsed { .. }
            | Message::SignUpAlarm { .. } => {}
        }
    }
    messages
}
