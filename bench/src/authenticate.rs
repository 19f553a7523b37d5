//! `authenticate`: what it costs to find out who asks. Requests that are refused right after that (a form without its content type, 415)
//! are compared with forms that are refused at once because they come from no page of the server, over one connection, one after another.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Args;
use hyper::header::{COOKIE, HeaderName, HeaderValue, ORIGIN};
use serde_json::{Map, Value, json};

use crate::http::{Connection, Origin, Target, Version};
use crate::keys::Keys;
use crate::procstat::Watched;
use crate::report::{publish, round};

/// A form that anyone may send, and that nobody without a browser sends.
const OPEN: &str = "/v1/sign-in";
/// A form of people and keys that may manage workspaces; without a content type nothing happens after the permission was checked.
const GUARDED: &str = "/v1/workspaces";

#[derive(Args, Clone, Debug)]
pub(crate) struct AuthenticateArgs {
    #[arg(long, default_value = "http://127.0.0.1:3400")]
    url: String,
    #[command(flatten)]
    keys: Keys,
    /// The value of the cookie of a session, `al_session_...`.
    #[arg(long, value_name = "VALUE")]
    cookie: Option<String>,
    /// The org that the session's requests name, as the dashboard does.
    #[arg(long, default_value = "default")]
    org: String,
    /// Requests of each kind in a round.
    #[arg(long, default_value_t = 20_000)]
    requests: u32,
    /// Rounds; the kinds take turns, and the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[command(flatten)]
    watched: Watched,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &AuthenticateArgs) -> Result<()> {
    ensure!(!args.watched.is_empty(), "give the server's --pid");
    ensure!(args.requests > 0 && args.rounds > 0, "at least one request and one round");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let results = runtime.block_on(measure(args))?;
    let parameters = json!({"requests": args.requests, "rounds": args.rounds, "http": 1});
    publish("authenticate", &parameters, &results, args.json.as_deref())
}

/// A kind of request.
enum Asking<'a> {
    Nobody,
    Key(&'a str),
    Cookie(Vec<(HeaderName, HeaderValue)>),
}

async fn measure(args: &AuthenticateArgs) -> Result<Value> {
    let origin = Origin::parse(&args.url, Version::One)?;
    let key = args.keys.load()?.into_iter().next().context("no key")?;
    let mut kinds = vec![("nobody", Asking::Nobody), ("key", Asking::Key(&key))];
    if let Some(cookie) = &args.cookie {
        let cookie = HeaderValue::from_str(&format!("al_session={cookie}"))?;
        let page = HeaderValue::from_str(args.url.trim_end_matches('/'))?;
        let org = (HeaderName::from_static("agentlens-org"), HeaderValue::from_str(&args.org)?);
        kinds.push(("cookie", Asking::Cookie(vec![(COOKIE, cookie), (ORIGIN, page), org])));
    }
    let mut connection = origin.connect().await?;
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); kinds.len()];
    for round in 0..=args.rounds {
        for ((_, asking), costs) in kinds.iter().zip(&mut costs) {
            let cost = cost_us(&mut connection, asking, args).await?;
            // The first round warms caches.
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    let medians: Vec<f64> = costs.iter_mut().map(|costs| median(costs)).collect();
    let mut results = Map::new();
    for ((name, _), cost) in kinds.iter().zip(&medians) {
        results.insert(format!("server_cpu_us_per_request_by_{name}"), json!(round(*cost, 2)));
    }
    for ((name, _), cost) in kinds.iter().zip(&medians).skip(1) {
        results.insert(format!("authenticating_us_by_{name}"), json!(round(cost - medians[0], 2)));
    }
    Ok(Value::Object(results))
}

/// Microseconds of the server's processor time for one request.
async fn cost_us(connection: &mut Connection, asking: &Asking<'_>, args: &AuthenticateArgs) -> Result<f64> {
    let total = || args.watched.cpu_seconds().iter().map(|(_, seconds)| seconds).sum::<f64>();
    let before = total();
    for _ in 0..args.requests {
        let (answer, wanted) = match asking {
            Asking::Nobody => (connection.post_to(&at(OPEN, &[]), None, Bytes::new()).await?, 403),
            Asking::Key(key) => (connection.post_to(&at(GUARDED, &[]), Some(key), Bytes::new()).await?, 415),
            Asking::Cookie(headers) => {
                (connection.post_to(&at(GUARDED, headers), None, Bytes::new()).await?, 415)
            }
        };
        ensure!(answer.status.as_u16() == wanted, "the server answered {}, not {wanted}", answer.status);
    }
    Ok((total() - before) * 1e6 / f64::from(args.requests))
}

fn at(path: &str, headers: &[(HeaderName, HeaderValue)]) -> Target {
    Target { path: path.to_owned(), headers: headers.to_vec() }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
