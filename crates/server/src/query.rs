//! Reading query parameters: an error names the parameter, its value's fault and the limit.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use agentlens_domain::limits::{DEFAULT_PAGE_ROWS, MAX_OFFSET_ROWS, MAX_PAGE_ROWS};
use agentlens_domain::page::Cursor;
use agentlens_domain::time::parse_rfc3339;

use crate::error::ApiError;
use crate::state::AppState;

/// The instants of the years 0 to 9999: what RFC 3339 can say, and what arithmetic on instants has room for.
const INSTANTS_US: std::ops::RangeInclusive<i64> = -62_167_219_200_000_000..=253_402_300_799_999_999;

/// Query parameters as a struct of texts; a refusal is our error body.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(ApiError::bad_request(
                "invalid_query",
                format!("the query can't be read: {}", error.body_text()),
            )),
        }
    }
}

/// A text that is there and not empty.
pub fn text(value: Option<&String>) -> Option<String> {
    value.filter(|value| !value.is_empty()).cloned()
}

/// A comma-separated list.
pub fn list(value: Option<&String>) -> Vec<String> {
    value
        .map(|value| {
            value.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        })
        .unwrap_or_default()
}

/// An instant in RFC 3339 (a date alone is its midnight UTC), or milliseconds since 1970.
pub fn instant(name: &str, value: Option<&String>) -> Result<Option<i64>, ApiError> {
    let Some(value) = text(value) else { return Ok(None) };
    // A plus sign that was not encoded arrives as a space.
    let value = value.replace(' ', "+");
    let read = parse_rfc3339(&value)
        .or_else(|| parse_rfc3339(&format!("{value}T00:00:00Z")))
        .or_else(|| parse_rfc3339(&format!("{value}Z")))
        .or_else(|| value.parse::<i64>().ok().and_then(|millis| millis.checked_mul(1000)));
    read.filter(|us| INSTANTS_US.contains(us)).map(Some).ok_or_else(|| {
        ApiError::invalid_parameter(name, "must be an RFC 3339 instant such as 2026-01-02T03:04:05Z")
    })
}

/// A number of rows, at most the limit of a page.
pub fn limit(value: Option<&String>) -> Result<u32, ApiError> {
    let Some(value) = text(value) else { return Ok(DEFAULT_PAGE_ROWS) };
    match value.parse::<u32>() {
        Ok(rows) if rows >= 1 => Ok(rows.min(MAX_PAGE_ROWS)),
        _ => Err(ApiError::invalid_parameter(
            "limit",
            format!("must be a whole number from 1 to {MAX_PAGE_ROWS}"),
        )),
    }
}

/// How many rows to skip; beyond the limit a cursor is the way.
pub fn offset(value: Option<&String>) -> Result<u32, ApiError> {
    let Some(value) = text(value) else { return Ok(0) };
    match value.parse::<u32>() {
        Ok(rows) if rows <= MAX_OFFSET_ROWS => Ok(rows),
        _ => Err(ApiError::invalid_parameter(
            "offset",
            format!("must be a whole number from 0 to {MAX_OFFSET_ROWS}; use cursor to go further"),
        )),
    }
}

/// The cursor of the page before.
pub fn cursor(value: Option<&String>) -> Result<Option<Cursor>, ApiError> {
    let Some(value) = text(value) else { return Ok(None) };
    Cursor::decode(&value)
        // No id holds a NUL, and PostgreSQL would refuse to be asked for one.
        .filter(|cursor| !cursor.id.contains('\0'))
        .map(Some)
        .ok_or_else(|| ApiError::invalid_parameter("cursor", "must be a `nextCursor` of an earlier answer"))
}

/// One of a few words.
pub fn choice<T: Copy>(
    name: &str,
    value: Option<&String>,
    choices: &[(&str, T)],
) -> Result<Option<T>, ApiError> {
    let Some(value) = text(value) else { return Ok(None) };
    let found = choices.iter().find(|(word, _)| *word == value).map(|(_, choice)| *choice);
    found.map(Some).ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        ApiError::invalid_parameter(name, format!("must be one of {}", words.join(", ")))
    })
}
