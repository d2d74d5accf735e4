/* The row kernels of every instruction set against ref: RMSNorm, LayerNorm, rotary embedding, gated
 * units, softmax, cross-entropy, reductions, gather. Also that the number of threads and of rows
 * leaves the bits as they are. */
#include "test_kernels.h"

static const int64_t widths[] = {1, 3, 8, 16, 17, 64, 67, 576, 1031};
enum { WIDTHS = sizeof widths / sizeof *widths };

#define EACH_CASE(k, dtype, c)                                                                     \
    for (int isa_ = 0; isa_ < ISA_COUNT; isa_++)                                                   \
        for (const am_cpu_kernels *k = isa_kernels(isa_); k; k = NULL)                             \
            for (int d_ = 0; d_ < 3; d_++)                                                         \
                for (int w_ = 0, dtype = half_dtypes[d_]; w_ < WIDTHS; w_++)                       \
                    for (int64_t c = widths[w_], once_ = 1; once_; once_ = 0)

/* Sums of c products are off by some roundings of their largest terms: this many f32 ulps of the
 * result's scale, then one rounding to dtype. */
static double sum_error(int64_t c)
{
    return (8 + 2 * sqrt((double)c)) * ulp_of(AM_F32);
}

START_TEST(rms_norm)
{
    EACH_CASE(k, dtype, c)
    {
        int64_t rows = c > 1000 ? 3 : 67, n = rows * c;
        void *x = random_elems(dtype, n, -3, 3), *weight = random_elems(dtype, c, 0.5, 2);
        void *dout = random_elems(dtype, n, -1, 1), *got = elems(dtype, n), *want = elems(dtype, n);
        float rstd[67], rstd_ref[67];
        double offset = c % 2 ? 1 : 0;
        am_rms_norm_args args = {got, rstd, x, weight, dtype, 1e-5, offset, rows, c};
        ck_assert_int_eq(k->rms_norm(NULL, &args), AM_OK);
        args.out = want;
        args.rstd = rstd_ref;
        ck_assert_int_eq(am_backend_ref.rms_norm(NULL, &args), AM_OK);
        check_close("rms_norm", got, want, dtype, n, ulp_of(dtype) + sum_error(c), 0);
        check_close("rstd", rstd, rstd_ref, AM_F32, rows, sum_error(c), 0);
        for (int mode = 0; mode < 4; mode++) {
            int to = mode & 1 ? AM_F32 : dtype, add = mode >> 1;
            void *dw = random_elems(to, c, -1, 1), *dw_ref = copy_elems(to, c, dw);
            void *dx = random_elems(dtype, n, -1, 1), *dx_ref = copy_elems(dtype, n, dx);
            am_rms_norm_bwd_args bwd = {dx, dw,  dout, x,      weight, rstd_ref, dtype,
                                        to, add, add,  offset, rows,   c};
            ck_assert_int_eq(k->rms_norm_bwd(NULL, &bwd), AM_OK);
            bwd.dx = dx_ref;
            bwd.dweight = dw_ref;
            ck_assert_int_eq(am_backend_ref.rms_norm_bwd(NULL, &bwd), AM_OK);
            check_close("dx", dx, dx_ref, dtype, n, ulp_of(dtype) + sum_error(c),
                        20 * sum_error(c));
            check_close("dweight", dw, dw_ref, to, c, ulp_of(to) + sum_error(rows),
                        20 * sum_error(rows));
            free(dw);
            free(dw_ref);
            free(dx);
            free(dx_ref);
        }
        free(x);
        free(weight);
        free(dout);
        free(got);
        free(want);
    }
}
END_TEST

START_TEST(layer_norm)
{
    EACH_CASE(k, dtype, c)
    {
        int64_t rows = c > 1000 ? 3 : 131, n = rows * c;
        void *x = random_elems(dtype, n, -2, 4), *weight = random_elems(dtype, c, 0.5, 2);
        void *bias = random_elems(dtype, c, -1, 1), *dout = random_elems(dtype, n, -1, 1);
        void *got = elems(dtype, n), *want = elems(dtype, n);
        float stats[2 * 131], stats_ref[2 * 131];
        for (int mode = 0; mode < 8; mode++) {
            int to = mode & 1 ? AM_F32 : dtype, add = mode >> 1 & 1;
            void *w = mode & 4 ? NULL : weight, *b = mode & 2 ? NULL : bias;
            am_layer_norm_args args = {got, stats, x, w, b, dtype, 1e-2, 0.5, rows, c};
            ck_assert_int_eq(k->layer_norm(NULL, &args), AM_OK);
            args.out = want;
            args.stats = stats_ref;
            ck_assert_int_eq(am_backend_ref.layer_norm(NULL, &args), AM_OK);
            double error = sum_error(c);
            check_close("layer_norm", got, want, dtype, n, ulp_of(dtype) + error, 20 * error);
            check_close("stats", stats, stats_ref, AM_F32, 2 * rows, error, error);
            void *dw = random_elems(to, c, -1, 1), *dw_ref = copy_elems(to, c, dw);
            void *db = random_elems(dtype, c, -1, 1), *db_ref = copy_elems(dtype, c, db);
            void *dx = random_elems(dtype, n, -1, 1), *dx_ref = copy_elems(dtype, n, dx);
            am_layer_norm_bwd_args bwd = {dx, dw,    db,  dout, x,    w,   stats_ref, dtype,
                                          to, dtype, add, add,  !add, 0.5, rows,      c};
            ck_assert_int_eq(k->layer_norm_bwd(NULL, &bwd), AM_OK);
            bwd.dx = dx_ref;
            bwd.dweight = dw_ref;
            bwd.dbias = db_ref;
            ck_assert_int_eq(am_backend_ref.layer_norm_bwd(NULL, &bwd), AM_OK);
            /* of the scale of dx, which 1/sqrt(eps) bounds */
            check_close("dx", dx, dx_ref, dtype, n, ulp_of(dtype) + error, 200 * error);
            error = 20 * sum_error(rows);
            check_close("dweight", dw, dw_ref, to, c, ulp_of(to) + sum_error(rows), error);
            check_close("dbias", db, db_ref, dtype, c, ulp_of(dtype) + sum_error(rows), error);
            free(dw);
            free(dw_ref);
            free(db);
            free(db_ref);
            free(dx);
            free(dx_ref);
        }
        free(x);
        free(weight);
        free(bias);
        free(dout);
        free(got);
        free(want);
    }
}
END_TEST

START_TEST(rope)
{
    static const struct {
        int64_t b, t, h, d, r;
    } shapes[] = {{2, 5, 3, 64, 64}, {1, 7, 2, 6, 6}, {2, 3, 1, 80, 32}, {1, 1, 1, 2, 2}};
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const am_cpu_kernels *k = isa_kernels(isa);
        for (int c = 0; k && c < 4 * 3 * 8; c++) {
            int64_t b = shapes[c % 4].b, t = shapes[c % 4].t, h = shapes[c % 4].h;
            int64_t d = shapes[c % 4].d, r = shapes[c % 4].r, n = b * t * h * d;
            int dtype = half_dtypes[c / 4 % 3], batched = c / 12 & 1;
            void *x = random_elems(dtype, n, -2, 2), *got = elems(dtype, n);
            void *want = elems(dtype, n);
            float *table = elems(AM_F32, b * t * r), *table_ref = elems(AM_F32, b * t * r);
            int32_t pos[16];
            for (int i = 0; i < 16; i++)
                pos[i] = i * 1237;
            float inv_freq[64];
            for (int i = 0; i < 64; i++)
                inv_freq[i] = (float)pow(10000, -i / 32.0);
            am_rope_table_args make = {table, pos, inv_freq, 1.1, b * t, r / 2};
            ck_assert_int_eq(k->rope_table(NULL, &make), AM_OK);
            make.out = table_ref;
            ck_assert_int_eq(am_backend_ref.rope_table(NULL, &make), AM_OK);
            check_close("rope_table", table, table_ref, AM_F32, b * t * r, 0, 0);
            am_rope_args args = {got,        x, table, dtype, batched, c / 24 & 1,
                                 c / 48 & 1, b, t,     h,     d,       r};
            ck_assert_int_eq(k->rope(NULL, &args), AM_OK);
            args.out = want;
            ck_assert_int_eq(am_backend_ref.rope(NULL, &args), AM_OK);
            check_close("rope", got, want, dtype, n, ulp_of(dtype), 4 * ulp_of(AM_F32));
            args.out = x; /* in place */
            ck_assert_int_eq(k->rope(NULL, &args), AM_OK);
            check_same_bits("rope in place", x, got, (size_t)n * elem_size(dtype));
            free(x);
            free(got);
            free(want);
            free(table);
            free(table_ref);
        }
    }
}
END_TEST

START_TEST(glu)
{
    EACH_CASE(k, dtype, n)
    {
        void *gate = random_elems(dtype, n, -6, 6), *up = random_elems(dtype, n, -2, 2);
        void *dout = random_elems(dtype, n, -1, 1), *got = elems(dtype, n), *want = elems(dtype, n);
        void *got2 = elems(dtype, n), *want2 = elems(dtype, n);
        for (int act = 0; act < AM_ACT_COUNT; act++) {
            am_glu_args args = {got, gate, up, act, dtype, n};
            ck_assert_int_eq(k->glu(NULL, &args), AM_OK);
            args.out = want;
            ck_assert_int_eq(am_backend_ref.glu(NULL, &args), AM_OK);
            /* GELU's tail weighs the rounding of its argument x^2 times */
            double relative = ulp_of(dtype) + 99 * ulp_of(AM_F32);
            check_close("glu", got, want, dtype, n, relative, 1e-9);
            am_glu_bwd_args bwd = {got, got2, dout, gate, up, act, dtype, n};
            ck_assert_int_eq(k->glu_bwd(NULL, &bwd), AM_OK);
            bwd.dgate = want;
            bwd.dup = want2;
            ck_assert_int_eq(am_backend_ref.glu_bwd(NULL, &bwd), AM_OK);
            check_close("dgate", got, want, dtype, n, relative, 2e-6);
            check_close("dup", got2, want2, dtype, n, relative, 1e-9);
        }
        free(gate);
        free(up);
        free(dout);
        free(got);
        free(want);
        free(got2);
        free(want2);
    }
}
END_TEST

/* Levels jump, so only equal bits will do. */
START_TEST(fake_quantize)
{
    EACH_CASE(k, dtype, size)
    {
        int64_t groups = size > 1000 ? 3 : 7, n = groups * size;
        void *x = random_elems(dtype, n, -3, 3), *grad = random_elems(dtype, n, -1, 1);
        void *got = elems(dtype, n), *want = elems(dtype, n);
        for (int64_t i = 0; i < size; i++) {
            elem_set(x, dtype, i, 0);                       /* nothing but 0 */
            elem_set(x, dtype, size + i, 1e-6 * (double)i); /* and next to nothing */
        }
        for (int mode = 0; mode < 4 * AM_FQ_COUNT; mode++) {
            am_fake_quantize_args args = {want,      x,     mode & 1 ? grad : NULL,
                                          mode >> 2, dtype, mode & 2 ? AM_BF16 : AM_F32,
                                          groups,    size};
            ck_assert_int_eq(am_backend_ref.fake_quantize(NULL, &args), AM_OK);
            args.out = got;
            ck_assert_int_eq(k->fake_quantize(NULL, &args), AM_OK);
            check_close("fake_quantize", got, want, dtype, n, 0, 0);
        }
        free(x);
        free(grad);
        free(got);
        free(want);
    }
}
END_TEST

START_TEST(softmax)
{
    EACH_CASE(k, dtype, c)
    {
        int64_t rows = c > 1000 ? 2 : 5, n = rows * c;
        void *a = random_elems(dtype, n, -9, 9), *dout = random_elems(dtype, n, -1, 1);
        void *got = elems(dtype, n), *want = elems(dtype, n);
        if (c > 2)
            elem_set(a, dtype, 1, -INFINITY);
        for (int mode = 0; mode < 4; mode++) {
            int64_t outer = mode & 1 ? 1 : rows, inner = mode & 1 ? rows : 1;
            int log_of = mode >> 1;
            am_softmax_args args = {want, a, log_of, dtype, outer, c, inner};
            ck_assert_int_eq(am_backend_ref.softmax(NULL, &args), AM_OK);
            args.out = got;
            ck_assert_int_eq(k->softmax(NULL, &args), AM_OK);
            double relative = ulp_of(dtype) + 32 * ulp_of(AM_F32);
            check_close("softmax", got, want, dtype, n, relative, log_of ? 4e-6 : 1e-37);
            am_softmax_bwd_args bwd = {got, dout, want, log_of, dtype, outer, c, inner};
            void *da = elems(dtype, n);
            ck_assert_int_eq(k->softmax_bwd(NULL, &bwd), AM_OK);
            bwd.da = da;
            ck_assert_int_eq(am_backend_ref.softmax_bwd(NULL, &bwd), AM_OK);
            check_close("softmax_bwd", got, da, dtype, n, relative, (double)c * 1e-6);
            free(da);
        }
        free(a);
        free(dout);
        free(got);
        free(want);
    }
}
END_TEST

/* With the loss in one call: as cross_entropy_bwd's for a dloss of 1, rounded once. */
static void check_gradients_at_once(const am_cpu_kernels *k, am_cross_entropy_args args,
                                    void *scratch)
{
    int64_t n = args.rows * args.v;
    float one = 1, *stats = elems(AM_F32, 2 * args.rows);
    args.loss = stats;
    args.lse = stats + args.rows;
    am_cross_entropy_bwd_args bwd = {.dlogits = scratch,
                                     .logits = args.logits,
                                     .labels = args.labels,
                                     .lse = args.lse,
                                     .dloss = &one,
                                     .dtype = args.dtype,
                                     .dtype_labels = args.dtype_labels,
                                     .ignore = args.ignore,
                                     .rows = args.rows,
                                     .v = args.v,
                                     .softcap = args.softcap};
    ck_assert_int_eq(am_backend_ref.cross_entropy(NULL, &args), AM_OK);
    ck_assert_int_eq(am_backend_ref.cross_entropy_bwd(NULL, &bwd), AM_OK);
    for (int i = 0; i < 3; i++) {
        int to = args.dtype_dlogits = half_dtypes[i];
        void *once = args.dlogits = elems(to, n);
        ck_assert_int_eq(k->cross_entropy(NULL, &args), AM_OK);
        if (to == args.dtype) {
            check_close("dlogits at once", once, scratch, to, n, ulp_of(to) + 1e-5, 1e-6);
            void *same = copy_elems(to, n, args.logits);
            args.logits = args.dlogits = same;
            ck_assert_int_eq(k->cross_entropy(NULL, &args), AM_OK);
            check_same_bits("at once, in place", same, once, (size_t)n * elem_size(to));
            args.logits = bwd.logits;
            free(same);
        } else if (to == AM_F32) {
            for (int64_t e = 0; e < n; e++) {
                double got = elem_get(once, to, e), want = elem_get(scratch, args.dtype, e);
                ck_assert(fabs(got - want) <= 2 * ulp_of(args.dtype) * fabs(want) + 1e-6);
            }
        }
        free(once);
    }
    free(stats);
}

START_TEST(cross_entropy)
{
    EACH_CASE(k, dtype, v)
    {
        enum { ROWS = 5 };
        int64_t n = ROWS * v, wide[ROWS] = {0, v - 1, -100, v / 2, v / 3};
        int32_t narrow[ROWS];
        for (int i = 0; i < ROWS; i++)
            narrow[i] = (int32_t)wide[i];
        void *logits = random_elems(dtype, n, -20, 20), *got = elems(dtype, n);
        void *want = elems(dtype, n);
        for (int mode = 0; mode < 4; mode++) {
            float loss[ROWS], lse[ROWS], loss_ref[ROWS], lse_ref[ROWS], dloss = 0.37f;
            const void *labels = mode & 1 ? (const void *)narrow : (const void *)wide;
            int labels_dtype = mode & 1 ? AM_I32 : AM_I64;
            double cap = mode & 2 ? 15 : 0;
            am_cross_entropy_args args = {.loss = loss,
                                          .lse = lse,
                                          .logits = logits,
                                          .labels = labels,
                                          .dtype = dtype,
                                          .dtype_labels = labels_dtype,
                                          .ignore = -100,
                                          .rows = ROWS,
                                          .v = v,
                                          .softcap = cap};
            ck_assert_int_eq(k->cross_entropy(NULL, &args), AM_OK);
            args.loss = loss_ref;
            args.lse = lse_ref;
            ck_assert_int_eq(am_backend_ref.cross_entropy(NULL, &args), AM_OK);
            check_close("loss", loss, loss_ref, AM_F32, ROWS, 1e-6, 4e-6);
            check_close("lse", lse, lse_ref, AM_F32, ROWS, 1e-6, 4e-6);
            ck_assert(loss[2] == 0);
            am_cross_entropy_bwd_args bwd = {got,          logits, labels, lse_ref, &dloss, dtype,
                                             labels_dtype, -100,   ROWS,   v,       cap};
            ck_assert_int_eq(k->cross_entropy_bwd(NULL, &bwd), AM_OK);
            bwd.dlogits = want;
            ck_assert_int_eq(am_backend_ref.cross_entropy_bwd(NULL, &bwd), AM_OK);
            check_close("dlogits", got, want, dtype, n, ulp_of(dtype) + 1e-5, 1e-6);
            check_gradients_at_once(k, args, want);
            void *same = copy_elems(dtype, n, logits);
            bwd.dlogits = same;
            bwd.logits = same;
            ck_assert_int_eq(k->cross_entropy_bwd(NULL, &bwd), AM_OK);
            check_same_bits("in place", same, got, (size_t)n * elem_size(dtype));
            free(same);
        }
        float out[ROWS], lse[ROWS];
        wide[3] = v;
        am_cross_entropy_args bad = {.loss = out,
                                     .lse = lse,
                                     .logits = logits,
                                     .labels = wide,
                                     .dtype = dtype,
                                     .dtype_labels = AM_I64,
                                     .ignore = -100,
                                     .rows = ROWS,
                                     .v = v};
        ck_assert_int_eq(k->cross_entropy(NULL, &bad), AM_EINVAL);
        ck_assert_ptr_nonnull(strstr(am_error_message(), "of row 3 is outside"));
        free(logits);
        free(got);
        free(want);
    }
}
END_TEST

START_TEST(reduce)
{
    EACH_CASE(k, dtype, c)
    {
        int64_t rows = c > 1000 ? 3 : 7, n = rows * c;
        void *a = random_elems(dtype, n, -3, 3);
        if (n > 40)
            elem_set(a, dtype, 37, NAN);
        for (int op = 0; op < AM_R_COUNT; op++) {
            for (int mode = 0; mode < 4; mode++) {
                int64_t outer = mode & 1 ? 1 : rows, inner = mode & 1 ? rows : 1;
                int to = op == AM_R_SUM && mode & 2 ? AM_F32 : dtype,
                    add = op == AM_R_SUM && mode == 3;
                /* as doubles, so that int64 fits as well */
                double got[7] = {1, 2, 3, 4, 5, 6, 7}, want[7] = {1, 2, 3, 4, 5, 6, 7};
                am_reduce_args args = {got, a, op, dtype, to, add, 0.5, outer, c, inner};
                ck_assert_int_eq(k->reduce(NULL, &args), AM_OK);
                args.out = want;
                ck_assert_int_eq(am_backend_ref.reduce(NULL, &args), AM_OK);
                if (op >= AM_R_ARGMAX)
                    check_same_bits("index", got, want, (size_t)rows * 8);
                else
                    check_close("reduce", got, want, to, rows, ulp_of(to) + 1e-6,
                                sqrt((double)c) * 1e-6);
            }
        }
        free(a);
    }
}
END_TEST

START_TEST(gather)
{
    EACH_CASE(k, dtype, inner)
    {
        enum { N = 11, M = 29 };
        int32_t index[M];
        for (int i = 0; i < M; i++)
            index[i] = i * 7 % N;
        void *a = random_elems(dtype, 2 * N * inner, -1, 1), *got = elems(dtype, 2 * M * inner);
        void *want = elems(dtype, 2 * M * inner);
        am_gather_args args = {got, a, index, dtype, AM_I32, 0, 2, N, inner, M};
        ck_assert_int_eq(k->gather(NULL, &args), AM_OK);
        args.out = want;
        ck_assert_int_eq(am_backend_ref.gather(NULL, &args), AM_OK);
        check_same_bits("gather", got, want, (size_t)(2 * M * inner) * elem_size(dtype));
        for (int mode = 0; mode < 4; mode++) {
            int to = mode & 1 ? AM_F32 : dtype, padding = mode >> 1;
            void *da = random_elems(to, 2 * N * inner, -1, 1);
            void *da_ref = copy_elems(to, 2 * N * inner, da);
            am_gather_bwd_args bwd = {da,      want, index, dtype, to, AM_I32, 0,
                                      padding, 2,    N,     inner, M,  3};
            ck_assert_int_eq(k->gather_bwd(NULL, &bwd), AM_OK);
            bwd.da = da_ref;
            ck_assert_int_eq(am_backend_ref.gather_bwd(NULL, &bwd), AM_OK);
            check_close("gather_bwd", da, da_ref, to, 2 * N * inner, ulp_of(to), ulp_of(to));
            free(da);
            free(da_ref);
        }
        index[M - 1] = N;
        ck_assert_int_eq(k->gather(NULL, &args), AM_EINVAL);
        ck_assert_ptr_nonnull(strstr(am_error_message(), "index 11 is outside 0..10"));
        index[M - 1] = -1;
        ck_assert_int_eq(k->gather(NULL, &args), AM_EINVAL);
        free(a);
        free(got);
        free(want);
    }
}
END_TEST

/* One batch of everything above at a size that several threads share: a digest of all the bits. */
static void run_all(const am_cpu_kernels *k, int64_t rows, float *out, const float *x,
                    const float *weight)
{
    enum { C = 259 };
    int64_t n = rows * C;
    float *rstd = elems(AM_F32, 2 * rows), *norm = out, *dx = out + n, *soft = out + 2 * n;
    float *layer = out + 3 * n, *layer_dx = out + 4 * n, *dw = out + 5 * n;
    am_rms_norm_args norm_args = {norm, rstd, x, weight, AM_F32, 1e-5, 1, rows, C};
    ck_assert_int_eq(k->rms_norm(NULL, &norm_args), AM_OK);
    am_rms_norm_bwd_args bwd = {dx, dw, norm, x, weight, rstd, AM_F32, AM_F32, 0, 0, 1, rows, C};
    ck_assert_int_eq(k->rms_norm_bwd(NULL, &bwd), AM_OK);
    am_layer_norm_args layer_args = {layer, rstd, x, weight, weight, AM_F32, 1e-5, 0, rows, C};
    ck_assert_int_eq(k->layer_norm(NULL, &layer_args), AM_OK);
    am_layer_norm_bwd_args layer_bwd = {.dx = layer_dx,
                                        .dweight = dw + 2 * C,
                                        .dbias = dw + 3 * C,
                                        .dout = layer,
                                        .x = x,
                                        .weight = weight,
                                        .stats = rstd,
                                        .dtype = AM_F32,
                                        .dtype_dw = AM_F32,
                                        .dtype_db = AM_F32,
                                        .rows = rows,
                                        .c = C};
    ck_assert_int_eq(k->layer_norm_bwd(NULL, &layer_bwd), AM_OK);
    am_softmax_args soft_args = {soft, x, 0, AM_F32, rows, C, 1};
    ck_assert_int_eq(k->softmax(NULL, &soft_args), AM_OK);
    am_reduce_args sum = {dw + C, x, AM_R_SUM, AM_F32, AM_F32, 0, 1, 1, rows, C};
    ck_assert_int_eq(k->reduce(NULL, &sum), AM_OK);
    free(rstd);
}

START_TEST(threads_and_rows_leave_the_bits)
{
    enum { C = 259, ROWS = 601, N = C * ROWS };
    float *x = random_elems(AM_F32, N, -3, 3), *weight = random_elems(AM_F32, C, 0.5, 2);
    float *first = elems(AM_F32, 5 * N + 4 * C), *again = elems(AM_F32, 5 * N + 4 * C);
    static const int threads[] = {1, 2, 3, 5};
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const am_cpu_kernels *k = isa_kernels(isa);
        for (int i = 0; k && i < 4; i++) {
            am_threads_set(threads[i]);
            run_all(k, ROWS, i == 0 ? first : again, x, weight);
            if (i > 0)
                check_same_bits("threads", again, first, (5 * N + 4 * C) * sizeof(float));
        }
        if (!k)
            continue;
        run_all(k, 1, again, x + 400 * C, weight);
        for (int part = 0; part < 5; part++)
            check_same_bits("one row", again + part * C, first + part * N + 400 * C, C * 4);
    }
    free(x);
    free(weight);
    free(first);
    free(again);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        rms_norm, layer_norm,    rope,   glu,    fake_quantize,
        softmax,  cross_entropy, reduce, gather, threads_and_rows_leave_the_bits};
    return run_suite("kernels_model", tests, sizeof tests / sizeof *tests);
}
