/* group.h — inside of comm.c and comm_gpu.c: a group of ranks. */
#ifndef AM_GROUP_H
#define AM_GROUP_H

#include <pthread.h>
#include <unistd.h>

#include "comm.h"

enum { NAME = 64 };

/* Where a rank runs, for messages. */
typedef struct place {
    char host[NAME];
    int64_t pid;
} place;

struct am_comm {
    const am_comm_engine *engine;
    void *group;
    int refs, rank, size; /* refs: of the group of all ranks, those split off it, and its owner */
    int32_t *world_ranks;
    place *places; /* of all ranks; the group of all has them */
    am_comm *world;
    char name[NAME];
    double timeout;
    pid_t process;
    am_comm_counts counts;
    am_comm *on_gpu;        /* or NULL */
    am_comm *host;          /* of such a one: the group that it belongs to */
    void *control;          /* and a group of host's engine, for questions about who waits where */
    pthread_mutex_t asking; /* of control, which two threads use, and of told */
    int64_t told;           /* the last collective that others know this rank to have come to */
    int64_t ordered;        /* the last one whose end a stream waits for, and no caller */
    am_comm *next;          /* of the process's groups on GPUs */

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t queued, done;
    am_work *first, *last; /* the first is being done */
    int64_t number, ended; /* of collectives begun; the last one that the thread was done with */
    int has_thread, ending;
};

int am_comm_new(am_comm **out, const char *name, double timeout);
void am_comm_free(am_comm *c);
am_comm_call am_comm_call_of(am_comm *c);
/* rc, and its message, of a call that this thread makes itself, while the group's own does nothing.
 */
int am_comm_told(const am_comm *c, int rc, const char *what, const am_comm_call *call);
/* Wait until the group's thread has nothing to do. */
void am_comm_drain(am_comm *c);

/* The message of the first failure, which ended all groups. */
void am_comm_first_failure(char message[AM_COMM_MESSAGE]);
/* The time since `began` was spent in waiting for others. */
void am_comm_count_wait(double began);

/* Sets host->on_gpu. All of its ranks call this together. */
int am_comm_open_on_gpu(am_comm *host);
/* Before such a group ends. */
void am_comm_leave_gpu(am_comm *c);
/* A work that the device's stream waited for failed: what the device has from now on is wrong. */
void am_comm_lost_on_gpu(void);
/* A call of such a group. */
am_comm_call am_comm_gpu_call(am_comm *c);
/* Tell others that this rank has come to call->number; comm.h's `waits`. */
int am_comm_gpu_waits(am_comm *c, am_comm_call *call);
/* Do others learn it without this rank's being asked? */
int am_comm_gpu_is_told(am_comm *c, int64_t number);
/* comm.h's where_are. */
void am_comm_gpu_where(am_comm *c, uint8_t *here, int64_t number, double seconds);
/* After a failure: put what the CPUs' engine knows of a rank that is gone into call->message. */
void am_comm_ask_who_is_gone(am_comm *c, am_comm_call *call);

#endif
