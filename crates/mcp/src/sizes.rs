//! The sizes that the tools allow, narrower than the engine's.

use std::ops::RangeInclusive;

use infill_models::Family;

/// The tool's own range of width and height, narrower than the engine's, and the kind of model that has it.
pub(crate) fn sides(family: Family) -> (RangeInclusive<u32>, &'static str) {
    match family {
        Family::StableDiffusion => (64..=1024, "an SD 1.5 model"),
        Family::StableDiffusionXl | Family::StableDiffusionXlRefiner => (512..=2048, "an SDXL model"),
    }
}

#[cfg(test)]
mod tests {
    use infill_engine::geometry::{Size, own_work_size};

    use super::*;

    fn work(width: u32, height: u32, family: Family) -> (u32, u32) {
        let size = own_work_size(Size { width, height }, &sides(family).0);
        (size.width, size.height)
    }

    #[test]
    fn the_own_size_is_brought_within_the_range_in_its_proportions() {
        assert_eq!(work(1000, 702, Family::StableDiffusion), (1000, 704));
        assert_eq!(work(4000, 3000, Family::StableDiffusion), (1024, 768));
        assert_eq!(work(300, 200, Family::StableDiffusionXl), (768, 512));
        assert_eq!(work(6000, 4000, Family::StableDiffusionXl), (2048, 1368));
        assert_eq!(work(9000, 100, Family::StableDiffusionXl), (2048, 512));
        assert_eq!(work(10, 10, Family::StableDiffusion), (64, 64));
    }
}
