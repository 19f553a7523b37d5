//! Where a request comes from: whether another site made a browser send it, and what the audit log says of it.

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};

use agentlens_domain::permissions::Origin;

use crate::error::{ApiError, request_id};
use crate::proxies::ClientAddress;

/// Bytes of a client's name that are kept.
const MAX_USER_AGENT_BYTES: usize = 256;

/// Refuses a request that another site may have made a browser send. Browsers say so in `Sec-Fetch-Site`; over plain `http` they send
/// only `Origin`, which must then be the public one. A client that sends neither is no browser, and has no cookie of ours to
/// send either.
pub(crate) fn refuse_other_sites(headers: &HeaderMap, public_origin: &str) -> Result<(), ApiError> {
    // Of a header that is there twice, nothing is believed.
    let header = |name| {
        let mut values = headers.get_all(name).iter();
        let first = values.next()?.to_str().unwrap_or("?");
        Some(if values.next().is_none() { first } else { "?" })
    };
    let is_ours = match (header("sec-fetch-site"), header(header::ORIGIN.as_str())) {
        (Some(site), origin) => site == "same-origin" && origin.is_none_or(|origin| origin == public_origin),
        (None, Some(origin)) => origin == public_origin,
        (None, None) => false,
    };
    if is_ours {
        return Ok(());
    }
    Err(ApiError::forbidden_because("cross_site", "This request did not come from a page of this server")
        .with_hint("browsers must use the server's public address (AGENTLENS_PUBLIC_URL); programs use an API key, not a cookie"))
}

/// Whether a request only reads.
pub(crate) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// What the audit log says of where a request came from.
pub(crate) fn origin_of(parts: &Parts, session_id: Option<&str>) -> Origin {
    let address = parts.extensions.get::<ClientAddress>().map(|client| client.0.to_string());
    let user_agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    Origin {
        address,
        user_agent: user_agent.map(|text| text[..text.floor_char_boundary(MAX_USER_AGENT_BYTES)].to_owned()),
        request_id: Some(request_id()),
        session_id: session_id.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn is_taken(headers: &[(&'static str, &'static str)]) -> bool {
        let mut sent = HeaderMap::new();
        for (name, value) in headers {
            sent.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        refuse_other_sites(&sent, "https://lens.example.com").is_ok()
    }

    #[test]
    fn only_pages_of_the_server_itself_may_act_with_a_cookie() {
        assert!(is_taken(&[("sec-fetch-site", "same-origin")]));
        assert!(is_taken(&[("sec-fetch-site", "same-origin"), ("origin", "https://lens.example.com")]));
        assert!(is_taken(&[("origin", "https://lens.example.com")]));
        for refused in [
            &[][..],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example.com")],
            &[("origin", "https://lens.example.com.evil.com")],
            &[("origin", "http://lens.example.com")],
            &[("origin", "null")],
            &[("origin", "https://lens.example.com"), ("origin", "https://evil.example.com")],
        ] {
            assert!(!is_taken(refused), "{refused:?}");
        }
    }
}
