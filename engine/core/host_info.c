/* host_info.c — what this process may use of its machine: threads, memory, time; and signals.
 * Holds no device code. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "../backend.h"
#include "error.h"

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

/* First line of a small file, as two numbers; "max" reads as -1. Returns how many were read. */
static int read_numbers(const char *path, double v[2])
{
    char line[256], a[64], b[64];
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    int n = fgets(line, sizeof line, f) ? sscanf(line, "%63s %63s", a, b) : 0;
    fclose(f);
    if (n > 0)
        v[0] = strcmp(a, "max") == 0 ? -1 : strtod(a, NULL);
    if (n > 1)
        v[1] = strcmp(b, "max") == 0 ? -1 : strtod(b, NULL);
    return n > 0 ? n : 0;
}

/* CPUs that the cgroup's quota amounts to, rounded up; 0 when there is none. */
static int cgroup_cpus(void)
{
    double v[2], p[2];
    if (read_numbers("/sys/fs/cgroup/cpu.max", v) == 2 && v[0] > 0 && v[1] > 0)
        return (int)((v[0] + v[1] - 1) / v[1]);
    if (read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", v) == 1 && v[0] > 0 &&
        read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_period_us", p) == 1 && p[0] > 0)
        return (int)((v[0] + p[0] - 1) / p[0]);
    return 0;
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
    return AM_OK;
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

static double cgroup_memory(void)
{
    double limit[2], used[2];
    if (read_numbers("/sys/fs/cgroup/memory.max", limit) == 1 && limit[0] > 0 &&
        read_numbers("/sys/fs/cgroup/memory.current", used) == 1)
        return limit[0] > used[0] ? limit[0] - used[0] : 0;
    return -1;
}

static double ulimit_memory(void) /* ulimit -v */
{
    struct rlimit space;
    double used[2];
    if (getrlimit(RLIMIT_AS, &space) != 0 || space.rlim_cur == RLIM_INFINITY ||
        read_numbers("/proc/self/statm", used) < 1)
        return -1;
    double left = (double)space.rlim_cur - used[0] * (double)sysconf(_SC_PAGESIZE);
    return left > 0 ? left : 0;
}

int am_host_limits_get(am_host_limits *l)
{
    *l = (am_host_limits){.cpus_affinity = affinity_cpus(),
                          .cpus_cgroup = cgroup_cpus(),
                          .cpus_slurm = positive_env("SLURM_CPUS_PER_TASK"),
                          .cpus_openmp = positive_env("OMP_NUM_THREADS"),
                          .memory_free = (int64_t)free_memory(),
                          .memory_cgroup = (int64_t)cgroup_memory(),
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

/* ---- signals ---------------------------------------------------------------------------- */

static volatile sig_atomic_t pending, interrupted, watch_mode;

static void on_signal(int number)
{
    if (number == SIGINT && interrupted) { /* asked twice: end at once */
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
        return;
    }
    interrupted = interrupted || number == SIGINT;
    pending = number;
}

int am_signals_watch(int mode)
{
    if (mode < AM_SIGNALS_OFF || mode > AM_SIGNALS_INTERRUPT)
        return am_fail(AM_EINVAL, "signal mode %d does not exist", mode);
    struct sigaction act = {.sa_handler = mode == AM_SIGNALS_OFF ? SIG_DFL : on_signal,
                            .sa_flags = SA_RESTART};
    sigemptyset(&act.sa_mask);
    if (sigaction(SIGINT, &act, NULL) != 0 || sigaction(SIGTERM, &act, NULL) != 0)
        return am_fail(AM_EIO, "signals can't be watched: %s", strerror(errno));
    watch_mode = mode;
    return AM_OK;
}

int am_signals_pending(void)
{
    return pending;
}

void am_signals_clear(void)
{
    pending = interrupted = 0;
}

int am_signals_check(void)
{
    if (watch_mode == AM_SIGNALS_INTERRUPT && pending)
        return am_fail(AM_EINTR, "interrupted by %s", pending == SIGINT ? "Ctrl-C" : "a signal");
    return AM_OK;
}
