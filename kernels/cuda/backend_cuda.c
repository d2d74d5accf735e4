/* backend_cuda.c — the CUDA backend's vtable: the device, streams, what went wrong. Memory and
 * copies are in memory.c, graphs in graph.c. The module amlua_cuda.so is these, cublas.c, cudnn*.c
 * and the kernels; it needs nothing of libamlua.so but what am_backend_entry is handed.
 *
 * A process uses one GPU, and one stream of kernels; each group of NCCL's (nccl.c) has one more.
 * What goes wrong on the device shows late: a launch that
 * fails is told by am_cuda_launched, the rest by the next stream_sync or transfer. AM_SYNC=1 waits
 * for each kernel of the first stream, and names it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_backend.h"
#include "cudnn.h"

enum { OLDEST = 80 }; /* compute capability 8.0 */

static const am_backend_host *host;
static int sync_each;    /* AM_SYNC=1 */
static char text[512];   /* why there is no device, or what it is */
static am_stream *order; /* memory is had and given back in its order: the first stream */

int am_kernel_fail(int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = host->fail(code, fmt, ap);
    va_end(ap);
    return rc;
}

int am_cuda_fail(cudaError_t e, const char *what)
{
    (void)cudaGetLastError(); /* else the next launch seems to have failed */
    return am_kernel_fail(e == cudaErrorMemoryAllocation ? AM_ENOMEM : AM_EDEVICE, "cuda: %s: %s",
                          what, cudaGetErrorString(e));
}

#define TRY_CUDA(call, what)                                                                       \
    do {                                                                                           \
        cudaError_t e_ = (call);                                                                   \
        if (e_ != cudaSuccess)                                                                     \
            return am_cuda_fail(e_, what);                                                         \
    } while (0)

/* ---- what it was built with ----------------------------------------------------------------- */

/* The lowest driver that runs a toolkit's programs: NVIDIA's CUDA Toolkit release notes, "CUDA
 * Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility", Linux. */
static const char *lowest_driver(void)
{
    return CUDART_VERSION >= 13000 ? "580.65.06" : "525.60.13";
}

static const char *cuda_built(void)
{
    static char what[256];
    snprintf(what, sizeof what, "CUDA %d.%d, %s; needs the NVIDIA driver %s or a later one",
             CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, AM_CUDA_MACHINES, lowest_driver());
    return what;
}

/* ---- the device ----------------------------------------------------------------------------- */

static int cuda_probe(const char **why)
{
    int count = 0, driver = 0, runtime = 0;
    *why = text;
    cudaError_t e = cudaGetDeviceCount(&count);
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (e == cudaErrorInsufficientDriver && driver == 0)
        snprintf(text, sizeof text, "no NVIDIA driver is installed here");
    else if (e == cudaErrorInsufficientDriver)
        snprintf(text, sizeof text,
                 "the NVIDIA driver is for CUDA %d.%d at most, and this amlua needs CUDA %d.%d: "
                 "update the driver to %s or later, or build amlua with an older toolkit",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10,
                 lowest_driver());
    else if (e != cudaSuccess)
        snprintf(text, sizeof text, "%s", cudaGetErrorString(e));
    else if (count == 0)
        snprintf(text, sizeof text, "there is no GPU here");
    return e == cudaSuccess ? count : 0;
}

static int cuda_use(int ordinal)
{
    struct cudaDeviceProp p;
    int count, pools = 0, driver = 0;
    TRY_CUDA(cudaGetDeviceCount(&count), "counting devices");
    if (ordinal < 0 || ordinal >= count)
        return am_kernel_fail(AM_EINVAL, "there is no device cuda:%d; there are %d, from cuda:0 on",
                              ordinal, count);
    TRY_CUDA(cudaGetDeviceProperties(&p, ordinal), "asking the device what it is");
    if (p.major * 10 + p.minor < OLDEST)
        return am_kernel_fail(
            AM_EDEVICE,
            "cuda:%d, %s, has compute capability %d.%d; the kernels need %d.%d (A100, RTX 30 and "
            "later)",
            ordinal, p.name, p.major, p.minor, OLDEST / 10, OLDEST % 10);
    TRY_CUDA(cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, ordinal),
             "asking the device for memory pools");
    if (!pools)
        return am_kernel_fail(AM_EDEVICE,
                              "cuda:%d, %s, has no memory pools, as some virtual GPUs do not; they "
                              "are needed",
                              ordinal, p.name);
    TRY_CUDA(cudaSetDevice(ordinal), "choosing the device");
    (void)cudaDriverGetVersion(&driver);
    snprintf(text, sizeof text, "%s, sm_%d%d, %.1f GiB, driver for CUDA %d.%d", p.name, p.major,
             p.minor, (double)p.totalGlobalMem / (1 << 30), driver / 1000, driver % 1000 / 10);
    return AM_OK;
}

static const char *cuda_about(void)
{
    static char all[sizeof text + 256];
    snprintf(all, sizeof all, "%s; %s", text, am_cuda_dnn_about());
    return all;
}

static int cuda_memory(size_t *left, size_t *total)
{
    TRY_CUDA(cudaMemGetInfo(left, total), "asking for free memory");
    return AM_OK;
}

static int cuda_alloc(void **p, size_t bytes)
{
    return am_cuda_alloc(order, p, bytes);
}

static void cuda_release(void *p, size_t bytes)
{
    (void)bytes;
    if (p && order)
        am_cuda_release(order, p);
}

int am_cuda_alloc_for(am_stream *s, void **p, size_t bytes)
{
    cudaEvent_t had;
    int rc = host->alloc(p, bytes);
    if (rc != AM_OK || s == order)
        return rc;
    /* Another stream waits until it is had. Its own cudaFreeAsync gives it back, behind what uses
     * it there. */
    cudaError_t e = cudaEventCreateWithFlags(&had, cudaEventDisableTiming);
    if (e == cudaSuccess) {
        e = cudaEventRecord(had, order->stream);
        if (e == cudaSuccess)
            e = cudaStreamWaitEvent(s->stream, had, 0);
        (void)cudaEventDestroy(had);
    }
    if (e == cudaSuccess)
        return AM_OK;
    cuda_release(*p, bytes);
    return am_cuda_fail(e, "ordering memory");
}

/* ---- streams -------------------------------------------------------------------------------- */

static void cuda_stream_release(am_stream *s)
{
    if (!s)
        return;
    if (s->stream)
        (void)cudaStreamSynchronize(s->stream);
    am_cuda_scratch_close(s);
    (void)cudaFree(s->shift);
    (void)cudaFree(s->problem);
    (void)cudaFreeHost(s->report);
    am_cuda_ring_close(&s->ring);
    if (s->lt)
        (void)cublasLtDestroy(s->lt);
    if (s == order) {
        am_cuda_dnn_close();
        order = NULL;
    }
    if (s->stream)
        (void)cudaStreamDestroy(s->stream);
    free(s);
}

static int open_stream(am_stream *s)
{
    TRY_CUDA(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking), "making a stream");
    TRY_CUDA(cudaMalloc((void **)&s->problem, sizeof *s->problem), "allocating");
    TRY_CUDA(cudaMallocHost((void **)&s->report, sizeof *s->report), "allocating pinned memory");
    TRY_CUDA(cudaMemsetAsync(s->problem, 0, sizeof *s->problem, s->stream), "clearing memory");
    if (cublasLtCreate(&s->lt) != CUBLAS_STATUS_SUCCESS)
        return am_kernel_fail(AM_EDEVICE, "cuda: cuBLASLt can't be opened");
    return am_cuda_ring_open(&s->ring);
}

static int cuda_stream_new(am_stream **out)
{
    am_stream *s = calloc(1, sizeof *s);
    if (!s)
        return am_kernel_fail(AM_ENOMEM, "out of memory: a stream");
    int rc = open_stream(s);
    if (rc != AM_OK) {
        cuda_stream_release(s);
        return rc;
    }
    if (!order)
        order = s;
    *out = s;
    return AM_OK;
}

int am_cuda_lost(am_stream *s, cudaError_t e, const char *what)
{
    if (strstr(cudaGetErrorName(e), "StreamCapture")) { /* the record is spoilt, not the device */
        int rc = am_cuda_outside_graphs(s, cudaGetErrorString(e));
        if (rc != AM_OK)
            return rc;
    }
    s->failed = AM_EDEVICE;
    return am_kernel_fail(
        AM_EDEVICE, "cuda: %s: %s%s", what, cudaGetErrorString(e),
        sync_each ? "" : "; a kernel before it may have failed: AM_SYNC=1 tells which");
}

int am_cuda_check_alive(const am_stream *s)
{
    return s->failed ? am_kernel_fail(s->failed, "cuda: the device failed before; begin anew")
                     : AM_OK;
}

int am_cuda_stream_sync(am_stream *s)
{
    int rc = am_cuda_check_alive(s);
    if (rc == AM_OK)
        rc = am_cuda_outside_graphs(s, "the host waits for the device");
    if (rc != AM_OK)
        return rc;
    cudaError_t e = cudaMemcpyAsync(s->report, s->problem, sizeof *s->report,
                                    cudaMemcpyDeviceToHost, s->stream);
    if (e == cudaSuccess)
        e = cudaStreamSynchronize(s->stream);
    if (e != cudaSuccess)
        return am_cuda_lost(s, e, "waiting for the device");
    if (!s->report->seen)
        return AM_OK;
    TRY_CUDA(cudaMemsetAsync(s->problem, 0, sizeof *s->problem, s->stream), "clearing memory");
    if (s->report->limit == 0)
        return am_kernel_fail(AM_EINVAL, "%s", s->report->what);
    return am_kernel_fail(AM_EINVAL, "%s %lld is outside of 0..%lld", s->report->what,
                          s->report->value, s->report->limit - 1);
}

int am_cuda_syncs_each(void)
{
    return sync_each;
}

int am_cuda_launched_at(am_stream *s, const char *kernel, const char *file, int line)
{
    cudaError_t e = cudaGetLastError();
    if (e == cudaSuccess && sync_each && s == order) /* NCCL's may wait for other ranks */
        e = cudaStreamSynchronize(s->stream);
    if (e == cudaSuccess)
        return AM_OK;
    const char *slash = strrchr(file, '/');
    char what[160];
    snprintf(what, sizeof what, "kernel %s (%s:%d)", kernel, slash ? slash + 1 : file, line);
    return am_cuda_lost(s, e, what);
}

/* ---- the vtable ----------------------------------------------------------------------------- */

static const am_backend cuda = {
    .size = sizeof(am_backend),
    .version = AM_BACKEND_VERSION,
    .name = "cuda",
    .is_host = 0,
    .probe = cuda_probe,
    .use = cuda_use,
    .about = cuda_about,
    .built = cuda_built,
    .memory = cuda_memory,
    .alloc = cuda_alloc,
    .release = cuda_release,
    .transfer = am_cuda_transfer,
    .stream_new = cuda_stream_new,
    .stream_release = cuda_stream_release,
    .stream_sync = am_cuda_stream_sync,
    .graph_begin = am_cuda_graph_begin,
    .graph_end = am_cuda_graph_end,
    .graph_run = am_cuda_graph_run,
    .graph_release = am_cuda_graph_release,
#define K(kernel, pointers) .kernel = am_cuda_##kernel,
#include "kernels.def"
#undef K
};

const am_backend *am_cuda_vtable(void)
{
    return &cuda;
}

const am_backend *am_backend_entry(const am_backend_host *h)
{
    const char *sync = getenv("AM_SYNC");
    host = h;
    sync_each = sync && strcmp(sync, "1") == 0;
    return h->size == sizeof *h ? &cuda : NULL;
}
