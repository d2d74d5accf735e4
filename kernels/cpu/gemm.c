/* gemm.c — matrix products, cut into those that oneDNN does (onednn.c).
 *
 * f32 runs as it is. bf16 is amx/tile_gemm.c's where there are tiles, runs natively where the CPU
 * multiplies bf16, else it is converted tile by tile to f32 in scratch; f16 always is. f64 stays
 * with ref.
 *
 * A row's bits must not depend on the rows beside it. Tiles keep that, and the `brg` kernels of
 * oneDNN 2 in bf16. All others choose their loops by m, or by a row's place, so there the product
 * is cut into blocks of rows and columns, each done by one thread and all by one implementation:
 *   - f32: blocks are multiples of F32_STEP, and so of the register tiles of `gemm` (4, 6, 8 rows);
 *     each packs b anew, so they are large, but from 216 rows on `gemm` cuts k by their number
 *     (seen at k = 1032). It adds up k in parts, `brg` in one chain of roundings: SmolLM2's mean
 *     error is 1.0 against 1.5 times transformers', at the same speed.
 *   - bf16 with oneDNN 3: each block has BF16_ROWS rows, so all are done by one and the same
 *     primitive, and as many columns as can be, since c is copied where they are not all.
 *     A long k with an f32 result is added up in parts (run_parts); k alone gives their number.
 *
 * A transposed a has features in its columns, not samples: `brg` takes it whole, where there is
 * one. Sums of at most AM_THIN products in f32 are simd/thin_gemm.c's.
 *
 * A map's thin products are simd/low_rank.c's, in one pass over their common operand, where the
 * rank is low; else oneDNN is faster.
 *
 * Scratch slots: 0 and 1 operands, 2 the product, 3 oneDNN's own, 4 a gradient to be turned. */
#include <omp.h>
#include <pthread.h>
#include <string.h>
#include "cpu.h"
#include "dtype.h"
#include "grouped.h"
#include "onednn.h"
#include "ref_kernels.h"

enum { F32_ROWS = 192, F32_LEAST = 120, F32_STEP = 24, BF16_ROWS = 256, BF16_COLS = 2048 };
enum { BLOCK_COLS = 512, COLS_STEP = 32, K_PART = 8192, PARTS_BYTES = 32 << 20 };
/* What is converted at once: a part of k, rows of a, and as many columns as leave b's part and the
 * sum, in f32, no more than TILE_BYTES each. */
enum { TILE_K = 4096, TILE_ROWS = 1024, TILE_BYTES = 8 << 20 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int native_bf16, bf16_in_blocks;
static int (*convert)(am_stream *s, const am_copy_args *args);
static int (*thin)(am_stream *s, const am_gemm_args *args);
static int (*on_tiles)(am_stream *s, const am_gemm_args *args); /* or NULL */
static int (*one_pass)(am_stream *s, const am_low_rank_args *args);
static int (*sum_rows)(am_stream *s, const am_reduce_args *args);

void am_cpu_gemm_init(int isa, const am_cpu_kernels *simd)
{
    am_onednn_init(isa);
    native_bf16 = isa >= AM_ISA_AVX512_BF16;
#if defined(__x86_64__)
    on_tiles = isa >= AM_ISA_AMX ? am_cpu_tile_gemm : NULL;
#endif
    bf16_in_blocks = !on_tiles && am_onednn_is_v3();
    convert = simd->copy;
    thin = simd->gemm;
    one_pass = simd->low_rank;
    sum_rows = simd->reduce;
}

static size_t size_of(int dtype)
{
    return dtype == AM_F32 ? 4 : 2;
}

static void *at(const void *p, int64_t elements, size_t size)
{
    return (char *)(uintptr_t)p + elements * (int64_t)size;
}

static int scratch_failed(void)
{
    return am_kernel_fail(AM_ENOMEM, "gemm: no scratch memory");
}

static int copy_rows(void *to, int64_t ld_to, const void *from, int64_t ld_from, int dtype_to,
                     int dtype_from, int64_t rows, int64_t cols, int accumulate)
{
    am_copy_args copy = {
        .out = to,
        .a = from,
        .dtype_out = dtype_to,
        .dtype_a = dtype_from,
        .accumulate = accumulate,
        .nd = {.ndim = 2, .shape = {rows, cols}, .stride = {{ld_to, 1}, {ld_from, 1}}}};
    return convert(NULL, &copy);
}

/* One primitive for all of g, if that is how its rows come out the same for any m: sets *done. */
static int run_whole(const am_gemm_args *g, int threads, int *done)
{
    matmul *p;
    int rc = am_onednn_find(&p, g, threads);
    if (rc != AM_OK || !p->any_rows)
        return rc;
    void *scratch = am_scratch(3, p->scratch_bytes + 64);
    if (!scratch)
        return scratch_failed();
    *done = 1;
    return am_onednn_run(p, g, scratch);
}

/* u op(v) as a product of its own that adds to c; g may be part of one with n columns. */
static am_gemm_args uv_args(const am_gemm_args *g, int64_t n)
{
    am_gemm_args f = *g;
    f.a = g->u;
    f.b = g->v;
    f.bias = f.u = f.v = NULL;
    f.trans_a = 0;
    f.accumulate = 1;
    f.alpha = 1;
    f.k = f.lda = g->r;
    f.ldb = g->trans_b ? g->r : n;
    return f;
}

/* The primitives of a block. `low` is of u op(v), unless thin does that. */
typedef struct block_primitives {
    matmul full, low;
} block_primitives;

/* A block of at most as many rows as its primitives have, whose operands may lie otherwise than
 * they want them: those go through copies. Rows that are missing are zero, so nothing that is
 * computed from them is slow. */
static int run_block(const block_primitives *b, const am_gemm_args *g, const am_gemm_args *low)
{
    const matmul_key *key = &b->full.key;
    int ab = g->dtype_ab, to = g->dtype_c, fewer = key->m != g->m;
    int copy_a = fewer || key->lda != g->lda, copy_c = fewer || key->ldc != g->ldc;
    size_t own =
        b->low.scratch_bytes > b->full.scratch_bytes ? b->low.scratch_bytes : b->full.scratch_bytes;
    size_t a_bytes = copy_a ? (size_t)(key->m * g->k) * size_of(ab) : 0;
    size_t u_bytes = fewer && b->low.primitive ? (size_t)(key->m * g->r) * size_of(ab) : 0;
    size_t c_bytes = copy_c ? (size_t)(key->m * g->n) * size_of(to) : 0;
    own = (own + 63) / 64 * 64;
    a_bytes = (a_bytes + 63) / 64 * 64;
    u_bytes = (u_bytes + 63) / 64 * 64;
    char *scratch = am_scratch(3, own + a_bytes + u_bytes + c_bytes + 64);
    if (!scratch)
        return scratch_failed();
    am_gemm_args f = *g, l = *low;
    f.lda = key->lda;
    l.ldc = f.ldc = key->ldc;
    int rc = AM_OK;
    if (fewer)
        memset(scratch + own, 0, a_bytes + u_bytes + c_bytes);
    if (copy_a) {
        int64_t rows = g->trans_a ? g->k : g->m, cols = g->trans_a ? g->m : g->k;
        f.a = scratch + own;
        rc = copy_rows(scratch + own, f.lda, g->a, g->lda, ab, ab, rows, cols, 0);
    }
    if (u_bytes)
        l.a = memcpy(scratch + own + a_bytes, low->a, (size_t)(g->m * g->r) * size_of(ab));
    if (copy_c) {
        l.c = f.c = scratch + own + a_bytes + u_bytes;
        if (rc == AM_OK && g->accumulate)
            rc = copy_rows(f.c, f.ldc, g->c, g->ldc, to, to, g->m, g->n, 0);
    }
    if (rc == AM_OK)
        rc = am_onednn_run(&b->full, &f, scratch);
    if (rc == AM_OK && g->u)
        rc = b->low.primitive ? am_onednn_run(&b->low, &l, scratch) : thin(NULL, &l);
    return rc == AM_OK && copy_c ? copy_rows(g->c, g->ldc, f.c, f.ldc, to, to, g->m, g->n, 0) : rc;
}

/* The size of equal blocks, multiples of `step`, of at most about `most`. */
static int64_t even_size(int64_t n, int64_t most, int64_t step)
{
    int64_t count = (n + most - 1) / most;
    return (n + count * step - 1) / (count * step) * step;
}

/* The last block's size, and the number of blocks. */
static int64_t last_of(int64_t n, int64_t block, int64_t *count)
{
    *count = (n + block - 1) / block;
    return n - (*count - 1) * block;
}

/* How g is cut. */
typedef struct blocking {
    int64_t rows, step; /* rows of a block, the last one filled up to a multiple of step */
    int64_t cols;
    int dense; /* blocks of a and c lie row after row, by copies if need be */
} blocking;

static int run_blocks(const am_gemm_args *g, const blocking *cut, int threads)
{
    int64_t down, across, rows = last_of(g->m, cut->rows, &down);
    int64_t cols = last_of(g->n, cut->cols, &across);
    size_t size_ab = size_of(g->dtype_ab), size_c = size_of(g->dtype_c);
    block_primitives shapes[2][2]; /* [last row of blocks][last column of blocks] */
    memset(shapes, 0, sizeof shapes);
    omp_set_num_threads(1); /* inside a block */
    for (int i = 0; i < 4; i++) {
        am_gemm_args f = *g;
        matmul *p;
        int last_row = i >> 1, last_col = i & 1;
        f.batch = 1;
        f.m = last_row || down == 1 ? rows : cut->rows;
        f.n = last_col || across == 1 ? cols : cut->cols;
        if (f.m % cut->step || cut->dense) {
            f.m = (f.m + cut->step - 1) / cut->step * cut->step;
            f.lda = f.trans_a ? f.m : f.k;
            f.ldc = f.n;
        }
        int rc = am_onednn_find(&p, &f, 1);
        if (rc != AM_OK)
            return rc;
        if (!p->primitive)
            return am_kernel_fail(AM_EUNSUP, "gemm: oneDNN can't multiply this dtype here");
        shapes[last_row][last_col].full = *p;
        if (!g->u || g->dtype_ab == AM_F32)
            continue;
        am_gemm_args low = uv_args(&f, g->n);
        rc = am_onednn_find(&p, &low, 1);
        if (rc != AM_OK)
            return rc;
        shapes[last_row][last_col].low = *p;
    }
    int failed = AM_OK; /* the code of some block; its message was another thread's */
#pragma omp parallel for collapse(3) schedule(dynamic, 1) num_threads(threads)
    for (int64_t z = 0; z < g->batch; z++) {
        for (int64_t i = 0; i < down; i++) {
            for (int64_t j = 0; j < across; j++) {
                int64_t row = i * cut->rows, col = j * cut->cols;
                am_gemm_args f = *g;
                f.batch = 1;
                f.m = i == down - 1 ? rows : cut->rows;
                f.n = j == across - 1 ? cols : cut->cols;
                f.a = at(g->a, z * g->stride_a + (g->trans_a ? row : row * g->lda), size_ab);
                f.b = at(g->b, z * g->stride_b + (g->trans_b ? col * g->ldb : col), size_ab);
                f.c = at(g->c, z * g->stride_c + row * g->ldc + col, size_c);
                if (g->bias)
                    f.bias = at(g->bias, col, size_ab);
                am_gemm_args low = uv_args(&f, g->n);
                if (g->u) {
                    if (g->dtype_ab == AM_F32) { /* see run_with_uv */
                        low.trans_b = 0;
                        low.ldb = g->n;
                    }
                    low.a = at(g->u, row * g->r, size_ab);
                    low.b = at(g->v, low.trans_b ? col * g->r : col, size_ab);
                }
                int rc = run_block(&shapes[i == down - 1][j == across - 1], &f, &low);
                if (rc != AM_OK) {
#pragma omp atomic write
                    failed = rc;
                }
            }
        }
    }
    omp_set_num_threads(threads);
    return failed == AM_OK ? AM_OK : am_kernel_fail(failed, "gemm: a block failed");
}

/* f32 operands. */
static int run_f32(const am_gemm_args *g, int threads)
{
    int done = 0, rc = g->u ? AM_EUNSUP : thin(NULL, g);
    if (rc != AM_EUNSUP)
        return rc;
    rc = g->trans_a ? run_whole(g, threads, &done) : AM_OK;
    if (rc != AM_OK || done)
        return rc;
    int64_t cols = even_size(g->n, BLOCK_COLS, COLS_STEP), across = (g->n + cols - 1) / cols;
    int64_t share = g->batch * g->m * across / (2 * threads); /* two blocks for each thread */
    int64_t most = share < F32_LEAST ? F32_LEAST : share > F32_ROWS ? F32_ROWS : share;
    blocking f32 = {.rows = even_size(g->m, most, F32_STEP), .step = F32_STEP, .cols = cols};
    return run_blocks(g, &f32, threads);
}

/* Rows and columns of item z's c. */
typedef struct tile {
    int64_t z, row, col, m, n;
} tile;

/* u and v of a tile in f32, behind one another in `to`, and v as thin wants it. */
static int convert_uv(am_gemm_args *f, const am_gemm_args *g, const tile *t, float *to)
{
    int64_t r = g->r, step = g->trans_b ? r : 1, next = g->trans_b ? 1 : g->n;
    float *v = to + t->m * r;
    am_copy_args columns = {
        .out = v,
        .a = at(g->v, t->col * step, 2),
        .dtype_out = AM_F32,
        .dtype_a = g->dtype_ab,
        .nd = {.ndim = 2, .shape = {r, t->n}, .stride = {{t->n, 1}, {next, step}}}};
    f->u = to;
    f->v = v;
    int rc = copy_rows(to, r, at(g->u, t->row * r, 2), r, AM_F32, g->dtype_ab, t->m, r, 0);
    return rc == AM_OK ? convert(NULL, &columns) : rc;
}

/* A tile of a product through f32, in equal parts of k. */
static int run_tile(const am_gemm_args *g, const tile *t, int64_t part, int threads)
{
    int from = g->dtype_ab, half_c = g->dtype_c != AM_F32;
    int64_t m = t->m, n = t->n, in_sum = half_c ? m * n : 0, in_uv = g->u ? (m + n) * g->r : 0;
    float *a = am_scratch(0, (size_t)(m * part) * sizeof *a);
    float *b = am_scratch(1, (size_t)(part * n) * sizeof *b);
    float *sum = am_scratch(2, (size_t)(in_sum + n + in_uv) * sizeof *sum);
    if (!a || !b || !sum)
        return scratch_failed();
    void *c = at(g->c, t->z * g->stride_c + t->row * g->ldc + t->col, size_of(g->dtype_c));
    float *bias = sum + in_sum;
    am_gemm_args f = *g;
    f.a = a;
    f.b = b;
    f.bias = f.u = f.v = NULL;
    f.dtype_ab = f.dtype_c = AM_F32;
    f.batch = 1;
    f.m = m;
    f.n = n;
    f.c = half_c ? sum : c;
    f.ldc = half_c ? n : g->ldc;
    f.accumulate = half_c ? 0 : g->accumulate;
    int rc = AM_OK;
    if (g->bias) {
        f.bias = bias;
        rc = copy_rows(bias, n, at(g->bias, t->col, 2), n, AM_F32, from, 1, n, 0);
    }
    for (int64_t k = 0; k < g->k && rc == AM_OK; k += part) {
        f.k = g->k - k < part ? g->k - k : part;
        f.lda = g->trans_a ? m : f.k;
        f.ldb = g->trans_b ? f.k : n;
        int64_t a_at = g->trans_a ? k * g->lda + t->row : t->row * g->lda + k;
        int64_t b_at = g->trans_b ? t->col * g->ldb + k : k * g->ldb + t->col;
        rc = copy_rows(a, f.lda, at(g->a, t->z * g->stride_a + a_at, 2), g->lda, AM_F32, from,
                       g->trans_a ? f.k : m, f.lda, 0);
        if (rc == AM_OK)
            rc = copy_rows(b, f.ldb, at(g->b, t->z * g->stride_b + b_at, 2), g->ldb, AM_F32, from,
                           g->trans_b ? n : f.k, f.ldb, 0);
        if (rc == AM_OK && g->u && k + part >= g->k)
            rc = convert_uv(&f, g, t, bias + n);
        if (rc == AM_OK)
            rc = run_f32(&f, threads);
        f.accumulate = 1;
        f.bias = NULL;
    }
    if (rc == AM_OK && half_c)
        rc = copy_rows(c, g->ldc, sum, n, g->dtype_c, AM_F32, m, n, g->accumulate);
    return rc;
}

/* bf16 or f16 through f32 tiles. Parts of k depend on k alone. */
static int run_converted(const am_gemm_args *g, int threads)
{
    int64_t part = even_size(g->k, TILE_K, COLS_STEP);
    int64_t most = TILE_BYTES / 4 / (part > TILE_ROWS ? part : TILE_ROWS); /* of b and of the sum */
    int64_t cols = even_size(g->n, most, COLS_STEP);
    for (int64_t z = 0; z < g->batch; z++) {
        for (int64_t i = 0; i < g->m; i += TILE_ROWS) {
            for (int64_t j = 0; j < g->n; j += cols) {
                tile t = {.z = z, .row = i, .col = j};
                t.m = g->m - i < TILE_ROWS ? g->m - i : TILE_ROWS;
                t.n = g->n - j < cols ? g->n - j : cols;
                int rc = run_tile(g, &t, part, threads);
                if (rc != AM_OK)
                    return rc;
            }
        }
    }
    return AM_OK;
}

/* Equal parts of a long k, of at least K_PART each; 1: it stays whole. */
static int64_t parts_of(const am_gemm_args *g)
{
    int64_t parts = g->k / K_PART;
    if (g->dtype_c != AM_F32 || g->trans_b || g->batch != 1 || g->bias || g->alpha != 1)
        return 1;
    while (parts > 1 && g->k % (parts * COLS_STEP))
        parts--;
    return parts > 1 ? parts : 1;
}

/* A gradient from logits has few rows and a long k: its parts are products of their own, for as
 * many threads, and are added up in order. Some rows at a time, for memory's sake. */
static int run_parts(const am_gemm_args *g, const blocking *cut, int64_t parts, int threads)
{
    int64_t blocks = (threads + parts - 1) / parts, k = g->k / parts;
    int64_t fit = PARTS_BYTES / (parts * cut->rows * g->n * (int64_t)sizeof(float));
    int64_t rows = (fit < 1 ? 1 : blocks < fit ? blocks : fit) * cut->rows;
    float *sums =
        am_scratch(2, (size_t)(parts * (rows < g->m ? rows : g->m) * g->n) * sizeof *sums);
    if (!sums)
        return scratch_failed();
    for (int64_t first = 0; first < g->m; first += rows) {
        int64_t m = g->m - first < rows ? g->m - first : rows;
        am_gemm_args f = *g;
        f.a = at(g->a, first * g->lda, size_of(g->dtype_ab));
        f.c = sums;
        f.ldc = g->n;
        f.m = m;
        f.k = k;
        f.batch = parts;
        f.accumulate = 0;
        f.stride_a = k;
        f.stride_b = k * g->ldb;
        f.stride_c = m * g->n;
        int rc = run_blocks(&f, cut, threads);
        if (rc != AM_OK)
            return rc;
        float *c = (float *)g->c + first * g->ldc;
#pragma omp parallel for num_threads(threads)
        for (int64_t i = 0; i < m; i++) {
            for (int64_t j = 0; j < g->n; j++) {
                float sum = sums[i * g->n + j];
                for (int64_t q = 1; q < parts; q++)
                    sum += sums[(q * m + i) * g->n + j];
                c[i * g->ldc + j] = g->accumulate ? c[i * g->ldc + j] + sum : sum;
            }
        }
    }
    return AM_OK;
}

/* `brg` wants rows of c that follow one another: others go through copies, some at a time. */
static int run_spread(const am_gemm_args *g, int threads)
{
    int to = g->dtype_c, rc = AM_OK;
    int64_t fit = TILE_BYTES / (g->n * (int64_t)size_of(to)), most = fit < 1 ? 1 : fit;
    for (int64_t i = 0; i < g->m && rc == AM_OK; i += most) {
        int done = 0;
        am_gemm_args f = *g;
        f.m = g->m - i < most ? g->m - i : most;
        f.a = at(g->a, i * g->lda, size_of(g->dtype_ab));
        f.c = at(g->c, i * g->ldc, size_of(to));
        am_gemm_args dense = f;
        dense.ldc = g->n;
        dense.c = am_scratch(2, (size_t)(f.m * f.n) * size_of(to));
        if (!dense.c)
            return scratch_failed();
        if (g->accumulate)
            rc = copy_rows(dense.c, g->n, f.c, g->ldc, to, to, f.m, f.n, 0);
        if (rc == AM_OK)
            rc = run_whole(&dense, threads, &done);
        if (rc == AM_OK)
            rc = done ? copy_rows(f.c, g->ldc, dense.c, g->n, to, to, f.m, f.n, 0)
                      : run_converted(&f, threads);
    }
    return rc;
}

static int run_native(const am_gemm_args *g, int threads)
{
    int done = 0;
    if (bf16_in_blocks && !g->trans_a) {
        /* oneDNN is fast with dense operands: columns of b that lie side by side stay whole */
        int64_t cols = g->trans_b ? even_size(g->n, BF16_COLS, COLS_STEP) : g->n;
        blocking cut = {.rows = BF16_ROWS, .step = BF16_ROWS, .cols = cols, .dense = 1};
        int64_t parts = parts_of(g);
        return parts > 1 ? run_parts(g, &cut, parts, threads) : run_blocks(g, &cut, threads);
    }
    if (g->ldc != g->n && g->batch == 1 && !g->trans_a)
        return run_spread(g, threads);
    int rc = run_whole(g, threads, &done);
    return rc == AM_OK && !done ? run_converted(g, threads) : rc;
}

static int run(const am_gemm_args *g, int threads)
{
    if (g->dtype_ab == AM_F32)
        return run_f32(g, threads);
    if (g->dtype_ab == AM_BF16 && on_tiles)
        return on_tiles(NULL, g);
    return g->dtype_ab == AM_BF16 && native_bf16 ? run_native(g, threads)
                                                 : run_converted(g, threads);
}

/* A product and one of low rank: in one pass on tiles, block by block where it is done in blocks,
 * else one after the other. */
static int run_with_uv(const am_gemm_args *g, int threads)
{
    int native = g->dtype_ab == AM_BF16 && native_bf16, f32 = g->dtype_ab == AM_F32;
    am_gemm_args full = *g, low = uv_args(g, g->n);
    if (native && on_tiles && g->alpha == 1)
        return on_tiles(NULL, g);
    if (g->trans_a || (native ? !bf16_in_blocks || parts_of(g) > 1 : g->r > AM_THIN)) {
        full.u = full.v = NULL;
        int rc = run(&full, threads);
        return rc == AM_OK ? run(&low, threads) : rc;
    }
    if (f32 && g->trans_b) { /* thin wants [r, n] */
        float *v = am_scratch(1, (size_t)(g->r * g->n) * sizeof *v);
        am_copy_args turn = {
            .out = v,
            .a = g->v,
            .dtype_out = AM_F32,
            .dtype_a = AM_F32,
            .nd = {.ndim = 2, .shape = {g->r, g->n}, .stride = {{g->n, 1}, {1, g->r}}}};
        int rc = v ? convert(NULL, &turn) : scratch_failed();
        if (rc != AM_OK)
            return rc;
        full.v = v;
    }
    return run(&full, threads);
}

int am_cpu_gemm(am_stream *s, const am_gemm_args *g)
{
    int half = g->dtype_ab == AM_BF16 || g->dtype_ab == AM_F16;
    if (g->dtype_ab == AM_F64 || g->k == 0)
        return am_ref_gemm(s, g);
    if ((!half && g->dtype_ab != AM_F32) ||
        (g->dtype_c != g->dtype_ab && !(half && g->dtype_c == AM_F32)) || (g->u && g->batch != 1))
        return AM_EUNSUP;
    if (g->m == 0 || g->n == 0 || g->batch == 0)
        return AM_OK;
    if (g->u && g->r == 0) {
        am_gemm_args full = *g;
        full.u = NULL;
        return am_cpu_gemm(s, &full);
    }
    int threads = am_threads(), before = omp_get_max_threads();
    pthread_mutex_lock(&lock);
    omp_set_num_threads(threads);
    int rc = AM_OK;
    if (g->batch == 1 || (g->stride_c && (g->stride_a || g->stride_b))) {
        rc = g->u ? run_with_uv(g, threads) : run(g, threads);
    } else { /* the items write one c, or are all the same: one after another */
        int64_t size_ab = half ? 2 : 4, size_c = g->dtype_c == AM_F32 ? 4 : 2;
        am_gemm_args item = *g;
        item.batch = 1;
        for (int64_t z = 0; z < g->batch && rc == AM_OK; z++) {
            item.a = (const char *)g->a + z * g->stride_a * size_ab;
            item.b = (const char *)g->b + z * g->stride_b * size_ab;
            item.c = (char *)g->c + z * g->stride_c * size_c;
            rc = run(&item, threads);
        }
    }
    omp_set_num_threads(before);
    pthread_mutex_unlock(&lock);
    return rc;
}

/* g as a product that turns t, the thin operand: turning a large one is slow. */
static int low_rank_g(am_stream *s, const am_low_rank_args *l)
{
    am_gemm_args f = {.c = l->g,
                      .a = l->t,
                      .b = l->a,
                      .dtype_ab = l->dtype,
                      .dtype_c = l->dtype_g,
                      .trans_a = 1,
                      .accumulate = l->accumulate,
                      .alpha = 1,
                      .m = l->r,
                      .n = l->k,
                      .k = l->m,
                      .lda = l->r,
                      .ldb = l->k,
                      .ldc = l->k,
                      .batch = 1};
    if (!l->turned)
        return am_cpu_gemm(s, &f);
    f.accumulate = 0;
    f.dtype_c = AM_F32;
    f.c = am_scratch(4, (size_t)(l->r * l->k) * sizeof(float));
    int rc = f.c ? am_cpu_gemm(s, &f) : scratch_failed();
    am_copy_args turn = {
        .out = l->g,
        .a = f.c,
        .dtype_out = l->dtype_g,
        .dtype_a = AM_F32,
        .accumulate = l->accumulate,
        .nd = {.ndim = 2, .shape = {l->k, l->r}, .stride = {{l->r, 1}, {1, l->k}}}};
    return rc == AM_OK ? convert(s, &turn) : rc;
}

int am_cpu_low_rank(am_stream *s, const am_low_rank_args *l)
{
    int tiles = on_tiles && l->dtype == AM_BF16;
    if (l->r <= (tiles ? AM_THIN_ON_TILES : AM_THIN) || l->dtype == AM_F64)
        return one_pass(s, l);
    int rc = l->u ? am_cpu_gemm(s, &(am_gemm_args){.c = l->u,
                                                   .a = l->a,
                                                   .b = l->p,
                                                   .dtype_ab = l->dtype,
                                                   .dtype_c = l->dtype,
                                                   .trans_b = !l->turned,
                                                   .alpha = l->scale,
                                                   .m = l->m,
                                                   .n = l->r,
                                                   .k = l->k,
                                                   .lda = l->k,
                                                   .ldb = l->turned ? l->r : l->k,
                                                   .ldc = l->r,
                                                   .batch = 1})
                  : AM_OK;
    return rc == AM_OK && l->g ? low_rank_g(s, l) : rc;
}

/* ---- rows sorted by group (grouped.c) ------------------------------------------------------ */

/* Run with the lock and all threads. */
static int run_grouped(const am_grouped_gemm_args *g, const am_grouped_gemm_dw_args *dw)
{
    am_cpu_products by = {.native_bf16 = native_bf16,
                          .one_size = bf16_in_blocks,
                          .convert = convert,
                          .on_tiles = on_tiles};
    int threads = am_threads(), before = omp_get_max_threads();
    pthread_mutex_lock(&lock);
    omp_set_num_threads(threads);
    int rc = g ? am_cpu_run_grouped(&by, g, threads) : am_cpu_run_grouped_dw(&by, dw, threads);
    omp_set_num_threads(before);
    pthread_mutex_unlock(&lock);
    return rc;
}

static int is_half_or_f32(int dtype)
{
    return dtype == AM_F32 || dtype == AM_BF16 || dtype == AM_F16;
}

int am_cpu_grouped_gemm(am_stream *s, const am_grouped_gemm_args *args)
{
    if (!is_half_or_f32(args->dtype_ab) || args->k == 0)
        return am_ref_grouped_gemm(s, args);
    if (args->dtype_c != args->dtype_ab && args->dtype_c != AM_F32)
        return AM_EUNSUP;
    int rc = am_ref_check_groups(args->offsets, args->groups, args->rows);
    return rc == AM_OK && args->rows * args->n > 0 ? run_grouped(args, NULL) : rc;
}

/* dbias of group g */
static int sum_group(am_stream *s, const am_grouped_gemm_dw_args *args, int64_t g)
{
    int64_t first = args->offsets[g], rows = args->offsets[g + 1] - first, n = args->n;
    void *to = at(args->dbias, g * n, size_of(args->dtype_db));
    if (rows == 0) {
        if (!args->accumulate_db)
            memset(to, 0, (size_t)n * size_of(args->dtype_db));
        return AM_OK;
    }
    return sum_rows(s, &(am_reduce_args){.out = to,
                                         .a = at(args->dout, first * n, size_of(args->dtype)),
                                         .op = AM_R_SUM,
                                         .dtype = args->dtype,
                                         .dtype_out = args->dtype_db,
                                         .accumulate = args->accumulate_db,
                                         .scale = 1,
                                         .outer = 1,
                                         .n = rows,
                                         .inner = n});
}

int am_cpu_grouped_gemm_dw(am_stream *s, const am_grouped_gemm_dw_args *args)
{
    if (!is_half_or_f32(args->dtype))
        return am_ref_grouped_gemm_dw(s, args);
    if ((args->dw && args->dtype_dw != args->dtype && args->dtype_dw != AM_F32) ||
        (args->dbias && args->dtype_db != args->dtype && args->dtype_db != AM_F32))
        return AM_EUNSUP;
    int rc = am_ref_check_groups(args->offsets, args->groups, args->rows);
    if (rc == AM_OK && args->dw && args->groups * args->n * args->k > 0)
        rc = run_grouped(NULL, args);
    for (int64_t g = 0; args->dbias && g < args->groups && rc == AM_OK; g++)
        rc = sum_group(s, args, g);
    return rc;
}
