//! Reading query parameters: an error names the parameter, its value's fault and the limit.
//!
//! No endpoint can ignore a mistyped parameter: [`check_names`] compares every request with `openapi.json`.

mod names;
mod times;

pub use names::{KnownParameters, check_names};
pub use times::{Times, Window, zone};

use std::collections::HashSet;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use agentlens_domain::limits::{DEFAULT_PAGE_ROWS, MAX_OFFSET_ROWS, MAX_PAGE_ROWS};
use agentlens_domain::page::Cursor;

use crate::error::ApiError;
use crate::state::AppState;

/// Query parameters as a struct of texts; a refusal is our error body.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(_) => Err(match doubled(parts) {
                Some(name) => ApiError::invalid_parameter(&name, "is given more than once; give it once"),
                None => ApiError::bad_request("invalid_query", "The query can't be read"),
            }),
        }
    }
}

/// The first name that is in a query twice.
fn doubled(parts: &Parts) -> Option<String> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).ok()?;
    let mut names = HashSet::new();
    let again = pairs.iter().find(|(name, _)| !names.insert(name.as_str()));
    again.map(|(name, _)| shown(name))
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

/// A comma-separated list of words, each of which must be one of `words`.
pub fn words(name: &str, value: Option<&String>, words: &[&str]) -> Result<Vec<String>, ApiError> {
    let list = list(value);
    match list.iter().find(|word| !words.contains(&word.as_str())) {
        None => Ok(list),
        Some(unknown) => Err(ApiError::invalid_parameter(
            name,
            format!("`{}` is unknown; must be one of {}", shown(unknown), words.join(", ")),
        )),
    }
}

/// Characters of a wrong value that an error repeats.
const SHOWN_CHARS: usize = 40;

fn shown(value: &str) -> String {
    value.chars().take(SHOWN_CHARS).collect()
}

/// A whole number within a range.
pub fn number<T>(name: &str, value: Option<&String>, range: (T, T)) -> Result<Option<T>, ApiError>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy,
{
    let Some(value) = text(value) else { return Ok(None) };
    let (least, most) = range;
    value.parse::<T>().ok().filter(|number| (least..=most).contains(number)).map(Some).ok_or_else(|| {
        ApiError::invalid_parameter(name, format!("must be a whole number from {least} to {most}"))
    })
}

/// A number of rows. What is above the limit of a page becomes that limit, since published clients ask for more; the answer's
/// field `limit` says so.
pub fn limit(value: Option<&String>) -> Result<u32, ApiError> {
    limit_of(value, DEFAULT_PAGE_ROWS, MAX_PAGE_ROWS)
}

/// The same for another default and another limit.
pub fn limit_of(value: Option<&String>, default: u32, most: u32) -> Result<u32, ApiError> {
    let rows = number("limit", value, (1, u64::MAX)).map_err(|_| {
        ApiError::invalid_parameter("limit", format!("must be a whole number from 1 to {most}"))
    })?;
    Ok(rows.map_or(default, |rows| u32::try_from(rows).unwrap_or(most).min(most)))
}

/// How many rows to skip; a cursor reaches further.
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

/// `true` or `false`; false unless given.
pub fn flag(name: &str, value: Option<&String>) -> Result<bool, ApiError> {
    Ok(choice(name, value, &[("true", true), ("false", false)])?.unwrap_or(false))
}
