// kernels.cu — kernels that are right: each does its work another way than the host's check of it,
// and runs clean in every flavour and order. Small: what they prove is the emulator.
#include "kernels.h"

#include "am_target.h"

namespace
{
constexpr int threads = 96; // three warps

__device__ float block_sum(float x)
{
    AM_SHARED(float, part, [32]);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    for (int o = 16; o; o >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, o);
    __syncthreads();
    if (lane == 0)
        part[warp] = x;
    __syncthreads();
    x = lane < warps ? part[lane] : 0.f;
    for (int o = 16; o; o >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, o);
    return x;
}

__global__ void __launch_bounds__(threads) row_sums(float *out, const float *in, int n)
{
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        sum += in[(size_t)blockIdx.x * n + i];
    sum = block_sum(sum);
    sum = block_sum(threadIdx.x == 0 ? sum : 0.f); // the scratch is used again
    if (threadIdx.x == 0)
        out[blockIdx.x] = sum;
}

__global__ void total(float *out, const float *in, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        atomicAdd(out, in[i]);
}

// Every collective once; out[i] of thread i is a sum of what it should have got.
__global__ void collectives(int *out)
{
    unsigned all = 0xffffffffu;
    int lane = threadIdx.x & 31, right = 0;
    right += __shfl_sync(all, lane, 5) == 5;
    right += __shfl_sync(all, lane, 1, 8) == (lane & ~7) + 1;
    right += __shfl_up_sync(all, lane, 3) == (lane < 3 ? lane : lane - 3);
    right += __shfl_down_sync(all, lane, 4, 16) == ((lane & 15) + 4 < 16 ? lane + 4 : lane);
    right += __shfl_xor_sync(all, (double)lane, 7) == (double)(lane ^ 7);
    right += __ballot_sync(all, lane & 1) == 0xaaaaaaaau;
    right += __any_sync(all, lane == 3) && !__any_sync(all, lane == 32);
    right += __all_sync(all, lane < 32) && !__all_sync(all, lane < 31);
    right += __reduce_add_sync(all, lane) == 496 && __reduce_max_sync(all, -lane) == 0;
    right += __reduce_min_sync(all, -lane) == -31 && __reduce_or_sync(all, 1u << lane) == all;
    right += __match_any_sync(all, lane & 1) == (lane & 1 ? 0xaaaaaaaau : 0x55555555u);
    right += __syncthreads_count(threadIdx.x < 40) == 40;
    right += __syncthreads_or(threadIdx.x == 70) && !__syncthreads_and(threadIdx.x != 70);
    if (lane < 16) // half a warp among itself
        right += __shfl_xor_sync(0x0000ffffu, lane, 8) == (lane ^ 8);
    else
        right += __shfl_xor_sync(0xffff0000u, lane, 8) == (lane ^ 8);
    out[threadIdx.x] = right;
}

// Warps reverse 32 numbers through shared memory, ordered by __syncwarp alone.
__global__ void reverse_in_warp(float *out, const float *in)
{
    AM_SHARED(float, s, [threads]);
    int first = threadIdx.x & ~31;
    s[threadIdx.x] = in[threadIdx.x];
    __syncwarp();
    float x = s[first + 31 - (threadIdx.x & 31)];
    __syncwarp();
    s[threadIdx.x] = x;
    __syncwarp();
    out[threadIdx.x] = s[threadIdx.x];
}

// Tiles of 128 floats through two buffers of dynamic shared memory: out = in shifted by one in its
// tile.
__global__ void copy_tiles(float *out, const float *in, int n)
{
    AM_DYN_SHARED(float, buffers);
    int tiles = (n + 127) / 128, t = threadIdx.x;
    auto load = [&](int tile) {
        int i = tile * 128 + 4 * t, left = n - i;
        int bytes = left <= 0 ? 0 : left < 4 ? 4 * left : 16;
        am_cp_async16(&buffers[(tile & 1) * 128 + 4 * t], bytes ? in + i : in, bytes);
        am_cp_async_commit();
    };
    load(0);
    for (int tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles)
            load(tile + 1);
        else
            am_cp_async_commit();
        am_cp_async_wait<1>();
        __syncwarp();
        for (int i = t; i < 128; i += 32)
            if (tile * 128 + i < n)
                out[tile * 128 + i] = buffers[(tile & 1) * 128 + (i + 1) % 128];
        __syncwarp(); // the next copy refills what was read
    }
    am_cp_async_wait<0>();
}

template <class T> __device__ uint32_t pack(T low, T high)
{
    T two[2] = {low, high};
    uint32_t r;
    memcpy(&r, two, sizeof r);
    return r;
}

// out [16, 8] = a [16, 16] b [16, 8] twice: fragments by hand, and by ldmatrix; NaN where they
// differ.
template <class T, bool HALF, bool WRONG>
__global__ void tensor_16(float *out, const T *a, const T *b)
{
    AM_SHARED(T, sa, [16][24]);
    AM_SHARED(T, sb, [16][8]);
    int lane = threadIdx.x, g = lane >> 2, t = (lane & 3) * 2;
    const float zero[4] = {0, 0, 0, 0};
    float d[4], e[4];
    uint32_t ra[4], rb[2], la[4], lb[4];
    for (int i = lane; i < 256; i += 32)
        sa[i >> 4][i & 15] = a[i];
    for (int i = lane; i < 128; i += 32)
        sb[i >> 3][i & 7] = b[i];
    __syncwarp();
    for (int i = 0; i < 4; i++) {
        int row = g + (i & 1) * 8, k = t + (i >> 1) * 8;
        ra[i] = pack(a[row * 16 + k], a[row * 16 + k + 1]);
    }
    for (int i = 0; i < 2; i++) {
        int k = t + (WRONG ? 1 - i : i) * 8;
        rb[i] = pack(b[k * 8 + g], b[(k + 1) * 8 + g]);
    }
    am_ldmatrix_x4(la, &sa[lane & 15][(lane >> 4) * 8]);
    am_ldmatrix_x4_trans(lb, &sb[lane & 15][0]);
    if (HALF) {
        am_mma_f16_16816(d, ra, rb, zero);
        am_mma_f16_16816(e, la, lb, zero);
    } else {
        am_mma_bf16_16816(d, ra, rb, zero);
        am_mma_bf16_16816(e, la, lb, zero);
    }
    for (int i = 0; i < 4; i++)
        out[(g + (i >> 1) * 8) * 8 + t + (i & 1)] = WRONG || d[i] == e[i] ? d[i] : NAN;
}

// out [16, 8] += a [16, 32] b [8, 32]^T in e4m3, out [16, 8] += a [16, 8] b [8, 8]^T in tf32.
__global__ void tensor_fp8(float *out, const uint32_t *a, const uint32_t *b)
{
    int lane = threadIdx.x, g = lane >> 2, t = lane & 3;
    uint32_t ra[4] = {a[g * 8 + t], a[(g + 8) * 8 + t], a[g * 8 + 4 + t], a[(g + 8) * 8 + 4 + t]};
    uint32_t rb[2] = {b[g * 8 + t], b[g * 8 + 4 + t]};
    float d[4];
    for (int i = 0; i < 4; i++)
        d[i] = out[(g + (i >> 1) * 8) * 8 + 2 * t + (i & 1)];
    am_mma_e4m3_16832(d, ra, rb, d);
    for (int i = 0; i < 4; i++)
        out[(g + (i >> 1) * 8) * 8 + 2 * t + (i & 1)] = d[i];
}

__global__ void tensor_tf32(float *out, const uint32_t *a, const uint32_t *b)
{
    int lane = threadIdx.x, g = lane >> 2, t = lane & 3;
    uint32_t ra[4] = {a[g * 8 + t], a[(g + 8) * 8 + t], a[g * 8 + 4 + t], a[(g + 8) * 8 + 4 + t]};
    uint32_t rb[2] = {b[g * 8 + t], b[g * 8 + 4 + t]};
    const float zero[4] = {0, 0, 0, 0};
    float d[4];
    am_mma_tf32_1688(d, ra, rb, zero);
    for (int i = 0; i < 4; i++)
        out[(g + (i >> 1) * 8) * 8 + 2 * t + (i & 1)] = d[i];
}

// Memory that only an opt-in gives: a block writes all of it and sums it up.
__global__ void much_shared(float *out, int n)
{
    AM_DYN_SHARED(float, s);
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        s[i] = 1.f;
    __syncthreads();
    for (int i = n - 1 - (int)threadIdx.x; i >= 0; i -= blockDim.x)
        sum += s[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        *out = sum;
}

__global__ void fill_from(float *out, int n, float first)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = first + i;
}

__global__ void double_of(float *out, const float *in, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = 2 * in[i];
}

__global__ void nothing(int)
{
}

__global__ void barriers(int n)
{
    for (int i = 0; i < n; i++)
        __syncthreads();
}

__global__ void shuffles(float *out, int n)
{
    float x = threadIdx.x;
    for (int i = 0; i < n; i++)
        x += __shfl_xor_sync(0xffffffffu, x, 1);
    out[threadIdx.x] = x;
}

__global__ void products(float *out, int n)
{
    uint32_t a[4] = {}, b[2] = {};
    float d[4] = {};
    for (int i = 0; i < n; i++)
        am_mma_bf16_16816(d, a, b, d);
    out[threadIdx.x] = d[0];
}
} // namespace

int launch_row_sums(float *out, const float *in, int rows, int n, cudaStream_t s)
{
    AM_LAUNCH(row_sums, rows, threads, 0, s, out, in, n);
    return cudaGetLastError();
}

int launch_total(float *out, const float *in, int n, cudaStream_t s)
{
    AM_LAUNCH(total, (n + threads - 1) / threads, threads, 0, s, out, in, n);
    return cudaGetLastError();
}

int launch_collectives(int *out, cudaStream_t s)
{
    AM_LAUNCH(collectives, 1, threads, 0, s, out);
    return cudaGetLastError();
}

int launch_reverse_in_warp(float *out, const float *in, cudaStream_t s)
{
    AM_LAUNCH(reverse_in_warp, 1, threads, 0, s, out, in);
    return cudaGetLastError();
}

int launch_copy_tiles(float *out, const float *in, int n, cudaStream_t s)
{
    AM_LAUNCH(copy_tiles, 1, 32, 2 * 128 * sizeof(float), s, out, in, n);
    return cudaGetLastError();
}

int launch_tensor(float *out, const void *a, const void *b, enum tensor_kind kind, cudaStream_t s)
{
    typedef __nv_bfloat16 bf16;
    const uint32_t *a32 = (const uint32_t *)a, *b32 = (const uint32_t *)b;
    switch (kind) {
    case TENSOR_BF16:
        AM_LAUNCH((tensor_16<bf16, false, false>), 1, 32, 0, s, out, (const bf16 *)a,
                  (const bf16 *)b);
        break;
    case TENSOR_F16:
        AM_LAUNCH((tensor_16<__half, true, false>), 1, 32, 0, s, out, (const __half *)a,
                  (const __half *)b);
        break;
    case TENSOR_WRONG:
        AM_LAUNCH((tensor_16<bf16, false, true>), 1, 32, 0, s, out, (const bf16 *)a,
                  (const bf16 *)b);
        break;
    case TENSOR_E4M3:
        AM_LAUNCH(tensor_fp8, 1, 32, 0, s, out, a32, b32);
        break;
    case TENSOR_TF32:
        AM_LAUNCH(tensor_tf32, 1, 32, 0, s, out, a32, b32);
        break;
    }
    return cudaGetLastError();
}

int launch_much_shared(float *out, int n, int ask, cudaStream_t s)
{
    if (ask)
        cudaFuncSetAttribute((const void *)much_shared, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             n * (int)sizeof(float));
    AM_LAUNCH(much_shared, 1, threads, n * sizeof(float), s, out, n);
    return cudaGetLastError();
}

int launch_fill_from(float *out, int n, float first, cudaStream_t s)
{
    AM_LAUNCH(fill_from, (n + 31) / 32, 32, 0, s, out, n, first);
    return cudaGetLastError();
}

int launch_double_of(float *out, const float *in, int n, cudaStream_t s)
{
    AM_LAUNCH(double_of, (n + 31) / 32, 32, 0, s, out, in, n);
    return cudaGetLastError();
}

int launch_nothing(unsigned grid, unsigned block)
{
    AM_LAUNCH(nothing, grid, block, 0, 0, 0);
    return cudaGetLastError();
}

void launch_barriers(int block, int n)
{
    AM_LAUNCH(barriers, 1, block, 0, 0, n);
}

void launch_shuffles(float *out, int block, int n)
{
    AM_LAUNCH(shuffles, 1, block, 0, 0, out, n);
}

void launch_products(float *out, int block, int n)
{
    AM_LAUNCH(products, 1, block, 0, 0, out, n);
}
