// faults.cu — what must not go unseen. `faults NAME` commits one fault; run.sh says which flavour
// has to end it with which words. Where a result is wrong instead, it says "wrong result".
#include <stdio.h>
#include <stdlib.h>
#include <vector>

#include "am_target.h"

namespace
{
__global__ void fill(float *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = i;
}

__global__ void twice(float *out, const float *in)
{
    out[threadIdx.x] = 2 * in[threadIdx.x];
}

__global__ void tail(float *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n)
        out[i] = i;
}

__global__ void far_away(float *out)
{
    out[threadIdx.x * 1000003l] = 1;
}

__global__ void shared_tail(float *out, int by)
{
    AM_SHARED(float, s, [64]);
    float *p = s;
    p[threadIdx.x + by] = 1.f;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x ? threadIdx.x : 1];
}

__global__ void uninitialised_shared(float *out)
{
    AM_SHARED(float, s, [64]);
    if (threadIdx.x < 63)
        s[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}

__global__ void missing_barrier(float *out)
{
    AM_SHARED(float, s, [64]);
    s[threadIdx.x] = 0;
    __syncthreads();
    s[threadIdx.x] = threadIdx.x + 1;
    out[threadIdx.x] = s[63 - threadIdx.x];
}

__global__ void missing_syncwarp(float *out)
{
    AM_SHARED(float, s, [32]);
    s[threadIdx.x] = 0;
    __syncwarp();
    s[threadIdx.x] = threadIdx.x + 1;
    out[threadIdx.x] = s[31 - threadIdx.x];
}

__global__ void refilled(float *out) // what is read is written again without a barrier
{
    AM_SHARED(float, s, [64]);
    s[threadIdx.x] = threadIdx.x;
    __syncthreads();
    float x = s[63 - threadIdx.x];
    s[threadIdx.x] = 0;
    out[threadIdx.x] = x;
}

__global__ void accumulate(float *out)
{
    out[threadIdx.x] += 1.f;
}

__global__ void divergent_barrier(float *out)
{
    if (threadIdx.x < 32) {
        out[threadIdx.x] = 1;
        __syncthreads();
    } else {
        out[threadIdx.x] = 2;
        __syncthreads();
    }
}

__global__ void deadlock(float *out)
{
    if (threadIdx.x < 40)
        __syncthreads();
    else
        out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.f, 1);
}

__global__ void mismatch(float *out)
{
    float x = threadIdx.x;
    if (threadIdx.x < 16)
        x += __shfl_xor_sync(0xffffffffu, x, 1);
    else
        x += __ballot_sync(0xffffffffu, 1);
    out[threadIdx.x] = x;
}

__global__ void mask_without_me(float *out)
{
    out[threadIdx.x] = __shfl_xor_sync(0xffffu, (float)threadIdx.x, 1);
}

__global__ void absent_lane(float *out)
{
    if (threadIdx.x < 16)
        out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, (float)threadIdx.x, 16);
}

__global__ void product_after_return(float *out)
{
    if (threadIdx.x == 31)
        return;
    uint32_t a[4] = {}, b[2] = {};
    float d[4] = {};
    am_mma_bf16_16816(d, a, b, d);
    out[threadIdx.x] = d[0];
}

__global__ void row_misaligned(float *out)
{
    AM_SHARED(uint16_t, s, [512]);
    uint32_t r[4];
    for (int i = threadIdx.x; i < 512; i += 32)
        s[i] = 0;
    __syncwarp();
    am_ldmatrix_x4(r, &s[threadIdx.x * 8 + 1]);
    out[threadIdx.x] = r[0];
}

__global__ void host_pointer(float *out, const float *in)
{
    out[threadIdx.x] = in[threadIdx.x];
}

__global__ void misaligned(float *out, const float *in)
{
    float4 x = *(const float4 *)(in + threadIdx.x * 4 + 1);
    out[threadIdx.x] = x.x;
}

__global__ void misaligned_double(float *out, const float *in)
{
    out[threadIdx.x] = (float)*(const double *)(in + threadIdx.x * 2 + 1);
}

__global__ void misaligned_atomic(char *out)
{
    atomicAdd((float *)(out + 2), 1.f);
}

__global__ void local_tail(float *out, int i)
{
    float a[4] = {0, 1, 2, 3};
    volatile float *p = a;
    out[threadIdx.x] = p[i];
}

__global__ void other_local(float *out)
{
    AM_SHARED(float *, where, [1]);
    float mine[1] = {1};
    if (threadIdx.x == 0)
        where[0] = mine;
    __syncthreads();
    out[threadIdx.x] = *(volatile float *)where[0];
    __syncthreads();
}

__global__ void unwaited_copy(float *out, const float *in)
{
    AM_SHARED(float4, s, [32]);
    am_cp_async16(&s[threadIdx.x], in + threadIdx.x * 4, 16);
    am_cp_async_commit();
    __syncwarp();
    out[threadIdx.x] = s[threadIdx.x].x;
    am_cp_async_wait<0>();
}

__global__ void forgotten_copy(const float *in)
{
    AM_SHARED(float4, s, [32]);
    am_cp_async16(&s[threadIdx.x], in + threadIdx.x * 4, 16);
    am_cp_async_commit();
}

__global__ void copy_misaligned(const float *in)
{
    AM_SHARED(float4, s, [32]);
    am_cp_async16(&s[threadIdx.x], in + threadIdx.x * 4 + 1, 16);
    am_cp_async_wait<0>();
}

__global__ void copy_into_read(float *out, const float *in) // a buffer that others still read
{
    AM_SHARED(float4, s, [32]);
    s[threadIdx.x] = make_float4(1, 1, 1, 1);
    __syncwarp();
    out[threadIdx.x] = s[31 - threadIdx.x].x;
    am_cp_async16(&s[threadIdx.x], in + threadIdx.x * 4, 16);
    am_cp_async_commit();
    am_cp_async_wait<0>();
}

__global__ void too_much_static(float *out)
{
    AM_SHARED(float, s, [13000]);
    s[threadIdx.x] = 1;
    out[threadIdx.x] = s[threadIdx.x];
}

__global__ void dynamic(float *out)
{
    AM_DYN_SHARED(float, s);
    s[threadIdx.x] = 1;
    out[threadIdx.x] = s[threadIdx.x];
}

__global__ void trap()
{
    __trap();
}

constexpr int n = 64;
float *out, *in;
int wrong; // a result is

float host_of(const float *d, int i)
{
    float x = 0;
    if (cudaMemcpy(&x, d + i, sizeof x, cudaMemcpyDeviceToHost) != cudaSuccess)
        wrong = 1;
    return x;
}

// Without the event, the second stream may run first.
void two_streams(bool with_event)
{
    cudaStream_t a, b;
    cudaEvent_t e;
    cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
    AM_LAUNCH(fill, 1, n, 0, a, in, n);
    cudaEventRecord(e, a);
    if (with_event)
        cudaStreamWaitEvent(b, e, 0);
    AM_LAUNCH(twice, 1, n, 0, b, out, in);
    cudaStreamSynchronize(b);
    wrong = host_of(out, 5) != 10.f;
    cudaDeviceSynchronize();
    cudaEventDestroy(e);
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
}

// Memory that a stream is to have is nobody's until the stream comes to that.
void had_elsewhere()
{
    cudaStream_t a, b;
    float *p;
    cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
    cudaMallocAsync((void **)&p, n * sizeof *p, a);
    AM_LAUNCH(fill, 1, n, 0, b, p, n);
    cudaStreamSynchronize(b);
    cudaStreamSynchronize(a);
    wrong = host_of(p, 5) != 5.f;
    cudaFree(p);
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
}

void read_before_sync()
{
    cudaStream_t a;
    float *p;
    cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
    cudaMallocHost((void **)&p, n * sizeof *p);
    memset(p, 0, n * sizeof *p);
    AM_LAUNCH(fill, 1, n, 0, a, out, n);
    cudaMemcpyAsync(p, out, n * sizeof *p, cudaMemcpyDeviceToHost, a);
    wrong = p[5] != 5.f;
    cudaStreamDestroy(a);
    cudaFreeHost(p);
}

void copy_uninitialised()
{
    float *fresh, h[n];
    cudaMalloc((void **)&fresh, n * sizeof *fresh);
    AM_LAUNCH(fill, 1, 32, 0, 0, fresh, 32);
    cudaMemcpy(h, fresh, sizeof h, cudaMemcpyDeviceToHost);
    wrong = h[40] != h[40];
    cudaFree(fresh);
}

struct Fault {
    const char *name;
    void (*commit)();
};

const Fault faults[] = {
    {"none", [] { AM_LAUNCH(fill, 2, 32, 0, 0, out, n); }},
    {"tail", [] { AM_LAUNCH(tail, 2, 64, 0, 0, out, n); }},
    {"far_away", [] { AM_LAUNCH(far_away, 1, n, 0, 0, out); }},
    {"shared_tail", [] { AM_LAUNCH(shared_tail, 1, n, 0, 0, out, 1); }},
    {"freed",
     [] {
         cudaFree(in);
         AM_LAUNCH(twice, 1, n, 0, 0, out, in);
         cudaMalloc((void **)&in, 64);
     }},
    {"uninitialised_shared",
     [] {
         AM_LAUNCH(uninitialised_shared, 1, n, 0, 0, out);
         wrong = !(host_of(out, 63) == host_of(out, 63));
     }},
    {"missing_barrier",
     [] {
         AM_LAUNCH(missing_barrier, 1, n, 0, 0, out);
         wrong = host_of(out, 0) != 64 || host_of(out, 63) != 1;
     }},
    {"missing_syncwarp",
     [] {
         AM_LAUNCH(missing_syncwarp, 1, 32, 0, 0, out);
         wrong = host_of(out, 0) != 32 || host_of(out, 31) != 1;
     }},
    {"refilled",
     [] {
         AM_LAUNCH(refilled, 1, n, 0, 0, out);
         wrong = host_of(out, 63) != 0 || host_of(out, 0) != 63;
     }},
    {"between_blocks", [] { AM_LAUNCH(accumulate, 4, n, 0, 0, out); }},
    {"divergent_barrier", [] { AM_LAUNCH(divergent_barrier, 1, n, 0, 0, out); }},
    {"deadlock", [] { AM_LAUNCH(deadlock, 1, n, 0, 0, out); }},
    {"mismatch", [] { AM_LAUNCH(mismatch, 1, 32, 0, 0, out); }},
    {"mask_without_me", [] { AM_LAUNCH(mask_without_me, 1, 32, 0, 0, out); }},
    {"absent_lane", [] { AM_LAUNCH(absent_lane, 1, 32, 0, 0, out); }},
    {"product_after_return", [] { AM_LAUNCH(product_after_return, 1, 32, 0, 0, out); }},
    {"row_misaligned", [] { AM_LAUNCH(row_misaligned, 1, 32, 0, 0, out); }},
    {"host_pointer",
     [] {
         static std::vector<float> h(n);
         AM_LAUNCH(host_pointer, 1, n, 0, 0, out, h.data());
     }},
    {"misaligned", [] { AM_LAUNCH(misaligned, 1, 32, 0, 0, out, in); }},
    {"misaligned_double", [] { AM_LAUNCH(misaligned_double, 1, 32, 0, 0, out, in); }},
    {"misaligned_atomic", [] { AM_LAUNCH(misaligned_atomic, 1, 1, 0, 0, (char *)out); }},
    {"local_tail", [] { AM_LAUNCH(local_tail, 1, 32, 0, 0, out, 5); }},
    {"other_local", [] { AM_LAUNCH(other_local, 1, 32, 0, 0, out); }},
    {"unwaited_copy",
     [] {
         AM_LAUNCH(unwaited_copy, 1, 32, 0, 0, out, in);
         wrong = host_of(out, 3) != 0;
     }},
    {"forgotten_copy", [] { AM_LAUNCH(forgotten_copy, 1, 32, 0, 0, in); }},
    {"copy_misaligned", [] { AM_LAUNCH(copy_misaligned, 1, 31, 0, 0, in); }},
    {"copy_into_read", [] { AM_LAUNCH(copy_into_read, 1, 32, 0, 0, out, in); }},
    {"too_much_static", [] { AM_LAUNCH(too_much_static, 1, n, 0, 0, out); }},
    {"too_much_dynamic", [] { AM_LAUNCH(dynamic, 1, n, 60000, 0, out); }},
    {"too_many_threads", [] { AM_LAUNCH(fill, 1, 2048, 0, 0, out, n); }},
    {"trap", [] { AM_LAUNCH(trap, 1, 1, 0, 0); }},
    {"host_dereference",
     [] {
         AM_LAUNCH(fill, 1, n, 0, 0, out, n);
         wrong = out[1] != 1.f;
     }},
    {"wrong_direction",
     [] {
         std::vector<float> h(n);
         wrong = cudaMemcpy(out, h.data(), n * 4, cudaMemcpyDeviceToHost) != cudaSuccess;
     }},
    {"copy_too_long",
     [] {
         std::vector<float> h(n + 1);
         wrong = cudaMemcpy(h.data(), out, n * 4 + 4, cudaMemcpyDeviceToHost) != cudaSuccess;
     }},
    {"freed_twice",
     [] {
         cudaFree(in);
         wrong = cudaFree(in) != cudaSuccess;
         cudaMalloc((void **)&in, 64);
     }},
    {"copy_uninitialised", copy_uninitialised},
    {"missing_event", [] { two_streams(false); }},
    {"with_event", [] { two_streams(true); }},
    {"had_elsewhere", had_elsewhere},
    {"read_before_sync", read_before_sync},
};
} // namespace

int main(int argc, char **argv)
{
    cudaMalloc((void **)&out, n * sizeof *out);
    cudaMalloc((void **)&in, 4 * n * sizeof *in);
    cudaMemset(out, 0, n * sizeof *out);
    cudaMemset(in, 0, 4 * n * sizeof *in);
    cudaDeviceSynchronize(); // the streams of the faults don't wait for the default one
    for (const Fault &f : faults) {
        if (argc != 2 || strcmp(argv[1], f.name))
            continue;
        f.commit();
        cudaError_t launch = cudaGetLastError(), later = cudaDeviceSynchronize();
        if (launch != cudaSuccess || later != cudaSuccess)
            printf("%s\n", cudaGetErrorString(launch != cudaSuccess ? launch : later));
        else
            printf("%s\n", wrong ? "wrong result" : "nothing seen");
        cudaFree(out);
        cudaFree(in);
        return 0;
    }
    fprintf(stderr, "usage: faults NAME; see faults.cu\n");
    return 2;
}
