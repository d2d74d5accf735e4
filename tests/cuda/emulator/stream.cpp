// stream.cpp — see stream.h.
#include "stream.h"

#include <algorithm>
#include <map>
#include <set>
#include <thread>
#include <time.h>

#include "options.h"
#include "runtime.h"

namespace emu
{
namespace
{
auto &streams = *new std::set<Stream *>;
auto &default_streams = *new std::map<int, Stream *>; // of each device
auto &captures = *new std::vector<std::weak_ptr<Capture>>;
unsigned long long capture_count;
const timespec pause_length = {0, 20000};

double now()
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

Stream *default_stream(int device)
{
    Stream *&s = default_streams[device];
    if (!s)
        s = new_stream(device, false);
    return s;
}

bool is_default(const Stream *s)
{
    auto it = default_streams.find(s->device);
    return it != default_streams.end() && it->second == s;
}

bool can_run(const Stream *s)
{
    if (s->busy || s->queue.empty())
        return false;
    const Operation &o = s->queue.front();
    return std::all_of(o.after.begin(), o.after.end(), [](const TicketPtr &t) { return t->done; });
}

void end(const TicketPtr &t)
{
    t->seconds = now();
    t->done = true;
}

void run_first(Stream *s)
{
    Operation o = std::move(s->queue.front());
    s->queue.pop_front();
    if (o.apart) {
        s->busy = true;
        std::thread([s, o]() {
            o.work();
            Call call;
            s->busy = false;
            end(o.ticket);
        }).detach();
        return;
    }
    if (o.work)
        o.work();
    end(o.ticket);
}

// Let others in for a moment: what is waited for is on another thread.
void pause()
{
    Unlocked unlocked;
    nanosleep(&pause_length, nullptr);
}

// Any stream whose next operation can run; NULL when nothing is queued.
Stream *random_runnable()
{
    std::vector<Stream *> able;
    for (Stream *s : streams)
        if (can_run(s))
            able.push_back(s);
    return able.empty() ? nullptr : able[random_number() % able.size()];
}

// All but what waits for another thread.
void run_what_can()
{
    for (bool any = true; any;) {
        any = false;
        for (Stream *s : std::vector<Stream *>(streams.begin(), streams.end()))
            for (; can_run(s); any = true)
                run_first(s);
    }
}

// The default stream and those that go with it wait for each other.
void add_default_order(Stream *s, std::vector<TicketPtr> &after)
{
    if (is_default(s)) {
        for (Stream *other : streams)
            if (other->with_default && other->device == s->device && other->last)
                after.push_back(other->last);
    } else if (s->with_default) {
        Stream *d = default_stream(s->device);
        if (d->last)
            after.push_back(d->last);
    }
}
} // namespace

Stream *find_stream(cudaStream_t s)
{
    if (s == nullptr || s == cudaStreamLegacy || s == cudaStreamPerThread)
        return default_stream(current_device());
    auto *known = reinterpret_cast<Stream *>(s);
    return streams.count(known) ? known : nullptr;
}

Stream *new_stream(int device, bool with_default)
{
    auto *s = new Stream();
    s->device = device;
    s->with_default = with_default;
    streams.insert(s);
    return s;
}

void delete_stream(Stream *s)
{
    if (s->last)
        complete(s->last);
    streams.erase(s);
    delete s;
}

void submit(Stream *s, Work work)
{
    if (s->capture) {
        Graph &g = s->capture->graph;
        g.nodes.push_back({std::move(work), s->captured});
        s->captured = {g.nodes.size() - 1};
        return;
    }
    submit_and_mark(s, std::move(work), {});
}

static TicketPtr push(Stream *s, Work work, bool apart, std::vector<TicketPtr> after)
{
    add_default_order(s, after);
    auto ticket = std::make_shared<Ticket>();
    ticket->stream = s;
    s->last = ticket;
    s->queue.push_back({std::move(work), apart, std::move(after), ticket});
    if (options().streams == Streams::eager)
        run_what_can();
    else if (options().streams == Streams::random && random_bit())
        make_progress();
    return ticket;
}

TicketPtr submit_and_mark(Stream *s, Work work, std::vector<TicketPtr> after)
{
    return push(s, std::move(work), false, std::move(after));
}

void submit_apart(Stream *s, Work work)
{
    if (s->capture)
        submit(s, std::move(work));
    else
        push(s, std::move(work), true, {});
}

void complete(const TicketPtr &t)
{
    while (!t->done) {
        Stream *s = t->stream;
        if (options().streams == Streams::random)
            s = random_runnable();
        else if (!s->busy && !can_run(s)) {
            // Everything comes after what was submitted before it: this ends.
            for (const TicketPtr &a : std::vector<TicketPtr>(s->queue.front().after))
                complete(a);
            continue;
        }
        if (s && !s->busy)
            run_first(s);
        else
            pause();
    }
}

void complete_all()
{
    std::vector<TicketPtr> tickets;
    for (Stream *s : streams)
        if (s->last)
            tickets.push_back(s->last);
    for (const TicketPtr &t : tickets)
        complete(t);
}

void make_progress()
{
    if (options().streams == Streams::eager)
        return run_what_can();
    do {
        if (Stream *s = random_runnable())
            run_first(s);
    } while (random_bit() && random_runnable());
}

bool capture_forbids()
{
    for (const auto &weak : captures)
        if (auto c = weak.lock())
            if (c->origin && c->mode != cudaStreamCaptureModeRelaxed) {
                c->broken = true;
                return true;
            }
    return false;
}

std::shared_ptr<Capture> begin_capture(Stream *s, cudaStreamCaptureMode mode)
{
    auto c = std::make_shared<Capture>();
    c->mode = mode;
    c->origin = s;
    c->streams = {s};
    c->id = ++capture_count;
    captures.erase(std::remove_if(captures.begin(), captures.end(),
                                  [](const std::weak_ptr<Capture> &w) { return w.expired(); }),
                   captures.end());
    captures.push_back(c);
    return c;
}

void run_graph(const Graph &g)
{
    size_t n = g.nodes.size();
    std::vector<bool> done(n, false);
    for (size_t ran = 0; ran < n; ran++) {
        std::vector<size_t> able;
        for (size_t i = 0; i < n; i++) {
            const auto &after = g.nodes[i].after;
            if (!done[i] &&
                std::all_of(after.begin(), after.end(), [&](size_t a) { return done[a]; })) {
                able.push_back(i);
                if (options().streams != Streams::random)
                    break;
            }
        }
        size_t i =
            options().streams == Streams::random ? able[random_number() % able.size()] : able[0];
        if (g.nodes[i].work)
            g.nodes[i].work();
        done[i] = true;
    }
}

bool all_joined(const Graph &g, const std::vector<size_t> &last)
{
    std::vector<bool> before(g.nodes.size(), false);
    for (size_t i : last)
        before[i] = true;
    // A node comes after nodes with smaller indices only.
    for (size_t i = g.nodes.size(); i-- > 0;)
        if (before[i])
            for (size_t a : g.nodes[i].after)
                before[a] = true;
    return std::all_of(before.begin(), before.end(), [](bool b) { return b; });
}
} // namespace emu
