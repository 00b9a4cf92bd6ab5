//! `post-inpaint-ip-adapter-inferences`: repaint the white part of a mask after reference pictures.
//!
//! Name and input schema are the reference server's (pasie15/scenario.com-mcp-server 2.0.1), served as they are.

use super::Definition;

pub(super) const DEFINITION: Definition = Definition {
    name: "post-inpaint-ip-adapter-inferences",
    title: "Inpaint a picture after a reference picture",
    description: "Trigger a new image generation in Inpaint + IpAdapter mode. The mask indicates the area to inpaint in the reference image, and the second reference image is used as an IPAdapter to guide the inpainting.

Paints where `mask` is white in `image` as `prompt` says, so that it looks like reference pictures. Use it where a picture \
shows better than words how the new part should look: a material, a manner of drawing, a garment, a figure. Don't use it \
where words are enough (post-inpaint-inferences needs no adapter), nor to paste a reference in unchanged: it guides, it is \
not copied.

References: 1 to 32, in ipAdapterImages (given as image is), ipAdapterImageIds (asset ids) or both, in this order; each is \
seen whole, whatever the mask. ipAdapterScales: one number for all or one for each, from 0 (not there) to 1, 0.9 without \
it. ipAdapterType: style (default) takes over colours, material and manner, character the whole look. ipAdapterImage, \
ipAdapterImageId, ipAdapterScale: deprecated, for one reference. The model's adapter must be on this machine: where it is \
not, the refusal names the files.",
    reference: include_str!("post-inpaint-ip-adapter-inferences.tool.json"),
    output: include_str!("post-inpaint-ip-adapter-inferences.output.json"),
};
