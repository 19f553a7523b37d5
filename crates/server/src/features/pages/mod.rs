//! The server's own pages for people: signing in, proving an address, choosing a new password, accepting an invitation.
//!
//! They are what mail leads to until there is a dashboard. Asking for one changes nothing: its script reads the token from the
//! fragment of the link, which no server sees, and sends it with a form. They load nothing from elsewhere and run no script but their own.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get};

use crate::people::{Deployment, PeopleSettings};
use crate::state::AppState;

/// Only files of this server, no script in a page, nothing that puts text into a page as HTML. Forms are sent by the script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
const SHELL: &str = include_str!("shell.html");
const SCRIPT: &str = include_str!("script.js");
const STYLE: &str = include_str!("style.css");
/// What a page says when something is done. Every page has it.
const NOTICE: &str = include_str!("views/notice.html");
const TERMS: &str = include_str!("views/terms.html");
const SIGN_UP_LINK: &str = "<a href=\"#\" data-show=\"sign-up\">Sign up</a>";
/// How one signs in, which the page of an invitation can do too.
const SIGN_IN: [&str; 4] = [
    include_str!("views/sign_in.html"),
    include_str!("views/code.html"),
    include_str!("views/forgotten.html"),
    include_str!("views/signed_in.html"),
];

/// The pages, made once: they depend on how the server is set up and on nothing else.
struct Pages {
    login: Arc<str>,
    verify: Arc<str>,
    reset: Arc<str>,
    invite: Arc<str>,
}

impl Pages {
    fn of(settings: &PeopleSettings) -> Self {
        let is_open = settings.deployment == Deployment::Cloud && !settings.are_sign_ups_stopped;
        let sign_up: &[&str] = if is_open { &[include_str!("views/sign_up.html")] } else { &[] };
        let page = |page, title, views: &[&[&str]]| render(settings, page, title, &views.concat()).into();
        Self {
            login: page("login", "Sign in", &[&SIGN_IN, sign_up]),
            verify: page("verify", "Confirm your address", &[&[include_str!("views/verify.html")], &SIGN_IN]),
            reset: page("reset", "Choose a new password", &[&[include_str!("views/reset.html")]]),
            invite: page("invite", "Invitation", &[&[include_str!("views/invitation.html")], &SIGN_IN]),
        }
    }
}

/// The routes of this feature.
pub fn routes(settings: &PeopleSettings) -> Router<AppState> {
    let pages = Pages::of(settings);
    Router::new()
        .route("/login", page(pages.login))
        .route("/verify", page(pages.verify))
        .route("/reset", page(pages.reset))
        .route("/invite", page(pages.invite))
        .route("/pages/script.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/pages/style.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
}

fn page(text: Arc<str>) -> MethodRouter<AppState> {
    get(move || {
        let text = Arc::clone(&text);
        async move { html(&text) }
    })
}

fn html(page: &Arc<str>) -> Response {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(page.to_string())).into_response()
}

fn file(media_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, media_type)], text).into_response()
}

fn render(settings: &PeopleSettings, page: &str, title: &str, views: &[&str]) -> String {
    let has_sign_up = views.iter().any(|view| view.contains("id=\"sign-up\""));
    let terms = settings
        .terms_version
        .as_deref()
        .map_or_else(String::new, |version| TERMS.replace("{version}", &escape(version)));
    SHELL
        .replace("{views}", &format!("{NOTICE}{}", views.concat()))
        .replace("{title}", title)
        .replace("{page}", page)
        .replace("{origin}", &escape(settings.public_url.origin()))
        .replace("{sign_up_link}", if has_sign_up { SIGN_UP_LINK } else { "" })
        .replace("{terms}", &terms)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(deployment: Deployment) -> PeopleSettings {
        PeopleSettings {
            deployment,
            public_url: "https://lens.example.com".parse().unwrap(),
            are_sign_ups_stopped: false,
            terms_version: Some("<1> \"a\"".to_owned()),
            allowed_domains: Vec::new(),
            refused_addresses: Vec::new(),
            breached_passwords: None,
            google: None,
            github: None,
            has_mail_server: true,
            sign_up_alarm: 100,
            operator_mail: None,
        }
    }

    #[test]
    fn pages_hold_no_script_no_style_and_no_open_place() {
        let cloud = Pages::of(&settings(Deployment::Cloud));
        for page in [&cloud.login, &cloud.verify, &cloud.reset, &cloud.invite] {
            assert!(!page.contains('{'), "{page}");
            assert_eq!(page.matches("<script").count(), 1);
            assert!(page.contains("<script src=\"/pages/script.js\" defer></script>"));
            for refused in [" style=", "<style", "javascript:", " onclick", " onsubmit", " onload", "//"] {
                let page = page.replace("https://lens.example.com", "");
                assert!(!page.contains(refused), "{refused}");
            }
            let ids = page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
            let mut ids: Vec<&str> = ids.collect();
            let count = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), count, "an id is there twice");
            // Every field has a label of its own.
            for input in page.split("<input ").skip(1).filter(|rest| rest.starts_with("id=\"")) {
                let id = input.trim_start_matches("id=\"").split('"').next().unwrap();
                assert!(page.contains(&format!("<label for=\"{id}\">")), "{id}");
            }
        }
        assert!(cloud.login.contains("id=\"sign-up\"") && cloud.login.contains("&lt;1&gt; &quot;a&quot;"));
        assert!(!SCRIPT.contains("innerHTML") && !SCRIPT.contains("eval("));
    }

    #[test]
    fn who_may_not_sign_up_sees_no_form_for_it() {
        let stopped = PeopleSettings { are_sign_ups_stopped: true, ..settings(Deployment::Cloud) };
        for settings in [settings(Deployment::SelfHosted), stopped] {
            let pages = Pages::of(&settings);
            assert!(!pages.login.contains("sign-up"), "{}", pages.login);
            assert!(pages.invite.contains("id=\"join\""));
        }
    }
}
