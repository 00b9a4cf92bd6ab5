//! A mask from anywhere.
#![no_main]

use infill_engine::image::Limits;
use infill_engine::mask::Mask;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(mask) = Mask::decode(bytes, &Limits::default()) {
        let size = mask.size();
        assert!(size.width > 0 && size.height > 0);
    }
});
