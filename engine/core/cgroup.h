/* cgroup.h — what the control groups of this process let it use. `root` stands for "/", for tests.
 */
#ifndef AM_CGROUP_H
#define AM_CGROUP_H

/* CPUs that the quota amounts to, 1.5 for one and a half; INFINITY without one. */
double am_cgroup_cpus(const char *root);

/* Bytes left below the memory limit, INFINITY without one. File cache that the kernel gives back
 * when it is asked to is not in the way. */
double am_cgroup_memory(const char *root);

/* First line of folder/name as two numbers, "max" as INFINITY. Returns how many were read. */
int am_read_numbers(const char *folder, const char *name, double v[2]);

#endif
