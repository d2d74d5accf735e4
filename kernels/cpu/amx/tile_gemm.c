/* tile_gemm.c — products of bf16 matrices on AMX tiles (../simd/amx.h), summed in f32.
 *
 * A task is a block of c. It packs its columns of b into tiles that stay in the second-level cache,
 * then 32 rows of a at a time, each used for all those columns. A long k is done in parts, which
 * continue from the sums of the part before. u op(v) is more of the same sums: further features.
 *
 * An element is one chain over pairs of features, however c is cut, so it depends on neither m nor
 * the number of threads. */
#include "../simd/amx.h"

/* Of c: what four tiles of sums are. Of k: what a tile of an operand is deep. */
enum { SIDE = 2 * T_ROWS, DEPTH = 32, BLOCK = SIDE * SIDE, TILE = T_ROWS * T_BYTES };
/* Packed columns of a task, at most about; its rows; features of a part. */
enum { COLS_BYTES = 1 << 20, LEAST_COLS = 96, LEAST_ROWS = 128, MANY = 4 };
enum { ROWS = 1024, ROWS_OF_PARTS = 512, PART = 1536 };

/* Rows of a or columns of b: `lanes` of them, `depth` features each. One stride is 1. */
typedef struct operand {
    const uint16_t *p;
    int64_t lane, step; /* elements from one lane, from one feature to the next */
    int64_t lanes, depth;
} operand;

typedef struct plan {
    const am_gemm_args *g;
    int64_t rows, cols, part;    /* of a task; whole tiles */
    int64_t down, across, parts; /* how many there are */
    int64_t tasks;
} plan;

/* A product of one item of a batch. */
typedef struct item {
    operand a, b, u, v;
    char *c;
} item;

/* What a thread needs of its own; see memory_of. */
typedef struct own_memory {
    char *strip, *panels; /* packed: 32 rows of a, and all columns of b, 32 of them a panel */
    float *sums;          /* a block of c after another, [32, 32] each */
} own_memory;

static int64_t up_to(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

/* ---- packing ----------------------------------------------------------------------------- */

/* Of 16 elements, those before n. */
AM_INLINE __mmask16 first_of(int64_t n)
{
    return (__mmask16)(n >= T_ROWS ? 0xffff : n > 0 ? (1U << n) - 1 : 0);
}

/* The pairs of features of lane r, where features lie side by side. */
AM_INLINE vf pairs_along(const operand *o, int64_t r)
{
    uint32_t some = first_of(o->depth) | (uint32_t)first_of(o->depth - T_ROWS) << T_ROWS;
    return (vf)_mm512_maskz_loadu_epi16(r < o->lanes ? some : 0, o->p + r * o->lane);
}

/* Pair r of features, of 16 lanes that lie side by side. */
AM_INLINE vf pairs_across(const operand *o, int64_t r)
{
    const __m512i in_turns =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __mmask16 first = first_of(2 * r < o->depth ? o->lanes : 0);
    __mmask16 second = first_of(2 * r + 1 < o->depth ? o->lanes : 0);
    const uint16_t *p = o->p + 2 * r * o->step;
    __m256i low = _mm256_maskz_loadu_epi16(first, p);
    __m256i high = _mm256_maskz_loadu_epi16(second, p + o->step);
    __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    return (vf)_mm512_permutexvar_epi16(in_turns, both);
}

/* A tile of o's first 16 lanes and 32 features: a left one is [lane, pair of features], a right one
 * [pair, lane]. */
AM_INLINE void pack_tile(char *to, const operand *o, int is_along, int right)
{
    vf m[T_ROWS];
    for (int r = 0; r < T_ROWS; r++)
        m[r] = is_along ? pairs_along(o, r) : pairs_across(o, r);
    if (is_along == right)
        vturn(m);
    for (int r = 0; r < T_ROWS; r++)
        vstore((float *)(void *)(to + r * T_BYTES), m[r]);
}

/* 32 lanes from `lane` on, features k..end: tiles [features / 32, 2], and what comes after them. */
AM_INLINE char *pack(char *to, const operand *o, int64_t lane, int64_t k, int64_t end, int right)
{
    int is_along = o->step == 1;
    for (; k < end; k += DEPTH)
        for (int half = 0; half < 2; half++, to += TILE) {
            int64_t first = lane + half * T_ROWS;
            operand part = *o;
            part.p += first * o->lane + k * o->step;
            part.lanes -= first;
            part.depth -= k;
            if (part.lanes < T_ROWS || part.depth < DEPTH) {
                pack_tile(to, &part, is_along, right);
                continue;
            }
            part.lanes = T_ROWS; /* constants, for the compiler */
            part.depth = DEPTH;
            if (is_along)
                pack_tile(to, &part, 1, right);
            else
                pack_tile(to, &part, 0, right);
        }
    return to;
}

/* ---- blocks of c ------------------------------------------------------------------------- */

/* sum [32, 32] = a strip times a panel, or added to it; `steps` tiles deep. */
AM_INLINE void multiply(float *sum, const char *a, const char *b, int64_t steps, int add)
{
    enum { ROW = SIDE * 4 };
    written(a);
    written(b);
    sums_begin(sum, ROW, add);
    for (int64_t i = 0; i < steps; i++, a += 2 * TILE, b += 2 * TILE) {
        _tile_loadd(4, a, T_BYTES);
        _tile_loadd(5, a + TILE, T_BYTES);
        _tile_loadd(6, b, T_BYTES);
        _tile_loadd(7, b + TILE, T_BYTES);
        sums_add();
    }
    sums_end(sum, ROW);
    written(sum);
}

/* Lets what c holds be read meanwhile. */
AM_INLINE void fetch(const am_gemm_args *g, const char *c, int64_t row, int64_t col)
{
    int64_t size = simd_size(g->dtype_c), end = at_most(SIDE, g->m - row);
    for (int64_t i = 0; i < end; i++) {
        const char *at = c + ((row + i) * g->ldc + col) * size;
        for (int64_t line = 0; line < SIDE * size; line += 64)
            __builtin_prefetch(at + line, 1);
        __builtin_prefetch(at + SIDE * size - 1, 1);
    }
}

/* c from a block's sums on. */
AM_INLINE void put(const am_gemm_args *g, char *c, int dtype, const float *sum, int64_t row,
                   int64_t col)
{
    for (int64_t i = row; i < row + SIDE && i < g->m; i++, sum += SIDE)
        for (int64_t j = 0; j < SIDE && col + j < g->n; j += VW) {
            int64_t at = i * g->ldc + col + j, n = g->n - col - j;
            vf x = vload(sum + j) * (float)g->alpha;
            if (g->bias)
                x += vget_n(g->bias, AM_BF16, col + j, n, 0);
            if (g->accumulate)
                x += vget_n(c, dtype, at, n, 0);
            vput_n(c, dtype, at, n, x);
        }
}

/* ---- tasks ------------------------------------------------------------------------------- */

/* Bytes of a panel or of a strip, of a part of k and of u. */
static int64_t packed_bytes(const plan *p)
{
    return (p->part + (p->g->u ? up_to(p->g->r, DEPTH) : 0)) * SIDE * 2;
}

static int memory_of(const plan *p, own_memory *own)
{
    int64_t strip = packed_bytes(p), panels = p->cols / SIDE * strip;
    int64_t sums = (p->parts > 1 ? p->rows * p->cols : BLOCK) * (int64_t)sizeof(float);
    char *memory = am_scratch(3, (size_t)(strip + panels + sums));
    if (!memory)
        return AM_ENOMEM;
    *own = (own_memory){memory, memory + strip, (float *)(void *)(memory + strip + panels)};
    return AM_OK;
}

/* 32 lanes of an operand and, behind its last part, of u or v: how many tiles they are deep. */
AM_INLINE int64_t pack_part(char *to, const operand *o, const operand *low, int64_t lane, int64_t k,
                            int64_t end, int right)
{
    char *after = pack(to, o, lane, k, end, right);
    if (end == o->depth)
        after = pack(after, low, lane, 0, low->depth, right);
    return (after - to) / (2 * TILE);
}

/* Rows `row`.. and columns `col`.. of c, a block of the plan's size. */
static void task(const plan *p, const item *x, const own_memory *own, int64_t row, int64_t col)
{
    const am_gemm_args *g = p->g;
    int64_t rows = at_most(g->m, row + p->rows), cols = at_most(g->n, col + p->cols);
    int64_t panel = packed_bytes(p), steps = 0;
    tiles_begin(T_ROWS);
    for (int64_t k = 0; k < g->k; k += p->part) {
        int64_t end = at_most(g->k, k + p->part);
        for (int64_t j = col; j < cols; j += SIDE)
            steps = pack_part(own->panels + (j - col) / SIDE * panel, &x->b, &x->v, j, k, end, 1);
        float *sum = own->sums;
        for (int64_t i = row; i < rows; i += SIDE) {
            pack_part(own->strip, &x->a, &x->u, i, k, end, 0);
            for (int64_t j = col; j < cols; j += SIDE) {
                if (end == g->k && g->accumulate)
                    fetch(g, x->c, i, j);
                multiply(sum, own->strip, own->panels + (j - col) / SIDE * panel, steps, k > 0);
                if (end == g->k && g->dtype_c == AM_F32)
                    put(g, x->c, AM_F32, sum, i, j);
                else if (end == g->k)
                    put(g, x->c, AM_BF16, sum, i, j);
                if (p->parts > 1)
                    sum += BLOCK;
            }
        }
    }
    _tile_release();
}

static item item_of(const am_gemm_args *g, int64_t z)
{
    int64_t r = g->u ? g->r : 0;
    const uint16_t *a = (const uint16_t *)g->a + z * g->stride_a;
    const uint16_t *b = (const uint16_t *)g->b + z * g->stride_b;
    return (item){
        .a = {a, g->trans_a ? 1 : g->lda, g->trans_a ? g->lda : 1, g->m, g->k},
        .b = {b, g->trans_b ? g->ldb : 1, g->trans_b ? 1 : g->ldb, g->n, g->k},
        .u = {g->u, g->r, 1, g->m, r},
        .v = {g->v, g->trans_b ? g->r : 1, g->trans_b ? 1 : g->n, g->n, r},
        .c = (char *)g->c + z * g->stride_c * simd_size(g->dtype_c),
    };
}

/* The size of equal blocks of at most about `most`, whole tiles. */
static int64_t even_size(int64_t n, int64_t most, int64_t *count)
{
    int64_t least = (n + most - 1) / most, size = up_to((n + least - 1) / least, SIDE);
    *count = (n + size - 1) / size;
    return size;
}

/* Blocks are as large as gives all threads as many of them, or many. */
static plan plan_of(const am_gemm_args *g, int threads)
{
    plan p = {.g = g};
    p.part = even_size(g->k, PART, &p.parts);
    int64_t panels = COLS_BYTES / packed_bytes(&p), cols = (panels < 1 ? 1 : panels) * SIDE;
    int64_t rows = p.parts == 1 ? ROWS : ROWS_OF_PARTS; /* the sums stay in cache, too */
    for (;;) {
        p.cols = even_size(g->n, cols, &p.across);
        p.rows = even_size(g->m, rows, &p.down);
        p.tasks = g->batch * p.down * p.across;
        if (p.tasks % threads == 0 || p.tasks >= MANY * threads)
            return p;
        if (p.rows > LEAST_ROWS && (p.rows >= p.cols || p.cols <= LEAST_COLS))
            rows = p.rows / 2;
        else if (p.cols > LEAST_COLS)
            cols = p.cols / 2;
        else
            return p;
    }
}

int am_cpu_tile_gemm(am_stream *s, const am_gemm_args *g)
{
    plan p = plan_of(g, am_threads());
    int failed = AM_OK;
    (void)s;
#pragma omp parallel for collapse(3) schedule(dynamic, 1)                                          \
    num_threads((int)at_most(am_threads(), p.tasks))
    for (int64_t z = 0; z < g->batch; z++) {
        for (int64_t j = 0; j < p.across; j++) {
            for (int64_t i = 0; i < p.down; i++) {
                item x = item_of(g, z);
                own_memory own;
                int rc = memory_of(&p, &own);
                if (rc == AM_OK) {
                    task(&p, &x, &own, i * p.rows, j * p.cols);
                } else {
#pragma omp atomic write
                    failed = rc;
                }
            }
        }
    }
    return failed == AM_OK ? AM_OK : am_kernel_fail(failed, "gemm: no scratch memory");
}
