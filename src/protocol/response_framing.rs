//! Whether the length of a response can be read in one way only (RFC 9112 §6.3).

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

use super::token_list;

/// Refuses what a client could read with another end than we do.
///
/// # Errors
/// Says what is wrong.
pub fn check(headers: &HeaderMap) -> Result<(), &'static str> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err("more than one Content-Length");
    }
    if length.is_some_and(|length| !is_number(length)) {
        return Err("Content-Length is not one number");
    }
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    if length.is_some() {
        return Err("Content-Length beside Transfer-Encoding");
    }
    // Another coding would be taken off by nobody: the field that names it ends at this hop.
    let mut codings = token_list::members(headers.get_all(TRANSFER_ENCODING));
    match (codings.next(), codings.next()) {
        (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(()),
        _ => Err("Transfer-Encoding is not chunked alone"),
    }
}

/// Whether the next response may follow on the same connection.
///
/// A 204 has no content, whatever its head says (RFC 9110 §8.6). An upstream that announces some may send it, and it would be
/// taken for the next response.
pub fn is_reusable(status: StatusCode, headers: &HeaderMap) -> bool {
    let is_zero = |length: &HeaderValue| length.as_bytes().iter().all(|digit| *digit == b'0');
    let announces = headers.contains_key(TRANSFER_ENCODING) || !headers.get_all(CONTENT_LENGTH).iter().all(is_zero);
    status != StatusCode::NO_CONTENT || !announces
}

fn is_number(value: &HeaderValue) -> bool {
    let digits = value.as_bytes();
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_response_follows_content_that_is_none() {
        let length = |value: &'static str| HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static(value))]);
        let chunked = HeaderMap::from_iter([(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))]);
        for (status, headers, expected) in [
            (204, HeaderMap::new(), true),
            (204, length("0"), true),
            (204, length("00"), true),
            (204, length("5"), false),
            (204, chunked.clone(), false),
            (200, length("5"), true),
            (200, chunked, true),
            (304, length("5"), true),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_reusable(status, &headers), expected, "{status} {headers:?}");
        }
    }

    #[test]
    fn one_way_to_read_the_length_or_none() {
        let chunked = (TRANSFER_ENCODING, "chunked");
        for (fields, sound) in [
            (&[][..], true),
            (&[(CONTENT_LENGTH, "5")], true),
            (&[(TRANSFER_ENCODING, "Chunked")], true),
            (&[(CONTENT_LENGTH, "5"), (CONTENT_LENGTH, "5")], false),
            (&[(CONTENT_LENGTH, "5, 5")], false),
            (&[(CONTENT_LENGTH, "+5")], false),
            (&[(CONTENT_LENGTH, "")], false),
            (&[(CONTENT_LENGTH, "5"), chunked.clone()], false),
            (&[(TRANSFER_ENCODING, "gzip, chunked")], false),
            (&[(TRANSFER_ENCODING, "gzip")], false),
            (&[chunked.clone(), chunked], false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(name, HeaderValue::from_static(value));
            }
            assert_eq!(check(&headers).is_ok(), sound, "{fields:?}");
        }
    }
}
