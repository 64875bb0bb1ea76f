//! What an upgrade offer asks for (RFC 9110 §7.8).

use http::{
    HeaderMap, HeaderValue,
    header::{CONNECTION, UPGRADE},
};

use super::token_list;

/// What a request wants its connection to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Nothing but HTTP.
    None,
    /// A WebSocket, perhaps among other protocols.
    WebSocket,
    /// Other protocols only.
    Other,
}

/// Reads the offer. An `Upgrade` field without the connection option is none (RFC 9110 §7.8).
pub fn intent(headers: &HeaderMap) -> Intent {
    if !headers.contains_key(UPGRADE) || !token_list::contains(headers, &CONNECTION, "upgrade") {
        return Intent::None;
    }
    if token_list::contains(headers, &UPGRADE, "websocket") { Intent::WebSocket } else { Intent::Other }
}

/// Writes the pair of fields that offers or confirms a WebSocket.
pub fn write_pair(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers() {
        let cases: [(&[&'static str], &[&'static str], Intent); 10] = [
            (&["Upgrade"], &["websocket"], Intent::WebSocket),
            (&["keep-alive, Upgrade"], &["WebSocket"], Intent::WebSocket),
            (&["keep-alive", "upgrade"], &["websocket"], Intent::WebSocket),
            (&[" ,\tupgrade ,"], &["websocket"], Intent::WebSocket),
            (&["upgrade"], &["h2c, websocket"], Intent::WebSocket),
            (&["upgrade"], &["h2c", "websocket"], Intent::WebSocket),
            (&["upgrade, HTTP2-Settings"], &["h2c"], Intent::Other),
            (&["upgrade"], &["websocket/13"], Intent::Other),
            (&["keep-alive"], &["websocket"], Intent::None),
            (&["upgrade"], &[], Intent::None),
        ];
        for (connection, upgrade, expected) in cases {
            let mut headers = HeaderMap::new();
            connection.iter().for_each(|line| {
                headers.append(CONNECTION, HeaderValue::from_static(line));
            });
            upgrade.iter().for_each(|line| {
                headers.append(UPGRADE, HeaderValue::from_static(line));
            });
            assert_eq!(intent(&headers), expected, "{connection:?} {upgrade:?}");
        }
    }
}
