// Group normalisation (Wu and He, arXiv 1803.08494), with or without SiLU behind it, in two launches.
//
// A row is one group of one picture: channels of the group x plane, contiguous. It is cut into tiles that a block holds
// in registers, and tiles are gathered into at most MAX_CHUNKS chunks, one block each: one group of a VAE's last level
// has millions of elements, and 32 blocks would leave most of the card idle. The first launch writes mean and sum of
// squared deviations of every chunk, the second joins them (Chan, Golub and LeVeque, "Updating formulae and a pairwise
// algorithm for computing sample variances", 1979) and normalises. No atomics: the same bytes every time.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int PER_THREAD = 32;
constexpr uint32_t TILE = THREADS * PER_THREAD;

// Where in the row this thread's element `i` of the tile lies. WIDE: in runs of one pack.
template <typename T, bool WIDE> __device__ __forceinline__ uint32_t place(uint32_t start, int i) {
    constexpr int RUN = WIDE ? Pack<T>::COUNT : 1;
    return start + (i / RUN * THREADS + threadIdx.x) * RUN + i % RUN;
}

// Zero past the end of the row. WIDE needs a row whose address and length are multiples of a pack.
template <typename T, bool WIDE>
__device__ __forceinline__ void load_tile(const T* row, uint32_t start, uint32_t length, float (&x)[PER_THREAD]) {
    constexpr int RUN = WIDE ? Pack<T>::COUNT : 1;
#pragma unroll
    for (int i = 0; i < PER_THREAD; i += RUN) {
        const uint32_t at = place<T, WIDE>(start, i);
        if (at < length) {
            if constexpr (WIDE) {
                const Pack<T> pack = load_pack(row + at);
#pragma unroll
                for (int e = 0; e < RUN; ++e) {
                    x[i + e] = widen(pack.at[e]);
                }
            } else {
                x[i] = widen(row[at]);
            }
        } else {
#pragma unroll
            for (int e = 0; e < RUN; ++e) {
                x[i + e] = 0.0f;
            }
        }
    }
}

// partial: (mean, sum of squared deviations) of every chunk, blockIdx.x = row x chunks + chunk.
template <typename T, bool WIDE>
__device__ __forceinline__ void moments(const T* x, float2* partial, uint32_t length, uint32_t chunks, uint32_t tiles) {
    __shared__ float2 shared[WARPS];
    const T* row = x + size_t(blockIdx.x / chunks) * length;
    const uint32_t first = blockIdx.x % chunks * tiles * TILE;
    float mean = 0.0f, squares = 0.0f, count = 0.0f;
    for (uint32_t tile = 0; tile < tiles; ++tile) {
        const uint32_t start = first + tile * TILE;
        if (start >= length) {
            break;
        }
        float values[PER_THREAD];
        load_tile<T, WIDE>(row, start, length, values);
        const float size = float(min(TILE, length - start));
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            sum += values[i];
        }
        const float guess = block_sum<WARPS>(sum, 0.0f, shared).x / size;
        // The mean once more, from the deviations: far from zero the first sum has lost digits.
        float off = 0.0f, square = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            if (place<T, WIDE>(start, i) < length) {
                const float d = values[i] - guess;
                off += d;
                square += d * d;
            }
        }
        const float2 sums = block_sum<WARPS>(off, square, shared);
        const float correction = sums.x / size;
        const float tile_mean = guess + correction;
        const float tile_squares = fmaxf(sums.y - sums.x * correction, 0.0f);
        const float total = count + size;
        const float delta = tile_mean - mean;
        mean = count == 0.0f ? tile_mean : mean + delta * (size / total);
        squares += tile_squares + (count == 0.0f ? 0.0f : delta * delta * count * (size / total));
        count = total;
    }
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = make_float2(mean, squares);
    }
}

template <typename T, bool WIDE, bool SILU>
__device__ __forceinline__ void normalise(const T* __restrict__ x, const T* __restrict__ weight,
                                          const T* __restrict__ bias, const float2* __restrict__ partial,
                                          T* __restrict__ out, uint32_t length, uint32_t chunks, uint32_t tiles,
                                          uint32_t groups, uint32_t plane, float eps) {
    __shared__ float2 shared[WARPS];
    const uint32_t row_index = blockIdx.x / chunks;
    const uint32_t chunk = blockIdx.x % chunks;
    // Every thread holds one chunk's moments, which is why there are at most THREADS chunks.
    const float2* parts = partial + size_t(row_index) * chunks;
    const float base = parts[0].x;
    float size = 0.0f;
    float2 part = make_float2(base, 0.0f);
    if (threadIdx.x < chunks) {
        size = float(min(tiles * TILE, length - threadIdx.x * tiles * TILE));
        part = parts[threadIdx.x];
    }
    const float mean = base + block_sum<WARPS>(size * (part.x - base), 0.0f, shared).x / float(length);
    const float off = part.x - mean;
    const float squares = block_sum<WARPS>(part.y + size * off * off, 0.0f, shared).x;
    const float deviation = 1.0f / sqrtf(squares / float(length) + eps);

    constexpr int RUN = WIDE ? Pack<T>::COUNT : 1;
    const uint32_t first_channel = row_index % groups * (length / plane);
    const bool one_channel = plane % RUN == 0;
    const T* row = x + size_t(row_index) * length;
    T* out_row = out + size_t(row_index) * length;
    for (uint32_t tile = 0; tile < tiles; ++tile) {
        const uint32_t start = (chunk * tiles + tile) * TILE;
        if (start >= length) {
            break;
        }
#pragma unroll 4
        for (int i = 0; i < PER_THREAD; i += RUN) {
            const uint32_t at = place<T, WIDE>(start, i);
            if (at >= length) {
                break;
            }
            Pack<T> pack;
            if constexpr (WIDE) {
                pack = load_pack(row + at);
            } else {
                pack.at[0] = row[at];
            }
            uint32_t channel = first_channel + at / plane;
            float scale = deviation * widen(weight[channel]);
            float shift = widen(bias[channel]);
#pragma unroll
            for (int e = 0; e < RUN; ++e) {
                if (!one_channel && e > 0) {
                    channel = first_channel + (at + e) / plane;
                    scale = deviation * widen(weight[channel]);
                    shift = widen(bias[channel]);
                }
                float y = (widen(pack.at[e]) - mean) * scale + shift;
                if constexpr (SILU) {
                    y = __fdividef(y, 1.0f + expf(-y));
                }
                pack.at[e] = narrow<T>(y);
            }
            if constexpr (WIDE) {
                store_pack(out_row + at, pack);
            } else {
                out_row[at] = pack.at[0];
            }
        }
    }
}

#define MOMENTS(NAME, T, WIDE)                                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        NAME(const T* x, float2* partial, uint32_t length, uint32_t chunks, uint32_t tiles) {                          \
        moments<T, WIDE>(x, partial, length, chunks, tiles);                                                           \
    }
#define NORMALISE(NAME, T, WIDE, SILU)                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        NAME(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias,                        \
             const float2* __restrict__ partial, T* __restrict__ out, uint32_t length, uint32_t chunks,                \
             uint32_t tiles, uint32_t groups, uint32_t plane, float eps) {                                             \
        normalise<T, WIDE, SILU>(x, weight, bias, partial, out, length, chunks, tiles, groups, plane, eps);            \
    }
#define FORMAT(SUFFIX, T)                                                                                              \
    MOMENTS(moments_wide_##SUFFIX, T, true)                                                                            \
    MOMENTS(moments_any_##SUFFIX, T, false)                                                                            \
    NORMALISE(normalise_wide_##SUFFIX, T, true, false)                                                                 \
    NORMALISE(normalise_any_##SUFFIX, T, false, false)                                                                 \
    NORMALISE(normalise_silu_wide_##SUFFIX, T, true, true)                                                             \
    NORMALISE(normalise_silu_any_##SUFFIX, T, false, true)

FORMAT(f32, float)
FORMAT(f16, half)
FORMAT(bf16, bf16)
