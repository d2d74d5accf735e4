/* test_op_backends.c — every backend that is linked in against `ref`: outputs and gradients of
 * every case, in every floating dtype and with strided inputs. Tolerances are op_check.h's. `fence`
 * runs ref's kernels, so it must agree bit for bit. Results must not depend on the number of
 * threads, nor a row's on the rows beside it: bit for bit, too. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "op_check.h"

static int ref, fence, cpu;

static void setup(void)
{
    ck_assert_int_eq(am_device_find(&ref, "ref"), AM_OK);
    ck_assert_int_eq(am_device_find(&fence, "fence"), AM_OK);
    ck_assert_int_eq(am_device_find(&cpu, "cpu"), AM_OK);
}

/* One case in one dtype. */
static void check_case(const op_case *c, int dtype, tolerance tol)
{
    char how[128];
    case_values values;
    run_result want, r;
    case_fill(c, dtype, &values);
    run_opts o = {.device = ref, .dtype = dtype, .wants = case_differentiable(c)};
    ck_assert_int_eq(case_run(c, &values, &o, &want), AM_OK);

    snprintf(how, sizeof how, "in %s on fence", am_dtype_name(dtype));
    o.device = fence;
    ck_assert_int_eq(case_run(c, &values, &o, &r), AM_OK);
    check_bits(c, how, &r, &want);
    run_result_free(&r);

    o.device = cpu;
    for (o.layout = 0; o.layout < LAYOUT_COUNT; o.layout++) {
        snprintf(how, sizeof how, "in %s on cpu, layout %d", am_dtype_name(dtype), o.layout);
        am_threads_set(2);
        int rc = case_run(c, &values, &o, &r);
        if (rc == AM_EUNSUP && dtype == AM_F16)
            break; /* the one dtype a backend may leave out */
        ck_assert_msg(rc == AM_OK, "%s %s: %s", case_text(c), how, am_error_message());
        check_agrees(c, how, &r, &want, tol);
        if (o.layout == LAYOUT_DENSE) {
            run_result other;
            for (int threads = 1; threads <= 3; threads += 2) {
                am_threads_set(threads);
                ck_assert_int_eq(case_run(c, &values, &o, &other), AM_OK);
                check_bits(c, "with another number of threads", &other, &r);
                run_result_free(&other);
            }
        }
        run_result_free(&r);
    }
    run_result_free(&want);
    case_values_free(&values);
}

START_TEST(agree)
{
    int seen = 0;
    for (int k = 0; case_at(k); k++)
        for (int d = 0; case_at(k)->op == _i && d < CASE_DTYPES; d++, seen++)
            check_case(case_at(k), case_dtypes[d].dtype, case_tolerance(case_at(k), d));
    ck_assert_msg(seen > 0, "op %s has no case in tests/op", am_op_name(_i));
}
END_TEST

/* ---- a row's bits do not depend on the rows beside it -------------------------------------- */

/* Ops whose first input has rows, at the sizes of their largest cases. */
static const op_case rowwise[] = {
    {OPCASE(linear), .in = {N(67, 65), N(37, 65), N(37)}},
    {OPCASE(linear), .in = {N(67, 128), N(96, 128)}},
    {OPCASE(fp8_linear), .in = {N(67, 65), N(37, 65)}, .attrs = {.fp8 = {AM_FP8_ROWWISE}}},
    {OPCASE(lora_linear), .in = {N(67, 65), N(35, 65), N(8, 65), N(35, 8)},
     .attrs = {.lora = {2, 0, 0}}},
    {OPCASE(rms_norm), .in = {N(67, 131), N(131)}, .attrs = {.norm = {1e-5}}},
    {OPCASE(layer_norm), .in = {N(67, 131), N(131), N(131)}, .attrs = {.norm = {1e-5, 1}}},
    {OPCASE(softmax), .in = {N(67, 131)}, .attrs = {.dim = {1}}},
    {OPCASE(log_softmax), .in = {N(67, 131)}, .attrs = {.dim = {1}}},
    {OPCASE(sum), .in = {N(67, 131)}, .attrs = {.reduce = {1, 0}}},
    {OPCASE(logsumexp), .in = {N(67, 131)}, .attrs = {.reduce = {1, 0}}},
    {OPCASE(gelu), .in = {N(67, 131)}},
    {OPCASE(silu), .in = {N(67, 131)}},
};
enum { ROWWISE = sizeof rowwise / sizeof *rowwise };

START_TEST(rows)
{
    static const int64_t counts[] = {1, 2, 7, 16, 33, 64};
    for (int d = 0; d < 2; d++) { /* f32, bf16 */
        const op_case *all = &rowwise[_i];
        case_values values;
        run_result whole, part;
        case_fill(all, case_dtypes[d].dtype, &values);
        run_opts o = {.device = cpu, .dtype = case_dtypes[d].dtype, .wants = 1};
        ck_assert_int_eq(case_run(all, &values, &o, &whole), AM_OK);
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
            op_case fewer = *all;
            fewer.in[0].shape[0] = counts[k];
            ck_assert_int_eq(case_run(&fewer, &values, &o, &part), AM_OK);
            size_t bytes = (size_t)part.n * (size_t)am_dtype_size(part.dtype);
            ck_assert_msg(memcmp(part.bits, whole.bits, bytes) == 0,
                          "%s in %s: other bits than as a part of 67 rows", case_text(&fewer),
                          am_dtype_name(o.dtype));
            ck_assert_msg(memcmp(part.grad[0], whole.grad[0],
                                 (size_t)part.n_grad[0] * sizeof *part.grad[0]) == 0,
                          "%s in %s: other gradient bits than as a part of 67 rows",
                          case_text(&fewer), am_dtype_name(o.dtype));
            run_result_free(&part);
        }
        run_result_free(&whole);
        case_values_free(&values);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("op backends");
    TCase *t = tcase_create("agreement");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_set_timeout(t, 240);
    tcase_add_loop_test(t, agree, 0, AM_OP_COUNT);
    suite_add_tcase(s, t);
    t = tcase_create("rows");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_loop_test(t, rows, 0, ROWWISE);
    suite_add_tcase(s, t);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
