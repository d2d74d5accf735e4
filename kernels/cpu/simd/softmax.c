/* softmax.c — softmax, its logarithm and cross-entropy over dense rows of f32, bf16 and f16, with
 * their gradients. Rows with an inner dimension go to ref. Formulas as in ref_*.c. */
#include "vec.h"
#include "../ref_kernels.h"

/* ---- parts of a row ------------------------------------------------------------------------ */

/* The largest of n (capped) elements; NaN is left to the sum. */
AM_INLINE float row_max(const void *p, int dtype, int64_t at, int64_t n, float cap)
{
    vf max = vsplat(-INFINITY);
    for (int64_t i = 0; i < n; i += VW)
        max = vmax(vget_n(p, dtype, at + i, n - i, -INFINITY), max);
    float most = vmax_lanes(max);
    return cap > 0 ? vsoft_cap(vsplat(most), cap)[0] : most;
}

/* The sum of e^(x - max) in f32 lanes, which are emptied into double every SUM_BLOCK elements. */
enum { SUM_BLOCK = 4096 };

AM_INLINE double row_exp_sum(const void *p, int dtype, int64_t at, int64_t n, float cap, float max)
{
    double total = 0;
    for (int64_t first = 0; first < n; first += SUM_BLOCK) {
        int64_t end = at_most(n, first + SUM_BLOCK);
        vf sum = {0};
        for (int64_t i = first; i < end; i += VW) {
            vf x = vget_n(p, dtype, at + i, end - i, -INFINITY);
            vf e = vexp_down(vsoft_cap(x, cap) - max);
            if (end - i < VW) /* -inf may be what the row holds, and NaN its difference */
                for (int64_t j = end - i; j < VW; j++)
                    e[j] = 0;
            sum += e;
        }
        total += (double)vsum(sum);
    }
    return total;
}

/* ---- softmax ------------------------------------------------------------------------------- */

AM_INLINE void softmax_row(const am_softmax_args *args, int dtype, int64_t r)
{
    int64_t n = args->n, at = r * n;
    float max = row_max(args->a, dtype, at, n, 0);
    double sum = row_exp_sum(args->a, dtype, at, n, 0, max);
    float scale = (float)(1.0 / sum), log_sum = (float)log(sum);
    for (int64_t i = 0; i < n; i += VW) {
        vf x = vget_n(args->a, dtype, at + i, n - i, 0) - max;
        vput_n(args->out, dtype, at + i, n - i, args->log ? x - log_sum : vexp(x) * scale);
    }
}

int AM_SIMD(softmax)(am_stream *s, const am_softmax_args *args)
{
    if (args->inner != 1 || !is_simd_float(args->dtype))
        return am_ref_softmax(s, args);
#pragma omp parallel for num_threads(team(args->outer * args->n)) schedule(static)
    for (int64_t r = 0; r < args->outer; r++)
        AM_WITH_DTYPE(T, args->dtype, softmax_row(args, T, r))
    return AM_OK;
}

AM_INLINE void softmax_bwd_row(const am_softmax_bwd_args *args, int dtype, int64_t r)
{
    int64_t n = args->n, at = r * n;
    vf sums = {0};
    for (int64_t i = 0; i < n; i += VW) {
        vf dout = vget_n(args->dout, dtype, at + i, n - i, 0);
        sums =
            args->log ? sums + dout : vfma(dout, vget_n(args->out, dtype, at + i, n - i, 0), sums);
    }
    float sum = vsum(sums);
    for (int64_t i = 0; i < n; i += VW) {
        vf dout = vget_n(args->dout, dtype, at + i, n - i, 0);
        vf out = vget_n(args->out, dtype, at + i, n - i, 0);
        vput_n(args->da, dtype, at + i, n - i,
               args->log ? vfma(vsplat(-sum), vexp(out), dout) : out * (dout - sum));
    }
}

int AM_SIMD(softmax_bwd)(am_stream *s, const am_softmax_bwd_args *args)
{
    if (args->inner != 1 || !is_simd_float(args->dtype))
        return am_ref_softmax_bwd(s, args);
#pragma omp parallel for num_threads(team(args->outer * args->n)) schedule(static)
    for (int64_t r = 0; r < args->outer; r++)
        AM_WITH_DTYPE(T, args->dtype, softmax_bwd_row(args, T, r))
    return AM_OK;
}

/* ---- cross-entropy ------------------------------------------------------------------------- */

static int64_t label_at(const void *labels, int dtype, int64_t r)
{
    return dtype == AM_I32 ? ((const int32_t *)labels)[r] : ((const int64_t *)labels)[r];
}

/* Looks at all labels before anything is read by them. */
static int check_labels(const void *labels, int dtype, int64_t rows, int64_t ignore, int64_t v)
{
    for (int64_t r = 0; r < rows; r++) {
        int64_t label = label_at(labels, dtype, r);
        if (label != ignore && (label < 0 || label >= v))
            return am_kernel_fail(AM_EINVAL,
                                  "cross_entropy: label %lld of row %lld is outside 0..%lld",
                                  (long long)label, (long long)r, (long long)(v - 1));
    }
    return AM_OK;
}

/* Row r of dlogits; `label` is -1 in ignored rows. */
AM_INLINE void dlogits_row(void *to, int dtype_to, const void *logits, int dtype, int64_t r,
                           int64_t v, int64_t label, float cap, float lse, float dloss)
{
    float at_label = 0; /* read before dlogits may overwrite it */
    if (label >= 0) {
        vf y = vsoft_cap(vsplat(load1(logits, dtype, r * v + label)), cap);
        vf d = dloss * (vexp(y - lse) - 1.0f);
        if (cap > 0)
            d *= 1.0f - (y / cap) * (y / cap);
        at_label = d[0];
    }
    for (int64_t i = 0; i < v; i += VW) {
        vf d = {0};
        if (label >= 0) {
            vf y = vsoft_cap(vget_n(logits, dtype, r * v + i, v - i, 0), cap);
            d = dloss * vexp_down(y - lse); /* no subnormals, which are slow */
            if (cap > 0)
                d *= 1.0f - (y / cap) * (y / cap);
        }
        vput_n(to, dtype_to, r * v + i, v - i, d);
    }
    if (label >= 0)
        store1(to, dtype_to, r * v + label, at_label);
}

AM_INLINE void cross_entropy_row(const am_cross_entropy_args *args, int dtype, int64_t r)
{
    int64_t v = args->v, label = label_at(args->labels, args->dtype_labels, r);
    float cap = (float)args->softcap;
    float max = row_max(args->logits, dtype, r * v, v, cap);
    double sum = row_exp_sum(args->logits, dtype, r * v, v, cap, max);
    double lse = (double)max + log(sum), loss = 0;
    if (label == args->ignore) {
        label = -1;
    } else {
        vf x = vsoft_cap(vsplat(load1(args->logits, dtype, r * v + label)), cap);
        loss = lse - (double)x[0];
    }
    ((float *)args->lse)[r] = (float)lse;
    ((float *)args->loss)[r] = (float)loss;
    if (args->dlogits)
        AM_WITH_DTYPE(
            To, args->dtype_dlogits,
            dlogits_row(args->dlogits, To, args->logits, dtype, r, v, label, cap, (float)lse, 1))
}

int AM_SIMD(cross_entropy)(am_stream *s, const am_cross_entropy_args *args)
{
    if (!is_simd_float(args->dtype) || (args->dlogits && !is_simd_float(args->dtype_dlogits)) ||
        (args->dtype_labels != AM_I32 && args->dtype_labels != AM_I64))
        return am_ref_cross_entropy(s, args);
    int rc = check_labels(args->labels, args->dtype_labels, args->rows, args->ignore, args->v);
    if (rc != AM_OK)
        return rc;
#pragma omp parallel for num_threads(team(args->rows * args->v)) schedule(static)
    for (int64_t r = 0; r < args->rows; r++)
        AM_WITH_DTYPE(T, args->dtype, cross_entropy_row(args, T, r))
    return AM_OK;
}

AM_INLINE void cross_entropy_bwd_row(const am_cross_entropy_bwd_args *args, int dtype, int64_t r)
{
    int64_t label = label_at(args->labels, args->dtype_labels, r);
    dlogits_row(args->dlogits, dtype, args->logits, dtype, r, args->v,
                label == args->ignore ? -1 : label, (float)args->softcap,
                ((const float *)args->lse)[r], *(const float *)args->dloss);
}

int AM_SIMD(cross_entropy_bwd)(am_stream *s, const am_cross_entropy_bwd_args *args)
{
    if (!is_simd_float(args->dtype) ||
        (args->dtype_labels != AM_I32 && args->dtype_labels != AM_I64))
        return am_ref_cross_entropy_bwd(s, args);
    int rc = check_labels(args->labels, args->dtype_labels, args->rows, args->ignore, args->v);
    if (rc != AM_OK)
        return rc;
#pragma omp parallel for num_threads(team(args->rows * args->v)) schedule(static)
    for (int64_t r = 0; r < args->rows; r++)
        AM_WITH_DTYPE(T, args->dtype, cross_entropy_bwd_row(args, T, r))
    return AM_OK;
}
