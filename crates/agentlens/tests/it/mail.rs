//! Mail by a real SMTP server: the links that arrive are those that work.

#[path = "../../../../tests/mail/server.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod mail_server;

use serde_json::{Value, json};

use self::mail_server::MailServer;
use crate::people::{PASSWORD, link};
use crate::world::{Browser, World, until};

on_both_engines!(invitations_and_resets_arrive_by_mail, without_a_mail_server_links_are_in_the_log);

/// The newest mail to an address that has a link to this page: the mail, and the token of the link.
async fn mailed(mails: &MailServer, page: &str, address: &str) -> (Value, String) {
    let wanted = format!("/{page}#");
    until("a mail", || {
        let found = mails.mails().into_iter().rev().find_map(|mail| {
            let text = mail["text"].as_str()?.to_owned();
            let is_to = mail["to"] == json!([address]);
            let (_, rest) = text.split_once(&wanted).filter(|_| is_to)?;
            let token = rest.split_whitespace().next()?.to_owned();
            Some((mail, token))
        });
        async move { found }
    })
    .await
}

async fn invitations_and_resets_arrive_by_mail(mut world: World) {
    let mails = MailServer::start(&[]);
    let smtp = format!("smtp://127.0.0.1:{}", mails.port);
    let from = "AgentLens <noreply@lens.example>";
    world.stop_gracefully().await;
    world.start_server_with(&["--log", "info", "--smtp-url", &smtp, "--mail-from", from]).await;
    let owner = world.person("owner@example.com", "owner").await;
    let invited = json!({ "email": "ann@example.com", "role": "member" });
    let answer = owner.post("/v1/invitations", invited).await.expect(201);
    assert_eq!(answer["link_is_in_log"], false);
    let (mail, token) = mailed(&mails, "invite", "ann@example.com").await;
    for part in ["text", "html"] {
        let part = mail[part].as_str().unwrap();
        assert!(part.contains(&format!("{}/invite#{token}", world.address())), "{part}");
    }
    let ann = Browser::new(&world);
    let join = json!({ "token": token, "name": "Ann", "password": PASSWORD });
    ann.post("/v1/invitations/join", join).await.expect(200);
    let stranger = Browser::new(&world);
    let forgotten = json!({ "email": "ann@example.com" });
    let answer = stranger.post("/v1/password/forgotten", forgotten).await.expect(202);
    assert_eq!(answer["link_is_in_log"], false);
    let (_, token) = mailed(&mails, "reset", "ann@example.com").await;
    let reset = json!({ "token": token, "password": "orange-lantern-4-boats" });
    assert_eq!(stranger.post("/v1/password/reset", reset).await.status, 204);
    ann.sign_in("ann@example.com", "orange-lantern-4-boats").await;
    // That it was changed is mailed too, without a link to change it again.
    let notice = until("a mail about the new password", || async {
        let of_ann = mails.mails().into_iter().filter(|mail| mail["to"] == json!(["ann@example.com"]));
        of_ann.skip(2).last()
    })
    .await;
    assert!(!notice["text"].as_str().unwrap().contains('#'), "{notice}");
    // Nobody asked for more, and no token is in the log.
    assert!(!mails.mails().iter().any(|mail| mail["text"].as_str().unwrap().contains("nobody")));
    assert!(!world.log().contains("#al_"), "{}", world.log());
}

async fn without_a_mail_server_links_are_in_the_log(mut world: World) {
    world.stop_gracefully().await;
    world.start_server_with(&["--log", "info"]).await;
    let owner = world.person("owner@example.com", "owner").await;
    let invited = json!({ "email": "ann@example.com", "role": "member" });
    let answer = owner.post("/v1/invitations", invited).await.expect(201);
    assert_eq!(answer["link_is_in_log"], true);
    let token = link(&world, "invite", "ann@example.com").await;
    let ann = Browser::new(&world);
    let join = json!({ "token": token, "name": "Ann", "password": PASSWORD });
    ann.post("/v1/invitations/join", join).await.expect(200);
    assert_eq!(ann.read("/v1/me").await["orgs"][0]["role"], "member");
}
