//! People: signing up, signing in and out, second factors, sessions; and how each of it is refused.

use serde_json::{Value, json};

use agentlens_domain::people::totp::TotpSeed;

use crate::samples::note;
use crate::world::{Browser, World, until};

on_both_engines!(
    a_person_signs_in_and_reads_the_own_org_only,
    a_wrong_password_says_nothing_and_guesses_are_slowed_down,
    a_session_ends_where_it_is_ended,
    a_new_password_ends_all_other_sessions,
    a_second_factor_is_asked_for_and_taken_once,
    recovery_codes_sign_in_once,
    a_disabled_person_is_out_within_a_second,
    a_reset_link_works_once_and_only_the_newest,
    an_invitation_is_for_its_address,
    a_role_is_never_given_beyond_ones_own,
    the_last_owner_stays,
    a_removed_member_is_out_within_a_second,
    workspaces_are_made_and_archived,
    the_account_is_closed_to_keys,
);

pub(crate) const PASSWORD: &str = "violet-harbor-9-kites";

/// The value behind `#` in the newest link of a page that went to the log.
pub(crate) async fn link(world: &World, page: &str, address: &str) -> String {
    let wanted = format!("/{page}#");
    until("a link in the log", || {
        let log = world.log();
        let line = log.lines().rev().find(|line| line.contains(&wanted) && line.contains(address));
        let token = line.map(|line| {
            let (_, rest) = line.split_once(&wanted).unwrap();
            rest.split(|c: char| c.is_whitespace() || c == '"').next().unwrap().to_owned()
        });
        async move { token }
    })
    .await
}

/// A server that anyone may sign up to.
pub(crate) async fn cloud(world: &mut World) {
    world.stop_gracefully().await;
    world.start_server_with(&["--deployment", "cloud", "--log", "info"]).await;
}

/// A person who has signed up and is signed in.
pub(crate) async fn signed_up(world: &World, email: &str) -> Browser {
    let browser = Browser::new(world);
    let sent = json!({ "email": email, "password": PASSWORD, "name": "Ann" });
    browser.post("/v1/sign-up", sent).await.expect(202);
    let token = link(world, "verify", email).await;
    browser.post("/v1/verify", json!({ "token": token, "password": PASSWORD })).await.expect(200);
    browser
}

async fn a_person_signs_in_and_reads_the_own_org_only(world: World) {
    let (org, other) = world.org("Other");
    other.send(&[note("theirs", "x")]).await;
    world.send(&[note("ours", "x")]).await;
    let viewer = world.person("viewer@example.com", "viewer").await;
    let me = viewer.read("/v1/me").await;
    assert_eq!((&me["email"], &me["orgs"][0]["role"]), (&json!("viewer@example.com"), &json!("viewer")));
    assert_eq!(me["orgs"].as_array().unwrap().len(), 1);
    let sessions = viewer.read("/api/sessions").await;
    assert_eq!(sessions["total"], 1, "{sessions}");
    assert_eq!(sessions["sessions"][0]["id"], "ours");
    // Another org is not there, whether it exists or not.
    for org in [org.as_str(), "onothing", "user_x"] {
        let elsewhere = Browser::new(&world).in_org(org);
        elsewhere.set_cookie("al_session", &viewer.cookie("al_session").unwrap());
        let refusal = elsewhere.send("GET", "/api/sessions", None).await.refusal(404);
        assert_eq!(refusal["error"], "Org not found");
    }
    // A stream names org and workspace by parameters.
    let stream = viewer.request("GET", "/api/stream?org=default&workspace=default").send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let stream = viewer.request("GET", &format!("/api/stream?org={org}")).send().await.unwrap();
    assert_eq!(stream.status(), 404);
    // Reading is all that a viewer does.
    viewer.post("/api/events", json!([note("s", "x")])).await.refusal(403);
    // With a key in the request, the cookie counts for nothing.
    let with_wrong_key =
        viewer.request("GET", "/api/sessions").bearer_auth("al_live_wrong").send().await.unwrap();
    assert_eq!(with_wrong_key.status(), 401);
}

async fn a_wrong_password_says_nothing_and_guesses_are_slowed_down(world: World) {
    let made = world.run_json(&["user", "create", "ann@example.com"]);
    let password = made["password"].as_str().unwrap();
    let known = Browser::new(&world);
    known.sign_in("ann@example.com", password).await;
    let stranger = Browser::new(&world);
    let mut refusals = Vec::new();
    for email in ["ann@example.com", "nobody@example.com"] {
        for guess in 0..6 {
            let sent = json!({ "email": email, "password": format!("wrong-{guess}") });
            let answer = stranger.post("/v1/sign-in", sent).await;
            let status = answer.status;
            let refusal = answer.refusal(if guess < 5 { 401 } else { 429 });
            refusals.push((email, status, refusal["error"].clone(), refusal["code"].clone()));
        }
    }
    // Both addresses are answered alike, also when guesses have to wait.
    let (known_address, unknown): (Vec<_>, Vec<_>) =
        refusals.into_iter().partition(|it| it.0 == "ann@example.com");
    let plain =
        |all: Vec<(_, u16, Value, Value)>| all.into_iter().map(|it| (it.1, it.2, it.3)).collect::<Vec<_>>();
    assert_eq!(plain(known_address), plain(unknown));
    // A right guess during the wait is refused alike, but not from a browser that has signed in before.
    let right = json!({ "email": "ann@example.com", "password": password });
    stranger.post("/v1/sign-in", right.clone()).await.refusal(429);
    known.post("/v1/sign-in", right.clone()).await.expect(200);
    world.move_clock(2_000_000);
    stranger.post("/v1/sign-in", right).await.expect(200);
}

async fn a_session_ends_where_it_is_ended(world: World) {
    let first = world.person("ann@example.com", "member").await;
    let made = world.run_json(&["user", "reset-password", "ann@example.com"]);
    until("the session to end", || async {
        (first.send("GET", "/v1/me", None).await.status == 401).then_some(())
    })
    .await;
    let password = made["password"].as_str().unwrap();
    let (first, second) = (Browser::new(&world), Browser::new(&world));
    // The value of a cookie from before is not taken over.
    first.set_cookie("al_session", "al_session_chosen-by-someone-else");
    first.sign_in("ann@example.com", password).await;
    assert_ne!(first.cookie("al_session").unwrap(), "al_session_chosen-by-someone-else");
    second.sign_in("ann@example.com", password).await;
    let sessions = first.read("/v1/me/sessions").await;
    let sessions = sessions["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    let other = sessions.iter().find(|session| session["is_current"] == false).unwrap();
    let path = format!("/v1/me/sessions/{}", other["session_id"].as_str().unwrap());
    // Nobody else can end it.
    let bob = world.person("bob@example.com", "owner").await;
    bob.send("DELETE", &path, None).await.refusal(404);
    assert_eq!(first.send("DELETE", &path, None).await.status, 204);
    until("the session to end", || async {
        (second.send("GET", "/v1/me", None).await.status == 401).then_some(())
    })
    .await;
    first.read("/v1/me").await;
    let cookie = first.cookie("al_session").unwrap();
    assert_eq!(first.send("POST", "/v1/sign-out", None).await.status, 204);
    assert_eq!(first.cookie("al_session"), None);
    first.set_cookie("al_session", &cookie);
    until("the session to end", || async {
        (first.send("GET", "/v1/me", None).await.status == 401).then_some(())
    })
    .await;
    // A session that nobody uses ends by itself.
    let idle = Browser::new(&world);
    idle.sign_in("ann@example.com", password).await;
    world.move_clock(7 * 86_400_000_000);
    let refusal = idle.send("GET", "/v1/me", None).await.refusal(401);
    assert_eq!(refusal["code"], "session_ended");
}

async fn a_new_password_ends_all_other_sessions(world: World) {
    let made = world.run_json(&["user", "create", "ann@example.com"]);
    let password = made["password"].as_str().unwrap();
    let (here, there) = (Browser::new(&world), Browser::new(&world));
    here.sign_in("ann@example.com", password).await;
    there.sign_in("ann@example.com", password).await;
    let wrong = json!({ "current": "wrong", "password": PASSWORD });
    here.post("/v1/me/password", wrong).await.refusal(401);
    for weak in ["short", "password1234", "ann@example.com", "agentlens2026"] {
        let sent = json!({ "current": password, "password": weak });
        let refusal = here.post("/v1/me/password", sent).await.refusal(400);
        assert_eq!(
            (&refusal["code"], &refusal["details"][0]["path"]),
            (&json!("invalid_field"), &json!("password"))
        );
    }
    let sent = json!({ "current": password, "password": PASSWORD });
    assert_eq!(here.post("/v1/me/password", sent).await.status, 204);
    here.read("/v1/me").await;
    until("the session to end", || async {
        (there.send("GET", "/v1/me", None).await.status == 401).then_some(())
    })
    .await;
    there.post("/v1/sign-in", json!({ "email": "ann@example.com", "password": password })).await.refusal(401);
    there.sign_in("ANN@EXAMPLE.COM", PASSWORD).await;
}

/// Sets up an app for codes: its seed and the recovery codes.
pub(crate) async fn with_app(world: &World, browser: &Browser) -> (TotpSeed, Vec<String>) {
    let offer = browser.send("POST", "/v1/me/totp", None).await.expect(200);
    let secret = data_encoding::BASE32_NOPAD.decode(offer["secret"].as_str().unwrap().as_bytes()).unwrap();
    let seed = TotpSeed::from_bytes(secret.try_into().unwrap());
    let wrong = browser.post("/v1/me/totp/confirm", json!({ "code": "000000" })).await;
    assert!(wrong.status == 401 || wrong.status == 200, "{}", wrong.text);
    let code = code_at(&seed, world.now_us());
    let confirmed = browser.post("/v1/me/totp/confirm", json!({ "code": code })).await.expect(200);
    let codes = confirmed["recovery_codes"].as_array().unwrap();
    (seed, codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect())
}

/// The code that an app shows.
pub(crate) fn code_at(seed: &TotpSeed, now_us: i64) -> String {
    let step = now_us / 30_000_000;
    (0..1_000_000)
        .map(|number| format!("{number:06}"))
        .find(|code| seed.accepts(code, now_us, None) == Some(step))
        .unwrap()
}

async fn a_second_factor_is_asked_for_and_taken_once(world: World) {
    let made = world.run_json(&["user", "create", "ann@example.com"]);
    let login = json!({ "email": "ann@example.com", "password": made["password"] });
    let browser = Browser::new(&world);
    browser.sign_in("ann@example.com", made["password"].as_str().unwrap()).await;
    let (seed, _) = with_app(&world, &browser).await;
    // The code that confirmed the app is used up.
    world.move_clock(60_000_000);
    let other = Browser::new(&world);
    let answer = other.post("/v1/sign-in", login.clone()).await.expect(200);
    assert_eq!(answer["needs_code"], true);
    assert_eq!(other.cookie("al_session"), None);
    other.send("GET", "/v1/me", None).await.refusal(401);
    let code = code_at(&seed, world.now_us());
    other.post("/v1/sign-in/code", json!({ "code": code })).await.expect(200);
    assert_eq!(other.read("/v1/me").await["has_second_factor"], true);
    // The same code signs nobody else in, nor does the flow that was used.
    let third = Browser::new(&world);
    third.post("/v1/sign-in", login.clone()).await.expect(200);
    let flow = third.cookie("al_flow").unwrap();
    third.post("/v1/sign-in/code", json!({ "code": code })).await.refusal(401);
    world.move_clock(30_000_000);
    let code = code_at(&seed, world.now_us());
    third.post("/v1/sign-in/code", json!({ "code": code })).await.expect(200);
    let fourth = Browser::new(&world);
    fourth.set_cookie("al_flow", &flow);
    let refusal = fourth.post("/v1/sign-in/code", json!({ "code": code })).await.refusal(401);
    assert_eq!(refusal["code"], "sign_in_expired");
    // Five codes may be tried for one sign-in.
    let guesser = Browser::new(&world);
    guesser.post("/v1/sign-in", login).await.expect(200);
    let mut codes = Vec::new();
    for guess in 0..7 {
        let answer = guesser.post("/v1/sign-in/code", json!({ "code": format!("00000{guess}") })).await;
        codes.push(answer.json["code"].as_str().unwrap_or_default().to_owned());
    }
    assert!(codes.contains(&"wrong_code".to_owned()), "{codes:?}");
    assert!(
        codes[5..].iter().all(|code| code == "sign_in_expired" || code == "too_many_attempts"),
        "{codes:?}"
    );
    // What guards the account needs a proof that is not old.
    world.move_clock(11 * 60_000_000);
    let refusal = other.send("DELETE", "/v1/me/totp", None).await.refusal(403);
    assert_eq!(refusal["code"], "proof_required");
    let code = code_at(&seed, world.now_us());
    assert_eq!(other.post("/v1/me/prove", json!({ "code": code })).await.status, 204);
    assert_eq!(other.send("DELETE", "/v1/me/totp", None).await.status, 204);
    assert_eq!(other.read("/v1/me").await["has_second_factor"], false);
}

async fn recovery_codes_sign_in_once(world: World) {
    let made = world.run_json(&["user", "create", "ann@example.com"]);
    let login = json!({ "email": "ann@example.com", "password": made["password"] });
    let browser = Browser::new(&world);
    browser.sign_in("ann@example.com", made["password"].as_str().unwrap()).await;
    let (_, codes) = with_app(&world, &browser).await;
    assert_eq!(codes.len(), 10);
    let lost = Browser::new(&world);
    lost.post("/v1/sign-in", login.clone()).await.expect(200);
    lost.post("/v1/sign-in/code", json!({ "code": codes[0].to_uppercase() })).await.expect(200);
    assert_eq!(lost.read("/v1/me").await["recovery_codes_left"], 9);
    lost.post("/v1/sign-in", login).await.expect(200);
    lost.post("/v1/sign-in/code", json!({ "code": codes[0] })).await.refusal(401);
    let new = browser.send("POST", "/v1/me/recovery-codes", None).await.expect(200);
    assert_eq!(new["recovery_codes"].as_array().unwrap().len(), 10);
    lost.post("/v1/sign-in/code", json!({ "code": codes[1] })).await.refusal(401);
    lost.post("/v1/sign-in/code", json!({ "code": new["recovery_codes"][0] })).await.expect(200);
}

async fn a_disabled_person_is_out_within_a_second(world: World) {
    let made = world.run_json(&["user", "create", "ann@example.com"]);
    let browser = Browser::new(&world);
    browser.sign_in("ann@example.com", made["password"].as_str().unwrap()).await;
    browser.read("/v1/me").await;
    world.run_json(&["user", "disable", "ann@example.com"]);
    let begun = std::time::Instant::now();
    until("the session to end", || async {
        (browser.send("GET", "/v1/me", None).await.status == 401).then_some(())
    })
    .await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    let login = json!({ "email": "ann@example.com", "password": made["password"] });
    let refusal = browser.post("/v1/sign-in", login.clone()).await.refusal(401);
    assert_eq!(refusal["code"], "wrong_login");
    world.run_json(&["user", "enable", "ann@example.com"]);
    browser.post("/v1/sign-in", login).await.expect(200);
}

async fn a_reset_link_works_once_and_only_the_newest(mut world: World) {
    cloud(&mut world).await;
    let browser = signed_up(&world, "ann@example.com").await;
    let stranger = Browser::new(&world);
    let ask = json!({ "email": "ann@example.com" });
    let known = stranger.post("/v1/password/forgotten", ask.clone()).await.expect(202);
    let unknown =
        stranger.post("/v1/password/forgotten", json!({ "email": "nobody@example.com" })).await.expect(202);
    assert_eq!(known, unknown);
    assert_eq!(known["link_is_in_log"], true);
    let old = link(&world, "reset", "ann@example.com").await;
    stranger.post("/v1/password/forgotten", ask).await.expect(202);
    let newest = until("another link", || async {
        let newest = link(&world, "reset", "ann@example.com").await;
        (newest != old).then_some(newest)
    })
    .await;
    let reset = |token: &str, password: &str| json!({ "token": token, "password": password });
    let new_password = "orange-lantern-4-boats";
    stranger.post("/v1/password/reset", reset(&old, new_password)).await.refusal(401);
    stranger.post("/v1/password/reset", reset(&newest, "password")).await.refusal(400);
    assert_eq!(stranger.post("/v1/password/reset", reset(&newest, new_password)).await.status, 204);
    stranger.post("/v1/password/reset", reset(&newest, PASSWORD)).await.refusal(401);
    // It signs nobody in, and ends all sessions.
    assert_eq!(stranger.cookie("al_session"), None);
    until("the session to end", || async {
        (browser.send("GET", "/v1/me", None).await.status == 401).then_some(())
    })
    .await;
    stranger.sign_in("ann@example.com", new_password).await;
    // A link that is too old.
    stranger.post("/v1/password/forgotten", json!({ "email": "ann@example.com" })).await.expect(202);
    let late = until("another link", || async {
        let late = link(&world, "reset", "ann@example.com").await;
        (late != newest).then_some(late)
    })
    .await;
    world.move_clock(31 * 60_000_000);
    stranger.post("/v1/password/reset", reset(&late, PASSWORD)).await.refusal(401);
}

async fn an_invitation_is_for_its_address(mut world: World) {
    world.stop_gracefully().await;
    world.start_server_with(&["--log", "info"]).await;
    let owner = world.person("owner@example.com", "owner").await;
    let invite = json!({ "email": "Ann@Example.com", "role": "viewer" });
    let made = owner.post("/v1/invitations", invite.clone()).await.expect(201);
    let id = made["invitation_id"].as_str().unwrap().to_owned();
    let first = link(&world, "invite", "Ann@example.com").await;
    let look = Browser::new(&world);
    let seen = look.post("/v1/invitations/look", json!({ "token": first })).await.expect(200);
    assert_eq!((&seen["org"], &seen["role"]), (&json!("Default"), &json!("viewer")));
    assert!(!seen["email"].as_str().unwrap().contains("nn@"), "{seen}");
    // Sent again, the old link is void.
    let path = format!("/v1/invitations/{id}/resend");
    owner.send("POST", &path, None).await.expect(200);
    let newest = until("another link", || async {
        let newest = link(&world, "invite", "Ann@example.com").await;
        (newest != first).then_some(newest)
    })
    .await;
    look.post("/v1/invitations/look", json!({ "token": first })).await.refusal(401);
    // Somebody else who got hold of it can't use it, and the invitation stays.
    let (other, _) = world.org("Other");
    let made = world.run_json(&["user", "create", "eve@example.com", "--org", &other]);
    let eve = Browser::new(&world);
    eve.sign_in("eve@example.com", made["password"].as_str().unwrap()).await;
    let refusal = eve.post("/v1/invitations/accept", json!({ "token": newest })).await.refusal(403);
    assert_eq!(refusal["code"], "other_address");
    // Whoever was invited makes an account with it.
    let ann = Browser::new(&world);
    let join = json!({ "token": newest, "name": "Ann", "password": PASSWORD });
    ann.post("/v1/invitations/join", join.clone()).await.expect(200);
    assert_eq!(ann.read("/v1/me").await["orgs"][0]["role"], "viewer");
    Browser::new(&world).post("/v1/invitations/join", join).await.refusal(401);
    owner.post("/v1/invitations", invite).await.refusal(409);
    // One who has an account accepts it signed in.
    owner.post("/v1/invitations", json!({ "email": "eve@example.com", "role": "member" })).await.expect(201);
    let token = link(&world, "invite", "eve@example.com").await;
    let join = json!({ "token": token, "name": "Eve", "password": PASSWORD });
    Browser::new(&world).post("/v1/invitations/join", join).await.refusal(409);
    assert_eq!(eve.post("/v1/invitations/accept", json!({ "token": token })).await.status, 204);
    assert_eq!(eve.read("/v1/orgs").await["orgs"].as_array().unwrap().len(), 2);
    let refusal = eve.send("GET", "/v1/org", None).await.refusal(400);
    assert_eq!(refusal["code"], "org_required");
    // A revoked one and an old one are void.
    for by in ["revoked", "old"] {
        let email = format!("{by}@example.com");
        let made =
            owner.post("/v1/invitations", json!({ "email": email, "role": "member" })).await.expect(201);
        let token = link(&world, "invite", &email).await;
        if by == "revoked" {
            let path = format!("/v1/invitations/{}", made["invitation_id"].as_str().unwrap());
            assert_eq!(owner.send("DELETE", &path, None).await.status, 204);
        } else {
            world.move_clock(8 * 86_400_000_000);
        }
        let join = json!({ "token": token, "name": "Late", "password": PASSWORD });
        Browser::new(&world).post("/v1/invitations/join", join).await.refusal(401);
    }
}

async fn a_role_is_never_given_beyond_ones_own(world: World) {
    let owner = world.person("owner@example.com", "owner").await;
    let admin = world.person("admin@example.com", "admin").await;
    let member = world.person("member@example.com", "member").await;
    let id = |me: &Value| me["user_id"].as_str().unwrap().to_owned();
    let (owner_id, admin_id, member_id) =
        (id(&owner.read("/v1/me").await), id(&admin.read("/v1/me").await), id(&member.read("/v1/me").await));
    let set = |user: &str, role: &str| (format!("/v1/members/{user}"), json!({ "role": role }));
    for (user, role) in [(&admin_id, "owner"), (&member_id, "owner"), (&owner_id, "viewer")] {
        let (path, body) = set(user, role);
        let refusal = admin.send("PATCH", &path, Some(body)).await.refusal(403);
        assert_eq!(refusal["code"], "not_allowed", "{user} {role}");
    }
    admin.send("DELETE", &format!("/v1/members/{owner_id}"), None).await.refusal(403);
    admin.post("/v1/invitations", json!({ "email": "x@example.com", "role": "owner" })).await.refusal(403);
    let (path, body) = set(&member_id, "admin");
    member.send("PATCH", &path, Some(body.clone())).await.refusal(403);
    assert_eq!(admin.send("PATCH", &path, Some(body)).await.status, 204);
    until("the new role", || async {
        (member.read("/v1/me").await["orgs"][0]["role"] == "admin"
            && member.send("GET", "/v1/invitations", None).await.status == 200)
            .then_some(())
    })
    .await;
}

async fn the_last_owner_stays(world: World) {
    // The person of the first start owns the org too.
    let owner = world.person("owner@example.com", "owner").await;
    let members = owner.read("/v1/members").await;
    let first =
        members["members"].as_array().unwrap().iter().find(|it| it["email"] == "admin@localhost").unwrap();
    let first = first["user_id"].as_str().unwrap();
    let second = world.person("second@example.com", "owner").await;
    assert_eq!(owner.send("DELETE", &format!("/v1/members/{first}"), None).await.status, 204);
    // Both leave at once: one of them stays.
    let (one, two) = tokio::join!(
        owner.send("POST", "/v1/members/leave", None),
        second.send("POST", "/v1/members/leave", None)
    );
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409], "{} {}", one.text, two.text);
    let left = if one.status == 409 { &owner } else { &second };
    let me = left.read("/v1/me").await["user_id"].as_str().unwrap().to_owned();
    let refusal = left
        .send("PATCH", &format!("/v1/members/{me}"), Some(json!({ "role": "viewer" })))
        .await
        .refusal(409);
    assert_eq!(refusal["code"], "last_owner");
    // To hand the org over is another thing.
    let heir = world.person("heir@example.com", "member").await;
    let heir_id = heir.read("/v1/me").await["user_id"].clone();
    assert_eq!(left.post("/v1/org/transfer", json!({ "user_id": heir_id })).await.status, 204);
    until("the new owner", || async {
        (heir.read("/v1/me").await["orgs"][0]["role"] == "owner").then_some(())
    })
    .await;
}

async fn a_removed_member_is_out_within_a_second(world: World) {
    let owner = world.person("owner@example.com", "owner").await;
    let member = world.person("member@example.com", "member").await;
    let id = member.read("/v1/me").await["user_id"].as_str().unwrap().to_owned();
    member.read("/api/sessions").await;
    let mut stream = member.request("GET", "/api/stream?org=default").send().await.unwrap();
    assert_eq!(owner.send("DELETE", &format!("/v1/members/{id}"), None).await.status, 204);
    let begun = std::time::Instant::now();
    until("the member to be out", || async {
        (member.send("GET", "/api/sessions", None).await.status == 403).then_some(())
    })
    .await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    // The open stream ends too.
    let ended = async { while stream.chunk().await.is_ok_and(|chunk| chunk.is_some()) {} };
    tokio::time::timeout(std::time::Duration::from_secs(5), ended).await.expect("the stream goes on");
    // The account is still there, in no org.
    assert_eq!(member.read("/v1/me").await["orgs"], json!([]));
}

async fn workspaces_are_made_and_archived(world: World) {
    let admin = world.person("admin@example.com", "admin").await;
    let made = admin.post("/v1/workspaces", json!({ "name": "Crème Brûlée" })).await.expect(201);
    assert_eq!(made["workspace_id"], "creme-brulee");
    admin
        .post("/v1/workspaces", json!({ "name": "Again", "workspace_id": "creme-brulee" }))
        .await
        .refusal(409);
    admin.post("/v1/workspaces", json!({ "name": "   " })).await.refusal(400);
    let key = world.make_key(&["--workspace", "creme-brulee"]);
    key.send(&[note("inside", "x")]).await;
    let open = |workspace: &'static str| {
        admin.request("GET", "/api/sessions").header("agentlens-workspace", workspace)
    };
    let inside: Value = open("creme-brulee").send().await.unwrap().json().await.unwrap();
    assert_eq!(inside["sessions"][0]["id"], "inside");
    assert_eq!(admin.read("/api/sessions").await["total"], 0);
    assert_eq!(open("nowhere").send().await.unwrap().status(), 404);
    let update = |body: Value| admin.send("PATCH", "/v1/workspaces/creme-brulee", Some(body));
    assert_eq!(update(json!({ "name": "Desserts", "is_archived": true })).await.status, 204);
    until("the archive", || async {
        (open("creme-brulee").send().await.unwrap().status() == 404).then_some(())
    })
    .await;
    let listed = admin.read("/v1/workspaces").await;
    let archived =
        listed["workspaces"].as_array().unwrap().iter().find(|it| it["name"] == "Desserts").unwrap();
    assert!(archived["archived_at"].is_string());
    assert_eq!(update(json!({ "is_archived": false })).await.status, 204);
    until("the workspace", || async {
        (open("creme-brulee").send().await.unwrap().status() == 200).then_some(())
    })
    .await;
    admin.send("PATCH", "/v1/workspaces/default", Some(json!({ "is_archived": true }))).await.refusal(400);
    admin.post("/v1/environments", json!({ "name": "canary" })).await.expect(201);
    admin.post("/v1/environments", json!({ "name": "staging" })).await.refusal(409);
    let names = admin.read("/v1/environments").await;
    assert_eq!(names["environments"], json!(["production", "staging", "development", "canary"]));
    assert_eq!(admin.send("DELETE", "/v1/environments/canary", None).await.status, 204);
}

async fn the_account_is_closed_to_keys(world: World) {
    for path in ["/v1/me", "/v1/me/sessions", "/v1/orgs"] {
        let refusal = world.get(path).await.refusal(401);
        assert_eq!(refusal["code"], "sign_in_required", "{path}");
    }
    // A form from another site, or from no browser at all, is not taken.
    let login = json!({ "email": "a@example.com", "password": "x" }).to_string();
    let send = |origin: Option<&str>| {
        let request =
            world.bare("POST", "/v1/sign-in").header("content-type", "application/json").body(login.clone());
        match origin {
            Some(origin) => request.header("origin", origin),
            None => request,
        }
    };
    for origin in [None, Some("https://evil.example.com"), Some("null")] {
        assert_eq!(world.answer(send(origin)).await.refusal(403)["code"], "cross_site");
    }
    let form = world.bare("POST", "/v1/sign-in").header("origin", world.address());
    let form = form.header("content-type", "application/x-www-form-urlencoded").body("email=a&password=b");
    world.answer(form).await.refusal(415);
    // Self-hosted, nobody signs up.
    let sign_up = json!({ "email": "a@example.com", "password": PASSWORD, "name": "A" });
    let refusal = Browser::new(&world).post("/v1/sign-up", sign_up).await.refusal(403);
    assert_eq!(refusal["code"], "sign_up_closed");
}
