//! Real rows of a server's events table, repeated with new keys and later times.
//!
//! The baselines insert what the server inserted. A pass over the sampled rows must not meet the
//! keys of the pass before, and its ids and times must lie after them, as they do in a live table;
//! so identifiers inside unique keys and instants are moved by the span of the sample.

use anyhow::{Context, Result, bail};
use rusqlite::types::Value;

const CROCKFORD: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const ULID_TIME_CHARS: usize = 10;
const ULID_CHARS: usize = 26;
const BINARY_ULID_BYTES: usize = 16;
/// An integer in this range is an instant in microseconds (years 2017 to 2049).
const INSTANT_MICROS: std::ops::Range<i64> = 1_500_000_000_000_000..2_500_000_000_000_000;

/// How the values of one column change from pass to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Keep,
    /// Add pass times the span.
    Offset(i64),
    /// A ULID as text: its time moves.
    UlidText(u64),
    /// A ULID as sixteen bytes: its time moves.
    UlidBytes(u64),
    /// Other text: the number of the pass is appended.
    Suffix,
}

/// The sample and the rule of each of its columns.
pub(crate) struct Sample {
    pub(crate) rows: Vec<Vec<Value>>,
    rules: Vec<Rule>,
}

impl Sample {
    /// `unique` lists the columns of each unique key; `fixed` are columns that must stay (the org).
    pub(crate) fn new(rows: Vec<Vec<Value>>, unique: &[Vec<usize>], fixed: &[usize]) -> Result<Self> {
        let columns = rows.first().context("the events table holds no rows to copy")?.len();
        let mut rules: Vec<Rule> = (0..columns).map(|column| instant_rule(&rows, column)).collect();
        for key in unique {
            let movable: Vec<usize> = key.iter().copied().filter(|column| !fixed.contains(column)).collect();
            let identifiers = movable.iter().copied().filter(|&column| is_identifier(&rows, column));
            let mut moved = 0;
            for column in identifiers {
                rules[column] = identifier_rule(&rows, column);
                moved += 1;
            }
            if moved == 0 {
                let first = *movable.first().context("a unique key holds only the org")?;
                rules[first] = Rule::Offset(span(&rows, first)?);
            }
        }
        Ok(Self { rows, rules })
    }

    /// The row at `index` as it is in that pass.
    pub(crate) fn row(&self, index: usize, pass: u64) -> Vec<Value> {
        self.rows[index].iter().zip(&self.rules).map(|(value, rule)| rule.apply(value, pass)).collect()
    }
}

impl Rule {
    fn apply(&self, value: &Value, pass: u64) -> Value {
        match (self, value) {
            (Self::Offset(span), Value::Integer(integer)) => {
                Value::Integer(integer + span * i64::try_from(pass).unwrap_or(0))
            }
            (Self::UlidText(span), Value::Text(text)) => {
                let time = ulid_time(text).unwrap_or(0) + span * pass;
                Value::Text(format!("{}{}", encode_time(time), &text[ULID_TIME_CHARS..]))
            }
            (Self::UlidBytes(span), Value::Blob(bytes)) => {
                let mut moved = (binary_time(bytes) + span * pass).to_be_bytes()[2..].to_vec();
                moved.extend_from_slice(&bytes[6..]);
                Value::Blob(moved)
            }
            (Self::Suffix, Value::Text(text)) => Value::Text(format!("{text}~{pass:04}")),
            _ => value.clone(),
        }
    }
}

fn instant_rule(rows: &[Vec<Value>], column: usize) -> Rule {
    let all_instants = rows.iter().all(|row| match &row[column] {
        Value::Integer(value) => INSTANT_MICROS.contains(value),
        Value::Null => true,
        _ => false,
    });
    let any = rows.iter().any(|row| row[column] != Value::Null);
    match span(rows, column) {
        Ok(span) if all_instants && any => Rule::Offset(span),
        _ => Rule::Keep,
    }
}

fn is_identifier(rows: &[Vec<Value>], column: usize) -> bool {
    rows.iter().all(|row| match &row[column] {
        Value::Text(_) => true,
        Value::Blob(bytes) => bytes.len() == BINARY_ULID_BYTES,
        _ => false,
    })
}

fn identifier_rule(rows: &[Vec<Value>], column: usize) -> Rule {
    let values = || rows.iter().map(|row| &row[column]);
    let text_times: Option<Vec<u64>> =
        values().map(|value| if let Value::Text(text) = value { ulid_time(text) } else { None }).collect();
    if let Some(times) = text_times {
        return Rule::UlidText(spread(&times));
    }
    let bytes: Option<Vec<u64>> = values()
        .map(|value| if let Value::Blob(bytes) = value { Some(binary_time(bytes)) } else { None })
        .collect();
    bytes.map_or(Rule::Suffix, |times| Rule::UlidBytes(spread(&times)))
}

fn spread(times: &[u64]) -> u64 {
    times.iter().max().unwrap_or(&0) - times.iter().min().unwrap_or(&0) + 1
}

fn span(rows: &[Vec<Value>], column: usize) -> Result<i64> {
    let integers =
        || rows.iter().filter_map(|row| if let Value::Integer(v) = row[column] { Some(v) } else { None });
    match (integers().min(), integers().max()) {
        (Some(least), Some(most)) => Ok(most - least + 1),
        _ => bail!("column {column} of a unique key is neither an identifier nor an integer"),
    }
}

fn ulid_time(text: &str) -> Option<u64> {
    if text.len() != ULID_CHARS {
        return None;
    }
    let mut time = 0u64;
    for (index, character) in text.chars().enumerate() {
        let digit = CROCKFORD.find(character)? as u64;
        if index < ULID_TIME_CHARS {
            time = time * 32 + digit;
        }
    }
    Some(time)
}

fn encode_time(time: u64) -> String {
    let digit = |place: usize| char::from(CROCKFORD.as_bytes()[(time >> (5 * place)) as usize & 31]);
    (0..ULID_TIME_CHARS).rev().map(digit).collect()
}

fn binary_time(bytes: &[u8]) -> u64 {
    bytes.iter().take(6).fold(0, |time, &byte| (time << 8) | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_has_keys_of_its_own_and_later_times() {
        let row = |id: &str, at| vec![Value::Text("org".into()), Value::Text(id.into()), Value::Integer(at)];
        let rows = vec![
            row("01HZX3V9K2ABCDEFGHJKMNPQRS", 1_700_000_000_000_000),
            row("01HZX3V9K3ABCDEFGHJKMNPQRS", 1_700_000_000_000_500),
        ];
        let sample = Sample::new(rows, &[vec![0, 1]], &[0]).unwrap();
        let ids: Vec<Value> = (0..3)
            .flat_map(|pass| (0..2).map(move |index| (index, pass)))
            .map(|(i, p)| sample.row(i, p)[1].clone())
            .collect();
        assert!(ids.windows(2).all(|pair| match pair {
            [Value::Text(a), Value::Text(b)] => a < b,
            _ => false,
        }));
        assert_eq!(sample.row(0, 1)[2], Value::Integer(1_700_000_000_000_501));
        assert_eq!(sample.row(0, 1)[0], Value::Text("org".into()));
    }
}
