/* mpi.c — ranks over MPI, as a module of its own (amlua_mpi.so): the only file that knows MPI. A
 * site builds it against its own MPI, and nothing else.
 *
 * Each group has a thread, and MPI is asked for no more than MPI_THREAD_SERIALIZED: a lock is held
 * during a call. So calls never block. A collective is begun in its non-blocking form and tested
 * until it is done, with naps in between, which leaves the cores to those who compute. */
#include <mpi.h>

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm.h"

/* What was sent to another rank, which stays as it is until it is gone. */
typedef struct peer {
    int64_t question, answer;
    MPI_Request asking, answering;
} peer;

typedef struct group {
    MPI_Comm comm, control; /* control: questions about who waits where */
    int rank, size, is_all;
    int64_t number; /* of the collective that this rank waits in */
    peer *peers;    /* of all ranks */
    int *counts;    /* of all_to_all, and places, of both sides */
} group;

enum { QUESTION = 1, ANSWER = 2, SPINS = 200, LATE = 2000 };
static const double SOON = 0.5;                  /* seconds after which questions are looked for */
static const long NAP = 20000, LONGEST = 100000; /* ns */
static const int64_t PIECE = 1 << 30;

static pthread_mutex_t mpi = PTHREAD_MUTEX_INITIALIZER;
static int broken; /* a call was given up: MPI can't be ended in order */

/* rc = an MPI function's, called with the lock held. */
#define MPI_CALL(rc, call)                                                                         \
    do {                                                                                           \
        pthread_mutex_lock(&mpi);                                                                  \
        (rc) = (call);                                                                             \
        pthread_mutex_unlock(&mpi);                                                                \
    } while (0)

static int failed(int rc, am_comm_call *call)
{
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;
    broken = 1;
    MPI_Error_string(rc, text, &n);
    snprintf(call->message, sizeof call->message, "MPI: %.*s", n, text);
    return AM_ECOMM;
}

/* ---- waiting ----------------------------------------------------------------------------------
 */

static int is_gone(MPI_Request *request)
{
    int done = 0;
    return MPI_Test(request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done;
}

/* Tell those who ask that this rank waits in the same collective. The lock is held. */
static void answer(group *g)
{
    int there = 0;
    MPI_Status status;
    while (MPI_Iprobe(MPI_ANY_SOURCE, QUESTION, g->control, &there, &status) == MPI_SUCCESS &&
           there) {
        int64_t number = 0;
        peer *p = &g->peers[status.MPI_SOURCE];
        if (!is_gone(&p->answering))
            return;
        MPI_Recv(&number, 1, MPI_INT64_T, status.MPI_SOURCE, QUESTION, g->control, &status);
        if (number > g->number) /* not there yet */
            continue;
        p->answer = number;
        MPI_Isend(&p->answer, 1, MPI_INT64_T, status.MPI_SOURCE, ANSWER, g->control, &p->answering);
    }
}

static void nap(int round)
{
    if (round < SPINS)
        return;
    long ns = NAP + (long)(round - SPINS) * 100;
    nanosleep(&(struct timespec){.tv_nsec = ns < LONGEST ? ns : LONGEST}, NULL);
}

static int finish(group *g, int rc, MPI_Request *request, am_comm_call *call)
{
    double started = am_clock();
    int done = 0;
    if (rc != MPI_SUCCESS)
        return failed(rc, call);
    for (int round = 0;; round++) {
        pthread_mutex_lock(&mpi);
        g->number = call->number;
        rc = MPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (!done && am_clock() - started > SOON)
            answer(g);
        pthread_mutex_unlock(&mpi);
        if (rc != MPI_SUCCESS)
            return failed(rc, call);
        if (done)
            return AM_OK;
        if (am_comm_gives_up(call)) {
            broken = 1;
            return AM_ECOMM;
        }
        nap(round);
    }
}

static void where_are(void *self, uint8_t *here, int64_t number, double seconds)
{
    group *g = self;
    double end = am_clock() + seconds;
    pthread_mutex_lock(&mpi);
    if (g->number < number)
        g->number = number;
    broken = 1; /* nobody may take the questions */
    for (int r = 0; r < g->size; r++) {
        peer *p = &g->peers[r];
        here[r] = r == g->rank;
        if (r == g->rank || !is_gone(&p->asking)) /* who has not taken one before is not here */
            continue;
        p->question = number;
        MPI_Isend(&p->question, 1, MPI_INT64_T, r, QUESTION, g->control, &p->asking);
    }
    pthread_mutex_unlock(&mpi);
    for (int known = 1; known < g->size && am_clock() < end; nap(LATE)) {
        int there = 0;
        MPI_Status status;
        pthread_mutex_lock(&mpi);
        answer(g);
        MPI_Iprobe(MPI_ANY_SOURCE, ANSWER, g->control, &there, &status);
        if (there) {
            int64_t got;
            MPI_Recv(&got, 1, MPI_INT64_T, status.MPI_SOURCE, ANSWER, g->control, &status);
            known += got == number && !here[status.MPI_SOURCE];
            here[status.MPI_SOURCE] |= got == number;
        }
        pthread_mutex_unlock(&mpi);
    }
}

static int waits(void *self, am_comm_call *call)
{
    group *g = self;
    pthread_mutex_lock(&mpi);
    g->number = call->number;
    answer(g);
    pthread_mutex_unlock(&mpi);
    return AM_OK; /* MPI ends all when a rank is gone */
}

/* ---- joining, splitting, leaving --------------------------------------------------------------
 */

/* Takes `comm` over. */
static int new_group(void **out, MPI_Comm comm, am_comm_call *call)
{
    group *g = calloc(1, sizeof *g);
    int rc = MPI_SUCCESS;
    if (g) {
        pthread_mutex_lock(&mpi);
        g->comm = comm;
        rc = MPI_Comm_dup(comm, &g->control);
        if (rc == MPI_SUCCESS) {
            MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
            MPI_Comm_set_errhandler(g->control, MPI_ERRORS_RETURN);
            MPI_Comm_rank(comm, &g->rank);
            MPI_Comm_size(comm, &g->size);
            g->peers = calloc((size_t)g->size, sizeof *g->peers);
            for (int r = 0; g->peers && r < g->size; r++)
                g->peers[r].asking = g->peers[r].answering = MPI_REQUEST_NULL;
            g->counts = calloc((size_t)g->size * 4, sizeof *g->counts);
        }
        pthread_mutex_unlock(&mpi);
    }
    if (rc != MPI_SUCCESS) {
        free(g);
        return failed(rc, call);
    }
    if (!g || !g->peers || !g->counts) {
        free(g ? g->peers : NULL);
        free(g ? g->counts : NULL);
        free(g);
        snprintf(call->message, sizeof call->message, "out of memory");
        return AM_ECOMM;
    }
    *out = g;
    return AM_OK;
}

static int open_mpi(void **out, const am_comm_options *options, am_comm_call *call)
{
    (void)options;
    int provided = 0, there = 0;
    MPI_Comm all;
    MPI_Initialized(&there);
    int rc = there ? MPI_Query_thread(&provided)
                   : MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
    if (rc == MPI_SUCCESS && provided < MPI_THREAD_SERIALIZED) {
        snprintf(call->message, sizeof call->message, "this MPI has no MPI_THREAD_SERIALIZED");
        return AM_ECOMM;
    }
    if (rc == MPI_SUCCESS)
        rc = MPI_Comm_dup(MPI_COMM_WORLD, &all);
    if (rc != MPI_SUCCESS)
        return failed(rc, call);
    rc = new_group(out, all, call);
    if (rc == AM_OK)
        ((group *)*out)->is_all = 1;
    return rc;
}

static void close_mpi(void *self)
{
    group *g = self;
    pthread_mutex_lock(&mpi);
    for (int r = 0; r < g->size; r++)
        broken |= !is_gone(&g->peers[r].answering);
    if (!broken) { /* else what was given up may still look at the group's numbers */
        MPI_Comm_free(&g->comm);
        MPI_Comm_free(&g->control);
        if (g->is_all)
            MPI_Finalize();
        free(g->peers);
        free(g->counts);
        free(g);
    }
    pthread_mutex_unlock(&mpi);
}

static int rank_mpi(const void *self)
{
    return ((const group *)self)->rank;
}

static int count_mpi(const void *self)
{
    return ((const group *)self)->size;
}

static int barrier(void *self, am_comm_call *call)
{
    int rc;
    MPI_Request request;
    MPI_CALL(rc, MPI_Ibarrier(((group *)self)->comm, &request));
    return finish(self, rc, &request, call);
}

/* MPI_Comm_split has no form that could be given up; behind a barrier it does not wait long. */
static int split(void **out, void *self, int color, int key, am_comm_call *call)
{
    int rc = barrier(self, call);
    MPI_Comm part;
    if (rc != AM_OK)
        return rc;
    MPI_CALL(rc, MPI_Comm_split(((group *)self)->comm, color, key, &part));
    return rc == MPI_SUCCESS ? new_group(out, part, call) : failed(rc, call);
}

static void abort_mpi(int status, const char *why)
{
    (void)why;
    MPI_Abort(MPI_COMM_WORLD, status);
    _Exit(status);
}

/* ---- collectives ------------------------------------------------------------------------------
 */

static MPI_Datatype type_of(const am_comm_call *call)
{
    switch (call->dtype) {
    case AM_F32:
        return MPI_FLOAT;
    case AM_F64:
        return MPI_DOUBLE;
    case AM_I32:
        return MPI_INT32_T;
    default:
        return MPI_INT64_T;
    }
}

static MPI_Op op_of(const am_comm_call *call)
{
    return call->op == AM_SUM ? MPI_SUM : call->op == AM_MAX ? MPI_MAX : MPI_MIN;
}

static int all_reduce(void *self, void *x, int64_t n, am_comm_call *call)
{
    group *g = self;
    int64_t size = am_dtype_size(call->dtype);
    for (int64_t at = 0, rc; at < n; at += PIECE) {
        int count = (int)(n - at < PIECE ? n - at : PIECE), began;
        MPI_Request request;
        MPI_CALL(began, MPI_Iallreduce(MPI_IN_PLACE, (char *)x + at * size, count, type_of(call),
                                       op_of(call), g->comm, &request));
        if ((rc = finish(g, began, &request, call)) != AM_OK)
            return (int)rc;
    }
    return AM_OK;
}

static int too_long(am_comm_call *call, int64_t n)
{
    snprintf(call->message, sizeof call->message,
             "a rank's part of %lld elements is more than MPI counts", (long long)n);
    return AM_ECOMM;
}

static int reduce_scatter(void *self, void *to, const void *from, int64_t n, am_comm_call *call)
{
    group *g = self;
    int rc;
    MPI_Request request;
    if (n > INT_MAX / g->size)
        return too_long(call, n);
    MPI_CALL(rc, MPI_Ireduce_scatter_block(from, to, (int)n, type_of(call), op_of(call), g->comm,
                                           &request));
    return finish(g, rc, &request, call);
}

static int all_gather(void *self, void *to, const void *from, int64_t n, am_comm_call *call)
{
    group *g = self;
    int rc;
    MPI_Request request;
    MPI_Datatype type = MPI_BYTE;
    /* in words where bytes are too many to count */
    if (n > INT_MAX / g->size && n % 8 == 0 && n / 8 <= INT_MAX / g->size) {
        type = MPI_INT64_T;
        n /= 8;
    }
    if (n > INT_MAX / g->size)
        return too_long(call, n);
    MPI_CALL(rc, MPI_Iallgather(from, (int)n, type, to, (int)n, type, g->comm, &request));
    return finish(g, rc, &request, call);
}

static int broadcast(void *self, void *x, int64_t n, int root, am_comm_call *call)
{
    group *g = self;
    for (int64_t at = 0; at < n; at += PIECE) {
        int count = (int)(n - at < PIECE ? n - at : PIECE), rc;
        MPI_Request request;
        MPI_CALL(rc, MPI_Ibcast((char *)x + at, count, MPI_BYTE, root, g->comm, &request));
        if ((rc = finish(g, rc, &request, call)) != AM_OK)
            return rc;
    }
    return AM_OK;
}

static int all_to_all(void *self, void *to, const int64_t *to_counts, const void *from,
                      const int64_t *from_counts, am_comm_call *call)
{
    group *g = self;
    int rc = AM_OK, *n = g->counts;
    int64_t at[2] = {0, 0};
    MPI_Request request;
    for (int side = 0; side < 2 && rc == AM_OK; side++) {
        const int64_t *counts = side ? from_counts : to_counts;
        for (int r = 0; r < g->size && rc == AM_OK; r++) {
            if (counts[r] > INT_MAX - at[side])
                rc = too_long(call, counts[r]);
            n[(2 * side) * g->size + r] = (int)counts[r];
            n[(2 * side + 1) * g->size + r] = (int)at[side];
            at[side] += counts[r];
        }
    }
    if (rc == AM_OK) {
        MPI_CALL(rc, MPI_Ialltoallv(from, n + 2 * g->size, n + 3 * g->size, MPI_BYTE, to, n,
                                    n + g->size, MPI_BYTE, g->comm, &request));
        rc = finish(g, rc, &request, call);
    }
    return rc;
}

static int send_mpi(void *self, const void *x, int64_t n, int to, int tag, am_comm_call *call)
{
    group *g = self;
    int64_t at = 0;
    do { /* also of nothing a message is sent */
        int count = (int)(n - at < PIECE ? n - at : PIECE), rc;
        MPI_Request request;
        MPI_CALL(rc, MPI_Isend((const char *)x + at, count, MPI_BYTE, to, tag, g->comm, &request));
        if ((rc = finish(g, rc, &request, call)) != AM_OK)
            return rc;
        at += PIECE;
    } while (at < n);
    return AM_OK;
}

static int recv_mpi(void *self, void *x, int64_t n, int from, int tag, am_comm_call *call)
{
    group *g = self;
    int64_t at = 0;
    do {
        int count = (int)(n - at < PIECE ? n - at : PIECE), rc;
        MPI_Request request;
        MPI_CALL(rc, MPI_Irecv((char *)x + at, count, MPI_BYTE, from, tag, g->comm, &request));
        if ((rc = finish(g, rc, &request, call)) != AM_OK)
            return rc;
        at += PIECE;
    } while (at < n);
    return AM_OK;
}

static const am_comm_engine engine = {
    .size = sizeof(am_comm_engine),
    .version = AM_COMM_VERSION,
    .name = "mpi",
    .open = open_mpi,
    .close = close_mpi,
    .rank = rank_mpi,
    .count = count_mpi,
    .split = split,
    .all_reduce = all_reduce,
    .reduce_scatter = reduce_scatter,
    .all_gather = all_gather,
    .broadcast = broadcast,
    .all_to_all = all_to_all,
    .send = send_mpi,
    .recv = recv_mpi,
    .barrier = barrier,
    .where_are = where_are,
    .waits = waits,
    .abort = abort_mpi,
};

__attribute__((visibility("default"))) const am_comm_engine *am_comm_engine_entry(void);
const am_comm_engine *am_comm_engine_entry(void)
{
    return &engine;
}
