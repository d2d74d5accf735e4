/* cuda_backend.h — inside the CUDA backend: its stream, and what a launcher (am_cuda_<kernel>, one
 * for each kernel of kernels.def) calls. C and CUDA both include it. */
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include "backend.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* A kernel that meets an index outside of 0..limit-1 leaves it here, the first one, and goes on
 * with 0 instead; the stream's next sync reports it as AM_EINVAL. With a limit of 0, `what` alone
 * is the message. In device memory. */
typedef struct am_cuda_problem {
    unsigned long long seen; /* 0: none; the first to change it writes the rest */
    long long value, limit;
    const char *what; /* host text: "gather: index" */
} am_cuda_problem;

enum { AM_CUDA_SCRATCH_SLOTS = 4, AM_CUDA_RING_PARTS = 4, AM_CUDA_RING_PART = 2 << 20 };
enum { AM_CUDA_KEPT = 128 };

/* Pinned host memory that copies go through (memory.c), a part after the other. */
typedef struct am_cuda_ring {
    char *bytes; /* AM_CUDA_RING_PARTS of AM_CUDA_RING_PART */
    cudaEvent_t done[AM_CUDA_RING_PARTS];
    int part;
    size_t used; /* of it */
} am_cuda_ring;

/* What launchers had from am_cuda_scratch, by slot. */
typedef struct am_cuda_scratches {
    void *p[AM_CUDA_SCRATCH_SLOTS];
    size_t bytes[AM_CUDA_SCRATCH_SLOTS];
} am_cuda_scratches;

/* What the stream's launches are just now (graph.c). */
enum { AM_CUDA_LAUNCHED, AM_CUDA_REHEARSED, AM_CUDA_RECORDED };

struct am_stream {
    cudaStream_t stream;
    cublasLtHandle_t lt;
    am_cuda_problem *problem; /* device */
    am_cuda_problem *report;  /* pinned host memory that `problem` is copied to */
    am_cuda_scratches scratch, graph_scratch;
    am_cuda_ring ring;
    int failed; /* a code that every later call returns: the device is lost */

    int mode;
    const char *unfit;        /* why what is rehearsed or recorded can't be; NULL: it can */
    uint64_t *shift;          /* device: added to the streams of random numbers of graphs */
    uint64_t shifted;         /* what lies there */
    void *kept[AM_CUDA_KEPT]; /* device memory that graphs may use, and nobody else does */
    int n_kept;
};

/* Before what no graph can do, `what` being a literal for people: AM_OK, or an error where it is
 * being recorded. */
int am_cuda_outside_graphs(am_stream *s, const char *what);
/* What kernels add to the number of a random stream, in device memory; NULL: nothing. */
const uint64_t *am_cuda_shift(const am_stream *s);

/* Device memory for one call of a launcher, 256-byte aligned, reused by the stream's next call with
 * the same slot: at least `bytes`. AM_ENOMEM. */
int am_cuda_scratch(am_stream *s, void **p, int slot, size_t bytes);

/* After a launch: AM_OK, or an error that names the kernel, file and line. With AM_SYNC=1 the
 * kernel has run, but in NCCL's streams. */
int am_cuda_launched_at(am_stream *s, const char *kernel, const char *file, int line);
#define am_cuda_launched(s, kernel) am_cuda_launched_at(s, kernel, __FILE__, __LINE__)

/* The message of a CUDA error, as AM_EDEVICE or AM_ENOMEM. */
int am_cuda_fail(cudaError_t e, const char *what);
/* The same of an error that stays: every later call of the stream fails. */
int am_cuda_lost(am_stream *s, cudaError_t e, const char *what);

/* Between the files of the host side (backend_cuda.c, memory.c, graph.c); see backend.h's vtable.
 */
int am_cuda_check_alive(const am_stream *s);
int am_cuda_stream_sync(am_stream *s);
int am_cuda_syncs_each(void); /* AM_SYNC=1 */
int am_cuda_transfer(am_stream *s, void *dst, const void *src, size_t bytes, int kind);
int am_cuda_alloc(am_stream *s, void **p, size_t bytes);
void am_cuda_release(am_stream *s, void *p);
int am_cuda_graph_begin(am_stream *s, int record);
int am_cuda_graph_end(am_stream *s, void **graph, const char **unfit);
int am_cuda_graph_run(am_stream *s, void *graph, uint64_t shift);
void am_cuda_graph_release(am_stream *s, void *graph);
void am_cuda_scratch_close(am_stream *s);
/* For a launcher in this stream; the engine's cache is emptied where there is no room. */
int am_cuda_alloc_for(am_stream *s, void **p, size_t bytes);
int am_cuda_ring_open(am_cuda_ring *r);
void am_cuda_ring_close(am_cuda_ring *r);

/* What am_backend_entry hands out. */
const am_backend *am_cuda_vtable(void);

/* Has cuBLASLt the product in 8 bits on this GPU, for n columns, formats and scales like these? */
int am_cuda_fp8_library(const am_fp8_gemm_args *args);
/* The product by it: trans_b alone, k a multiple of 16, scales of both operands by the row and the
 * column, or of neither. AM_EUNSUP, without a message, where it has no algorithm after all. */
int am_cuda_fp8_product(am_stream *s, const am_fp8_gemm_args *args);

/* Launchers. */
#define K(name, pointers) int am_cuda_##name(am_stream *s, const am_##name##_args *args);
#include "kernels.def"
#undef K

#if defined(__cplusplus)
}
#endif
