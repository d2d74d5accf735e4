/* test_op_gradients.c — every op's gradient against finite differences, in f64 on `ref`
 * (op_check.h). */
#include <check.h>
#include <math.h>

#include "op_check.h"

static int ref;

static void setup(void)
{
    ck_assert_int_eq(am_device_find(&ref, "ref"), AM_OK);
}

START_TEST(gradients)
{
    int seen = 0;
    for (int k = 0; case_at(k); k++)
        if (case_at(k)->op == _i) {
            seen++;
            ck_assert_int_eq(check_gradients(case_at(k), ref, 64), AM_OK);
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
