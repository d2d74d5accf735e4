/* host_info.c — what this process may use of its machine: threads, memory, time. Holds no device
 * code; signals are in signals.c. */
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "../backend.h"
#include "cgroup.h"
#include "error.h"
#include "signals.h"

/* ---- threads ---------------------------------------------------------------------------- */

static int team; /* 0: not chosen yet */

static int positive_env(const char *name)
{
    const char *s = getenv(name);
    char *end;
    if (!s || !*s)
        return 0;
    long n = strtol(s, &end, 10);
    return (*end == '\0' || *end == ',') && n >= 1 && n <= 1024 ? (int)n : 0;
}

/* CPUs that this process may run on. */
static int affinity_cpus(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                       : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

int am_threads_default(void)
{
    am_host_limits l;
    (void)am_host_limits_get(&l);
    if (l.cpus_openmp)
        return l.cpus_openmp;
    int n = l.cpus_affinity;
    if (l.cpus_cgroup && l.cpus_cgroup < n)
        n = l.cpus_cgroup;
    if (l.cpus_slurm && l.cpus_slurm < n)
        n = l.cpus_slurm;
    return n < 1 ? 1 : n > 1024 ? 1024 : n;
}

int am_threads(void)
{
    if (!team)
        team = am_threads_default();
    return team;
}

int am_threads_set(int n)
{
    if (n < 1 || n > 1024)
        return am_fail(AM_EINVAL, "threads must be 1 to 1024, not %d", n);
    team = n;
    return am_signals_shield();
}

const char *am_cpu_isa(void)
{
    return am_backend_cpu_isa();
}

const char *am_cpu_isa_available(void)
{
    return am_backend_cpu_isa_available();
}

/* ---- memory and time -------------------------------------------------------------------- */

/* Bytes; -1 when the system does not say. */
static double free_memory(void)
{
    char line[256];
    double available = -1;
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && fgets(line, sizeof line, f)) {
        static const char key[] = "MemAvailable:"; /* in KiB */
        if (strncmp(line, key, sizeof key - 1) == 0)
            available = (double)strtoull(line + sizeof key - 1, NULL, 10) * 1024;
    }
    if (f)
        fclose(f);
    return available;
}

static double ulimit_memory(void) /* ulimit -v */
{
    struct rlimit space;
    double used[2];
    if (getrlimit(RLIMIT_AS, &space) != 0 || space.rlim_cur == RLIM_INFINITY ||
        am_read_numbers("/proc/self", "statm", used) < 1)
        return -1;
    return fmax((double)space.rlim_cur - used[0] * (double)sysconf(_SC_PAGESIZE), 0);
}

int am_host_limits_get(am_host_limits *l)
{
    double quota = ceil(am_cgroup_cpus("")), memory = am_cgroup_memory("");
    *l = (am_host_limits){.cpus_affinity = affinity_cpus(),
                          .cpus_cgroup = quota < INT32_MAX ? (int32_t)quota : 0,
                          .cpus_slurm = positive_env("SLURM_CPUS_PER_TASK"),
                          .cpus_openmp = positive_env("OMP_NUM_THREADS"),
                          .memory_free = (int64_t)free_memory(),
                          .memory_cgroup = memory < (double)INT64_MAX ? (int64_t)memory : -1,
                          .memory_ulimit = (int64_t)ulimit_memory()};
    return AM_OK;
}

int64_t am_host_memory_available(void)
{
    am_host_limits l;
    (void)am_host_limits_get(&l);
    const int64_t limits[] = {l.memory_free, l.memory_cgroup, l.memory_ulimit};
    int64_t least = INT64_MAX;
    for (int i = 0; i < 3; i++)
        if (limits[i] >= 0 && limits[i] < least)
            least = limits[i];
    return least;
}

double am_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
