// stream.h — streams, events and graphs: work is queued in closures, and runs at once (eager), when
// somebody waits for it (lazy), or in any legal order (random). A missing wait shows in the last
// two.
#pragma once
#include <cuda_runtime_api.h>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

namespace emu
{
struct Stream;

// A place in a stream's queue: what is waited for.
struct Ticket {
    Stream *stream;
    bool done = false;
    double seconds = 0; // when it was done
};
typedef std::shared_ptr<Ticket> TicketPtr;
typedef std::function<void()> Work;

struct Operation {
    Work work;
    bool apart;                   // on an OS thread of its own, for what waits for other processes
    std::vector<TicketPtr> after; // besides what is before it in its stream
    TicketPtr ticket;
};

// Captured work; `after` are indices of nodes.
struct Node {
    Work work;
    std::vector<size_t> after;
};
struct Graph {
    std::vector<Node> nodes;
};

struct Capture {
    Graph graph;
    cudaStreamCaptureMode mode;
    Stream *origin;
    std::vector<Stream *> streams;
    unsigned long long id;
    bool broken = false;
};

struct Stream {
    int device;
    bool with_default; // waits for the default stream, and it for this one
    std::deque<Operation> queue;
    bool busy = false; // with work on a thread of its own
    TicketPtr last;
    std::shared_ptr<Capture> capture;
    std::vector<size_t> captured; // nodes that the next one comes after
};

struct Event {
    bool timed;
    TicketPtr ticket;
    std::shared_ptr<Capture> capture;
    std::vector<size_t> captured;
};

// NULL: no such stream.
Stream *find_stream(cudaStream_t s);
Stream *new_stream(int device, bool with_default);
void delete_stream(Stream *s);

void submit(Stream *s, Work work);
// The same of work that waits for other processes: it runs without the lock, and nobody waits for
// it who does not ask for its end.
void submit_apart(Stream *s, Work work);
TicketPtr submit_and_mark(Stream *s, Work work, std::vector<TicketPtr> after);
// Runs what has to run until then.
void complete(const TicketPtr &t);
void complete_all();
// For somebody who only asks: lets some work happen, so that asking again and again comes to an
// end.
void make_progress();

// A capture under way, whose mode forbids calls that wait or allocate.
bool capture_forbids();
std::shared_ptr<Capture> begin_capture(Stream *s, cudaStreamCaptureMode mode);
// Runs a graph's nodes, in their order or in any that is legal.
void run_graph(const Graph &g);
// Does every node come before the captured ones?
bool all_joined(const Graph &g, const std::vector<size_t> &last);
} // namespace emu
