/* am_target.h — what device code is written in, for a GPU: the toolkit's headers, how kernels are
 * launched and shared memory is declared, and the wrappers of tensor cores and asynchronous copies.
 * The only file with inline PTX. The tests' twin of it, for a CPU, is
 * tests/cuda/emulator/am_target.h; am_cuda.h includes the one on the path. */
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <stdint.h>

#define AM_LAUNCH(kernel, grid, block, smem, stream, ...)                                          \
    kernel<<<(grid), (block), (smem), (stream)>>>(__VA_ARGS__)
/* AM_SHARED(float, sums, [32]); */
#define AM_SHARED(T, name, ...) __shared__ T name __VA_ARGS__
/* The launch's dynamic shared memory, 128-byte aligned, as an array of T. */
#define AM_DYN_SHARED(T, name)                                                                     \
    extern __shared__ __align__(128) unsigned char am_dyn_shared_[];                               \
    T *name = reinterpret_cast<T *>(am_dyn_shared_)

#define AM_DEVICE static __device__ __forceinline__

AM_DEVICE unsigned am_shared_address(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

/* d = a b + c of a warp's fragments, 16 x 8 x 16, sums in f32 (PTX ISA, mma.m16n8k16). d may be c.
 */
AM_DEVICE void am_mma_bf16_16816(float d[4], const uint32_t a[4], const uint32_t b[2],
                                 const float c[4])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, "
                 "{%10,%11,%12,%13};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]),
                   "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

AM_DEVICE void am_mma_f16_16816(float d[4], const uint32_t a[4], const uint32_t b[2],
                                const float c[4])
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
          "f"(c[2]), "f"(c[3]));
}

/* Four 8 x 8 matrices of 16-bit elements; lane l gives the address of row l & 7 of matrix l >> 3,
 * 16-byte aligned. */
AM_DEVICE void am_ldmatrix_x4(uint32_t r[4], const void *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(am_shared_address(p))
                 : "memory");
}

AM_DEVICE void am_ldmatrix_x4_trans(uint32_t r[4], const void *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(am_shared_address(p))
                 : "memory");
}

/* 16 bytes from global to shared memory, beside the thread; of which `bytes` (0 to 16) are read,
 * the rest is 0. */
AM_DEVICE void am_cp_async16(void *shared, const void *global, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(am_shared_address(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
}

AM_DEVICE void am_cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most N groups of this thread are under way. */
template <int N> AM_DEVICE void am_cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
