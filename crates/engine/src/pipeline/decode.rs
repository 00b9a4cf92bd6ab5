//! Latents to pixels.

use infill_networks::{DType, Device, Tensor};

use super::encode::passage;
use super::{Observer, Pipeline};
use crate::device::dtype_name;
use crate::geometry::Size;
use crate::image::denormalized;
use crate::request::InpaintRequest;
use crate::{Error, Result};
use image::RgbImage;

impl Pipeline {
    /// `(B,4,h,w)` scaled latents to B pictures of 8h x 8w pixels.
    pub(super) fn decode_latents(
        &self,
        request: &InpaintRequest,
        latents: &Tensor,
        observer: &mut Observer<'_>,
    ) -> Result<Vec<RgbImage>> {
        let z = (latents / self.vae.config().scaling_factor)?.to_dtype(self.vae_dtype)?;
        observer.tap("vae_dec/z", &z);
        let passage = passage(request, observer);
        let image = self.vae.decode(&z, &passage)?;
        observer.tap("vae_dec/image", &image);
        let image = image.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        let (batch, _, height, width) = image.dims4()?;
        let size = Size { width: width as u32, height: height as u32 };
        let picture = |i| {
            let values = image.get(i)?.flatten_all()?.to_vec1::<f32>()?;
            // Taken for a colour, they would be black.
            if values.iter().any(|value| value.is_nan()) {
                return Err(Error::NoNumbers { dtype: dtype_name(self.dtype) });
            }
            denormalized(&values, size)
        };
        (0..batch).map(picture).collect()
    }
}
