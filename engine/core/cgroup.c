/* cgroup.c — limits of systemd, Slurm and containers, from the control groups' own files, version 2
 * and version 1, where everybody mounts them: /sys/fs/cgroup. A group is bound by its own limits
 * and by those of every group above it, so the least of them counts. */
#include "cgroup.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static FILE *open_in(const char *folder, const char *name)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    return n < (int)sizeof path ? fopen(path, "re") : NULL;
}

int am_read_numbers(const char *folder, const char *name, double v[2])
{
    char line[256], text[2][64];
    FILE *f = open_in(folder, name);
    if (!f)
        return 0;
    int n = fgets(line, sizeof line, f) ? sscanf(line, "%63s %63s", text[0], text[1]) : 0;
    fclose(f);
    for (int i = 0; i < n; i++)
        v[i] = strcmp(text[i], "max") == 0 ? INFINITY : strtod(text[i], NULL);
    return n > 0 ? n : 0;
}

/* ---- the limits of one group ------------------------------------------------------------ */

static double cpus_v2(const char *group)
{
    double v[2];
    return am_read_numbers(group, "cpu.max", v) == 2 && v[0] > 0 && v[1] > 0 ? v[0] / v[1]
                                                                             : INFINITY;
}

static double cpus_v1(const char *group)
{
    double quota[2], period[2]; /* a quota of -1 is none */
    if (am_read_numbers(group, "cpu.cfs_quota_us", quota) < 1 || quota[0] <= 0 ||
        am_read_numbers(group, "cpu.cfs_period_us", period) < 1 || period[0] <= 0)
        return INFINITY;
    return quota[0] / period[0];
}

/* Bytes behind `key` in the group's memory.stat; 0 when it is not there. */
static double read_stat(const char *group, const char *key)
{
    char line[256];
    double value = 0;
    size_t n = strlen(key);
    FILE *f = open_in(group, "memory.stat");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && line[n] == ' ')
            value = strtod(line + n, NULL);
    if (f)
        fclose(f);
    return value;
}

static double memory_left(const char *group, const char *limit, const char *used, const char *cache)
{
    double l[2], u[2];
    if (am_read_numbers(group, limit, l) < 1 || am_read_numbers(group, used, u) < 1)
        return INFINITY;
    return fmax(0, l[0] - fmax(0, u[0] - read_stat(group, cache)));
}

static double memory_v2(const char *group)
{
    return memory_left(group, "memory.max", "memory.current", "inactive_file");
}

/* Without a limit version 1 says 2^63 less a page. */
static double memory_v1(const char *group)
{
    double limit[2];
    if (am_read_numbers(group, "memory.limit_in_bytes", limit) == 1 && limit[0] > 0x1p62)
        return INFINITY;
    return memory_left(group, "memory.limit_in_bytes", "memory.usage_in_bytes",
                       "total_inactive_file");
}

/* ---- this process's group and those above it -------------------------------------------- */

/* The group in the hierarchy of `controller` ("": version 2) by lines of /proc/self/cgroup such as
 * "4:cpu,cpuacct:/slurm/job_7" and "0::/user.slice"; "" when no line is its. */
static void own_group(const char *root, const char *controller, char path[PATH_MAX])
{
    char line[PATH_MAX], wanted[32], list[256];
    snprintf(wanted, sizeof wanted, ",%s,", controller);
    path[0] = '\0';
    FILE *f = open_in(root, "proc/self/cgroup");
    while (f && fgets(line, sizeof line, f)) {
        char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;
        if (!second)
            continue;
        snprintf(list, sizeof list, ",%.*s,", (int)(second - first - 1), first + 1);
        if (strstr(list, wanted))
            snprintf(path, PATH_MAX, "%.*s", (int)strcspn(second + 1, "\n"), second + 1);
    }
    if (f)
        fclose(f);
}

/* A group that is not to be seen from here (a container mounts its own as the root) has no limits.
 */
static double least(const char *root, const char *controller, double (*limit)(const char *group))
{
    char group[PATH_MAX], path[PATH_MAX];
    own_group(root, controller, path);
    int top = snprintf(group, sizeof group, "%s/sys/fs/cgroup/%s", root, controller);
    if (snprintf(group + top, sizeof group - (size_t)top, "%s", path) >= (int)sizeof group - top)
        group[top] = '\0';
    double found = INFINITY;
    for (;;) {
        found = fmin(found, limit(group));
        char *slash = strrchr(group + top, '/');
        if (!slash)
            return found;
        *slash = '\0';
    }
}

double am_cgroup_cpus(const char *root)
{
    return fmin(least(root, "", cpus_v2), least(root, "cpu", cpus_v1));
}

double am_cgroup_memory(const char *root)
{
    return fmin(least(root, "", memory_v2), least(root, "memory", memory_v1));
}
