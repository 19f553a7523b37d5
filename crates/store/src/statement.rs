//! One statement, two engines: values, rows and the few rewrites that let the same SQL text run on both.
//!
//! Statements are written in PostgreSQL's words: `$1` for arguments and `= any($2)` for lists. For SQLite they
//! become `?1` and `in (select value from json_each(?2))`, `for update` at the end is dropped, and `collate "C"` becomes
//! `collate binary`. Nothing else is rewritten.

use bytes::BytesMut;
use rusqlite::types::{ToSqlOutput, ValueRef};
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use crate::error::StoreError;

/// An argument or a column of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL null.
    Null,
    /// Any integer.
    Int(i64),
    /// A double.
    Real(f64),
    /// A text without NUL.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
    /// A list for `= any($n)`.
    Texts(Vec<String>),
    /// A list for `= any($n)`.
    Ints(Vec<i64>),
}

macro_rules! value_from {
    ($($from:ty => |$x:ident| $to:expr;)+) => { $(impl From<$from> for Value { fn from($x: $from) -> Self { $to } })+ };
}
value_from! {
    i64 => |x| Self::Int(x);
    i32 => |x| Self::Int(i64::from(x));
    u32 => |x| Self::Int(i64::from(x));
    bool => |x| Self::Int(i64::from(x));
    f64 => |x| Self::Real(x);
    &str => |x| Self::Text(x.to_owned());
    String => |x| Self::Text(x);
    &String => |x| Self::Text(x.clone());
    &[u8] => |x| Self::Blob(x.to_vec());
    Vec<u8> => |x| Self::Blob(x);
    [u8; 32] => |x| Self::Blob(x.to_vec());
    &[u8; 32] => |x| Self::Blob(x.to_vec());
    [u8; 17] => |x| Self::Blob(x.to_vec());
    Vec<String> => |x| Self::Texts(x);
    Vec<i64> => |x| Self::Ints(x);
}
impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Arguments of a statement, in order; `$1` is the first.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::statement::Value::from($value)),*] };
}

/// The statement's text for SQLite.
pub(crate) fn for_sqlite(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len() + 32);
    let mut rest = sql;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        let digits = after[1..].bytes().take_while(u8::is_ascii_digit).count();
        let number = &after[1..=digits];
        if let Some(start) = before.strip_suffix("= any(") {
            text.push_str(start);
            text.push_str("in (select value from json_each(?");
            text.push_str(number);
            text.push(')');
        } else {
            text.push_str(before);
            text.push('?');
            text.push_str(number);
        }
        rest = &after[1 + digits..];
    }
    // A writing transaction of SQLite has the file to itself.
    text.push_str(rest.strip_suffix(" for update").unwrap_or(rest));
    // The order of bytes, whatever the database's own is.
    if text.contains(BYTE_ORDER) { text.replace(BYTE_ORDER, " collate binary") } else { text }
}

/// PostgreSQL's words for the order of bytes.
const BYTE_ORDER: &str = " collate \"C\"";

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Self::Int(x) => ToSqlOutput::Borrowed(ValueRef::Integer(*x)),
            Self::Real(x) => ToSqlOutput::Borrowed(ValueRef::Real(*x)),
            Self::Text(x) => ToSqlOutput::Borrowed(ValueRef::Text(x.as_bytes())),
            Self::Blob(x) => ToSqlOutput::Borrowed(ValueRef::Blob(x)),
            Self::Texts(x) => ToSqlOutput::from(serde_json::to_string(x).unwrap_or_default()),
            Self::Ints(x) => ToSqlOutput::from(serde_json::to_string(x).unwrap_or_default()),
        })
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(x) => match *ty {
                Type::INT4 => i32::try_from(*x)?.to_sql(ty, out),
                Type::INT2 => i16::try_from(*x)?.to_sql(ty, out),
                Type::BOOL => (*x != 0).to_sql(ty, out),
                Type::FLOAT8 => {
                    #[expect(
                        clippy::cast_precision_loss,
                        reason = "an integer given where a double is wanted"
                    )]
                    let double = *x as f64;
                    double.to_sql(ty, out)
                }
                _ => x.to_sql(&Type::INT8, out),
            },
            Self::Real(x) => x.to_sql(ty, out),
            Self::Text(x) => x.to_sql(ty, out),
            Self::Blob(x) => x.to_sql(ty, out),
            Self::Texts(x) => x.to_sql(ty, out),
            Self::Ints(x) if *ty == Type::INT4_ARRAY => {
                let narrow: Vec<i32> = x.iter().map(|x| i32::try_from(*x)).collect::<Result<_, _>>()?;
                narrow.to_sql(ty, out)
            }
            Self::Ints(x) => x.to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Binary
    }

    to_sql_checked!();
}

/// A row: its columns in the order of the statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Row(Vec<Value>);

impl Row {
    pub(crate) fn from_sqlite(row: &rusqlite::Row<'_>, columns: usize) -> rusqlite::Result<Self> {
        let mut values = Vec::with_capacity(columns);
        for index in 0..columns {
            values.push(match row.get_ref(index)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(x) => Value::Int(x),
                ValueRef::Real(x) => Value::Real(x),
                ValueRef::Text(x) => Value::Text(String::from_utf8_lossy(x).into_owned()),
                ValueRef::Blob(x) => Value::Blob(x.to_vec()),
            });
        }
        Ok(Self(values))
    }

    pub(crate) fn from_postgres(row: &tokio_postgres::Row) -> Result<Self, StoreError> {
        let mut values = Vec::with_capacity(row.len());
        for (index, column) in row.columns().iter().enumerate() {
            values.push(match *column.type_() {
                Type::INT8 => row.try_get::<_, Option<i64>>(index)?.into(),
                Type::INT4 => row.try_get::<_, Option<i32>>(index)?.into(),
                Type::INT2 => row.try_get::<_, Option<i16>>(index)?.map(i32::from).into(),
                Type::BOOL => row.try_get::<_, Option<bool>>(index)?.into(),
                Type::FLOAT8 => row.try_get::<_, Option<f64>>(index)?.into(),
                Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(index)?.into(),
                Type::TEXT | Type::VARCHAR | Type::NAME | Type::UNKNOWN => {
                    row.try_get::<_, Option<String>>(index)?.into()
                }
                ref other => {
                    return Err(StoreError::Corrupt(format!("column {} has type {other}", column.name())));
                }
            });
        }
        Ok(Self(values))
    }

    /// The bytes at `index`, without copying them.
    pub fn bytes(&self, index: usize) -> Result<&[u8], StoreError> {
        match self.0.get(index) {
            Some(Value::Blob(bytes)) => Ok(bytes),
            _ => Err(StoreError::Corrupt(format!("column {index} holds no bytes"))),
        }
    }

    /// The column at `index` as the type asked for.
    pub fn get<T: FromValue>(&self, index: usize) -> Result<T, StoreError> {
        let value = self.0.get(index).unwrap_or(&Value::Null);
        T::from_value(value)
            .ok_or_else(|| StoreError::Corrupt(format!("column {index} holds {}", kind_of(value))))
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Int(_) => "an integer",
        Value::Real(_) => "a double",
        Value::Text(_) => "a text",
        Value::Blob(_) => "bytes",
        Value::Texts(_) | Value::Ints(_) => "a list",
    }
}

/// A type that a column can be read as.
pub trait FromValue: Sized {
    /// `None` if the column holds something else.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($to:ty: $pattern:pat => $result:expr;)+) => {
        $(impl FromValue for $to { fn from_value(value: &Value) -> Option<Self> { match value { $pattern => $result, _ => None } } })+
    };
}
from_value! {
    i64: Value::Int(x) => Some(*x);
    i32: Value::Int(x) => i32::try_from(*x).ok();
    bool: Value::Int(x) => Some(*x != 0);
    Vec<u8>: Value::Blob(x) => Some(x.clone());
    [u8; 32]: Value::Blob(x) => x.as_slice().try_into().ok();
    [u8; 16]: Value::Blob(x) => x.as_slice().try_into().ok();
    [u8; 17]: Value::Blob(x) => x.as_slice().try_into().ok();
}
/// Payloads are texts that are stored as bytes.
impl FromValue for String {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            Value::Blob(bytes) => Self::from_utf8(bytes.clone()).ok(),
            _ => None,
        }
    }
}
impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        if *value == Value::Null { Some(None) } else { T::from_value(value).map(Some) }
    }
}

/// A type that is read from a row.
pub trait FromRow: Sized {
    /// Reads the columns in order.
    fn from_row(row: &Row) -> Result<Self, StoreError>;
}

impl FromRow for Row {
    fn from_row(row: &Row) -> Result<Self, StoreError> {
        Ok(row.clone())
    }
}
impl FromRow for i64 {
    fn from_row(row: &Row) -> Result<Self, StoreError> {
        row.get(0)
    }
}
impl FromRow for String {
    fn from_row(row: &Row) -> Result<Self, StoreError> {
        row.get(0)
    }
}
impl FromRow for [u8; 32] {
    fn from_row(row: &Row) -> Result<Self, StoreError> {
        row.get(0)
    }
}

/// A row whose fields are named like the columns that they are read from.
pub trait NamedRow: FromRow {
    /// The columns in order, for a select list.
    const COLUMNS: &'static str;
}

/// Declares a struct whose fields are a statement's columns, in order.
#[macro_export]
macro_rules! row_type {
    ($(#[$doc:meta])* $vis:vis struct $name:ident {
        $(#[$first_doc:meta])* pub $first:ident: $first_ty:ty,
        $($(#[$field_doc:meta])* pub $field:ident: $ty:ty,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name { $(#[$first_doc])* pub $first: $first_ty, $($(#[$field_doc])* pub $field: $ty,)* }

        impl $crate::statement::NamedRow for $name {
            const COLUMNS: &'static str = concat!(stringify!($first) $(, ", ", stringify!($field))*);
        }

        impl $crate::statement::FromRow for $name {
            fn from_row(row: &$crate::statement::Row) -> Result<Self, $crate::StoreError> {
                let mut index = 0usize;
                let $first: $first_ty = row.get(index)?;
                index += 1;
                $(let $field: $ty = row.get(index)?; index += 1;)*
                let _ = index;
                Ok(Self { $first, $($field,)* })
            }
        }
    };
}

/// A tenant statement under construction whose conditions depend on the request. Only texts of the program go into
/// the SQL; values always become arguments. The handle binds `$1`, the org, and that of a workspace also `$2`, the workspace.
#[derive(Debug)]
pub struct Builder {
    sql: String,
    args: Vec<Value>,
    /// Arguments that the handle binds.
    bound: usize,
}

impl Builder {
    /// Starts a statement of an org with a text that uses no argument but `$1`.
    pub fn of_org(sql: &'static str) -> Self {
        Self { sql: sql.to_owned(), args: Vec::new(), bound: 1 }
    }

    /// Starts a statement of a workspace with a text that uses no arguments but `$1` and `$2`.
    pub fn of_workspace(sql: &'static str) -> Self {
        Self { sql: sql.to_owned(), args: Vec::new(), bound: 2 }
    }

    /// Adds a text as it is.
    pub fn text(&mut self, sql: &'static str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// Adds a text in which `$` stands for the value.
    pub fn with(&mut self, sql: &'static str, value: impl Into<Value>) -> &mut Self {
        self.args.push(value.into());
        let number = format!("${}", self.args.len() + self.bound);
        self.sql.push_str(&sql.replace('$', &number));
        self
    }

    /// Like [`Builder::with`] when there is a value, else nothing.
    pub fn with_some<T: Into<Value>>(&mut self, sql: &'static str, value: Option<T>) -> &mut Self {
        if let Some(value) = value {
            self.with(sql, value);
        }
        self
    }

    /// The text and its arguments, without those that the handle binds.
    pub fn finish(self) -> (String, Vec<Value>) {
        (self.sql, self.args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_rewritten_for_sqlite() {
        assert_eq!(
            for_sqlite("select a from t where org_id = $1 and b = any($12) and c > $3"),
            "select a from t where org_id = ?1 and b in (select value from json_each(?12)) and c > ?3"
        );
    }

    #[test]
    fn a_builder_numbers_its_arguments() {
        let mut builder = Builder::of_org("select 1 from t where org_id = $1");
        builder.with(" and a = $", 5i64).with_some(" and b = $", None::<i64>).with(" and c = $", "x");
        let (sql, args) = builder.finish();
        assert_eq!(sql, "select 1 from t where org_id = $1 and a = $2 and c = $3");
        assert_eq!(args, args![5i64, "x"]);
        let mut builder = Builder::of_workspace("select 1 from t where org_id = $1 and workspace_id = $2");
        builder.with(" and a = $", 5i64);
        assert_eq!(builder.finish().0, "select 1 from t where org_id = $1 and workspace_id = $2 and a = $3");
    }
}
