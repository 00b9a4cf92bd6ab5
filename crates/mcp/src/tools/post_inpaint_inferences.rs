//! `post-inpaint-inferences`: repaint the white part of a mask.
//!
//! Name and input schema are the reference server's (pasie15/scenario.com-mcp-server 2.0.1), served as they are.

use super::Definition;

pub(super) const DEFINITION: Definition = Definition {
    name: "post-inpaint-inferences",
    title: "Inpaint a picture",
    description: "Trigger a new image generation in Inpaint mode. The mask indicates the area to inpaint in the reference image.

Paints where `mask` is white in `image` as `prompt` says. Use it to remove, replace or add something in an existing \
picture. Don't use it to make a picture from nothing, or to change a whole picture without a mask; where another picture \
shows how the new part should look, use post-inpaint-ip-adapter-inferences.",
    reference: include_str!("post-inpaint-inferences.tool.json"),
    output: include_str!("post-inpaint-inferences.output.json"),
};
