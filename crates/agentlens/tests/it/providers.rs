//! Signing in through Google and GitHub: doubles of both, and who tries to get in by them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::doubles::github::Github;
use crate::doubles::google::Google;
use crate::people::{code_at, with_app};
use crate::world::{Answer, Browser, World, until};

on_both_engines!(
    a_stranger_signs_up_and_in_through_google_and_github,
    an_account_is_never_opened_by_an_address,
    a_provider_is_added_by_who_is_signed_in_only,
    the_last_way_to_sign_in_stays,
    a_code_of_the_second_factor_is_asked_for,
    an_answer_is_taken_once_and_from_the_same_browser,
    a_browser_is_sent_to_pages_of_the_server_only,
    self_hosted_only_who_has_an_account_comes_in,
);

/// The public address of the server; nobody listens there, so each test reads where a browser is sent.
const PUBLIC: &str = "http://127.0.0.1:1";
const PASSWORD: &str = "violet-harbor-9-kites";

/// A server that knows both providers.
struct Providers {
    world: World,
    google: Arc<Google>,
    github: Arc<Github>,
}

impl Providers {
    async fn new(mut world: World, further: &[&str]) -> Self {
        let google =
            Google::start(&format!("{PUBLIC}/v1/sign-in/google/callback"), world.now_us() / 1_000_000).await;
        let github = Github::start(&format!("{PUBLIC}/v1/sign-in/github/callback")).await;
        world.stop_gracefully().await;
        let of_google = &google.registration;
        let of_github = &github.registration;
        let arguments = [
            &["--public-url", PUBLIC, "--outbound-allow", "127.0.0.1", "--log", "info"][..],
            &["--google-client-id", &of_google.client_id, "--google-client-secret", &of_google.client_secret],
            &["--github-client-id", &of_github.client_id, "--github-client-secret", &of_github.client_secret],
            &["--test-google-url", &google.base, "--test-github-url", &github.base],
            further,
        ];
        world.start_server_with(&arguments.concat()).await;
        Self { world, google, github }
    }

    async fn cloud(world: World) -> Self {
        Self::new(world, &["--deployment", "cloud"]).await
    }

    fn browser(&self) -> Browser {
        Browser::new(&self.world).at(PUBLIC)
    }

    /// A person with a password, who has signed in.
    async fn person(&self, email: &str) -> Browser {
        let made = self.world.run_json(&["user", "create", email]);
        let browser = self.browser();
        browser.sign_in(email, made["password"].as_str().unwrap()).await;
        browser
    }
}

/// Begins, visits the provider, and says which address of the server the browser is sent back to.
async fn visit(browser: &Browser, path: &str, sent: Value) -> String {
    let answer = browser.post(path, sent).await.expect(200);
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let response = client.build().unwrap().get(answer["url"].as_str().unwrap()).send().await.unwrap();
    let Some(location) = response.headers().get("location") else {
        panic!("{}", response.text().await.unwrap())
    };
    location.to_str().unwrap().strip_prefix(PUBLIC).unwrap().to_owned()
}

/// Where an answer sends the browser.
#[track_caller]
fn sent_to(answer: &Answer) -> &str {
    assert_eq!(answer.status, 303, "{}", answer.text);
    answer.headers["location"].to_str().unwrap().strip_prefix(PUBLIC).unwrap()
}

/// Comes back from a provider, as browsers do: from another site, without `Origin`.
async fn come_back(browser: &Browser, path: &str) -> String {
    sent_to(&browser.come_from_elsewhere(path).await).to_owned()
}

/// A whole sign-in: where it leads.
async fn sign_in(browser: &Browser, provider: &str) -> String {
    let back = visit(browser, &format!("/v1/sign-in/{provider}"), json!({ "return_to": "/o/acme" })).await;
    come_back(browser, &back).await
}

async fn a_stranger_signs_up_and_in_through_google_and_github(world: World) {
    let providers = Providers::cloud(world).await;
    let info = providers.world.read("/api/server-info").await;
    assert_eq!(info["sign_in_providers"], json!(["google", "github"]));
    let mut users = Vec::new();
    for (provider, email, name) in
        [("google", "person@gmail.com", "A Person"), ("github", "octo@example.com", "Octo Person")]
    {
        let browser = providers.browser();
        browser.set_cookie("al_session", "al_session_chosen-by-someone-else");
        assert_eq!(sign_in(&browser, provider).await, "/o/acme");
        assert_eq!(browser.cookie("al_flow"), None);
        let me = browser.read("/v1/me").await;
        assert_eq!((&me["email"], &me["name"]), (&json!(email), &json!(name)));
        assert_eq!((&me["has_password"], &me["orgs"]), (&json!(false), &json!([])));
        let sessions = browser.read("/v1/me/sessions").await;
        assert_eq!(sessions["sessions"][0]["methods"], provider);
        let identities = browser.read("/v1/me/identities").await;
        assert_eq!(identities["identities"][0]["provider"], provider);
        // The same person comes again, also with another address.
        let again = providers.browser();
        providers.google.person.lock().unwrap()["email"] = json!("new@gmail.com");
        assert_eq!(sign_in(&again, provider).await, "/o/acme");
        assert_eq!(again.read("/v1/me").await["user_id"], me["user_id"]);
        users.push(me["user_id"].clone());
    }
    assert_ne!(users[0], users[1]);
    // Another person is another account; without a verified address there is none.
    providers.google.person.lock().unwrap()["sub"] = json!("2");
    let other = providers.browser();
    assert_eq!(sign_in(&other, "google").await, "/o/acme");
    assert!(!users.contains(&other.read("/v1/me").await["user_id"]));
    providers.google.person.lock().unwrap()["sub"] = json!("3");
    providers.google.person.lock().unwrap()["email"] = json!("third@gmail.com");
    providers.google.person.lock().unwrap()["email_verified"] = json!(false);
    let nobody = providers.browser();
    assert_eq!(sign_in(&nobody, "google").await, "/login#address_unverified");
    assert_eq!(nobody.cookie("al_session"), None);
    // A disabled person does not come in.
    providers.world.run_json(&["user", "disable", "octo@example.com"]);
    let disabled = providers.browser();
    assert_eq!(sign_in(&disabled, "github").await, "/login#sign_in_refused");
    assert_eq!(disabled.cookie("al_session"), None);
    providers.browser().post("/v1/sign-in/myspace", json!({})).await.refusal(404);
}

async fn an_account_is_never_opened_by_an_address(world: World) {
    let providers = Providers::cloud(world).await;
    let victim = providers.person("octo@example.com").await;
    let me = victim.read("/v1/me").await;
    // Even a verified address is only an address: it changes hands, and GitHub's word is not the owner's.
    let emails = |verified: bool| json!([{ "email": "OCTO@example.com", "primary": true, "verified": verified, "visibility": null }]);
    for (is_verified, code) in [(true, "/login#link_required"), (false, "/login#address_unverified")] {
        *providers.github.emails.lock().unwrap() = Some(emails(is_verified));
        let attacker = providers.browser();
        assert_eq!(sign_in(&attacker, "github").await, code);
        assert_eq!(attacker.cookie("al_session"), None);
        attacker.send("GET", "/v1/me", None).await.refusal(401);
    }
    let identities = victim.read("/v1/me/identities").await;
    assert_eq!(identities["identities"], json!([]));
    // Whoever signs up first with a stranger's address by mail has nothing once the stranger comes through a provider.
    let early = providers.browser();
    let sent = json!({ "email": "person@gmail.com", "password": PASSWORD, "name": "Eve" });
    early.post("/v1/sign-up", sent).await.expect(202);
    let token = crate::people::link(&providers.world, "verify", "person@gmail.com").await;
    let owner = providers.browser();
    assert_eq!(sign_in(&owner, "google").await, "/o/acme");
    early.post("/v1/verify", json!({ "token": token, "password": PASSWORD })).await.refusal(401);
    let login = json!({ "email": "person@gmail.com", "password": PASSWORD });
    early.post("/v1/sign-in", login).await.refusal(401);
    assert_ne!(owner.read("/v1/me").await["user_id"], me["user_id"]);
}

async fn a_provider_is_added_by_who_is_signed_in_only(world: World) {
    let providers = Providers::cloud(world).await;
    let link = "/v1/me/identities/github";
    let ann = providers.person("ann@example.com").await;
    let id = ann.read("/v1/me").await["user_id"].clone();
    providers.browser().post(link, json!({})).await.refusal(401);
    // Whatever address the provider knows.
    let back = visit(&ann, link, json!({ "return_to": "/account?tab=sign-in" })).await;
    assert_eq!(come_back(&ann, &back).await, "/account?tab=sign-in");
    let identities = ann.read("/v1/me/identities").await;
    assert_eq!(identities["identities"][0]["email"], "octo@example.com");
    let other = providers.browser();
    assert_eq!(sign_in(&other, "github").await, "/o/acme");
    assert_eq!(other.read("/v1/me").await["user_id"], id);
    assert_eq!(other.read("/v1/me").await["email"], "ann@example.com");
    // It is nobody else's then, and another one of the same provider is not added.
    let bob = providers.person("bob@example.com").await;
    let back = visit(&bob, link, json!({ "return_to": "/account" })).await;
    assert_eq!(come_back(&bob, &back).await, "/account#identity_taken");
    providers.github.user.lock().unwrap()["id"] = json!(7);
    let back = visit(&ann, link, json!({})).await;
    assert_eq!(come_back(&ann, &back).await, "/#identity_taken");
    // A link that Bob began adds nothing to Ann's account, nor to Bob's once Bob's session has ended.
    let back = visit(&bob, link, json!({})).await;
    let flow = bob.cookie("al_flow").unwrap();
    ann.set_cookie("al_flow", &flow);
    assert_eq!(come_back(&ann, &back).await, "/#session_ended");
    assert_eq!(come_back(&bob, &back).await, "/login#sign_in_wrong_flow");
    let back = visit(&bob, link, json!({})).await;
    let session = bob.cookie("al_session").unwrap();
    assert_eq!(bob.send("POST", "/v1/sign-out", None).await.status, 204);
    bob.set_cookie("al_session", &session);
    until("the session to end", || async {
        (bob.send("GET", "/v1/me", None).await.status == 401).then_some(())
    })
    .await;
    assert_eq!(come_back(&bob, &back).await, "/#session_ended");
    // It needs a proof that is not old.
    providers.world.move_clock(11 * 60_000_000);
    let refusal = ann.post(link, json!({})).await.refusal(403);
    assert_eq!(refusal["code"], "proof_required");
    let refusal = ann.send("DELETE", link, None).await.refusal(403);
    assert_eq!(refusal["code"], "proof_required");
}

async fn the_last_way_to_sign_in_stays(world: World) {
    let providers = Providers::cloud(world).await;
    let browser = providers.browser();
    assert_eq!(sign_in(&browser, "google").await, "/o/acme");
    let refusal = browser.send("DELETE", "/v1/me/identities/google", None).await.refusal(409);
    assert_eq!(refusal["code"], "last_way_to_sign_in");
    let back = visit(&browser, "/v1/me/identities/github", json!({})).await;
    assert_eq!(come_back(&browser, &back).await, "/");
    let elsewhere = providers.browser();
    assert_eq!(sign_in(&elsewhere, "google").await, "/o/acme");
    assert_eq!(browser.send("DELETE", "/v1/me/identities/google", None).await.status, 204);
    browser.send("DELETE", "/v1/me/identities/google", None).await.refusal(404);
    until("the other session to end", || async {
        (elsewhere.send("GET", "/v1/me", None).await.status == 401).then_some(())
    })
    .await;
    let refusal = browser.send("DELETE", "/v1/me/identities/github", None).await.refusal(409);
    assert_eq!(refusal["code"], "last_way_to_sign_in");
    // What is removed opens nothing, although the address is the account's.
    assert_eq!(sign_in(&elsewhere, "google").await, "/login#link_required");
    // Of two that are removed at once, one is left.
    let back = visit(&browser, "/v1/me/identities/google", json!({})).await;
    assert_eq!(come_back(&browser, &back).await, "/");
    let (one, other) = tokio::join!(
        browser.send("DELETE", "/v1/me/identities/google", None),
        browser.send("DELETE", "/v1/me/identities/github", None),
    );
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409]);
}

async fn a_code_of_the_second_factor_is_asked_for(world: World) {
    let providers = Providers::cloud(world).await;
    let ann = providers.person("ann@example.com").await;
    let back = visit(&ann, "/v1/me/identities/github", json!({})).await;
    assert_eq!(come_back(&ann, &back).await, "/");
    let (seed, _) = with_app(&providers.world, &ann).await;
    providers.world.move_clock(60_000_000);
    let other = providers.browser();
    assert_eq!(sign_in(&other, "github").await, "/login#code_required");
    assert_eq!(other.cookie("al_session"), None);
    other.send("GET", "/v1/me", None).await.refusal(401);
    let code = code_at(&seed, providers.world.now_us());
    other.post("/v1/sign-in/code", json!({ "code": code })).await.expect(200);
    let sessions = other.read("/v1/me/sessions").await;
    assert_eq!(sessions["sessions"][0]["methods"], "github totp");
    // Who has the provider's account can't go on guessing codes in ever new sign-ins.
    let guesser = providers.browser();
    let mut ends = Vec::new();
    for _ in 0..8 {
        ends.push(sign_in(&guesser, "github").await);
    }
    assert_eq!(ends[0], "/login#code_required");
    assert_eq!(ends[7], "/login#too_many_attempts");
}

async fn an_answer_is_taken_once_and_from_the_same_browser(world: World) {
    let providers = Providers::cloud(world).await;
    let wrong = "/login#sign_in_wrong_flow";
    // The answer of an attacker's sign-in, put before a victim, signs the victim in nowhere.
    let (attacker, victim) = (providers.browser(), providers.browser());
    let back = visit(&attacker, "/v1/sign-in/github", json!({})).await;
    assert_eq!(come_back(&victim, &back).await, wrong);
    let of_victim = visit(&victim, "/v1/sign-in/github", json!({})).await;
    assert_eq!(come_back(&victim, &back).await, wrong);
    assert_eq!(victim.cookie("al_session"), None);
    // With that try, the victim's own sign-in is used up.
    assert_eq!(come_back(&victim, &of_victim).await, wrong);
    // Once is enough; a second time there is nothing.
    let flow = attacker.cookie("al_flow").unwrap();
    let doubled = format!("{back}&code=x");
    assert_eq!(attacker.come_from_elsewhere(&doubled).await.refusal(400)["code"], "invalid_query");
    assert_eq!(come_back(&attacker, &back).await, "/");
    let again = providers.browser();
    again.set_cookie("al_flow", &flow);
    assert_eq!(come_back(&again, &back).await, wrong);
    assert_eq!(again.cookie("al_session"), None);
    // Another provider's address, a flow that waits for a code, and one that is too old are none either.
    let mixed = providers.browser();
    let back = visit(&mixed, "/v1/sign-in/github", json!({})).await;
    assert_eq!(come_back(&mixed, &back.replace("/github/", "/google/")).await, wrong);
    let late = providers.browser();
    let back = visit(&late, "/v1/sign-in/github", json!({})).await;
    providers.world.move_clock(601_000_000);
    assert_eq!(come_back(&late, &back).await, wrong);
    // Who says no at the provider is told so, and only on the way back of the same sign-in.
    let no = providers.browser();
    let back = visit(&no, "/v1/sign-in/github", json!({})).await;
    let state = back.split("state=").nth(1).unwrap().split('&').next().unwrap();
    let said_no = format!("/v1/sign-in/github/callback?error=access_denied&state={state}");
    assert_eq!(come_back(&no, &said_no).await, "/login#sign_in_cancelled");
    // From a page of another site nothing is begun.
    let elsewhere = providers.browser().at("https://evil.example.com");
    let refusal = elsewhere.post("/v1/sign-in/github", json!({})).await.refusal(403);
    assert_eq!(refusal["code"], "cross_site");
}

async fn a_browser_is_sent_to_pages_of_the_server_only(world: World) {
    let providers = Providers::cloud(world).await;
    for (asked, page) in [
        ("/o/acme?range=7d#row", "/o/acme?range=7d#row"),
        ("https://evil.example.com/", "/"),
        ("//evil.example.com", "/"),
        ("/\\evil.example.com", "/"),
        ("javascript:alert(1)", "/"),
        ("/.//evil.example.com", "/"),
    ] {
        let browser = providers.browser();
        let back = visit(&browser, "/v1/sign-in/github", json!({ "return_to": asked })).await;
        assert_eq!(come_back(&browser, &back).await, page, "{asked}");
    }
}

async fn self_hosted_only_who_has_an_account_comes_in(world: World) {
    let providers = Providers::new(world, &[]).await;
    let stranger = providers.browser();
    assert_eq!(sign_in(&stranger, "google").await, "/login#sign_up_closed");
    let ann = providers.person("ann@example.com").await;
    let back = visit(&ann, "/v1/me/identities/google", json!({})).await;
    assert_eq!(come_back(&ann, &back).await, "/");
    assert_eq!(sign_in(&stranger, "google").await, "/o/acme");
    // A sign-up through a provider is a sign-up: closed domains and the terms count.
    let Providers { world, .. } = providers;
    let further =
        [&["--deployment", "cloud", "--sign-up-domains", "example.com", "--terms-version", "2026-11"][..]];
    let providers = Providers::new(world, &further.concat()).await;
    let stranger = providers.browser();
    providers.google.person.lock().unwrap()["sub"] = json!("2");
    assert_eq!(sign_in(&stranger, "google").await, "/login#address_refused");
    assert_eq!(sign_in(&stranger, "github").await, "/login#terms_required");
    let sent = json!({ "terms_version": "2026-11" });
    let back = visit(&stranger, "/v1/sign-in/github", sent).await;
    assert_eq!(come_back(&stranger, &back).await, "/");
    stranger.read("/v1/me").await;
}
