//! Where things lie: the crop of the picture, the size at which networks work, and the way back. Integers only.

use std::ops::RangeInclusive;

use crate::{Error, Result};

/// The VAE's scale: work sizes are multiples of it.
pub const STEP: u32 = 8;
/// The smallest side of a work size.
pub const MIN_SIDE: u32 = 64;
/// The largest side of a work size.
pub const MAX_SIDE: u32 = 4096;

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// The first column.
    pub x: u32,
    /// The first row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Rect {
    /// The whole of something of this size.
    pub fn whole(size: Size) -> Self {
        Self { x: 0, y: 0, width: size.width, height: size.height }
    }

    /// Width and height.
    pub fn size(&self) -> Size {
        Size { width: self.width, height: self.height }
    }
}

/// How a picture becomes a work picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The picture's size.
    pub picture: Size,
    /// The part of the picture that is worked on.
    pub crop: Rect,
    /// The size at which networks work: multiples of 8.
    pub work: Size,
    /// Where the resized crop lies in the work picture: all of it, unless the two differ in shape.
    pub placement: Rect,
}

impl Plan {
    /// The whole picture, resized to `width` x `height`; a side that isn't given is the picture's own, rounded to the
    /// nearest multiple of 8 and, in its proportions, kept within 64..=4096.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for a side that isn't a multiple of 8 from 64 to 4096.
    pub fn whole(picture: Size, width: Option<u32>, height: Option<u32>) -> Result<Self> {
        let work = work_size(picture, width, height)?;
        Ok(Self { picture, crop: Rect::whole(picture), work, placement: Rect::whole(work) })
    }

    /// The part of the picture around `painted`, which holds every pixel to repaint: `padding` pixels wider on each side,
    /// then grown towards the shape of the work size as far as the picture reaches.
    /// (`VaeImageProcessor.get_crop_region` in diffusers/image_processor.py)
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for a side that isn't a multiple of 8 from 64 to 4096, and if `painted` is empty or not within
    /// the picture.
    pub fn around(
        picture: Size,
        painted: Rect,
        padding: u32,
        width: Option<u32>,
        height: Option<u32>,
    ) -> Result<Self> {
        let work = work_size(picture, width, height)?;
        let right = u64::from(painted.x) + u64::from(painted.width);
        let bottom = u64::from(painted.y) + u64::from(painted.height);
        if painted.width == 0
            || painted.height == 0
            || right > u64::from(picture.width)
            || bottom > u64::from(picture.height)
        {
            return Err(Error::Refused {
                field: "mask",
                value: format!(
                    "{} x {} pixels at {}, {}",
                    painted.width, painted.height, painted.x, painted.y
                ),
                allowed: format!("a part of a picture of {} x {}", picture.width, picture.height),
            });
        }
        let columns = Span::new(painted.x, painted.width, picture.width).padded(padding);
        let rows = Span::new(painted.y, painted.height, picture.height).padded(padding);
        let crop_shape = columns.length() as f64 / rows.length() as f64;
        let work_shape = f64::from(work.width) / f64::from(work.height);
        let (columns, rows) = if crop_shape > work_shape {
            (columns, rows.grown(columns.length() as f64 / work_shape))
        } else {
            (columns.grown(rows.length() as f64 * work_shape), rows)
        };
        let crop = Rect {
            x: columns.start as u32,
            y: rows.start as u32,
            width: columns.length() as u32,
            height: rows.length() as u32,
        };
        Ok(Self { picture, crop, work, placement: placement(crop.size(), work) })
    }

    /// Whether the crop is the whole picture and fills the work size.
    pub fn is_whole(&self) -> bool {
        self.crop == Rect::whole(self.picture) && self.placement == Rect::whole(self.work)
    }

    /// The size of the latents.
    pub fn latents(&self) -> Size {
        Size { width: self.work.width / STEP, height: self.work.height / STEP }
    }
}

/// A stretch of the picture's columns or rows.
#[derive(Clone, Copy)]
struct Span {
    start: i64,
    end: i64,
    limit: i64,
}

impl Span {
    fn new(start: u32, length: u32, limit: u32) -> Self {
        let start = i64::from(start);
        Self { start, end: start + i64::from(length), limit: i64::from(limit) }
    }

    fn length(self) -> i64 {
        self.end - self.start
    }

    fn padded(self, padding: u32) -> Self {
        let padding = i64::from(padding);
        Self { start: (self.start - padding).max(0), end: (self.end + padding).min(self.limit), ..self }
    }

    /// Grown to about `length` on both sides, shifted where it would leave the picture, cut where it still would.
    fn grown(self, length: f64) -> Self {
        let growth = (length - self.length() as f64) as i64;
        let mut start = self.start - growth / 2;
        let mut end = self.end + (growth - growth / 2);
        let beyond = (end - self.limit).max(0);
        end -= beyond;
        start -= beyond;
        if start < 0 {
            end = (end - start).min(self.limit);
            start = 0;
        }
        Self { start, end, ..self }
    }
}

/// Where a crop resized to fit into the work size, its shape kept, lies in its middle.
/// (`VaeImageProcessor._resize_and_fill` in diffusers/image_processor.py)
fn placement(crop: Size, work: Size) -> Rect {
    let scaled = |side: u32, by: u32, of: u32| {
        let side = u64::from(side) * u64::from(by) / u64::from(of);
        // A crop much longer than it is wide still has a line of pixels.
        side.clamp(1, u64::from(MAX_SIDE)) as u32
    };
    let crop_is_wider =
        u64::from(work.width) * u64::from(crop.height) < u64::from(crop.width) * u64::from(work.height);
    let (width, height) = if crop_is_wider {
        (work.width, scaled(crop.height, work.width, crop.width))
    } else {
        (scaled(crop.width, work.height, crop.height), work.height)
    };
    Rect { x: work.width / 2 - width / 2, y: work.height / 2 - height / 2, width, height }
}

/// The picture's own size, brought within `sides` in its own proportions as far as that goes, in multiples of 8.
pub fn own_work_size(picture: Size, sides: &RangeInclusive<u32>) -> Size {
    let (least, most) = (f64::from(*sides.start()), f64::from(*sides.end()));
    let (width, height) = (f64::from(picture.width), f64::from(picture.height));
    let scale = (least / width.min(height)).max(1.0).min(most / width.max(height));
    let step = f64::from(STEP);
    let side = |side: f64| ((side * scale / step + 0.5).floor() * step).clamp(least, most) as u32;
    Size { width: side(width), height: side(height) }
}

fn work_size(picture: Size, width: Option<u32>, height: Option<u32>) -> Result<Size> {
    let own = own_work_size(picture, &(MIN_SIDE..=MAX_SIDE));
    Ok(Size {
        width: work_side("width", width, own.width)?,
        height: work_side("height", height, own.height)?,
    })
}

fn work_side(field: &'static str, asked: Option<u32>, own: u32) -> Result<u32> {
    match asked {
        None => Ok(own),
        Some(side) if side.is_multiple_of(STEP) && (MIN_SIDE..=MAX_SIDE).contains(&side) => Ok(side),
        Some(side) => Err(Error::Refused {
            field,
            value: side.to_string(),
            allowed: format!("a multiple of {STEP} from {MIN_SIDE} to {MAX_SIDE}"),
        }),
    }
}

/// A note where a whole picture is worked on in other proportions than its own, which squeezes what is in it.
pub fn other_proportions(picture: Size, work: Size) -> Option<String> {
    let ratio = f64::from(picture.width) * f64::from(work.height)
        / (f64::from(picture.height) * f64::from(work.width));
    let same = (0.95..=1.05).contains(&ratio);
    (!same).then(|| {
        format!(
            "the picture is {}x{} pixels and was squeezed to {}x{} to work on; width and height in its proportions \
             give a better result",
            picture.width, picture.height, work.width, work.height
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn the_own_size_is_rounded_to_the_nearest_multiple_of_8() {
        let plan = Plan::whole(size(515, 516), None, None).unwrap();
        assert_eq!(plan.work, size(512, 520));
        assert_eq!(plan.latents(), size(64, 65));
        assert_eq!(Plan::whole(size(1, 9000), None, None).unwrap().work, size(64, 4096));
        assert_eq!(Plan::whole(size(5000, 3000), None, None).unwrap().work, size(4096, 2456));
        assert_eq!(Plan::whole(size(30, 45), None, None).unwrap().work, size(64, 96));
    }

    #[test]
    fn a_side_must_be_a_multiple_of_8_within_bounds() {
        for side in [0, 56, 63, 100, 4104, u32::MAX] {
            let error = Plan::whole(size(512, 512), Some(side), None).unwrap_err().to_string();
            assert_eq!(error, format!("width is {side}; allowed: a multiple of 8 from 64 to 4096"));
        }
    }

    /// Values of `get_crop_region(mask, width, height, pad)` and of the paste box of `_resize_and_fill`, from diffusers
    /// 0.42.1.
    #[test]
    fn crops_equal_diffusers() {
        let cases = include_str!("../../../tests/fixtures/resize/crops.json");
        let cases: Vec<Vec<u32>> = serde_json::from_str(cases).unwrap();
        assert!(cases.len() > 100);
        for case in cases {
            let [
                w,
                h,
                x,
                y,
                mask_w,
                mask_h,
                padding,
                work_w,
                work_h,
                left,
                top,
                right,
                bottom,
                px,
                py,
                pw,
                ph,
            ] = case[..]
            else {
                unreachable!("a case has 17 numbers");
            };
            let painted = Rect { x, y, width: mask_w, height: mask_h };
            let plan = Plan::around(size(w, h), painted, padding, Some(work_w), Some(work_h)).unwrap();
            let crop = Rect { x: left, y: top, width: right - left, height: bottom - top };
            assert_eq!(plan.crop, crop, "{case:?}");
            assert_eq!(plan.placement, Rect { x: px, y: py, width: pw, height: ph }, "{case:?}");
        }
    }

    proptest! {
        #[test]
        fn a_crop_holds_the_mask_and_lies_within_the_picture(
            (w, h) in (1_u32..3000, 1_u32..3000),
            (fx, fy, fw, fh) in (0.0_f64..1.0, 0.0_f64..1.0, 0.0_f64..1.0, 0.0_f64..1.0),
            padding in 0_u32..400,
            (work_w, work_h) in (8_u32..=512, 8_u32..=512),
        ) {
            let (x, y) = ((f64::from(w) * fx) as u32, (f64::from(h) * fy) as u32);
            let (x, y) = (x.min(w - 1), y.min(h - 1));
            let width = 1 + (f64::from(w - x - 1) * fw) as u32;
            let height = 1 + (f64::from(h - y - 1) * fh) as u32;
            let painted = Rect { x, y, width, height };
            let plan =
                Plan::around(size(w, h), painted, padding, Some(work_w * 8), Some(work_h * 8)).unwrap();
            let crop = plan.crop;
            prop_assert!(crop.x <= x && crop.x + crop.width >= x + width);
            prop_assert!(crop.y <= y && crop.y + crop.height >= y + height);
            prop_assert!(crop.x + crop.width <= w && crop.y + crop.height <= h);
            let place = plan.placement;
            prop_assert!(place.width > 0 && place.height > 0);
            prop_assert!(place.x + place.width <= plan.work.width);
            prop_assert!(place.y + place.height <= plan.work.height);
            prop_assert!(place.width == plan.work.width || place.height == plan.work.height);
        }

        #[test]
        fn a_whole_plan_has_a_work_size_for_every_picture((w, h) in (1_u32.., 1_u32..)) {
            let plan = Plan::whole(size(w, h), None, None).unwrap();
            for side in [plan.work.width, plan.work.height] {
                prop_assert!(side % STEP == 0 && (MIN_SIDE..=MAX_SIDE).contains(&side));
            }
            prop_assert!(plan.is_whole());
        }
    }
}
