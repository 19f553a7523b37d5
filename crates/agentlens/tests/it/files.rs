//! The files of the embedded store: who may read them, and what happens when someone takes them away.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::samples::note;
use crate::world::World;

on_the_embedded_form!(
    files_are_for_their_owner_alone,
    a_deleted_data_directory_is_noticed,
    a_replaced_file_is_noticed,
    a_stopped_server_leaves_whole_files,
);

fn files_under(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_under(&path));
        } else if path.file_name().unwrap() != "server.log" {
            files.push(path);
        }
    }
    files
}

fn org_file(world: &World) -> PathBuf {
    world.directory().join("orgs/default.db")
}

async fn files_are_for_their_owner_alone(world: World) {
    world.send(&[note("s", "secret")]).await;
    let files = files_under(world.directory());
    let databases: Vec<_> = files.iter().filter(|path| path.to_str().unwrap().contains(".db")).collect();
    assert!(databases.len() >= 4, "{files:?}");
    for path in databases {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

async fn refuses_to_write(world: &World) {
    for _ in 0..3 {
        let refusal = world.try_send(&[note("s", "lost")]).await.refusal(503);
        assert_eq!(refusal["code"], "unavailable", "{refusal}");
    }
    let refusal = world.bare("GET", "/readyz");
    let refusal = world.answer(refusal).await.refusal(503);
    assert!(refusal["error"].as_str().unwrap().contains("deleted or replaced"), "{refusal}");
    assert!(world.log().contains("was deleted or replaced while the server runs"));
}

async fn a_deleted_data_directory_is_noticed(world: World) {
    world.send(&[note("s", "stored")]).await;
    for path in files_under(world.directory()) {
        if path.to_str().unwrap().contains(".db") {
            std::fs::remove_file(path).unwrap();
        }
    }
    refuses_to_write(&world).await;
}

async fn a_replaced_file_is_noticed(world: World) {
    world.send(&[note("s", "stored")]).await;
    let (file, copy) = (org_file(&world), world.directory().join("copy"));
    std::fs::copy(&file, &copy).unwrap();
    std::fs::rename(&copy, &file).unwrap();
    refuses_to_write(&world).await;
}

async fn a_stopped_server_leaves_whole_files(mut world: World) {
    world.send(&[note("s", "stored")]).await;
    world.stop_gracefully().await;
    for file in [org_file(&world), world.directory().join("control.db")] {
        let log = file.with_extension("db-wal");
        let left = std::fs::metadata(&log).map_or(0, |data| data.len());
        assert_eq!(left, 0, "{} is left", log.display());
        // The file alone is the whole store: a copy of it can be opened.
        let copy = file.with_extension("copy");
        std::fs::copy(&file, &copy).unwrap();
        let database = rusqlite::Connection::open(&copy).unwrap();
        let tables: i64 =
            database.query_row("select count(*) from sqlite_master", [], |row| row.get(0)).unwrap();
        assert!(tables > 3);
    }
    world.start_server().await;
    assert_eq!(world.timeline("s").await.len(), 1);
}
