//! Does the built-in model paint what is asked? Measured on pictures that it has never seen, by a checker that looks at
//! pixels alone.
//!
//! `scene` draws pictures with a known truth, `tasks` makes holes and words, `look` names what is in a hole, `suite` runs
//! the model and counts. `scripts/evaluate` drives the whole suite; a small part of it is a test like any other.
//!
//! | variable | meaning |
//! |---|---|
//! | `INFILL_EVALUATE` | how many prompts the whole suite has; it is left out without it |
//! | `INFILL_EVALUATE_MODEL` | a model's folder instead of the built-in model |
//! | `INFILL_EVALUATE_OUT` | a folder for sheets of what went wrong |
//! | `INFILL_EVALUATE_TABLE` | where the table is written |
//! | `INFILL_EVALUATE_SIZE`, `..._STEPS` | the side of the pictures (512) and the steps (12) |
//! | `INFILL_EVALUATE_PARTS` | some of `objects empties references strengths`, with spaces between; all without it |
//! | `INFILL_EVALUATE_GUIDANCE` | the guidance, in place of the default |
//! | `INFILL_TEST_DEVICE`, `INFILL_TEST_DTYPE` | as for the parity tests |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, unreachable_pub)]

mod look;
mod look_tests;
mod painter;
mod parity;
mod random;
mod scene;
mod shapes;
mod suite;
mod tasks;
