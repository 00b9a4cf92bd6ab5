//! Masks: white is repainted, black stays.
//!
//! A mask is brought to any size by one function, [`Mask::to_size`], in the order of diffusers' mask processor: resized
//! in the kind it was stored in (Lanczos; nearest neighbour for one bit per pixel and for a palette), then turned to
//! grey, then binarised at one half. (`VaeImageProcessor` with `do_binarize` and `do_convert_grayscale` in diffusers/image_processor.py)

use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};

use crate::Result;
use crate::geometry::{Plan, Rect, Size};
use crate::image::{Filter, Limits, crop_resize_fill, decode, resize, to_rgb8};

/// The least grey value that is repainted: 128 / 255 is the first that is not below one half.
const WHITE: u8 = 128;

/// A mask as decoded.
#[derive(Clone, Debug)]
pub struct Mask {
    samples: Samples,
    /// How it is resized.
    filter: Filter,
}

/// A mask's pixels; those in colour turn grey once they are resized.
#[derive(Clone, Debug)]
enum Samples {
    Grey(GrayImage),
    Colour(RgbImage),
}

impl Mask {
    /// Decodes PNG, JPEG or WebP. A palette is looked up, of 16 bits the upper 8 are taken. Alpha is dropped, as Pillow's
    /// `convert("L")` drops it, but a pixel that is fully transparent is black, whatever colour its writer left there:
    /// nobody sees it, and some programs leave white.
    ///
    /// # Errors
    ///
    /// As for [`Picture::decode`](crate::image::Picture::decode).
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let decoded = decode(bytes, limits, "mask")?;
        let mut colours = to_rgb8(&decoded.pixels);
        for (colour, _) in colours.pixels_mut().zip(hidden(&decoded.pixels)).filter(|(_, hidden)| *hidden) {
            *colour = Rgb([0; 3]);
        }
        let samples = match decoded.pixels.color().has_color() {
            true => Samples::Colour(colours),
            false => Samples::Grey(first_channel(&colours)),
        };
        Ok(Self { samples, filter: if decoded.nearest { Filter::Nearest } else { Filter::Lanczos } })
    }

    /// A mask of grey values: 128 and above are repainted.
    pub fn from_luma8(samples: GrayImage) -> Self {
        Self { samples: Samples::Grey(samples), filter: Filter::Lanczos }
    }

    /// Width and height in pixels.
    pub fn size(&self) -> Size {
        let (width, height) = match &self.samples {
            Samples::Grey(image) => image.dimensions(),
            Samples::Colour(image) => image.dimensions(),
        };
        Size { width, height }
    }

    /// The grey values at a size.
    pub fn to_size(&self, size: Size) -> GrayImage {
        let Size { width, height } = size;
        match &self.samples {
            Samples::Grey(image) => resize(image, width, height, self.filter),
            Samples::Colour(image) => luma(&resize(image, width, height, self.filter)),
        }
    }

    /// The mask at the plan's work size: cropped, resized and completed as the picture is, and binarised. A mask of
    /// another size than the picture's is brought to the picture's first if there is something to crop.
    pub fn to_work(&self, plan: &Plan) -> BinaryMask {
        if plan.is_whole() {
            return BinaryMask::from_luma(&self.to_size(plan.work));
        }
        if self.size() != plan.picture {
            let resized = Self::from_luma8(self.to_size(plan.picture));
            return resized.to_work(plan);
        }
        BinaryMask::from_luma(&match &self.samples {
            Samples::Grey(image) => crop_resize_fill(image, plan, self.filter),
            Samples::Colour(image) => luma(&crop_resize_fill(image, plan, self.filter)),
        })
    }

    /// The smallest rectangle with every pixel that isn't black once the mask has the given size; `None` if all are.
    /// This is what a crop goes around. It may hold more than what is repainted.
    pub fn bounds(&self, size: Size) -> Option<Rect> {
        bounds(&self.to_size(size), 1)
    }

    /// Whether no pixel is to be repainted.
    pub fn is_empty(&self) -> bool {
        bounds(&self.to_size(self.size()), WHITE).is_none()
    }
}

/// A mask of zeros and ones; 1 is repainted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinaryMask {
    size: Size,
    /// Row by row.
    repaint: Vec<bool>,
}

impl BinaryMask {
    /// The mask of grey values of one half and above.
    pub fn from_luma(image: &GrayImage) -> Self {
        let size = Size { width: image.width(), height: image.height() };
        Self { size, repaint: image.as_raw().iter().map(|value| *value >= WHITE).collect() }
    }

    /// Width and height.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Row by row, whether a pixel is repainted.
    pub fn repaint(&self) -> &[bool] {
        &self.repaint
    }

    /// Whether no pixel is repainted.
    pub fn is_empty(&self) -> bool {
        !self.repaint.contains(&true)
    }

    /// `(1, 1, H, W)` values 0 and 1.
    pub fn values(&self) -> Vec<f32> {
        self.repaint.iter().map(|repaint| f32::from(u8::from(*repaint))).collect()
    }

    /// `(1, 1, h, w)` values at the size of the latents, by the nearest neighbour that lies up and left.
    /// (`torch.nn.functional.interpolate` with mode "nearest")
    pub fn to_latents(&self, height: u32, width: u32) -> Vec<f32> {
        let positions = |old: u32, new: u32| {
            let scale = old as f32 / new as f32;
            (0..new).map(move |i| ((i as f32 * scale) as u32).min(old.saturating_sub(1)) as usize)
        };
        let columns: Vec<usize> = positions(self.size.width, width).collect();
        let row_length = self.size.width as usize;
        positions(self.size.height, height)
            .flat_map(|row| columns.iter().map(move |column| row * row_length + column))
            .map(|at| f32::from(u8::from(self.repaint[at])))
            .collect()
    }
}

/// Row by row, whether a pixel is fully transparent; nothing of a picture without alpha.
fn hidden(pixels: &DynamicImage) -> Vec<bool> {
    match pixels {
        DynamicImage::ImageLumaA8(image) => image.pixels().map(|pixel| pixel[1] == 0).collect(),
        DynamicImage::ImageLumaA16(image) => image.pixels().map(|pixel| pixel[1] == 0).collect(),
        DynamicImage::ImageRgba8(image) => image.pixels().map(|pixel| pixel[3] == 0).collect(),
        DynamicImage::ImageRgba16(image) => image.pixels().map(|pixel| pixel[3] == 0).collect(),
        _ => Vec::new(),
    }
}

/// Of colours that are grey.
fn first_channel(colours: &RgbImage) -> GrayImage {
    GrayImage::from_fn(colours.width(), colours.height(), |x, y| Luma([colours.get_pixel(x, y)[0]]))
}

/// ITU-R 601-2 luma in Pillow's fixed point. (`L24` in src/libImaging/Convert.c)
fn luma(image: &RgbImage) -> GrayImage {
    GrayImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b] = image.get_pixel(x, y).0.map(u32::from);
        Luma([((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8])
    })
}

/// The smallest rectangle with every pixel of at least `least`.
fn bounds(image: &GrayImage, least: u8) -> Option<Rect> {
    let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
    for (x, y, pixel) in image.enumerate_pixels() {
        if pixel[0] >= least {
            left = left.min(x);
            top = top.min(y);
            right = right.max(x + 1);
            bottom = bottom.max(y + 1);
        }
    }
    (right > left).then(|| Rect { x: left, y: top, width: right - left, height: bottom - top })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Of each kind with alpha: a transparent pixel is black, and all others count by their colour alone.
    #[test]
    fn what_nobody_sees_is_not_white() {
        use image::{ImageFormat, RgbaImage};

        // White and hidden; white and hardly there; white; black and hidden; black and hardly there; black.
        let pixels = [(255, 0), (255, 1), (255, 255), (0, 0), (0, 1), (0, 255)];
        let rgba = RgbaImage::from_fn(6, 1, |x, _| {
            let (grey, alpha) = pixels[x as usize];
            image::Rgba([grey, grey, grey, alpha])
        });
        let rgba = DynamicImage::from(rgba);
        let kinds: [DynamicImage; 4] = [
            rgba.to_luma_alpha8().into(),
            rgba.to_luma_alpha16().into(),
            rgba.to_rgba16().into(),
            rgba.clone(),
        ];
        for kind in kinds {
            let mut png = std::io::Cursor::new(Vec::new());
            kind.write_to(&mut png, ImageFormat::Png).unwrap();
            let mask = Mask::decode(&png.into_inner(), &Limits::default()).unwrap();
            let grey = mask.to_size(mask.size());
            assert_eq!(grey.as_raw(), &[0, 255, 255, 0, 0, 0], "{:?}", kind.color());
        }
    }

    /// Against Pillow 13: `Image.open(mask).resize((8, 5), LANCZOS).convert("L")`, which takes the nearest for a palette.
    #[test]
    fn a_mask_of_a_palette_is_resized_by_its_nearest_pixels() {
        // 3 x 2 pixels, 0 1 2 over 1 0 2, of black, white and orange.
        const PNG: [u8; 90] = [
            137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 3, 0, 0, 0, 2, 2, 3, 0, 0,
            0, 224, 26, 142, 137, 0, 0, 0, 9, 80, 76, 84, 69, 0, 0, 0, 255, 255, 255, 200, 90, 40, 153, 155,
            89, 173, 0, 0, 0, 12, 73, 68, 65, 84, 120, 156, 99, 144, 96, 50, 0, 0, 0, 128, 0, 75, 164, 158,
            24, 131, 0, 0, 0, 0, 73, 69, 78, 68, 174, 66, 96, 130,
        ];
        let mask = Mask::decode(&PNG, &Limits::default()).unwrap();
        let (first, second) = ([0, 0, 0, 255, 255, 117, 117, 117], [255, 255, 255, 0, 0, 117, 117, 117]);
        let resized = mask.to_size(Size { width: 8, height: 5 });
        assert_eq!(resized.as_raw(), &[first, first, second, second, second].concat());
    }
}
