//! From a message to a subject, a text and an HTML document. The words are in `templates/`, two files for each kind: `.txt`, whose first
//! line is the subject, and `.html`. Both are put into a layout.
//!
//! A template names its values in braces: `{org}`. Values are put in once and never read as a template; HTML is always escaped.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::links::PublicUrl;
use crate::messages::Message;
use crate::names::Name;

const TEXT_LAYOUT: &str = include_str!("../templates/layout.txt");
const HTML_LAYOUT: &str = include_str!("../templates/layout.html");

/// A message as it is read.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// One line.
    pub subject: String,
    /// Lines end with a line feed.
    pub text: String,
    /// A whole document.
    pub html: String,
}

/// The two files of a kind.
struct Template {
    text: &'static str,
    html: &'static str,
}

macro_rules! template {
    ($name:literal) => {
        Template {
            text: include_str!(concat!("../templates/", $name, ".txt")),
            html: include_str!(concat!("../templates/", $name, ".html")),
        }
    };
}

/// A value for a template.
enum Value<'m> {
    /// Chosen by a person.
    Name(&'m Name),
    /// Made by us.
    Text(Cow<'m, str>),
    /// Rendered before, with its HTML.
    Rendered(&'m str),
}

/// What a template becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Subject,
    Text,
    Html,
}

type Values<'m> = Vec<(&'static str, Value<'m>)>;

impl Message {
    /// The message as it is read, with links to this server.
    pub fn content(&self, public_url: &PublicUrl) -> Content {
        let template = self.template();
        let mut values = self.values();
        values.push(("link", Value::Text(self.link(public_url).into())));
        values.push(("server", Value::Text(public_url.origin().into())));
        let (subject, text) = template.text.split_once('\n').unwrap_or((template.text, ""));
        let subject = fill(subject, &values, Form::Subject);
        let text = fill(text.trim(), &values, Form::Text);
        let html = fill(template.html.trim_end(), &values, Form::Html);
        let layout = |body| {
            let server = Value::Text(public_url.origin().into());
            let title = Value::Text(subject.as_str().into());
            vec![("server", server), ("title", title), ("body", Value::Rendered(body))]
        };
        let text = fill(TEXT_LAYOUT, &layout(text.as_str()), Form::Text);
        let html = fill(HTML_LAYOUT, &layout(html.as_str()), Form::Html);
        Content { subject, text, html }
    }

    fn template(&self) -> Template {
        match self {
            Self::VerifyAddress { .. } => template!("verify_address"),
            Self::AddressTaken => template!("address_taken"),
            Self::ResetPassword { .. } => template!("reset_password"),
            Self::PasswordChanged { .. } => template!("password_changed"),
            Self::SecondFactorChanged { .. } => template!("second_factor_changed"),
            Self::Invitation { .. } => template!("invitation"),
            Self::OrgDeletionRequested { .. } => template!("org_deletion_requested"),
            Self::OrgDeletionUndone { .. } => template!("org_deletion_undone"),
            Self::OrgDeleted { .. } => template!("org_deleted"),
            Self::KeyRevokedAsLeaked { .. } => template!("key_revoked_as_leaked"),
            Self::SsoBreakGlassUsed { .. } => template!("sso_break_glass_used"),
            Self::SignUpAlarm { .. } => template!("sign_up_alarm"),
        }
    }

    fn values(&self) -> Values<'_> {
        match self {
            Self::AddressTaken => Vec::new(),
            Self::VerifyAddress { expires_us, .. } | Self::ResetPassword { expires_us, .. } => {
                vec![("expires", instant(*expires_us))]
            }
            Self::PasswordChanged { at_us, from } => vec![("at", instant(*at_us)), ("from", address(*from))],
            Self::SecondFactorChanged { change, at_us, from } => {
                let change = Value::Text(change.sentence().into());
                vec![("change", change), ("at", instant(*at_us)), ("from", address(*from))]
            }
            Self::Invitation { org, inviter, role, expires_us, .. } => vec![
                ("org", Value::Name(org)),
                ("inviter", Value::Name(inviter)),
                ("role", Value::Text(role.as_str().into())),
                ("expires", instant(*expires_us)),
            ],
            Self::OrgDeletionRequested { org, requester, at_us, undo_until_us, deleted_by_us } => vec![
                ("org", Value::Name(org)),
                ("requester", Value::Name(requester)),
                ("at", instant(*at_us)),
                ("undo_until", instant(*undo_until_us)),
                ("deleted_by", instant(*deleted_by_us)),
            ],
            Self::OrgDeletionUndone { org, undone_by, at_us } => vec![
                ("org", Value::Name(org)),
                ("undone_by", Value::Name(undone_by)),
                ("at", instant(*at_us)),
            ],
            Self::OrgDeleted { org, receipt_id, at_us } => vec![
                ("org", Value::Name(org)),
                ("receipt_id", Value::Name(receipt_id)),
                ("at", instant(*at_us)),
            ],
            Self::KeyRevokedAsLeaked { org, key_name, key_prefix, at_us } => vec![
                ("org", Value::Name(org)),
                ("key_name", Value::Name(key_name)),
                ("key_prefix", Value::Name(key_prefix)),
                ("at", instant(*at_us)),
            ],
            Self::SsoBreakGlassUsed { org, person, at_us, from } => vec![
                ("org", Value::Name(org)),
                ("person", Value::Name(person)),
                ("at", instant(*at_us)),
                ("from", address(*from)),
            ],
            Self::SignUpAlarm { sign_ups, minutes, limit } => vec![
                ("sign_ups", number(*sign_ups)),
                ("minutes", number(*minutes)),
                ("limit", number(*limit)),
            ],
        }
    }
}

/// `28 November 2026, 14:05 UTC`.
fn instant(us: i64) -> Value<'static> {
    let timestamp = Timestamp::from_microsecond(us).unwrap_or_default();
    Value::Text(timestamp.strftime("%-d %B %Y, %H:%M UTC").to_string().into())
}

fn address(address: Option<IpAddr>) -> Value<'static> {
    Value::Text(
        address.map_or("an unknown address".into(), |address| format!("the address {address}").into()),
    )
}

fn number(number: u64) -> Value<'static> {
    Value::Text(number.to_string().into())
}

/// Puts the values in. What they contain is not looked at again, so a name such as `{link}` stays what it is.
fn fill(template: &str, values: &Values<'_>, form: Form) -> String {
    let mut filled = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let found = after.split_once('}').and_then(|(name, after)| {
            let (_, value) = values.iter().find(|(known, _)| *known == name)?;
            Some((value, after))
        });
        let Some((value, after)) = found else {
            filled.push('{');
            rest = after;
            continue;
        };
        push(&mut filled, value, form);
        rest = after;
    }
    filled.push_str(rest);
    filled
}

fn push(filled: &mut String, value: &Value<'_>, form: Form) {
    let text: Cow<'_, str> = match value {
        Value::Rendered(text) => {
            filled.push_str(text);
            return;
        }
        Value::Name(name) if form == Form::Subject => name.as_str().into(),
        Value::Name(name) => name.unlinked().into(),
        Value::Text(text) => text.as_ref().into(),
    };
    if form != Form::Html {
        filled.push_str(&text);
        return;
    }
    for letter in text.chars() {
        match letter {
            '&' => filled.push_str("&amp;"),
            '<' => filled.push_str("&lt;"),
            '>' => filled.push_str("&gt;"),
            '"' => filled.push_str("&quot;"),
            '\'' => filled.push_str("&#39;"),
            _ => filled.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_in_once_and_escaped_in_html() {
        let name = Name::new("{b} <i>&\"'");
        let values = vec![("a", Value::Name(&name)), ("b", Value::Text("x".into()))];
        assert_eq!(fill("{a}{b}", &values, Form::Text), "{b} <i>&\"'x");
        assert_eq!(fill("{a}{b}", &values, Form::Html), "{b} &lt;i&gt;&amp;&quot;&#39;x");
        assert_eq!(fill("{c} { {", &values, Form::Text), "{c} { {");
    }

    #[test]
    fn instants_are_written_for_people() {
        let written = |us: i64| match instant(us) {
            Value::Text(text) => text.into_owned(),
            _ => String::new(),
        };
        assert_eq!(written(1_796_220_305_000_000), "2 December 2026, 14:05 UTC");
        assert_eq!(written(i64::MAX), "1 January 1970, 00:00 UTC");
    }
}
