/* test_op_gradients.c — every op's gradient against finite differences, in f64 on `ref`.
 *
 * The scalar is the sum of the outputs times fixed weights. Differences are central of fourth order
 * with h = 1e-3: (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h, whose own error is about 1e-12.
 * A gradient may be off by 1e-6 of the larger of itself, a hundredth of its tensor's largest, and
 * 1e-3.
 *
 * The same case is run again with other layouts, each input alone requiring grad, computed inputs,
 * two applications before one backward, two backwards into the same gradients, and one tensor in
 * two places; these must give the same numbers (times two where they add up). */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op_run.h"

static const double h = 1e-3;
static const tolerance by_difference = {1e-6, 1e-2, 1e-3};
/* Sums may be added up in another order. */
static const tolerance same = {1e-12, 1, 1e-12};
enum { EACH_UP_TO = 64 }; /* of larger inputs, so many elements, spread evenly */

static int ref;

static void setup(void)
{
    ck_assert_int_eq(am_device_find(&ref, "ref"), AM_OK);
}

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

/* Gradients of all inputs asked for against differences. */
static void against_differences(const op_case *c, case_values *values, const run_opts *o,
                                const run_result *r, const char *how)
{
    char what[400];
    for (int i = 0; i < r->n_in; i++) {
        if (!(o->wants >> i & 1) || (o->shared && o->shared_with == i))
            continue;
        snprintf(what, sizeof what, "%s%s: gradient of input %d", case_text(c), how, i + 1);
        ck_assert_msg(r->grad[i] != NULL, "%s: there is none", what);
        ck_assert_msg(r->n_grad[i] == values->n[i], "%s: wrong size", what);
        int64_t n = values->n[i], step = n > EACH_UP_TO ? n / EACH_UP_TO : 1, m = 0;
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
                       const run_result *base)
{
    run_opts all = {.device = ref, .dtype = AM_F64, .wants = wants}, o;
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
static void shared_inputs(const op_case *c, case_values *values, unsigned wants)
{
    for (int i = 0; i < CASE_INPUTS; i++)
        for (int j = i + 1; j < CASE_INPUTS; j++) {
            if (!(wants >> i & 1) || !(wants >> j & 1) || !same_input(&c->in[i], &c->in[j]))
                continue;
            run_opts o = {
                .device = ref, .dtype = AM_F64, .wants = wants, .shared = i + 1, .shared_with = j};
            for (o.computed = 0; o.computed < 2; o.computed++) {
                run_result r;
                ck_assert_int_eq(case_run(c, values, &o, &r), AM_OK);
                against_differences(c, values, &o, &r,
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

START_TEST(gradients)
{
    int seen = 0;
    for (int k = 0; case_at(k); k++) {
        const op_case *c = case_at(k);
        if (c->op != _i)
            continue;
        seen++;
        unsigned wants = case_differentiable(c);
        if (!wants || c->flags & CASE_BIG)
            continue;
        case_values values;
        case_fill(c, AM_F64, &values);
        run_opts o = {.device = ref, .dtype = AM_F64, .wants = wants};
        run_result base;
        ck_assert_int_eq(case_run(c, &values, &o, &base), AM_OK);
        if (smooth(c)) {
            against_differences(c, &values, &o, &base, "");
            shared_inputs(c, &values, wants);
        }
        variations(c, &values, wants, &base);
        run_result_free(&base);
        case_values_free(&values);
    }
    ck_assert_msg(seen > 0, "op %s has no case in tests/op", am_op_name(_i));
}
END_TEST

/* A comparer that lets NaN through would let everything through. */
START_TEST(comparer)
{
    double good[] = {1, 1e-3, 0, INFINITY}, bad[] = {1, 1e-3, 0, INFINITY};
    ck_assert_int_eq(first_off(bad, good, 4, by_difference), -1);
    bad[1] = 1e-3 + 2e-8; /* the floor here is a hundredth of 1 */
    ck_assert_int_eq(first_off(bad, good, 4, by_difference), 1);
    bad[1] = NAN;
    ck_assert_int_eq(first_off(bad, good, 4, by_difference), 1);
    ck_assert_int_eq(first_off(good, bad, 4, by_difference), 1);
    ck_assert_int_eq(first_off(bad, bad, 4, by_difference), 1);
    bad[1] = good[1];
    bad[3] = -INFINITY;
    ck_assert_int_eq(first_off(bad, good, 4, by_difference), 3);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("op gradients");
    TCase *t = tcase_create("differences");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, gradients, 0, AM_OP_COUNT);
    suite_add_tcase(s, t);
    t = tcase_create("comparer");
    tcase_add_test(t, comparer);
    suite_add_tcase(s, t);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
