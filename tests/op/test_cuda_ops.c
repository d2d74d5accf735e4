/* test_cuda_ops.c — device "cuda" against `ref`: outputs and gradients of every case, in every
 * floating dtype and layout, with the tolerances of op_check.h; gradients against finite
 * differences, too. The backend is the module that AMLUA_CUDA names: the CUDA backend's own code
 * over an emulated GPU (tests/cuda), or on a GPU. Without it everything counts as skipped. */
#include <string.h>

#include "cuda_suite.h"
#include "op_check.h"

static int ref, device;

static void setup(void)
{
    ck_assert_int_eq(am_device_find(&ref, "ref"), AM_OK);
    ck_assert_msg(am_device_find(&device, "cuda") == AM_OK, "%s", am_error_message());
}

/* A kernel that the backend does not have: one line a test, as tests/run.sh counts them. One that
 * does not do a case's dtype is a failure. */
static void skip(const char *what, const op_case *c, const char *dtype)
{
    static int said; /* of this test: each is a process */
    ck_assert_msg(strstr(am_error_message(), "has no kernel") != NULL, "%s: %s", case_text(c),
                  am_error_message());
    if (!said++)
        printf("SKIP %s of %s in %s: %s\n", what, case_text(c), dtype, am_error_message());
    fflush(stdout);
}

/* Rows added up by index: ref rounds after each of them, the kernel once. Up to seven fall on a row
 * of the cases: 2^-6 of the largest in bf16, 2^-9 in f16. */
static tolerance tolerance_of(const op_case *c, int d)
{
    tolerance t = case_tolerance(c, d);
    int adds = c->op == AM_OP_index_add || c->op == AM_OP_index_select || c->op == AM_OP_embedding;
    if (adds && (case_dtypes[d].dtype == AM_BF16 || case_dtypes[d].dtype == AM_F16))
        t = (tolerance){2 * t.rel, 1, t.floor_abs};
    return t;
}

static void check_case(const op_case *c, int d)
{
    char how[128];
    case_values values;
    run_result want, r, again;
    int dtype = case_dtypes[d].dtype;
    case_fill(c, dtype, &values);
    run_opts o = {.device = ref, .dtype = dtype, .wants = case_differentiable(c)};
    ck_assert_int_eq(case_run(c, &values, &o, &want), AM_OK);
    o.device = device;
    for (o.layout = 0; o.layout < (other_order() ? 1 : LAYOUT_COUNT); o.layout++) {
        snprintf(how, sizeof how, "in %s on cuda, layout %d", am_dtype_name(dtype), o.layout);
        int rc = case_run(c, &values, &o, &r);
        if (rc == AM_EUNSUP) {
            skip("agreement", c, am_dtype_name(dtype));
            run_result_free(&r);
            break;
        }
        ck_assert_msg(rc == AM_OK, "%s %s: %s", case_text(c), how, am_error_message());
        check_agrees(c, how, &r, &want, tolerance_of(c, d));
        if (o.layout == LAYOUT_DENSE) {
            ck_assert_int_eq(case_run(c, &values, &o, &again), AM_OK);
            check_bits(c, "again", &again, &r);
            run_result_free(&again);
        }
        run_result_free(&r);
    }
    run_result_free(&want);
    case_values_free(&values);
}

START_TEST(agree)
{
    setup();
    for (int k = 0; case_at(k); k++)
        for (int d = 0; case_at(k)->op == _i && d < CASE_DTYPES; d++)
            check_case(case_at(k), d);
}
END_TEST

START_TEST(gradients)
{
    setup();
    /* Elements of an input: each costs four emulated runs, and agreement with ref, whose gradients
     * are compared with differences in more elements, covers the others. */
    const int most = other_order() ? 3 : 8;
    for (int k = 0; case_at(k); k++)
        if (case_at(k)->op == _i && check_gradients(case_at(k), device, most) == AM_EUNSUP)
            skip("gradient", case_at(k), "float64");
}
END_TEST

/* A test case for each op, so that CK_RUN_CASE chooses one. */
int main(void)
{
    static cuda_test tests[2 * AM_OP_COUNT];
    for (int op = 0; op < AM_OP_COUNT; op++) {
        tests[2 * op] = (cuda_test){am_op_name(op), agree, op, op + 1};
        tests[2 * op + 1] = (cuda_test){am_op_name(op), gradients, op, op + 1};
    }
    return run_on_cuda("cuda ops", tests, sizeof tests / sizeof *tests);
}
