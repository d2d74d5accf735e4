/* cuda_suite.h — what the tests of device "cuda" share: its backend and stream, and a suite that
 * counts as skipped where AMLUA_CUDA names no module. */
#ifndef CUDA_SUITE_H
#define CUDA_SUITE_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/device.h"

static const am_backend *cuda;
static am_stream *cuda_stream;

static inline void open_cuda(void)
{
    int device;
    ck_assert_msg(am_device_find(&device, "cuda") == AM_OK, "%s", am_error_message());
    ck_assert_msg(am_device_open(device, &cuda, &cuda_stream) == AM_OK, "%s", am_error_message());
}

/* Another order of threads than the first, which tests/cuda/run.sh runs everything in: what has
 * nothing to do with the order need not be done again. */
static inline int other_order(void)
{
    const char *order = getenv("AM_EMU_ORDER");
    return order && strcmp(order, "fwd") != 0;
}

START_TEST(no_module)
{
    printf("SKIP AMLUA_CUDA names no module\n");
    fflush(stdout);
}
END_TEST

typedef struct cuda_test {
    const char *name; /* of its test case */
    const TTest *test;
    int first, end; /* of _i in its runs; end is not run */
} cuda_test;

/* A test case for each run of a test, so that CK_INCLUDE_TAGS chooses one: "case:test:run", as
 * Check names it. With CUDA_TESTS=list these are printed, and nothing runs. Tests from `opened` on
 * open the device themselves. */
static inline int run_on_cuda_opened(const char *name, const cuda_test *tests, int count,
                                     int opened)
{
    const char *list = getenv("CUDA_TESTS");
    Suite *suite = suite_create(name);
    for (int i = 0; i < count && getenv("AMLUA_CUDA"); i++)
        for (int run = tests[i].first; run < tests[i].end; run++) {
            char tag[200];
            TCase *tcase = tcase_create(tests[i].name);
            snprintf(tag, sizeof tag, "%s:%s:%d", tests[i].name, tests[i].test->name, run);
            tcase_set_tags(tcase, tag);
            if (list)
                puts(tag);
            tcase_set_timeout(tcase, 240);
            if (i < opened)
                tcase_add_checked_fixture(tcase, open_cuda, NULL);
            tcase_add_loop_test(tcase, tests[i].test, run, run + 1);
            suite_add_tcase(suite, tcase);
        }
    if (!getenv("AMLUA_CUDA")) {
        TCase *tcase = tcase_create("no module");
        tcase_add_test(tcase, no_module);
        suite_add_tcase(suite, tcase);
    }
    SRunner *runner = srunner_create(suite);
    if (!list)
        srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static inline int run_on_cuda(const char *name, const cuda_test *tests, int count)
{
    return run_on_cuda_opened(name, tests, count, count);
}

#endif
