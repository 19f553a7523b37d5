//! The events table as PostgreSQL describes it, a sample of its rows, and an empty copy to insert into.

use std::error::Error;

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, BytesMut};
use rusqlite::types::Value;
use tokio_postgres::Client;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::rows::Sample;

/// The schema that holds the copy; dropped after the run.
pub(crate) const SCHEMA: &str = "agentlens_bench";
/// All workspaces of an org.
const ALL_WORKSPACES: &str = "*";
const DEFAULT_POLICY: &str = "org_id = nullif(current_setting('app.current_org', true), '')";

pub(crate) struct Table {
    name: String,
    /// Name and type of each stored column.
    pub(crate) columns: Vec<(String, String)>,
    partition_key: Option<String>,
    pub(crate) partition_bounds: Vec<String>,
    policy: String,
    org: String,
    pub(crate) sample: Sample,
}

/// One column of a batch.
pub(crate) struct Batch(Vec<Vec<Cell>>);

impl Batch {
    pub(crate) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.0.iter().map(|column| column as &(dyn ToSql + Sync)).collect()
    }
}

impl Table {
    pub(crate) fn insert_statement(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|(name, _)| quote(name)).collect();
        let arrays: Vec<String> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (_, kind))| format!("${}::{kind}[]", index + 1))
            .collect();
        let (names, arrays) = (names.join(", "), arrays.join(", "));
        format!("insert into {SCHEMA}.rows ({names}) select * from unnest({arrays}) on conflict do nothing")
    }

    pub(crate) fn set_org_statement(&self) -> String {
        let org = self.org.replace('\'', "''");
        format!("set local app.current_org = '{org}'; set local app.current_workspace = '{ALL_WORKSPACES}'")
    }

    /// The next rows, by column. A full pass over the sample is followed by that of `stride` later.
    pub(crate) fn batch(&self, next: &mut usize, pass: &mut u64, stride: u64, size: usize) -> Batch {
        let mut columns: Vec<Vec<Cell>> = self.columns.iter().map(|_| Vec::with_capacity(size)).collect();
        for _ in 0..size {
            for (column, value) in columns.iter_mut().zip(self.sample.row(*next, *pass)) {
                column.push(Cell(value));
            }
            *next += 1;
            if *next == self.sample.rows.len() {
                (*next, *pass) = (0, *pass + stride);
            }
        }
        Batch(columns)
    }
}

pub(crate) async fn read(owner: &Client, name: &str, org: Option<&str>, sample: i64) -> Result<Table> {
    if let Some(org) = org {
        let names =
            "select set_config('app.current_org', $1, false), set_config('app.current_workspace', $2, false)";
        owner.execute(names, &[&org, &ALL_WORKSPACES]).await?;
    }
    let columns = columns(owner, name).await?;
    let partition_key: Option<String> =
        owner.query_one("select pg_get_partkeydef($1::text::regclass)", &[&name]).await?.get(0);
    let first = owner.query_opt(&format!("select org_id::text from {name} limit 1"), &[]).await?;
    let org: String = first.context("the events table holds no row this role can see")?.get(0);
    let names = columns.iter().map(|(column, _)| quote(column)).collect::<Vec<_>>().join(", ");
    let select = format!("select {names} from {name} where org_id::text = $1 limit $2");
    let rows = owner.query(&select, &[&org, &sample]).await?;
    let cells =
        |row: &tokio_postgres::Row| (0..columns.len()).map(|index| row.get::<_, Cell>(index).0).collect();
    let rows: Vec<Vec<Value>> = rows.iter().map(cells).collect();
    let bounds = format!(
        "select distinct pg_get_expr(part.relpartbound, part.oid)
         from (select tableoid from {name} where org_id::text = $1 limit $2) as taken
         join pg_class as part on part.oid = taken.tableoid
         where part.relispartition"
    );
    let partition_bounds =
        owner.query(&bounds, &[&org, &sample]).await?.iter().map(|row| row.get(0)).collect();
    let policy =
        "select pg_get_expr(polqual, polrelid) from pg_policy where polrelid = $1::text::regclass limit 1";
    let policy = owner.query_opt(policy, &[&name]).await?.and_then(|row| row.get::<_, Option<String>>(0));
    let unique = unique_keys(owner, name, &columns).await?;
    let fixed: Vec<usize> = columns.iter().position(|(column, _)| column == "org_id").into_iter().collect();
    Ok(Table {
        name: name.to_owned(),
        partition_key,
        partition_bounds,
        policy: policy.unwrap_or_else(|| DEFAULT_POLICY.to_owned()),
        org,
        sample: Sample::new(rows, &unique, &fixed)?,
        columns,
    })
}

async fn columns(owner: &Client, name: &str) -> Result<Vec<(String, String)>> {
    let statement = "select attname::text, format_type(atttypid, atttypmod), attndims > 0
         from pg_attribute
         where attrelid = $1::text::regclass and attnum > 0 and not attisdropped
           and attgenerated = '' and attidentity = ''
         order by attnum";
    let rows = owner.query(statement, &[&name]).await?;
    for row in &rows {
        ensure!(
            !row.get::<_, bool>(2),
            "column {} is an array; unnest cannot carry it",
            row.get::<_, String>(0)
        );
    }
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn unique_keys(owner: &Client, name: &str, columns: &[(String, String)]) -> Result<Vec<Vec<usize>>> {
    let statement = "select array_agg(a.attname::text)
         from pg_index as i
         join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = any(i.indkey::int2[])
         where i.indrelid = $1::text::regclass and i.indisunique
         group by i.indexrelid";
    let rows = owner.query(statement, &[&name]).await?;
    let position = |name: &String| columns.iter().position(|(column, _)| column == name);
    Ok(rows.iter().map(|row| row.get::<_, Vec<String>>(0).iter().filter_map(position).collect()).collect())
}

/// The empty copy, under forced row security, open to the application's role.
pub(crate) async fn create_copy(owner: &Client, table: &Table, app_role: &str) -> Result<()> {
    let by = table.partition_key.as_ref().map_or_else(String::new, |key| format!(" partition by {key}"));
    let mut script = format!(
        "drop schema if exists {SCHEMA} cascade; create schema {SCHEMA};
         create table {SCHEMA}.rows (like {} including all){by};",
        table.name
    );
    let mut tables = vec![format!("{SCHEMA}.rows")];
    for (index, bound) in table.partition_bounds.iter().enumerate() {
        let part = format!("{SCHEMA}.rows_{index}");
        script.push_str(&format!("create table {part} partition of {SCHEMA}.rows {bound};"));
        tables.push(part);
    }
    for name in &tables {
        script.push_str(&format!(
            "alter table {name} enable row level security;
             alter table {name} force row level security;
             create policy tenant on {name} using ({policy}) with check ({policy});",
            policy = table.policy
        ));
    }
    let role = quote(app_role);
    script.push_str(&format!(
        "grant usage on schema {SCHEMA} to {role}; grant select, insert on {SCHEMA}.rows to {role};"
    ));
    Ok(owner.batch_execute(&script).await?)
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value of any column type: integers and text are understood, the rest is carried as its bytes.
#[derive(Debug)]
struct Cell(Value);

impl<'a> FromSql<'a> for Cell {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(match *kind {
            Type::INT8 => Value::Integer(i64::from_sql(kind, raw)?),
            Type::INT4 => Value::Integer(i32::from_sql(kind, raw)?.into()),
            Type::INT2 => Value::Integer(i16::from_sql(kind, raw)?.into()),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR => Value::Text(String::from_utf8(raw.to_vec())?),
            _ => Value::Blob(raw.to_vec()),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Value::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ToSql for Cell {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (&self.0, kind) {
            (Value::Null, _) => return Ok(IsNull::Yes),
            (Value::Integer(value), &Type::INT4) => out.put_i32(i32::try_from(*value)?),
            (Value::Integer(value), &Type::INT2) => out.put_i16(i16::try_from(*value)?),
            (Value::Integer(value), _) => out.put_i64(*value),
            (Value::Text(text), _) => out.put_slice(text.as_bytes()),
            (Value::Blob(bytes), _) => out.put_slice(bytes),
            (Value::Real(_), _) => bail_boxed("a real number is carried as bytes")?,
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn bail_boxed(message: &str) -> Result<(), Box<dyn Error + Sync + Send>> {
    Err(message.into())
}
