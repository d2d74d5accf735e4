/* graph.c — launches that are recorded in a CUDA graph instead of done, and the graphs' runs
 * (api/graphs.h).
 *
 * A record has addresses in it. So what a rehearsal and a record use stays where it is until the
 * stream goes: scratch memory is a set of its own (memory.c), tensors come from a pool of their own
 * (the engine's mem.c). The number of a random stream is taken relative to a word in device memory,
 * which each run sets. */
#include <stdbool.h>

#include "cuda_backend.h"

int am_cuda_outside_graphs(am_stream *s, const char *what)
{
    if (s->mode != AM_CUDA_LAUNCHED && !s->unfit)
        s->unfit = what;
    return s->mode == AM_CUDA_RECORDED
               ? am_kernel_fail(AM_ESTATE, "cuda: this can't be recorded in a graph: %s", what)
               : AM_OK;
}

const uint64_t *am_cuda_shift(const am_stream *s)
{
    return s->mode == AM_CUDA_RECORDED ? s->shift : NULL;
}

/* ---- recording ------------------------------------------------------------------------------ */

static int have_shift(am_stream *s)
{
    if (s->shift)
        return AM_OK;
    int rc = am_cuda_alloc_for(s, (void **)&s->shift, sizeof *s->shift);
    if (rc != AM_OK)
        return rc;
    cudaError_t e = cudaMemsetAsync(s->shift, 0, sizeof *s->shift, s->stream);
    return e == cudaSuccess ? AM_OK : am_cuda_lost(s, e, "clearing memory");
}

int am_cuda_graph_begin(am_stream *s, int record)
{
    int rc = am_cuda_check_alive(s);
    if (rc == AM_OK && am_cuda_syncs_each())
        rc = am_kernel_fail(AM_EUNSUP,
                            "with AM_SYNC=1 each kernel is waited for, and none recorded");
    if (rc == AM_OK)
        rc = have_shift(s);
    if (rc != AM_OK)
        return rc;
    /* Other threads, which watch NCCL, may do what a record can't. */
    cudaError_t e =
        record ? cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal) : cudaSuccess;
    if (e != cudaSuccess)
        return am_cuda_fail(e, "beginning a graph");
    s->mode = record ? AM_CUDA_RECORDED : AM_CUDA_REHEARSED;
    s->unfit = NULL;
    return AM_OK;
}

int am_cuda_graph_end(am_stream *s, void **graph, const char **unfit)
{
    cudaGraph_t recorded = NULL;
    bool record = s->mode == AM_CUDA_RECORDED;
    s->mode = AM_CUDA_LAUNCHED;
    *unfit = s->unfit;
    *graph = NULL;
    if (!record)
        return am_cuda_check_alive(s);
    cudaError_t e = cudaStreamEndCapture(s->stream, &recorded);
    if (e == cudaSuccess && !*unfit)
        e = cudaGraphInstantiateWithFlags((cudaGraphExec_t *)graph, recorded, 0);
    if (recorded)
        (void)cudaGraphDestroy(recorded);
    if (e != cudaSuccess) { /* where something did not fit, it may have broken the record */
        (void)cudaGetLastError();
        if (!*unfit)
            *unfit = cudaGetErrorString(e);
    }
    return AM_OK;
}

int am_cuda_graph_run(am_stream *s, void *graph, uint64_t shift)
{
    int rc = am_cuda_check_alive(s);
    if (rc == AM_OK && shift != s->shifted) {
        rc = am_cuda_transfer(s, s->shift, &shift, sizeof shift, AM_COPY_TO_DEVICE);
        if (rc == AM_OK)
            s->shifted = shift;
    }
    if (rc != AM_OK)
        return rc;
    cudaError_t e = cudaGraphLaunch(graph, s->stream);
    return e == cudaSuccess ? AM_OK : am_cuda_lost(s, e, "running a graph");
}

void am_cuda_graph_release(am_stream *s, void *graph)
{
    (void)cudaStreamSynchronize(s->stream); /* it may be running */
    (void)cudaGraphExecDestroy(graph);
}
