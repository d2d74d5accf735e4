/* test_comm.c — groups of ranks with one rank: what collectives give, what they refuse, counting,
 * and the thread of a group. Several ranks are in tests/dist/. */
#include <sys/wait.h>
#include <unistd.h>

#include "core/device.h"
#include "core/tensor.h"
#include "engine_helpers.h"

static am_comm *alone(void)
{
    am_comm *c;
    OK(am_comm_open(&c, "self", NULL));
    return c;
}

static am_tensor *vector(int dtype, int64_t n, double value)
{
    am_tensor *t;
    OK(am_tensor_new(&t, dtype, 1, &n, AM_DEVICE_CPU));
    OK(am_tensor_fill(t, value));
    return t;
}

static double first(am_tensor *t)
{
    float x[8] = {0};
    OK(am_tensor_read(t, x, 3 * sizeof(float)));
    return x[0];
}

static void done(int rc, am_work *w)
{
    ck_assert_msg(rc == AM_OK, "%s", am_error_message());
    ck_assert_msg(am_work_wait(w) == AM_OK, "%s", am_error_message());
}

START_TEST(test_one_rank_gets_its_own)
{
    am_comm *c = alone();
    am_work *w = NULL;
    am_tensor *a = vector(AM_F32, 3, 5), *b = vector(AM_F32, 3, 0);
    ck_assert_int_eq(am_comm_rank(c), 0);
    ck_assert_int_eq(am_comm_size(c), 1);
    ck_assert_int_eq(am_comm_world_rank(c, 0), 0);
    ck_assert_int_eq(am_comm_world_rank(c, 1), -1);
    int rc = am_comm_all_reduce(&w, c, a, AM_SUM);
    done(rc, w);
    rc = am_comm_broadcast(&w, c, a, 0);
    done(rc, w);
    ck_assert(first(a) == 5);
    rc = am_comm_all_gather(&w, c, b, a);
    done(rc, w);
    ck_assert(first(b) == 5);
    am_tensor_fill(a, 7);
    rc = am_comm_reduce_scatter(&w, c, b, a, AM_MAX);
    done(rc, w);
    ck_assert(first(b) == 7);
    am_tensor_fill(a, 9);
    int64_t three = 3;
    rc = am_comm_all_to_all(&w, c, b, &three, a, &three);
    done(rc, w);
    ck_assert(first(b) == 9);
    rc = am_comm_barrier(&w, c);
    done(rc, w);
    am_comm_counts n;
    am_comm_count(&n, c);
    ck_assert_int_eq(n.calls[AM_COMM_ALL_REDUCE], 1);
    ck_assert_int_eq(n.bytes[AM_COMM_ALL_REDUCE], 12);
    ck_assert_int_eq(n.bytes[AM_COMM_BARRIER], 0);
    am_tensor_release(a);
    am_tensor_release(b);
    am_comm_release(c);
}
END_TEST

START_TEST(test_halves_are_rounded_once)
{
    am_comm *c = alone();
    am_work *w = NULL;
    for (int i = 0; i < 2; i++) {
        am_tensor *t = vector(i ? AM_F16 : AM_BF16, 1000, 0.7421875);
        int rc = am_comm_all_reduce(&w, c, t, AM_MIN);
        done(rc, w);
        double value = 0;
        int64_t n = 1;
        am_tensor *one;
        OK(am_tensor_view(&one, t, 1, &n, &n, 999));
        OK(am_tensor_item(one, &value));
        ck_assert(value == 0.7421875);
        am_tensor_release(one);
        am_tensor_release(t);
    }
    am_comm_release(c);
}
END_TEST

START_TEST(test_works_outlive_what_they_were_given)
{
    am_comm *c = alone();
    enum { N = 200 };
    am_work *works[N];
    for (int i = 0; i < N; i++) {
        am_tensor *t = vector(AM_F32, 10000, i);
        OK(am_comm_all_reduce(&works[i], c, t, AM_SUM));
        am_tensor_release(t); /* the work has a reference of its own */
    }
    for (int i = N - 1; i >= 0; i--)
        OK(am_work_wait(works[i]));
    am_comm_release(c);
}
END_TEST

START_TEST(test_groups_are_split_off)
{
    am_comm *c = alone(), *part;
    am_work *w = NULL;
    ck_assert_int_eq(am_comm_split(&part, c, -1, 0, "x"), AM_EINVAL);
    OK(am_comm_split(&part, c, 3, 0, "part"));
    am_tensor *t = vector(AM_F32, 3, 4);
    int rc = am_comm_all_reduce(&w, part, t, AM_SUM);
    done(rc, w);
    am_comm_release(c); /* the group of all stays while one is left */
    rc = am_comm_barrier(&w, part);
    done(rc, w);
    am_comm_release(part);
    am_tensor_release(t);
}
END_TEST

START_TEST(test_refusals)
{
    am_comm *c, *w = NULL;
    am_work *work;
    ck_assert_int_eq(am_comm_open(&c, "smoke signals", NULL), AM_EINVAL);
    ck_assert_ptr_nonnull(strstr(am_error_message(), "there are self, mpi and gloo"));
    am_comm_options o = {.module = "/nowhere/amlua_mpi.so"};
    ck_assert_int_eq(am_comm_open(&c, "mpi", &o), AM_ECOMM);
    ck_assert_ptr_nonnull(strstr(am_error_message(), "/nowhere/amlua_mpi.so"));
    o = (am_comm_options){.timeout = -1};
    ck_assert_int_eq(am_comm_open(&c, "self", &o), AM_EINVAL);
    w = alone();
    am_tensor *a = vector(AM_F32, 3, 1), *b = vector(AM_F32, 4, 1), *d = vector(AM_F64, 3, 1),
              *u = vector(AM_U8, 3, 1), *turned;
    ck_assert_int_eq(am_comm_all_reduce(&work, w, NULL, AM_SUM), AM_EINVAL);
    ck_assert_int_eq(am_comm_all_reduce(&work, w, a, 9), AM_EINVAL);
    ck_assert_int_eq(am_comm_all_reduce(&work, w, u, AM_SUM), AM_EUNSUP);
    ck_assert_int_eq(am_comm_all_gather(&work, w, a, d), AM_EINVAL);
    ck_assert_int_eq(am_comm_all_gather(&work, w, b, a), AM_ESHAPE);
    ck_assert_int_eq(am_comm_reduce_scatter(&work, w, b, a, AM_SUM), AM_ESHAPE);
    ck_assert_int_eq(am_comm_broadcast(&work, w, a, 1), AM_EINVAL);
    ck_assert_int_eq(am_comm_send(&work, w, a, -1, 0), AM_EINVAL);
    int64_t counts = 2, negative = -3;
    ck_assert_int_eq(am_comm_all_to_all(&work, w, a, &counts, a, &counts), AM_ESHAPE);
    ck_assert_int_eq(am_comm_all_to_all(&work, w, a, &negative, a, &negative), AM_EINVAL);
    OK(am_tensor_view(&turned, a, 2, (int64_t[]){2, 3}, (int64_t[]){0, 1}, 0));
    ck_assert_int_eq(am_comm_all_reduce(&work, w, turned, AM_SUM), AM_ESHAPE);
    am_tensor_release(turned);
    /* what is not refused at once fails where it is waited for, and all that comes after it */
    OK(am_comm_send(&work, w, a, 0, 0));
    ck_assert_int_eq(am_work_wait(work), AM_ECOMM);
    ck_assert_ptr_nonnull(strstr(am_error_message(), "send"));
    OK(am_comm_barrier(&work, w));
    ck_assert_int_eq(am_work_wait(work), AM_ECOMM);
    ck_assert_ptr_nonnull(strstr(am_error_message(), "can't send to itself"));
    am_tensor_release(a);
    am_tensor_release(b);
    am_tensor_release(d);
    am_tensor_release(u);
    am_comm_release(w);
}
END_TEST

START_TEST(test_a_copy_of_the_process_is_no_rank)
{
    am_comm *c = alone();
    am_work *w = NULL;
    int rc = am_comm_barrier(&w, c), status;
    done(rc, w);
    pid_t child = fork();
    if (child == 0) {
        int refused = am_comm_barrier(&w, c) == AM_ESTATE;
        am_comm_release(c); /* leaves its parent's alone */
        _exit(refused ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    rc = am_comm_barrier(&w, c);
    done(rc, w);
    am_comm_release(c);
}
END_TEST

START_TEST(test_out_of_memory)
{
    am_comm *c;
    am_work *w;
    am_tensor *t = vector(AM_F32, 5, 1);
    for (int64_t k = 1; k < 50; k++) {
        am_mem_fail_at(k);
        int rc = am_comm_open(&c, "self", NULL);
        if (rc == AM_OK) {
            rc = am_comm_all_reduce(&w, c, t, AM_SUM);
            if (rc == AM_OK)
                rc = am_work_wait(w);
            am_mem_fail_at(0);
            am_comm_release(c);
        }
        am_mem_fail_at(0);
        if (rc == AM_OK)
            return am_tensor_release(t);
        ck_assert_int_eq(rc, AM_ENOMEM);
    }
    ck_abort_msg("there is no end to allocations");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("comm");
    TCase *t = tcase_create("comm");
    tcase_add_test(t, test_one_rank_gets_its_own);
    tcase_add_test(t, test_halves_are_rounded_once);
    tcase_add_test(t, test_works_outlive_what_they_were_given);
    tcase_add_test(t, test_groups_are_split_off);
    tcase_add_test(t, test_a_copy_of_the_process_is_no_rank);
    tcase_add_test(t, test_out_of_memory);
    tcase_add_test(t, test_refusals);
    suite_add_tcase(s, t);
    return run_suite(s);
}
