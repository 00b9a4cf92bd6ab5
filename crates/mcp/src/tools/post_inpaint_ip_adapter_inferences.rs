//! `post-inpaint-ip-adapter-inferences`: repaint the white part of a mask after reference pictures.
//!
//! Name and input schema are the reference server's (pasie15/scenario.com-mcp-server 2.0.1), served as they are.

use super::Definition;

pub(super) const DEFINITION: Definition = Definition {
    name: "post-inpaint-ip-adapter-inferences",
    title: "Inpaint a picture after a reference picture",
    description: "Trigger a new image generation in Inpaint + IpAdapter mode. The mask indicates the area to inpaint in the reference image, and the second reference image is used as an IPAdapter to guide the inpainting.

Repaints the white part of `mask` in `image` so that it looks like the reference pictures, as `prompt` says; every pixel \
in the black part comes back unchanged unless `disableMerging` is true. Use it where a picture shows better than words \
how the new part should look: a material, a manner of drawing, a garment, a figure. Don't use it where words are \
enough (post-inpaint-inferences needs no adapter), nor to paste the reference in unchanged: it guides, it is not copied.

Give 1 to 32 references in `ipAdapterImages` (any source), `ipAdapterImageIds` (asset ids), or both: all are used, in \
this order. Each is seen whole, whatever the mask. `ipAdapterScales` has one number for all or one for each, from 0 (as \
if it were not there) to 1; 0.9 without it. `ipAdapterType` style, the default, takes over colours, material and manner; \
character takes over the whole look. The model's adapter must be on this machine: where it is not, the refusal names \
the files. References add a moment for each and little to each step.",
    reference: include_str!("post-inpaint-ip-adapter-inferences.tool.json"),
    output: include_str!("post-inpaint-ip-adapter-inferences.output.json"),
};
