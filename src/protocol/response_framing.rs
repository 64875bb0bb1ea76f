//! Whether the length of a response can be read in one way only (RFC 9112 §6.3).

use http::{
    HeaderMap, HeaderValue,
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

fn is_number(value: &HeaderValue) -> bool {
    let digits = value.as_bytes();
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

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
