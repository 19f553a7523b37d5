//! A browser: it keeps cookies, and says from which page it sends.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::Api;
use super::api::Answer;

/// A browser on a page of the server.
pub(crate) struct Browser {
    api: Api,
    cookies: Mutex<BTreeMap<String, String>>,
    org: Option<String>,
    origin: String,
}

impl Browser {
    /// A new one, which no one has signed in with.
    pub(crate) fn new(api: &Api) -> Self {
        Self { api: api.clone(), cookies: Mutex::default(), org: None, origin: api.address().to_owned() }
    }

    /// The same browser on the page of an org.
    pub(crate) fn in_org(mut self, org: &str) -> Self {
        self.org = Some(org.to_owned());
        self
    }

    /// The same browser on a page of a server whose public address is another one.
    pub(crate) fn at(mut self, origin: &str) -> Self {
        origin.clone_into(&mut self.origin);
        self
    }

    /// Signs in with a password; there must be no second factor.
    pub(crate) async fn sign_in(&self, email: &str, password: &str) {
        let sent = json!({ "email": email, "password": password });
        let answer = self.send("POST", "/v1/sign-in", Some(sent)).await.expect(200);
        assert_eq!(answer["needs_code"], false, "{answer}");
    }

    /// A request as a page of the server sends it.
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let mut request = self.api.bare(method, path).header("origin", &self.origin);
        let cookies = self.cookies.lock().unwrap();
        if !cookies.is_empty() {
            let pairs: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header("cookie", pairs.join("; "));
        }
        match &self.org {
            Some(org) => request.header("agentlens-org", org),
            None => request,
        }
    }

    /// Sends it, with a JSON body if there is one, and keeps the cookies of the answer.
    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = self.api.answer(request).await;
        self.keep_cookies(&answer);
        answer
    }

    /// Follows a link from another site to the server.
    pub(crate) async fn come_from_elsewhere(&self, path: &str) -> Answer {
        let mut request = self.request("GET", path).header("sec-fetch-site", "cross-site").build().unwrap();
        request.headers_mut().remove("origin");
        let answer = self.api.answer_built(request).await;
        self.keep_cookies(&answer);
        answer
    }

    fn keep_cookies(&self, answer: &Answer) {
        let mut cookies = self.cookies.lock().unwrap();
        for value in answer.headers.get_all("set-cookie") {
            let text = value.to_str().unwrap();
            assert!(text.contains("HttpOnly") && text.contains("SameSite=Lax"), "{text}");
            let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
            if value.is_empty() {
                cookies.remove(name);
            } else {
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// The value of a cookie.
    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.lock().unwrap().get(name).cloned()
    }

    /// Sets a cookie, as someone with access to the browser could.
    pub(crate) fn set_cookie(&self, name: &str, value: &str) {
        self.cookies.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }

    /// GET of something that must be there.
    pub(crate) async fn read(&self, path: &str) -> Value {
        self.send("GET", path, None).await.expect(200)
    }

    /// POST of JSON.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Some(body)).await
    }
}
