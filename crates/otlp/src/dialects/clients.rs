//! What each client library sent, and which of its attributes nothing reads.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use serde::{Deserialize, Serialize};

use super::raw::RawValue;

/// Clients of one request that are counted separately; further ones are counted as one without a name.
const MAX_CLIENTS: usize = 64;
/// Different unmapped attributes that are reported for one client; further ones are not reported.
const MAX_UNMAPPED: usize = 100;
/// Bytes of a key or of a client's name in a report.
const MAX_KEY_BYTES: usize = 128;

/// What one request shows of a client library. The server stores it in this form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReport {
    /// The instrumentation scope's name, or else the SDK's (`telemetry.sdk.name`).
    pub name: String,
    /// Its version; empty if it sends none.
    pub version: String,
    /// Spans or log records that it sent, refused ones included.
    pub items: u32,
    /// How often each attribute came that nothing reads. Numbers between points become `*`.
    pub unmapped: BTreeMap<String, u32>,
}

/// The clients of one request.
#[derive(Default)]
pub(super) struct Clients(Vec<ClientReport>);

/// The SDK that a resource names: the client of scopes without a name.
pub(super) struct Sdk {
    name: String,
    version: String,
}

impl Sdk {
    pub(super) fn of(resource: &[KeyValue]) -> Self {
        Self { name: text(resource, "telemetry.sdk.name"), version: text(resource, "telemetry.sdk.version") }
    }
}

impl Clients {
    /// The report of a scope's client.
    pub(super) fn of(&mut self, scope: Option<&InstrumentationScope>, sdk: &Sdk) -> &mut ClientReport {
        let (name, version) = match scope.filter(|scope| !scope.name.is_empty()) {
            Some(scope) => (scope.name.as_str(), scope.version.as_str()),
            None => (sdk.name.as_str(), sdk.version.as_str()),
        };
        let (name, version) = (cut(name).to_owned(), cut(version).to_owned());
        let is_full = self.0.len() >= MAX_CLIENTS;
        let known = self.0.iter().position(|client| client.name == name && client.version == version);
        let known = known.or(is_full.then_some(MAX_CLIENTS));
        let index = known.filter(|index| *index < self.0.len()).unwrap_or_else(|| {
            let (name, version) = if is_full { (String::new(), String::new()) } else { (name, version) };
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

/// The beginning of a name, as long as a report may hold it.
fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_KEY_BYTES)]
}

/// The key with `*` for numbers between points, so that a long list is one attribute.
fn pattern(key: &str) -> String {
    let key = cut(key);
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

    #[test]
    fn many_clients_become_one() {
        let mut clients = Clients::default();
        for number in 0..1000 {
            let scope =
                InstrumentationScope { name: format!("scope{number}"), ..InstrumentationScope::default() };
            clients.of(Some(&scope), &Sdk::of(&[])).items += 1;
            clients.of(Some(&scope), &Sdk::of(&[])).items += 1;
        }
        let reports = clients.into_reports();
        assert_eq!((reports.len(), reports[0].items), (MAX_CLIENTS + 1, 2));
        assert_eq!((reports[MAX_CLIENTS].name.as_str(), reports[MAX_CLIENTS].items), ("", 2 * (1000 - 64)));
    }
}
