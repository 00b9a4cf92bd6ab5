// Layer normalisation (Ba et al., arXiv 1607.06450): one warp a row, which stays in the first-level cache between the
// three readings of it.
#include "common.cuh"

constexpr int ROWS = 4;

// `visit(value, column)` of this lane's elements of the row, always in the same order.
template <typename T, bool WIDE, typename F>
__device__ __forceinline__ void each(const T* row, uint32_t width, F visit) {
    constexpr int RUN = WIDE ? Pack<T>::COUNT : 1;
    for (uint32_t at = threadIdx.x % 32 * RUN; at < width; at += 32 * RUN) {
        if constexpr (WIDE) {
            const Pack<T> pack = load_pack(row + at);
#pragma unroll
            for (int e = 0; e < RUN; ++e) {
                visit(widen(pack.at[e]), at + e);
            }
        } else {
            visit(widen(row[at]), at);
        }
    }
}

// WIDE: all four addresses and the width are multiples of a pack.
template <typename T, bool WIDE>
__device__ void normalise(const T* x, const T* weight, const T* bias, T* out, uint32_t rows, uint32_t width,
                          float eps) {
    const uint32_t row_index = blockIdx.x * ROWS + threadIdx.x / 32;
    if (row_index >= rows) {
        return;
    }
    const T* row = x + size_t(row_index) * width;
    const float size = float(width);
    float sum = 0.0f;
    each<T, WIDE>(row, width, [&](float value, uint32_t) { sum += value; });
    const float guess = warp_sum(sum) / size;
    float off = 0.0f, square = 0.0f;
    each<T, WIDE>(row, width, [&](float value, uint32_t) {
        const float d = value - guess;
        off += d;
        square += d * d;
    });
    off = warp_sum(off);
    square = warp_sum(square);
    // The mean once more, from the deviations: far from zero the first sum has lost digits.
    const float correction = off / size;
    const float mean = guess + correction;
    const float deviation = 1.0f / sqrtf(fmaxf(square - off * correction, 0.0f) / size + eps);

    T* out_row = out + size_t(row_index) * width;
    constexpr int RUN = WIDE ? Pack<T>::COUNT : 1;
    for (uint32_t at = threadIdx.x % 32 * RUN; at < width; at += 32 * RUN) {
        if constexpr (WIDE) {
            const Pack<T> values = load_pack(row + at), scales = load_pack(weight + at), shifts = load_pack(bias + at);
            Pack<T> pack;
#pragma unroll
            for (int e = 0; e < RUN; ++e) {
                const float y = (widen(values.at[e]) - mean) * deviation * widen(scales.at[e]) + widen(shifts.at[e]);
                pack.at[e] = narrow<T>(y);
            }
            store_pack(out_row + at, pack);
        } else {
            out_row[at] = narrow<T>((widen(row[at]) - mean) * deviation * widen(weight[at]) + widen(bias[at]));
        }
    }
}

#define LAYER_NORM(NAME, T, WIDE)                                                                                      \
    extern "C" __global__ void __launch_bounds__(32 * ROWS)                                                            \
        NAME(const T* x, const T* weight, const T* bias, T* out, uint32_t rows, uint32_t width, float eps) {           \
        normalise<T, WIDE>(x, weight, bias, out, rows, width, eps);                                                    \
    }

LAYER_NORM(layer_norm_wide_f32, float, true)
LAYER_NORM(layer_norm_any_f32, float, false)
LAYER_NORM(layer_norm_wide_f16, half, true)
LAYER_NORM(layer_norm_any_f16, half, false)
LAYER_NORM(layer_norm_wide_bf16, bf16, true)
LAYER_NORM(layer_norm_any_bf16, bf16, false)
