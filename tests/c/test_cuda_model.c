/* test_cuda_model.c — the decoder's kernels on device "cuda" against ref, where the table of ops
 * does not reach: long rows, operands that do or don't lie on 16 bytes, gradients that add up, rows
 * whose bits must not depend on the others, bad labels and offsets. The backend is the module that
 * AMLUA_CUDA names. */
#include "cuda_run.h"

/* Sums of some thousand products of about 1 in f32, which may cancel out; the result is rounded to
 * its dtype. */
static void compare(const char *what, const void *got, const void *want, int dtype, int64_t n)
{
    double largest = 0, sums = dtype == AM_F64 ? 1e-12 : 4e-6;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(elem_get(want, dtype, i)));
    check_close(what, got, want, dtype, n, ulp_of(dtype), sums * fmax(largest, 1));
}

static void *numbers(int dtype, int64_t n)
{
    return keep(random_elems(dtype, n, -1, 1));
}

static void *same(int dtype, int64_t n, const void *from)
{
    return keep(copy_elems(dtype, n, from));
}

static size_t size_of(int dtype, int64_t n)
{
    return (size_t)n * elem_size(dtype);
}

static int stat_dtype(int dtype)
{
    return dtype == AM_F64 ? AM_F64 : AM_F32;
}

/* ---- norms ----------------------------------------------------------------------------------- */

static const int64_t shapes[][2] = {{1, 1},    {3, 40}, {9, 1024}, {2, 1025},
                                    {3, 4096}, {0, 16}, {150, 24}, {65, 33}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void norm_case(int64_t rows, int64_t c, int dtype, int layer, int shift)
{
    int64_t n = rows * c;
    int stat = stat_dtype(dtype);
    size_t all = size_of(dtype, n), row = size_of(dtype, c), stats = size_of(stat, 2 * rows);
    void *x = numbers(dtype, n), *weight = numbers(dtype, c), *bias = numbers(dtype, c);
    void *dout = numbers(dtype, n), *out[3], *kept_stats[2], *dx[2], *dw[2], *db[2];
    cuda_shift = shift;
    dx[0] = numbers(dtype, n);
    dx[1] = same(dtype, n, dx[0]);
    dw[0] = numbers(AM_F32, c);
    dw[1] = same(AM_F32, c, dw[0]);
    db[0] = numbers(dtype, c);
    db[1] = same(dtype, c, db[0]);
    for (int on = 0; on < 2; on++) {
        out[on] = keep(elems(dtype, n));
        kept_stats[on] = keep(elems(stat, 2 * rows));
        am_layer_norm_args l = {.out = out[on],
                                .stats = kept_stats[on],
                                .x = x,
                                .weight = weight,
                                .bias = bias,
                                .dtype = dtype,
                                .eps = 1e-5,
                                .offset = 0.5,
                                .rows = rows,
                                .c = c};
        am_rms_norm_args r = {.out = out[on],
                              .rstd = kept_stats[on],
                              .x = x,
                              .weight = weight,
                              .dtype = dtype,
                              .eps = 1e-5,
                              .offset = 0.5,
                              .rows = rows,
                              .c = c};
        if (on == 1)
            ck_assert_int_eq(layer ? am_backend_ref.layer_norm(NULL, &l)
                                   : am_backend_ref.rms_norm(NULL, &r),
                             AM_OK);
        else if (layer)
            CUDA_OK(ON_CUDA(layer_norm, &l, all, stats, all, row, row));
        else
            CUDA_OK(ON_CUDA(rms_norm, &r, all, size_of(stat, rows), all, row));
    }
    compare("norm: out", out[0], out[1], dtype, n);
    compare("norm: stats", kept_stats[0], kept_stats[1], stat, layer ? 2 * rows : rows);
    if (rows > 1) { /* its last row by itself, in other places of memory */
        char *last = (char *)x + size_of(dtype, n - c);
        out[2] = keep(elems(dtype, c));
        am_layer_norm_args l = {.out = out[2],
                                .x = last,
                                .weight = weight,
                                .bias = bias,
                                .dtype = dtype,
                                .eps = 1e-5,
                                .offset = 0.5,
                                .rows = 1,
                                .c = c};
        am_rms_norm_args r = {out[2], NULL, last, weight, dtype, 1e-5, 0.5, 1, c};
        cuda_shift = 8 - shift;
        if (layer)
            CUDA_OK(ON_CUDA(layer_norm, &l, row, 0, row, row, row));
        else
            CUDA_OK(ON_CUDA(rms_norm, &r, row, 0, row, row));
        check_same_bits("norm: a row by itself", out[2], (char *)out[0] + size_of(dtype, n - c),
                        row);
        cuda_shift = shift;
    }
    for (int on = 0; on < 2; on++) {
        am_layer_norm_bwd_args l = {.dx = dx[on],
                                    .dweight = dw[on],
                                    .dbias = db[on],
                                    .dout = dout,
                                    .x = x,
                                    .weight = weight,
                                    .stats = kept_stats[1],
                                    .dtype = dtype,
                                    .dtype_dw = AM_F32,
                                    .dtype_db = dtype,
                                    .accumulate_dx = shift > 0,
                                    .accumulate_dw = 1,
                                    .offset = 0.5,
                                    .rows = rows,
                                    .c = c};
        am_rms_norm_bwd_args r = {.dx = dx[on],
                                  .dweight = dw[on],
                                  .dout = dout,
                                  .x = x,
                                  .weight = weight,
                                  .rstd = kept_stats[1],
                                  .dtype = dtype,
                                  .dtype_dw = AM_F32,
                                  .accumulate_dx = shift > 0,
                                  .accumulate_dw = 1,
                                  .offset = 0.5,
                                  .rows = rows,
                                  .c = c};
        if (on == 1)
            ck_assert_int_eq(layer ? am_backend_ref.layer_norm_bwd(NULL, &l)
                                   : am_backend_ref.rms_norm_bwd(NULL, &r),
                             AM_OK);
        else if (layer)
            CUDA_OK(
                ON_CUDA(layer_norm_bwd, &l, all, size_of(AM_F32, c), row, all, all, row, stats));
        else
            CUDA_OK(ON_CUDA(rms_norm_bwd, &r, all, size_of(AM_F32, c), all, all, row,
                            size_of(stat, rows)));
    }
    compare("norm: dx", dx[0], dx[1], dtype, n);
    compare("norm: dweight", dw[0], dw[1], AM_F32, c);
    compare("norm: dbias", db[0], db[1], dtype, c);
    free_kept();
}

START_TEST(norms)
{
    for (int c = 0; c < SHAPES * 4 * 2 * 2; c++)
        norm_case(shapes[c % SHAPES][0], shapes[c % SHAPES][1], float_dtypes[c / SHAPES % 4],
                  c / SHAPES / 4 % 2, c / SHAPES / 8 * 8);
}
END_TEST

/* ---- rotary embedding, gated units ----------------------------------------------------------- */

START_TEST(rope)
{
    for (int c = 0; c < 4 * 2 * 2 * 2; c++) {
        int dtype = float_dtypes[c % 4], interleaved = c / 4 % 2, shift = c / 8 % 2 * 8;
        int64_t b = 2, t = 3, h = 5, d = 48, r = 32, n = b * t * h * d;
        size_t all = size_of(dtype, n);
        float *table = numbers(AM_F32, t * r);
        void *x = numbers(dtype, n), *got = keep(elems(dtype, n)), *want = keep(elems(dtype, n));
        am_rope_args args = {.out = got,
                             .x = x,
                             .table = table,
                             .dtype = dtype,
                             .inverse = c / 16,
                             .interleaved = interleaved,
                             .b = b,
                             .t = t,
                             .h = h,
                             .d = d,
                             .r = r};
        cuda_shift = shift;
        CUDA_OK(ON_CUDA(rope, &args, all, all, size_of(AM_F32, t * r)));
        args.out = want;
        ck_assert_int_eq(am_backend_ref.rope(NULL, &args), AM_OK);
        compare("rope", got, want, dtype, n);
        args.out = x; /* in place */
        CUDA_OK(ON_CUDA(rope, &args, all, all, size_of(AM_F32, t * r)));
        check_same_bits("rope in place", x, got, all);
        free_kept();
    }
}
END_TEST

/* Angles of a long context, of which f32's rounding is all that may be left. */
START_TEST(rope_table)
{
    int32_t pos[] = {0, 1, 4095, 131071, 1048575};
    float inv_freq[] = {1, 0.6180339f, 1e-3f}, got[30], want[30];
    am_rope_table_args args = {got, pos, inv_freq, 1.25, 5, 3};
    CUDA_OK(ON_CUDA(rope_table, &args, sizeof got, sizeof pos, sizeof inv_freq));
    args.out = want;
    ck_assert_int_eq(am_backend_ref.rope_table(NULL, &args), AM_OK);
    check_close("rope_table", got, want, AM_F32, 30, ulp_of(AM_F32), 1e-9);
}
END_TEST

START_TEST(glu)
{
    static const int64_t many[] = {1, 7, 8, 2051};
    for (int c = 0; c < 4 * 4 * AM_ACT_COUNT; c++) {
        int dtype = float_dtypes[c / 4 % 4], act = c / 16;
        int64_t n = many[c % 4];
        size_t all = size_of(dtype, n);
        void *gate = keep(random_elems(dtype, n, -6, 6)), *up = numbers(dtype, n);
        void *dout = numbers(dtype, n), *out[2], *dgate[2], *dup[2];
        for (int on = 0; on < 2; on++) {
            out[on] = keep(elems(dtype, n));
            dgate[on] = keep(elems(dtype, n));
            dup[on] = keep(elems(dtype, n));
            am_glu_args f = {out[on], gate, up, act, dtype, n};
            am_glu_bwd_args g = {dgate[on], dup[on], dout, gate, up, act, dtype, n};
            if (on == 1) {
                ck_assert_int_eq(am_backend_ref.glu(NULL, &f), AM_OK);
                ck_assert_int_eq(am_backend_ref.glu_bwd(NULL, &g), AM_OK);
            } else {
                CUDA_OK(ON_CUDA(glu, &f, all, all, all));
                CUDA_OK(ON_CUDA(glu_bwd, &g, all, all, all, all, all));
            }
        }
        compare("glu: out", out[0], out[1], dtype, n);
        compare("glu: dgate", dgate[0], dgate[1], dtype, n);
        compare("glu: dup", dup[0], dup[1], dtype, n);
        free_kept();
    }
}
END_TEST

/* ---- cross-entropy --------------------------------------------------------------------------- */

static void loss_case(int64_t rows, int64_t v, int dtype, int to, double softcap, int shift)
{
    int64_t n = rows * v, labels[8];
    int stat = stat_dtype(dtype);
    size_t all = size_of(dtype, n), kept_row = size_of(stat, rows), out = size_of(to, n);
    void *logits = keep(random_elems(dtype, n, -9, 9)), *loss[2], *lse[2], *d[2], *bwd[2];
    void *dloss = keep(elems(stat, 1));
    elem_set(dloss, stat, 0, 0.375);
    for (int64_t r = 0; r < rows; r++) {
        labels[r] = r == 2 ? -100 : r % 2 ? v - 1 : 0; /* the last one is the greatest by far */
        elem_set(logits, dtype, r * v + v - 1, r % 3 ? 30 : -INFINITY);
    }
    for (int on = 0; on < 2; on++) {
        loss[on] = keep(elems(stat, rows));
        lse[on] = keep(elems(stat, rows));
        d[on] = keep(elems(to, n));
        bwd[on] = keep(elems(dtype, n));
        am_cross_entropy_args args = {.loss = loss[on],
                                      .lse = lse[on],
                                      .logits = logits,
                                      .labels = labels,
                                      .dlogits = d[on],
                                      .dtype = dtype,
                                      .dtype_labels = AM_I64,
                                      .dtype_dlogits = to,
                                      .ignore = -100,
                                      .rows = rows,
                                      .v = v,
                                      .softcap = softcap};
        am_cross_entropy_bwd_args b = {.dlogits = bwd[on],
                                       .logits = logits,
                                       .labels = labels,
                                       .lse = lse[on],
                                       .dloss = dloss,
                                       .dtype = dtype,
                                       .dtype_labels = AM_I64,
                                       .ignore = -100,
                                       .rows = rows,
                                       .v = v,
                                       .softcap = softcap};
        cuda_shift = shift;
        if (on == 1) {
            ck_assert_int_eq(am_backend_ref.cross_entropy(NULL, &args), AM_OK);
            ck_assert_int_eq(am_backend_ref.cross_entropy_bwd(NULL, &b), AM_OK);
        } else {
            CUDA_OK(ON_CUDA(cross_entropy, &args, kept_row, kept_row, all, (size_t)rows * 8, out));
            CUDA_OK(ON_CUDA(cross_entropy_bwd, &b, all, all, (size_t)rows * 8, kept_row,
                            size_of(stat, 1)));
        }
    }
    compare("cross_entropy: loss", loss[0], loss[1], stat, rows);
    compare("cross_entropy: lse", lse[0], lse[1], stat, rows);
    compare("cross_entropy: dlogits", d[0], d[1], to, n);
    compare("cross_entropy_bwd", bwd[0], bwd[1], dtype, n);
    if (to == dtype) { /* in place, and of the last row alone */
        am_cross_entropy_args args = {.loss = loss[1],
                                      .lse = lse[1],
                                      .logits = logits,
                                      .labels = labels,
                                      .dlogits = logits,
                                      .dtype = dtype,
                                      .dtype_labels = AM_I64,
                                      .dtype_dlogits = dtype,
                                      .ignore = -100,
                                      .rows = rows,
                                      .v = v,
                                      .softcap = softcap};
        char *last = (char *)same(dtype, n, logits) + size_of(dtype, n - v);
        CUDA_OK(ON_CUDA(cross_entropy, &args, kept_row, kept_row, all, (size_t)rows * 8, all));
        check_same_bits("cross_entropy in place", logits, d[0], all);
        args.rows = 1;
        args.logits = last;
        args.labels = labels + rows - 1;
        args.dlogits = NULL;
        cuda_shift = 8 - shift;
        CUDA_OK(ON_CUDA(cross_entropy, &args, kept_row, kept_row, size_of(dtype, v), 8, 0));
        check_same_bits("cross_entropy: a row by itself", loss[1],
                        (char *)loss[0] + size_of(stat, rows - 1), size_of(stat, 1));
    }
    free_kept();
}

START_TEST(losses)
{
    static const int64_t many[] = {2, 5, 301, 2056, 5000};
    static const int dtypes[][2] = {{AM_F32, AM_F32},  {AM_BF16, AM_BF16}, {AM_BF16, AM_F32},
                                    {AM_F16, AM_BF16}, {AM_F32, AM_F16},   {AM_F64, AM_F64}};
    for (int c = 0; c < 5 * 6 * 2; c++)
        loss_case(4, many[c % 5], dtypes[c / 5 % 6][0], dtypes[c / 5 % 6][1], c / 30 ? 12 : 0,
                  c % 2 * 8);
}
END_TEST

START_TEST(bad_label)
{
    float logits[] = {1, 2, 3, 4, 5, 6}, loss[2], lse[2];
    int32_t labels[] = {1, 3};
    am_cross_entropy_args args = {.loss = loss,
                                  .lse = lse,
                                  .logits = logits,
                                  .labels = labels,
                                  .dtype_labels = AM_I32,
                                  .ignore = -100,
                                  .rows = 2,
                                  .v = 3};
    ck_assert_int_eq(ON_CUDA(cross_entropy, &args, 8, 8, 24, 8, 0), AM_EINVAL);
    ck_assert_msg(strstr(am_error_message(), "cross_entropy: label 3 is outside of 0..2") != NULL,
                  "%s", am_error_message());
    labels[1] = 2; /* and on as if nothing had been */
    CUDA_OK(ON_CUDA(cross_entropy, &args, 8, 8, 24, 8, 0));
}
END_TEST

/* ---- products -------------------------------------------------------------------------------- */

START_TEST(gemv)
{
    static const int64_t many[][2] = {{1, 1}, {5, 8}, {33, 67}, {130, 1048}};
    for (int c = 0; c < 4 * 4 * 4; c++) {
        int64_t n = many[c % 4][0], k = many[c % 4][1], rows = (int64_t[]){1, 3, 4, 6}[c / 16];
        int dtype = float_dtypes[c / 4 % 4];
        void *x = numbers(dtype, rows * k), *w = numbers(dtype, n * k), *bias = numbers(dtype, n);
        void *y[3] = {numbers(dtype, rows * n)};
        y[1] = same(dtype, rows * n, y[0]);
        y[2] = same(dtype, n, (char *)y[0] + size_of(dtype, (rows - 1) * n));
        am_gemv_args args = {y[0], x, w, c % 3 ? bias : NULL, dtype, c & 1, 0.5, rows, n, k};
        cuda_shift = 0;
        CUDA_OK(ON_CUDA(gemv, &args, size_of(dtype, rows * n), size_of(dtype, rows * k),
                        size_of(dtype, n * k), size_of(dtype, n)));
        args.y = y[1];
        ck_assert_int_eq(am_backend_ref.gemv(NULL, &args), AM_OK);
        compare("gemv", y[0], y[1], dtype, rows * n);
        args.y = y[2]; /* the last row by itself, elsewhere in memory */
        args.x = (char *)x + size_of(dtype, (rows - 1) * k);
        args.rows = 1;
        cuda_shift = 8;
        CUDA_OK(ON_CUDA(gemv, &args, size_of(dtype, n), size_of(dtype, k), size_of(dtype, n * k),
                        size_of(dtype, n)));
        check_same_bits("gemv: a row by itself", y[2],
                        (char *)y[0] + size_of(dtype, (rows - 1) * n), size_of(dtype, n));
        free_kept();
    }
}
END_TEST

START_TEST(low_rank)
{
    static const int64_t many[][3] = {{1, 1, 1}, {5, 9, 3}, {33, 40, 8}, {0, 7, 2}};
    for (int c = 0; c < 4 * 4 * 8; c++) {
        int64_t m = many[c % 4][0], k = many[c % 4][1], r = many[c % 4][2];
        int dtype = float_dtypes[c / 4 % 4], mode = c / 16;
        int to = mode & 4 && dtype != AM_F64 ? AM_F32 : dtype;
        void *u[2], *g[2], *a = numbers(dtype, m * k), *p = numbers(dtype, k * r);
        void *t = numbers(dtype, m * r);
        g[0] = numbers(to, k * r);
        g[1] = same(to, k * r, g[0]);
        for (int on = 0; on < 2; on++) {
            u[on] = keep(elems(dtype, m * r));
            am_low_rank_args args = {u[on],    g[on],         a,    p, t, dtype, to,
                                     mode & 1, mode >> 1 & 1, 0.75, m, k, r};
            if (on == 1)
                ck_assert_int_eq(am_backend_ref.low_rank(NULL, &args), AM_OK);
            else
                CUDA_OK(ON_CUDA(low_rank, &args, size_of(dtype, m * r), size_of(to, k * r),
                                size_of(dtype, m * k), size_of(dtype, k * r),
                                size_of(dtype, m * r)));
        }
        compare("low_rank: u", u[0], u[1], dtype, m * r);
        compare("low_rank: g", g[0], g[1], to, k * r);
        free_kept();
    }
}
END_TEST

static void grouped_case(const int32_t *offsets, int64_t groups, int64_t n, int64_t k, int dtype,
                         int mode)
{
    int64_t rows = offsets[groups];
    int trans = mode & 1, accumulate = mode >> 1 & 1,
        to = mode & 4 && dtype != AM_F64 ? AM_F32 : dtype;
    void *a = numbers(dtype, rows * k), *b = numbers(dtype, groups * n * k);
    void *bias = numbers(dtype, groups * n), *dout = numbers(dtype, rows * n), *c[2], *dw[2],
         *db[2];
    size_t of = (size_t)(groups + 1) * 4;
    c[0] = numbers(to, rows * n);
    c[1] = same(to, rows * n, c[0]);
    dw[0] = numbers(to, groups * n * k);
    dw[1] = same(to, groups * n * k, dw[0]);
    db[0] = numbers(to, groups * n);
    db[1] = same(to, groups * n, db[0]);
    for (int on = 0; on < 2; on++) {
        am_grouped_gemm_args f = {.c = c[on],
                                  .a = a,
                                  .b = b,
                                  .bias = mode & 2 ? bias : NULL,
                                  .offsets = offsets,
                                  .dtype_ab = dtype,
                                  .dtype_c = to,
                                  .trans_b = trans,
                                  .accumulate = accumulate,
                                  .groups = groups,
                                  .rows = rows,
                                  .n = n,
                                  .k = k};
        am_grouped_gemm_dw_args g = {.dw = dw[on],
                                     .dbias = db[on],
                                     .dout = dout,
                                     .x = a,
                                     .offsets = offsets,
                                     .dtype = dtype,
                                     .dtype_dw = to,
                                     .dtype_db = to,
                                     .turned = trans,
                                     .accumulate_dw = accumulate,
                                     .accumulate_db = accumulate,
                                     .groups = groups,
                                     .rows = rows,
                                     .n = n,
                                     .k = k};
        if (on == 1) {
            ck_assert_int_eq(am_backend_ref.grouped_gemm(NULL, &f), AM_OK);
            ck_assert_int_eq(am_backend_ref.grouped_gemm_dw(NULL, &g), AM_OK);
        } else {
            CUDA_OK(ON_CUDA(grouped_gemm, &f, size_of(to, rows * n), size_of(dtype, rows * k),
                            size_of(dtype, groups * n * k), size_of(dtype, groups * n), of));
            CUDA_OK(ON_CUDA(grouped_gemm_dw, &g, size_of(to, groups * n * k),
                            size_of(to, groups * n), size_of(dtype, rows * n),
                            size_of(dtype, rows * k), of));
        }
    }
    compare("grouped_gemm: c", c[0], c[1], to, rows * n);
    compare("grouped_gemm: dw", dw[0], dw[1], to, groups * n * k);
    compare("grouped_gemm: dbias", db[0], db[1], to, groups * n);
    free_kept();
}

START_TEST(grouped)
{
    static int32_t few[] = {0, 0, 3, 3, 68, 70}, many[] = {0, 64, 128, 128, 257};
    static const int64_t sizes[][2] = {{1, 1}, {40, 24}, {136, 72}, {130, 33}};
    for (int c = 0; c < 4 * 4 * 8; c++) {
        int large = c / 16 == c % 8;
        cuda_shift = c % 3 == 2 ? 8 : 0;
        grouped_case(large ? many : few, large ? 4 : 5, sizes[c % 4][0], sizes[c % 4][1],
                     float_dtypes[c / 4 % 4], c / 16);
    }
}
END_TEST

/* A row has the same bits among others as by itself. */
START_TEST(grouped_rows)
{
    for (int d = 0; d < 4; d++) {
        int dtype = float_dtypes[d];
        int64_t rows = 67, n = 40, k = 72;
        int32_t offsets[] = {0, 2, 67}, alone[] = {0, 0, 1};
        void *a = numbers(dtype, rows * k), *b = numbers(dtype, 2 * n * k);
        void *whole = keep(elems(dtype, rows * n)), *part = keep(elems(dtype, n));
        am_grouped_gemm_args args = {.c = whole,
                                     .a = a,
                                     .b = b,
                                     .offsets = offsets,
                                     .dtype_ab = dtype,
                                     .dtype_c = dtype,
                                     .trans_b = d & 1,
                                     .groups = 2,
                                     .rows = rows,
                                     .n = n,
                                     .k = k};
        CUDA_OK(ON_CUDA(grouped_gemm, &args, size_of(dtype, rows * n), size_of(dtype, rows * k),
                        size_of(dtype, 2 * n * k), 0, sizeof offsets));
        args.c = part;
        args.a = (char *)a + size_of(dtype, (rows - 1) * k);
        args.offsets = alone;
        args.rows = 1;
        cuda_shift = 8; /* not by 16 bytes */
        CUDA_OK(ON_CUDA(grouped_gemm, &args, size_of(dtype, n), size_of(dtype, k),
                        size_of(dtype, 2 * n * k), 0, sizeof alone));
        cuda_shift = 0;
        check_same_bits("grouped_gemm: a row by itself", part,
                        (char *)whole + size_of(dtype, (rows - 1) * n), size_of(dtype, n));
        free_kept();
    }
}
END_TEST

START_TEST(bad_offsets)
{
    static int32_t bad[][4] = {{1, 2, 3, 4}, {0, 3, 2, 4},  {0, 2, 3, 3},
                               {0, 2, 5, 4}, {0, -1, 3, 4}, {0, 2, 3, 5}};
    float c[4], a[4] = {0}, b[3] = {0};
    for (int i = 0; i < 6; i++) {
        am_grouped_gemm_args args = {
            .c = c, .a = a, .b = b, .offsets = bad[i], .groups = 3, .rows = 4, .n = 1, .k = 1};
        am_grouped_gemm_dw_args dw = {
            .dw = b, .dout = c, .x = a, .offsets = bad[i], .groups = 3, .rows = 4, .n = 1, .k = 1};
        ck_assert_int_eq(ON_CUDA(grouped_gemm, &args, 16, 16, 12, 0, 16), AM_EINVAL);
        ck_assert_msg(strstr(am_error_message(), "grouped_gemm: ") != NULL &&
                          (i != 3 || strstr(am_error_message(), " 5 is outside of 0..4")),
                      "%s", am_error_message());
        ck_assert_int_eq(ON_CUDA(grouped_gemm_dw, &dw, 12, 0, 16, 16, 16), AM_EINVAL);
    }
}
END_TEST

/* ---- eigenvectors and QR --------------------------------------------------------------------- */

START_TEST(linalg)
{
    static const int64_t many[] = {1, 2, 7, 33};
    for (int c = 0; c < 4; c++) {
        int64_t n = many[c];
        size_t all = (size_t)(n * n) * 8, work = (size_t)(n * (n + 4)) * 8;
        double *v[2], *values[2], *q[2], *space = keep(malloc(work));
        v[0] = numbers(AM_F64, n * n);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < i; j++)
                v[0][i * n + j] = v[0][j * n + i];
        v[1] = same(AM_F64, n * n, v[0]);
        q[0] = numbers(AM_F64, n * n);
        q[1] = same(AM_F64, n * n, q[0]);
        for (int on = 0; on < 2; on++) {
            values[on] = keep(elems(AM_F64, n));
            am_eigh_args e = {v[on], values[on], space, n};
            am_qr_args r = {q[on], space, n};
            if (on == 1) {
                ck_assert_int_eq(am_backend_ref.eigh(NULL, &e), AM_OK);
                ck_assert_int_eq(am_backend_ref.qr(NULL, &r), AM_OK);
            } else {
                CUDA_OK(ON_CUDA(eigh, &e, all, (size_t)n * 8, work));
                CUDA_OK(ON_CUDA(qr, &r, all, work));
            }
        }
        /* One source, of which a compiler may fuse other products. */
        check_close("eigh: values", values[0], values[1], AM_F64, n, 1e-11, 1e-12);
        check_close("eigh: vectors", v[0], v[1], AM_F64, n * n, 1e-9, 1e-10);
        check_close("qr", q[0], q[1], AM_F64, n * n, 1e-10, 1e-12);
        v[0][0] = NAN;
        am_eigh_args e = {v[0], values[0], space, n};
        ck_assert_int_eq(ON_CUDA(eigh, &e, all, (size_t)n * 8, work), AM_EINVAL);
        ck_assert_msg(strstr(am_error_message(), "not finite") != NULL, "%s", am_error_message());
        free_kept();
    }
}
END_TEST

int main(void)
{
    const cuda_test tests[] = {{"norms", norms, 0, 1},
                               {"rope", rope, 0, 1},
                               {"rope_table", rope_table, 0, 1},
                               {"glu", glu, 0, 1},
                               {"losses", losses, 0, 1},
                               {"bad_label", bad_label, 0, 1},
                               {"gemv", gemv, 0, 1},
                               {"low_rank", low_rank, 0, 1},
                               {"grouped", grouped, 0, 1},
                               {"grouped_rows", grouped_rows, 0, 1},
                               {"bad_offsets", bad_offsets, 0, 1},
                               {"linalg", linalg, 0, 1}};
    return run_on_cuda("cuda model", tests, sizeof tests / sizeof *tests);
}
