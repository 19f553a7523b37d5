//! What each client library sent, and which of its attributes nothing reads.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};

use super::raw::RawValue;

/// Different unmapped attributes that are told of one client; what goes beyond is left out, not stored.
const MAX_UNMAPPED: usize = 100;
/// Bytes of a key that is told.
const MAX_KEY_BYTES: usize = 128;

/// A client library as it shows itself in one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientReport {
    /// The instrumentation scope's name, else the SDK's (`telemetry.sdk.name`).
    pub name: String,
    /// Its version; empty if it says none.
    pub version: String,
    /// Spans or log records that it sent, refused ones included.
    pub items: u32,
    /// How often each attribute came that no rule and no presenter reads. Numbers between points are shown as `*`.
    pub unmapped: BTreeMap<String, u32>,
}

/// The clients of one request.
#[derive(Default)]
pub(super) struct Clients(Vec<ClientReport>);

impl Clients {
    /// The report of a scope's client.
    pub(super) fn of(
        &mut self,
        scope: Option<&InstrumentationScope>,
        resource: &[KeyValue],
    ) -> &mut ClientReport {
        let (name, version) = match scope.filter(|scope| !scope.name.is_empty()) {
            Some(scope) => (scope.name.clone(), scope.version.clone()),
            None => (text(resource, "telemetry.sdk.name"), text(resource, "telemetry.sdk.version")),
        };
        let known = self.0.iter().position(|client| client.name == name && client.version == version);
        let index = known.unwrap_or_else(|| {
            self.0.push(ClientReport { name, version, ..ClientReport::default() });
            self.0.len() - 1
        });
        &mut self.0[index]
    }

    pub(super) fn into_reports(self) -> Vec<ClientReport> {
        self.0
    }
}

impl ClientReport {
    /// Counts an attribute that nothing reads.
    pub(super) fn count_unmapped(&mut self, key: &str) {
        let key = pattern(key);
        if let Some(count) = self.unmapped.get_mut(&key) {
            *count += 1;
        } else if self.unmapped.len() < MAX_UNMAPPED {
            self.unmapped.insert(key, 1);
        }
    }
}

/// The key with `*` for numbers between points, so that a long list is one attribute.
fn pattern(key: &str) -> String {
    let mut end = key.len().min(MAX_KEY_BYTES);
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    let key = key.get(..end).unwrap_or_default();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !key.split('.').any(is_number) {
        return key.to_owned();
    }
    let parts: Vec<&str> = key.split('.').map(|part| if is_number(part) { "*" } else { part }).collect();
    parts.join(".")
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.as_ref());
    value.and_then(RawValue::string).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_one_pattern_and_the_list_has_an_end() {
        let mut client = ClientReport::default();
        client.count_unmapped("a.0.b.12");
        client.count_unmapped("a.3.b.4");
        assert_eq!(client.unmapped, BTreeMap::from([("a.*.b.*".to_owned(), 2)]));
        for number in 0..1000 {
            client.count_unmapped(&format!("key{number}"));
        }
        assert_eq!(client.unmapped.len(), MAX_UNMAPPED);
    }
}
