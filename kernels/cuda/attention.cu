// Attention without its matrix of scores: `softmax(scale q k^T) v` in one pass over the keys, with a running maximum and
// a running sum per query (Milakov and Gimelshein, arXiv 1805.02867; tiled as in Dao et al., arXiv 2205.14135 and
// arXiv 2307.08691).
//
// A block takes 64 TILES_M queries of one head, four warps of 16 TILES_M rows each; keys and values come through shared
// memory BLOCK_N at a time, the next ones while these are worked on. Products run on the tensor cores with f32 sums; of
// `mma.sync.m16n8k16` and `ldmatrix` the PTX manual gives which lane holds what ("Matrix fragments for mma.m16n8k16").
// With g = lane / 4 and t = lane % 4:
//   A, 16 x 16: registers hold (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8), each with the column after it
//   B, 16 x 8:  (2t, g), (2t + 8, g), each with the row after it
//   C, 16 x 8:  (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
// so two C tiles of scores side by side are the A tile of the second product, without moving anything.
//
// A row in shared memory is WIDTH + 8 elements: an odd number of 16-byte units, so that the eight rows that ldmatrix
// reads at once lie in different banks. Rows past the end and columns past the head size are zeros there.
#include "common.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;

// Distances in elements between two pictures, two heads and two rows.
struct Strides {
    int64_t picture, head, row;
};

struct Arguments {
    const void *q, *k, *v;
    // (pictures, queries, heads, size), contiguous
    void* out;
    Strides q_at, k_at, v_at;
    int32_t queries, keys, heads, size;
    // The scale of the scores times log2(e): powers of two are what the hardware has.
    float scale;
};
static_assert(sizeof(Arguments) == 128, "src/cuda/attention.rs has the same struct");

__device__ __forceinline__ uint32_t shared_address(const void* at) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

// 16 bytes from global to shared memory, or 16 zeros; it arrives before `copies_arrived`.
__device__ __forceinline__ void copy_16(uint32_t to, const void* from, bool real) {
    const int bytes = real ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

__device__ __forceinline__ void copies_arrived() { asm volatile("cp.async.wait_all;\n" ::: "memory"); }

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

template <typename T>
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ __forceinline__ void multiply_add<half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ __forceinline__ void multiply_add<bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two numbers in one register, the first in the lower half.
template <typename T> __device__ __forceinline__ uint32_t pair(float low, float high);
template <> __device__ __forceinline__ uint32_t pair<half>(float low, float high) {
    const __half2 both = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&both);
}
template <> __device__ __forceinline__ uint32_t pair<bf16>(float low, float high) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&both);
}

// 2^x; minus infinity gives 0.
__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

// Over the four lanes that hold one row of a C tile.
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Starts to copy rows first .. first + ROWS of a tensor of `count` rows to shared memory.
template <typename T, int ROWS, int WIDTH>
__device__ __forceinline__ void fetch(T* to, const T* from, int64_t stride, int first, int count, int size) {
    constexpr int PER_ROW = WIDTH / 8;
    for (int i = threadIdx.x; i < ROWS * PER_ROW; i += THREADS) {
        const int row = i / PER_ROW, column = i % PER_ROW * 8;
        const bool real = first + row < count && column < size;
        const T* source = real ? from + (first + row) * stride + column : from;
        copy_16(shared_address(to + row * (WIDTH + 8) + column), source, real);
    }
}

template <typename T, int WIDTH, int TILES_M, int BLOCK_N> __device__ __forceinline__ void attend(const Arguments& p) {
    constexpr int STRIDE = WIDTH + 8;
    constexpr int BLOCK_M = 16 * TILES_M * WARPS;
    constexpr int DEPTH = WIDTH / 16;   // products along the head
    constexpr int TILES_N = BLOCK_N / 8; // C tiles of scores
    constexpr int TILES_D = WIDTH / 8;  // C tiles of the output
    extern __shared__ __align__(16) unsigned char memory[];
    T* const q_rows = reinterpret_cast<T*>(memory);
    T* const k_rows = q_rows + BLOCK_M * STRIDE;     // two of BLOCK_N rows
    T* const v_rows = k_rows + 2 * BLOCK_N * STRIDE; // two of BLOCK_N rows

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int picture = blockIdx.y / p.heads, head = blockIdx.y % p.heads;
    const int first_query = blockIdx.x * BLOCK_M;
    const T* const q = static_cast<const T*>(p.q) + picture * p.q_at.picture + head * p.q_at.head;
    const T* const k = static_cast<const T*>(p.k) + picture * p.k_at.picture + head * p.k_at.head;
    const T* const v = static_cast<const T*>(p.v) + picture * p.v_at.picture + head * p.v_at.head;

    // Where this lane points ldmatrix to: matrix lane / 8, row lane % 8 of it.
    const int q_row = lane % 16, q_column = lane / 16 * 8;
    const int k_row = lane / 16 * 8 + lane % 8, k_column = lane / 8 % 2 * 8;
    const int v_row = lane % 16, v_column = lane / 16 * 8;

    fetch<T, BLOCK_M, WIDTH>(q_rows, q, p.q_at.row, first_query, p.queries, p.size);
    fetch<T, BLOCK_N, WIDTH>(k_rows, k, p.k_at.row, 0, p.keys, p.size);
    fetch<T, BLOCK_N, WIDTH>(v_rows, v, p.v_at.row, 0, p.keys, p.size);

    uint32_t q_tiles[TILES_M][DEPTH][4];
    float out[TILES_M][TILES_D][4];
    float largest[TILES_M][2], total[TILES_M][2]; // of rows g and g + 8; the total is this lane's share
#pragma unroll
    for (int m = 0; m < TILES_M; ++m) {
#pragma unroll
        for (int d = 0; d < TILES_D; ++d) {
            out[m][d][0] = out[m][d][1] = out[m][d][2] = out[m][d][3] = 0.0f;
        }
        largest[m][0] = largest[m][1] = -INFINITY;
        total[m][0] = total[m][1] = 0.0f;
    }

    const int steps = (p.keys + BLOCK_N - 1) / BLOCK_N;
    for (int step = 0; step < steps; ++step) {
        copies_arrived();
        // Everyone's copies are there, and everyone is done with the half that is filled next.
        __syncthreads();
        if (step == 0) {
#pragma unroll
            for (int m = 0; m < TILES_M; ++m) {
#pragma unroll
                for (int d = 0; d < DEPTH; ++d) {
                    const int row = (warp * TILES_M + m) * 16 + q_row;
                    load_matrices(q_tiles[m][d], shared_address(q_rows + row * STRIDE + d * 16 + q_column));
                }
            }
        }
        if (step + 1 < steps) {
            const int half_of = (step + 1) % 2 * BLOCK_N * STRIDE, next = (step + 1) * BLOCK_N;
            fetch<T, BLOCK_N, WIDTH>(k_rows + half_of, k, p.k_at.row, next, p.keys, p.size);
            fetch<T, BLOCK_N, WIDTH>(v_rows + half_of, v, p.v_at.row, next, p.keys, p.size);
        }
        const T* const keys = k_rows + step % 2 * BLOCK_N * STRIDE;
        const T* const values = v_rows + step % 2 * BLOCK_N * STRIDE;

        float scores[TILES_M][TILES_N][4];
#pragma unroll
        for (int m = 0; m < TILES_M; ++m) {
#pragma unroll
            for (int n = 0; n < TILES_N; ++n) {
                scores[m][n][0] = scores[m][n][1] = scores[m][n][2] = scores[m][n][3] = 0.0f;
            }
        }
#pragma unroll
        for (int d = 0; d < DEPTH; ++d) {
#pragma unroll
            for (int n = 0; n < TILES_N; n += 2) {
                uint32_t b[4];
                load_matrices(b, shared_address(keys + (n * 8 + k_row) * STRIDE + d * 16 + k_column));
#pragma unroll
                for (int m = 0; m < TILES_M; ++m) {
                    multiply_add<T>(scores[m][n], q_tiles[m][d], b[0], b[1]);
                    multiply_add<T>(scores[m][n + 1], q_tiles[m][d], b[2], b[3]);
                }
            }
        }

        const int left = p.keys - step * BLOCK_N;
        if (left < BLOCK_N) {
#pragma unroll
            for (int n = 0; n < TILES_N; ++n) {
                const int column = n * 8 + lane % 4 * 2;
#pragma unroll
                for (int m = 0; m < TILES_M; ++m) {
                    if (column >= left) {
                        scores[m][n][0] = scores[m][n][2] = -INFINITY;
                    }
                    if (column + 1 >= left) {
                        scores[m][n][1] = scores[m][n][3] = -INFINITY;
                    }
                }
            }
        }

#pragma unroll
        for (int m = 0; m < TILES_M; ++m) {
#pragma unroll
            for (int r = 0; r < 2; ++r) { // rows g and g + 8
                float best = largest[m][r];
#pragma unroll
                for (int n = 0; n < TILES_N; ++n) {
                    best = fmaxf(best, fmaxf(scores[m][n][2 * r], scores[m][n][2 * r + 1]));
                }
                best = row_max(best);
                // At the first step the old maximum is minus infinity and what was summed before counts nothing.
                const float fade = power_of_two((largest[m][r] - best) * p.scale);
                const float offset = best * p.scale;
                largest[m][r] = best;
                float sum = 0.0f;
#pragma unroll
                for (int n = 0; n < TILES_N; ++n) {
#pragma unroll
                    for (int e = 2 * r; e < 2 * r + 2; ++e) {
                        scores[m][n][e] = power_of_two(fmaf(scores[m][n][e], p.scale, -offset));
                        sum += scores[m][n][e];
                    }
                }
                total[m][r] = total[m][r] * fade + sum;
#pragma unroll
                for (int d = 0; d < TILES_D; ++d) {
                    out[m][d][2 * r] *= fade;
                    out[m][d][2 * r + 1] *= fade;
                }
            }
        }

#pragma unroll
        for (int n = 0; n < TILES_N; n += 2) {
            uint32_t a[TILES_M][4];
#pragma unroll
            for (int m = 0; m < TILES_M; ++m) {
                a[m][0] = pair<T>(scores[m][n][0], scores[m][n][1]);
                a[m][1] = pair<T>(scores[m][n][2], scores[m][n][3]);
                a[m][2] = pair<T>(scores[m][n + 1][0], scores[m][n + 1][1]);
                a[m][3] = pair<T>(scores[m][n + 1][2], scores[m][n + 1][3]);
            }
#pragma unroll
            for (int d = 0; d < TILES_D; d += 2) {
                uint32_t b[4];
                load_matrices_transposed(b, shared_address(values + (n * 8 + v_row) * STRIDE + d * 8 + v_column));
#pragma unroll
                for (int m = 0; m < TILES_M; ++m) {
                    multiply_add<T>(out[m][d], a[m], b[0], b[1]);
                    multiply_add<T>(out[m][d + 1], a[m], b[2], b[3]);
                }
            }
        }
    }

    // Through the rows of q that this warp alone has read, so that 16 bytes are written at a time.
    T* const rows = q_rows + warp * 16 * TILES_M * STRIDE;
#pragma unroll
    for (int m = 0; m < TILES_M; ++m) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float share = 1.0f / row_sum(total[m][r]);
            T* const row = rows + (m * 16 + r * 8 + lane / 4) * STRIDE + lane % 4 * 2;
#pragma unroll
            for (int d = 0; d < TILES_D; ++d) {
                const uint32_t both = pair<T>(out[m][d][2 * r] * share, out[m][d][2 * r + 1] * share);
                *reinterpret_cast<uint32_t*>(row + d * 8) = both;
            }
        }
    }
    __syncwarp();
    T* const to = static_cast<T*>(p.out) + (int64_t(picture) * p.queries * p.heads + head) * p.size;
    constexpr int PER_ROW = WIDTH / 8;
    for (int i = lane; i < 16 * TILES_M * PER_ROW; i += 32) {
        const int row = i / PER_ROW, column = i % PER_ROW * 8;
        const int query = first_query + warp * 16 * TILES_M + row;
        if (query < p.queries && column < p.size) {
            store_pack(to + int64_t(query) * p.heads * p.size + column, load_pack(rows + row * STRIDE + column));
        }
    }
}

#define ATTENTION(WIDTH, TILES_M, BLOCK_N)                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_##WIDTH##_f16(const __grid_constant__ Arguments p) { \
        attend<half, WIDTH, TILES_M, BLOCK_N>(p);                                                                      \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_##WIDTH##_bf16(const __grid_constant__ Arguments p) { \
        attend<bf16, WIDTH, TILES_M, BLOCK_N>(p);                                                                      \
    }

// The widths, and what a block takes of each, stand once more in src/cuda/attention.rs.
ATTENTION(32, 2, 64)
ATTENTION(48, 2, 64)
ATTENTION(64, 2, 64)
ATTENTION(80, 2, 32)
ATTENTION(128, 1, 64)
ATTENTION(160, 1, 32)
