/* test_cgroup.c — limits of control groups, from files of a folder that stands for the machine. */
#include <sys/stat.h>

#include "core/cgroup.h"
#include "engine_helpers.h"

#define MIB (1024.0 * 1024)

static char root[64];

static void make_root(void)
{
    strcpy(root, "/tmp/amlua-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
}

static void remove_root(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    ck_assert_int_eq(system(command), 0);
}

/* Write a file under the root, with its folders. */
static void put(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        mkdir(path, 0777);
        *p = '/';
    }
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

START_TEST(none)
{
    ck_assert(isinf(am_cgroup_cpus(root)) && isinf(am_cgroup_memory(root)));
    put("proc/self/cgroup", "0::/user.slice\n");
    put("sys/fs/cgroup/user.slice/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/user.slice/memory.max", "max\n");
    put("sys/fs/cgroup/user.slice/memory.current", "1048576\n");
    put("sys/fs/cgroup/cpu.max", "");
    ck_assert(isinf(am_cgroup_cpus(root)) && isinf(am_cgroup_memory(root)));
}
END_TEST

START_TEST(of_the_root)
{
    put("proc/self/cgroup", "0::/\n"); /* a namespace of its own */
    put("sys/fs/cgroup/cpu.max", "150000 100000\n");
    put("sys/fs/cgroup/memory.max", "8388608\n");
    put("sys/fs/cgroup/memory.current", "3145728\n");
    ck_assert_double_eq(am_cgroup_cpus(root), 1.5);
    ck_assert_double_eq(am_cgroup_memory(root), 5 * MIB);
}
END_TEST

START_TEST(least_of_all_above)
{
    put("proc/self/cgroup", "1:name=systemd:/other\n0::/slurm/job_7/step_0\n");
    put("sys/fs/cgroup/slurm/job_7/step_0/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/slurm/job_7/cpu.max", "200000 100000\n");
    put("sys/fs/cgroup/slurm/cpu.max", "400000 100000\n");
    put("sys/fs/cgroup/slurm/job_8/cpu.max", "100000 100000\n");
    put("sys/fs/cgroup/slurm/job_7/step_0/memory.max", "33554432\n");
    put("sys/fs/cgroup/slurm/job_7/step_0/memory.current", "1048576\n");
    put("sys/fs/cgroup/slurm/memory.max", "16777216\n");
    put("sys/fs/cgroup/slurm/memory.current", "2097152\n");
    ck_assert_double_eq(am_cgroup_cpus(root), 2);
    ck_assert_double_eq(am_cgroup_memory(root), 14 * MIB);
    put("sys/fs/cgroup/slurm/job_7/step_0/memory.current", "25165824\n");
    ck_assert_double_eq(am_cgroup_memory(root), 8 * MIB);
}
END_TEST

START_TEST(cache_is_free)
{
    put("sys/fs/cgroup/memory.max", "8388608\n");
    put("sys/fs/cgroup/memory.current", "7340032\n");
    put("sys/fs/cgroup/memory.stat", "anon 1\ninactive_file_x 1\ninactive_file 4194304\nslab 2\n");
    ck_assert_double_eq(am_cgroup_memory(root), 5 * MIB);
    put("sys/fs/cgroup/memory.current", "16777216\n");
    ck_assert_double_eq(am_cgroup_memory(root), 0);
    put("sys/fs/cgroup/memory.current", "1048576\n"); /* read before the statistics changed */
    ck_assert_double_eq(am_cgroup_memory(root), 8 * MIB);
}
END_TEST

START_TEST(version_1)
{
    put("proc/self/cgroup", "9:memory:/slurm/job_7\n4:cpuset:/set\n3:cpu,cpuacct:/slurm\n0::/x\n");
    put("sys/fs/cgroup/cpu/set/cpu.cfs_quota_us", "100000\n"); /* another controller's group */
    put("sys/fs/cgroup/cpu/set/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/cpu/slurm/cpu.cfs_quota_us", "350000\n");
    put("sys/fs/cgroup/cpu/slurm/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", "8388608\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.usage_in_bytes", "3145728\n");
    put("sys/fs/cgroup/memory/slurm/job_7/memory.stat",
        "inactive_file 1\ntotal_inactive_file 1048576\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "1048576\n");
    ck_assert_double_eq(am_cgroup_cpus(root), 3.5);
    ck_assert_double_eq(am_cgroup_memory(root), 6 * MIB);
}
END_TEST

START_TEST(of_a_container)
{
    /* The path is the host's, but the container's own group is mounted as the root. */
    put("proc/self/cgroup", "3:memory:/docker/4f\n2:cpu:/docker/4f\n0::/docker/4f\n");
    put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
    put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "8388608\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "1048576\n");
    ck_assert_double_eq(am_cgroup_cpus(root), 0.5);
    ck_assert_double_eq(am_cgroup_memory(root), 7 * MIB);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cgroup");
    TCase *t = tcase_create("limits");
    tcase_add_checked_fixture(t, make_root, remove_root);
    tcase_add_test(t, none);
    tcase_add_test(t, of_the_root);
    tcase_add_test(t, least_of_all_above);
    tcase_add_test(t, cache_is_free);
    tcase_add_test(t, version_1);
    tcase_add_test(t, of_a_container);
    suite_add_tcase(s, t);
    return run_suite(s);
}
