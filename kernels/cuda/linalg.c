/* linalg.c — symmetric eigenproblems and QR, which a GPU has no use for at these sizes: the
 * matrices come to the host, where ../cpu/linalg.h's code works on them, and go back. */
#define AM_LINALG_TEAM(work) 1
#include "../cpu/linalg.h"

#include "cuda_backend.h"

/* What was queued before has run, and so has the copy, when it returns. */
static int transfer(am_stream *s, void *to, const void *from, int64_t n, enum cudaMemcpyKind kind)
{
    int rc = am_cuda_outside_graphs(s, "the host factors a matrix");
    if (rc != AM_OK)
        return rc;
    cudaError_t e = cudaMemcpyAsync(to, from, (size_t)n * sizeof(double), kind, s->stream);
    if (e == cudaSuccess)
        e = cudaStreamSynchronize(s->stream);
    return e == cudaSuccess ? AM_OK : am_cuda_fail(e, "copying a matrix");
}

static int host_buffer(double **p, int64_t n)
{
    cudaError_t e = cudaMallocHost((void **)p, (size_t)n * sizeof **p);
    return e == cudaSuccess ? AM_OK : am_cuda_fail(e, "allocating a matrix on the host");
}

int am_cuda_eigh(am_stream *s, const am_eigh_args *args)
{
    int64_t n = args->n;
    if (n == 0)
        return AM_OK;
    double *vectors;
    int rc = host_buffer(&vectors, n * n + n + n * (n + 4));
    if (rc != AM_OK)
        return rc;
    double *values = vectors + n * n;
    rc = transfer(s, vectors, args->vectors, n * n, cudaMemcpyDeviceToHost);
    if (rc == AM_OK)
        rc = eigh(&(am_eigh_args){vectors, values, values + n, n});
    if (rc == AM_OK)
        rc = transfer(s, args->vectors, vectors, n * n, cudaMemcpyHostToDevice);
    if (rc == AM_OK)
        rc = transfer(s, args->values, values, n, cudaMemcpyHostToDevice);
    (void)cudaFreeHost(vectors);
    return rc;
}

int am_cuda_qr(am_stream *s, const am_qr_args *args)
{
    int64_t n = args->n;
    if (n == 0)
        return AM_OK;
    double *q;
    int rc = host_buffer(&q, n * n + n * (n + 1));
    if (rc != AM_OK)
        return rc;
    rc = transfer(s, q, args->q, n * n, cudaMemcpyDeviceToHost);
    if (rc == AM_OK)
        rc = qr(&(am_qr_args){q, q + n * n, n});
    if (rc == AM_OK)
        rc = transfer(s, args->q, q, n * n, cudaMemcpyHostToDevice);
    (void)cudaFreeHost(q);
    return rc;
}
