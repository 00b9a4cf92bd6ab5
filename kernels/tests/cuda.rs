//! The CUDA paths against the CPU's, which `src/` holds against the naive loops.
//!
//! | variable | meaning |
//! |---|---|
//! | `INFILL_TEST_DEVICE` | `cuda`: a device must open. Not set: where none opens, the tests say so and end. |
//!
//! f32 is compared with f32. f16 and bf16 are compared with what the CPU makes of the same rounded inputs in f32: a
//! kernel that sums in f32 and rounds once stays within a unit in the last place of the largest value.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic)]

use std::sync::OnceLock;

use candle_core::{DType, Device, Result, Tensor};
use infill_kernels as kernels;

#[path = "../src/testing.rs"]
#[allow(dead_code)]
mod testing;

use testing::{noise, values};

const FORMATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

fn device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let open = || match kernels::cuda_device(0) {
        Ok(device) => Some(device),
        Err(error) => {
            let required = std::env::var("INFILL_TEST_DEVICE").is_ok_and(|name| name.starts_with("cuda"));
            assert!(!required, "INFILL_TEST_DEVICE asks for CUDA: {error}");
            None
        }
    };
    let device = DEVICE.get_or_init(open).as_ref();
    if device.is_none() {
        eprintln!("skipped: no CUDA device opens here");
    }
    device
}

/// What may be lost, relative to the largest value: a unit in the last place of a half format, and `f32` of f32.
fn tolerance(dtype: DType, f32: f32) -> f32 {
    match dtype {
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
        _ => f32,
    }
}

/// Largest difference, relative to the largest expected magnitude, is within `tolerance`.
fn assert_near(what: &str, actual: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(actual.dims(), expected.dims(), "{what}");
    let (actual, expected) = (values(actual), values(expected));
    let scale = expected.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
    let mut worst = (0f32, 0);
    for (i, (a, e)) in actual.iter().zip(&expected).enumerate() {
        let off = (a - e).abs() / scale;
        // What is not a number is the worst.
        if off > worst.0 || off.is_nan() {
            worst = (off, i);
        }
        if off.is_nan() {
            break;
        }
    }
    let (off, i) = worst;
    eprintln!("{what}: {off:.1e}");
    assert!(off <= tolerance, "{what}: element {i} is {}, expected {}: {off:.1e}", actual[i], expected[i]);
}

/// `op` on the CUDA device, in each format and on each view of the inputs, against the CPU; and a second time, which must
/// give the same bytes.
fn compare(what: &str, inputs: &[Tensor], f32: f32, op: impl Fn(&[Tensor]) -> Result<Tensor>) {
    compare_in(&FORMATS, what, inputs, |dtype| tolerance(dtype, f32), op);
}

fn compare_in(
    formats: &[DType],
    what: &str,
    inputs: &[Tensor],
    tolerance: impl Fn(DType) -> f32,
    op: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let Some(device) = device() else { return };
    for &dtype in formats {
        let rounded: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(dtype).unwrap()).collect();
        let wide: Vec<Tensor> = rounded.iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect();
        let own: Vec<Tensor> = rounded.iter().map(|t| t.to_device(device).unwrap()).collect();
        let (out, again) = (op(&own).unwrap(), op(&own).unwrap());
        assert_eq!(out.dtype(), dtype, "{what}");
        let what = format!("{what} {dtype:?}");
        assert_near(&what, &out, &op(&wide).unwrap(), tolerance(dtype));
        let bits = |t: &Tensor| values(t).iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        assert!(bits(&out) == bits(&again), "{what}: the second call gave other bytes");
    }
}

fn scaled(shape: &[usize], seed: u64, factor: f64, shift: f64) -> Tensor {
    noise(shape, seed).affine(factor, shift).unwrap()
}

#[test]
fn group_norm() {
    let shapes: [(&[usize], usize); 22] = [
        (&[2, 320, 128, 128], 32),
        (&[2, 640, 64, 64], 32),
        (&[2, 960, 64, 64], 32),
        (&[2, 1280, 32, 32], 32),
        (&[2, 2560, 16, 16], 32),
        (&[2, 1920, 8, 8], 32),
        (&[1, 128, 512, 512], 32),
        (&[1, 256, 256, 256], 32),
        (&[1, 512, 64, 64], 32),
        (&[1, 1, 1500, 1501], 1),
        (&[2, 8, 5, 7], 4),
        (&[1, 16, 3, 3], 8),
        (&[3, 32, 1, 1], 8),
        (&[2, 32, 9, 11], 4),
        (&[2, 32, 6, 2], 4),
        (&[1, 30, 13, 17], 5),
        (&[2, 4, 1, 1], 4),
        (&[2, 320, 77], 32),
        (&[2, 64, 32, 32], 8),
        (&[1, 2, 64, 64], 1),
        (&[1, 2, 64, 65], 1),
        (&[5, 24], 3),
    ];
    for (shape, groups) in shapes {
        let channels = shape[1];
        let inputs = [scaled(shape, 1, 2.0, 0.5), noise(&[channels], 2), noise(&[channels], 3)];
        let what = format!("group_norm {shape:?} {groups}");
        compare(&what, &inputs, 5e-6, |t| kernels::group_norm(&t[0], &t[1], &t[2], groups, 1e-5));
        let what = format!("group_norm_silu {shape:?} {groups}");
        compare(&what, &inputs, 5e-6, |t| kernels::group_norm_silu(&t[0], &t[1], &t[2], groups, 1e-5));
    }
}

#[test]
fn group_norm_far_from_zero() {
    let inputs = [scaled(&[1, 4, 500, 500], 3, 1.0, 64.0), scaled(&[4], 1, 0.0, 1.0), noise(&[4], 2)];
    compare_in(
        &[DType::F32],
        "group_norm far",
        &inputs,
        |_| 2e-5,
        |t| kernels::group_norm(&t[0], &t[1], &t[2], 2, 1e-6),
    );
}

#[test]
fn group_norm_of_views() {
    let (weight, bias) = (noise(&[8], 2), noise(&[8], 3));
    // An odd offset, a slice of the channels, and a permutation.
    let inputs = [noise(&[3, 8, 7, 3], 1), weight.clone(), bias.clone()];
    compare("group_norm offset", &inputs, 5e-6, |t| {
        kernels::group_norm(&t[0].narrow(0, 1, 2)?, &t[1], &t[2], 4, 1e-5)
    });
    let inputs = [noise(&[2, 13, 8, 8], 1), noise(&[9], 2), noise(&[9], 3)];
    compare("group_norm narrowed", &inputs, 5e-6, |t| {
        let (weight, bias) = (t[1].narrow(0, 1, 8)?, t[2].narrow(0, 1, 8)?);
        kernels::group_norm_silu(&t[0].narrow(1, 3, 8)?, &weight, &bias, 2, 1e-5)
    });
    let inputs = [noise(&[2, 6, 5, 8], 1), weight, bias];
    compare("group_norm permuted", &inputs, 5e-6, |t| {
        kernels::group_norm(&t[0].permute((0, 3, 1, 2))?, &t[1], &t[2], 4, 1e-5)
    });
}

#[test]
fn parameters_of_another_format() {
    let Some(device) = device() else { return };
    let (x, w, b) = (noise(&[2, 8, 4, 4], 1), noise(&[8], 2), noise(&[8], 3));
    let half = |t: &Tensor| t.to_dtype(DType::F16).unwrap();
    let wide = |t: &Tensor| half(t).to_dtype(DType::F32).unwrap();
    let own = |t: &Tensor| t.to_device(device).unwrap();
    let expected = kernels::group_norm(&x, &wide(&w), &wide(&b), 4, 1e-5).unwrap();
    let out = kernels::group_norm(&own(&x), &own(&half(&w)), &own(&half(&b)), 4, 1e-5).unwrap();
    assert_near("f32 with f16 parameters", &out, &expected, 5e-6);
    let expected = kernels::group_norm(&wide(&x), &w, &b, 4, 1e-5).unwrap();
    let out = kernels::group_norm(&own(&half(&x)), &own(&w), &own(&b), 4, 1e-5).unwrap();
    assert_near("f16 with f32 parameters", &out, &expected, 1e-3);
}

#[test]
fn layer_norm() {
    let shapes: [&[usize]; 13] = [
        &[2, 4096, 640],
        &[2, 1024, 1280],
        &[2, 4096, 320],
        &[2, 77, 768],
        &[1, 77, 2048],
        &[257, 1280],
        &[1, 1],
        &[3, 5],
        &[5, 33],
        &[7, 8],
        &[2, 3, 48],
        &[2, 4099],
        &[1, 10000],
    ];
    for shape in shapes {
        let width = *shape.last().unwrap();
        let inputs = [scaled(shape, 1, 3.0, 5.0), noise(&[width], 2), noise(&[width], 3)];
        let what = format!("layer_norm {shape:?}");
        compare(&what, &inputs, 5e-6, |t| kernels::layer_norm(&t[0], &t[1], &t[2], 1e-5));
    }
    let inputs = [noise(&[3, 7, 9], 1), noise(&[10], 2), noise(&[10], 3)];
    compare("layer_norm offset", &inputs, 5e-6, |t| {
        let (weight, bias) = (t[1].narrow(0, 1, 9)?, t[2].narrow(0, 1, 9)?);
        kernels::layer_norm(&t[0].narrow(0, 1, 2)?, &weight, &bias, 1e-5)
    });
    let inputs = [noise(&[2, 24, 6], 1), noise(&[24], 2), noise(&[24], 3)];
    compare("layer_norm transposed", &inputs, 5e-6, |t| {
        kernels::layer_norm(&t[0].transpose(1, 2)?, &t[1], &t[2], 1e-5)
    });
}

#[test]
fn geglu() {
    let shapes: [&[usize]; 8] = [
        &[2, 4096, 5120],
        &[1, 1024, 10240],
        &[2, 4096, 2560],
        &[3, 7, 2],
        &[1, 5, 66],
        &[2, 77, 40],
        &[1, 16],
        &[300, 48],
    ];
    for shape in shapes {
        compare(&format!("geglu {shape:?}"), &[scaled(shape, 1, 4.0, 0.0)], 2e-6, |t| kernels::geglu(&t[0]));
    }
    compare("geglu offset", &[noise(&[3, 7, 6], 1)], 2e-6, |t| kernels::geglu(&t[0].narrow(0, 1, 2)?));
    compare("geglu narrowed", &[noise(&[3, 7, 40], 1)], 2e-6, |t| kernels::geglu(&t[0].narrow(2, 3, 32)?));
}

/// B, heads, N, M, D.
type Attended = (usize, usize, usize, usize, usize);

/// Heads split from the channels, as the networks give them.
fn split(t: &Tensor) -> Result<Tensor> {
    t.transpose(1, 2)
}

fn attended((batch, heads, n, m, size): Attended) -> [Tensor; 3] {
    // Scores of some spread, so that a wrong maximum shows.
    let q = scaled(&[batch, n, heads, size], 1, 3.0, 0.0);
    [q, scaled(&[batch, m, heads, size], 2, 3.0, 0.0), noise(&[batch, m, heads, size], 3)]
}

#[test]
fn attention() {
    let mut shapes: Vec<Attended> = vec![
        (1, 10, 4096, 4096, 64),
        (2, 10, 4096, 77, 64),
        (2, 20, 1024, 1024, 64),
        (2, 8, 4096, 4096, 40),
        (2, 8, 4096, 77, 40),
        (2, 8, 1024, 1024, 80),
        (2, 8, 256, 256, 160),
        (2, 8, 64, 77, 160),
        (1, 4, 1000, 1000, 128),
        (1, 2, 333, 4, 64),
    ];
    for size in [8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 96, 128, 136, 160] {
        for (n, m) in [(1, 1), (1, 77), (17, 77), (64, 64), (65, 63), (128, 129), (200, 1), (129, 257)] {
            shapes.push((2, 3, n, m, size));
        }
    }
    for shape in shapes {
        let scale = (shape.4 as f32).sqrt().recip();
        // In f32 ten times what torch's own f32 is away from f64 at the first of these shapes.
        compare(&format!("attention {shape:?}"), &attended(shape), 2.9e-5, |t| {
            kernels::attention(&split(&t[0])?, &split(&t[1])?, &split(&t[2])?, scale, None)
        });
    }
}

#[test]
fn attention_of_views() {
    let shape = (2, 3, 70, 77, 64);
    compare("attention contiguous", &attended(shape), 1e-5, |t| {
        let own = |t: &Tensor| split(t)?.contiguous();
        kernels::attention(&own(&t[0])?, &own(&t[1])?, &own(&t[2])?, 0.1, None)
    });
    // Keys and values out of one projection, as the resampler makes them.
    let inputs = [noise(&[2, 70, 3 * 64], 1), noise(&[2, 77, 6 * 64], 2)];
    compare("attention of halves", &inputs, 1e-5, |t| {
        let heads = |t: &Tensor| t.reshape((2, t.dim(1)?, 3, 64))?.transpose(1, 2);
        let kv = t[1].chunk(2, 2)?;
        kernels::attention(&heads(&t[0])?, &heads(&kv[0])?, &heads(&kv[1])?, 0.3, None)
    });
    // Rows at odd addresses, which have to be copied.
    let inputs = [noise(&[1, 2, 9, 41], 1), noise(&[1, 2, 30, 43], 2), noise(&[1, 2, 30, 41], 3)];
    compare("attention at odd offsets", &inputs, 1e-5, |t| {
        let [q, k, v] = [t[0].narrow(3, 1, 40)?, t[1].narrow(3, 3, 40)?, t[2].narrow(3, 0, 40)?];
        kernels::attention(&q, &k, &v, 0.2, None)
    });
    // Rows cut out of longer tensors, and one set of keys for both pictures.
    let inputs = [noise(&[2, 3, 50, 40], 1), noise(&[1, 3, 40, 40], 2), noise(&[1, 3, 40, 40], 3)];
    compare("attention narrowed", &inputs, 1e-5, |t| {
        let keys = |t: &Tensor| t.narrow(2, 5, 31)?.broadcast_as((2, 3, 31, 40));
        kernels::attention(&t[0].narrow(2, 7, 33)?, &keys(&t[1])?, &keys(&t[2])?, 0.2, None)
    });
}

#[test]
fn attention_without_a_kernel_runs_composed() {
    let loose = |dtype| match dtype {
        DType::F16 => 2e-2,
        DType::BF16 => 1e-1,
        _ => 2e-5,
    };
    for shape in [(1, 2, 33, 20, 12), (1, 1, 256, 256, 512), (1, 2, 20, 30, 7)] {
        let scale = (shape.4 as f32).sqrt().recip();
        compare_in(&FORMATS, &format!("attention {shape:?}"), &attended(shape), loose, |t| {
            kernels::attention(&split(&t[0])?, &split(&t[1])?, &split(&t[2])?, scale, None)
        });
    }
    let [q, k, v] = attended((2, 3, 20, 30, 64));
    compare_in(&FORMATS, "attention masked", &[q, k, v, noise(&[1, 1, 20, 30], 4)], loose, |t| {
        kernels::attention(&split(&t[0])?, &split(&t[1])?, &split(&t[2])?, 0.12, Some(&t[3]))
    });
}

/// B, C, O, H, W, kernel, stride, padding.
type Convolved = (usize, usize, usize, usize, usize, usize, usize, usize);

#[test]
fn conv2d() {
    let shapes: [Convolved; 22] = [
        (2, 4, 320, 64, 64, 3, 1, 1),
        (2, 9, 320, 64, 64, 3, 1, 1),
        (2, 320, 320, 64, 64, 3, 1, 1),
        (2, 320, 4, 64, 64, 3, 1, 1),
        (1, 640, 640, 32, 32, 3, 1, 1),
        (1, 1280, 1280, 16, 16, 3, 1, 1),
        (1, 2560, 1280, 8, 8, 1, 1, 0),
        (2, 320, 640, 32, 32, 1, 1, 0),
        (2, 320, 320, 64, 64, 3, 2, 1),
        // The VAE's: one row and one column of zeros were added by the caller.
        (1, 128, 128, 129, 129, 3, 2, 0),
        (1, 3, 128, 128, 128, 3, 1, 1),
        (1, 128, 128, 256, 256, 3, 1, 1),
        (1, 128, 3, 128, 128, 3, 1, 1),
        (1, 512, 512, 64, 64, 3, 1, 1),
        (1, 4, 4, 64, 64, 1, 1, 0),
        (1, 8, 8, 64, 64, 1, 1, 0),
        (1, 3, 1280, 28, 28, 14, 14, 0),
        (1, 8, 16, 9, 7, 3, 1, 1),
        (2, 5, 3, 11, 13, 3, 2, 1),
        (1, 16, 32, 8, 8, 3, 1, 1),
        (1, 1, 1, 1, 1, 1, 1, 0),
        (1, 7, 9, 3, 3, 3, 1, 0),
    ];
    // A bias that is added to a rounded sum is rounded once more.
    let tolerance = |dtype| match dtype {
        DType::F16 => 1.5e-3,
        DType::BF16 => 1.2e-2,
        _ => 1e-5,
    };
    for shape in shapes {
        let (batch, channels, outputs, height, width, kernel, stride, padding) = shape;
        let weight = noise(&[outputs, channels, kernel, kernel], 2);
        let inputs = [noise(&[batch, channels, height, width], 1), weight, noise(&[outputs], 3)];
        compare_in(&FORMATS, &format!("conv2d {shape:?}"), &inputs, tolerance, |t| {
            kernels::conv2d(&t[0], &t[1], Some(&t[2]), stride, padding)
        });
        compare_in(&FORMATS, &format!("conv2d {shape:?} no bias"), &inputs, tolerance, |t| {
            kernels::conv2d(&t[0], &t[1], None, stride, padding)
        });
    }
    let inputs = [noise(&[1, 9, 12, 6], 1), noise(&[5, 6, 3, 3], 2), noise(&[6], 3)];
    compare_in(&FORMATS, "conv2d of views", &inputs, tolerance, |t| {
        let x = t[0].permute((0, 3, 1, 2))?;
        kernels::conv2d(&x, &t[1], Some(&t[2].narrow(0, 1, 5)?), 1, 1)
    });
}

/// Fresh memory may hold anything: what is not a number must not come through a factor of zero.
#[test]
fn conv2d_into_memory_that_held_no_numbers() {
    let Some(device) = device() else { return };
    for dtype in FORMATS {
        let own = |t: Tensor| t.to_dtype(dtype).unwrap().to_device(device).unwrap();
        let (x, w, b) =
            (own(noise(&[2, 32, 40, 40], 1)), own(noise(&[64, 32, 3, 3], 2)), own(noise(&[64], 3)));
        for _ in 0..8 {
            let nothing = own(Tensor::full(f32::NAN, (2, 64, 40, 40), &Device::Cpu).unwrap());
            drop(nothing);
            let out = kernels::conv2d(&x, &w, Some(&b), 1, 1).unwrap();
            assert!(values(&out).iter().all(|x| x.is_finite()), "{dtype:?}");
        }
    }
}

#[test]
fn what_candle_does_on_the_device() {
    let loose = |dtype| match dtype {
        DType::F16 => 4e-3,
        DType::BF16 => 3e-2,
        _ => 1e-5,
    };
    let inputs = [noise(&[2, 77, 640], 1), noise(&[320, 640], 2), noise(&[320], 3)];
    compare_in(&FORMATS, "linear", &inputs, loose, |t| kernels::linear(&t[0], &t[1], Some(&t[2])));
    let inputs = [scaled(&[3, 1000], 1, 6.0, 0.0)];
    compare_in(&FORMATS, "silu", &inputs, loose, |t| kernels::silu(&t[0]));
    compare_in(&FORMATS, "gelu_erf", &inputs, loose, |t| kernels::gelu_erf(&t[0]));
    compare_in(&FORMATS, "quick_gelu", &inputs, loose, |t| kernels::quick_gelu(&t[0]));
    let inputs = [noise(&[2, 3, 9, 7], 1)];
    compare_in(&FORMATS, "upsample_nearest2x", &inputs, |_| 0.0, |t| kernels::upsample_nearest2x(&t[0]));
    compare_in(&FORMATS, "upsample_nearest", &inputs, |_| 0.0, |t| kernels::upsample_nearest(&t[0], 17, 13));
}
