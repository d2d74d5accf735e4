/* ranks.c — the emulated NCCL: processes of this host, each with a device of its own, learn the
 * same bits. Without nccl.h there is nothing to test. */
#include <stdio.h>

#if __has_include(<nccl.h>)
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RANKS = 3, N = 300001 }; /* more than a slot, and no multiple of anything */

static int failed;
static cudaStream_t stream;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("# %s:%d: %s\n", __FILE__, __LINE__, #condition);                               \
            failed = 1;                                                                            \
        }                                                                                          \
    } while (0)

static void *device(const void *from, size_t bytes)
{
    void *p = NULL;
    CHECK(cudaMalloc(&p, bytes) == cudaSuccess);
    if (from)
        CHECK(cudaMemcpyAsync(p, from, bytes, cudaMemcpyHostToDevice, stream) == cudaSuccess);
    return p;
}

static void fetch(void *to, const void *from, size_t bytes)
{
    CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
}

static float value(int rank, int i)
{
    return (float)((i * 31 + rank * 7) % 100) / 16;
}

static void collectives(ncclComm_t comm, int rank)
{
    static float in[N], out[N * RANKS];
    for (int i = 0; i < N; i++)
        in[i] = value(rank, i);
    float *a = device(in, sizeof in), *b = device(NULL, sizeof out);
    CHECK(ncclAllReduce(a, b, N, ncclFloat32, ncclSum, comm, stream) == ncclSuccess);
    fetch(out, b, sizeof in);
    for (int i = 0; i < N; i++)
        CHECK(out[i] == value(0, i) + value(1, i) + value(2, i)); /* sixteenths: exact */
    CHECK(ncclAllReduce(a, a, N, ncclFloat32, ncclMax, comm, stream) == ncclSuccess);
    fetch(out, a, sizeof in);
    CHECK(out[1] >= value(0, 1) && out[1] >= value(1, 1) && out[1] >= value(2, 1));
    CHECK(cudaMemcpyAsync(a, in, sizeof in, cudaMemcpyHostToDevice, stream) == cudaSuccess);
    CHECK(ncclAllGather(a, b, N, ncclFloat32, comm, stream) == ncclSuccess);
    fetch(out, b, sizeof out);
    for (int i = 0; i < N * RANKS; i++)
        CHECK(out[i] == value(i / N, i % N));
    enum { EACH = N / RANKS };
    CHECK(ncclReduceScatter(a, b, EACH, ncclFloat32, ncclSum, comm, stream) == ncclSuccess);
    fetch(out, b, EACH * sizeof(float));
    for (int i = 0; i < EACH; i++) {
        int at = rank * EACH + i;
        CHECK(out[i] == value(0, at) + value(1, at) + value(2, at));
    }
    CHECK(ncclBroadcast(a, a, N, ncclFloat32, 1, comm, stream) == ncclSuccess);
    fetch(out, a, sizeof in);
    for (int i = 0; i < N; i++)
        CHECK(out[i] == value(1, i));
    CHECK(cudaFree(a) == cudaSuccess && cudaFree(b) == cudaSuccess);
}

/* 1, 1/256 and -1: whoever rounds the last sum alone to bf16, which NCCL does not, or adds in
 * another order, has another result. */
static void sums_of_bf16(ncclComm_t comm, int rank)
{
    static const uint16_t bits[RANKS] = {0x3f80, 0x3b80, 0xbf80};
    uint16_t x = bits[rank];
    uint16_t *d = device(&x, sizeof x);
    CHECK(ncclAllReduce(d, d, 1, ncclBfloat16, ncclSum, comm, stream) == ncclSuccess);
    fetch(&x, d, sizeof x);
    CHECK(x == 0);
    CHECK(cudaFree(d) == cudaSuccess);
}

/* Around the ring in both directions at the same time: in a group nobody waits for another's turn.
 */
static void messages(ncclComm_t comm, int rank)
{
    static float in[N], left[N], right[N];
    int next = (rank + 1) % RANKS, previous = (rank + RANKS - 1) % RANKS;
    for (int i = 0; i < N; i++)
        in[i] = value(rank, i);
    float *a = device(in, sizeof in), *l = device(NULL, sizeof in), *r = device(NULL, sizeof in);
    CHECK(ncclGroupStart() == ncclSuccess);
    CHECK(ncclSend(a, N, ncclFloat32, next, comm, stream) == ncclSuccess);
    CHECK(ncclSend(a, N, ncclFloat32, previous, comm, stream) == ncclSuccess);
    CHECK(ncclRecv(l, N, ncclFloat32, previous, comm, stream) == ncclSuccess);
    CHECK(ncclRecv(r, N, ncclFloat32, next, comm, stream) == ncclSuccess);
    CHECK(ncclGroupEnd() == ncclSuccess);
    fetch(left, l, sizeof left);
    fetch(right, r, sizeof right);
    for (int i = 0; i < N; i++)
        CHECK(left[i] == value(previous, i) && right[i] == value(next, i));
    CHECK(ncclSend(a, N, ncclFloat32, RANKS, comm, stream) == ncclInvalidArgument);
    CHECK(cudaFree(a) == cudaSuccess && cudaFree(l) == cudaSuccess && cudaFree(r) == cudaSuccess);
}

/* One rank gives up, and the others, who wait for it, learn so. */
static void abandoned(ncclComm_t comm, int rank)
{
    ncclResult_t problem = ncclSuccess;
    float x = 1, *d = device(&x, sizeof x);
    if (rank == 1) {
        usleep(100000);
        CHECK(ncclCommAbort(comm) == ncclSuccess);
    } else {
        CHECK(ncclAllReduce(d, d, 1, ncclFloat32, ncclSum, comm, stream) == ncclSuccess);
        CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
        CHECK(ncclCommGetAsyncError(comm, &problem) == ncclSuccess && problem == ncclRemoteError);
        CHECK(ncclAllReduce(d, d, 1, ncclFloat32, ncclSum, comm, stream) == ncclRemoteError);
        CHECK(ncclCommDestroy(comm) == ncclSuccess);
    }
    CHECK(cudaFree(d) == cudaSuccess);
}

static int run(ncclUniqueId id, int rank)
{
    ncclComm_t comm;
    int count = 0, me = -1;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    if (ncclCommInitRank(&comm, RANKS, id, rank) != ncclSuccess)
        return 1;
    CHECK(ncclCommCount(comm, &count) == ncclSuccess && count == RANKS);
    CHECK(ncclCommUserRank(comm, &me) == ncclSuccess && me == rank);
    collectives(comm, rank);
    sums_of_bf16(comm, rank);
    messages(comm, rank);
    abandoned(comm, rank);
    CHECK(cudaStreamDestroy(stream) == cudaSuccess);
    return failed;
}

int main(void)
{
    ncclUniqueId id;
    int any = 0, status;
    setenv("AM_EMU_MEMORY", "64M", 1);
    setenv("AM_EMU_STREAMS", "rand", 0);
    if (ncclGetUniqueId(&id) != ncclSuccess)
        return 1;
    for (int r = 0; r < RANKS; r++)
        if (fork() == 0) {
            status = run(id, r);
            fflush(stdout);
            _exit(status);
        }
    for (int r = 0; r < RANKS; r++) {
        CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        any |= failed;
    }
    return any;
}
#else
int main(void)
{
    printf("nccl.h is not installed\n");
    return 0;
}
#endif
