//! Starts that go wrong, starts at the same time, and commands where there is no store.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::samples::note;
use crate::world::{Database, World};

on_the_embedded_form!(
    stopping_has_one_deadline_and_a_second_signal_ends_it,
    a_second_server_is_refused_and_commands_go_on,
    a_lost_org_file_is_found_and_not_replaced,
    a_deleted_secret_is_not_replaced,
    secrets_come_from_files_too,
    an_unreadable_price_stops_nothing,
    doctor_says_what_works_and_what_does_not,
    empty_variables_are_like_absent_ones,
);
on_the_cloud_form!(the_secret_must_be_given, a_database_that_is_away_is_named);

/// A command of the program in a directory of its own, with none of the caller's settings.
fn program(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentlens"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AGENTLENS_")) {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command
}

fn failed(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it succeeded: {}", String::from_utf8_lossy(&output.stdout));
    assert!(!error.contains("panicked"), "{error}");
    error
}

/// A server that was started with `--json`, and what it printed.
struct Started {
    server: Child,
    printed: Value,
}

impl Started {
    fn of(mut command: Command) -> Self {
        let mut server = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut text = String::new();
        for line in BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok) {
            text.push_str(&line);
            if line == "}" {
                return Self { server, printed: serde_json::from_str(&text).unwrap() };
            }
        }
        let mut error = String::new();
        let _ = server.wait();
        server.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        server.wait().unwrap();
        panic!("the server ended at its start: {error}");
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn a_taken_port_loses_no_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for arguments in [
        &["serve", "--listen", &address][..],
        &["serve", "--listen", "127.0.0.1:0", "--otlp-listen", &address],
    ] {
        let error = failed(&program(folder.path(), arguments).output().unwrap());
        assert!(error.contains("another program uses this port") && error.contains(&address), "{error}");
        assert!(!error.contains("WARN"), "{error}");
    }
    assert!(!folder.path().join("data").exists(), "something was made before the port was taken");
    let first = Started::of(program(folder.path(), &["serve", "--listen", "localhost:0", "--json"]));
    assert!(first.printed["api_key"].as_str().unwrap().starts_with("al_live_"), "{}", first.printed);
    assert!(first.printed["login"]["password"].is_string(), "{}", first.printed);
    let data = folder.path().join("data").canonicalize().unwrap();
    assert_eq!(first.printed["data_dir"], data.to_str().unwrap());
    drop(first);
    let second = Started::of(program(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--json"]));
    assert!(second.printed["api_key"].is_null() && second.printed["login"].is_null(), "{}", second.printed);
}

#[test]
fn commands_refuse_a_directory_without_a_store() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["verify"][..],
        &["verify", "--org", "default"],
        &["key", "list"],
        &["key", "create"],
        &["key", "revoke", "key_x"],
        &["org", "list"],
        &["org", "create", "Acme"],
        &["price", "list"],
        &["price", "set", "m", "--input", "1", "--output", "1"],
        &["dead-letters", "list"],
        &["dead-letters", "replay"],
    ] {
        let error = failed(&program(folder.path(), arguments).output().unwrap());
        let path = folder.path().canonicalize().unwrap().join("data");
        assert!(
            error.contains("there is no store in") && error.contains("--data-dir"),
            "{arguments:?}: {error}"
        );
        assert!(error.contains(path.to_str().unwrap()), "{arguments:?}: {error}");
        assert!(!path.exists(), "{arguments:?} made a store");
    }
}

#[test]
fn two_first_starts_make_one_login_and_one_key() {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(owner_url), Some(app_url)) =
        (variable("AGENTLENS_TEST_DATABASE_OWNER_URL"), variable("AGENTLENS_TEST_DATABASE_URL"))
    else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(Database::cloud(&owner_url, &app_url));
    let (owner_url, app_url) = database.urls();
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = program(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--json"]);
        command.env("AGENTLENS_DATABASE_URL", &app_url).env("AGENTLENS_DATABASE_OWNER_URL", &owner_url);
        command.env("AGENTLENS_SECRET_KEY", "5e".repeat(32));
        command
    };
    let commands: Vec<Command> = (0..3).map(|_| start()).collect();
    let threads: Vec<_> =
        commands.into_iter().map(|command| std::thread::spawn(|| Started::of(command))).collect();
    let started: Vec<Started> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let shown: Vec<_> = started.iter().map(|each| &each.printed).collect();
    let with_both =
        shown.iter().filter(|printed| printed["api_key"].is_string() && printed["login"].is_object());
    let with_none = shown.iter().filter(|printed| printed["api_key"].is_null() && printed["login"].is_null());
    assert_eq!((with_both.count(), with_none.count()), (1, 2), "{shown:?}");
    let list = |mut command: Command| -> Value {
        serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
    };
    let mut keys = program(folder.path(), &["key", "list", "--json"]);
    keys.env("AGENTLENS_DATABASE_URL", &app_url).env("AGENTLENS_SECRET_KEY", "5e".repeat(32));
    assert_eq!(list(keys)["keys"].as_array().unwrap().len(), 1);
    drop(started);
    assert!(!folder.path().join("data").exists(), "a server on PostgreSQL made a data directory");
    database.remove();
}

async fn a_second_server_is_refused_and_commands_go_on(mut world: World) {
    let second = world.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(!second.is_success, "{}", second.text);
    for part in ["another agentlens server", "process ", "--data-dir"] {
        assert!(second.error.contains(part), "{}", second.error);
    }
    world.send(&[note("s", "x")]).await;
    world.make_key(&[]).send(&[note("s", "y")]).await;
    assert_eq!(world.run_json(&["verify"])["total_events"], 2);
    world.stop_gracefully().await;
    world.start_server().await;
    assert_eq!(world.timeline("s").await.len(), 2);
}

async fn a_lost_org_file_is_found_and_not_replaced(mut world: World) {
    let (lost, _) = world.org("Lost");
    let (empty, _) = world.org("Never used");
    world.send(&[note("s", "x")]).await;
    assert_eq!(world.run_json(&["verify"])["verified"], true);
    world.stop_gracefully().await;
    let file = |org: &str| world.directory().join(format!("orgs/{org}.db"));
    let (lost_file, emptied_file) = (file(&lost), file(&empty));
    std::fs::remove_file(&lost_file).unwrap();
    std::fs::write(&emptied_file, "").unwrap();
    let printed = world.run(&["verify", "--json"]);
    assert!(!printed.is_success && printed.error.contains("2 orgs can't be read"), "{}", printed.error);
    assert_eq!((&printed.json["verified"], &printed.json["total_events"]), (&false.into(), &1.into()));
    let unreadable = printed.json["unreadable_orgs"].to_string();
    assert!(unreadable.contains(&lost) && unreadable.contains(&empty), "{unreadable}");
    let printed = world.run(&["verify", "--org", &lost]);
    assert!(!printed.is_success && printed.error.contains("1 org can't be read"), "{}", printed.error);
    // The server goes on for the other orgs and says so.
    world.start_server().await;
    assert_eq!(world.timeline("s").await.len(), 1);
    assert!(world.log().contains("the org's file is missing or empty"), "{}", world.log());
    let key = world.make_key(&["--org", &lost]);
    assert_eq!(key.get("/api/events").await.status, 500);
    assert!(!lost_file.exists(), "a new file hides that the data are lost");
}

async fn a_deleted_secret_is_not_replaced(mut world: World) {
    world.stop_gracefully().await;
    let path = world.directory().join("secret.key");
    let secret = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["key", "create"]] {
        let printed = world.run(arguments);
        assert!(
            !printed.is_success && printed.error.contains("restore it from a backup"),
            "{}",
            printed.error
        );
        assert!(!path.exists());
    }
    std::fs::write(&path, secret).unwrap();
    world.start_server().await;
    world.read("/api/events").await;
}

async fn secrets_come_from_files_too(world: World) {
    let file = world.directory().join("api-key");
    std::fs::write(&file, format!("{}\n", world.key())).unwrap();
    let file = file.to_str().unwrap();
    let printed = world.run(&["doctor", "--url", world.address(), "--api-key-file", file]);
    assert!(printed.is_success, "{}{}", printed.text, printed.error);
    for (arguments, said) in [
        (&["key", "list", "--secret-key-file", "nothing"][..], "AGENTLENS_SECRET_KEY_FILE"),
        (&["key", "list", "--database-url-file", file], "AGENTLENS_DATABASE_URL must begin with"),
        (&["serve", "--bootstrap-api-key-file", file], "both given"),
    ] {
        let printed = world.run(arguments);
        assert!(!printed.is_success && printed.error.contains(said), "{arguments:?}: {}", printed.error);
    }
}

async fn doctor_says_what_works_and_what_does_not(world: World) {
    let report = world.run_json(&["doctor", "--url", world.address(), "--api-key", world.key()]);
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["checks"].as_array().unwrap().len(), 5, "{report}");
    let session = report["session_id"].as_str().unwrap();
    assert_eq!(world.timeline(session).await.len(), 1);
    let cut = &world.key()[..30];
    let revoked = world.make_key(&[]);
    let id = world.run_json(&["key", "list"])["keys"][0]["key_id"].as_str().unwrap().to_owned();
    assert!(world.run(&["key", "revoke", &id]).is_success);
    let reader = world.make_key(&["--scope", "events:read"]);
    for (url, key, said) in [
        ("http://127.0.0.1:1", world.key(), "no server answers"),
        (world.address(), cut, "mistyped or cut"),
        (world.address(), reader.key(), "events:write"),
        (world.address(), revoked.key(), "does not take this key"),
    ] {
        let printed = world.run(&["doctor", "--url", url, "--api-key", key]);
        assert!(!printed.is_success && printed.text.contains(said), "{said}: {}", printed.text);
    }
    for command in ["doctor", "demo"] {
        let printed = world.run(&[command, "--url", "127.0.0.1:9", "--api-key", world.key()]);
        assert!(
            !printed.is_success && printed.error.contains("write http://127.0.0.1:9"),
            "{}",
            printed.error
        );
    }
    let writer = world.make_key(&["--scope", "events:write"]);
    let printed = world.run(&["doctor", "--url", world.address(), "--api-key", writer.key()]);
    assert!(printed.is_success && printed.text.contains("not read back"), "{}", printed.text);
}

async fn empty_variables_are_like_absent_ones(_world: World) {
    let directory = tempfile::tempdir().unwrap();
    let page = program(directory.path(), &["configuration-docs"]).output().unwrap();
    let page = String::from_utf8(page.stdout).unwrap();
    let words = page.split(|char: char| !char.is_ascii_uppercase() && char != '_');
    let names: Vec<&str> = words.filter(|word| word.starts_with("AGENTLENS_")).collect();
    assert!(names.contains(&"AGENTLENS_LISTEN") && names.contains(&"AGENTLENS_DATABASE_CONNECTIONS"));
    let mut command = program(directory.path(), &["serve", "--json", "--listen", "127.0.0.1:0"]);
    command.envs(names.iter().filter(|name| **name != "AGENTLENS_LISTEN").map(|name| (*name, "")));
    let mut started = Started::of(command);
    started.server.kill().unwrap();
    started.server.wait().unwrap();
    assert!(directory.path().join("data").is_dir());
    // This address is the default one, so the server must not start.
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut command = program(directory.path(), &["serve", "--data-dir", file.to_str().unwrap()]);
    let error = failed(&command.env("AGENTLENS_LISTEN", "").output().unwrap());
    assert!(!error.contains("invalid value"), "{error}");
}

async fn the_secret_must_be_given(world: World) {
    for arguments in [
        &["key", "create"][..],
        &["org", "create", "X"],
        &["serve", "--role", "worker", "--listen", "127.0.0.1:0"],
    ] {
        let output = world.command(arguments).env_remove("AGENTLENS_SECRET_KEY").output().unwrap();
        let error = failed(&output);
        assert!(error.contains("AGENTLENS_SECRET_KEY"), "{arguments:?}: {error}");
    }
    assert!(!world.directory().join("secret.key").exists());
}

async fn an_unreadable_price_stops_nothing(world: World) {
    let (org, api) = world.org("Prices");
    let insert = "insert into price_overrides (org_id, model, effective_us, price, created_us) values (?1, ?2, 0, ?3, 0)";
    for (model, price) in [("a", "not JSON"), ("b", r#"{"model":"b","rates":{"input":"much","output":"1"}}"#)]
    {
        world.database.file(&org).execute(insert, [&org, model, price]).unwrap();
    }
    assert!(world.run(&["price", "set", "c", "--input", "1", "--output", "2", "--org", &org]).is_success);
    api.send(&[note("s", "x")]).await;
    assert_eq!(api.timeline("s").await.len(), 1);
    assert!(world.log().contains("a price of the org can't be read"), "{}", world.log());
    assert!(world.run(&["price", "list", "--org", &org]).text.contains("always"));
}

async fn a_database_that_is_away_is_named(world: World) {
    let url = "postgres://user:a-secret@127.0.0.1:1/agentlens";
    for arguments in [&["key", "list", "--database-url", url][..], &["migrate", "--database-owner-url", url]]
    {
        let error = failed(&world.command(arguments).output().unwrap());
        assert!(error.contains("PostgreSQL at 127.0.0.1:1: ") && error.contains("refused"), "{error}");
        assert!(!error.contains("a-secret"), "{error}");
    }
}

/// A client that sends its body slowly keeps a request open for as long as it likes.
async fn stopping_has_one_deadline_and_a_second_signal_ends_it(mut world: World) {
    for (seconds, signals) in [("2", 1), ("60", 2)] {
        world.stop_gracefully().await;
        world.start_server_with(&["--shutdown-seconds", seconds]).await;
        let mut slow = TcpStream::connect(world.address().trim_start_matches("http://")).unwrap();
        let head = format!(
            "POST /api/events HTTP/1.1\r\nHost: a\r\nauthorization: Bearer {}\r\ncontent-length: 100000\r\n\r\n[",
            world.key()
        );
        slow.write_all(head.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let begun = Instant::now();
        for _ in 0..signals {
            world.signal("INT");
            std::thread::sleep(Duration::from_millis(200));
        }
        let ended = world.ended().await;
        // Never twice what it may take, with room for a busy machine.
        assert!(begun.elapsed() < Duration::from_secs(20), "{seconds} seconds, {signals} signals");
        assert_eq!(ended.success(), signals == 1, "{ended}");
        world.start_server().await;
    }
}
