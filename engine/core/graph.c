/* graph.c — work that a device has recorded: the host's side, which is what a run changes beside
 * the device's memory. The record itself is the backend's (graph_begin to graph_run in backend.h);
 * memory of tensors that are made meanwhile is the graphs' pool in mem.c. */
#include <stdbool.h>
#include <string.h>

#include "../backend.h"
#include "device.h"
#include "error.h"
#include "mem.h"
#include "tensor.h"

struct am_graph {
    int device, begun;
    void *record;           /* the backend's; NULL: none */
    int64_t n;              /* of parameters */
    am_tensor **parameters; /* kept */
    bool *empty, *filled;   /* had no gradient when the record began; have one when it ended */
    uint64_t seed, stream;  /* of the generator when the record began */
    uint64_t streams;       /* that the work draws */
};

static am_graph *under_way;
static int recording;
static int64_t blocks_before; /* of the graphs' pool that were in use when it began */
static int graphs;            /* in the process */

static int find_backend(const am_graph *g, const am_backend **be, am_stream **stream)
{
    AM_TRY(am_device_open(g->device, be, stream));
    return (*be)->graph_begin ? AM_OK : am_fail(AM_EUNSUP, "%s records no graphs", (*be)->name);
}

/* ---- making and releasing ---------------------------------------------------------------- */

void am_graph_release(am_graph *g)
{
    const am_backend *be;
    am_stream *stream;
    const char *unfit;
    if (!g)
        return;
    if (under_way == g)
        (void)am_graph_end(g, &unfit);
    if (g->record && am_device_open(g->device, &be, &stream) == AM_OK)
        be->graph_release(stream, g->record);
    for (int64_t i = 0; g->parameters && i < g->n; i++)
        am_tensor_release(g->parameters[i]);
    am_free(g->parameters);
    am_free(g->empty);
    am_free(g->filled);
    am_free(g);
    if (--graphs == 0)
        am_mem_drop_graph_pool(g->device);
}

static int keep_parameters(am_graph *g, am_tensor *const *parameters, int64_t n)
{
    void *p;
    AM_TRY(am_alloc(&p, (size_t)n * sizeof *g->empty));
    g->empty = p;
    AM_TRY(am_alloc(&p, (size_t)n * sizeof *g->filled));
    g->filled = p;
    AM_TRY(am_alloc(&p, (size_t)n * sizeof *g->parameters));
    g->parameters = p;
    for (; g->n < n; g->n++) {
        am_tensor *t = parameters[g->n];
        AM_TRY(am_tensor_check_alive(t, "a graph's parameter"));
        if (t->device != parameters[0]->device)
            return am_fail(AM_EINVAL, "a graph's parameters are on %s and on %s",
                           am_device_name(parameters[0]->device), am_device_name(t->device));
        am_tensor_retain(t);
        g->parameters[g->n] = t;
    }
    return AM_OK;
}

int am_graph_new(am_graph **out, am_tensor *const *parameters, int64_t n)
{
    const am_backend *be;
    am_stream *stream;
    void *p;
    if (n < 1)
        return am_fail(AM_EINVAL, "a graph needs parameters: they say on which device it is");
    AM_TRY(am_alloc(&p, sizeof(am_graph)));
    am_graph *g = p;
    graphs++;
    int rc = keep_parameters(g, parameters, n);
    g->device = g->n ? g->parameters[0]->device : AM_DEVICE_CPU;
    if (rc == AM_OK)
        rc = find_backend(g, &be, &stream);
    if (rc != AM_OK) {
        am_graph_release(g);
        return rc;
    }
    *out = g;
    return AM_OK;
}

/* ---- recording --------------------------------------------------------------------------- */

int am_graph_begin(am_graph *g, int record)
{
    const am_backend *be;
    am_stream *stream;
    if (under_way)
        return am_fail(AM_ESTATE, "a graph is being recorded already");
    if (g->record)
        return am_fail(AM_ESTATE, "this graph is recorded already");
    AM_TRY(find_backend(g, &be, &stream));
    AM_TRY(be->graph_begin(stream, record));
    (void)am_rng_get(&g->seed, &g->stream);
    for (int64_t i = 0; i < g->n; i++)
        g->empty[i] = g->parameters[i]->grad_empty;
    am_mem_set_pool(g->device, AM_POOL_GRAPHS);
    blocks_before = am_mem_graph_blocks(g->device);
    under_way = g;
    g->begun = 1;
    recording = record;
    return AM_OK;
}

/* The host is as it was when the record began: each run does what was done to it. */
static void take_back(am_graph *g)
{
    uint64_t seed, stream;
    (void)am_rng_get(&seed, &stream);
    g->streams = stream - g->stream;
    (void)am_rng_set(g->seed, g->stream);
    for (int64_t i = 0; i < g->n; i++) {
        g->filled[i] = g->empty[i] && !g->parameters[i]->grad_empty;
        g->parameters[i]->grad_empty = g->empty[i];
    }
}

int am_graph_end(am_graph *g, const char **unfit)
{
    const am_backend *be;
    am_stream *stream;
    uint64_t seed, drawn;
    *unfit = NULL;
    if (under_way != g)
        return am_fail(AM_ESTATE, "this graph is not being recorded");
    under_way = NULL;
    am_mem_set_pool(g->device, AM_POOL_COMMON);
    (void)am_rng_get(&seed, &drawn);
    bool seeded = seed != g->seed;
    if (recording)
        take_back(g);
    AM_TRY(find_backend(g, &be, &stream));
    AM_TRY(be->graph_end(stream, &g->record, unfit));
    if (!*unfit && seeded)
        *unfit = "it seeds the random generator";
    if (!*unfit && am_mem_graph_blocks(g->device) > blocks_before)
        *unfit = "it leaves tensors behind";
    if (*unfit && g->record) {
        be->graph_release(stream, g->record);
        g->record = NULL;
    }
    return AM_OK;
}

int am_graph_undo(am_graph *g)
{
    if (under_way == g)
        return am_fail(AM_ESTATE, "this graph is being recorded");
    if (!g->begun)
        return AM_OK;
    for (int64_t i = 0; i < g->n; i++)
        if (!g->empty[i] && g->parameters[i]->requires_grad)
            return am_fail(AM_ESTATE, "gradients from before may have been added to");
    for (int64_t i = 0; i < g->n; i++)
        g->parameters[i]->grad_empty = g->empty[i];
    return am_rng_set(g->seed, g->stream);
}

int am_graph_run(am_graph *g)
{
    const am_backend *be;
    am_stream *stream;
    uint64_t seed, next;
    if (under_way)
        return am_fail(AM_ESTATE, "a graph is being recorded, and no other can run");
    if (!g->record)
        return am_fail(AM_ESTATE, "this graph has no record");
    AM_TRY(find_backend(g, &be, &stream));
    (void)am_rng_get(&seed, &next);
    AM_TRY(be->graph_run(stream, g->record, next - g->stream));
    (void)am_rng_set(seed, next + g->streams);
    for (int64_t i = 0; i < g->n; i++)
        if (g->filled[i])
            g->parameters[i]->grad_empty = false;
    return AM_OK;
}

/* ---- what a record goes by ---------------------------------------------------------------- */

/* FNV-1a (Fowler, Noll and Vo), eight bytes at a time. */
static void mix(uint64_t *hash, uint64_t value)
{
    *hash = (*hash ^ value) * UINT64_C(0x100000001b3);
    *hash ^= *hash >> 32;
}

int am_graph_state(uint64_t *state, am_tensor *const *parameters, int64_t n)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325), seed, stream;
    (void)am_rng_get(&seed, &stream);
    mix(&hash, seed);
    for (int64_t i = 0; i < n; i++) {
        const am_tensor *t = parameters[i];
        AM_TRY(am_tensor_check_alive(t, "a graph's parameter"));
        mix(&hash, (uintptr_t)am_tensor_ptr(t));
        mix(&hash, (uint64_t)t->requires_grad << 1 | (uint64_t)t->grad_empty);
        mix(&hash, t->grad ? (uintptr_t)am_tensor_ptr(t->grad) : 0);
    }
    *state = hash;
    return AM_OK;
}
