/* memory.c — the device's memory in the stream's order, a launcher's scratch, and copies through
 * pinned buffers.
 *
 * An allocation belongs to whom it is handed from its place in the stream on, and is given back
 * when the stream comes to its release: neither waits. A block that NCCL's stream uses is
 * released when this stream waits for the end of the collective (nccl.c's order), or the host has
 * seen it (its wait, and give_up). */
#include <stdbool.h>
#include <string.h>

#include "cuda_backend.h"

enum { ROUND = 256 };

/* Scratch grows in such steps: in tests by the byte, so that nothing lies behind it. */
#ifndef AM_SCRATCH_STEP
#define AM_SCRATCH_STEP ((size_t)1 << 20)
#endif

/* ---- memory --------------------------------------------------------------------------------- */

int am_cuda_alloc(am_stream *s, void **p, size_t bytes)
{
    size_t n = bytes ? bytes : 1;
    if (s->mode == AM_CUDA_RECORDED)
        return am_cuda_outside_graphs(s, "it needs memory that it did not need before");
    cudaError_t e = cudaMallocAsync(p, n, s->stream);
    if (e == cudaErrorMemoryAllocation) { /* what was released may still be in the queue */
        (void)cudaGetLastError();
        e = cudaStreamSynchronize(s->stream);
        if (e == cudaSuccess)
            e = cudaMallocAsync(p, n, s->stream);
    }
    return e == cudaSuccess ? AM_OK : am_cuda_fail(e, "allocating");
}

/* Have memory stay until the stream goes; what finds no room is given back with the process. */
static void keep(am_stream *s, void *p)
{
    if (s->n_kept < AM_CUDA_KEPT)
        s->kept[s->n_kept++] = p;
}

/* A rehearsal may make room for the memory of graphs; what its record gives back is told then. */
void am_cuda_release(am_stream *s, void *p)
{
    if (s->mode != AM_CUDA_RECORDED) {
        (void)cudaFreeAsync(p, s->stream);
        return;
    }
    (void)am_cuda_outside_graphs(s, "it gives memory back");
    keep(s, p);
}

/* More scratch memory for a slot. What graphs have been recorded with stays; sizes double, so what
 * stays is no more than what is in use. */
static int grow(am_stream *s, am_cuda_scratches *have, int slot, size_t bytes)
{
    size_t n = (bytes + AM_SCRATCH_STEP - 1) / AM_SCRATCH_STEP * AM_SCRATCH_STEP;
    bool for_graphs = have == &s->graph_scratch;
    if (for_graphs && n < 2 * have->bytes[slot])
        n = 2 * have->bytes[slot];
    if (have->p[slot] && for_graphs)
        keep(s, have->p[slot]);
    else if (have->p[slot])
        (void)cudaFreeAsync(have->p[slot], s->stream);
    have->p[slot] = NULL;
    have->bytes[slot] = 0;
    int rc = am_cuda_alloc_for(s, &have->p[slot], n);
    if (rc == AM_OK)
        have->bytes[slot] = n;
    return rc;
}

int am_cuda_scratch(am_stream *s, void **p, int slot, size_t bytes)
{
    am_cuda_scratches *have = s->mode == AM_CUDA_LAUNCHED ? &s->scratch : &s->graph_scratch;
    if (have->bytes[slot] < bytes) {
        int rc = grow(s, have, slot, bytes);
        if (rc != AM_OK)
            return rc;
    }
    *p = have->p[slot];
    return AM_OK;
}

void am_cuda_scratch_close(am_stream *s)
{
    for (int i = 0; i < AM_CUDA_SCRATCH_SLOTS; i++) {
        (void)cudaFree(s->scratch.p[i]);
        (void)cudaFree(s->graph_scratch.p[i]);
    }
    for (int i = 0; i < s->n_kept; i++)
        (void)cudaFree(s->kept[i]);
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
    if (rc == AM_OK && kind != AM_COPY_ON_DEVICE)
        rc = am_cuda_outside_graphs(s, kind == AM_COPY_TO_HOST ? "the host reads a tensor"
                                                               : "the host writes a tensor");
    if (rc != AM_OK)
        return rc;
    if (kind == AM_COPY_TO_HOST)
        return download(s, dst, src, bytes);
    cudaError_t e = kind == AM_COPY_TO_DEVICE
                        ? upload(s, dst, src, bytes)
                        : cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, s->stream);
    return e == cudaSuccess ? AM_OK : am_cuda_lost(s, e, "copying");
}
