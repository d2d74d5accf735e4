/* comm_self.c — a rank alone: collectives that copy, or do nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm.h"

static char alone; /* stands for every group */

static int open_self(void **group, const am_comm_options *options, am_comm_call *call)
{
    (void)options, (void)call;
    *group = &alone;
    return AM_OK;
}

static void close_self(void *group)
{
    (void)group;
}

static int rank_self(const void *group)
{
    (void)group;
    return 0;
}

static int count_self(const void *group)
{
    (void)group;
    return 1;
}

static int split_self(void **out, void *group, int color, int key, am_comm_call *call)
{
    (void)color, (void)key, (void)call;
    *out = group;
    return AM_OK;
}

static size_t size_of(const am_comm_call *call)
{
    return (size_t)am_dtype_size(call->dtype);
}

static int all_reduce(void *group, void *x, int64_t n, am_comm_call *call)
{
    (void)group, (void)x, (void)n, (void)call;
    return AM_OK;
}

static int move(void *group, void *to, const void *from, int64_t n, am_comm_call *call)
{
    (void)group;
    memmove(to, from, (size_t)n * size_of(call));
    return AM_OK;
}

static int broadcast(void *group, void *x, int64_t n, int root, am_comm_call *call)
{
    (void)group, (void)x, (void)n, (void)root, (void)call;
    return AM_OK;
}

static int all_to_all(void *group, void *to, const int64_t *to_counts, const void *from,
                      const int64_t *from_counts, am_comm_call *call)
{
    (void)from_counts;
    return move(group, to, from, to_counts[0], call);
}

static int send_self(void *group, const void *x, int64_t n, int to, int tag, am_comm_call *call)
{
    (void)group, (void)x, (void)n, (void)to, (void)tag;
    snprintf(call->message, sizeof call->message, "a rank can't send to itself");
    return AM_ECOMM;
}

static int recv_self(void *group, void *x, int64_t n, int from, int tag, am_comm_call *call)
{
    return send_self(group, x, n, from, tag, call);
}

static int barrier(void *group, am_comm_call *call)
{
    (void)group, (void)call;
    return AM_OK;
}

static void where_are(void *group, uint8_t *here, int64_t number, double seconds)
{
    (void)group, (void)number, (void)seconds;
    here[0] = 1;
}

static void abort_self(int status, const char *why)
{
    (void)why;
    _Exit(status);
}

const am_comm_engine am_comm_self = {
    .size = sizeof(am_comm_engine),
    .version = AM_COMM_VERSION,
    .name = "self",
    .open = open_self,
    .close = close_self,
    .rank = rank_self,
    .count = count_self,
    .split = split_self,
    .all_reduce = all_reduce,
    .reduce_scatter = move,
    .all_gather = move,
    .broadcast = broadcast,
    .all_to_all = all_to_all,
    .send = send_self,
    .recv = recv_self,
    .barrier = barrier,
    .where_are = where_are,
    .abort = abort_self,
};
