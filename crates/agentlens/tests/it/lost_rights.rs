//! Whoever has lost a right can't use it any more, whatever was begun before.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::people::{link, with_app};
use crate::world::{Browser, World};

on_both_engines!(
    an_invitation_ends_with_the_rights_of_who_made_it,
    a_request_that_is_held_back_acts_with_no_lost_right,
    a_password_is_no_proof_where_there_is_a_second_factor,
    an_owners_invitation_is_beyond_an_admin,
    the_last_owner_is_not_disabled,
);

const PASSWORD: &str = "violet-harbor-9-kites";

async fn id_of(browser: &Browser) -> String {
    browser.read("/v1/me").await["user_id"].as_str().unwrap().to_owned()
}

async fn with_log(world: &mut World) {
    world.stop_gracefully().await;
    world.start_server_with(&["--log", "info"]).await;
}

async fn an_invitation_ends_with_the_rights_of_who_made_it(mut world: World) {
    with_log(&mut world).await;
    let (owner, other) =
        (world.person("owner@example.com", "owner").await, world.person("other@example.com", "owner").await);
    for (email, role) in [("a@example.com", "owner"), ("b@example.com", "viewer")] {
        owner.post("/v1/invitations", json!({ "email": email, "role": role })).await.expect(201);
    }
    // An admin may still invite viewers, and no owners.
    let path = format!("/v1/members/{}", id_of(&owner).await);
    assert_eq!(other.send("PATCH", &path, Some(json!({ "role": "admin" }))).await.status, 204);
    for (email, status) in [("a@example.com", 401), ("b@example.com", 200)] {
        let join = json!({ "token": link(&world, "invite", email).await, "name": "X", "password": PASSWORD });
        let answer = Browser::new(&world).post("/v1/invitations/join", join).await;
        assert_eq!(answer.status, status, "{email}: {}", answer.text);
    }
}

async fn a_request_that_is_held_back_acts_with_no_lost_right(world: World) {
    let owner = world.person("owner@example.com", "owner").await;
    let admin = world.person("admin@example.com", "admin").await;
    let path = format!("/v1/members/{}", id_of(&admin).await);
    let body = json!({ "email": "evil@example.com", "role": "admin" }).to_string();
    let mut held = TcpStream::connect(world.address().trim_start_matches("http://")).unwrap();
    let head = format!(
        "POST /v1/invitations HTTP/1.1\r\nHost: a\r\norigin: {}\r\ncookie: al_session={}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{}",
        world.address(),
        admin.cookie("al_session").unwrap(),
        body.len(),
        &body[..5]
    );
    held.write_all(head.as_bytes()).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(owner.send("DELETE", &path, None).await.status, 204);
    held.write_all(&body.as_bytes()[5..]).unwrap();
    let mut answer = String::new();
    held.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert_eq!(owner.read("/v1/invitations").await["invitations"], json!([]));
}

async fn a_password_is_no_proof_where_there_is_a_second_factor(world: World) {
    let made = world.run_json(&["user", "create", "ann@example.com"]);
    let browser = Browser::new(&world);
    browser.sign_in("ann@example.com", made["password"].as_str().unwrap()).await;
    with_app(&world, &browser).await;
    world.move_clock(11 * 60_000_000);
    let sent = json!({ "current": made["password"], "password": PASSWORD });
    let refusal = browser.post("/v1/me/password", sent).await.refusal(403);
    assert_eq!(refusal["code"], "proof_required");
    browser.send("DELETE", "/v1/me/totp", None).await.refusal(403);
}

async fn an_owners_invitation_is_beyond_an_admin(world: World) {
    let owner = world.person("owner@example.com", "owner").await;
    let admin = world.person("admin@example.com", "admin").await;
    let made = owner
        .post("/v1/invitations", json!({ "email": "heir@example.com", "role": "owner" }))
        .await
        .expect(201);
    admin
        .post("/v1/invitations", json!({ "email": "heir@example.com", "role": "viewer" }))
        .await
        .refusal(403);
    let path = format!("/v1/invitations/{}", made["invitation_id"].as_str().unwrap());
    admin.send("DELETE", &path, None).await.refusal(403);
    // Nor is one address mailed without end.
    let mut last = 201;
    for _ in 0..8 {
        last = owner
            .post("/v1/invitations", json!({ "email": "heir@example.com", "role": "owner" }))
            .await
            .status;
    }
    assert_eq!(last, 429);
}

async fn the_last_owner_is_not_disabled(world: World) {
    let refused = world.run(&["user", "disable", "admin@localhost"]);
    assert!(!refused.is_success && refused.error.contains("no owner left"), "{}", refused.error);
    world.person("owner@example.com", "owner").await;
    assert!(world.run(&["user", "disable", "admin@localhost"]).is_success);
}
