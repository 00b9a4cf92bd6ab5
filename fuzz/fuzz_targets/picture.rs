//! A photograph from anywhere: decoded within the limits, or refused.
#![no_main]

use infill_engine::image::{Limits, Picture};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(picture) = Picture::decode(bytes, &Limits::default()) {
        let rgb = picture.to_rgb8();
        assert_eq!(rgb.dimensions(), (picture.size().width, picture.size().height));
    }
});
