/* grouped.c — matrix products of rows that are sorted by group, each group with a matrix of its
 * own, as a mixture of experts has them. A task is some rows and columns of one group's product,
 * done by one thread. Sizes that come from data (a group's rows) are filled up with zeros to
 * multiples of a step: so a few of oneDNN's primitives serve all groups, and a row's bits do not
 * depend on how large its group is. bf16 on AMX is amx/tile_gemm.c's, group by group.
 *
 * In a product of rows (forward, and the gradient of x) the groups cut c's rows; in a gradient of
 * the matrices they cut the sums, which are added up in parts of SUM_PART rows.
 *
 * Scratch slots: 0 and 1 operands, 2 the product, 3 oneDNN's own, 4 the list of tasks. */
#include <omp.h>
#include <string.h>
#include "cpu.h"
#include "grouped.h"
#include "onednn.h"
#include "ref_kernels.h"

/* A phase has at most SIZES primitives: what a set of oneDNN's table holds, so none is dropped
 * while another is made. */
enum { SIZES = 8, F32_STEP = 24, BF16_STEP = 32, SUM_STEP = 32, SUM_PART = SIZES * SUM_STEP };
/* Columns of a task; the longest sums that are converted at once. */
enum { TASK_COLS = 512, COLS_STEP = 32, K_PART = 4096 };

typedef struct grouped {
    const am_cpu_products *by;
    const void *a, *b, *bias;
    void *c;
    const int32_t *offsets;
    int dtype, dtype_c, compute; /* of the operands; of c; of what is multiplied: f32 or bf16 */
    int trans_a, trans_b, accumulate;
    int of_rows;                       /* groups cut c's rows, else the sums */
    int64_t groups, m, n, k, lda, ldb; /* of one group; m or k is as in offsets */
    int64_t step, most;                /* rows of a task: multiples of step */
    int64_t part;                      /* of the sums */
} grouped;

typedef struct task {
    int64_t group, row, rows; /* rows of c, counted from the group's first */
} task;

static size_t size_of(int dtype)
{
    return dtype == AM_F32 ? 4 : 2;
}

static const void *at(const void *p, int64_t elements, int dtype)
{
    return (const char *)p + elements * (int64_t)size_of(dtype);
}

static int64_t up_to(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

static int64_t at_most(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The size of equal blocks, multiples of `step`, of at most `most`. */
static int64_t even_size(int64_t n, int64_t most, int64_t step)
{
    int64_t count = (n + most - 1) / most;
    return count ? up_to((n + count - 1) / count, step) : step;
}

static int64_t rows_of(const grouped *g, int64_t group)
{
    return g->offsets[group + 1] - g->offsets[group];
}

/* The weight's product takes it as it lies, unless it has to be converted. */
static int copies_b(const grouped *g)
{
    return !g->of_rows || g->compute != g->dtype;
}

/* How long the sums of a task's part are that has `n` left. */
static int64_t padded_part(const grouped *g, int64_t n)
{
    return g->of_rows ? g->part : up_to(at_most(n, SUM_PART), SUM_STEP);
}

static am_gemm_args primitive_args(const grouped *g, int64_t m, int64_t n, int64_t k)
{
    return (am_gemm_args){.dtype_ab = g->compute,
                          .dtype_c = AM_F32,
                          .trans_a = g->trans_a,
                          .trans_b = g->trans_b,
                          .accumulate = 1,
                          .alpha = 1,
                          .m = m,
                          .n = n,
                          .k = k,
                          .lda = g->trans_a ? m : k,
                          .ldb = !copies_b(g) ? g->ldb
                                 : g->trans_b ? k
                                              : n,
                          .ldc = n,
                          .batch = 1};
}

static int copy_rows(const grouped *g, void *to, int64_t ld_to, int dtype_to, const void *from,
                     int64_t ld_from, int dtype_from, int64_t rows, int64_t cols, int accumulate)
{
    am_copy_args copy = {
        .out = to,
        .a = from,
        .dtype_out = dtype_to,
        .dtype_a = dtype_from,
        .accumulate = accumulate,
        .nd = {.ndim = 2, .shape = {rows, cols}, .stride = {{ld_to, 1}, {ld_from, 1}}}};
    return g->by->convert(NULL, &copy);
}

/* rows x cols of an operand as what is multiplied, zeros up to `padded`. */
static int copy_operand(const grouped *g, void *to, int64_t ld_to, int64_t padded_rows,
                        const void *from, int64_t ld_from, int64_t rows, int64_t cols)
{
    if (rows < padded_rows || cols < ld_to)
        memset(to, 0, (size_t)(padded_rows * ld_to) * size_of(g->compute));
    return copy_rows(g, to, ld_to, g->compute, from, ld_from, g->dtype, rows, cols, 0);
}

/* Columns col.. of a task, `cols` of them. */
static int run_task(const grouped *g, const task *t, int64_t col, int64_t cols,
                    const matmul *primitives)
{
    int64_t first = g->offsets[t->group], k = g->of_rows ? g->k : rows_of(g, t->group);
    int64_t m = up_to(t->rows, g->step), part = g->of_rows ? g->part : SUM_PART;
    void *a = am_scratch(0, (size_t)(m * part) * size_of(g->compute));
    void *b = copies_b(g) ? am_scratch(1, (size_t)(part * cols) * size_of(g->compute)) : NULL;
    float *sum = am_scratch(2, (size_t)(m * cols) * sizeof *sum);
    if (!a || (copies_b(g) && !b) || !sum)
        return AM_ENOMEM;
    /* where the task's row and column begin, in the group's operands */
    const void *a0 =
        at(g->a, g->of_rows ? (first + t->row) * g->lda : first * g->lda + t->row, g->dtype);
    const void *b0 = at(g->b, g->of_rows ? t->group * g->n * g->k : first * g->ldb, g->dtype);
    b0 = at(b0, g->trans_b ? col * g->ldb : col, g->dtype);
    memset(sum, 0, (size_t)(m * cols) * sizeof *sum);
    int rc = AM_OK;
    for (int64_t done = 0; done < k && rc == AM_OK; done += part) {
        int64_t n = at_most(part, k - done), padded = padded_part(g, k - done);
        am_gemm_args f = primitive_args(g, m, cols, padded);
        f.a = a;
        f.b = b ? b : b0;
        f.c = sum;
        if (g->trans_a)
            rc = copy_operand(g, a, m, padded, at(a0, done * g->lda, g->dtype), g->lda, n, t->rows);
        else
            rc = copy_operand(g, a, padded, m, at(a0, done, g->dtype), g->lda, t->rows, n);
        if (rc == AM_OK && b && g->trans_b)
            rc = copy_operand(g, b, padded, cols, at(b0, done, g->dtype), g->ldb, cols, n);
        else if (rc == AM_OK && b)
            rc = copy_operand(g, b, cols, padded, at(b0, done * g->ldb, g->dtype), g->ldb, n, cols);
        const matmul *p = &primitives[(g->of_rows ? m / g->step : padded / SUM_STEP) - 1];
        void *own = am_scratch(3, p->scratch_bytes + 64);
        if (rc == AM_OK)
            rc = own ? am_onednn_run(p, &f, own) : AM_ENOMEM;
    }
    if (rc == AM_OK && g->bias)
        rc = copy_rows(g, sum, cols, AM_F32, at(g->bias, t->group * g->n + col, g->dtype), 0,
                       g->dtype, t->rows, cols, 1);
    int64_t row = g->of_rows ? first + t->row : t->group * g->m + t->row;
    void *c = (char *)g->c + (row * g->n + col) * (int64_t)size_of(g->dtype_c);
    return rc == AM_OK
               ? copy_rows(g, c, g->n, g->dtype_c, sum, cols, AM_F32, t->rows, cols, g->accumulate)
               : rc;
}

/* The primitives of tasks that have `rows` (0: any) and `cols`. AM_EUNSUP where bf16 is not
 * multiplied, or not in rows that are the same for any m. */
static int find_primitives(matmul *found, const grouped *g, const task *tasks, int64_t count,
                           int64_t rows, int64_t cols)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t m = up_to(tasks[i].rows, g->step),
                k = g->of_rows ? g->k : rows_of(g, tasks[i].group);
        if (rows && m != rows)
            continue;
        for (int64_t done = 0; done < k; done += g->of_rows ? g->part : SUM_PART) {
            int64_t padded = padded_part(g, k - done);
            matmul *p = &found[(g->of_rows ? m / g->step : padded / SUM_STEP) - 1], *made;
            am_gemm_args f = primitive_args(g, m, cols, padded);
            if (p->primitive)
                continue;
            int rc = am_onednn_find(&made, &f, 1);
            if (rc != AM_OK)
                return rc;
            if (!made->primitive ||
                (g->compute == AM_BF16 && g->most != g->step && !made->any_rows))
                return AM_EUNSUP;
            *p = *made;
        }
    }
    return AM_OK;
}

/* Columns from `col` on of all tasks with `rows` (0: any), `across` blocks of `cols`. */
static int run_phase(const grouped *g, const task *tasks, int64_t count, int64_t rows, int64_t col,
                     int64_t across, int64_t cols, int threads)
{
    matmul found[SIZES];
    memset(found, 0, sizeof found);
    int rc = find_primitives(found, g, tasks, count, rows, cols);
    if (rc != AM_OK)
        return rc;
    int failed = AM_OK;
#pragma omp parallel for collapse(2) schedule(dynamic, 1) num_threads(threads)
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = 0; j < across; j++) {
            if (rows && up_to(tasks[i].rows, g->step) != rows)
                continue;
            int one = run_task(g, &tasks[i], col + j * cols, cols, found);
            if (one != AM_OK) {
#pragma omp atomic write
                failed = one;
            }
        }
    }
    return failed == AM_OK ? AM_OK : am_kernel_fail(failed, "grouped_gemm: a part failed");
}

/* The tasks of all groups in scratch slot 4. */
static int64_t list_tasks(const grouped *g, task **list)
{
    int64_t n = 0, room = 0;
    for (int64_t e = 0; e < g->groups; e++)
        room += ((g->of_rows ? rows_of(g, e) : g->m) + g->most - 1) / g->most;
    task *l = am_scratch(4, (size_t)(room + 1) * sizeof *l);
    if (!l)
        return -1;
    for (int64_t e = 0; e < g->groups; e++) {
        int64_t m = g->of_rows ? rows_of(g, e) : g->m, rows = even_size(m, g->most, g->step);
        for (int64_t i = 0; i < m; i += rows)
            l[n++] = (task){e, i, at_most(rows, m - i)};
    }
    *list = l;
    return n;
}

static int run_all(grouped *g, int compute, int threads)
{
    g->compute = compute;
    g->step = compute == AM_F32 ? F32_STEP : g->by->one_size ? 2 * BF16_STEP : BF16_STEP;
    g->most = compute == AM_BF16 && g->by->one_size ? g->step : SIZES * g->step;
    g->part = compute == g->dtype ? g->k : even_size(g->k, K_PART, COLS_STEP);
    task *tasks;
    int64_t count = list_tasks(g, &tasks), cols = even_size(g->n, TASK_COLS, COLS_STEP);
    if (count < 0)
        return am_kernel_fail(AM_ENOMEM, "grouped_gemm: no scratch memory");
    int64_t across = (g->n + cols - 1) / cols, last = g->n - (across - 1) * cols;
    /* a gradient's tasks have two heights, a product of rows has one for each primitive */
    int64_t rows = g->of_rows ? 0 : up_to(even_size(g->m, g->most, g->step), g->step);
    int64_t low = g->of_rows ? 0 : up_to(g->m - (g->m - 1) / rows * rows, g->step);
    for (int phase = 0; phase < 4; phase++) {
        int64_t height = phase & 1 ? low : rows;
        int64_t first = phase & 2 ? across - 1 : 0, blocks = phase & 2 ? 1 : across - 1;
        if ((phase & 1 && low == rows) || blocks == 0)
            continue;
        int rc = run_phase(g, tasks, count, height, first * cols, blocks, phase & 2 ? last : cols,
                           threads);
        if (rc != AM_OK)
            return rc;
    }
    return AM_OK;
}

/* By the tiles' own product, which shares out large groups itself. */
static int run_on_tiles(const grouped *g, int threads)
{
    int64_t used = 0;
    int failed = AM_OK;
    for (int64_t e = 0; e < g->groups; e++)
        used += rows_of(g, e) > 0;
    int team = used >= threads ? threads : 1;
#pragma omp parallel for schedule(dynamic, 1) num_threads(team) if (team > 1)
    for (int64_t e = 0; e < g->groups; e++) {
        int64_t first = g->offsets[e], rows = rows_of(g, e), m = g->of_rows ? rows : g->m;
        int64_t k = g->of_rows ? g->k : rows, c = (g->of_rows ? first : e * g->m) * g->n;
        am_gemm_args f = {.c = (char *)g->c + c * (int64_t)size_of(g->dtype_c),
                          .a = at(g->a, first * g->lda, g->dtype),
                          .b = at(g->b, g->of_rows ? e * g->n * g->k : first * g->ldb, g->dtype),
                          .bias = g->bias ? at(g->bias, e * g->n, g->dtype) : NULL,
                          .dtype_ab = g->dtype,
                          .dtype_c = g->dtype_c,
                          .trans_a = g->trans_a,
                          .trans_b = g->trans_b,
                          .accumulate = g->accumulate,
                          .alpha = 1,
                          .m = m,
                          .n = g->n,
                          .k = k,
                          .lda = g->lda,
                          .ldb = g->ldb,
                          .ldc = g->n,
                          .batch = 1};
        int rc = m == 0 ? AM_OK : k == 0 ? am_ref_gemm(NULL, &f) : g->by->on_tiles(NULL, &f);
        if (rc != AM_OK) {
#pragma omp atomic write
            failed = rc;
        }
    }
    return failed == AM_OK ? AM_OK : am_kernel_fail(failed, "grouped_gemm: a group failed");
}

static int run(grouped *g, int threads)
{
    if (g->dtype == AM_BF16 && g->by->on_tiles)
        return run_on_tiles(g, threads);
    omp_set_num_threads(1); /* inside a task */
    int rc = AM_EUNSUP;
    if (g->dtype == AM_BF16 && g->by->native_bf16)
        rc = run_all(g, AM_BF16, threads);
    return rc == AM_EUNSUP ? run_all(g, AM_F32, threads) : rc;
}

int am_cpu_run_grouped(const am_cpu_products *by, const am_grouped_gemm_args *args, int threads)
{
    grouped g = {.by = by,
                 .a = args->a,
                 .b = args->b,
                 .bias = args->bias,
                 .c = args->c,
                 .offsets = args->offsets,
                 .dtype = args->dtype_ab,
                 .dtype_c = args->dtype_c,
                 .trans_b = args->trans_b,
                 .accumulate = args->accumulate,
                 .of_rows = 1,
                 .groups = args->groups,
                 .n = args->n,
                 .k = args->k,
                 .lda = args->k,
                 .ldb = args->trans_b ? args->k : args->n};
    return run(&g, threads);
}

int am_cpu_run_grouped_dw(const am_cpu_products *by, const am_grouped_gemm_dw_args *args,
                          int threads)
{
    int64_t m = args->turned ? args->k : args->n, n = args->turned ? args->n : args->k;
    grouped g = {.by = by,
                 .a = args->turned ? args->x : args->dout,
                 .b = args->turned ? args->dout : args->x,
                 .c = args->dw,
                 .offsets = args->offsets,
                 .dtype = args->dtype,
                 .dtype_c = args->dtype_dw,
                 .trans_a = 1,
                 .accumulate = args->accumulate_dw,
                 .groups = args->groups,
                 .m = m,
                 .n = n,
                 .lda = m,
                 .ldb = n};
    return run(&g, threads);
}
