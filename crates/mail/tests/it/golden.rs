//! What each kind of mail says, word by word, and how it lies in an outbox.
//!
//! `UPDATE_GOLDEN=1 cargo test -p agentlens-mail golden` rewrites the files; review the difference.

use std::collections::HashSet;
use std::path::Path;

use agentlens_mail::{Content, FactorChange, Message};

use crate::samples::{AT_US, TOKEN, every_kind, invitation, public_url};

#[test]
fn every_kind_says_what_it_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut kinds = HashSet::new();
    for message in every_kind() {
        assert!(kinds.insert(message.kind()), "{} is there twice", message.kind());
        let Content { subject, text, html } = message.content(&public_url());
        let found = format!("Subject: {subject}\n\n{text}\n==== HTML\n{html}");
        let file = folder.join(message.kind()).with_extension("txt");
        if update {
            std::fs::write(&file, &found).unwrap();
        } else {
            let expected = std::fs::read_to_string(&file).unwrap();
            assert!(found == expected, "{}:\n{found}\nbut expected was\n{expected}", file.display());
        }
    }
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let unused: Vec<_> = std::fs::read_dir(templates)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|stem| stem != "layout" && !kinds.contains(stem.as_str()))
        .collect();
    assert!(unused.is_empty(), "templates without a kind: {unused:?}");
}

#[test]
fn templates_are_filled_and_load_nothing() {
    for message in every_kind() {
        let Content { subject, text, html } = message.content(&public_url());
        for part in [&subject, &text, &html] {
            assert!(!part.contains('{') && !part.contains('}'), "{part}");
            assert!(!part.contains('\r') && !part.contains('\t'), "{part}");
        }
        assert!(subject.chars().count() <= 80 && !subject.contains('\n'), "{subject}");
        for loads in ["<img", "<link", "<script", "src=", "url(", "@import", "<iframe", "<form"] {
            assert!(!html.contains(loads), "{html}");
        }
        // Every address in it is of this server, and the HTML leads where the text leads.
        let link = message.link(&public_url());
        for part in [&text, &html] {
            for address in part.split("http").skip(1) {
                assert!(address.starts_with("s://lens.example"), "{part}");
            }
        }
        assert_eq!(html.contains(&format!("<a href=\"{link}\">")), text.contains(&link), "{html}");
        if message.token().is_some() {
            assert!(text.contains(&format!("#{TOKEN}\n")), "{text}");
        }
    }
}

#[test]
fn every_change_of_a_factor_is_a_sentence() {
    let changes = [
        FactorChange::AppAdded,
        FactorChange::AppRemoved,
        FactorChange::RecoveryCodesReplaced,
        FactorChange::RecoveryCodeUsed,
    ];
    let texts: HashSet<_> = changes
        .into_iter()
        .map(|change| {
            Message::SecondFactorChanged { change, at_us: AT_US, from: None }.content(&public_url()).text
        })
        .collect();
    assert_eq!(texts.len(), changes.len());
}

#[test]
fn names_break_neither_lines_nor_html() {
    let org = "Acme\r\n\r\n<a href='https://evil.example'>click</a>\u{202e}{link}";
    let Content { subject, text, html } =
        invitation(org, "https://evil.example/win?a=\"b\"").content(&public_url());
    assert_eq!(
        subject,
        "https://evil.example/win?a=\"b\" invites you to Acme <a href='https://evil.example'>click</a>{link}"
    );
    let lines = invitation("Acme", "Ann").content(&public_url()).text.lines().count();
    assert_eq!(text.lines().count(), lines);
    let tags = |html: &str| html.matches('<').count();
    assert_eq!(tags(&html), tags(&invitation("Acme", "Ann").content(&public_url()).html));
    // A title is not made into links.
    let (_, body) = html.split_once("<body").unwrap();
    for part in [text.as_str(), body] {
        assert!(part.contains("{link}"), "{part}");
        assert!(!part.contains("evil.example") && !part.contains("://evil"), "{part}");
        assert!(!part.contains('\u{202e}'), "{part}");
    }
    let long = invitation(&"x".repeat(100_000), &"y ".repeat(100_000)).content(&public_url());
    assert!(long.subject.chars().count() < 160 && long.text.len() < 2_000 && long.html.len() < 4_000);
}

#[test]
fn messages_keep_their_form_in_an_outbox() {
    for message in every_kind() {
        let json = serde_json::to_value(&message).unwrap();
        assert_eq!(json["kind"], message.kind());
        assert_eq!(json.get("token").is_some(), message.token().is_some());
        assert_eq!(serde_json::from_value::<Message>(json).unwrap(), message);
        assert!(!format!("{message:?}").contains(TOKEN), "{message:?}");
    }
    assert_eq!(
        serde_json::to_string(&invitation("Acme", "Ann")).unwrap(),
        format!(
            r#"{{"kind":"invitation","token":"{TOKEN}","org":"Acme","inviter":"Ann","role":"viewer","expires_us":1796479509000000}}"#
        )
    );
    let with = |text: &str| serde_json::from_str::<Message>(text);
    assert!(with(r#"{"kind":"reset_password","token":"a b","expires_us":0}"#).is_err());
    assert!(
        with(r#"{"kind":"invitation","token":"a","org":"","inviter":"","role":"king","expires_us":0}"#)
            .is_err()
    );
    assert!(with(r#"{"kind":"newsletter"}"#).is_err());
}
