//! Every operation with a CUDA kernel, at the shapes of SDXL (1024 x 1024) and SD 1.5 (512 x 512) with guidance, in f16:
//! candle's generic operations beside ours, and what ours reaches.
//!
//! Needs a CUDA device and nothing else. Each time is the median of 20 after a warm-up; both are run in lots long
//! enough that the launches don't count alone.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

use candle_core::{D, DType, Device, Result, Tensor};
use infill_kernels as kernels;

const RUNS: usize = 20;
/// Calls between two synchronisations.
const LOT: usize = 10;

/// What a call does, for the last column.
enum Work {
    /// Floating-point operations.
    Operations(f64),
    /// Bytes read and written at least.
    Bytes(f64),
}

struct Bench {
    device: Device,
    filter: Option<String>,
}

impl Bench {
    fn noise(&self, shape: &[usize]) -> Tensor {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| ((i * 7919 % 2003) as f32) / 1001.0 - 1.0).collect();
        let host = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        host.to_dtype(DType::F16).unwrap().to_device(&self.device).unwrap()
    }

    /// Microseconds of one call, or `None` where it fails (the scores of composed attention may not fit).
    fn time(&self, call: &dyn Fn() -> Result<Tensor>) -> Option<f64> {
        for _ in 0..3 {
            call().ok()?;
        }
        self.device.synchronize().ok()?;
        let mut times: Vec<f64> = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..LOT {
                    call().ok()?;
                }
                self.device.synchronize().ok()?;
                Some(start.elapsed().as_secs_f64() * 1e6 / LOT as f64)
            })
            .collect::<Option<_>>()?;
        times.sort_by(f64::total_cmp);
        Some(times[RUNS / 2])
    }

    fn row(
        &self,
        operation: &str,
        shape: &str,
        work: &Work,
        composed: &dyn Fn() -> Result<Tensor>,
        own: &dyn Fn() -> Result<Tensor>,
    ) {
        if self.filter.as_ref().is_some_and(|filter| !operation.contains(filter.as_str())) {
            return;
        }
        let text = |time: Option<f64>| time.map_or("failed".into(), |t| format!("{t:.1}"));
        let (before, after) = (self.time(composed), self.time(own));
        let reached = after.map_or(String::new(), |after| match work {
            Work::Operations(count) => format!("{:.1} TFLOP/s", count / after / 1e6),
            Work::Bytes(count) => format!("{:.0} GB/s", count / after / 1e3),
        });
        println!("| {operation} | {shape} | {} | {} | {reached} |", text(before), text(after));
    }

    fn group_norm(&self) {
        let shapes = [
            ("sdxl down 0", 2, 320, 128),
            ("sdxl down 1", 2, 640, 64),
            ("sdxl mid", 2, 1280, 32),
            ("sdxl up 0", 2, 2560, 32),
            ("sd15 down 0", 2, 320, 64),
            ("sd15 mid", 2, 1280, 8),
            ("vae 1024 last", 1, 128, 1024),
            ("vae 512 last", 1, 128, 512),
        ];
        for (name, batch, channels, side) in shapes {
            let x = self.noise(&[batch, channels, side, side]);
            let (weight, bias) = (self.noise(&[channels]), self.noise(&[channels]));
            self.row(
                "group_norm_silu",
                &format!("{name}: {batch}x{channels}x{side}x{side}"),
                &Work::Bytes(4.0 * x.elem_count() as f64),
                &|| composed_group_norm(&x, &weight, &bias)?.silu()?.to_dtype(DType::F16),
                &|| kernels::group_norm_silu(&x, &weight, &bias, 32, 1e-5),
            );
        }
    }

    fn layer_norm(&self) {
        for (name, tokens, width) in
            [("sdxl 640", 4096, 640), ("sdxl 1280", 1024, 1280), ("sd15 320", 4096, 320)]
        {
            let x = self.noise(&[2, tokens, width]);
            let (weight, bias) = (self.noise(&[width]), self.noise(&[width]));
            self.row(
                "layer_norm",
                &format!("{name}: 2x{tokens}x{width}"),
                &Work::Bytes(4.0 * x.elem_count() as f64),
                &|| composed_layer_norm(&x, &weight, &bias)?.to_dtype(DType::F16),
                &|| kernels::layer_norm(&x, &weight, &bias, 1e-5),
            );
        }
    }

    fn geglu(&self) {
        for (name, tokens, width) in
            [("sdxl 640", 4096, 2560), ("sdxl 1280", 1024, 5120), ("sd15 320", 4096, 1280)]
        {
            let x = self.noise(&[2, tokens, 2 * width]);
            self.row(
                "geglu",
                &format!("{name}: 2x{tokens}x{width}"),
                &Work::Bytes(3.0 * x.elem_count() as f64),
                &|| x.narrow(2, 0, width)? * x.narrow(2, width, width)?.gelu_erf()?,
                &|| kernels::geglu(&x),
            );
        }
    }

    fn attention(&self) {
        let shapes = [
            ("sdxl 640 self", 10, 4096, 4096, 64),
            ("sdxl 640 text", 10, 4096, 77, 64),
            ("sdxl 1280 self", 20, 1024, 1024, 64),
            ("sdxl 1280 text", 20, 1024, 77, 64),
            ("sd15 320 self", 8, 4096, 4096, 40),
            ("sd15 320 text", 8, 4096, 77, 40),
            ("sd15 640 self", 8, 1024, 1024, 80),
            ("sd15 1280 self", 8, 256, 256, 160),
            ("head 128", 8, 4096, 4096, 128),
        ];
        for (name, heads, queries, keys, size) in shapes {
            let heads_of = |rows| self.noise(&[2, rows, heads, size]).transpose(1, 2).unwrap();
            let (q, k, v) = (heads_of(queries), heads_of(keys), heads_of(keys));
            let scale = (size as f32).sqrt().recip();
            // As the caller goes on: the heads side by side again.
            let joined = |out: Tensor| out.transpose(1, 2)?.reshape((2, queries, heads * size));
            self.row(
                "attention",
                &format!("{name}: 2x{heads}x{queries}x{keys}x{size}"),
                &Work::Operations(8.0 * (heads * queries * keys * size) as f64),
                &|| joined(composed_attention(&q, &k, &v, scale)?),
                &|| joined(kernels::attention(&q, &k, &v, scale, None)?),
            );
        }
    }

    fn conv2d(&self) {
        let shapes = [
            ("sdxl in", 2, 9, 320, 128, 3, 1),
            ("sdxl down 0", 2, 320, 320, 128, 3, 1),
            ("sdxl down 0 stride 2", 2, 320, 320, 128, 3, 2),
            ("sdxl down 1", 2, 640, 640, 64, 3, 1),
            ("sdxl mid", 2, 1280, 1280, 32, 3, 1),
            ("sdxl up 0", 2, 2560, 1280, 32, 3, 1),
            ("sdxl up 0 shortcut", 2, 2560, 1280, 32, 1, 1),
            ("sdxl up 2", 2, 960, 320, 128, 3, 1),
            ("sdxl out", 2, 320, 4, 128, 3, 1),
            ("sd15 down 0", 2, 320, 320, 64, 3, 1),
            ("sd15 mid", 2, 1280, 1280, 8, 3, 1),
            ("sd15 proj_in", 2, 320, 320, 64, 1, 1),
            ("vae 512 last", 1, 128, 128, 512, 3, 1),
            ("vae 1024 last", 1, 128, 128, 1024, 3, 1),
        ];
        for (name, batch, inputs, outputs, side, kernel, stride) in shapes {
            let x = self.noise(&[batch, inputs, side, side]);
            let weight = self.noise(&[outputs, inputs, kernel, kernel]);
            let bias = self.noise(&[outputs]);
            let positions = (side / stride) * (side / stride);
            let work = 2.0 * (batch * inputs * outputs * positions * kernel * kernel) as f64;
            let shape = format!("{name}: {batch}x{inputs}->{outputs} {side}x{side} {kernel}x{kernel}");
            let composed = || {
                let out = x.conv2d(&weight, kernel / 2, stride, 1, 1)?;
                out.broadcast_add(&bias.reshape((1, outputs, 1, 1))?)
            };
            let own = || kernels::conv2d(&x, &weight, Some(&bias), stride, kernel / 2);
            self.row("conv2d", &shape, &Work::Operations(work), &composed, &own);
            let bare = || kernels::conv2d(&x, &weight, None, stride, kernel / 2);
            let composed = || x.conv2d(&weight, kernel / 2, stride, 1, 1);
            self.row("conv2d no bias", &shape, &Work::Operations(work), &composed, &bare);
        }
    }
}

fn composed_group_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (batch, channels) = (x.dim(0)?, x.dim(1)?);
    let wide = |t: &Tensor| t.to_dtype(DType::F32);
    let rows = wide(x)?.reshape((batch, 32, ()))?;
    let centred = rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred
        .broadcast_div(&(variance + 1e-5)?.sqrt()?)?
        .reshape((batch, channels, ()))?
        .broadcast_mul(&wide(weight)?.reshape((1, channels, 1))?)?
        .broadcast_add(&wide(bias)?.reshape((1, channels, 1))?)?
        .reshape(x.shape())
}

fn composed_layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let wide = |t: &Tensor| t.to_dtype(DType::F32);
    let x = wide(x)?;
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + 1e-5)?.sqrt()?)?;
    normed.broadcast_mul(&wide(weight)?)?.broadcast_add(&wide(bias)?)
}

/// With the whole matrix of scores, one picture at a time.
fn composed_attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32) -> Result<Tensor> {
    let q = (q * f64::from(scale))?.contiguous()?;
    let (k, v) = (k.contiguous()?, v.contiguous()?);
    let one = |i: usize| {
        let (q, k, v) = (q.narrow(0, i, 1)?, k.narrow(0, i, 1)?, v.narrow(0, i, 1)?);
        let scores = q.matmul(&k.transpose(D::Minus2, D::Minus1)?)?.to_dtype(DType::F32)?;
        candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(v.dtype())?.matmul(&v)
    };
    Tensor::cat(&(0..q.dim(0)?).map(one).collect::<Result<Vec<_>>>()?, 0)
}

fn main() {
    let device = match kernels::cuda_device(0) {
        Ok(device) => device,
        Err(error) => {
            println!("no CUDA device opens: {error}");
            std::process::exit(1);
        }
    };
    // cargo bench passes `--bench`.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let bench = Bench { device, filter };
    println!("| operation | shape (f16) | composed, us | own, us | own reaches |");
    println!("|---|---|---|---|---|");
    bench.group_norm();
    bench.layer_norm();
    bench.geglu();
    bench.attention();
    bench.conv2d();
}
