//! Parity with diffusers: the same tensors, stage by stage, and the same picture.
//!
//! The reference is `tests/fixtures/reference/`, made by `tests/fixtures/make_reference.py` on the tiny checkpoints of
//! `tests/fixtures/models/`. `components` feeds each network the reference's own inputs and compares what comes out;
//! `pipelines` runs whole requests and compares every tensor on the way; `matrix` does the same with a larger folder
//! of cases and writes a table. `words` compares the states that prompts become with `tests/fixtures/prompts/`. Each failure names the first tensor that differs, in the order of computation.
//!
//! | variable | meaning |
//! |---|---|
//! | `INFILL_TEST_DEVICE` | `cpu` (default), `cuda`, `cuda:N` or `metal` |
//! | `INFILL_TEST_DTYPE` | `f32` (default), `f16` or `bf16` |
//! | `INFILL_PARITY_DIR` | a folder with `models/`, `images/` and `ref/` for `matrix`; the test passes without it |
//! | `INFILL_PARITY_TABLE` | where `matrix` writes its table |
//! | `INFILL_PARITY_ONLY` | cases of `matrix` whose names contain this |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, unreachable_pub)]

mod case;
mod compare;
mod components;
mod image_encoder;
mod image_prompts;
mod matrix;
mod pipelines;
mod words;
