//! The description of the API, as JSON and as a page made from the same document.

mod page;

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router};
use std::sync::Arc;

use crate::state::AppState;

/// The document, rendered once.
#[derive(Clone)]
pub struct Documents {
    json: Arc<str>,
    html: Arc<str>,
}

impl Documents {
    /// Renders the document.
    pub fn of(openapi: &utoipa::openapi::OpenApi) -> Self {
        let json = openapi.to_pretty_json().unwrap_or_default();
        let html = page::render(&serde_json::from_str(&json).unwrap_or_default());
        Self { json: json.into(), html: html.into() }
    }
}

/// The routes of this feature.
pub fn routes(documents: Documents) -> Router<AppState> {
    Router::new()
        .route("/openapi.json", get(get_json))
        .route("/api/openapi.json", get(get_json))
        .route("/docs", get(get_page))
        .route("/", get(|_: State<AppState>| async { Redirect::temporary("/docs") }))
        .layer(Extension(documents))
}

async fn get_json(Extension(documents): Extension<Documents>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], documents.json.to_string()).into_response()
}

async fn get_page(Extension(documents): Extension<Documents>) -> Html<String> {
    Html(documents.html.to_string())
}
