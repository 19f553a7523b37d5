//! The server's own pages for people: what a browser gets, and that asking for one changes nothing. What they do is tried in a browser.

use serde_json::json;

use crate::people::cloud;
use crate::world::{Answer, Browser, World};

on_the_embedded_form!(pages_load_nothing_from_elsewhere, sign_up_is_shown_where_it_is_open);

async fn get(world: &World, path: &str) -> Answer {
    world.answer(world.bare("GET", path)).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

async fn pages_load_nothing_from_elsewhere(world: World) {
    for path in ["/login", "/verify", "/reset", "/invite", "/login?token=x", "/reset?token=al_reset_x"] {
        let page = get(&world, path).await;
        assert_eq!((page.status, header(&page, "content-type")), (200, "text/html; charset=utf-8"), "{path}");
        assert_eq!(header(&page, "cache-control"), "no-store", "{path}");
        assert_eq!(header(&page, "referrer-policy"), "no-referrer", "{path}");
        assert!(page.headers.get("set-cookie").is_none(), "{path}");
        let policy = header(&page, "content-security-policy");
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
        for directive in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(directive), "{path}: {policy}");
        }
        assert!(page.text.contains(&format!("data-origin=\"{}\"", world.address())), "{path}");
        assert!(!page.text.contains("al_reset_x"), "{path}");
    }
    for (path, media_type) in [
        ("/pages/script.js", "text/javascript; charset=utf-8"),
        ("/pages/style.css", "text/css; charset=utf-8"),
    ] {
        let file = get(&world, path).await;
        assert_eq!((file.status, header(&file, "content-type")), (200, media_type));
        assert_eq!(header(&file, "x-content-type-options"), "nosniff");
    }
    // A form without the script goes nowhere.
    for path in ["/login", "/verify", "/reset", "/invite"] {
        let sent = world.answer(world.bare("POST", path).header("origin", world.address())).await;
        assert_eq!(sent.status, 405, "{path}: {}", sent.text);
    }
}

async fn sign_up_is_shown_where_it_is_open(mut world: World) {
    assert!(!get(&world, "/login").await.text.contains("id=\"sign-up\""));
    cloud(&mut world).await;
    assert!(get(&world, "/login").await.text.contains("id=\"sign-up\""));
    world.stop_gracefully().await;
    world
        .start_server_with(&["--deployment", "cloud", "--stop-sign-ups", "--terms-version", "2026-\"1\""])
        .await;
    assert!(!get(&world, "/login").await.text.contains("id=\"sign-up\""));
    assert!(get(&world, "/invite").await.text.contains("value=\"2026-&quot;1&quot;\""));
    let sign_up = json!({ "email": "a@example.com", "password": "violet-harbor-9-kites", "name": "A" });
    let refusal = Browser::new(&world).post("/v1/sign-up", sign_up).await.refusal(403);
    assert_eq!(refusal["code"], "sign_up_stopped");
}
