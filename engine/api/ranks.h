/* ranks.h — the part of am.h about processes that share a run: groups of them, and what they tell
 * one another. Include am.h. */
#ifndef AM_H
#error "include am.h, which this is a part of"
#endif

/* ---- ranks ------------------------------------------------------------------------------
 * Processes that share a run, and what they tell one another. All ranks of a group call its
 * collectives in the same order, with tensors of the same dtype and size; groups are independent
 * of one another. A collective begins at once, behind the group's earlier ones, on a thread of the
 * group's own, and gives back a work; until am_work_wait ends it, its tensors must neither be
 * changed nor, where they are written, be read. Tensors are dense.
 *
 * Tensors on a GPU go by NCCL, where ranks of mpi and gloo have a GPU each: the first of a group
 * lets its ranks join there, and that fails where NCCL is missing or two have one GPU. Those on the
 * CPU go by the group's engine, independent of the former. A collective's tensors are on one
 * device. On a GPU am_work_wait does not wait: what this process computes there from then on comes
 * behind the collective, and a failure is told by what reads from the GPU next.
 *
 * All ranks get the same bits. Sums of bf16 and f16 are computed in f32 and rounded once.
 *
 * A collective that is not done after the time-out, or whose engine fails, fails with AM_ECOMM and
 * names the ranks that did not come, where they can be told. Every later one fails likewise. */
typedef struct am_comm am_comm; /* a group, seen from this rank */
typedef struct am_work am_work; /* a collective under way */
enum { AM_SUM, AM_MAX, AM_MIN };

typedef struct am_comm_options {
    int32_t rank, size;  /* gloo: this rank, and how many there are. mpi knows */
    const char *address; /* gloo: of the host that rank 0 runs on */
    int32_t port;        /* gloo: where rank 0 listens */
    const char *secret;  /* gloo: what ranks know each other by; NULL: nothing */
    double timeout;      /* seconds of a collective, and of joining; 0: 600 */
    const char *module;  /* file of the engine; NULL: amlua_NAME.so beside libamlua.so */
} am_comm_options;

/* Join: the group of all ranks. engine: "self" (one rank), "mpi" or "gloo". Once a process for mpi
 * and gloo, and what is forked afterwards must not use it. */
int am_comm_open(am_comm **out, const char *engine, const am_comm_options *options);
/* Waits for what is under way. Groups that were split off go before the one of all ranks, with
 * which the process leaves the others. */
void am_comm_release(am_comm *c);
int am_comm_rank(const am_comm *c);
int am_comm_size(const am_comm *c);
/* The place of one of its ranks among all ranks; -1 when out of range. */
int am_comm_world_rank(const am_comm *c, int rank);
/* A group of the ranks of one color (at least 0), in the order of their keys. name: for messages.
 */
int am_comm_split(am_comm **out, am_comm *c, int color, int key, const char *name);

int am_comm_all_reduce(am_work **out, am_comm *c, am_tensor *t, int op); /* in place */
/* from [size n], the ranks' parts one after another -> to [n], this rank's part of the sum. */
int am_comm_reduce_scatter(am_work **out, am_comm *c, am_tensor *to, am_tensor *from, int op);
int am_comm_all_gather(am_work **out, am_comm *c, am_tensor *to, am_tensor *from); /* the reverse */
int am_comm_broadcast(am_work **out, am_comm *c, am_tensor *t, int root);
/* Elements for each rank, one after another, and those from each. */
int am_comm_all_to_all(am_work **out, am_comm *c, am_tensor *to, const int64_t *to_counts,
                       am_tensor *from, const int64_t *from_counts);
/* A group's works are done one after another: of ranks that send in a ring, one receives first. */
int am_comm_send(am_work **out, am_comm *c, am_tensor *t, int to, int tag);
int am_comm_recv(am_work **out, am_comm *c, am_tensor *t, int from, int tag);
int am_comm_barrier(am_work **out, am_comm *c);
int am_work_wait(am_work *w);       /* ends and frees it, also when it returns an error */
int am_work_done(const am_work *w); /* has it ended? */
double am_comm_waited(void);        /* seconds for which this process has waited for works' ends */

/* What this rank's collectives of a group were: calls, and bytes of the tensors that it gave. */
enum {
    AM_COMM_ALL_REDUCE,
    AM_COMM_REDUCE_SCATTER,
    AM_COMM_ALL_GATHER,
    AM_COMM_BROADCAST,
    AM_COMM_ALL_TO_ALL,
    AM_COMM_SEND,
    AM_COMM_RECV,
    AM_COMM_BARRIER,
    AM_COMM_KINDS
};
typedef struct am_comm_counts {
    int64_t calls[8], bytes[8]; /* by AM_COMM_… */
} am_comm_counts;
int am_comm_count(am_comm_counts *out, const am_comm *c);

/* End all ranks, with this exit status; does not return. Nothing is printed here: `why` is for the
 * ranks that wait (gloo). */
void am_comm_abort(am_comm *c, int status, const char *why);
