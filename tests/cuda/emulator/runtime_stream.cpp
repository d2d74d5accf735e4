// runtime_stream.cpp — streams, events and graphs of the CUDA runtime API.
#include <algorithm>
#include <set>

#include "block.h"
#include "memory.h"
#include "options.h"
#include "report.h"
#include "runtime.h"

namespace emu
{
namespace
{
auto &events = *new std::set<Event *>;
typedef std::shared_ptr<const Graph> Executable;

Event *find_event(cudaEvent_t e)
{
    auto *known = reinterpret_cast<Event *>(e);
    return events.count(known) ? known : nullptr;
}

cudaError_t waited()
{
    counters.waits++;
    if (!options().strict) // under it every look costs two system calls
        check_guards();
    return device_failure();
}

void leave_capture(Capture &c)
{
    for (Stream *s : c.streams) {
        s->capture = nullptr;
        s->captured.clear();
    }
    c.origin = nullptr;
}

// A captured event: what follows in the stream comes after it, in the same graph.
cudaError_t join_capture(Stream *s, const Event &e)
{
    if (!e.capture->origin)
        return cudaErrorCapturedEvent;
    if (s->capture && s->capture != e.capture)
        return cudaErrorStreamCaptureIsolation;
    if (!s->capture) {
        s->capture = e.capture;
        e.capture->streams.push_back(s);
    }
    s->captured.insert(s->captured.end(), e.captured.begin(), e.captured.end());
    return cudaSuccess;
}

cudaError_t end_capture(Stream *s, Graph **out)
{
    std::shared_ptr<Capture> c = s->capture;
    *out = nullptr;
    if (!c)
        return cudaErrorIllegalState;
    if (c->origin != s)
        return cudaErrorStreamCaptureUnmatched;
    bool joined = all_joined(c->graph, s->captured);
    leave_capture(*c);
    if (c->broken)
        return cudaErrorStreamCaptureInvalidated;
    if (!joined)
        return cudaErrorStreamCaptureUnjoined;
    *out = new Graph(std::move(c->graph));
    return cudaSuccess;
}
} // namespace
} // namespace emu

using namespace emu;

// The two beginnings of nearly every call: `c` holds the lock, `s` is the stream.
#define BEGIN()                                                                                    \
    Call c;                                                                                        \
    if (c.problem)                                                                                 \
    return remember(c.problem)
#define BEGIN_WITH(stream)                                                                         \
    BEGIN();                                                                                       \
    Stream *s = find_stream(stream);                                                               \
    if (!s)                                                                                        \
    return remember(cudaErrorInvalidResourceHandle)
#define FIND_EVENT(e, handle)                                                                      \
    Event *e = find_event(handle);                                                                 \
    if (!e)                                                                                        \
    return remember(cudaErrorInvalidResourceHandle)

extern "C" {
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    BEGIN();
    *stream = reinterpret_cast<cudaStream_t>(
        new_stream(current_device(), !(flags & cudaStreamNonBlocking)));
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    BEGIN();
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    BEGIN_WITH(stream);
    if (!stream)
        return remember(cudaErrorInvalidResourceHandle);
    delete_stream(s);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    BEGIN_WITH(stream);
    if (s->capture || capture_forbids()) {
        if (s->capture)
            s->capture->broken = true;
        return remember(cudaErrorStreamCaptureUnsupported);
    }
    if (s->last)
        complete(s->last);
    return remember(waited());
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    BEGIN_WITH(stream);
    if (!s->last || s->last->done)
        return remember(device_failure());
    make_progress();
    return cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize(void)
{
    BEGIN();
    if (capture_forbids())
        return remember(cudaErrorStreamCaptureUnsupported);
    counters.waits++;
    complete_all();
    check_guards();
    return remember(device_failure());
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t f, void *data)
{
    BEGIN_WITH(stream);
    submit(s, [=]() { f(data); });
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    BEGIN();
    auto *e = new Event();
    e->timed = !(flags & cudaEventDisableTiming);
    events.insert(e);
    *event = reinterpret_cast<cudaEvent_t>(e);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    BEGIN();
    FIND_EVENT(e, event);
    events.erase(e);
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    BEGIN_WITH(stream);
    FIND_EVENT(e, event);
    e->capture = s->capture;
    e->captured = s->captured;
    e->ticket = s->capture ? nullptr : submit_and_mark(s, nullptr, {});
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    BEGIN_WITH(stream);
    FIND_EVENT(e, event);
    if (e->capture)
        return remember(join_capture(s, *e));
    if (s->capture) { // work outside of a capture can't be waited for inside
        s->capture->broken = true;
        return remember(cudaErrorStreamCaptureIsolation);
    }
    if (e->ticket)
        submit_and_mark(s, nullptr, {e->ticket});
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    BEGIN();
    FIND_EVENT(e, event);
    if (e->capture)
        return remember(cudaErrorCapturedEvent);
    if (!e->ticket)
        return remember(device_failure());
    complete(e->ticket);
    return remember(waited());
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    BEGIN();
    FIND_EVENT(e, event);
    if (!e->ticket || e->ticket->done)
        return remember(device_failure());
    make_progress();
    return cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    BEGIN();
    FIND_EVENT(a, from);
    FIND_EVENT(b, to);
    if (!a->timed || !b->timed || !a->ticket || !b->ticket)
        return remember(cudaErrorInvalidResourceHandle);
    if (!a->ticket->done || !b->ticket->done)
        return cudaErrorNotReady;
    *ms = float((b->ticket->seconds - a->ticket->seconds) * 1e3);
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    BEGIN_WITH(stream);
    if (!stream) // the default stream can't be captured
        return remember(cudaErrorStreamCaptureUnsupported);
    if (s->capture)
        return remember(cudaErrorIllegalState);
    s->capture = begin_capture(s, mode);
    s->captured.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    BEGIN_WITH(stream);
    Graph *g;
    cudaError_t e = end_capture(s, &g);
    *graph = reinterpret_cast<cudaGraph_t>(g);
    return remember(e);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status)
{
    BEGIN_WITH(stream);
    *status = !s->capture          ? cudaStreamCaptureStatusNone
              : s->capture->broken ? cudaStreamCaptureStatusInvalidated
                                   : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status,
                                     unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges,
                                     size_t *count)
{
    if (graph || nodes || edges || count) // a graph under way is not shown
        return remember(cudaErrorNotSupported);
    cudaError_t e = cudaStreamIsCapturing(stream, status);
    if (e == cudaSuccess && id && *status == cudaStreamCaptureStatusActive) {
        Call c;
        *id = find_stream(stream)->capture->id;
    }
    return e;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    BEGIN();
    if (!graph)
        return remember(cudaErrorInvalidValue);
    auto copy = std::make_shared<const Graph>(*reinterpret_cast<Graph *>(graph));
    *exec = reinterpret_cast<cudaGraphExec_t>(new Executable(copy));
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long flags)
{
    return cudaGraphInstantiate(exec, graph, flags);
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo *info)
{
    BEGIN();
    auto &executable = *reinterpret_cast<Executable *>(exec);
    auto &changed = *reinterpret_cast<Graph *>(graph);
    bool same = executable->nodes.size() == changed.nodes.size();
    if (info)
        info->result = same ? cudaGraphExecUpdateSuccess : cudaGraphExecUpdateErrorTopologyChanged;
    if (!same)
        return remember(cudaErrorGraphExecUpdateFailure);
    executable = std::make_shared<const Graph>(changed);
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    BEGIN();
    if (nodes) // only their number is known
        return remember(cudaErrorNotSupported);
    *count = reinterpret_cast<Graph *>(graph)->nodes.size();
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t stream)
{
    BEGIN_WITH(stream);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    BEGIN_WITH(stream);
    Executable graph = *reinterpret_cast<Executable *>(exec);
    submit(s, [graph]() { run_graph(*graph); });
    return remember(device_failure());
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    Call c;
    delete reinterpret_cast<Graph *>(graph);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    Call c;
    auto *graph = reinterpret_cast<Executable *>(exec);
    if (graph->use_count() > 1) { // a launch has it, too
        blame("cudaGraphExecDestroy");
        fault(After::go_on, "destroys a graph that is still to run");
    }
    delete graph;
    return cudaSuccess;
}
}
