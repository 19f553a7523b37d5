//! The error responses that many operations share, written into `openapi.json`. Operations only declare the others.

use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, Response, ResponseBuilder};

use crate::permissions::{needs_key, operations};

/// A status and what it means.
type Refusal = (&'static str, &'static str);

/// Errors of every operation.
const EVERY: [Refusal; 3] = [
    ("400", "The path or a parameter is invalid"),
    ("500", "Internal error; the server's log has details under the id in `X-Request-Id`"),
    (
        "503",
        "The server or a service that it depends on is unavailable; retry after the time in `Retry-After`",
    ),
];
/// Errors of operations that need a credential.
const WITH_CREDENTIAL: [Refusal; 4] = [
    ("401", "The API key or the session is missing or invalid"),
    ("403", "The key lacks the required scope, or the person's role the permission"),
    ("404", "Nothing with this id exists, or the org or workspace that a person names does not"),
    ("429", "Too many requests; retry after the time in `Retry-After`"),
];
/// Errors of forms that anyone may send.
const FORM: [Refusal; 3] = [
    ("401", "What was sent proves nothing"),
    ("403", "The form does not come from a page of this server, or it is closed"),
    ("429", "Too many forms or attempts; retry after the time in `Retry-After`"),
];
/// Errors of operations that read.
const READING: [Refusal; 1] = [("504", "The request timed out; ask for less")];
/// Errors of operations with a body.
const WITH_BODY: [Refusal; 3] = [
    ("408", "The body did not arrive in time"),
    ("413", "The body is too large"),
    ("415", "Unsupported content type or encoding"),
];

/// Adds them to every operation that does not declare them itself.
pub(crate) fn describe(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            // OTLP has an error body of its own.
            let body = (!OTLP.contains(&path.as_str())).then_some("ErrorBody");
            let needs_key = needs_key(method, path);
            add(operation, body, &EVERY);
            if needs_key {
                add(operation, body, &WITH_CREDENTIAL);
            }
            if !needs_key && method == "post" {
                add(operation, body, &FORM);
            }
            if needs_key && method == "get" {
                add(operation, body, &READING);
            }
            if method != "get" {
                add(operation, body, &WITH_BODY);
            }
        }
    }
}

const OTLP: [&str; 3] = ["/v1/logs", "/v1/metrics", "/v1/traces"];

fn add(operation: &mut Operation, body: Option<&str>, refusals: &[Refusal]) {
    for (status, description) in refusals {
        let responses = &mut operation.responses.responses;
        responses.entry((*status).to_owned()).or_insert_with(|| refusal(description, body).into());
    }
}

fn refusal(description: &str, body: Option<&str>) -> Response {
    let response = ResponseBuilder::new();
    match body {
        None => response.description(format!("`google.rpc.Status`: {description}")).build(),
        Some(schema) => {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
            response.description(description).content("application/json", content).build()
        }
    }
}
