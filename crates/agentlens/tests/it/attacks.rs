//! Attacks on people's accounts and orgs, each by its name. What `people` and `permissions` try already is not repeated here.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::people::{PASSWORD, cloud, code_at, link, signed_up, with_app};
use crate::world::{Answer, Api, Browser, World, until};

on_both_engines!(
    session_fixation,
    forgery_from_another_site,
    host_headers_in_links,
    enumeration_by_answer,
    enumeration_by_time,
    lockout_of_a_victim,
    two_addresses_in_one_request,
    a_token_of_one_purpose_used_for_another,
    a_link_from_before_the_password_changed,
    an_invitation_that_was_replaced,
    ids_of_another_org,
);

const MINUTE_US: i64 = 60_000_000;
const NEW_PASSWORD: &str = "orange-lantern-4-boats";

/// A person made by the command line: the password.
fn account(world: &World, email: &str) -> String {
    world.run_json(&["user", "create", email])["password"].as_str().unwrap().to_owned()
}

/// Waits until a browser's session has ended on this node.
async fn signed_out(browser: &Browser) {
    until("the session to end", || async {
        (browser.send("GET", "/v1/me", None).await.status == 401).then_some(())
    })
    .await;
}

/// The next link of a page to an address after `old`.
async fn next_link(world: &World, page: &str, email: &str, old: &str) -> String {
    until("another link", || async {
        let newest = link(world, page, email).await;
        (newest != old).then_some(newest)
    })
    .await
}

/// The answer without what differs between any two requests.
fn plain(answer: &Answer) -> (u16, Value, Vec<String>) {
    let mut body = answer.json.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.remove("request_id");
    }
    let mut headers: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
    headers.sort();
    (answer.status, body, headers)
}

async fn session_fixation(world: World) {
    let (ann, eve) = (account(&world, "ann@example.com"), account(&world, "eve@example.com"));
    let attacker = Browser::new(&world);
    attacker.sign_in("eve@example.com", &eve).await;
    // The attacker's own session is planted in the victim's browser: it doesn't become the victim's.
    let victim = Browser::new(&world);
    for cookie in ["al_session", "al_device"] {
        victim.set_cookie(cookie, &attacker.cookie(cookie).unwrap());
    }
    victim.sign_in("ann@example.com", &ann).await;
    assert_ne!(victim.cookie("al_session"), attacker.cookie("al_session"));
    assert_ne!(victim.cookie("al_device"), attacker.cookie("al_device"));
    assert_eq!(victim.read("/v1/me").await["email"], "ann@example.com");
    assert_eq!(attacker.read("/v1/me").await["email"], "eve@example.com");
    // The victim's own session from before is dead after the next sign-in.
    let before = Browser::new(&world);
    before.set_cookie("al_session", &victim.cookie("al_session").unwrap());
    before.read("/v1/me").await;
    victim.sign_in("ann@example.com", &ann).await;
    signed_out(&before).await;
    victim.read("/v1/me").await;
    // So is a half-done sign-in of the attacker: the victim's own takes it out of the browser.
    with_app(&world, &attacker).await;
    let half = Browser::new(&world);
    half.post("/v1/sign-in", json!({ "email": "eve@example.com", "password": eve })).await.expect(200);
    victim.set_cookie("al_flow", &half.cookie("al_flow").unwrap());
    victim.sign_in("ann@example.com", &ann).await;
    assert_eq!(victim.cookie("al_flow"), None);
    // A value that nobody was given is nobody's session, and no cookie is set for asking.
    let stranger = Browser::new(&world);
    stranger.set_cookie("al_session", &format!("al_session_{}", "A".repeat(43)));
    stranger.send("GET", "/v1/me", None).await.refusal(401);
}

/// How another site can make a browser send a request: headers, and the body's type.
const FORGERIES: [(&[(&str, &str)], &str); 9] = [
    (&[], "application/json"),
    (&[("origin", "null")], "application/json"),
    (&[("origin", "https://evil.example.com")], "application/json"),
    (&[("origin", "https://evil.example.com")], "application/x-www-form-urlencoded"),
    (&[("origin", "https://evil.example.com")], "text/plain"),
    (&[("origin", "https://evil.example.com")], "multipart/form-data; boundary=x"),
    (&[("sec-fetch-site", "cross-site")], "text/plain"),
    (&[("sec-fetch-site", "same-site")], "application/json"),
    (&[("sec-fetch-site", "none")], "application/json"),
];

async fn forgery_from_another_site(world: World) {
    let owner = world.person("owner@example.com", "owner").await;
    let cookie = format!("al_session={}", owner.cookie("al_session").unwrap());
    let forms = [
        ("PATCH", "/v1/me", json!({ "name": "Forged" })),
        ("POST", "/v1/me/password", json!({ "current": "x", "password": PASSWORD })),
        ("POST", "/v1/invitations", json!({ "email": "eve@example.com", "role": "owner" })),
        ("PATCH", "/v1/org", json!({ "name": "Forged" })),
        ("POST", "/v1/orgs", json!({ "name": "Forged" })),
        ("DELETE", "/v1/me/sessions", Value::Null),
        ("POST", "/v1/sign-out", Value::Null),
        ("POST", "/api/events", json!([crate::samples::note("forged", "x")])),
        // Signing the victim in to the attacker's account is an attack too.
        ("POST", "/v1/sign-in", json!({ "email": "eve@example.com", "password": "x" })),
        ("POST", "/v1/password/forgotten", json!({ "email": "owner@example.com" })),
        ("POST", "/v1/sign-up", json!({ "email": "x@example.com", "password": PASSWORD, "name": "X" })),
    ];
    for (method, path, body) in &forms {
        for (headers, content_type) in FORGERIES {
            let mut request = world.bare(method, path).header("cookie", &cookie);
            request = request.header("content-type", content_type);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = world.answer(request.body(body.to_string())).await;
            let refusal = answer.refusal(403);
            assert_eq!(refusal["code"], "cross_site", "{method} {path} {headers:?} {content_type}");
        }
    }
    // From a page of the server itself, still nothing but JSON is read.
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        let request = owner.request("POST", "/v1/sign-in").header("content-type", content_type);
        world.answer(request.body(forms[8].2.to_string())).await.refusal(415);
    }
    // The method is that of the request, whatever else it says.
    let request = owner.request("GET", "/v1/me?_method=DELETE").header("x-http-method-override", "DELETE");
    world.answer(request).await.refusal(400);
    let me = owner.read("/v1/me").await;
    assert_eq!((&me["name"], &me["orgs"][0]["name"]), (&json!("owner"), &json!("Default")));
    assert_eq!(owner.read("/v1/invitations").await["invitations"], json!([]));
    assert_eq!(owner.read("/api/sessions").await["total"], 0);
    assert_eq!(me["orgs"].as_array().unwrap().len(), 1);
}

async fn host_headers_in_links(mut world: World) {
    cloud(&mut world).await;
    let owner = world.person("owner@example.com", "owner").await;
    let poisoned = [
        ("host", "evil.example.com"),
        ("x-forwarded-host", "evil.example.com"),
        ("x-forwarded-server", "evil.example.com"),
        ("x-original-host", "evil.example.com"),
        ("x-host", "evil.example.com"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "444"),
        ("forwarded", "host=evil.example.com;proto=https"),
        ("x-original-url", "https://evil.example.com/"),
        ("referer", "https://evil.example.com/"),
    ];
    let requests = [
        ("/v1/password/forgotten", json!({ "email": "owner@example.com" })),
        ("/v1/sign-up", json!({ "email": "new@example.com", "password": PASSWORD, "name": "New" })),
        ("/v1/invitations", json!({ "email": "guest@example.com", "role": "viewer" })),
    ];
    for (path, body) in requests {
        let mut sent = 0;
        // One header at a time, then all of them.
        for headers in poisoned.iter().map(std::slice::from_ref).chain([&poisoned[..]]) {
            // So that each of them is mailed: an address gets five an hour.
            world.move_clock(13 * MINUTE_US);
            let mut request = owner.request("POST", path).header("content-type", "application/json");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = world.answer(request.body(body.to_string())).await;
            assert!([201, 202].contains(&answer.status), "{path} {headers:?}: {}", answer.text);
            assert!(!answer.text.contains("evil"), "{}", answer.text);
            sent += 1;
        }
        assert!(sent > 10);
    }
    for (page, email) in
        [("reset", "owner@example.com"), ("verify", "new@example.com"), ("invite", "guest@example.com")]
    {
        link(&world, page, email).await;
    }
    let log = world.log();
    let links: Vec<&str> = log.lines().filter(|line| line.contains("#al_")).collect();
    assert!(links.len() >= 3, "{links:?}");
    for line in links {
        assert!(!line.contains("evil") && line.contains(&format!("{}/", world.address())), "{line}");
    }
    let start = world.bare("GET", "/").header("host", "evil.example.com").header("x-forwarded-host", "evil");
    assert!(!world.answer(start).await.text.contains("evil"));
}

async fn enumeration_by_answer(mut world: World) {
    cloud(&mut world).await;
    signed_up(&world, "ann@example.com").await;
    let disabled = account(&world, "gone@example.com");
    world.run_json(&["user", "disable", "gone@example.com"]);
    let sign_up =
        |email: &str| ("/v1/sign-up", json!({ "email": email, "password": PASSWORD, "name": "Ann" }));
    let forgotten = |email: &str| ("/v1/password/forgotten", json!({ "email": email }));
    let wrong = |email: &str| ("/v1/sign-in", json!({ "email": email, "password": "wrong" }));
    for ask in [sign_up, forgotten, wrong] {
        let mut answers = Vec::new();
        for email in ["ann@example.com", "nobody@example.com", "gone@example.com"] {
            let (path, body) = ask(email);
            answers.push(plain(&Browser::new(&world).post(path, body).await));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        assert!([202, 401].contains(&answers[0].0), "{answers:?}");
    }
    // Nor does the right password of an account that is disabled.
    let right = json!({ "email": "gone@example.com", "password": disabled });
    let right = plain(&Browser::new(&world).post("/v1/sign-in", right).await);
    let (path, body) = wrong("nobody@example.com");
    assert_eq!(right, plain(&Browser::new(&world).post(path, body).await));
    // A link that never was is as void as one that was used.
    let used = link(&world, "verify", "ann@example.com").await;
    let never = format!("al_verify_{}", &used["al_verify_".len()..].chars().rev().collect::<String>());
    let verify = |token: &str| json!({ "token": token, "password": PASSWORD });
    let used = plain(&Browser::new(&world).post("/v1/verify", verify(&used)).await);
    assert_eq!(used, plain(&Browser::new(&world).post("/v1/verify", verify(&never)).await));
}

/// How long an answer takes.
async fn timed(browser: &Browser, path: &str, body: Value) -> Duration {
    let begun = Instant::now();
    let answer = browser.post(path, body).await;
    assert!([202, 401].contains(&answer.status), "{path}: {}", answer.text);
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The medians of 60 answers about an address with an account and one without, taken in turns, differ by a quarter at most, or by
/// half a millisecond, which is what one turn of the scheduler costs.
async fn enumeration_by_time(mut world: World) {
    const TIMES: usize = 60;
    const NOISE: Duration = Duration::from_micros(500);
    cloud(&mut world).await;
    signed_up(&world, "ann@example.com").await;
    let stranger = Browser::new(&world);
    for (path, fields) in [
        ("/v1/sign-in", json!({ "password": "wrong" })),
        ("/v1/password/forgotten", json!({})),
        ("/v1/sign-up", json!({ "password": NEW_PASSWORD, "name": "Ann" })),
    ] {
        let ask = |email: &str| {
            let mut body = fields.clone();
            body["email"] = email.into();
            timed(&stranger, path, body)
        };
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for turn in 0..TIMES {
            // Nobody has to wait, and every address may get another mail.
            world.move_clock(16 * MINUTE_US);
            if turn % 2 == 0 {
                known.push(ask("ann@example.com").await);
                unknown.push(ask("bob@example.com").await);
            } else {
                unknown.push(ask("bob@example.com").await);
                known.push(ask("ann@example.com").await);
            }
        }
        let (known, unknown) = (median(known), median(unknown));
        let (less, more) = (known.min(unknown), known.max(unknown));
        assert!(more <= less + (less / 4).max(NOISE), "{path}: {known:?} known, {unknown:?} unknown");
    }
}

async fn lockout_of_a_victim(mut world: World) {
    world.stop_gracefully().await;
    world.start_server_with(&["--log", "info"]).await;
    let password = account(&world, "ann@example.com");
    let eve_password = account(&world, "eve@example.com");
    let known = Browser::new(&world);
    known.sign_in("ann@example.com", &password).await;
    // The cookie of a known browser of the attacker's own account is none of the victim's.
    let attacker = Browser::new(&world);
    attacker.sign_in("eve@example.com", &eve_password).await;
    let guess = json!({ "email": "ann@example.com", "password": "wrong" });
    for _ in 0..8 {
        attacker.post("/v1/sign-in", guess.clone()).await;
    }
    attacker.post("/v1/sign-in", guess.clone()).await.refusal(429);
    let login = |password: &str| json!({ "email": "ann@example.com", "password": password });
    Browser::new(&world).post("/v1/sign-in", login(&password)).await.refusal(429);
    // The browser that was known goes on, and so do sessions.
    known.post("/v1/sign-in", login(&password)).await.expect(200);
    known.read("/v1/me").await;
    // On a new browser, the mailbox is the way around who guesses.
    let new = Browser::new(&world);
    new.post("/v1/password/forgotten", json!({ "email": "ann@example.com" })).await.expect(202);
    let token = link(&world, "reset", "ann@example.com").await;
    let reset = json!({ "token": token, "password": NEW_PASSWORD });
    assert_eq!(new.post("/v1/password/reset", reset).await.status, 204);
    attacker.post("/v1/sign-in", guess).await.refusal(429);
    new.sign_in("ann@example.com", NEW_PASSWORD).await;
}

async fn two_addresses_in_one_request(mut world: World) {
    cloud(&mut world).await;
    signed_up(&world, "ann@example.com").await;
    let stranger = Browser::new(&world);
    let both = ["ann@example.com", "eve@evil.example.com"];
    let bodies = [
        json!({ "email": both }).to_string(),
        json!({ "email": { "0": both[0], "1": both[1] } }).to_string(),
        json!({ "email": both.join(",") }).to_string(),
        json!({ "email": both.join(" ") }).to_string(),
        json!({ "email": both.join(";") }).to_string(),
        json!({ "email": both.join("\n") }).to_string(),
        json!({ "email": both.join("\r\nBcc: ") }).to_string(),
        json!({ "email": both.join("\u{0}") }).to_string(),
        json!({ "email": format!("\"{}\" <{}>", both[0], both[1]) }).to_string(),
        json!({ "email": both[0], "cc": both[1] }).to_string(),
        format!(r#"{{"email":"{}","email":"{}"}}"#, both[0], both[1]),
        format!(r#"{{"email":"{}","emai\u006c":"{}"}}"#, both[0], both[1]),
        format!(r#"{{"email":"{}"}}{{"email":"{}"}}"#, both[0], both[1]),
    ];
    for body in bodies {
        for path in ["/v1/password/forgotten", "/v1/sign-in"] {
            let request = stranger.request("POST", path).header("content-type", "application/json");
            world.answer(request.body(body.clone())).await.refusal(400);
        }
        world.move_clock(MINUTE_US / 4);
    }
    // In the address of the request, an address is not a parameter.
    let path = "/v1/password/forgotten?email=eve@evil.example.com";
    stranger.post(path, json!({ "email": "ann@example.com" })).await.refusal(400);
    // One mail that is asked for goes to the one address.
    stranger.post("/v1/password/forgotten", json!({ "email": "ann@example.com" })).await.expect(202);
    link(&world, "reset", "ann@example.com").await;
    assert!(!world.log().contains("evil.example.com"), "{}", world.log());
}

async fn a_token_of_one_purpose_used_for_another(mut world: World) {
    cloud(&mut world).await;
    let owner = world.person("owner@example.com", "owner").await;
    let stranger = Browser::new(&world);
    let sign_up = json!({ "email": "new@example.com", "password": PASSWORD, "name": "New" });
    stranger.post("/v1/sign-up", sign_up).await.expect(202);
    stranger.post("/v1/password/forgotten", json!({ "email": "owner@example.com" })).await.expect(202);
    owner.post("/v1/invitations", json!({ "email": "new@example.com", "role": "admin" })).await.expect(201);
    let mut tokens = vec![("session".to_owned(), owner.cookie("al_session").unwrap())];
    for (page, email) in
        [("verify", "new@example.com"), ("reset", "owner@example.com"), ("invite", "new@example.com")]
    {
        tokens.push((page.to_owned(), link(&world, page, email).await));
    }
    // Each under the name of each purpose, and bent a little.
    let secret = |token: &str| token.rsplit_once('_').map_or(token, |(_, secret)| secret).to_owned();
    let mut forged = tokens.clone();
    for (of, token) in &tokens {
        for purpose in ["session", "verify", "reset", "invite", "flow", "device"] {
            if purpose != of {
                forged.push((of.clone(), format!("al_{purpose}_{}", secret(token))));
            }
        }
        for bent in
            [&token[..token.len() - 1], &format!("{token}A"), &format!(" {token}"), &secret(token), ""]
        {
            forged.push(("nothing".to_owned(), bent.to_owned()));
        }
        forged.push(("nothing".to_owned(), token.to_uppercase()));
    }
    for (number, (of, token)) in forged.iter().enumerate() {
        let right = |purpose: &str| of == purpose && token.starts_with(&format!("al_{purpose}_"));
        for (purpose, path, body) in [
            ("verify", "/v1/verify", json!({ "token": token, "password": PASSWORD })),
            ("reset", "/v1/password/reset", json!({ "token": token, "password": NEW_PASSWORD })),
            ("invite", "/v1/invitations/look", json!({ "token": token })),
            ("invite", "/v1/invitations/join", json!({ "token": token, "name": "E", "password": PASSWORD })),
        ] {
            if !right(purpose) {
                stranger.post(path, body).await.refusal(401);
            }
        }
        if !right("session") {
            let elsewhere = Browser::new(&world);
            elsewhere.set_cookie("al_session", token);
            elsewhere.set_cookie("al_flow", token);
            elsewhere.send("GET", "/v1/me", None).await.refusal(401);
            elsewhere.post("/v1/sign-in/code", json!({ "code": "000000" })).await.refusal(401);
        }
        if number % 4 == 0 {
            world.move_clock(MINUTE_US);
        }
    }
    // All of that used none of them up, unless they are too old.
    let look = json!({ "token": tokens[3].1 });
    stranger.post("/v1/invitations/look", look).await.expect(200);
}

async fn a_link_from_before_the_password_changed(mut world: World) {
    world.stop_gracefully().await;
    world.start_server_with(&["--log", "info"]).await;
    let password = account(&world, "ann@example.com");
    let ann = Browser::new(&world);
    ann.sign_in("ann@example.com", &password).await;
    let stranger = Browser::new(&world);
    let forgotten = json!({ "email": "ann@example.com" });
    stranger.post("/v1/password/forgotten", forgotten.clone()).await.expect(202);
    let old = link(&world, "reset", "ann@example.com").await;
    let change = json!({ "current": password, "password": PASSWORD });
    assert_eq!(ann.post("/v1/me/password", change).await.status, 204);
    let reset = |token: &str| json!({ "token": token, "password": NEW_PASSWORD });
    stranger.post("/v1/password/reset", reset(&old)).await.refusal(401);
    // A sign-in that began with the old password can't be finished after a reset.
    let (seed, _) = with_app(&world, &ann).await;
    world.move_clock(2 * MINUTE_US);
    let thief = Browser::new(&world);
    let login = json!({ "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(thief.post("/v1/sign-in", login).await.expect(200)["needs_code"], true);
    stranger.post("/v1/password/forgotten", forgotten.clone()).await.expect(202);
    let token = next_link(&world, "reset", "ann@example.com", &old).await;
    assert_eq!(stranger.post("/v1/password/reset", reset(&token)).await.status, 204);
    let code = json!({ "code": code_at(&seed, world.now_us()) });
    let refusal = thief.post("/v1/sign-in/code", code).await.refusal(401);
    assert_eq!(refusal["code"], "sign_in_expired");
    signed_out(&ann).await;
    // A reset doesn't take the second factor off.
    let login = json!({ "email": "ann@example.com", "password": NEW_PASSWORD });
    assert_eq!(stranger.post("/v1/sign-in", login).await.expect(200)["needs_code"], true);
    // Nor does a link work for an account that is disabled, before or after it was mailed.
    stranger.post("/v1/password/forgotten", forgotten).await.expect(202);
    let last = next_link(&world, "reset", "ann@example.com", &token).await;
    world.run_json(&["user", "disable", "ann@example.com"]);
    stranger.post("/v1/password/reset", reset(&last)).await.refusal(401);
    let code = json!({ "code": code_at(&seed, world.now_us()) });
    stranger.post("/v1/sign-in/code", code).await.refusal(401);
}

async fn an_invitation_that_was_replaced(mut world: World) {
    world.stop_gracefully().await;
    world.start_server_with(&["--log", "info"]).await;
    let owner = world.person("owner@example.com", "owner").await;
    owner.post("/v1/invitations", json!({ "email": "ann@example.com", "role": "admin" })).await.expect(201);
    let first = link(&world, "invite", "ann@example.com").await;
    // The same mailbox by another spelling, with less.
    owner.post("/v1/invitations", json!({ "email": "ANN@example.com", "role": "viewer" })).await.expect(201);
    let second = link(&world, "invite", "ANN@example.com").await;
    assert_ne!(first, second);
    let open = owner.read("/v1/invitations").await;
    assert_eq!(open["invitations"].as_array().unwrap().len(), 1, "{open}");
    let ann = Browser::new(&world);
    let join = |token: &str| json!({ "token": token, "name": "Ann", "password": PASSWORD });
    ann.post("/v1/invitations/look", json!({ "token": first })).await.refusal(401);
    ann.post("/v1/invitations/join", join(&first)).await.refusal(401);
    // The token alone says which org and which role.
    for (field, value) in [("role", "owner"), ("org_id", "default"), ("email", "eve@example.com")] {
        let mut body = join(&second);
        body[field] = value.into();
        ann.post("/v1/invitations/join", body).await.refusal(400);
    }
    ann.post("/v1/invitations/join", join(&second)).await.expect(200);
    assert_eq!(ann.read("/v1/me").await["orgs"][0]["role"], "viewer");
    // Two who use one link at once: one account.
    owner.post("/v1/invitations", json!({ "email": "bob@example.com", "role": "member" })).await.expect(201);
    let token = link(&world, "invite", "bob@example.com").await;
    let (one, two) = (Browser::new(&world), Browser::new(&world));
    let (one, two) = tokio::join!(
        one.post("/v1/invitations/join", join(&token)),
        two.post("/v1/invitations/join", join(&token))
    );
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200, "{} {}", one.text, two.text);
    assert!([401, 409].contains(&statuses[1]), "{} {}", one.text, two.text);
}

/// Everything of an org that its owner sees.
async fn seen(owner: &Browser) -> Vec<Value> {
    let mut all = Vec::new();
    for path in ["/v1/org", "/v1/members", "/v1/invitations", "/v1/workspaces", "/v1/me/sessions"] {
        let mut seen = owner.read(path).await;
        for session in seen["sessions"].as_array_mut().into_iter().flatten() {
            session.as_object_mut().unwrap().remove("last_seen_at");
        }
        all.push(seen);
    }
    all
}

async fn ids_of_another_org(world: World) {
    let owner = world.person("owner@example.com", "owner").await;
    let invited = json!({ "email": "guest@example.com", "role": "viewer" });
    let invitation = owner.post("/v1/invitations", invited).await.expect(201)["invitation_id"].clone();
    owner.post("/v1/workspaces", json!({ "name": "Secret plans" })).await.expect(201);
    let me = owner.read("/v1/me").await;
    let (other, key) = world.org("Other");
    let made = world.run_json(&["user", "create", "eve@example.com", "--org", &other, "--role", "owner"]);
    let eve = Browser::new(&world);
    eve.sign_in("eve@example.com", made["password"].as_str().unwrap()).await;
    eve.send("GET", "/v1/members", None).await.expect(200);
    let before = seen(&owner).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (user, session, invitation) = (text(&me["user_id"]), text(&me["session_id"]), text(&invitation));
    let role = json!({ "role": "viewer" });
    let rename = json!({ "name": "Taken" });
    // Each with an id of the other org and with one that never was: the answers are the same.
    for (method, path, id, absent, body) in [
        ("PATCH", "/v1/members/{id}", &user, "user_00000000000000000000000000", Some(role)),
        ("DELETE", "/v1/members/{id}", &user, "user_00000000000000000000000000", None),
        ("DELETE", "/v1/invitations/{id}", &invitation, "inv_00000000000000000000000000", None),
        ("POST", "/v1/invitations/{id}/resend", &invitation, "inv_00000000000000000000000000", None),
        ("DELETE", "/v1/me/sessions/{id}", &session, "ses_00000000000000000000000000", None),
        ("PATCH", "/v1/workspaces/{id}", &"secret-plans".to_owned(), "never-was", Some(rename)),
    ] {
        let by_eve = |id: &str| {
            let (eve, path, body) = (&eve, path.replace("{id}", id), body.clone());
            async move { eve.send(method, &path, body).await }
        };
        let (theirs, never) = (plain(&by_eve(id).await), plain(&by_eve(absent).await));
        assert_eq!(theirs.0, 404, "{method} {path}: {theirs:?}");
        assert_eq!(theirs, never, "{method} {path}");
        let by_key = |id: &str| send_with(&key, method, path.replace("{id}", id), body.clone());
        let (theirs, never) = (plain(&by_key(id).await), plain(&by_key(absent).await));
        assert!([404, 401, 403].contains(&theirs.0), "{method} {path}: {theirs:?}");
        assert_eq!(theirs, never, "{method} {path} with a key");
    }
    let transfer = |user: &str| eve.post("/v1/org/transfer", json!({ "user_id": user }));
    assert_eq!(plain(&transfer(&user).await), plain(&transfer("user_00000000000000000000000000").await));
    // To name the org itself doesn't help, in the header or elsewhere.
    let named = Browser::new(&world).in_org("default");
    named.set_cookie("al_session", &eve.cookie("al_session").unwrap());
    for path in ["/v1/org", "/v1/members", "/v1/invitations", "/v1/workspaces", "/api/events", "/api/stats"] {
        named.send("GET", path, None).await.refusal(404);
    }
    let body = json!({ "email": "x@example.com", "role": "viewer", "org_id": "default" });
    eve.post("/v1/invitations", body).await.refusal(400);
    let workspace = eve.request("GET", "/api/events").header("agentlens-workspace", "secret-plans");
    world.answer(workspace).await.refusal(404);
    assert_eq!(seen(&owner).await, before);
}

async fn send_with(key: &Api, method: &str, path: String, body: Option<Value>) -> Answer {
    let request = key.request(method, &path).header("content-type", "application/json");
    key.answer(request.body(body.unwrap_or(json!({})).to_string())).await
}
