/* gloo.cc — ranks over Gloo's TCP transport, as a module of its own (amlua_gloo.so): the only file
 * in C++, and the only one that knows Gloo. What ranks find one another by is store.h.
 *
 * Each group has a Gloo context: a full mesh of connections and a thread that serves them. Gloo's
 * waits can't be ended by another thread, and one that is in the middle of a message does not
 * even notice that the connection broke. So Gloo waits on buffers of wires.h, and a watcher, one
 * thread a process, ends the waits of calls that give up, and all waits when a rank is gone. A
 * group in which a call failed is broken for good: its connections are closed, which the others
 * notice.
 *
 * What Gloo does not do: its connections are not encrypted, and take whoever connects first. Each
 * rank therefore sends every other a proof that comes from the store before a group is used, and a
 * stranger ends the joining with a message; he must be kept away by the network. Ranks that give
 * different sizes for one collective may end in Gloo's std::terminate. */
#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/alltoall.h>
#include <gloo/alltoallv.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "folds.h"
#include "wires.h"
#include "store.h"

namespace
{

constexpr double look = 0.05;  // seconds between two looks of the watcher
constexpr double waited = 1;   // after which a rank says where it is
constexpr double news = 3;     // for word of who is gone, when a connection broke
constexpr double farewell = 5; // for the others to end, too

/* ---- groups, and what the process has ----------------------------------------------------- */

struct Group {
    std::shared_ptr<Line> line;
    std::shared_ptr<gloo::rendezvous::Context> context;
    std::string name;       // of its keys in the store
    std::vector<int> world; // its ranks' places among all
    int splits = 0;
};

struct Call { // under way
    am_comm_call *call;
    const Group *group;
    std::shared_ptr<Line> line;
    double since;
};

struct Word { // to the others
    int64_t number, told;
};

struct Process {
    am_store_server *server = nullptr; // of rank 0
    am_store *store = nullptr;
    Group *world = nullptr;
    std::mutex lock;
    std::list<Call> calls;
    std::map<std::string, Word> words;          // by their keys in the store
    std::vector<std::unique_ptr<Group>> closed; // groups that others may still use
    std::thread watcher;
    std::atomic<bool> ending{false}, broken{false}; // broken: a call failed
};

Process process;
const int never = 0;

/* A question that does not belong to a collective. */
am_comm_call question(double seconds)
{
    am_comm_call call = {};
    call.deadline = am_clock() + seconds;
    call.stopping = &never;
    return call;
}

void log_line(const char *line)
{
    std::fprintf(stderr, "amlua: %s\n", line);
}

/* ---- the store, as Gloo sees it ----------------------------------------------------------- */

struct Failed { // call->message says why
};

void check(int rc)
{
    if (rc != AM_OK)
        throw Failed();
}

struct Freed {
    void *data = nullptr;
    size_t bytes = 0;
    ~Freed()
    {
        std::free(data);
    }
};

class Names : public gloo::rendezvous::Store
{
  public:
    Names(const std::string &group, am_comm_call *call) : group_(group), call_(call)
    {
    }
    void set(const std::string &key, const std::vector<char> &data) override
    {
        check(am_store_set(process.store, (group_ + key).c_str(), data.data(), data.size(), call_));
    }
    std::vector<char> get(const std::string &key) override
    {
        Freed value;
        check(
            am_store_get(process.store, (group_ + key).c_str(), &value.data, &value.bytes, call_));
        const char *at = static_cast<const char *>(value.data);
        return std::vector<char>(at, at + value.bytes);
    }
    void wait(const std::vector<std::string> &keys) override
    {
        for (const std::string &key : keys)
            get(key);
    }
    void wait(const std::vector<std::string> &keys, const std::chrono::milliseconds &) override
    {
        wait(keys);
    }
    void remove(const std::string &key)
    {
        check(am_store_remove(process.store, (group_ + key).c_str(), call_));
    }

  private:
    const std::string group_;
    am_comm_call *const call_;
};

/* ---- the watcher -------------------------------------------------------------------------- */

bool post(const std::string &key, int64_t number)
{
    am_comm_call call = question(0.5);
    return am_store_set(process.store, key.c_str(), &number, sizeof number, &call) == AM_OK;
}

/* The watcher posts it, again until it went well. process.lock is held. */
void tell(const std::string &key, int64_t number)
{
    Word &word = process.words.emplace(key, Word{-1, -1}).first->second;
    word.number = std::max(word.number, number);
}

int64_t posted(const std::string &key)
{
    am_comm_call call = question(0.5);
    Freed value;
    int64_t number = -1;
    if (am_store_look(process.store, key.c_str(), &value.data, &value.bytes, &call) == AM_OK &&
        value.data && value.bytes == sizeof number)
        std::memcpy(&number, value.data, sizeof number);
    return number;
}

std::string where(const Group &group, int rank)
{
    return group.name + "where/" + std::to_string(rank);
}

void watch()
{
    char message[AM_COMM_MESSAGE];
    bool failed = false;
    while (!process.ending) {
        std::vector<std::pair<std::string, int64_t>> posts, told;
        if (failed)
            std::this_thread::sleep_for(std::chrono::duration<double>(look));
        else
            failed = am_store_failure(process.store, look, message);
        {
            std::lock_guard<std::mutex> guard(process.lock);
            for (Call &c : process.calls) {
                if (am_clock() > c.call->deadline) // that others don't take it for a death
                    tell(c.group->name + "late", c.call->number);
                if (c.group->context && am_clock() - c.since > waited)
                    tell(where(*c.group, c.group->context->rank), c.call->number);
            }
            for (const auto &w : process.words)
                if (w.second.told < w.second.number)
                    posts.emplace_back(w.first, w.second.number);
        }
        for (const auto &p : posts)
            if (post(p.first, p.second))
                told.push_back(p);
        std::vector<std::shared_ptr<Line>> lines;
        {
            std::lock_guard<std::mutex> guard(process.lock);
            for (const auto &p : told)
                process.words[p.first].told = p.second;
            for (const Call &c : process.calls)
                if (!c.line->broken() && (failed || am_comm_gives_up(c.call)))
                    lines.push_back(c.line);
        }
        for (const auto &line : lines)
            line->break_off();
    }
}

/* Known to the watcher while it lives. */
class Watched
{
  public:
    Watched(am_comm_call *call, const Group &group)
    {
        std::lock_guard<std::mutex> guard(process.lock);
        process.calls.push_front({call, &group, group.line, am_clock()});
        at_ = process.calls.begin();
    }
    ~Watched()
    {
        std::lock_guard<std::mutex> guard(process.lock);
        process.calls.erase(at_);
    }

  private:
    std::list<Call>::iterator at_;
};

/* ---- calls -------------------------------------------------------------------------------- */

int say(am_comm_call *call, const char *text)
{
    std::snprintf(call->message, sizeof call->message, "%s", text);
    return AM_ECOMM;
}

/* Gloo's text begins with a file of its sources: "[/…/pair.cc:598] Connection closed …". */
const char *bare(const char *text)
{
    const char *end = *text == '[' ? std::strstr(text, "] ") : nullptr;
    return end ? end + 2 : text;
}

/* The first of the group's ranks that ended in order, or -1. */
int who_left(const Group &group)
{
    for (int rank : group.world) {
        am_comm_call ask = question(0.5);
        Freed value;
        const std::string key = "left/" + std::to_string(rank);
        if (am_store_look(process.store, key.c_str(), &value.data, &value.bytes, &ask) == AM_OK &&
            value.data)
            return rank;
    }
    return -1;
}

/* Why? A rank that is gone is told by the store, which may take a moment; one that gave up since
 * its time was over has left word. */
int failed(const Group &group, am_comm_call *call, const char *text)
{
    const bool given_up = group.line->broken();
    process.broken = true;
    group.line->break_off();
    if (am_store_failure(process.store, 0, call->message))
        return AM_ECOMM;
    if (given_up || am_comm_gives_up(call))
        return say(call, "");
    for (double end = am_clock() + news; am_clock() < end && !am_comm_gives_up(call);) {
        if (am_store_failure(process.store, look, call->message))
            return AM_ECOMM;
        if (posted(group.name + "late") == call->number)
            return say(call, "");
    }
    if (am_comm_gives_up(call))
        return say(call, "");
    const int left = who_left(group);
    if (left >= 0)
        return say(call, ("rank " + std::to_string(left) + " has left the others").c_str());
    return say(call, bare(text));
}

template <class Body> int guarded(am_comm_call *call, const Body &body)
{
    try {
        return body();
    } catch (const std::exception &e) {
        return say(call, bare(e.what()));
    } catch (...) {
        return say(call, "an unknown exception");
    }
}

/* A part of a group's collective: what Gloo throws becomes the call's message. */
template <class Body> int during(const Group &group, am_comm_call *call, const Body &body)
{
    return guarded(call, [&] {
        Watched watched(call, group);
        try {
            if (group.line->broken())
                throw gloo::IoException("the group is broken");
            body();
            return static_cast<int>(AM_OK);
        } catch (const Failed &) {
            process.broken = true;
            group.line->break_off();
            return static_cast<int>(AM_ECOMM);
        } catch (const std::exception &e) {
            return failed(group, call, e.what());
        }
    });
}

Group &group_of(void *self)
{
    return *static_cast<Group *>(self);
}

/* ---- joining, splitting, leaving ---------------------------------------------------------- */

std::shared_ptr<Line> new_line()
{
    gloo::transport::tcp::attr attr;
    const char *interface = std::getenv("GLOO_SOCKET_IFNAME");
    if (interface && *interface)
        attr.iface = interface;
    else
        attr.hostname = am_store_address(process.store);
    return std::make_shared<Line>(attr);
}

/* What rank `from` proves itself to rank `to` of the group by. */
void proof(uint8_t *out, const std::vector<char> &secret, const Group &group, int from, int to)
{
    std::string text(secret.begin(), secret.end());
    text += group.name + std::to_string(from) + ">" + std::to_string(to);
    am_hash(out, text.data(), text.size());
}

std::vector<char> shared_secret(Names &names, int rank)
{
    if (rank == 0) {
        std::vector<char> random(AM_HASH_BYTES);
        if (getentropy(random.data(), random.size()) != 0)
            throw gloo::IoException("this system has no random numbers");
        names.set("secret", random);
        return random;
    }
    return names.get("secret");
}

/* Is each connection one to the rank that it should be? */
void prove(const Group &group, Names &names)
{
    const int rank = group.context->rank, size = group.context->size;
    const std::vector<char> secret = shared_secret(names, rank);
    const size_t bytes = AM_HASH_BYTES, all = bytes * static_cast<size_t>(size);
    std::vector<uint8_t> own(all), got(all), expected(bytes);
    for (int r = 0; r < size; r++)
        proof(&own[bytes * static_cast<size_t>(r)], secret, group, rank, r);
    gloo::AlltoallOptions options(group.context);
    options.setInput(own.data(), all);
    options.setOutput(got.data(), all);
    gloo::alltoall(options);
    for (int r = 0; r < size; r++) {
        proof(expected.data(), secret, group, r, rank);
        if (!std::equal(expected.begin(), expected.end(),
                        got.begin() + static_cast<std::ptrdiff_t>(bytes) * r))
            throw gloo::IoException("a stranger answers in place of rank " + std::to_string(r));
    }
}

int connect(std::unique_ptr<Group> &group, const std::string &name, int rank,
            const std::vector<int> &world, am_comm_call *call)
{
    const int size = static_cast<int>(world.size());
    group = std::make_unique<Group>();
    group->name = name;
    group->world = world;
    group->line = new_line();
    return during(*group, call, [&] {
        Names names(name, call);
        auto context = std::make_shared<gloo::rendezvous::Context>(rank, size);
        std::shared_ptr<gloo::transport::Device> device = group->line;
        context->setTimeout(forever);
        context->connectFullMesh(names, device);
        {
            std::lock_guard<std::mutex> guard(process.lock);
            group->context = context;
        }
        if (size > 1)
            prove(*group, names);
        names.remove(std::to_string(rank)); // all have read it; the longest of the store's values
        names.remove("rank_" + std::to_string(rank));
    });
}

/* Wait for what each of `size` ranks has set, and name those who did not. */
std::vector<std::vector<char>> gather(const std::string &prefix, int size, am_comm_call *call)
{
    std::vector<std::vector<char>> all;
    try {
        Names names(prefix, call);
        for (int r = 0; r < size; r++)
            all.push_back(names.get(std::to_string(r)));
    } catch (const Failed &) {
        if (call->message[0] || am_clock() <= call->deadline)
            throw;
        std::string missing, why = "not all ranks came";
        for (int r = 0; r < size; r++) {
            am_comm_call ask = question(1);
            Freed value;
            const std::string key = prefix + std::to_string(r);
            if (am_store_look(process.store, key.c_str(), &value.data, &value.bytes, &ask) == AM_OK)
                missing += value.data ? "" : (missing.empty() ? "rank " : ", ") + std::to_string(r);
            else if (ask.message[0]) /* another rank has given up a moment before, and said why */
                why = ask.message;
        }
        say(call, missing.empty() ? why.c_str() : ("there came no " + missing).c_str());
        throw;
    }
    return all;
}

void leave()
{
    process.ending = true;
    if (process.watcher.joinable())
        process.watcher.join();
    process.closed.clear();
    process.words.clear();
    am_store_leave(process.store);
    am_store_end(process.server);
    process.store = nullptr;
    process.server = nullptr;
}

int open_checked(void **out, const am_comm_options *o, am_comm_call *call)
{
    if (process.store)
        return say(call, "this process has joined already");
    if (o->size < 1 || o->rank < 0 || o->rank >= o->size || !o->address || o->port < 1 ||
        o->port > 65535)
        return say(call, "gloo needs a rank below the number of ranks, an address and a port");
    const char *secret = o->secret && *o->secret ? o->secret : nullptr;
    process.ending = process.broken = false;
    if (o->rank == 0 && am_store_serve(&process.server, o->address, o->port, secret, o->size,
                                       log_line, call) != AM_OK)
        return AM_ECOMM;
    if (am_store_join(&process.store, o->address, o->port, secret, o->rank, o->size, call) !=
        AM_OK) {
        am_store_end(process.server);
        process.server = nullptr;
        return AM_ECOMM;
    }
    process.watcher = std::thread(watch);
    std::unique_ptr<Group> world;
    int rc = guarded(call, [&] {
        try {
            gather("here/", o->size, call);
        } catch (const Failed &) {
            return static_cast<int>(AM_ECOMM);
        }
        std::vector<int> all(static_cast<size_t>(o->size));
        std::iota(all.begin(), all.end(), 0);
        return connect(world, "world/", o->rank, all, call);
    });
    if (rc != AM_OK) {
        am_comm_call last = question(1);
        if (call->message[0])
            am_store_abort(process.store, call->message, &last);
        leave();
        return rc;
    }
    process.world = world.get();
    *out = world.release();
    return AM_OK;
}

int open_gloo(void **out, const am_comm_options *options, am_comm_call *call)
{
    return guarded(call, [&] { return open_checked(out, options, call); });
}

/* Others may still read what this rank has sent: connections stay until all ranks end. */
void close_gloo(void *self)
{
    std::unique_ptr<Group> group(static_cast<Group *>(self));
    try {
        if (group.get() != process.world) {
            std::lock_guard<std::mutex> guard(process.lock);
            process.closed.push_back(std::move(group));
            return;
        }
        am_comm_call call = question(farewell);
        if (!process.broken)
            am_store_meet(process.store, "farewell", group->context->size, &call);
        process.world = nullptr;
        group.reset();
        leave();
    } catch (const std::exception &e) {
        log_line(bare(e.what()));
    }
}

int rank_gloo(const void *self)
{
    return static_cast<const Group *>(self)->context->rank;
}

int count_gloo(const void *self)
{
    return static_cast<const Group *>(self)->context->size;
}

struct Choice {
    int color, key, rank;
};

int split(void **out, void *self, int color, int key, am_comm_call *call)
{
    Group &parent = group_of(self);
    return guarded(call, [&] {
        const int size = parent.context->size;
        const std::string name = parent.name + "split" + std::to_string(parent.splits++) + "/";
        const Choice own = {color, key, parent.context->rank};
        std::vector<Choice> members;
        try {
            check(am_store_set(process.store, (name + std::to_string(own.rank)).c_str(), &own,
                               sizeof own, call));
            for (const std::vector<char> &value : gather(name, size, call)) {
                Choice choice = {};
                std::memcpy(&choice, value.data(), std::min(value.size(), sizeof choice));
                if (choice.color == color)
                    members.push_back(choice);
            }
        } catch (const Failed &) {
            return static_cast<int>(AM_ECOMM);
        }
        std::sort(members.begin(), members.end(), [](const Choice &a, const Choice &b) {
            return a.key != b.key ? a.key < b.key : a.rank < b.rank;
        });
        int rank = 0;
        std::vector<int> world;
        for (const Choice &member : members) {
            if (member.rank == own.rank)
                rank = static_cast<int>(world.size());
            world.push_back(parent.world[static_cast<size_t>(member.rank)]);
        }
        std::unique_ptr<Group> group;
        const int rc = connect(group, name + std::to_string(color) + "/", rank, world, call);
        if (rc == AM_OK)
            *out = group.release();
        return rc;
    });
}

/* ---- collectives -------------------------------------------------------------------------- */

/* Of elements of the call's dtype. Gloo's options count bytes from a pointer to bytes. */
size_t bytes_of(int64_t n, const am_comm_call &call)
{
    return static_cast<size_t>(n) * static_cast<size_t>(am_dtype_size(call.dtype));
}

std::unique_ptr<gloo::transport::UnboundBuffer> buffer(const Group &group, const void *x, size_t n)
{
    return group.context->createUnboundBuffer(const_cast<void *>(x), n);
}

/* Ring: each part is summed along the ring and then handed round, so all ranks have its bits. */
template <class T> void ring(const Group &group, void *x, size_t n, Fold f)
{
    gloo::AllreduceOptions options(group.context);
    options.setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);
    options.setOutput(static_cast<T *>(x), n);
    options.setReduceFunction(f);
    gloo::allreduce(options);
}

int all_reduce(void *self, void *x, int64_t n, am_comm_call *call)
{
    Group &group = group_of(self);
    return during(group, call, [&] {
        const Fold f = fold_of(*call);
        if (am_dtype_size(call->dtype) == 4)
            ring<int32_t>(group, x, static_cast<size_t>(n), f);
        else
            ring<int64_t>(group, x, static_cast<size_t>(n), f);
    });
}

void exchange(const Group &group, void *to, std::vector<int64_t> to_counts, const void *from,
              std::vector<int64_t> from_counts)
{
    gloo::AlltoallvOptions options(group.context);
    options.setInput(static_cast<uint8_t *>(const_cast<void *>(from)), std::move(from_counts));
    options.setOutput(static_cast<uint8_t *>(to), std::move(to_counts));
    gloo::alltoallv(options);
}

/* Each rank gets its part of all others at once and sums in the order of ranks: as many bytes as
 * along a ring. (Gloo's own, of its old interface, can't be given up.) */
int reduce_scatter(void *self, void *to, const void *from, int64_t n, am_comm_call *call)
{
    Group &group = group_of(self);
    return during(group, call, [&] {
        const Fold f = fold_of(*call);
        const size_t bytes = bytes_of(n, *call), size = static_cast<size_t>(group.context->size);
        std::unique_ptr<uint8_t[]> parts(new uint8_t[bytes * size + 1]);
        const std::vector<int64_t> counts(size, static_cast<int64_t>(bytes));
        exchange(group, parts.get(), counts, from, counts);
        std::memcpy(to, parts.get(), bytes);
        for (size_t r = 1; r < size; r++)
            f(to, to, parts.get() + r * bytes, static_cast<size_t>(n));
    });
}

int all_gather(void *self, void *to, const void *from, int64_t n, am_comm_call *call)
{
    Group &group = group_of(self);
    return during(group, call, [&] {
        const size_t bytes = bytes_of(n, *call);
        if (bytes == 0) // Gloo divides by it
            return;
        gloo::AllgatherOptions options(group.context);
        options.setInput(static_cast<uint8_t *>(const_cast<void *>(from)), bytes);
        options.setOutput(static_cast<uint8_t *>(to),
                          bytes * static_cast<size_t>(group.context->size));
        gloo::allgather(options);
    });
}

int broadcast(void *self, void *x, int64_t n, int root, am_comm_call *call)
{
    Group &group = group_of(self);
    return during(group, call, [&] {
        gloo::BroadcastOptions options(group.context);
        options.setOutput(static_cast<uint8_t *>(x), bytes_of(n, *call));
        options.setRoot(root);
        gloo::broadcast(options);
    });
}

int all_to_all(void *self, void *to, const int64_t *to_counts, const void *from,
               const int64_t *from_counts, am_comm_call *call)
{
    Group &group = group_of(self);
    return during(group, call, [&] {
        const int64_t bytes = am_dtype_size(call->dtype);
        std::vector<int64_t> out(to_counts, to_counts + group.context->size);
        std::vector<int64_t> in(from_counts, from_counts + group.context->size);
        for (size_t r = 0; r < out.size(); r++) {
            out[r] *= bytes;
            in[r] *= bytes;
        }
        exchange(group, to, std::move(out), from, std::move(in));
    });
}

/* Slots of Gloo's collectives begin with a byte below 16. */
uint64_t slot(int tag)
{
    return uint64_t{0x20} << 56 | static_cast<uint32_t>(tag);
}

int send_gloo(void *self, const void *x, int64_t n, int to, int tag, am_comm_call *call)
{
    Group &group = group_of(self);
    return during(group, call, [&] {
        auto data = buffer(group, x, bytes_of(n, *call));
        data->send(to, slot(tag));
        data->waitSend();
    });
}

int recv_gloo(void *self, void *x, int64_t n, int from, int tag, am_comm_call *call)
{
    Group &group = group_of(self);
    return during(group, call, [&] {
        auto data = buffer(group, x, bytes_of(n, *call));
        data->recv(from, slot(tag));
        data->waitRecv();
    });
}

int barrier(void *self, am_comm_call *call)
{
    Group &group = group_of(self);
    return during(group, call, [&] {
        gloo::BarrierOptions options(group.context);
        gloo::barrier(options);
    });
}

void where_are(void *self, uint8_t *here, int64_t number, double seconds)
{
    Group &group = group_of(self);
    const int rank = group.context->rank, size = group.context->size;
    am_comm_call none = {};
    guarded(&none, [&] {
        const double end = am_clock() + seconds;
        {
            std::lock_guard<std::mutex> guard(process.lock);
            tell(where(group, rank), number);
        }
        for (bool all = false; !all;) {
            all = true;
            for (int r = 0; r < size; r++) {
                here[r] = here[r] || r == rank || posted(where(group, r)) >= number;
                all = all && here[r];
            }
            if (all || am_clock() + look > end)
                break;
            std::this_thread::sleep_for(std::chrono::duration<double>(look));
        }
        return static_cast<int>(AM_OK);
    });
}

int waits(void *self, am_comm_call *call)
{
    return guarded(call, [&] {
        {
            std::lock_guard<std::mutex> guard(process.lock);
            tell(where(group_of(self), rank_gloo(self)), call->number);
        }
        return am_store_failure(process.store, 0, call->message) ? int{AM_ECOMM} : int{AM_OK};
    });
}

/* Others fail in what they wait for, with these words. */
void abort_gloo(int status, const char *why)
{
    if (process.store) {
        am_comm_call call = question(1);
        am_store_abort(process.store, why, &call);
        if (process.server) // its words must be read before they go with this process
            std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
    _exit(status);
}

am_comm_engine make_engine()
{
    am_comm_engine e = {};
    e.size = sizeof(am_comm_engine);
    e.version = AM_COMM_VERSION;
    e.name = "gloo";
    e.open = open_gloo;
    e.close = close_gloo;
    e.rank = rank_gloo;
    e.count = count_gloo;
    e.split = split;
    e.all_reduce = all_reduce;
    e.reduce_scatter = reduce_scatter;
    e.all_gather = all_gather;
    e.broadcast = broadcast;
    e.all_to_all = all_to_all;
    e.send = send_gloo;
    e.recv = recv_gloo;
    e.barrier = barrier;
    e.where_are = where_are;
    e.waits = waits;
    e.remembers = 1; // the store does
    e.abort = abort_gloo;
    return e;
}

} // namespace

extern "C" __attribute__((visibility("default"))) const am_comm_engine *am_comm_engine_entry(void);
const am_comm_engine *am_comm_engine_entry(void)
{
    static const am_comm_engine engine = make_engine();
    return &engine;
}
