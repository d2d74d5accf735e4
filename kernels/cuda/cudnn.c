/* cudnn.c — attention by cuDNN: whether, with which plan, and its memory. Every problem becomes one
 * of samples in places, whose number and length are rounded up, so that batches of other sizes find
 * the plans of earlier ones. A GPU has one thread that queues work, as everywhere in this backend.
 */
#include "cudnn.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cudnn_attention.h"

enum { PLANS = 128, SLOT = 3, OFFSETS = AM_DNN_OFFSET_DKV - AM_DNN_OFFSET_Q + 1 };

typedef struct known_plan {
    am_dnn_attention key;
    am_dnn_plan plan; /* without a descriptor: there is none */
} known_plan;

static struct {
    int opened, off; /* off: own kernels compute from now on */
    am_dnn_library dnn;
    am_dnn_handle handle;
    int capability, count;
    known_plan plans[PLANS];
    char text[256];
} state;

/* ---- the library ---------------------------------------------------------------------------- */

static void open_library(void)
{
    char why[200];
    if (state.opened)
        return;
    state.opened = 1;
    state.off = !am_dnn_open(&state.dnn, why, sizeof why);
    if (state.off)
        snprintf(state.text, sizeof state.text, "no cuDNN: %s", why);
    else
        snprintf(state.text, sizeof state.text, "cuDNN %ld.%ld.%ld", state.dnn.version / 10000,
                 state.dnn.version / 100 % 100, state.dnn.version % 100);
}

const char *am_cuda_dnn_about(void)
{
    open_library();
    return state.text;
}

/* It is not asked again: what failed once would fail each time. */
static int give_up(const char *what, int status)
{
    state.off = 1;
    (void)cudaGetLastError(); /* else the next launch seems to have failed */
    snprintf(state.text, sizeof state.text, "cuDNN failed (%s: %s), own kernels compute attention",
             what, state.dnn.error_text(status));
    return AM_EUNSUP;
}

static int use_library(void)
{
    int device = 0, major = 0, minor = 0;
    open_library();
    if (state.off || state.handle)
        return state.off ? AM_EUNSUP : AM_OK;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess)
        return AM_EUNSUP;
    state.capability = major * 10 + minor;
    int status = state.dnn.create(&state.handle);
    return status == AM_DNN_STATUS_SUCCESS ? AM_OK : give_up("opening it", status);
}

void am_cuda_dnn_close(void)
{
    while (state.count > 0)
        am_dnn_plan_free(&state.dnn, &state.plans[--state.count].plan);
    if (state.handle)
        (void)state.dnn.destroy(state.handle);
    state.handle = NULL; /* the library stays */
}

/* ---- plans ---------------------------------------------------------------------------------- */

static int64_t power_from(int64_t least, int64_t n)
{
    while (least < n)
        least *= 2;
    return least;
}

/* Tokens of a place: a power of two up to 512, then a multiple of it. */
static int64_t room_for(int64_t t)
{
    return t > 512 ? (t + 511) / 512 * 512 : power_from(64, t);
}

static am_dnn_attention problem_of(const am_attention_shape *x, const int32_t *bounds, int backward)
{
    return (am_dnn_attention){.backward = backward,
                              .dtype = x->dtype,
                              .causal = x->causal,
                              .window = x->window > 0,
                              .places = power_from(1, bounds ? x->samples : x->b),
                              .t = room_for(x->t),
                              .h = x->h,
                              .kh = x->kh,
                              .d = x->d,
                              .q = {x->q_token, x->q_head},
                              .k = {x->k_token, x->k_head},
                              .v = {x->v_token, x->v_head}};
}

/* NULL: our kernel has to. */
static am_dnn_plan *plan_for(const am_dnn_attention *key)
{
    int i = 0;
    while (i < state.count && memcmp(&state.plans[i].key, key, sizeof *key) != 0)
        i++;
    if (i == state.count) {
        am_dnn_graph g;
        if (i == PLANS || !am_dnn_attention_listed(key, state.capability))
            return NULL;
        known_plan *p = &state.plans[state.count++];
        p->key = *key;
        am_dnn_graph_begin(&g, &state.dnn);
        int status =
            am_dnn_attention_plan(&g, key, (am_dnn_target){.handle = state.handle}, &p->plan);
        if (status != AM_DNN_STATUS_SUCCESS && status != AM_DNN_STATUS_NOT_SUPPORTED)
            (void)give_up(g.where, status);
        am_dnn_graph_end(&g);
    }
    return state.plans[i].plan.d ? &state.plans[i].plan : NULL;
}

/* ---- a run ---------------------------------------------------------------------------------- */

typedef struct run {
    am_dnn_plan *plan;
    am_dnn_places places;
    float *stats;
    void *delta, *workspace;
    float scale, lowest, window, one;
    int count;
    int64_t uids[AM_DNN_UIDS];
    void *pointers[AM_DNN_UIDS];
} run;

static void name(run *r, int uid, const void *p)
{
    r->uids[r->count] = uid;
    r->pointers[r->count++] = (void *)(uintptr_t)p;
}

static void name_operands(run *r, const void *q, const void *k, const void *v, const void *out)
{
    name(r, AM_DNN_Q, q);
    name(r, AM_DNN_K, k);
    name(r, AM_DNN_V, v);
    name(r, AM_DNN_OUT, out);
}

/* A part of scratch, which begins at a multiple of 256. */
static size_t part(size_t *total, int64_t bytes)
{
    size_t at = *total;
    *total += ((size_t)bytes + 255) / 256 * 256;
    return at;
}

/* The plan, its memory, and the samples. */
static int begin(run *r, am_stream *s, const am_attention_shape *x, const int32_t *bounds,
                 int backward)
{
    void *scratch;
    size_t total = 0;
    if (x->s != x->t || x->t < 2 || x->softcap > 0 || x->dropout_p > 0 ||
        (bounds && x->samples < 1))
        return AM_EUNSUP;
    int rc = use_library();
    if (rc != AM_OK)
        return rc;
    am_dnn_attention key = problem_of(x, bounds, backward);
    memset(r, 0, sizeof *r);
    r->plan = plan_for(&key);
    if (!r->plan)
        return AM_EUNSUP;
    r->places.count = key.places;
    r->places.step = (key.places + 2) / 2 * 2; /* each 16-byte aligned */
    size_t lengths = part(&total, key.places * (int64_t)sizeof(int32_t));
    size_t offsets = part(&total, OFFSETS * r->places.step * (int64_t)sizeof(int64_t));
    size_t stats = part(&total, x->b * x->t * x->h * (int64_t)sizeof(float));
    size_t delta = part(&total, backward ? key.places * key.h * key.t * (int64_t)sizeof(float) : 0);
    size_t workspace = part(&total, r->plan->workspace);
    if (am_cuda_scratch(s, &scratch, SLOT, total) != AM_OK) {
        am_dnn_plan_free(&state.dnn, r->plan); /* our kernel needs less, from now on */
        return AM_EUNSUP;
    }
    r->places.lengths = (int32_t *)((char *)scratch + lengths);
    r->places.offsets = (int64_t *)((char *)scratch + offsets);
    r->stats = (float *)((char *)scratch + stats);
    r->delta = (char *)scratch + delta;
    r->workspace = (char *)scratch + workspace;
    r->scale = (float)x->scale;
    r->lowest = -INFINITY;
    r->window = (float)x->window;
    r->one = 1;
    name(r, AM_DNN_SCALE, &r->scale);
    name(r, AM_DNN_LOWEST, &r->lowest);
    if (x->window > 0)
        name(r, AM_DNN_WINDOW, &r->window);
    name(r, AM_DNN_LENGTHS, r->places.lengths);
    for (int i = 0; i < OFFSETS - !backward; i++)
        name(r, AM_DNN_OFFSET_Q + i, r->places.offsets + i * r->places.step);
    name(r, AM_DNN_STATS, r->stats);
    return am_cuda_dnn_samples(s, x, bounds, r->places);
}

static int execute(run *r, am_stream *s)
{
    int status = state.dnn.set_stream(state.handle, s->stream);
    if (status == AM_DNN_STATUS_SUCCESS)
        status = am_dnn_run(&state.dnn, state.handle, r->plan, r->count, r->uids, r->pointers,
                            r->workspace);
    if (status != AM_DNN_STATUS_SUCCESS)
        return give_up("attention", status);
    return am_cuda_launched(s, "attention by cuDNN");
}

/* Tokens of no sample have zeros. */
static int clear(am_stream *s, void *p, int64_t elements, size_t size)
{
    cudaError_t e = cudaMemsetAsync(p, 0, (size_t)elements * size, s->stream);
    return e == cudaSuccess ? AM_OK : am_cuda_fail(e, "clearing memory");
}

int am_cuda_dnn_attention(am_stream *s, const am_attention_args *a)
{
    const am_attention_shape *x = &a->shape;
    run r;
    if (a->sinks)
        return AM_EUNSUP;
    int rc = begin(&r, s, x, a->bounds, 0);
    if (rc == AM_OK && a->bounds)
        rc = clear(s, a->out, x->b * x->t * x->h * x->d, 2);
    if (rc == AM_OK && a->bounds)
        rc = clear(s, r.stats, x->b * x->t * x->h, sizeof *r.stats);
    if (rc != AM_OK)
        return rc;
    name_operands(&r, a->q, a->k, a->v, a->out);
    rc = execute(&r, s);
    return rc == AM_OK ? am_cuda_dnn_lse(s, x, a->bounds, a->lse, r.stats) : rc;
}

int am_cuda_dnn_attention_bwd(am_stream *s, const am_attention_bwd_args *a)
{
    const am_attention_shape *x = &a->shape;
    run r;
    int rc = begin(&r, s, x, a->bounds, 1);
    if (rc == AM_OK)
        rc = am_cuda_dnn_stats(s, x, r.stats, a->lse);
    if (rc == AM_OK && a->bounds)
        rc = clear(s, a->dq, x->b * x->t * x->h * x->d, 2);
    if (rc == AM_OK && a->bounds)
        rc = clear(s, a->dk, x->b * x->t * x->kh * x->d, 2);
    if (rc == AM_OK && a->bounds)
        rc = clear(s, a->dv, x->b * x->t * x->kh * x->d, 2);
    if (rc != AM_OK)
        return rc;
    name_operands(&r, a->q, a->k, a->v, a->out);
    name(&r, AM_DNN_DOUT, a->dout);
    name(&r, AM_DNN_DQ, a->dq);
    name(&r, AM_DNN_DK, a->dk);
    name(&r, AM_DNN_DV, a->dv);
    name(&r, AM_DNN_DELTA, r.delta);
    name(&r, AM_DNN_ONE, &r.one);
    return execute(&r, s);
}
