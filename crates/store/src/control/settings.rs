//! Settings of the whole server.

use super::Control;
use crate::args;
use crate::error::StoreError;

impl Control {
    /// A setting's value.
    pub async fn find_setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.find("select value from settings where name = $1", args![name]).await
    }

    /// Sets a value unless there is one, and returns the one that stands: the first writer wins, on any node.
    pub async fn ensure_setting(&self, name: &str, value: &str) -> Result<String, StoreError> {
        self.execute_all(vec![(
            "insert into settings (name, value) values ($1, $2) on conflict do nothing",
            args![name, value],
        )])
        .await?;
        self.find_setting(name).await?.ok_or(StoreError::NotFound)
    }
}
