//! CLIP (Radford et al. 2021, arXiv 2103.00020), as transformers' `modeling_clip.py` runs it.

mod encoder;
pub mod text;
pub mod vision;
