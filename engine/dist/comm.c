/* comm.c — groups of ranks: opening an engine (comm.h), the order of a group's collectives and the
 * thread that does them, time-outs and who is to blame, 16-bit floats, counting. What moves bytes
 * is an engine's; what a strategy makes of it is Lua's.
 *
 * Tensors on a GPU go by a group of their own, of the same ranks: comm_gpu.c opens it. Who waits
 * for a work there has the device's stream wait for it and goes on; whether it came is known before
 * anything is read from the device. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "../core/device.h"
#include "../core/error.h"
#include "../core/mem.h"
#include "../core/module.h"
#include "../core/tensor.h"
#include "../dtype.h"
#include "group.h"

enum { DEFAULT_TIMEOUT = 600, NAP = 500000000, SECOND = 1000000000 };
static const double GRACE = 2; /* seconds in which a rank must say that it waits, too */

static const char *const kind_names[AM_COMM_KINDS] = {"all_reduce", "reduce_scatter", "all_gather",
                                                      "broadcast",  "all_to_all",     "send",
                                                      "recv",       "barrier"};

struct am_work {
    am_comm *comm;
    int kind, dtype, op, peer, tag;
    int64_t n;                        /* elements of a rank's part */
    am_tensor *to, *from;             /* shells of its own, which keep the bytes */
    int64_t *to_counts, *from_counts; /* of all_to_all */
    am_comm_call call;
    int done, rc;
    int left; /* to the group's thread: a stream waits for it */
    char message[AM_COMM_MESSAGE];
    am_work *next;
};

/* The first failure ends all groups of the process. */
static int stopping;
static char failure[AM_COMM_MESSAGE];
static pthread_mutex_t failure_lock = PTHREAD_MUTEX_INITIALIZER;

static double waited; /* seconds */
static pthread_mutex_t waited_lock = PTHREAD_MUTEX_INITIALIZER;

static void stop_all(const char *message)
{
    pthread_mutex_lock(&failure_lock);
    if (!stopping) {
        snprintf(failure, sizeof failure, "%s", message);
        __atomic_store_n(&stopping, 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&failure_lock);
}

void am_comm_first_failure(char message[AM_COMM_MESSAGE])
{
    pthread_mutex_lock(&failure_lock);
    snprintf(message, AM_COMM_MESSAGE, "%s", failure);
    pthread_mutex_unlock(&failure_lock);
}

/* ---- opening ----------------------------------------------------------------------------------
 */

static int load_module(am_comm *c, const char *name, const char *file)
{
    if (strcmp(name, "self") == 0) {
        c->engine = &am_comm_self;
        return AM_OK;
    }
    if (strcmp(name, "mpi") != 0 && strcmp(name, "gloo") != 0)
        return am_fail(AM_EINVAL, "there is no communicator %s; there are self, mpi and gloo",
                       name);
    am_comm_entry entry;
    AM_TRY(am_module_open((void **)&entry, name, file, "am_comm_engine_entry", AM_ECOMM));
    c->engine = entry();
    if (!c->engine || c->engine->size != sizeof(am_comm_engine) ||
        c->engine->version != AM_COMM_VERSION)
        return am_fail(AM_ECOMM, "%s was built for another version of amlua", file ? file : name);
    return AM_OK;
}

int am_comm_new(am_comm **out, const char *name, double timeout)
{
    void *p;
    AM_TRY(am_alloc(&p, sizeof(am_comm)));
    am_comm *c = p;
    c->refs = 1;
    c->timeout = timeout;
    c->process = getpid();
    snprintf(c->name, sizeof c->name, "%s", name);
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->asking, NULL);
    pthread_cond_init(&c->queued, NULL);
    pthread_cond_init(&c->done, NULL);
    *out = c;
    return AM_OK;
}

void am_comm_free(am_comm *c)
{
    if (c->group && c->engine->close)
        c->engine->close(c->group);
    if (c->control)
        c->host->engine->close(c->control);
    am_free(c->world_ranks);
    am_free(c->places);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->asking);
    pthread_cond_destroy(&c->queued);
    pthread_cond_destroy(&c->done);
    am_free(c); /* the module stays: MPI does not come back */
}

am_comm_call am_comm_call_of(am_comm *c)
{
    return (am_comm_call){.dtype = AM_U8,
                          .number = ++c->number,
                          .deadline = am_clock() + c->timeout,
                          .stopping = &stopping};
}

/* Of a call that this thread makes itself, while the group's own does nothing. */
int am_comm_told(const am_comm *c, int rc, const char *what, const am_comm_call *call)
{
    if (rc == AM_OK)
        return AM_OK;
    if (call->message[0])
        return am_fail(rc, "%s of group %s: %s", what, c->name, call->message);
    return am_fail(rc, "%s of group %s: not all ranks came within %g s", what, c->name, c->timeout);
}

static int gather_places(am_comm *c)
{
    void *p;
    place own = {.pid = getpid()};
    if (gethostname(own.host, sizeof own.host - 1) != 0)
        snprintf(own.host, sizeof own.host, "?");
    AM_TRY(am_alloc(&p, (size_t)c->size * sizeof(place)));
    c->places = p;
    AM_TRY(am_alloc(&p, (size_t)c->size * sizeof *c->world_ranks));
    c->world_ranks = p;
    for (int i = 0; i < c->size; i++)
        c->world_ranks[i] = i;
    am_comm_call call = am_comm_call_of(c);
    return am_comm_told(c, c->engine->all_gather(c->group, c->places, &own, sizeof own, &call),
                        "joining", &call);
}

static int open_world(am_comm *c, const char *engine, const am_comm_options *options)
{
    AM_TRY(load_module(c, engine, options->module));
    am_comm_call call = am_comm_call_of(c);
    AM_TRY(am_comm_told(c, c->engine->open(&c->group, options, &call), "joining", &call));
    c->rank = c->engine->rank(c->group);
    c->size = c->engine->count(c->group);
    return gather_places(c);
}

int am_comm_open(am_comm **out, const char *engine, const am_comm_options *options)
{
    static const am_comm_options none;
    am_comm *c;
    if (!options)
        options = &none;
    if (!engine || !(options->timeout >= 0))
        return am_fail(AM_EINVAL, "a communicator needs a name, and a time-out of at least 0 s");
    AM_TRY(am_comm_new(&c, "world", options->timeout > 0 ? options->timeout : DEFAULT_TIMEOUT));
    c->world = c;
    int rc = open_world(c, engine, options);
    if (rc != AM_OK) {
        am_comm_free(c);
        return rc;
    }
    *out = c;
    return AM_OK;
}

static int check_process(const am_comm *c)
{
    return c->process == getpid()
               ? AM_OK
               : am_fail(AM_ESTATE, "this process is a copy of a rank, and has no part in group %s",
                         c->name);
}

/* Wait until the group's thread has nothing to do. */
void am_comm_drain(am_comm *c)
{
    pthread_mutex_lock(&c->lock);
    while (c->first)
        pthread_cond_wait(&c->done, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

static void end_thread(am_comm *c)
{
    if (!c->has_thread)
        return;
    pthread_mutex_lock(&c->lock);
    c->ending = 1;
    pthread_cond_signal(&c->queued);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    c->has_thread = 0;
}

static void end_group(am_comm *c)
{
    if (c->on_gpu) {
        am_comm_leave_gpu(c->on_gpu);
        end_group(c->on_gpu);
    }
    end_thread(c);
    am_comm_free(c);
}

void am_comm_release(am_comm *c)
{
    if (!c || c->process != getpid())
        return;
    am_comm *world = c->world;
    if (c != world)
        end_group(c);
    if (--world->refs == 0)
        end_group(world);
}

static int split_off(am_comm *child, am_comm *c, int color, int key)
{
    void *p;
    am_comm_drain(c);
    am_comm_call call = am_comm_call_of(c);
    AM_TRY(am_comm_told(c, c->engine->split(&child->group, c->group, color, key, &call), "split",
                        &call));
    child->rank = c->engine->rank(child->group);
    child->size = c->engine->count(child->group);
    AM_TRY(am_alloc(&p, (size_t)child->size * sizeof *child->world_ranks));
    child->world_ranks = p;
    int32_t own = c->world_ranks[c->rank];
    call = am_comm_call_of(child);
    return am_comm_told(
        child, c->engine->all_gather(child->group, child->world_ranks, &own, sizeof own, &call),
        "split", &call);
}

int am_comm_split(am_comm **out, am_comm *c, int color, int key, const char *name)
{
    am_comm *child;
    AM_TRY(check_process(c));
    if (color < 0)
        return am_fail(AM_EINVAL, "a group's color is at least 0, not %d", color);
    AM_TRY(am_comm_new(&child, name ? name : "unnamed", c->timeout));
    child->engine = c->engine;
    int rc = split_off(child, c, color, key);
    if (rc != AM_OK) {
        am_comm_free(child);
        return rc;
    }
    child->world = c->world;
    c->world->refs++;
    *out = child;
    return AM_OK;
}

int am_comm_rank(const am_comm *c)
{
    return c->rank;
}

int am_comm_size(const am_comm *c)
{
    return c->size;
}

int am_comm_world_rank(const am_comm *c, int rank)
{
    return rank >= 0 && rank < c->size ? c->world_ranks[rank] : -1;
}

int am_comm_count(am_comm_counts *out, const am_comm *c)
{
    *out = c->counts;
    return AM_OK;
}

void am_comm_abort(am_comm *c, int status, const char *why)
{
    c->engine->abort(status, why ? why : "");
    _exit(status);
}

/* ---- one collective, on the group's thread ----------------------------------------------------
 */

static void half_to_float(float *to, const uint16_t *from, int64_t n, int dtype)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = dtype == AM_BF16 ? am_bf16_to_f32(from[i]) : am_f16_to_f32(from[i]);
}

static void float_to_half(uint16_t *to, const float *from, int64_t n, int dtype)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = dtype == AM_BF16 ? am_f32_to_bf16(from[i]) : am_f32_to_f16(from[i]);
}

static int reduce(am_comm *c, void *to, void *from, int64_t n, int scatter, am_comm_call *call)
{
    return scatter ? c->engine->reduce_scatter(c->group, to, from, n, call)
                   : c->engine->all_reduce(c->group, to, n, call);
}

/* In f32 where it is of 16 bits, which a GPU's engine sees to. from is NULL for all_reduce. */
static int reduce_any(am_comm *c, void *to, void *from, int64_t n, am_comm_call *call)
{
    int dtype = call->dtype, scatter = from != NULL;
    if ((dtype != AM_BF16 && dtype != AM_F16) || c->host)
        return reduce(c, to, from, n, scatter, call);
    void *wide;
    int64_t total = scatter ? n * c->size : n;
    AM_TRY(am_alloc(&wide, (size_t)(total + (scatter ? n : 0)) * sizeof(float)));
    float *sum = scatter ? (float *)wide + total : wide;
    half_to_float(wide, scatter ? from : to, total, dtype);
    call->dtype = AM_F32;
    int rc = reduce(c, sum, wide, n, scatter, call);
    if (rc == AM_OK)
        float_to_half(to, sum, n, dtype);
    am_free(wide);
    return rc;
}

static int do_work(am_comm *c, const am_work *w, am_comm_call *call)
{
    const am_comm_engine *e = c->engine;
    void *to = w->to ? am_tensor_ptr(w->to) : NULL, *from = w->from ? am_tensor_ptr(w->from) : NULL;
    int64_t bytes = w->n * am_dtype_size(w->dtype);
    if (w->kind == AM_COMM_ALL_REDUCE || w->kind == AM_COMM_REDUCE_SCATTER) {
        call->dtype = w->dtype;
        call->op = w->op;
        return reduce_any(c, to, from, w->n, call);
    }
    switch (w->kind) {
    case AM_COMM_ALL_GATHER:
        return e->all_gather(c->group, to, from, bytes, call);
    case AM_COMM_BROADCAST:
        return e->broadcast(c->group, to, bytes, w->peer, call);
    case AM_COMM_ALL_TO_ALL:
        return e->all_to_all(c->group, to, w->to_counts, from, w->from_counts, call);
    case AM_COMM_SEND:
        return e->send(c->group, from, bytes, w->peer, w->tag, call);
    case AM_COMM_RECV:
        return e->recv(c->group, to, bytes, w->peer, w->tag, call);
    default:
        return e->barrier(c->group, call);
    }
}

/* "rank 2 (host n2, process 811)" of those that do not wait in this collective. */
static void name_missing(am_comm *c, const am_work *w, char message[AM_COMM_MESSAGE])
{
    void *here;
    int n = snprintf(message, AM_COMM_MESSAGE, "%s %lld of group %s did not end within %g s",
                     kind_names[w->kind], (long long)w->call.number, c->name, c->timeout);
    if (am_alloc(&here, (size_t)c->size) != AM_OK)
        return;
    if (c->host)
        am_comm_gpu_where(c, here, w->call.number, GRACE);
    else
        c->engine->where_are(c->group, here, w->call.number, GRACE);
    const char *before = ": there came no ";
    for (int r = 0; r < c->size && n < AM_COMM_MESSAGE - 1; r++) {
        if (((uint8_t *)here)[r] || r == c->rank)
            continue;
        int world = c->world_ranks[r];
        const place *p = &c->world->places[world];
        n += snprintf(message + n, (size_t)(AM_COMM_MESSAGE - n),
                      "%srank %d (host %.63s, process %lld)", before, world, p->host,
                      (long long)p->pid);
        before = ", ";
    }
    am_free(here);
}

/* Why a work failed, in its message; no later one will do. */
static void fail_work(am_comm *c, am_work *w, int rc)
{
    if (c->host && rc == AM_ECOMM && w->call.message[0])
        am_comm_ask_who_is_gone(c, &w->call);
    if (rc != AM_ECOMM) /* of this thread's am_alloc */
        snprintf(w->message, sizeof w->message, "%s", am_error_message());
    else if (w->call.message[0])
        snprintf(w->message, sizeof w->message, "%s %lld of group %s: %.400s", kind_names[w->kind],
                 (long long)w->call.number, c->name, w->call.message);
    else if (__atomic_load_n(&stopping, __ATOMIC_ACQUIRE))
        am_comm_first_failure(w->message);
    else
        name_missing(c, w, w->message);
    stop_all(w->message);
    if (c->host)
        c->engine->give_up(c->group);
}

static void finish(am_comm *c, am_work *w)
{
    int rc = AM_ECOMM;
    if (c->host) { /* it is begun already */
        w->call.deadline = am_clock() + c->timeout;
        rc = c->engine->wait(c->group, &w->call);
    } else {
        w->call = am_comm_call_of(c);
        if (!__atomic_load_n(&stopping, __ATOMIC_ACQUIRE))
            rc = do_work(c, w, &w->call);
    }
    if (rc != AM_OK)
        fail_work(c, w, rc);
    w->rc = rc;
}

/* Until there is something to do; the lock is held. Who waits on a GPU, in what this rank has done,
 * is told that it did. */
static void be_idle(am_comm *c)
{
    struct timespec until;
    if (!c->host || am_comm_gpu_is_told(c, c->ended)) {
        pthread_cond_wait(&c->queued, &c->lock);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += NAP;
    until.tv_sec += until.tv_nsec / SECOND;
    until.tv_nsec %= SECOND;
    if (pthread_cond_timedwait(&c->queued, &c->lock, &until) != ETIMEDOUT)
        return;
    am_comm_call done = {.number = c->ended, .stopping = &stopping};
    pthread_mutex_unlock(&c->lock);
    (void)am_comm_gpu_waits(c, &done);
    pthread_mutex_lock(&c->lock);
}

static void free_work(am_work *w)
{
    am_tensor_release(w->to);
    am_tensor_release(w->from);
    am_free(w->to_counts);
    am_free(w->from_counts);
    am_free(w);
}

static void *work_thread(void *arg)
{
    am_comm *c = arg;
    (void)prctl(PR_SET_NAME, c->host ? "ranks on GPUs" : "ranks"); /* for ps and debuggers */
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!c->first && !c->ending)
            be_idle(c);
        am_work *w = c->first;
        if (!w)
            break;
        pthread_mutex_unlock(&c->lock);
        finish(c, w);
        pthread_mutex_lock(&c->lock);
        c->first = w->next;
        c->ended = w->call.number;
        if (!c->first)
            c->last = NULL;
        if (w->left) {
            if (w->rc != AM_OK)
                am_comm_lost_on_gpu();
            free_work(w);
        } else {
            __atomic_store_n(&w->done, 1, __ATOMIC_RELEASE);
        }
        pthread_cond_broadcast(&c->done);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* ---- beginning and waiting --------------------------------------------------------------------
 */

static int keep(am_tensor **shell, const am_tensor *t, const char *what)
{
    AM_TRY(am_tensor_check_given(t, what));
    AM_TRY(am_tensor_check_alive(t, what));
    if (!am_tensor_dense(t))
        return am_fail(AM_ESHAPE, "%s: a collective needs a dense tensor", what);
    return am_tensor_alias(shell, t);
}

/* The group for tensors on this device; *on_gpu says whether it is the GPUs'. */
static int group_for(am_comm **out, am_comm *c, const am_work *w)
{
    const char *what = kind_names[w->kind];
    const am_tensor *t = w->to ? w->to : w->from;
    *out = c;
    if (w->to && w->from && w->to->device != w->from->device)
        return am_fail(AM_EINVAL, "%s: from a tensor on %s to one on %s", what,
                       am_device_name(w->from->device), am_device_name(w->to->device));
    if (!t || am_device_is_host(t->device))
        return AM_OK;
    if (t->device != AM_DEVICE_CUDA || !c->engine->waits)
        return am_fail(AM_EUNSUP, "%s: ranks of %s exchange tensors on the CPU, not on %s", what,
                       c->engine->name, am_device_name(t->device));
    if (!c->on_gpu)
        AM_TRY(am_comm_open_on_gpu(c));
    *out = c->on_gpu;
    return AM_OK;
}

static int copy_counts(int64_t **to, const int64_t *from, int size, const am_tensor *t,
                       const char *what)
{
    void *p;
    int64_t sum = 0, bytes = am_dtype_size(t->dtype);
    for (int i = 0; i < size; i++) {
        if (from[i] < 0)
            return am_fail(AM_EINVAL, "%s: %lld elements for a rank", what, (long long)from[i]);
        sum += from[i];
    }
    if (sum != am_shape_numel(t->ndim, t->shape))
        return am_fail(AM_ESHAPE, "%s: counts of %lld elements together, but the tensor has %lld",
                       what, (long long)sum, (long long)am_shape_numel(t->ndim, t->shape));
    AM_TRY(am_alloc(&p, (size_t)size * sizeof **to));
    *to = p;
    for (int i = 0; i < size; i++)
        (*to)[i] = from[i] * bytes;
    return AM_OK;
}

static int check_reduction(int dtype, int op)
{
    if (op != AM_SUM && op != AM_MAX && op != AM_MIN)
        return am_fail(AM_EINVAL, "reduction %d does not exist", op);
    if (dtype != AM_F32 && dtype != AM_F64 && dtype != AM_BF16 && dtype != AM_F16 &&
        dtype != AM_I32 && dtype != AM_I64)
        return am_fail(AM_EUNSUP, "ranks don't reduce %s", am_dtype_name(dtype));
    return AM_OK;
}

/* On a GPU a work begins here: NCCL has to be called in one order on all ranks, which that of their
 * programs is. The group's thread waits for its end. */
static int start(am_comm *c, am_work *w)
{
    const am_backend *be;
    am_stream *stream;
    AM_TRY(am_device_open(AM_DEVICE_CUDA, &be, &stream));
    w->call = am_comm_gpu_call(c);
    w->call.stream = stream;
    int rc = __atomic_load_n(&stopping, __ATOMIC_ACQUIRE) ? AM_ECOMM : do_work(c, w, &w->call);
    if (rc == AM_OK)
        return AM_OK;
    fail_work(c, w, rc);
    return am_fail(rc, "%s", w->message);
}

static void count(am_comm *c, const am_work *w)
{
    const am_tensor *given = w->from ? w->from : w->to;
    c->counts.calls[w->kind]++;
    if (given)
        c->counts.bytes[w->kind] += am_tensor_bytes(given);
}

static int need_thread(am_comm *c)
{
    if (c->has_thread)
        return AM_OK;
    int rc = pthread_create(&c->thread, NULL, work_thread, c);
    if (rc != 0)
        return am_fail(AM_ECOMM, "a thread for group %s: %s", c->name, strerror(rc));
    c->has_thread = 1;
    return AM_OK;
}

static void queue(am_comm *c, am_work *w)
{
    pthread_mutex_lock(&c->lock);
    if (c->last)
        c->last->next = w;
    else
        c->first = w;
    c->last = w;
    pthread_cond_signal(&c->queued);
    pthread_mutex_unlock(&c->lock);
}

/* The work that `w` describes, of copies. */
static int begin(am_work **out, am_comm *c, const am_work *w, am_tensor *to, am_tensor *from)
{
    void *p;
    AM_TRY(check_process(c));
    AM_TRY(am_alloc(&p, sizeof(am_work)));
    am_work *mine = p;
    *mine = *w;
    mine->to_counts = mine->from_counts = NULL;
    int rc = AM_OK;
    if (to)
        AM_TRY_OUT(keep(&mine->to, to, kind_names[w->kind]));
    if (from)
        AM_TRY_OUT(keep(&mine->from, from, kind_names[w->kind]));
    if (w->to_counts)
        AM_TRY_OUT(copy_counts(&mine->to_counts, w->to_counts, c->size, to, kind_names[w->kind]));
    if (w->from_counts)
        AM_TRY_OUT(
            copy_counts(&mine->from_counts, w->from_counts, c->size, from, kind_names[w->kind]));
    AM_TRY_OUT(group_for(&mine->comm, c, mine));
    count(c, mine);
    AM_TRY_OUT(need_thread(mine->comm)); /* before a device has begun to use the tensors */
    if (mine->comm->host)
        AM_TRY_OUT(start(mine->comm, mine));
    queue(mine->comm, mine);
    *out = mine;
    return AM_OK;
out:
    free_work(mine);
    return rc;
}

static int same_dtype(const char *what, const am_tensor *to, const am_tensor *from)
{
    AM_TRY(am_tensor_check_given(to, what));
    AM_TRY(am_tensor_check_given(from, what));
    if (to->dtype != from->dtype)
        return am_fail(AM_EINVAL, "%s: from %s to %s", what, am_dtype_name(from->dtype),
                       am_dtype_name(to->dtype));
    return AM_OK;
}

/* `part` is a rank's, `whole` that of all. */
static int check_parts(const am_comm *c, const char *what, const am_tensor *part,
                       const am_tensor *whole)
{
    int64_t n = am_shape_numel(part->ndim, part->shape),
            all = am_shape_numel(whole->ndim, whole->shape);
    if (all != n * c->size)
        return am_fail(AM_ESHAPE, "%s: %lld elements are not %d times %lld", what, (long long)all,
                       c->size, (long long)n);
    return AM_OK;
}

static int check_peer(const am_comm *c, const char *what, int peer)
{
    if (peer < 0 || peer >= c->size)
        return am_fail(AM_EINVAL, "%s: there is no rank %d in group %s of %d", what, peer, c->name,
                       c->size);
    return AM_OK;
}

static int64_t elements(const am_tensor *t)
{
    return am_shape_numel(t->ndim, t->shape);
}

int am_comm_all_reduce(am_work **out, am_comm *c, am_tensor *t, int op)
{
    AM_TRY(am_tensor_check_given(t, "all_reduce"));
    AM_TRY(check_reduction(t->dtype, op));
    am_work w = {.kind = AM_COMM_ALL_REDUCE, .dtype = t->dtype, .op = op, .n = elements(t)};
    return begin(out, c, &w, t, NULL);
}

int am_comm_reduce_scatter(am_work **out, am_comm *c, am_tensor *to, am_tensor *from, int op)
{
    AM_TRY(same_dtype("reduce_scatter", to, from));
    AM_TRY(check_parts(c, "reduce_scatter", to, from));
    AM_TRY(check_reduction(to->dtype, op));
    am_work w = {.kind = AM_COMM_REDUCE_SCATTER, .dtype = to->dtype, .op = op, .n = elements(to)};
    return begin(out, c, &w, to, from);
}

int am_comm_all_gather(am_work **out, am_comm *c, am_tensor *to, am_tensor *from)
{
    AM_TRY(same_dtype("all_gather", to, from));
    AM_TRY(check_parts(c, "all_gather", from, to));
    am_work w = {.kind = AM_COMM_ALL_GATHER, .dtype = to->dtype, .n = elements(from)};
    return begin(out, c, &w, to, from);
}

int am_comm_broadcast(am_work **out, am_comm *c, am_tensor *t, int root)
{
    AM_TRY(am_tensor_check_given(t, "broadcast"));
    AM_TRY(check_peer(c, "broadcast", root));
    am_work w = {.kind = AM_COMM_BROADCAST, .dtype = t->dtype, .n = elements(t), .peer = root};
    return begin(out, c, &w, t, NULL);
}

int am_comm_all_to_all(am_work **out, am_comm *c, am_tensor *to, const int64_t *to_counts,
                       am_tensor *from, const int64_t *from_counts)
{
    AM_TRY(same_dtype("all_to_all", to, from));
    am_work w = {.kind = AM_COMM_ALL_TO_ALL, .dtype = to->dtype};
    w.to_counts = (int64_t *)to_counts; /* begin copies them */
    w.from_counts = (int64_t *)from_counts;
    return begin(out, c, &w, to, from);
}

int am_comm_send(am_work **out, am_comm *c, am_tensor *t, int to, int tag)
{
    AM_TRY(am_tensor_check_given(t, "send"));
    AM_TRY(check_peer(c, "send", to));
    am_work w = {.kind = AM_COMM_SEND, .dtype = t->dtype, .n = elements(t), .peer = to, .tag = tag};
    return begin(out, c, &w, NULL, t);
}

int am_comm_recv(am_work **out, am_comm *c, am_tensor *t, int from, int tag)
{
    AM_TRY(am_tensor_check_given(t, "recv"));
    AM_TRY(check_peer(c, "recv", from));
    am_work w = {
        .kind = AM_COMM_RECV, .dtype = t->dtype, .n = elements(t), .peer = from, .tag = tag};
    return begin(out, c, &w, t, NULL);
}

int am_comm_barrier(am_work **out, am_comm *c)
{
    am_work w = {.kind = AM_COMM_BARRIER, .dtype = AM_U8};
    return begin(out, c, &w, NULL, NULL);
}

int am_work_done(const am_work *w)
{
    return __atomic_load_n(&w->done, __ATOMIC_ACQUIRE);
}

void am_comm_count_wait(double began)
{
    pthread_mutex_lock(&waited_lock);
    waited += am_clock() - began;
    pthread_mutex_unlock(&waited_lock);
}

double am_comm_waited(void)
{
    pthread_mutex_lock(&waited_lock);
    double seconds = waited;
    pthread_mutex_unlock(&waited_lock);
    return seconds;
}

/* Can the stream wait for it? Then the group's thread has it, but for the tensors: what the stream
 * does with their memory is in its order. */
static int leave_to_stream(am_comm *c, am_work *w)
{
    pthread_mutex_lock(&c->lock);
    int left = !w->done && c->engine->order(c->group, &w->call) == AM_OK;
    am_tensor *to = w->to, *from = w->from;
    if (left) {
        c->ordered = w->call.number;
        w->to = w->from = NULL;
        w->left = 1;
    }
    pthread_mutex_unlock(&c->lock);
    if (left) {
        am_tensor_release(to);
        am_tensor_release(from);
    }
    return left;
}

int am_work_wait(am_work *w)
{
    am_comm *c = w->comm;
    char message[AM_COMM_MESSAGE];
    double began = am_clock();
    if (c->host && leave_to_stream(c, w))
        return AM_OK;
    pthread_mutex_lock(&c->lock);
    while (!w->done)
        pthread_cond_wait(&c->done, &c->lock);
    pthread_mutex_unlock(&c->lock);
    am_comm_count_wait(began);
    int rc = w->rc;
    memcpy(message, w->message, sizeof message);
    free_work(w);
    return rc == AM_OK ? AM_OK : am_fail(rc, "%s", message);
}
