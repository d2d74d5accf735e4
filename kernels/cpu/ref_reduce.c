/* ref_reduce.c — reference kernels: reductions, softmax, running sums, orders, gather and their
 * gradients. */
#include "ref.h"

/* ---- reductions -------------------------------------------------------------------------- */

/* NaN counts as the extreme, as in PyTorch. */
AM_INLINE int beats(int op, double x, double best)
{
    if (best != best)
        return 0;
    return x != x || (op == AM_R_MIN || op == AM_R_ARGMIN ? x < best : x > best);
}

AM_INLINE int reduce_float(const am_reduce_args *args, int dtype)
{
    for (int64_t o = 0; o < args->outer; o++) {
        for (int64_t i = 0; i < args->inner; i++) {
            int64_t first = o * args->n * args->inner + i, best_at = 0;
            double sum = 0, product = 1, best = 0;
            for (int64_t j = 0; j < args->n; j++) {
                double x = load(args->a, dtype, first + j * args->inner);
                sum += x;
                product *= x;
                if (j == 0 || beats(args->op, x, best)) {
                    best = x;
                    best_at = j;
                }
            }
            int64_t at = o * args->inner + i;
            if (args->op >= AM_R_ARGMAX) {
                ((int64_t *)args->out)[at] = best_at;
                continue;
            }
            double v = args->op == AM_R_SUM    ? sum * args->scale
                       : args->op == AM_R_PROD ? product
                                               : best;
            if (args->op == AM_R_LOGSUMEXP && isfinite(best)) {
                sum = 0;
                for (int64_t j = 0; j < args->n; j++)
                    sum += exp(load(args->a, dtype, first + j * args->inner) - best);
                v = best + log(sum);
            }
            if (args->accumulate)
                v += load(args->out, args->dtype_out, at);
            store(args->out, args->dtype_out, at, v);
        }
    }
    return AM_OK;
}

static int reduce_int(const am_reduce_args *args)
{
    if (args->op == AM_R_LOGSUMEXP)
        return AM_EUNSUP;
    for (int64_t o = 0; o < args->outer; o++) {
        for (int64_t i = 0; i < args->inner; i++) {
            int64_t first = o * args->n * args->inner + i, best_at = 0, best = 0;
            uint64_t sum = 0, product = 1;
            for (int64_t j = 0; j < args->n; j++) {
                int64_t x = load_int(args->a, args->dtype, first + j * args->inner);
                sum += (uint64_t)x;
                product *= (uint64_t)x;
                if (j == 0 ||
                    (args->op == AM_R_MIN || args->op == AM_R_ARGMIN ? x < best : x > best)) {
                    best = x;
                    best_at = j;
                }
            }
            int64_t at = o * args->inner + i;
            int64_t v = args->op == AM_R_SUM      ? (int64_t)sum
                        : args->op == AM_R_PROD   ? (int64_t)product
                        : args->op >= AM_R_ARGMAX ? best_at
                                                  : best;
            int to = args->op == AM_R_MAX || args->op == AM_R_MIN ? args->dtype_out : AM_I64;
            if (args->accumulate)
                v = (int64_t)((uint64_t)v + (uint64_t)load_int(args->out, to, at));
            store_int(args->out, to, at, v);
        }
    }
    return AM_OK;
}

int am_ref_reduce(am_stream *s, const am_reduce_args *args)
{
    (void)s;
    if (args->op < 0 || args->op >= AM_R_COUNT)
        return AM_EUNSUP;
    if (!is_float(args->dtype))
        return reduce_int(args);
    if (args->op < AM_R_ARGMAX && !is_float(args->dtype_out))
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, reduce_float, args)
}

AM_INLINE int reduce_bwd_float(const am_reduce_bwd_args *args, int dtype)
{
    for (int64_t o = 0; o < args->outer; o++) {
        for (int64_t i = 0; i < args->inner; i++) {
            int64_t at = o * args->inner + i, first = o * args->n * args->inner + i;
            double dout = load(args->dout, dtype, at);
            double out = args->op == AM_R_SUM ? 0 : load(args->out, dtype, at);
            double ties = 0, zeros = 0, product = 1; /* of the others */
            for (int64_t j = 0; args->op == AM_R_PROD && j < args->n; j++) {
                double x = load(args->a, dtype, first + j * args->inner);
                zeros += x == 0;
                product *= x == 0 ? 1 : x;
            }
            if (args->op == AM_R_MAX || args->op == AM_R_MIN)
                for (int64_t j = 0; j < args->n; j++)
                    ties += load(args->a, dtype, first + j * args->inner) == out;
            for (int64_t j = 0; j < args->n; j++) {
                int64_t k = first + j * args->inner;
                double d;
                if (args->op == AM_R_SUM)
                    d = dout * args->scale;
                else if (args->op == AM_R_LOGSUMEXP) /* softmax; 0 where all are -inf */
                    d = out == -INFINITY ? 0 : dout * exp(load(args->a, dtype, k) - out);
                else if (args->op == AM_R_PROD && zeros == 0)
                    d = dout * (product / load(args->a, dtype, k));
                else if (args->op == AM_R_PROD)
                    d = zeros == 1 && load(args->a, dtype, k) == 0 ? dout * product : 0;
                else
                    d = load(args->a, dtype, k) == out ? dout / ties : 0;
                store(args->da, dtype, k, d);
            }
        }
    }
    return AM_OK;
}

int am_ref_reduce_bwd(am_stream *s, const am_reduce_bwd_args *args)
{
    (void)s;
    if (args->op < 0 || args->op > AM_R_PROD)
        return AM_EUNSUP;
    AM_DISPATCH_FLOAT(args->dtype, reduce_bwd_float, args)
}

/* ---- softmax ----------------------------------------------------------------------------- */

AM_INLINE int softmax_float(const am_softmax_args *args, int dtype)
{
    for (int64_t o = 0; o < args->outer; o++) {
        for (int64_t i = 0; i < args->inner; i++) {
            int64_t first = o * args->n * args->inner + i;
            double max = -INFINITY, sum = 0;
            for (int64_t j = 0; j < args->n; j++) {
                double x = load(args->a, dtype, first + j * args->inner);
                max = x > max ? x : max;
            }
            for (int64_t j = 0; j < args->n; j++)
                sum += exp(load(args->a, dtype, first + j * args->inner) - max);
            for (int64_t j = 0; j < args->n; j++) {
                int64_t k = first + j * args->inner;
                double x = load(args->a, dtype, k) - max;
                store(args->out, dtype, k, args->log ? x - log(sum) : exp(x) / sum);
            }
        }
    }
    return AM_OK;
}

int am_ref_softmax(am_stream *s, const am_softmax_args *args)
{
    (void)s;
    AM_DISPATCH_FLOAT(args->dtype, softmax_float, args)
}

/* softmax: da = out (dout - sum dout out); its logarithm: da = dout - e^out sum dout */
AM_INLINE int softmax_bwd_float(const am_softmax_bwd_args *args, int dtype)
{
    for (int64_t o = 0; o < args->outer; o++) {
        for (int64_t i = 0; i < args->inner; i++) {
            int64_t first = o * args->n * args->inner + i;
            double sum = 0;
            for (int64_t j = 0; j < args->n; j++) {
                int64_t k = first + j * args->inner;
                double out = args->log ? 1.0 : load(args->out, dtype, k);
                sum += load(args->dout, dtype, k) * out;
            }
            for (int64_t j = 0; j < args->n; j++) {
                int64_t k = first + j * args->inner;
                double dout = load(args->dout, dtype, k), out = load(args->out, dtype, k);
                store(args->da, dtype, k, args->log ? dout - exp(out) * sum : out * (dout - sum));
            }
        }
    }
    return AM_OK;
}

int am_ref_softmax_bwd(am_stream *s, const am_softmax_bwd_args *args)
{
    (void)s;
    AM_DISPATCH_FLOAT(args->dtype, softmax_bwd_float, args)
}

/* ---- running sums and orders -------------------------------------------------------------- */

int am_ref_cumsum(am_stream *s, const am_cumsum_args *args)
{
    (void)s;
    int whole = !is_float(args->dtype);
    if (whole ? args->dtype_out != AM_I64 : !is_float(args->dtype_out))
        return AM_EUNSUP;
    for (int64_t o = 0; o < args->outer; o++) {
        for (int64_t i = 0; i < args->inner; i++) {
            double sum = 0;
            uint64_t whole_sum = 0;
            for (int64_t j = 0; j < args->n; j++) {
                int64_t row = o * args->n + (args->reverse ? args->n - 1 - j : j);
                int64_t at = row * args->inner + i;
                if (whole) {
                    whole_sum += (uint64_t)load_int(args->a, args->dtype, at);
                    ((int64_t *)args->out)[at] = (int64_t)whole_sum;
                } else {
                    sum += load(args->a, args->dtype, at);
                    store(args->out, args->dtype_out, at, sum);
                }
            }
        }
    }
    return AM_OK;
}

/* Does element x come before y? */
AM_INLINE int before(const am_argsort_args *args, int dtype, int64_t x, int64_t y)
{
    if (args->descending) {
        int64_t swapped = x;
        x = y;
        y = swapped;
    }
    if (!is_float(dtype))
        return load_int(args->a, dtype, x) < load_int(args->a, dtype, y);
    double vx = load(args->a, dtype, x), vy = load(args->a, dtype, y);
    return vx < vy || (vx == vx && vy != vy);
}

/* Merge sort of indices, from runs of one upwards. */
AM_INLINE int argsort_rows(const am_argsort_args *args, int dtype)
{
    int64_t n = args->n, inner = args->inner, *out = args->out;
    int64_t *from = am_scratch(0, 2 * (size_t)n * sizeof *from);
    if (!from)
        return am_kernel_fail(AM_ENOMEM, "argsort: out of memory for %lld indices", (long long)n);
    int64_t *to = from + n;
    for (int64_t o = 0; o < args->outer; o++) {
        for (int64_t i = 0; i < inner; i++) {
            int64_t first = o * n * inner + i;
            for (int64_t j = 0; j < n; j++)
                from[j] = j;
            for (int64_t width = 1; width < n; width *= 2) {
                for (int64_t k = 0; k < n;) {
                    int64_t l = k, middle = k + width < n ? k + width : n, r = middle;
                    int64_t end = middle + width < n ? middle + width : n;
                    for (; k < end; k++) {
                        int right =
                            l == middle || (r < end && before(args, dtype, first + from[r] * inner,
                                                              first + from[l] * inner));
                        to[k] = right ? from[r++] : from[l++];
                    }
                }
                int64_t *swapped = from;
                from = to;
                to = swapped;
            }
            for (int64_t j = 0; j < n; j++)
                out[first + j * inner] = from[j];
        }
    }
    return AM_OK;
}

int am_ref_argsort(am_stream *s, const am_argsort_args *args)
{
    (void)s;
    if (!is_float(args->dtype))
        return argsort_rows(args, args->dtype);
    AM_DISPATCH_FLOAT(args->dtype, argsort_rows, args)
}

/* ---- gather ------------------------------------------------------------------------------ */

static int bad_index(const char *kernel, int64_t index, int64_t n)
{
    return am_kernel_fail(AM_EINVAL, "%s: index %lld is outside 0..%lld", kernel, (long long)index,
                          (long long)(n - 1));
}

int am_ref_gather(am_stream *s, const am_gather_args *args)
{
    (void)s;
    if (args->dtype_index != AM_I32 && args->dtype_index != AM_I64)
        return AM_EUNSUP;
    int64_t inner = args->inner, m = args->m;
    for (int64_t o = 0; o < args->outer; o++) {
        for (int64_t j = 0; j < m; j++) {
            for (int64_t i = 0; i < inner; i++) {
                int64_t at = (o * m + j) * inner + i;
                int64_t from = load_int(args->index, args->dtype_index, args->per_element ? at : j);
                if (from < 0 || from >= args->n)
                    return bad_index("gather", from, args->n);
                int64_t source = (o * args->n + from) * inner + i;
                if (is_float(args->dtype))
                    store(args->out, args->dtype, at, load(args->a, args->dtype, source));
                else
                    store_int(args->out, args->dtype, at, load_int(args->a, args->dtype, source));
            }
        }
    }
    return AM_OK;
}

int am_ref_gather_bwd(am_stream *s, const am_gather_bwd_args *args)
{
    (void)s;
    if (args->dtype_index != AM_I32 && args->dtype_index != AM_I64)
        return AM_EUNSUP;
    int whole = !is_float(args->dtype);
    if (whole ? args->dtype_da != args->dtype : !is_float(args->dtype_da))
        return AM_EUNSUP;
    int64_t inner = args->inner, m = args->m;
    for (int64_t o = 0; o < args->outer; o++) {
        for (int64_t j = 0; j < m; j++) {
            for (int64_t i = 0; i < inner; i++) {
                int64_t at = (o * m + j) * inner + i;
                int64_t to = load_int(args->index, args->dtype_index, args->per_element ? at : j);
                if (to < 0 || to >= args->n)
                    return bad_index("gather_bwd", to, args->n);
                if (args->has_padding && to == args->padding)
                    continue;
                int64_t target = (o * args->n + to) * inner + i;
                if (whole)
                    store_int(args->da, args->dtype, target,
                              (int64_t)((uint64_t)load_int(args->da, args->dtype, target) +
                                        (uint64_t)load_int(args->dout, args->dtype, at)));
                else
                    store(args->da, args->dtype_da, target,
                          load(args->da, args->dtype_da, target) +
                              load(args->dout, args->dtype, at));
            }
        }
    }
    return AM_OK;
}
