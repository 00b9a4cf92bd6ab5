// What the kernels share: number formats, wide loads, sums over a warp and over a block.
#pragma once

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(half x) { return __half2float(x); }
__device__ __forceinline__ float widen(bf16 x) { return __bfloat162float(x); }

template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ half narrow<half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) { return __float2bfloat16_rn(x); }

// As many elements as one load of 16 bytes brings; the address must be a multiple of 16.
template <typename T> struct alignas(16) Pack {
    static constexpr int COUNT = 16 / sizeof(T);
    T at[COUNT];
};

template <typename T> __device__ __forceinline__ Pack<T> load_pack(const T* from) {
    return *reinterpret_cast<const Pack<T>*>(from);
}

template <typename T> __device__ __forceinline__ void store_pack(T* to, const Pack<T>& pack) {
    *reinterpret_cast<Pack<T>*>(to) = pack;
}

// Every lane gets the sum. The order of the additions is fixed, so the bytes are too.
__device__ __forceinline__ float warp_sum(float x) {
    for (int distance = 16; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    }
    return x;
}

// Two sums at once over a block of WARPS whole warps; every thread gets both. `shared` may be used again afterwards.
template <int WARPS> __device__ __forceinline__ float2 block_sum(float x, float y, float2* shared) {
    x = warp_sum(x);
    y = warp_sum(y);
    if (threadIdx.x % 32 == 0) {
        shared[threadIdx.x / 32] = make_float2(x, y);
    }
    __syncthreads();
    float2 sum = make_float2(0.0f, 0.0f);
    for (int warp = 0; warp < WARPS; ++warp) {
        sum.x += shared[warp].x;
        sum.y += shared[warp].y;
    }
    __syncthreads();
    return sum;
}
