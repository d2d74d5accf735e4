/* nccl.c — ranks that exchange tensors on their GPUs: NCCL behind the border of engine/dist/comm.h,
 * as an engine for a device. It is a part of amlua_cuda.so where nccl.h was found, and opens NCCL
 * itself when ranks meet, so a machine without it still trains on one GPU.
 *
 * A group has a stream of its own. A collective runs in it behind what the backend's stream held
 * when it was begun, so that backward goes on meanwhile; who uses what it wrote has the backend's
 * stream wait for its end (`order`), and comm.c's thread sees to it that it comes. NCCL sums bf16
 * in bf16, so 16-bit floats are summed as f32 here, between two conversions. Communicators don't
 * block: a rank that never comes is given up like any other. */
#include <dlfcn.h>
#include <nccl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda_backend.h"
#include "dist/comm.h"
#include "nccl_library.h"

typedef struct group {
    ncclComm_t comm; /* NULL: given up */
    am_stream *own;  /* whose stream collectives run in, and its scratch for wide sums */
    int size, device;
    pthread_mutex_t lock; /* of comm and calls' events: who begins and who waits are two threads */
} group;

enum { SPINS = 500, NAP = 50000 }; /* ns */

/* ---- the library ---------------------------------------------------------------------------- */

#define FUNCTIONS(F)                                                                               \
    F(GetUniqueId)                                                                                 \
    F(CommInitRankConfig)                                                                          \
    F(CommGetAsyncError)                                                                           \
    F(CommFinalize)                                                                                \
    F(CommDestroy)                                                                                 \
    F(CommAbort)                                                                                   \
    F(GetErrorString)                                                                              \
    F(GetLastError)                                                                                \
    F(AllReduce)                                                                                   \
    F(ReduceScatter)                                                                               \
    F(AllGather)                                                                                   \
    F(Broadcast)                                                                                   \
    F(Send)                                                                                        \
    F(Recv)                                                                                        \
    F(GroupStart)                                                                                  \
    F(GroupEnd)

static struct {
#define F(name) __typeof__(&nccl##name) name;
    FUNCTIONS(F)
#undef F
} nccl;

static int open_library(am_comm_call *call)
{
    static void *library;
    if (library)
        return AM_OK;
    void *opened = dlopen(AM_NCCL_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    const char *missing = NULL;
    if (!opened) {
        snprintf(call->message, sizeof call->message,
                 "NCCL can't be opened: %.300s; install libnccl2, or set device: cpu", dlerror());
        return AM_ECOMM;
    }
#define F(name)                                                                                    \
    *(void **)&nccl.name = dlsym(opened, "nccl" #name);                                            \
    if (!nccl.name)                                                                                \
        missing = "nccl" #name;
    FUNCTIONS(F)
#undef F
    if (missing) {
        snprintf(call->message, sizeof call->message,
                 "this NCCL has no %s: one from 2.14 on is needed", missing);
        return AM_ECOMM;
    }
    library = opened;
    return AM_OK;
}

/* ---- failing and waiting -------------------------------------------------------------------- */

static void give_up(void *self)
{
    group *g = self;
    pthread_mutex_lock(&g->lock);
    if (g->comm)
        (void)nccl.CommAbort(g->comm); /* ends what runs on the device */
    g->comm = NULL;
    pthread_mutex_unlock(&g->lock);
    (void)cudaStreamSynchronize(g->own->stream); /* tensors go back to their owners now */
}

static int failed(ncclResult_t r, am_comm_call *call)
{
    const char *more = nccl.GetLastError(NULL);
    snprintf(call->message, sizeof call->message, "NCCL: %s%s%.300s", nccl.GetErrorString(r),
             more && *more ? ": " : "", more ? more : "");
    return AM_ECOMM;
}

static int failed_cuda(cudaError_t e, am_comm_call *call)
{
    snprintf(call->message, sizeof call->message, "cuda: %s", cudaGetErrorString(e));
    return AM_ECOMM;
}

static void nap(int round)
{
    if (round < SPINS)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = NAP}, NULL);
}

static int went(ncclResult_t r)
{
    return r == ncclSuccess || r == ncclInProgress;
}

/* *state is how NCCL is. AM_ECOMM where the group was given up: no message, so that the first
 * failure is told. */
static int ask_state(group *g, ncclResult_t *state)
{
    int rc = AM_ECOMM;
    pthread_mutex_lock(&g->lock);
    if (g->comm) {
        ncclResult_t r = nccl.CommGetAsyncError(g->comm, state);
        if (r != ncclSuccess)
            *state = r;
        rc = AM_OK;
    }
    pthread_mutex_unlock(&g->lock);
    return rc;
}

/* Wait until NCCL has taken what it was given, of which it said r. */
static int settle(group *g, ncclResult_t r, am_comm_call *call)
{
    for (int round = 0; r == ncclInProgress; nap(round++))
        if (call->wait_on(call) != AM_OK || ask_state(g, &r) != AM_OK)
            return AM_ECOMM;
    return r == ncclSuccess ? AM_OK : failed(r, call);
}

/* ---- joining and leaving -------------------------------------------------------------------- */

static int invite(uint8_t *id, char device[AM_COMM_DEVICE], am_comm_call *call)
{
    int ordinal;
    struct cudaDeviceProp p;
    ncclUniqueId unique;
    _Static_assert(sizeof unique == AM_COMM_ID, "an id's bytes");
    int rc = open_library(call);
    if (rc != AM_OK)
        return rc;
    cudaError_t e = cudaGetDevice(&ordinal);
    if (e == cudaSuccess)
        e = cudaGetDeviceProperties(&p, ordinal);
    if (e != cudaSuccess)
        return failed_cuda(e, call);
    if (id) { /* each id has a thread and a socket that listens */
        ncclResult_t r = nccl.GetUniqueId(&unique);
        if (r != ncclSuccess)
            return failed(r, call);
        memcpy(id, &unique, sizeof unique);
    }
    for (int i = 0; i < 16; i++)
        snprintf(device + 2 * i, 3, "%02x", (unsigned char)p.uuid.bytes[i]);
    return AM_OK;
}

static void close_group(void *self)
{
    group *g = self;
    if (!g)
        return;
    if (g->own)
        (void)cudaStreamSynchronize(g->own->stream);
    if (g->comm) { /* comm.c has waited for all works */
        ncclResult_t r = nccl.CommFinalize(g->comm);
        for (int round = 0; r == ncclInProgress && round < 100 * SPINS; nap(round++))
            (void)ask_state(g, &r);
        (void)(r == ncclSuccess ? nccl.CommDestroy(g->comm) : nccl.CommAbort(g->comm));
    }
    am_cuda_vtable()->stream_release(g->own);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static int join(void **out, const uint8_t id[AM_COMM_ID], int rank, int size, am_comm_call *call)
{
    group *g = calloc(1, sizeof *g);
    ncclUniqueId unique;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    if (!g || am_cuda_vtable()->stream_new(&g->own) != AM_OK) {
        free(g);
        snprintf(call->message, sizeof call->message, "out of memory");
        return AM_ECOMM;
    }
    pthread_mutex_init(&g->lock, NULL);
    g->size = size;
    (void)cudaGetDevice(&g->device);
    memcpy(&unique, id, sizeof unique);
    config.blocking = 0;
    int rc = settle(g, nccl.CommInitRankConfig(&g->comm, size, unique, rank, &config), call);
    if (rc != AM_OK) {
        give_up(g);
        close_group(g);
        return rc;
    }
    *out = g;
    return AM_OK;
}

/* ---- beginning ------------------------------------------------------------------------------ */

/* The group's stream goes on when the backend's has come to where it is now. */
static int follow(group *g, am_comm_call *call)
{
    cudaEvent_t event;
    cudaError_t e = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (e != cudaSuccess)
        return failed_cuda(e, call);
    call->event = event;
    e = cudaEventRecord(event, ((am_stream *)call->stream)->stream);
    if (e == cudaSuccess)
        e = cudaStreamWaitEvent(g->own->stream, event, 0);
    return e == cudaSuccess ? AM_OK : failed_cuda(e, call);
}

/* On AM_OK the lock is held, under which nothing may wait for the device. AM_ECOMM, without a
 * message, as ask_state's. */
static int enter(group *g)
{
    pthread_mutex_lock(&g->lock);
    if (g->comm)
        return AM_OK;
    pthread_mutex_unlock(&g->lock);
    return AM_ECOMM;
}

static int begin(group *g, am_comm_call *call)
{
    int rc = follow(g, call);
    return rc == AM_OK ? enter(g) : rc;
}

/* NCCL said r of what it was given; the lock is held. */
static int taken(group *g, ncclResult_t r, am_comm_call *call)
{
    pthread_mutex_unlock(&g->lock);
    return settle(g, r, call);
}

/* rc of all that belongs to a collective, whose end the event marks then. */
static int begun(group *g, int rc, am_comm_call *call)
{
    if (rc == AM_OK) {
        cudaError_t e = cudaEventRecord(call->event, g->own->stream);
        if (e == cudaSuccess)
            return AM_OK;
        rc = failed_cuda(e, call);
    }
    if (call->event)
        (void)cudaEventDestroy(call->event);
    call->event = NULL;
    return rc;
}

static int wait(void *self, am_comm_call *call)
{
    group *g = self;
    int rc = AM_OK;
    (void)cudaSetDevice(g->device); /* of this thread */
    for (int round = 0;; nap(round++)) {
        cudaError_t e = cudaEventQuery(call->event);
        ncclResult_t r = ncclSuccess;
        rc = ask_state(g, &r);
        if (rc != AM_OK)
            break;
        if (!went(r))
            rc = failed(r, call);
        else if (e != cudaSuccess && e != cudaErrorNotReady)
            rc = failed_cuda(e, call);
        else if (e == cudaErrorNotReady && call->wait_on(call) != AM_OK)
            rc = AM_ECOMM;
        if (rc != AM_OK || e == cudaSuccess)
            break;
    }
    pthread_mutex_lock(&g->lock);
    (void)cudaEventDestroy(call->event); /* a stream that waits for it goes on doing so */
    call->event = NULL;
    pthread_mutex_unlock(&g->lock);
    return rc;
}

static int order(void *self, am_comm_call *call)
{
    group *g = self;
    int rc = AM_ECOMM;
    pthread_mutex_lock(&g->lock);
    if (g->comm && call->event &&
        cudaStreamWaitEvent(((am_stream *)call->stream)->stream, call->event, 0) == cudaSuccess)
        rc = AM_OK;
    pthread_mutex_unlock(&g->lock);
    return rc;
}

/* ---- collectives ---------------------------------------------------------------------------- */

static ncclDataType_t type_of(int dtype)
{
    switch (dtype) {
    case AM_F64:
        return ncclFloat64;
    case AM_I32:
        return ncclInt32;
    case AM_I64:
        return ncclInt64;
    default:
        return ncclFloat32;
    }
}

static int convert(group *g, void *out, int dtype_out, const void *a, int dtype_a, int64_t n)
{
    am_copy_args args = {.out = out, .a = a, .dtype_out = dtype_out, .dtype_a = dtype_a};
    args.nd.ndim = 1;
    args.nd.shape[0] = n;
    args.nd.stride[0][0] = args.nd.stride[1][0] = 1;
    return am_cuda_copy(g->own, &args);
}

/* One part is what `from` holds of a rank: all of it, or, to scatter, as much as comes back. */
typedef struct reduction {
    void *to;
    const void *from;
    int64_t n;
    int scatter, dtype;
} reduction;

static int reduce_as(group *g, const reduction *x, am_comm_call *call)
{
    ncclRedOp_t op = call->op == AM_SUM ? ncclSum : call->op == AM_MAX ? ncclMax : ncclMin;
    ncclDataType_t type = type_of(x->dtype);
    size_t n = (size_t)x->n;
    int rc = enter(g);
    if (rc != AM_OK)
        return rc;
    ncclResult_t r = x->scatter
                         ? nccl.ReduceScatter(x->from, x->to, n, type, op, g->comm, g->own->stream)
                         : nccl.AllReduce(x->from, x->to, n, type, op, g->comm, g->own->stream);
    return taken(g, r, call);
}

static int reduce_wide(group *g, const reduction *x, am_comm_call *call)
{
    int64_t total = x->scatter ? x->n * g->size : x->n;
    void *p;
    int rc =
        am_cuda_scratch(g->own, &p, 0, (size_t)(total + (x->scatter ? x->n : 0)) * sizeof(float));
    if (rc == AM_OK)
        rc = convert(g, p, AM_F32, x->from, x->dtype, total);
    if (rc != AM_OK)
        return rc;
    reduction wide = *x;
    wide.from = p;
    wide.to = x->scatter ? (float *)p + total : p;
    wide.dtype = AM_F32;
    rc = reduce_as(g, &wide, call);
    return rc == AM_OK ? convert(g, x->to, x->dtype, wide.to, AM_F32, x->n) : rc;
}

static int reduce(group *g, const reduction *x, am_comm_call *call)
{
    int rc = follow(g, call);
    if (rc == AM_OK)
        rc = x->dtype == AM_BF16 || x->dtype == AM_F16 ? reduce_wide(g, x, call)
                                                       : reduce_as(g, x, call);
    return begun(g, rc, call);
}

static int all_reduce(void *self, void *x, int64_t n, am_comm_call *call)
{
    const reduction whole = {.to = x, .from = x, .n = n, .dtype = call->dtype};
    return reduce(self, &whole, call);
}

static int reduce_scatter(void *self, void *to, const void *from, int64_t n, am_comm_call *call)
{
    const reduction parts = {.to = to, .from = from, .n = n, .scatter = 1, .dtype = call->dtype};
    return reduce(self, &parts, call);
}

static int all_gather(void *self, void *to, const void *from, int64_t n, am_comm_call *call)
{
    group *g = self;
    int rc = begin(g, call);
    if (rc == AM_OK)
        rc =
            taken(g, nccl.AllGather(from, to, (size_t)n, ncclUint8, g->comm, g->own->stream), call);
    return begun(g, rc, call);
}

static int broadcast(void *self, void *x, int64_t n, int root, am_comm_call *call)
{
    group *g = self;
    int rc = begin(g, call);
    if (rc == AM_OK)
        rc = taken(g, nccl.Broadcast(x, x, (size_t)n, ncclUint8, root, g->comm, g->own->stream),
                   call);
    return begun(g, rc, call);
}

/* Counts are of bytes. */
static int all_to_all(void *self, void *to, const int64_t *to_counts, const void *from,
                      const int64_t *from_counts, am_comm_call *call)
{
    group *g = self;
    char *into = to;
    const char *out = from;
    int rc = begin(g, call);
    if (rc != AM_OK)
        return begun(g, rc, call);
    ncclResult_t r = nccl.GroupStart(), end;
    for (int peer = 0; peer < g->size && went(r); peer++) {
        if (from_counts[peer])
            r = nccl.Send(out, (size_t)from_counts[peer], ncclUint8, peer, g->comm, g->own->stream);
        if (to_counts[peer] && went(r))
            r = nccl.Recv(into, (size_t)to_counts[peer], ncclUint8, peer, g->comm, g->own->stream);
        out += from_counts[peer];
        into += to_counts[peer];
    }
    end = nccl.GroupEnd();
    return begun(g, taken(g, went(r) ? end : r, call), call);
}

/* Ranks' sends and receives come in one order between any two, so tags tell nothing more. */
static int send_to(void *self, const void *x, int64_t n, int to, int tag, am_comm_call *call)
{
    group *g = self;
    int rc = begin(g, call);
    (void)tag;
    if (rc == AM_OK)
        rc = taken(g, nccl.Send(x, (size_t)n, ncclUint8, to, g->comm, g->own->stream), call);
    return begun(g, rc, call);
}

static int recv_from(void *self, void *x, int64_t n, int from, int tag, am_comm_call *call)
{
    group *g = self;
    int rc = begin(g, call);
    (void)tag;
    if (rc == AM_OK)
        rc = taken(g, nccl.Recv(x, (size_t)n, ncclUint8, from, g->comm, g->own->stream), call);
    return begun(g, rc, call);
}

static const am_comm_engine engine = {
    .size = sizeof(am_comm_engine),
    .version = AM_COMM_VERSION,
    .name = "nccl",
    .close = close_group,
    .all_reduce = all_reduce,
    .reduce_scatter = reduce_scatter,
    .all_gather = all_gather,
    .broadcast = broadcast,
    .all_to_all = all_to_all,
    .send = send_to,
    .recv = recv_from,
    .invite = invite,
    .join = join,
    .wait = wait,
    .order = order,
    .give_up = give_up,
};

__attribute__((visibility("default"))) const am_comm_engine *am_comm_engine_entry(void);
const am_comm_engine *am_comm_engine_entry(void)
{
    return &engine;
}
