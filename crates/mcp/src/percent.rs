//! Percent encoding, RFC 3986.

/// Bytes as they are where they are unreserved or in `plain`, else as `%XX`.
pub(crate) fn encode(text: &str, plain: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let letter = char::from(byte);
        if letter.is_ascii_alphanumeric() || "-_.~".contains(letter) || plain.contains(letter) {
            encoded.push(letter);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The bytes of a text; a percent sign before anything but two hexadecimal digits stands for itself.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let digit = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.extend(u8::try_from(high * 16 + low));
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_reserved_is_escaped() {
        assert_eq!(encode("a b/c:d%é\u{1f600}", "/:"), "a%20b/c:d%25%C3%A9%F0%9F%98%80");
        assert_eq!(encode("a/b", ""), "a%2Fb");
        assert_eq!(decode("a%2fb%2Fc%zz%2"), b"a/b/c%zz%2");
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text: String, plain in "[/:]{0,2}") {
            prop_assert_eq!(decode(&encode(&text, &plain)), text.as_bytes());
        }
    }
}
