/* op_check.c — see op_check.h. */
#include "op_check.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dtype.h"

/* ---- against another device --------------------------------------------------------------- */

const case_dtype case_dtypes[CASE_DTYPES] = {{AM_F32, {4e-6, 1, 1e-30}},
                                             {AM_BF16, {0x1p-7, 0.25, 1e-30}},
                                             {AM_F16, {0x1p-10, 0.25, 1e-7}},
                                             {AM_F64, {1e-12, 1, 1e-30}}};

static void compare_shapes(const char *what, const run_result *r, const run_result *want)
{
    ck_assert_msg(r->dtype == want->dtype, "%s: dtype %s, expected %s", what,
                  am_dtype_name(r->dtype), am_dtype_name(want->dtype));
    ck_assert_msg(r->ndim == want->ndim &&
                      memcmp(r->shape, want->shape, (size_t)r->ndim * sizeof *r->shape) == 0,
                  "%s: another shape", what);
}

void check_agrees(const op_case *c, const char *how, const run_result *r, const run_result *want,
                  tolerance tol)
{
    char what[400];
    snprintf(what, sizeof what, "%s %s: output", case_text(c), how);
    compare_shapes(what, r, want);
    check_close(what, r->out, want->out, want->n, tol);
    /* Gradients that are zero but for rounding (a softmax over one key) are judged by the others'.
     */
    for (int i = 0; i < r->n_in; i++)
        for (int64_t k = 0; want->grad[i] && k < want->n_grad[i]; k++)
            if (isfinite(want->grad[i][k]))
                tol.floor_abs = fmax(tol.floor_abs, 0.1 * fabs(want->grad[i][k]));
    for (int i = 0; i < r->n_in; i++) {
        snprintf(what, sizeof what, "%s %s: gradient of input %d", case_text(c), how, i + 1);
        ck_assert_msg(!r->grad[i] == !want->grad[i], "%s: there on one side only", what);
        if (r->grad[i])
            check_close(what, r->grad[i], want->grad[i], want->n_grad[i], tol);
    }
    if (c->op == AM_OP_dropout)
        for (int64_t i = 0; i < r->n; i++)
            ck_assert_msg((r->out[i] == 0) == (want->out[i] == 0), "%s: another mask", what);
}

void check_bits(const op_case *c, const char *how, const run_result *r, const run_result *want)
{
    char what[400];
    snprintf(what, sizeof what, "%s %s: output", case_text(c), how);
    compare_shapes(what, r, want);
    size_t bytes = (size_t)r->n * (size_t)am_dtype_size(r->dtype);
    ck_assert_msg(memcmp(r->bits, want->bits, bytes) == 0, "%s: other bits", what);
    for (int i = 0; i < r->n_in; i++) {
        snprintf(what, sizeof what, "%s %s: gradient of input %d", case_text(c), how, i + 1);
        ck_assert_msg(!r->grad[i] == !want->grad[i], "%s: there on one side only", what);
        if (r->grad[i])
            ck_assert_msg(
                memcmp(r->grad[i], want->grad[i], (size_t)r->n_grad[i] * sizeof *r->grad[i]) == 0,
                "%s: other bits", what);
    }
}

tolerance case_tolerance(const op_case *c, int d)
{
    tolerance t = case_dtypes[d].tol;
    if (c->op == AM_OP_attention && case_dtypes[d].dtype == AM_BF16)
        t = (tolerance){0x1p-6, 1, t.floor_abs};
    if (c->op == AM_OP_attention && case_dtypes[d].dtype == AM_F16)
        t = (tolerance){0x1p-9, 1, t.floor_abs};
    return t;
}

/* ---- against differences ------------------------------------------------------------------ */

static const double h = 1e-3;
const tolerance by_difference = {1e-6, 1e-2, 1e-3};
/* Sums may be added up in another order. */
static const tolerance same = {1e-12, 1, 1e-12};

static double scalar(const op_case *c, const case_values *values, run_opts o)
{
    run_result r;
    double sum = 0;
    o.wants = 0;
    o.computed = o.applies = o.backwards = 0;
    ck_assert_int_eq(case_run(c, values, &o, &r), AM_OK);
    for (int64_t i = 0; i < r.n; i++)
        sum += r.out[i] * out_weight(i);
    run_result_free(&r);
    return sum;
}

static double difference(const op_case *c, case_values *values, const run_opts *o, double *x)
{
    double x0 = *x, f[4];
    const double steps[] = {-2 * h, -h, h, 2 * h};
    for (int k = 0; k < 4; k++) {
        *x = x0 + steps[k];
        f[k] = scalar(c, values, *o);
    }
    *x = x0;
    return (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * h);
}

/* Looking up the padding row gives it no gradient, though the output depends on it. */
static int padding_row(const op_case *c, int input, int64_t element)
{
    return c->op == AM_OP_embedding &&
           element / c->in[input].shape[1] == c->attrs.embedding.padding_idx;
}

/* Gradients of all inputs asked for against differences; of larger inputs at some `most` elements,
 * spread evenly. */
static void against_differences(const op_case *c, case_values *values, const run_opts *o, int most,
                                const run_result *r, const char *how)
{
    char what[400];
    for (int i = 0; i < r->n_in; i++) {
        if (!(o->wants >> i & 1) || (o->shared && o->shared_with == i))
            continue;
        snprintf(what, sizeof what, "%s%s: gradient of input %d", case_text(c), how, i + 1);
        ck_assert_msg(r->grad[i] != NULL, "%s: there is none", what);
        ck_assert_msg(r->n_grad[i] == values->n[i], "%s: wrong size", what);
        int64_t n = values->n[i], step = n > most ? (n / most) | 1 : 1, m = 0; /* no column alone */
        double *got = malloc(((size_t)n + 1) * sizeof *got);
        double *want = malloc(((size_t)n + 1) * sizeof *want);
        for (int64_t j = 0; j < n; j += step) {
            got[m] = r->grad[i][j];
            want[m++] = padding_row(c, i, j) ? 0 : difference(c, values, o, &values->v[i][j]);
        }
        check_close(what, got, want, m, by_difference);
        free(got);
        free(want);
    }
}

/* Gradients against another run's, times a factor. */
static void against_run(const op_case *c, const run_result *r, const run_result *base,
                        unsigned wants, double factor, const char *how)
{
    char what[400];
    for (int i = 0; i < r->n_in; i++) {
        if (!(wants >> i & 1)) {
            ck_assert_msg(r->grad[i] == NULL, "%s%s: input %d got a gradient", case_text(c), how,
                          i + 1);
            continue;
        }
        snprintf(what, sizeof what, "%s%s: gradient of input %d", case_text(c), how, i + 1);
        ck_assert_msg(r->grad[i] != NULL, "%s: there is none", what);
        double *want = malloc(((size_t)base->n_grad[i] + 1) * sizeof *want);
        for (int64_t j = 0; j < base->n_grad[i]; j++)
            want[j] = base->grad[i][j] * factor;
        check_close(what, r->grad[i], want, base->n_grad[i], same);
        free(want);
    }
}

static void variation(const op_case *c, const case_values *values, const run_result *base,
                      const run_opts *o, double factor, const char *how)
{
    run_result r;
    ck_assert_int_eq(case_run(c, values, o, &r), AM_OK);
    check_close(how, r.out, base->out, base->n, same);
    against_run(c, &r, base, o->wants, factor, how);
    run_result_free(&r);
}

static void variations(const op_case *c, const case_values *values, unsigned wants,
                       const run_result *base, int device)
{
    run_opts all = {.device = device, .dtype = AM_F64, .wants = wants}, o;
    for (int layout = 1; layout < LAYOUT_COUNT; layout++) {
        o = all;
        o.layout = layout;
        variation(c, values, base, &o, 1,
                  layout == LAYOUT_GAPS ? " with gaps" : " stored transposed");
    }
    for (int i = 0; i < CASE_INPUTS; i++)
        if (wants >> i & 1) {
            o = all;
            o.wants = 1u << i;
            variation(c, values, base, &o, 1, " for one input");
        }
    o = all;
    o.computed = 1;
    variation(c, values, base, &o, 1, " of computed inputs");
    o.applies = 2;
    variation(c, values, base, &o, 2, " of computed inputs, applied twice");
    o.computed = 0;
    variation(c, values, base, &o, 2, " applied twice");
    o.applies = 1;
    o.backwards = 2;
    variation(c, values, base, &o, 2, " after two backwards");
}

static int same_input(const op_input *a, const op_input *b)
{
    return a->kind == b->kind && a->ndim == b->ndim &&
           memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

/* One tensor as two inputs: its gradient is the sum of both. */
static void shared_inputs(const op_case *c, case_values *values, unsigned wants, int device,
                          int most)
{
    for (int i = 0; i < CASE_INPUTS; i++)
        for (int j = i + 1; j < CASE_INPUTS; j++) {
            if (!(wants >> i & 1) || !(wants >> j & 1) || !same_input(&c->in[i], &c->in[j]))
                continue;
            run_opts o = {.device = device,
                          .dtype = AM_F64,
                          .wants = wants,
                          .shared = i + 1,
                          .shared_with = j};
            for (o.computed = 0; o.computed < 2; o.computed++) {
                run_result r;
                ck_assert_int_eq(case_run(c, values, &o, &r), AM_OK);
                against_differences(c, values, &o, most, &r,
                                    o.computed ? " of a computed tensor in two places"
                                               : " of a tensor in two places");
                run_result_free(&r);
            }
        }
}

/* Gradients of a cast to a narrower dtype can't be had from differences, and those of operands that
 * are cast to 8 bits neither: torchao's are their oracle (tests/parity/fp8_spec.lua). */
static int smooth(const op_case *c)
{
    return !(c->flags & CASE_BIG) && c->op != AM_OP_fp8_linear &&
           (c->op != AM_OP_cast || c->attrs.cast.dtype == AM_F64);
}

int check_gradients(const op_case *c, int device, int most)
{
    unsigned wants = case_differentiable(c);
    if (!wants || c->flags & CASE_BIG)
        return AM_OK;
    case_values values;
    case_fill(c, AM_F64, &values);
    run_opts o = {.device = device, .dtype = AM_F64, .wants = wants};
    run_result base;
    int rc = case_run(c, &values, &o, &base);
    if (rc == AM_OK) {
        if (smooth(c)) {
            against_differences(c, &values, &o, most, &base, "");
            shared_inputs(c, &values, wants, device, most);
        }
        variations(c, &values, wants, &base, device);
    }
    run_result_free(&base);
    case_values_free(&values);
    return rc;
}
