/* host_info.c — what this process may use of its machine: threads, memory, time; and signals.
 * Holds no device code. */
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "../backend.h"
#include "cgroup.h"
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

int am_threads_default(void)
{
    int n = positive_env("OMP_NUM_THREADS");
    if (n)
        return n;
    cpu_set_t set;
    n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                    : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int slurm = positive_env("SLURM_CPUS_PER_TASK");
    double quota = ceil(am_cgroup_cpus(""));
    if (quota < n)
        n = (int)quota;
    if (slurm && slurm < n)
        n = slurm;
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

/* ---- memory and time -------------------------------------------------------------------- */

int64_t am_host_memory_available(void)
{
    char line[256];
    double available = am_cgroup_memory(""), used[2];
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && fgets(line, sizeof line, f)) {
        static const char key[] = "MemAvailable:"; /* in KiB */
        if (strncmp(line, key, sizeof key - 1) == 0)
            available = fmin(available, (double)strtoull(line + sizeof key - 1, NULL, 10) * 1024);
    }
    if (f)
        fclose(f);
    struct rlimit space; /* ulimit -v */
    if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY &&
        am_read_numbers("/proc/self", "statm", used) >= 1) {
        double left = (double)space.rlim_cur - used[0] * (double)sysconf(_SC_PAGESIZE);
        available = fmin(available, fmax(left, 0));
    }
    return available < (double)INT64_MAX ? (int64_t)available : INT64_MAX;
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

static int handle(int number, void (*handler)(int))
{
    struct sigaction act = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigemptyset(&act.sa_mask);
    if (sigaction(number, &act, NULL) != 0)
        return am_fail(AM_EIO, "signal %d can't be watched: %s", number, strerror(errno));
    return AM_OK;
}

static bool ignored(int number)
{
    struct sigaction now;
    return sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

int am_signals_watch(int mode)
{
    if (mode < AM_SIGNALS_OFF || mode > AM_SIGNALS_INTERRUPT)
        return am_fail(AM_EINVAL, "signal mode %d does not exist", mode);
    void (*asked)(int) = mode == AM_SIGNALS_OFF ? SIG_DFL : on_signal;
    bool run = mode == AM_SIGNALS_FLAG;
    int rc = handle(SIGINT, asked);
    if (rc == AM_OK)
        rc = handle(SIGTERM, asked);
    if (rc == AM_OK && !ignored(SIGHUP)) /* under nohup it stays ignored */
        rc = handle(SIGHUP, run ? on_signal : SIG_DFL);
    if (rc == AM_OK)
        rc = handle(SIGPIPE, run ? SIG_IGN : SIG_DFL);
    if (rc == AM_OK)
        rc = handle(SIGXFSZ, run ? SIG_IGN : SIG_DFL);
    watch_mode = mode;
    return rc;
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
