/* engine_checks.c — collectives of any engine against plain computations, equal bits on all ranks,
 * groups that are used at the same time. */
#include "engine_checks.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int never;

const am_comm_engine *engine_load(const char *path)
{
    void *module = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    am_comm_entry entry = NULL;
    if (module)
        *(void **)&entry = dlsym(module, "am_comm_engine_entry");
    const am_comm_engine *e = entry ? entry() : NULL;
    if (e && e->size == sizeof *e && e->version == AM_COMM_VERSION)
        return e;
    fprintf(stderr, "%s: %s\n", path, module ? "of another version" : dlerror());
    return NULL;
}

am_comm_call engine_call(double seconds)
{
    return (am_comm_call){.dtype = AM_U8, .deadline = am_clock() + seconds, .stopping = &never};
}

/* One rank's view of a group, and what went wrong. */
typedef struct view {
    const am_comm_engine *e;
    void *group;
    int rank, size, failures;
    int64_t number;
} view;

static view look_at(const am_comm_engine *e, void *group)
{
    return (view){.e = e, .group = group, .rank = e->rank(group), .size = e->count(group)};
}

static am_comm_call next_call(view *v, int dtype, int op)
{
    am_comm_call call = engine_call(60);
    call.dtype = dtype;
    call.op = op;
    call.number = ++v->number;
    return call;
}

__attribute__((format(printf, 3, 4))) static void expect(view *v, int holds, const char *what, ...)
{
    char text[200];
    va_list args;
    if (holds)
        return;
    va_start(args, what);
    vsnprintf(text, sizeof text, what, args);
    va_end(args);
    fprintf(stderr, "rank %d of %d: %s\n", v->rank, v->size, text);
    v->failures++;
}

/* ---- data that every rank can compute of every other ----------------------------------------- */

static double value_of(int dtype, int rank, int64_t i)
{
    uint32_t r = am_rng_u32(7, (uint64_t)rank, (uint64_t)i);
    if (dtype == AM_I32 || dtype == AM_I64)
        return (double)(int32_t)(r >> 4) - (1 << 27);
    return ldexp((double)r / 4294967296.0 - 0.5, (int)(r % 13) - 6);
}

static void put(void *x, int dtype, int64_t i, double value)
{
    if (dtype == AM_F32)
        ((float *)x)[i] = (float)value;
    else if (dtype == AM_F64)
        ((double *)x)[i] = value;
    else if (dtype == AM_I32)
        ((int32_t *)x)[i] = (int32_t)value;
    else
        ((int64_t *)x)[i] = (int64_t)value;
}

static double get(const void *x, int dtype, int64_t i)
{
    if (dtype == AM_F32)
        return (double)((const float *)x)[i];
    if (dtype == AM_F64)
        return ((const double *)x)[i];
    return dtype == AM_I32 ? ((const int32_t *)x)[i] : (double)((const int64_t *)x)[i];
}

static void fill(void *x, int dtype, int rank, int64_t from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        put(x, dtype, i, value_of(dtype, rank, from + i));
}

/* Is got what the ranks' values at i reduce to? Sums of floats may be rounded at each addition. */
static int reduced(double got, const view *v, int dtype, int op, int64_t i)
{
    double sum = 0, most = -INFINITY, least = INFINITY, size = 0;
    for (int r = 0; r < v->size; r++) {
        double x = value_of(dtype, r, i);
        if (dtype == AM_F32)
            x = (double)(float)x;
        sum += x;
        size += fabs(x);
        most = fmax(most, x);
        least = fmin(least, x);
    }
    if (op != AM_SUM)
        return got == (op == AM_MAX ? most : least);
    double tolerance = dtype == AM_F32 ? 0x1p-23 : dtype == AM_F64 ? 0x1p-51 : 0;
    return fabs(got - sum) <= tolerance * v->size * size;
}

/* Have all ranks the same bits? */
static void same_everywhere(view *v, const void *x, size_t bytes, const char *what)
{
    uint8_t own[AM_HASH_BYTES], all[64 * AM_HASH_BYTES];
    am_hash(own, x, bytes);
    am_comm_call call = next_call(v, AM_U8, 0);
    int rc = v->e->all_gather(v->group, all, own, sizeof own, &call);
    expect(v, rc == AM_OK, "digests: %s", call.message);
    for (int r = 0; rc == AM_OK && r < v->size; r++)
        expect(v, memcmp(own, all + r * AM_HASH_BYTES, sizeof own) == 0,
               "%s: other bits on rank %d", what, r);
}

static void *room(int64_t n, int dtype)
{
    return calloc((size_t)n + 1, (size_t)am_dtype_size(dtype));
}

/* What only moves is bytes. */
enum { FLOAT = sizeof(float), DOUBLE = sizeof(double) };

/* ---- one collective each ----------------------------------------------------------------------
 */

static void all_reduce(view *v, int dtype, int op, int64_t n)
{
    void *x = room(n, dtype);
    fill(x, dtype, v->rank, 0, n);
    am_comm_call call = next_call(v, dtype, op);
    int rc = v->e->all_reduce(v->group, x, n, &call), right = 1;
    expect(v, rc == AM_OK, "all_reduce: %s", call.message);
    for (int64_t i = 0; rc == AM_OK && i < n; i++)
        right &= reduced(get(x, dtype, i), v, dtype, op, i);
    expect(v, right, "all_reduce of %lld %s, op %d: wrong", (long long)n, am_dtype_name(dtype), op);
    same_everywhere(v, x, (size_t)n * (size_t)am_dtype_size(dtype), "all_reduce");
    free(x);
}

static void reduce_scatter(view *v, int dtype, int op, int64_t n)
{
    void *from = room(n * v->size, dtype), *to = room(n, dtype);
    fill(from, dtype, v->rank, 0, n * v->size);
    am_comm_call call = next_call(v, dtype, op);
    int rc = v->e->reduce_scatter(v->group, to, from, n, &call), right = 1;
    expect(v, rc == AM_OK, "reduce_scatter: %s", call.message);
    for (int64_t i = 0; rc == AM_OK && i < n; i++)
        right &= reduced(get(to, dtype, i), v, dtype, op, v->rank * n + i);
    expect(v, right, "reduce_scatter of %lld %s: wrong", (long long)n, am_dtype_name(dtype));
    free(from);
    free(to);
}

static void all_gather(view *v, int64_t n)
{
    float *from = room(n, AM_F32), *to = room(n * v->size, AM_F32);
    fill(from, AM_F32, v->rank, 0, n);
    am_comm_call call = next_call(v, AM_U8, 0);
    int rc = v->e->all_gather(v->group, to, from, n * FLOAT, &call), right = 1;
    expect(v, rc == AM_OK, "all_gather: %s", call.message);
    for (int r = 0; rc == AM_OK && r < v->size; r++)
        for (int64_t i = 0; i < n; i++)
            right &= to[r * n + i] == (float)value_of(AM_F32, r, i);
    expect(v, right, "all_gather of %lld: wrong", (long long)n);
    free(from);
    free(to);
}

static void broadcast(view *v, int64_t n)
{
    double *x = room(n, AM_F64);
    for (int root = 0; root < v->size; root++) {
        fill(x, AM_F64, v->rank, 0, n);
        am_comm_call call = next_call(v, AM_U8, 0);
        int rc = v->e->broadcast(v->group, x, n * DOUBLE, root, &call), right = 1;
        expect(v, rc == AM_OK, "broadcast: %s", call.message);
        for (int64_t i = 0; rc == AM_OK && i < n; i++)
            right &= x[i] == value_of(AM_F64, root, i);
        expect(v, right, "broadcast of %lld by %d: wrong", (long long)n, root);
    }
    free(x);
}

/* Rank a gives rank b (a + 2 b) n / 4 elements: also none. */
static int64_t portion(int a, int b, int64_t n)
{
    return (a + 2 * b) % 5 * n / 4;
}

static void all_to_all(view *v, int64_t n)
{
    int64_t to_counts[64], from_counts[64], gets = 0, gives = 0;
    for (int r = 0; r < v->size; r++) {
        gets += to_counts[r] = portion(r, v->rank, n) * FLOAT;
        gives += from_counts[r] = portion(v->rank, r, n) * FLOAT;
    }
    float *to = room(gets, AM_U8), *from = room(gives, AM_U8);
    float *at = from;
    for (int r = 0; r < v->size; at += from_counts[r++] / FLOAT)
        fill(at, AM_F32, v->rank * 64 + r, 0, from_counts[r] / FLOAT);
    am_comm_call call = next_call(v, AM_U8, 0);
    int rc = v->e->all_to_all(v->group, to, to_counts, from, from_counts, &call), right = 1;
    expect(v, rc == AM_OK, "all_to_all: %s", call.message);
    at = to;
    for (int r = 0; rc == AM_OK && r < v->size; at += to_counts[r++] / FLOAT)
        for (int64_t i = 0; i < to_counts[r] / FLOAT; i++)
            right &= at[i] == (float)value_of(AM_F32, r * 64 + v->rank, i);
    expect(v, right, "all_to_all of %lld: wrong", (long long)n);
    free(to);
    free(from);
}

/* Round a ring of an even number of ranks, twice with other tags. */
static void send_and_recv(view *v, int64_t n)
{
    float *x = room(n, AM_F32), *y = room(n, AM_F32);
    int next = (v->rank + 1) % v->size, before = (v->rank + v->size - 1) % v->size, right = 1;
    for (int tag = 0; tag < 2; tag++) {
        fill(x, AM_F32, v->rank + 64 * tag, 0, n);
        for (int turn = 0; turn < 2; turn++) { /* even ranks send first */
            am_comm_call call = next_call(v, AM_U8, 0);
            int rc = (v->rank + turn) % 2 == 0
                         ? v->e->send(v->group, x, n * FLOAT, next, tag, &call)
                         : v->e->recv(v->group, y, n * FLOAT, before, tag, &call);
            expect(v, rc == AM_OK, "send and recv: %s", call.message);
        }
        for (int64_t i = 0; i < n; i++)
            right &= y[i] == (float)value_of(AM_F32, before + 64 * tag, i);
    }
    expect(v, right, "send and recv of %lld: wrong", (long long)n);
    free(x);
    free(y);
}

static void barrier(view *v)
{
    am_comm_call call = next_call(v, AM_U8, 0);
    expect(v, v->e->barrier(v->group, &call) == AM_OK, "barrier: %s", call.message);
}

static void all_collectives(view *v)
{
    static const int64_t sizes[] = {0, 1, 7, 1000, (1 << 20) + 3};
    static const int dtypes[] = {AM_F32, AM_F64, AM_I32, AM_I64};
    for (int s = 0; s < 5; s++) {
        int64_t n = sizes[s];
        int large = n > 1000;
        for (int d = 0; d < (large ? 1 : 4); d++)
            for (int op = AM_SUM; op <= (large ? AM_SUM : AM_MIN); op++) {
                all_reduce(v, dtypes[d], op, n);
                reduce_scatter(v, dtypes[d], op, n / v->size);
            }
        all_gather(v, n / v->size);
        broadcast(v, n);
        all_to_all(v, n / v->size);
        if (v->size % 2 == 0)
            send_and_recv(v, n);
        barrier(v);
    }
}

/* ---- groups at the same time ------------------------------------------------------------------
 */

static void *use(void *arg)
{
    view *v = arg;
    for (int round = 0; round < 20; round++) {
        all_reduce(v, AM_F32, AM_SUM, 1 + 197 * round);
        reduce_scatter(v, AM_F64, AM_MAX, 13);
        all_gather(v, 100);
        barrier(v);
    }
    return NULL;
}

/* Every rank is in one group of every second, and in one of two neighbours; ranks are numbered
 * backwards in the latter. */
static int groups_at_once(view *all)
{
    view v[2];
    for (int i = 0; i < 2; i++) {
        void *group = NULL;
        int color = i == 0 ? all->rank % 2 : all->rank / 2;
        int key = i == 0 ? 0 : -all->rank;
        am_comm_call call = next_call(all, AM_U8, 0);
        int rc = all->e->split(&group, all->group, color, key, &call);
        expect(all, rc == AM_OK, "split: %s", call.message);
        if (rc != AM_OK)
            return 1;
        v[i] = look_at(all->e, group);
    }
    int neighbours = all->rank / 2 * 2 + 1 < all->size ? 2 : 1;
    expect(all, v[0].size == (all->size + 1 - all->rank % 2) / 2 && v[0].rank == all->rank / 2,
           "every second: rank %d of %d", v[0].rank, v[0].size);
    expect(all, v[1].size == neighbours && v[1].rank == (neighbours == 2 ? 1 - all->rank % 2 : 0),
           "neighbours: rank %d of %d", v[1].rank, v[1].size);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, use, &v[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    barrier(all);
    for (int i = 0; i < 2; i++)
        all->e->close(v[i].group);
    return v[0].failures + v[1].failures;
}

int engine_checks(const am_comm_engine *e, void *group)
{
    view v = look_at(e, group);
    all_collectives(&v);
    int failures = groups_at_once(&v);
    return failures + v.failures;
}

int engine_times(const am_comm_engine *e, void *group)
{
    static const int64_t sizes[] = {256, 4 << 20};
    static const int rounds[] = {500, 20};
    view v = look_at(e, group);
    for (int s = 0; s < 2; s++) {
        float *x = room(sizes[s], AM_F32);
        double least = INFINITY, start = 0;
        for (int round = -5; round < rounds[s]; round++) {
            barrier(&v);
            double began = am_clock();
            if (round == 0)
                start = began;
            am_comm_call call = next_call(&v, AM_F32, AM_SUM);
            expect(&v, e->all_reduce(group, x, sizes[s], &call) == AM_OK, "%s", call.message);
            least = fmin(least, am_clock() - began);
        }
        if (v.rank == 0)
            printf("# all_reduce of %lld kB on %d ranks: %.0f us at best, %.0f us with a barrier\n",
                   (long long)sizes[s] * 4 / 1024, v.size, least * 1e6,
                   (am_clock() - start) / rounds[s] * 1e6);
        free(x);
    }
    return v.failures;
}
