// What is done element by element: the gated linear unit, and the biases of convolutions and linear layers.
#include "common.cuh"

constexpr int THREADS = 256;

// GEGLU (Shazeer, arXiv 2002.05202) with the exact GELU: x (rows, 2 width), out (rows, width). A thread makes one pack
// (WIDE: addresses and width are multiples of one) or one element; `count` of them are made.
template <typename T, bool WIDE> __device__ void geglu(const T* x, T* out, uint32_t count, uint32_t width) {
    constexpr int RUN = WIDE ? Pack<T>::COUNT : 1;
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) {
        return;
    }
    const uint32_t per_row = width / RUN;
    const uint32_t row = i / per_row, column = i % per_row * RUN;
    const T* values = x + size_t(row) * 2 * width + column;
    const T* gates = values + width;
    T* to = out + size_t(i) * RUN;
    const auto gated = [](T value, T gate) {
        const float g = widen(gate);
        return narrow<T>(widen(value) * (0.5f * g * (1.0f + erff(g * 0.70710678118654752440f))));
    };
    if constexpr (WIDE) {
        const Pack<T> value = load_pack(values), gate = load_pack(gates);
        Pack<T> pack;
#pragma unroll
        for (int e = 0; e < RUN; ++e) {
            pack.at[e] = gated(value.at[e], gate.at[e]);
        }
        store_pack(to, pack);
    } else {
        *to = gated(*values, *gates);
    }
}

// out (pictures, channels, plane) += bias (channels). WIDE: out's address and the plane are multiples of a pack.
template <typename T, bool WIDE>
__device__ void add_bias(T* out, const T* bias, uint32_t count, uint32_t channels, uint32_t plane) {
    constexpr int RUN = WIDE ? Pack<T>::COUNT : 1;
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) {
        return;
    }
    const float shift = widen(bias[i / (plane / RUN) % channels]);
    T* at = out + size_t(i) * RUN;
    if constexpr (WIDE) {
        Pack<T> pack = load_pack(at);
#pragma unroll
        for (int e = 0; e < RUN; ++e) {
            pack.at[e] = narrow<T>(widen(pack.at[e]) + shift);
        }
        store_pack(at, pack);
    } else {
        *at = narrow<T>(widen(*at) + shift);
    }
}

// out (rows, width) += bias (width). WIDE: the addresses and the width are multiples of a pack.
template <typename T, bool WIDE>
__device__ void add_row(T* out, const T* bias, uint32_t count, uint32_t width) {
    constexpr int RUN = WIDE ? Pack<T>::COUNT : 1;
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) {
        return;
    }
    const T* shifts = bias + i % (width / RUN) * RUN;
    T* at = out + size_t(i) * RUN;
    if constexpr (WIDE) {
        const Pack<T> shift = load_pack(shifts);
        Pack<T> pack = load_pack(at);
#pragma unroll
        for (int e = 0; e < RUN; ++e) {
            pack.at[e] = narrow<T>(widen(pack.at[e]) + widen(shift.at[e]));
        }
        store_pack(at, pack);
    } else {
        *at = narrow<T>(widen(*at) + widen(*shifts));
    }
}

#define FORMAT(SUFFIX, T, WIDTH, WIDE)                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        geglu_##WIDTH##_##SUFFIX(const T* x, T* out, uint32_t count, uint32_t width) {                                 \
        geglu<T, WIDE>(x, out, count, width);                                                                          \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        add_bias_##WIDTH##_##SUFFIX(T* out, const T* bias, uint32_t count, uint32_t channels, uint32_t plane) {        \
        add_bias<T, WIDE>(out, bias, count, channels, plane);                                                          \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        add_row_##WIDTH##_##SUFFIX(T* out, const T* bias, uint32_t count, uint32_t width) {                            \
        add_row<T, WIDE>(out, bias, count, width);                                                                     \
    }

FORMAT(f32, float, wide, true)
FORMAT(f32, float, any, false)
FORMAT(f16, half, wide, true)
FORMAT(f16, half, any, false)
FORMAT(bf16, bf16, wide, true)
FORMAT(bf16, bf16, any, false)
