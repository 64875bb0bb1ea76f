//! `Content-Length` as it leaves, in either direction (RFC 9110 §8.6).

use http::{HeaderMap, HeaderValue, header::CONTENT_LENGTH};

/// Strips leading zeros: a parser that reads them as octal would end `010` after 8 bytes.
///
/// The field was validated before: it occurs once and has digits only.
pub fn normalize(headers: &mut HeaderMap) {
    let Some(value) = headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes) else { return };
    let [b'0', _, ..] = value else { return };
    let digits = value.iter().position(|digit| *digit != b'0').and_then(|at| value.get(at..)).unwrap_or(b"0");
    if let Ok(digits) = HeaderValue::from_bytes(digits) {
        headers.insert(CONTENT_LENGTH, digits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_no_zeros_at_its_front() {
        for (value, expected) in
            [("0", "0"), ("00", "0"), ("7", "7"), ("70", "70"), ("010", "10"), ("0006", "6"), ("000", "0")]
        {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static(value));
            normalize(&mut headers);
            assert_eq!(headers[CONTENT_LENGTH], expected);
        }
        let mut none = HeaderMap::new();
        normalize(&mut none);
        assert!(none.is_empty());
    }
}
