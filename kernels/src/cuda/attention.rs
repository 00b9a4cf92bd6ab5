//! `cuda/attention.cu`: attention that never holds its matrix of scores.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{
    DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::{CudaDType, CudaStorage, WrapErr};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use half::{bf16, f16};

use super::launch::{Source, function};
use super::{suffix, takes, wide};

const THREADS: u32 = 128;

/// What a block takes of the kernel for heads of at most `width` elements, as at the end of `cuda/attention.cu`.
struct Kernel {
    width: usize,
    queries: usize,
    keys: usize,
}

const KERNELS: [Kernel; 6] = [
    Kernel { width: 32, queries: 128, keys: 64 },
    Kernel { width: 48, queries: 128, keys: 64 },
    Kernel { width: 64, queries: 128, keys: 64 },
    Kernel { width: 80, queries: 128, keys: 32 },
    Kernel { width: 128, queries: 64, keys: 64 },
    Kernel { width: 160, queries: 64, keys: 32 },
];

impl Kernel {
    fn of(size: usize) -> Option<&'static Self> {
        KERNELS.iter().find(|kernel| size <= kernel.width)
    }

    /// Bytes: the queries, and two lots of keys and of values, in rows of `width` and eight elements.
    fn shared(&self) -> u32 {
        ((self.queries + 4 * self.keys) * (self.width + 8) * 2) as u32
    }
}

/// Whether the kernel takes these: f16 or bf16, heads of a multiple of 8 up to 160, a scale above zero.
pub(crate) fn fits(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32) -> bool {
    let (&[batch, heads, queries, size], &[k_batch, k_heads, keys, k_size]) = (q.dims(), k.dims()) else {
        return false;
    };
    let counts = i32::MAX as usize / 2;
    takes(q)
        && q.dtype() != DType::F32
        && [k, v].iter().all(|t| t.device().is_cuda() && t.dtype() == q.dtype())
        && v.dims() == k.dims()
        && (k_batch, k_heads, k_size) == (batch, heads, size)
        && size > 0
        && size.is_multiple_of(8)
        && Kernel::of(size).is_some()
        && (1..=65535).contains(&(batch * heads))
        && (1..=counts).contains(&queries)
        && (1..=counts).contains(&keys)
        && scale > 0.0
        && scale.is_finite()
}

/// `q` (B, heads, N, D), `k` and `v` (B, heads, M, D) to (B, heads, N, D): a transposed view of (B, N, heads, D), in which
/// the heads of a token lie side by side, as the caller wants them next.
pub(crate) fn forward(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32) -> Result<Tensor> {
    let rows = |t: &Tensor| if reads(t) { Ok(t.clone()) } else { t.contiguous() };
    rows(q)?.apply_op3_no_bwd(&rows(k)?, &rows(v)?, &Attention { scale })?.transpose(1, 2)
}

/// Whether the kernel can read this tensor where it lies: every row of a head in one piece, at a multiple of 16 bytes.
fn reads(t: &Tensor) -> bool {
    let layout = t.layout();
    let &[picture, head, row, element] = layout.stride() else { return false };
    element == 1 && wide(t.dtype().size_in_bytes(), &[layout.start_offset(), picture, head, row])
}

struct Attention {
    scale: f32,
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("attention: this is the path of CUDA devices")
    }

    fn cuda_fwd(
        &self,
        q: &CudaStorage,
        q_at: &Layout,
        k: &CudaStorage,
        k_at: &Layout,
        v: &CudaStorage,
        v_at: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        match q.dtype() {
            DType::F16 => self.run::<f16>((q, q_at), (k, k_at), (v, v_at)),
            DType::BF16 => self.run::<bf16>((q, q_at), (k, k_at), (v, v_at)),
            other => bail!("attention: f16 or bf16 is needed, not {other:?}"),
        }
    }
}

/// Elements between two pictures, two heads and two rows: `Strides` of `cuda/attention.cu`.
#[repr(C)]
struct Strides {
    picture: i64,
    head: i64,
    row: i64,
}

impl Strides {
    fn of(layout: &Layout) -> Result<Self> {
        let &[picture, head, row, _] = layout.stride() else {
            bail!("attention: four dimensions are needed")
        };
        Ok(Self { picture: picture as i64, head: head as i64, row: row as i64 })
    }
}

/// `Arguments` of `cuda/attention.cu`, field by field.
#[repr(C)]
struct Arguments {
    q: u64,
    k: u64,
    v: u64,
    out: u64,
    q_at: Strides,
    k_at: Strides,
    v_at: Strides,
    queries: i32,
    keys: i32,
    heads: i32,
    size: i32,
    scale: f32,
}

// SAFETY: plain numbers in C's layout, and the kernel declares the same struct.
#[allow(unsafe_code)]
unsafe impl DeviceRepr for Arguments {}

/// A tensor's storage and where it lies in it.
type Operand<'a> = (&'a CudaStorage, &'a Layout);

impl Attention {
    fn run<T: WithDType + CudaDType + DeviceRepr>(
        &self,
        (q, q_at): Operand<'_>,
        (k, k_at): Operand<'_>,
        (v, v_at): Operand<'_>,
    ) -> Result<(CudaStorage, Shape)> {
        let device = q.device();
        let (batch, heads, queries, size) = q_at.shape().dims4()?;
        let keys = k_at.dims()[2];
        let Some(kernel) = Kernel::of(size) else { bail!("attention: heads of {size} elements") };
        let name = format!("attention_{}_{}", kernel.width, suffix(T::DTYPE)?);
        let function = function(device, Source::Attention, name, kernel.shared())?;
        let shape = Shape::from((batch, queries, heads, size));
        // SAFETY: the kernel writes every element before anyone reads one.
        #[allow(unsafe_code)]
        let mut out = unsafe { device.alloc::<T>(shape.elem_count())? };
        let q = q.as_cuda_slice::<T>()?.slice(q_at.start_offset()..);
        let k = k.as_cuda_slice::<T>()?.slice(k_at.start_offset()..);
        let v = v.as_cuda_slice::<T>()?.slice(v_at.start_offset()..);
        let stream = device.cuda_stream();
        // The guards tell other streams what is read and written here, and when.
        let (q, _q_guard) = q.device_ptr(&stream);
        let (k, _k_guard) = k.device_ptr(&stream);
        let (v, _v_guard) = v.device_ptr(&stream);
        let (to, to_guard) = out.device_ptr_mut(&stream);
        let arguments = Arguments {
            q,
            k,
            v,
            out: to,
            q_at: Strides::of(q_at)?,
            k_at: Strides::of(k_at)?,
            v_at: Strides::of(v_at)?,
            queries: queries as i32,
            keys: keys as i32,
            heads: heads as i32,
            size: size as i32,
            scale: self.scale * std::f32::consts::LOG2_E,
        };
        let config = LaunchConfig {
            grid_dim: (queries.div_ceil(kernel.queries) as u32, (batch * heads) as u32, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: kernel.shared(),
        };
        let mut builder = stream.launch_builder(&function);
        builder.arg(&arguments);
        // SAFETY: the argument is that of the kernel. It reads rows of `size` elements of q, k and v inside their shapes
        // and strides, 16 bytes at a time (`reads` has seen to the alignment), and writes the elements of `out`.
        #[allow(unsafe_code)]
        unsafe {
            builder.launch(config).w()?;
        }
        drop(to_guard);
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_fits_into_the_shared_memory_of_every_card_since_ampere() {
        for kernel in &KERNELS {
            assert!(kernel.shared() <= 99 << 10, "{}: {}", kernel.width, kernel.shared());
            assert_eq!(kernel.width % 16, 0);
        }
    }

    #[test]
    fn the_arguments_lie_as_in_c() {
        assert_eq!(size_of::<Arguments>(), 128);
        assert_eq!(std::mem::offset_of!(Arguments, queries), 104);
    }
}
