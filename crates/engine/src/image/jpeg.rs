//! Whether a JPEG is all there. Decoders fill what is missing with grey and say nothing; Pillow refuses.

/// Walks the markers (ITU-T T.81, annex B) up to the one that ends the picture. What follows it, such as the further
/// pictures that cameras append, doesn't matter; nor do whole JPEGs inside a segment, such as thumbnails.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xD9;
    // Behind the start-of-image marker.
    let mut at = 2;
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            END_OF_IMAGE => return true,
            // Stuffed zeros and restart markers of a scan, and markers without a segment.
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            _ => {
                let Some([high, low]) = bytes.get(at..at + 2) else { return false };
                at += usize::from(u16::from_be_bytes([*high, *low])).max(2);
            }
        }
    }
    false
}

/// The byte behind the next 0xFF, past fill bytes, with `at` behind it.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let found = bytes.get(*at..)?.iter().position(|&byte| byte == 0xFF)?;
        *at += found + 1;
        let marker = *bytes.get(*at)?;
        if marker != 0xFF {
            *at += 1;
            return Some(marker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    const ROCKET: &[u8] = include_bytes!("../../../../tests/fixtures/images/rocket.jpg");

    #[test]
    fn a_jpeg_cut_anywhere_is_not_whole() {
        assert!(is_whole(ROCKET));
        assert!(is_whole(&[ROCKET, b"and more behind it"].concat()));
        for cut in (0..ROCKET.len() - 2).step_by(997).chain([ROCKET.len() - 2, ROCKET.len() - 1]) {
            assert!(!is_whole(&ROCKET[..cut]), "{cut} bytes");
        }
    }

    #[test]
    fn a_whole_thumbnail_does_not_make_a_whole_picture() {
        // An APP1 segment of ten bytes that ends in an end-of-image marker.
        let segment = b"\xFF\xD8\xFF\xE1\x00\x0Aab\xFF\xD8cd\xFF\xD9";
        assert!(is_whole(&[&segment[..], &ROCKET[2..]].concat()));
        assert!(!is_whole(&[&segment[..], &ROCKET[2..ROCKET.len() / 2]].concat()));
    }
}
