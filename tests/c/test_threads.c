/* test_threads.c — how many threads the kernels take by default. What the cgroup allows is not ours
 * to set here; it can only lower the figures. */
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>
#include "engine_helpers.h"

static int affinity(void)
{
    cpu_set_t set;
    ck_assert_int_eq(sched_getaffinity(0, sizeof set, &set), 0);
    return CPU_COUNT(&set);
}

static void clean(void)
{
    unsetenv("OMP_NUM_THREADS");
    unsetenv("SLURM_CPUS_PER_TASK");
}

START_TEST(as_limits)
{
    am_host_limits l;
    setenv("SLURM_CPUS_PER_TASK", "1", 1);
    setenv("OMP_NUM_THREADS", "none", 1);
    ck_assert_int_eq(am_host_limits_get(&l), AM_OK);
    ck_assert_int_eq(l.cpus_affinity, affinity());
    ck_assert_int_eq(l.cpus_slurm, 1);
    ck_assert_int_eq(l.cpus_openmp, 0);
    ck_assert(l.memory_free == -1 || l.memory_free > 0);
    int64_t available = am_host_memory_available();
    ck_assert(available > 0);
    struct rlimit space = {1ll << 50, 1ll << 50}; /* far more than there is, and than ASan takes */
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &space), 0);
    ck_assert_int_eq(getrlimit(RLIMIT_AS, &space), 0);
    if (space.rlim_cur == RLIM_INFINITY) {
        puts("SKIP the limit of memory: qemu-user passes over RLIMIT_AS");
        fflush(stdout);
        return;
    }
    ck_assert_int_eq(am_host_limits_get(&l), AM_OK);
    ck_assert(l.memory_ulimit >= 0);
    ck_assert(am_host_memory_available() <= l.memory_ulimit);
}
END_TEST

START_TEST(from_the_machine)
{
    int n = am_threads_default();
    ck_assert(n >= 1 && n <= affinity());
    ck_assert_int_eq(am_threads(), n);
}
END_TEST

START_TEST(from_affinity)
{
    cpu_set_t set, one;
    ck_assert_int_eq(sched_getaffinity(0, sizeof set, &set), 0);
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set)) {
            CPU_SET(i, &one);
            break;
        }
    ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
    ck_assert_int_eq(am_threads_default(), 1);
}
END_TEST

START_TEST(from_slurm)
{
    setenv("SLURM_CPUS_PER_TASK", "1", 1);
    ck_assert_int_eq(am_threads_default(), 1);
    setenv("SLURM_CPUS_PER_TASK", "1000", 1); /* no more than there are */
    ck_assert_int_le(am_threads_default(), affinity());
}
END_TEST

START_TEST(from_openmp)
{
    setenv("SLURM_CPUS_PER_TASK", "1", 1);
    setenv("OMP_NUM_THREADS", "3", 1); /* the user's word, before all else */
    ck_assert_int_eq(am_threads_default(), 3);
    setenv("OMP_NUM_THREADS", "5,2", 1); /* the outer level's */
    ck_assert_int_eq(am_threads_default(), 5);
}
END_TEST

START_TEST(nonsense_is_ignored)
{
    static const char *const bad[] = {"", "0", "-3", "many", "3x", "99999", "2147483648"};
    int n = am_threads_default();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("OMP_NUM_THREADS", bad[i], 1);
        setenv("SLURM_CPUS_PER_TASK", bad[i], 1);
        ck_assert_msg(am_threads_default() == n, "\"%s\" gives %d", bad[i], am_threads_default());
    }
}
END_TEST

START_TEST(set)
{
    OK(am_threads_set(7));
    ck_assert_int_eq(am_threads(), 7);
    FAILS(am_threads_set(0), AM_EINVAL, "0");
    FAILS(am_threads_set(-1), AM_EINVAL, "-1");
    FAILS(am_threads_set(1025), AM_EINVAL, "1025");
    ck_assert_int_eq(am_threads(), 7);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("threads");
    TCase *t = tcase_create("default");
    tcase_add_checked_fixture(t, clean, NULL);
    tcase_add_test(t, as_limits);
    tcase_add_test(t, from_the_machine);
    tcase_add_test(t, from_affinity);
    tcase_add_test(t, from_slurm);
    tcase_add_test(t, from_openmp);
    tcase_add_test(t, nonsense_is_ignored);
    tcase_add_test(t, set);
    suite_add_tcase(s, t);
    return run_suite(s);
}
