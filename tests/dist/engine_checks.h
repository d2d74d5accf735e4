/* engine_checks.h — what every communicator's engine must do, asked of its vtable by each rank of a
 * group. How the ranks came to be does not matter here. */
#ifndef ENGINE_CHECKS_H
#define ENGINE_CHECKS_H

#include "dist/comm.h"

/* NULL, with the reason on stderr, when the module can't be used. */
const am_comm_engine *engine_load(const char *path);
am_comm_call engine_call(double seconds);
/* All collectives against plain computations, then groups at the same time. Every rank calls it;
 * returns how many checks failed on this rank, each said on stderr. */
int engine_checks(const am_comm_engine *e, void *group);
/* Prints the time of an all_reduce of 1 kB and of 16 MB, on rank 0. */
int engine_times(const am_comm_engine *e, void *group);

#endif
