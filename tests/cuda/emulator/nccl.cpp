// nccl.cpp — NCCL between processes of one host, through POSIX shared memory: a segment for each
// communicator, in which every rank has a slot. Sums go in the order of ranks, so that every rank
// has the same bits; 16-bit types are rounded at each step, as NCCL does.
//
// A collective takes its turn in the stream and goes on beside the program, which may ask for it.
// What waits for a rank that doesn't come gives up when the communicator is aborted, there or here,
// or after AM_EMU_NCCL_SECONDS (60).
#if __has_include(<nccl.h>)
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <sys/mman.h>
#include <thread>
#include <time.h>
#include <string>
#include <unistd.h>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "report.h"
#include "runtime.h"

namespace emu
{
namespace
{
constexpr size_t slot_bytes = 1 << 20;
constexpr int max_ranks = 64;

// A message on its way from one rank to another: one slot, full or not.
struct Mailbox {
    std::atomic<size_t> filled; // bytes; 0: empty
};

struct Segment {
    std::atomic<int> arrived, phase, aborted, attached;
    Mailbox mail[max_ranks][max_ranks]; // of [sender][receiver]
};
static_assert(std::atomic<int>::is_always_lock_free, "atomics that processes share");

constexpr size_t header_bytes = (sizeof(Segment) + 4095) / 4096 * 4096;

struct Comm {
    std::string name; // of the segment
    Segment *segment;
    char *slots;    // a rank's for collectives
    char *messages; // of [sender][receiver]
    size_t bytes;
    int ranks, rank, device;
    std::atomic<int> problem{ncclInProgress}, under_way{0};

    ~Comm()
    {
        munmap(segment, bytes);
    }
    char *slot(int r) const
    {
        return slots + size_t(r) * slot_bytes;
    }
    char *message(int from, int to) const
    {
        return messages + (size_t(from) * size_t(ranks) + size_t(to)) * slot_bytes;
    }
};

typedef std::shared_ptr<Comm> CommPtr; // work that is queued needs it, too

const CommPtr &comm_of(ncclComm_t c)
{
    return *reinterpret_cast<CommPtr *>(c);
}

void nap()
{
    const timespec length = {0, 20000};
    nanosleep(&length, nullptr);
}

double now()
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

double patience()
{
    const char *s = getenv("AM_EMU_NCCL_SECONDS");
    return s ? atof(s) : 60;
}

// False: given up.
template <class F> bool wait_until(Comm *c, F done)
{
    double end = now() + patience();
    while (!done()) {
        if (c->segment->aborted || now() > end) {
            c->problem = c->segment->aborted ? ncclRemoteError : ncclSystemError;
            return false;
        }
        nap();
    }
    return true;
}

bool barrier(Comm *c)
{
    Segment *s = c->segment;
    int phase = s->phase;
    if (s->arrived.fetch_add(1) + 1 == c->ranks) {
        s->arrived = 0;
        s->phase++;
        return !s->aborted;
    }
    return wait_until(c, [=]() { return s->phase != phase; });
}

size_t bytes_of(ncclDataType_t type)
{
    switch (type) {
    case ncclInt8:
    case ncclUint8:
        return 1;
    case ncclFloat16:
    case ncclBfloat16:
        return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
        return 4;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64:
        return 8;
    default:
        return 0;
    }
}

template <class C> C combine(ncclRedOp_t op, C a, C b)
{
    switch (op) {
    case ncclMax:
        return std::max(a, b);
    case ncclMin:
        return std::min(a, b);
    case ncclProd:
        return C(a * b);
    default:
        return C(a + b);
    }
}

// C is what each step is computed in.
template <class T, class C> void reduce_as(Comm *c, void *out, size_t n, ncclRedOp_t op)
{
    for (size_t i = 0; i < n; i++) {
        C x = C(reinterpret_cast<T *>(c->slot(0))[i]);
        for (int r = 1; r < c->ranks; r++)
            x = C(T(combine(op, x, C(reinterpret_cast<T *>(c->slot(r))[i]))));
        static_cast<T *>(out)[i] = T(op == ncclAvg ? C(x / C(c->ranks)) : x);
    }
}

void reduce(Comm *c, ncclDataType_t type, void *out, size_t n, ncclRedOp_t op)
{
    switch (type) {
    case ncclFloat32:
        return reduce_as<float, float>(c, out, n, op);
    case ncclFloat64:
        return reduce_as<double, double>(c, out, n, op);
    case ncclBfloat16:
        return reduce_as<__nv_bfloat16, float>(c, out, n, op);
    case ncclFloat16:
        return reduce_as<__half, float>(c, out, n, op);
    case ncclInt8:
        return reduce_as<int8_t, int>(c, out, n, op);
    case ncclUint8:
        return reduce_as<uint8_t, unsigned>(c, out, n, op);
    case ncclInt32:
        return reduce_as<int32_t, int64_t>(c, out, n, op);
    case ncclUint32:
        return reduce_as<uint32_t, uint64_t>(c, out, n, op);
    case ncclInt64:
        return reduce_as<int64_t, int64_t>(c, out, n, op);
    default:
        return reduce_as<uint64_t, uint64_t>(c, out, n, op);
    }
}

// Every rank that has bytes puts them into its slot, a part at a time, and `use` takes what it
// wants of all slots: use(offset, length).
template <class F> void exchange(Comm *c, const void *from, size_t bytes, F use)
{
    for (size_t at = 0; at < bytes; at += slot_bytes) {
        size_t n = std::min(slot_bytes, bytes - at);
        if (from)
            touch([&]() { memcpy(c->slot(c->rank), static_cast<const char *>(from) + at, n); });
        if (!barrier(c))
            return;
        touch([&]() { use(at, n); });
        if (!barrier(c))
            return;
    }
}

bool operand(const char *call, const void *p, size_t bytes, Access access)
{
    bool right = false;
    touch([&]() { right = check_operand(call, p, bytes, access); });
    return right;
}

std::vector<char> copy_of(const void *p, size_t bytes)
{
    std::vector<char> copy(bytes);
    touch([&]() { memcpy(copy.data(), p, bytes); });
    return copy;
}

// ---- groups: calls between GroupStart and GroupEnd are one operation of their stream

struct Message {
    CommPtr comm;
    cudaStream_t stream;
    bool is_send;
    const void *from;
    void *to;
    size_t bytes;
    int peer;
    size_t done;
};

thread_local int depth;
thread_local std::vector<Message> group;

// A part of a message, if the mailbox lets it through.
bool progress(Message &m)
{
    Comm *c = m.comm.get();
    int sender = m.is_send ? c->rank : m.peer, receiver = m.is_send ? m.peer : c->rank;
    std::atomic<size_t> &filled = c->segment->mail[sender][receiver].filled;
    if (m.is_send ? filled != 0 : filled == 0)
        return false;
    char *box = c->message(sender, receiver);
    if (m.is_send) {
        size_t n = std::min(slot_bytes, m.bytes - m.done);
        touch([&]() { memcpy(box, static_cast<const char *>(m.from) + m.done, n); });
        m.done += n;
        filled = n;
    } else {
        size_t n = filled;
        if (n > m.bytes - m.done) {
            touch([&]() {
                blame("ncclRecv");
                fault(After::go_on,
                      format("rank %d sends more than the %zu bytes that rank %d waits for", m.peer,
                             m.bytes, c->rank));
            });
            n = m.bytes - m.done;
        }
        touch([&]() { memcpy(static_cast<char *>(m.to) + m.done, box, n); });
        m.done += n;
        filled = 0;
    }
    return true;
}

// All messages of a group go on beside each other: none waits for another's turn.
void run_messages(std::vector<Message> &messages)
{
    for (const Message &m : messages)
        if (!operand(m.is_send ? "ncclSend" : "ncclRecv", m.is_send ? m.from : m.to, m.bytes,
                     m.is_send ? Access::read : Access::write))
            return;
    size_t left = size_t(
        std::count_if(messages.begin(), messages.end(), [](const Message &m) { return m.bytes; }));
    while (left) {
        bool moved = wait_until(messages[0].comm.get(), [&]() {
            bool any = false;
            for (size_t i = 0; i < messages.size(); i++) {
                Message &m = messages[i];
                // In order between the same two ranks.
                bool first = std::none_of(
                    messages.begin(), messages.begin() + ptrdiff_t(i), [&](const Message &o) {
                        return o.is_send == m.is_send && o.peer == m.peer && o.done < o.bytes;
                    });
                if (m.done == m.bytes || !first || !progress(m))
                    continue;
                any = true;
                left -= m.done == m.bytes;
            }
            return any;
        });
        if (!moved)
            return;
    }
}

ncclResult_t enqueue(const CommPtr &c, cudaStream_t stream, Work work)
{
    Call call;
    Stream *s = find_stream(stream);
    if (call.problem)
        return ncclUnhandledCudaError;
    if (!s)
        return ncclInvalidArgument;
    if (c->problem)
        return ncclResult_t(int(c->problem));
    if (fails_now(Failure::comm)) {
        c->problem = ncclSystemError;
        return ncclSystemError;
    }
    bool breaks = fails_now(Failure::wire);
    c->under_way++;
    submit_apart(s, [c, work, breaks]() {
        if (c->segment->aborted)
            c->problem = ncclRemoteError;
        else if (breaks)
            c->problem = ncclSystemError;
        else
            work();
        c->under_way--;
    });
    return ncclSuccess;
}

ncclResult_t add_message(Message m)
{
    if (m.peer < 0 || m.peer >= m.comm->ranks)
        return ncclInvalidArgument;
    group.push_back(m);
    return depth ? ncclSuccess : (depth++, ncclGroupEnd());
}

ncclResult_t check(ncclDataType_t type, ncclRedOp_t op)
{
    return bytes_of(type) && op >= ncclSum && op <= ncclAvg ? ncclSuccess : ncclInvalidArgument;
}
} // namespace
} // namespace emu

using namespace emu;

extern "C" {
ncclResult_t ncclGetVersion(int *version)
{
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t r)
{
    switch (r) {
    case ncclSuccess:
        return "no error";
    case ncclUnhandledCudaError:
        return "unhandled cuda error";
    case ncclSystemError:
        return "unhandled system error";
    case ncclInvalidArgument:
        return "invalid argument";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    default:
        return "another error of NCCL";
    }
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int count;
    Call call;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/am_emu_nccl_%d_%d", int(getpid()), count++);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    if (ranks < 1 || ranks > max_ranks || rank < 0 || rank >= ranks || id.internal[0] != '/')
        return ncclInvalidArgument;
    size_t n = size_t(ranks), bytes = header_bytes + (n + n * n) * slot_bytes;
    int fd = shm_open(id.internal, O_CREAT | O_RDWR, 0600);
    if (fd < 0 || ftruncate(fd, off_t(bytes))) {
        if (fd >= 0)
            close(fd);
        return ncclSystemError;
    }
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return ncclSystemError;
    auto c = std::make_shared<Comm>();
    c->name = id.internal;
    c->segment = static_cast<Segment *>(p);
    c->slots = static_cast<char *>(p) + header_bytes;
    c->messages = c->slots + n * slot_bytes;
    c->bytes = bytes;
    c->ranks = ranks;
    c->rank = rank;
    c->device = current_device();
    *out = reinterpret_cast<ncclComm_t>(new CommPtr(c));
    bool breaks = fails_now(Failure::join);
    std::thread joining([c, breaks]() {
        bool all = !breaks && barrier(c.get());
        if (c->rank == 0) // nobody else has to find it
            shm_unlink(c->name.c_str());
        if (all)
            c->problem = ncclSuccess;
        else if (breaks)
            c->problem = ncclSystemError;
    });
    if (!config->blocking) {
        joining.detach();
        return ncclInProgress;
    }
    joining.join();
    return ncclResult_t(int(c->problem));
}

ncclResult_t ncclCommInitRank(ncclComm_t *out, int ranks, ncclUniqueId id, int rank)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 1;
    return ncclCommInitRankConfig(out, ranks, id, rank, &config);
}

// Its work goes on to its end.
ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    const CommPtr &c = comm_of(comm);
    while (c->under_way) {
        {
            Call call;
            make_progress();
        }
        nap();
    }
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    ncclCommFinalize(comm);
    delete reinterpret_cast<CommPtr *>(comm);
    return ncclSuccess;
}

// Without the lock: somebody who holds it may be waiting for a rank.
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    comm_of(comm)->segment->aborted = 1;
    delete reinterpret_cast<CommPtr *>(comm);
    return ncclSuccess;
}

const char *ncclGetLastError(ncclComm_t)
{
    return "";
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    *error = ncclResult_t(int(comm_of(comm)->problem));
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count)
{
    *count = comm_of(comm)->ranks;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank)
{
    *rank = comm_of(comm)->rank;
    return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device)
{
    *device = comm_of(comm)->device;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    CommPtr c = comm_of(comm);
    size_t size = bytes_of(type), bytes = count * size;
    if (check(type, op) != ncclSuccess)
        return ncclInvalidArgument;
    return enqueue(c, stream, [=]() {
        if (operand("ncclAllReduce", from, bytes, Access::read) &&
            operand("ncclAllReduce", to, bytes, Access::write))
            exchange(c.get(), from, bytes, [=](size_t at, size_t n) {
                reduce(c.get(), type, static_cast<char *>(to) + at, n / size, op);
            });
    });
}

ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    CommPtr c = comm_of(comm);
    size_t size = bytes_of(type), bytes = count * size;
    if (check(type, op) != ncclSuccess)
        return ncclInvalidArgument;
    return enqueue(c, stream, [=]() {
        if (!operand("ncclReduceScatter", from, bytes * size_t(c->ranks), Access::read))
            return;
        // Beforehand: `to` may be a part of `from`.
        std::vector<char> copy = copy_of(from, bytes * size_t(c->ranks));
        if (!operand("ncclReduceScatter", to, bytes, Access::write))
            return;
        for (int r = 0; r < c->ranks; r++)
            exchange(c.get(), copy.data() + size_t(r) * bytes, bytes, [=](size_t at, size_t n) {
                if (r == c->rank)
                    reduce(c.get(), type, static_cast<char *>(to) + at, n / size, op);
            });
    });
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    CommPtr c = comm_of(comm);
    size_t bytes = count * bytes_of(type);
    if (check(type, ncclSum) != ncclSuccess)
        return ncclInvalidArgument;
    return enqueue(c, stream, [=]() {
        if (!operand("ncclAllGather", from, bytes, Access::read))
            return;
        std::vector<char> copy = copy_of(from, bytes);
        if (!operand("ncclAllGather", to, bytes * size_t(c->ranks), Access::write))
            return;
        exchange(c.get(), copy.data(), bytes, [=](size_t at, size_t n) {
            for (int r = 0; r < c->ranks; r++)
                memcpy(static_cast<char *>(to) + size_t(r) * bytes + at, c->slot(r), n);
        });
    });
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    CommPtr c = comm_of(comm);
    size_t bytes = count * bytes_of(type);
    if (check(type, ncclSum) != ncclSuccess || root < 0 || root >= c->ranks)
        return ncclInvalidArgument;
    return enqueue(c, stream, [=]() {
        bool mine = c->rank == root;
        if ((mine && !operand("ncclBroadcast", from, bytes, Access::read)) ||
            !operand("ncclBroadcast", to, bytes, Access::write))
            return;
        exchange(c.get(), mine ? from : nullptr, bytes, [=](size_t at, size_t n) {
            memcpy(static_cast<char *>(to) + at, c->slot(root), n);
        });
    });
}

ncclResult_t ncclReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                        ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream)
{
    CommPtr c = comm_of(comm);
    size_t size = bytes_of(type), bytes = count * size;
    if (check(type, op) != ncclSuccess || root < 0 || root >= c->ranks)
        return ncclInvalidArgument;
    return enqueue(c, stream, [=]() {
        bool mine = c->rank == root;
        if (!operand("ncclReduce", from, bytes, Access::read) ||
            (mine && !operand("ncclReduce", to, bytes, Access::write)))
            return;
        exchange(c.get(), from, bytes, [=](size_t at, size_t n) {
            if (mine)
                reduce(c.get(), type, static_cast<char *>(to) + at, n / size, op);
        });
    });
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return add_message(
        {comm_of(comm), stream, true, from, nullptr, count * bytes_of(type), peer, 0});
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return add_message(
        {comm_of(comm), stream, false, nullptr, to, count * bytes_of(type), peer, 0});
}

ncclResult_t ncclGroupStart(void)
{
    depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (depth < 1)
        return ncclInvalidUsage;
    if (--depth || group.empty())
        return ncclSuccess;
    auto messages = std::make_shared<std::vector<Message>>(std::move(group));
    group.clear();
    const Message &first = messages->front();
    for (const Message &m : *messages)
        if (m.comm != first.comm || m.stream != first.stream) // one stream of one communicator
            return ncclInvalidUsage;
    return enqueue(first.comm, first.stream, [messages]() {
        std::vector<Message> fresh = *messages; // a graph runs them again and again
        run_messages(fresh);
    });
}
}
#endif
