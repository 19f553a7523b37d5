//! A world's names in Redis, which all worlds share.

use redis::{Client, RedisResult};

/// Removes everything whose name begins with the prefix.
pub(super) fn remove(url: &str, prefix: &str) -> RedisResult<()> {
    let mut connection = Client::open(url)?.get_connection_with_timeout(super::PATIENCE)?;
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}:*")).arg("COUNT").arg(1000);
        let (next, names): (u64, Vec<String>) = scan.query(&mut connection)?;
        if !names.is_empty() {
            redis::cmd("DEL").arg(&names).exec(&mut connection)?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}
