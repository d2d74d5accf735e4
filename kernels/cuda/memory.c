/* memory.c — the device's memory in the stream's order, a launcher's scratch, and copies through
 * pinned buffers.
 *
 * An allocation belongs to whom it is handed from its place in the stream on, and is given back
 * when the stream comes to its release: neither waits. A block that NCCL's stream uses is
 * released when this stream waits for the end of the collective (nccl.c's order), or the host has
 * seen it (its wait, and give_up). */
#include <string.h>

#include "cuda_backend.h"

enum { SCRATCH_STEP = 1 << 20, ROUND = 256 };

/* ---- memory --------------------------------------------------------------------------------- */

int am_cuda_alloc(void **p, size_t bytes, cudaStream_t stream)
{
    size_t n = bytes ? bytes : 1;
    cudaError_t e = cudaMallocAsync(p, n, stream);
    if (e == cudaErrorMemoryAllocation) { /* what was released may still be in the queue */
        (void)cudaGetLastError();
        e = cudaStreamSynchronize(stream);
        if (e == cudaSuccess)
            e = cudaMallocAsync(p, n, stream);
    }
    return e == cudaSuccess ? AM_OK : am_cuda_fail(e, "allocating");
}

int am_cuda_scratch(am_stream *s, void **p, int slot, size_t bytes)
{
    if (s->scratch_bytes[slot] < bytes) {
        size_t n = (bytes + SCRATCH_STEP - 1) / SCRATCH_STEP * SCRATCH_STEP;
        if (s->scratch[slot])
            (void)cudaFreeAsync(s->scratch[slot], s->stream);
        s->scratch[slot] = NULL;
        s->scratch_bytes[slot] = 0;
        int rc = am_cuda_alloc_for(s, &s->scratch[slot], n);
        if (rc != AM_OK)
            return rc;
        s->scratch_bytes[slot] = n;
    }
    *p = s->scratch[slot];
    return AM_OK;
}

/* ---- the ring ------------------------------------------------------------------------------- */

int am_cuda_ring_open(am_cuda_ring *r)
{
    cudaError_t e = cudaMallocHost((void **)&r->bytes, AM_CUDA_RING_PARTS * AM_CUDA_RING_PART);
    for (int i = 0; i < AM_CUDA_RING_PARTS && e == cudaSuccess; i++)
        e = cudaEventCreateWithFlags(&r->done[i], cudaEventDisableTiming);
    return e == cudaSuccess ? AM_OK : am_cuda_fail(e, "allocating pinned memory");
}

void am_cuda_ring_close(am_cuda_ring *r)
{
    for (int i = 0; i < AM_CUDA_RING_PARTS; i++)
        if (r->done[i])
            (void)cudaEventDestroy(r->done[i]);
    (void)cudaFreeHost(r->bytes);
}

/* Room for n bytes, AM_CUDA_RING_PART at most. A part that is full is left behind an event, and
 * used again when the copies in it have run. */
static cudaError_t room(am_stream *s, char **at, size_t n)
{
    am_cuda_ring *r = &s->ring;
    if (r->used + n > AM_CUDA_RING_PART) {
        cudaError_t e = cudaEventRecord(r->done[r->part], s->stream);
        r->part = (r->part + 1) % AM_CUDA_RING_PARTS;
        r->used = 0;
        if (e == cudaSuccess)
            e = cudaEventSynchronize(r->done[r->part]);
        if (e != cudaSuccess)
            return e;
    }
    *at = r->bytes + (size_t)r->part * AM_CUDA_RING_PART + r->used;
    r->used += (n + ROUND - 1) / ROUND * ROUND;
    return cudaSuccess;
}

static size_t piece(size_t left)
{
    return left < AM_CUDA_RING_PART ? left : AM_CUDA_RING_PART;
}

/* The bytes are taken from src, and on their way. */
static cudaError_t upload(am_stream *s, char *dst, const char *src, size_t bytes)
{
    cudaError_t e = cudaSuccess;
    for (size_t n; bytes && e == cudaSuccess; dst += n, src += n, bytes -= n) {
        char *at;
        n = piece(bytes);
        e = room(s, &at, n);
        if (e == cudaSuccess) {
            memcpy(at, src, n);
            e = cudaMemcpyAsync(dst, at, n, cudaMemcpyHostToDevice, s->stream);
        }
    }
    return e;
}

/* A piece but the last fills a part of the ring: it is copied out while the next one is on its way.
 */
static int download(am_stream *s, char *dst, const char *src, size_t bytes)
{
    char *at = NULL, *before = NULL;
    int part = 0;
    size_t begin = 0, n = 0;
    for (cudaError_t e; begin < bytes; begin += n) {
        if (begin) {
            before = at;
            part = s->ring.part;
        }
        n = piece(bytes - begin);
        e = room(s, &at, n);
        if (e == cudaSuccess)
            e = cudaMemcpyAsync(at, src + begin, n, cudaMemcpyDeviceToHost, s->stream);
        if (e == cudaSuccess && before)
            e = cudaEventSynchronize(s->ring.done[part]);
        if (e != cudaSuccess)
            return am_cuda_lost(s, e, "copying");
        if (before)
            memcpy(dst + begin - AM_CUDA_RING_PART, before, AM_CUDA_RING_PART);
    }
    int rc = am_cuda_stream_sync(s);
    if (rc == AM_OK && bytes)
        memcpy(dst + bytes - n, at, n);
    return rc;
}

int am_cuda_transfer(am_stream *s, void *dst, const void *src, size_t bytes, int kind)
{
    int rc = am_cuda_check_alive(s);
    if (rc != AM_OK)
        return rc;
    if (kind == AM_COPY_TO_HOST)
        return download(s, dst, src, bytes);
    cudaError_t e = kind == AM_COPY_TO_DEVICE
                        ? upload(s, dst, src, bytes)
                        : cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, s->stream);
    return e == cudaSuccess ? AM_OK : am_cuda_lost(s, e, "copying");
}
