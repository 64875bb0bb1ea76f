//! What the log shows of a request: escaped, bounded, and no secret unless the config asks for it.

use http::{HeaderMap, HeaderName, Uri};

use crate::{
    config::model::LogOptions,
    protocol::{log_text::escape, origin::OriginFields},
};

/// The first line of each of `fields`, or `absent`; both where they differ. What is no origin may hold a query, and a
/// query may carry tokens.
pub(super) fn origin(headers: &HeaderMap, fields: OriginFields) -> String {
    let mut shown: Vec<String> = fields.names().filter_map(|name| field(headers, &name)).map(without_query).collect();
    shown.dedup();
    if shown.is_empty() { "absent".to_owned() } else { shown.join(", ") }
}

fn without_query(text: String) -> String {
    match text.split_once(['?', '#']) {
        Some((before, _)) => format!("{before}…"),
        None => text,
    }
}

/// The first line of a field.
pub(super) fn field(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| escape(value.as_bytes()))
}

/// The path, and the query where the config asks for it; a query may carry tokens.
pub(super) fn path(uri: &Uri, options: LogOptions) -> String {
    let mut shown = escape(uri.path().as_bytes());
    match uri.query() {
        Some(query) if options.query => {
            shown.push('?');
            shown.push_str(&escape(query.as_bytes()));
        }
        Some(_) => shown.push_str("?…"),
        None => {}
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_stays_out_unless_asked_for() {
        let uri = Uri::from_static("/chat?token=secret");
        let quiet = LogOptions { query: false, cookies: false, authorization: false };
        assert_eq!(path(&uri, quiet), "/chat?…");
        assert_eq!(path(&uri, LogOptions { query: true, ..quiet }), "/chat?token=secret");
    }

    #[test]
    fn an_origin_is_shown_without_what_follows_a_question_mark() {
        let mut headers = HeaderMap::new();
        assert_eq!(origin(&headers, OriginFields::WithDraft), "absent");
        headers.insert("origin", http::HeaderValue::from_static("https://a.example/x?token=secret"));
        assert_eq!(origin(&headers, OriginFields::WithDraft), "https://a.example/x…");
        headers.insert("sec-websocket-origin", http::HeaderValue::from_static("https://b.example"));
        assert_eq!(origin(&headers, OriginFields::Standard), "https://a.example/x…");
        assert_eq!(origin(&headers, OriginFields::WithDraft), "https://a.example/x…, https://b.example");
    }
}
