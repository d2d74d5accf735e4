/* comm.h — the border between the engine and what moves bytes between ranks: one vtable. comm.c
 * owns order, threads, time-outs and 16-bit floats; an engine (comm_self.c, mpi.c, gloo.cc, and for
 * GPUs kernels/cuda/nccl.c) gets plain pointers. Engines include this file and am.h, nothing else
 * of amlua; nccl.c is a part of the CUDA backend.
 *
 * Rules for engines
 *   - A function blocks until its part is done, and returns AM_OK, or AM_ECOMM with the reason in
 *     call->message. Different groups call at the same time, one group never twice (a device's:
 *     one thread begins, another waits).
 *   - It gives up, with AM_ECOMM and an empty message, when am_comm_gives_up(call): asked at least
 *     ten times a second.
 *   - Reductions come in f32, f64, i32 and i64; what only moves is bytes (AM_U8). All ranks of a
 *     group get the same bits.
 *   - `number` tells a group's calls apart. While a rank waits it answers where_are of the others.
 *
 * A device's engine is beside another, in whose group its ranks have met. It has `close`, what is
 * from `invite` on, and collectives, which are others' in this:
 *   - One begins a part and returns, in the order in which the rank's program has it. The part runs
 *     in a stream of the group's own, behind what call->stream holds. `wait` blocks until its end;
 *     `order` has call->stream wait for it, and nobody else.
 *   - Both ask call->wait_on instead of am_comm_gives_up: the module does not see libamlua.so.
 *   - An empty message, too, where the group was given up before.
 *   - Reductions come in bf16 and f16, too: summed in f32, and rounded once.
 */
#ifndef AM_COMM_H
#define AM_COMM_H

#include "../am.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { AM_COMM_VERSION = 3, AM_COMM_MESSAGE = 512, AM_COMM_ID = 128, AM_COMM_DEVICE = 40 };

typedef struct am_comm_call {
    int dtype, op;       /* of reductions: AM_F32, …; AM_SUM, … */
    int64_t number;      /* of the group's collectives, from 1 */
    double deadline;     /* on am_clock */
    const int *stopping; /* not 0: another group failed, or this process is asked to end */
    char message[AM_COMM_MESSAGE];

    /* Of a device's engine alone. */
    void *stream; /* the backend's, which fills what is given and uses what comes */
    void *event;  /* what `wait` waits for and frees, under the engine's lock */
    /* AM_ECOMM: there is no use in waiting any longer, and message may say why. Asked at least ten
     * times a second. */
    int (*wait_on)(struct am_comm_call *call);
    void *owner;  /* wait_on's */
    double asked; /* wait_on's */
} am_comm_call;

/* Is there no use in waiting any longer? (A time that is over is said by comm.c.) */
static inline int am_comm_gives_up(const am_comm_call *call)
{
    return __atomic_load_n(call->stopping, __ATOMIC_RELAXED) || am_clock() > call->deadline;
}

/* n is a rank's part: elements of call->dtype of what is reduced, bytes of what is moved. */
typedef struct am_comm_engine {
    uint32_t size, version; /* sizeof, AM_COMM_VERSION */
    const char *name;
    /* Join the others: the group of all ranks. */
    int (*open)(void **group, const am_comm_options *options, am_comm_call *call);
    void (*close)(void *group); /* of the group of all ranks: and leave them */
    int (*rank)(const void *group);
    int (*count)(const void *group);
    /* Ranks of one color, in the order of key. */
    int (*split)(void **out, void *group, int color, int key, am_comm_call *call);
    int (*all_reduce)(void *group, void *x, int64_t n, am_comm_call *call);
    int (*reduce_scatter)(void *group, void *to, const void *from, int64_t n, am_comm_call *call);
    int (*all_gather)(void *group, void *to, const void *from, int64_t n, am_comm_call *call);
    int (*broadcast)(void *group, void *x, int64_t n, int root, am_comm_call *call);
    int (*all_to_all)(void *group, void *to, const int64_t *to_counts, const void *from,
                      const int64_t *from_counts, am_comm_call *call);
    int (*send)(void *group, const void *x, int64_t n, int to, int tag, am_comm_call *call);
    int (*recv)(void *group, void *x, int64_t n, int from, int tag, am_comm_call *call);
    int (*barrier)(void *group, am_comm_call *call);
    /* here[rank] = 1 for ranks that wait in call `number`, too; asks for `seconds` at most. */
    void (*where_are)(void *group, uint8_t *here, int64_t number, double seconds);
    /* This rank waits in call->number of a device's group: answer others' where_are. AM_ECOMM, with
     * the reason, when a rank is known to be gone. Not blocking; asked a few times a second. */
    int (*waits)(void *group, am_comm_call *call);
    int remembers; /* what `waits` was told is answered from then on, without asking again */
    /* End every rank, as far as the engine can; does not return. `why`: for the others. */
    void (*abort)(int status, const char *why);

    /* Of a device's engine alone. */
    /* Which device this rank has, as no other one is called, and whether it can join: AM_ECOMM
     * where not. id: what all need for joining the first rank; NULL on the others. */
    int (*invite)(uint8_t *id, char device[AM_COMM_DEVICE], am_comm_call *call);
    int (*join)(void **group, const uint8_t id[AM_COMM_ID], int rank, int size, am_comm_call *call);
    int (*wait)(void *group, am_comm_call *call);
    /* Beside a `wait` for the same call: what call->stream is given from now on runs behind the
     * part. AM_ECOMM, without a message, where only `wait` knows: it has ended, or has failed. */
    int (*order)(void *group, am_comm_call *call);
    /* After a failure, once it is known who is missing: end what runs on the device, and wait until
     * it uses no tensor any longer. */
    void (*give_up)(void *group);
} am_comm_engine;

/* What a module (amlua_mpi.so, amlua_gloo.so, amlua_cuda.so) has under the name
 * "am_comm_engine_entry". */
typedef const am_comm_engine *(*am_comm_entry)(void);

extern const am_comm_engine am_comm_self;

#ifdef __cplusplus
}
#endif
#endif
