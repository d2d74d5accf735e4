/* comm_gpu.c — a group's ranks on their GPUs: how they meet, over the CPUs' engine, in a group of
 * the GPUs' engine (kernels/cuda/nccl.c), what is told while they wait there, and what has to have
 * come before a GPU is read. The first tensor on a GPU opens it. Its collectives are comm.c's, as
 * all are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../core/device.h"
#include "../core/error.h"
#include "../core/mem.h"
#include "../core/module.h"
#include "group.h"

static const double ANSWERS = 0.5; /* seconds between two words to the others */
static const double NEWS = 1;      /* seconds until word of a rank that is gone is here */

static am_comm *on_gpus; /* groups there, of the one thread that queues work and reads */
static int lost;         /* a work that the device's stream waited for failed */

/* What a rank tells the others before they join. */
typedef struct invitation {
    uint8_t id[AM_COMM_ID];
    char device[AM_COMM_DEVICE], problem[AM_COMM_MESSAGE];
} invitation;

int am_comm_gpu_waits(am_comm *c, am_comm_call *call)
{
    int64_t number = call->number;
    pthread_mutex_lock(&c->asking);
    if (c->told < number) /* who begins is ahead of who waits: the number never falls */
        c->told = number;
    call->number = c->told;
    int rc = c->host->engine->waits(c->control, call);
    pthread_mutex_unlock(&c->asking);
    call->number = number;
    return rc;
}

int am_comm_gpu_is_told(am_comm *c, int64_t number)
{
    pthread_mutex_lock(&c->asking);
    int is_told = c->host->engine->remembers && c->told >= number;
    pthread_mutex_unlock(&c->asking);
    return is_told;
}

void am_comm_gpu_where(am_comm *c, uint8_t *here, int64_t number, double seconds)
{
    pthread_mutex_lock(&c->asking);
    c->host->engine->where_are(c->control, here, number, seconds);
    pthread_mutex_unlock(&c->asking);
}

/* Is there use in waiting? Others are told that this rank waits, and the CPUs' engine may know of
 * one that is gone. */
static int wait_on(am_comm_call *call)
{
    am_comm *c = call->owner;
    if (am_comm_gives_up(call))
        return AM_ECOMM;
    if (am_clock() < call->asked + ANSWERS)
        return AM_OK;
    call->asked = am_clock();
    return am_comm_gpu_waits(c, call);
}

am_comm_call am_comm_gpu_call(am_comm *c)
{
    am_comm_call call = am_comm_call_of(c);
    call.wait_on = wait_on;
    call.owner = c;
    call.asked = am_clock();
    return call;
}

static void invite(am_comm *c, invitation *own)
{
    am_comm_entry entry;
    am_comm_call call = am_comm_gpu_call(c);
    memset(own, 0, sizeof *own);
    if (am_module_open((void **)&entry, "cuda", getenv("AMLUA_CUDA"), "am_comm_engine_entry",
                       AM_ECOMM) != AM_OK)
        snprintf(own->problem, sizeof own->problem,
                 "%.300s (without NCCL's nccl.h amlua_cuda.so is built for one GPU)",
                 am_error_message());
    else if (!(c->engine = entry()) || c->engine->size != sizeof(am_comm_engine) ||
             c->engine->version != AM_COMM_VERSION)
        snprintf(own->problem, sizeof own->problem,
                 "amlua_cuda.so was built for another version of amlua");
    else if (c->engine->invite(c->rank == 0 ? own->id : NULL, own->device, &call) != AM_OK)
        memcpy(own->problem, call.message, sizeof own->problem);
}

/* All ranks find the same faults. */
static int check_invitations(const am_comm *c, const invitation *of)
{
    const place *places = c->host->world->places;
    for (int r = 0; r < c->host->size; r++) {
        const place *at = &places[c->host->world_ranks[r]];
        if (of[r].problem[0])
            return am_fail(AM_ECOMM, "rank %d (host %s) can't join others' GPUs: %.400s",
                           c->host->world_ranks[r], at->host, of[r].problem);
        for (int q = 0; q < r; q++)
            if (strcmp(of[q].device, of[r].device) == 0) /* containers name their hosts apart */
                return am_fail(AM_ECOMM,
                               "rank %d and rank %d have the same GPU of host %s: start one rank "
                               "for each GPU",
                               c->host->world_ranks[q], c->host->world_ranks[r], at->host);
    }
    return AM_OK;
}

static int join_gpus(am_comm *c)
{
    am_comm *host = c->host;
    void *p;
    invitation own, *all;
    am_comm_call call = am_comm_call_of(host);
    AM_TRY(am_comm_told(host, host->engine->split(&c->control, host->group, 0, host->rank, &call),
                        "joining GPUs", &call));
    invite(c, &own);
    AM_TRY(am_alloc(&p, (size_t)host->size * sizeof own));
    all = p;
    call = am_comm_call_of(host);
    int rc = am_comm_told(host, host->engine->all_gather(host->group, all, &own, sizeof own, &call),
                          "joining GPUs", &call);
    if (rc == AM_OK)
        rc = check_invitations(c, all);
    if (rc == AM_OK) {
        call = am_comm_gpu_call(c);
        rc = am_comm_told(c, c->engine->join(&c->group, all[0].id, host->rank, host->size, &call),
                          "joining GPUs", &call);
    }
    am_free(all);
    return rc;
}

/* All that the device's stream waits for has come, or it is told here what did not. */
static int settle(void)
{
    char message[AM_COMM_MESSAGE];
    double began = am_clock();
    for (am_comm *c = on_gpus; c; c = c->next) {
        pthread_mutex_lock(&c->lock);
        while (c->ended < c->ordered)
            pthread_cond_wait(&c->done, &c->lock);
        pthread_mutex_unlock(&c->lock);
    }
    am_comm_count_wait(began);
    if (!__atomic_load_n(&lost, __ATOMIC_ACQUIRE))
        return AM_OK;
    am_comm_first_failure(message);
    return am_fail(AM_ECOMM, "%s", message);
}

int am_comm_open_on_gpu(am_comm *host)
{
    am_comm *c;
    void *p;
    AM_TRY(am_comm_new(&c, host->name, host->timeout));
    c->host = host;
    c->world = host->world;
    c->rank = host->rank;
    c->size = host->size;
    am_comm_drain(host);
    int rc = am_alloc(&p, (size_t)c->size * sizeof *c->world_ranks);
    if (rc == AM_OK) {
        c->world_ranks = p;
        memcpy(p, host->world_ranks, (size_t)c->size * sizeof *c->world_ranks);
        rc = join_gpus(c);
    }
    if (rc != AM_OK) {
        am_comm_free(c);
        return rc;
    }
    host->on_gpu = c;
    c->next = on_gpus;
    on_gpus = c;
    am_device_set_settle(settle);
    return AM_OK;
}

void am_comm_leave_gpu(am_comm *c)
{
    am_comm **at = &on_gpus;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
}

void am_comm_lost_on_gpu(void)
{
    __atomic_store_n(&lost, 1, __ATOMIC_RELEASE);
}

void am_comm_ask_who_is_gone(am_comm *c, am_comm_call *call)
{
    am_comm_call question = *call;
    for (double end = am_clock() + NEWS; am_clock() < end;) {
        if (am_comm_gpu_waits(c, &question) != AM_OK) {
            memcpy(call->message, question.message, sizeof call->message);
            return;
        }
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
}
