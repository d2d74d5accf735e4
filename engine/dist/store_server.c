/* store_server.c — the server of the ranks' store: a thread that polls. Nobody is waited for: what
 * a peer sends is gathered in his own buffer until it is whole, what he does not read waits in
 * another, and while that is full he is not read from. */
#include "store_server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store_net.h"
#include "store_wire.h"

enum {
    BUCKETS = 4096,
    WAITS = 64,            /* questions of a rank that wait */
    FULL = 4 << 20,        /* bytes that a rank has not read yet */
    ADDRESS = 80,          /* text */
    WHO = STORE_HOST + 64, /* "rank 2 (host n2, process 811)" */
    ROOM = 1 << 16         /* read at a time */
};
static const size_t MOST = (size_t)1 << 30;            /* bytes of all values */
static const double STRANGER = 5, NEWS = 1, FLUSH = 1; /* seconds */

typedef struct bytes {
    uint8_t *data;
    size_t n, room;
} bytes;

typedef struct peer {
    int fd, rank; /* rank: -1 of a stranger */
    int waits;    /* questions of his that wait */
    int leaves;   /* is closed when all is written */
    double since;
    uint8_t nonce[STORE_NONCE], hello[STORE_HELLO];
    size_t got; /* of hello */
    bytes in, out;
    char address[ADDRESS];
} peer;

typedef struct entry {
    struct entry *next;
    char *key;
    uint8_t *value; /* NULL: not set yet; of STORE_MEET */
    uint32_t size, met;
    uint8_t key_bytes;
} entry;

typedef struct waiting {
    struct waiting *next;
    int rank, meets;
    uint32_t id;
    uint8_t key_bytes;
    char key[255];
} waiting;

enum { ABSENT, HERE, LEFT, GONE };

enum { SILENT, NO_RANK, NO_SECRET, UNWANTED, KINDS }; /* of refusals */

typedef struct member {
    int state;
    peer *peer;
    char who[WHO];
} member;

struct am_store_server {
    int listener, wake[2], ranks, n, room;
    char *secret;
    am_store_log log;
    peer **peers;
    struct pollfd *polls;
    member *members;
    entry *buckets[BUCKETS];
    waiting *waits;
    size_t stored;
    char failure[STORE_TEXT];
    double told[KINDS]; /* when log was called, and how often it was not since */
    int untold[KINDS];
    double deaf; /* until when nobody is accepted */
    int ending;
    pthread_t thread;
};

/* ---- what is sent ------------------------------------------------------------------------- */

static int append(bytes *b, const void *data, size_t n)
{
    if (b->n + n > b->room) {
        size_t room = b->n + n + (b->n + n) / 2;
        uint8_t *more = realloc(b->data, room);
        if (!more)
            return 0;
        b->data = more;
        b->room = room;
    }
    if (n > 0)
        memcpy(b->data + b->n, data, n);
    b->n += n;
    return 1;
}

static void drop_front(bytes *b, size_t n)
{
    b->n -= n;
    if (b->n > 0) {
        memmove(b->data, b->data + n, b->n);
    } else if (b->room > FULL) { /* a large value is rare */
        free(b->data);
        *b = (bytes){0};
    }
}

static void say(peer *p, int kind, uint32_t id, const void *value, size_t size)
{
    uint8_t head[STORE_HEAD];
    store_write_head(head, kind, id, 0, size);
    if (!append(&p->out, head, sizeof head) || !append(&p->out, value, size))
        p->leaves = 1; /* out of memory: he notices that he is cut off */
}

static void say_text(peer *p, int kind, uint32_t id, const char *text)
{
    say(p, kind, id, text, strlen(text));
}

/* A line for the log: of each kind one a second, so that a flood of strangers does not fill it. */
static void note(am_store_server *s, const peer *p, int kind, const char *what)
{
    char line[256], more[64] = "";
    double now = am_clock();
    if (!s->log)
        return;
    if (now - s->told[kind] < NEWS) {
        s->untold[kind]++;
        return;
    }
    if (s->untold[kind] > 0)
        snprintf(more, sizeof more, " (and %d more since the last such line)", s->untold[kind]);
    snprintf(line, sizeof line, "the ranks' store refused %s: %s%s", p->address, what, more);
    s->told[kind] = now;
    s->untold[kind] = 0;
    s->log(line);
}

static void tell_all(am_store_server *s, int but, const char *text)
{
    for (int i = 0; i < s->n; i++)
        if (s->peers[i]->rank >= 0 && s->peers[i]->rank != but)
            say_text(s->peers[i], STORE_FAILED, 0, text);
    if (!s->failure[0])
        snprintf(s->failure, sizeof s->failure, "%s", text);
}

/* ---- names -------------------------------------------------------------------------------- */

static entry **find(am_store_server *s, const void *key, size_t n)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ ((const uint8_t *)key)[i]) * 16777619u;
    entry **at = &s->buckets[hash % BUCKETS];
    while (*at && ((*at)->key_bytes != n || memcmp((*at)->key, key, n) != 0))
        at = &(*at)->next;
    return at;
}

static entry *add(entry **at, const void *key, uint8_t n)
{
    entry *e = calloc(1, sizeof *e);
    char *copy = malloc((size_t)n + 1);
    if (!e || !copy) {
        free(e);
        free(copy);
        return NULL;
    }
    memcpy(copy, key, n);
    e->key = copy;
    e->key_bytes = n;
    *at = e;
    return e;
}

static void forget(am_store_server *s, entry **at)
{
    entry *e = *at;
    *at = e->next;
    s->stored -= e->size;
    free(e->key);
    free(e->value);
    free(e);
}

/* Answer those who waited for a name, or to meet under it. */
static void answer(am_store_server *s, const entry *e, int meets)
{
    for (waiting **at = &s->waits; *at;) {
        waiting *w = *at;
        if (w->meets != meets || w->key_bytes != e->key_bytes ||
            memcmp(w->key, e->key, w->key_bytes) != 0) {
            at = &w->next;
            continue;
        }
        peer *p = s->members[w->rank].peer;
        if (p) {
            p->waits--;
            say(p, STORE_YES, w->id, e->value, meets ? 0 : e->size);
        }
        *at = w->next;
        free(w);
    }
}

static const char *set(am_store_server *s, const void *key, uint8_t n, const void *value,
                       uint32_t size)
{
    entry **at = find(s, key, n);
    if (s->stored - (*at ? (*at)->size : 0) + size > MOST)
        return "the ranks' store is full";
    uint8_t *copy = malloc((size_t)size + 1);
    entry *e = *at ? *at : add(at, key, n);
    if (!copy || !e) {
        free(copy);
        return "the ranks' store is out of memory";
    }
    if (size > 0)
        memcpy(copy, value, size);
    s->stored = s->stored - e->size + size;
    free(e->value);
    e->value = copy;
    e->size = size;
    answer(s, e, 0);
    return NULL;
}

static void wait_for(am_store_server *s, peer *p, const store_message *m)
{
    waiting *w = p->waits < WAITS ? calloc(1, sizeof *w) : NULL;
    if (!w) {
        say_text(p, STORE_NO, m->id, "too many questions wait");
        return;
    }
    w->rank = p->rank;
    w->meets = m->kind == STORE_MEET;
    w->id = m->id;
    w->key_bytes = m->key_bytes;
    memcpy(w->key, m->key, m->key_bytes);
    w->next = s->waits;
    s->waits = w;
    p->waits++;
}

/* value: how many are to meet, in text. */
static void meet(am_store_server *s, peer *p, const store_message *m)
{
    char number[16];
    entry **at = find(s, m->key, m->key_bytes);
    entry *e = *at ? *at : add(at, m->key, m->key_bytes);
    store_text(number, sizeof number, m->value, m->value_bytes);
    if (!e || e->value) {
        say_text(p, STORE_NO, m->id, e ? "this name has a value" : "out of memory");
        return;
    }
    wait_for(s, p, m);
    if (++e->met >= (uint32_t)strtoul(number, NULL, 10)) {
        answer(s, e, 1);
        forget(s, find(s, m->key, m->key_bytes));
    }
}

/* ---- ranks -------------------------------------------------------------------------------- */

static void forget_waits(am_store_server *s, int rank)
{
    for (waiting **at = &s->waits; *at;) {
        waiting *w = *at;
        if (w->rank != rank) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        free(w);
    }
}

static void close_peer(am_store_server *s, int i)
{
    peer *p = s->peers[i];
    if (p->rank >= 0) {
        member *m = &s->members[p->rank];
        m->peer = NULL;
        forget_waits(s, p->rank);
        if (m->state == HERE) {
            char text[STORE_TEXT];
            int rank = p->rank;
            m->state = GONE;
            p->rank = -1;
            snprintf(text, sizeof text, "%s is gone", m->who);
            tell_all(s, rank, text);
        }
    }
    close(p->fd);
    free(p->in.data);
    free(p->out.data);
    free(p);
    s->peers[i] = s->peers[--s->n];
}

/* What is wrong with a rank that knows the secret? */
static int refuses(am_store_server *s, const store_hello *h, char why[STORE_TEXT])
{
    why[0] = 0;
    if (h->ranks != (uint32_t)s->ranks)
        snprintf(why, STORE_TEXT, "it says that there are %u ranks, rank 0 says %d", h->ranks,
                 s->ranks);
    else if (h->rank >= (uint32_t)s->ranks)
        snprintf(why, STORE_TEXT, "there is no rank %u of %d", h->rank, s->ranks);
    else if (s->members[h->rank].state != ABSENT)
        snprintf(why, STORE_TEXT, "%s has joined before", s->members[h->rank].who);
    return why[0] != 0;
}

static void admit(am_store_server *s, peer *p)
{
    store_hello h;
    char why[STORE_TEXT], key[32];
    uint8_t welcome[STORE_WELCOME];
    if (!store_read_hello(&h, p->hello, s->secret, p->nonce)) {
        note(s, p, NO_SECRET, "it does not know the secret");
        p->leaves = 1;
        return;
    }
    store_write_welcome(welcome, s->secret, p->nonce, h.nonce);
    if (!append(&p->out, welcome, sizeof welcome)) {
        p->leaves = 1;
    } else if (refuses(s, &h, why)) {
        note(s, p, UNWANTED, why);
        say_text(p, STORE_REFUSED, 0, why);
        p->leaves = 1;
    } else {
        member *m = &s->members[h.rank];
        p->rank = (int)h.rank;
        m->state = HERE;
        m->peer = p;
        snprintf(m->who, sizeof m->who, "rank %u (host %.63s, process %llu)", h.rank, h.host,
                 (unsigned long long)h.pid);
        snprintf(key, sizeof key, "here/%u", h.rank);
        if (set(s, key, (uint8_t)strlen(key), "", 0) != NULL)
            p->leaves = 1;
        if (s->failure[0])
            say_text(p, STORE_FAILED, 0, s->failure);
    }
}

static void give_up(am_store_server *s, peer *p, const store_message *m)
{
    char why[STORE_TEXT], text[STORE_TEXT];
    store_text(why, STORE_TEXT - WHO - 16, m->value, m->value_bytes);
    snprintf(text, sizeof text, "%s gave up: %s", s->members[p->rank].who, why);
    tell_all(s, p->rank, text);
    s->members[p->rank].state = LEFT; /* that he goes now is no news */
    say(p, STORE_YES, m->id, NULL, 0);
}

static void leave(am_store_server *s, peer *p)
{
    char key[32];
    snprintf(key, sizeof key, "left/%d", p->rank);
    (void)set(s, key, (uint8_t)strlen(key), "", 0); /* when memory is out nobody learns it */
    s->members[p->rank].state = LEFT;
    p->leaves = 1;
}

static void obey(am_store_server *s, peer *p, const store_message *m)
{
    entry **at = find(s, m->key, m->key_bytes);
    int there = *at && (*at)->value;
    const char *wrong = NULL;
    switch (m->kind) {
    case STORE_SET:
        wrong = set(s, m->key, m->key_bytes, m->value, m->value_bytes);
        say_text(p, wrong ? STORE_NO : STORE_YES, m->id, wrong ? wrong : "");
        break;
    case STORE_GET:
    case STORE_LOOK:
        if (there)
            say(p, STORE_YES, m->id, (*at)->value, (*at)->size);
        else if (m->kind == STORE_GET)
            wait_for(s, p, m);
        else
            say(p, STORE_NO, m->id, NULL, 0);
        break;
    case STORE_REMOVE:
        if (there)
            forget(s, at);
        say(p, STORE_YES, m->id, NULL, 0);
        break;
    case STORE_MEET:
        meet(s, p, m);
        break;
    case STORE_ABORT:
        give_up(s, p, m);
        break;
    case STORE_BYE:
        leave(s, p);
        break;
    default: /* what only a server says */
        p->leaves = 1;
    }
}

/* ---- reading and writing ------------------------------------------------------------------ */

/* Each returns 0 when the connection is over. */

static int write_peer(peer *p)
{
    while (p->out.n > 0) {
        ssize_t n = send(p->fd, p->out.data, p->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK;
        drop_front(&p->out, (size_t)n);
    }
    return !p->leaves;
}

static int read_stranger(am_store_server *s, peer *p)
{
    ssize_t n = recv(p->fd, p->hello + p->got, STORE_HELLO - p->got, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (n == 0) {
        note(s, p, SILENT, "it left without saying who it is");
        return 0;
    }
    p->got += (size_t)n;
    if (!store_begins_hello(p->hello, p->got)) {
        note(s, p, NO_RANK, "it is no rank of amlua");
        return 0;
    }
    if (p->got == STORE_HELLO)
        admit(s, p);
    return 1;
}

static int read_rank(am_store_server *s, peer *p)
{
    uint8_t data[ROOM];
    ssize_t n = recv(p->fd, data, sizeof data, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (n == 0 || !append(&p->in, data, (size_t)n))
        return 0;
    size_t used = 0;
    store_message m;
    long size = 0;
    while (!p->leaves && (size = store_parse(&m, p->in.data + used, p->in.n - used)) > 0) {
        obey(s, p, &m);
        used += (size_t)size;
    }
    drop_front(&p->in, used);
    return size >= 0;
}

void store_server_adopt(am_store_server *s, int fd, const char *address)
{
    uint8_t greeting[STORE_GREETING];
    peer *p = calloc(1, sizeof *p);
    int strangers = 0, oldest = -1;
    for (int i = 0; i < s->n; i++) {
        if (s->peers[i]->rank >= 0)
            continue;
        strangers++;
        if (oldest < 0 || s->peers[i]->since < s->peers[oldest]->since)
            oldest = i;
    }
    if (strangers >= STORE_PENDING) {
        note(s, s->peers[oldest], SILENT, "it did not say who it is, and others wait");
        close_peer(s, oldest);
    }
    if (!p || s->n == s->room || store_random(p->nonce) != 0) {
        close(fd);
        free(p);
        return;
    }
    p->fd = fd;
    p->rank = -1;
    p->since = am_clock();
    snprintf(p->address, sizeof p->address, "%s", address);
    store_write_greeting(greeting, p->nonce);
    if (!append(&p->out, greeting, sizeof greeting))
        p->leaves = 1;
    s->peers[s->n++] = p;
}

static void accept_some(am_store_server *s)
{
    for (int i = 0; i < STORE_PENDING; i++) {
        struct sockaddr_storage from;
        socklen_t size = sizeof from;
        char text[ADDRESS];
        int fd =
            accept4(s->listener, (struct sockaddr *)&from, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                s->deaf = am_clock() + 0.1;
            return;
        }
        store_tune(fd);
        store_address_text(text, sizeof text, (struct sockaddr *)&from, size);
        store_server_adopt(s, fd, text);
    }
}

void store_server_step(am_store_server *s, int milliseconds)
{
    double now = am_clock();
    int n = s->n; /* those that come meanwhile wait for the next step */
    for (int i = 0; i < n; i++) {
        peer *p = s->peers[i];
        int reads = !p->leaves && p->out.n < FULL;
        s->polls[i] = (struct pollfd){
            .fd = p->fd, .events = (short)((reads ? POLLIN : 0) | (p->out.n > 0 ? POLLOUT : 0))};
    }
    s->polls[n] = (struct pollfd){.fd = s->wake[0], .events = POLLIN};
    s->polls[n + 1] = (struct pollfd){.fd = now < s->deaf ? -1 : s->listener, .events = POLLIN};
    if (poll(s->polls, (nfds_t)n + 2, milliseconds) < 0)
        return;
    now = am_clock();
    for (int i = n - 1; i >= 0; i--) { /* from the end: closing moves the last one here */
        peer *p = s->peers[i];
        short events = s->polls[i].revents;
        int stays = 1;
        if (!p->leaves && events & (POLLIN | POLLHUP | POLLERR))
            stays = p->rank < 0 ? read_stranger(s, p) : read_rank(s, p);
        if (stays && (p->out.n > 0 || p->leaves))
            stays = write_peer(p);
        if (stays && p->rank < 0 && now - p->since > STRANGER) {
            note(s, p, SILENT, "it did not say who it is");
            stays = 0;
        }
        if (!stays)
            close_peer(s, i);
    }
    if (s->polls[n + 1].revents & POLLIN)
        accept_some(s);
}

/* ---- beginning and ending ----------------------------------------------------------------- */

am_store_server *store_server_new(const char *secret, int ranks, am_store_log log)
{
    am_store_server *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->listener = s->wake[0] = s->wake[1] = -1;
    s->ranks = ranks;
    s->log = log;
    s->room = ranks + STORE_PENDING + 1;
    s->secret = secret ? strdup(secret) : NULL;
    s->peers = calloc((size_t)s->room, sizeof *s->peers);
    s->polls = calloc((size_t)s->room + 2, sizeof *s->polls);
    s->members = calloc((size_t)ranks, sizeof *s->members);
    if ((secret && !s->secret) || !s->peers || !s->polls || !s->members ||
        pipe2(s->wake, O_CLOEXEC | O_NONBLOCK) != 0) {
        store_server_free(s);
        return NULL;
    }
    return s;
}

void store_server_free(am_store_server *s)
{
    for (int i = 0; i < s->ranks && s->members; i++)
        s->members[i].state = LEFT; /* nobody is told */
    while (s->n > 0)
        close_peer(s, s->n - 1);
    for (int i = 0; i < BUCKETS; i++)
        while (s->buckets[i])
            forget(s, &s->buckets[i]);
    for (int i = 0; i < 2; i++)
        if (s->wake[i] >= 0)
            close(s->wake[i]);
    if (s->listener >= 0)
        close(s->listener);
    free(s->secret);
    free(s->peers);
    free(s->polls);
    free(s->members);
    free(s);
}

static void *serve(void *arg)
{
    am_store_server *s = arg;
    while (!__atomic_load_n(&s->ending, __ATOMIC_ACQUIRE))
        store_server_step(s, 500);
    for (int i = 0; i < s->n; i++) {
        peer *p = s->peers[i];
        p->leaves = 1;
        if (p->rank >= 0) {
            s->members[p->rank].state = LEFT;
            say(p, STORE_CLOSED, 0, NULL, 0);
        }
    }
    close(s->listener);
    s->listener = -1;
    for (double end = am_clock() + FLUSH; s->n > 0 && am_clock() < end;)
        store_server_step(s, 20);
    return NULL;
}

static int failed(am_store_server *s, am_comm_call *call, const char *address, int port,
                  const char *why)
{
    if (s)
        store_server_free(s);
    snprintf(call->message, sizeof call->message,
             "the ranks' store can't listen at %.200s, port %d: %.200s", address, port, why);
    return AM_ECOMM;
}

int am_store_serve(am_store_server **out, const char *address, int port, const char *secret,
                   int ranks, am_store_log log, am_comm_call *call)
{
    struct addrinfo *all = NULL;
    am_store_server *s = store_server_new(secret, ranks, log);
    if (!s)
        return failed(s, call, address, port, "out of memory");
    int rc = store_resolve(&all, address, port), error = 0;
    if (rc != 0)
        return failed(s, call, address, port, gai_strerror(rc));
    const char *why = NULL;
    for (struct addrinfo *a = all; a && s->listener < 0; a = a->ai_next) {
        if (!secret && !store_is_loopback(a->ai_addr)) {
            why = store_no_secret;
            continue;
        }
        int on = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
            bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 1024) == 0) {
            s->listener = fd;
        } else {
            error = errno;
            if (fd >= 0)
                close(fd);
        }
    }
    freeaddrinfo(all);
    if (s->listener < 0)
        return failed(s, call, address, port, error ? strerror(error) : why ? why : "no address");
    if ((rc = pthread_create(&s->thread, NULL, serve, s)) != 0)
        return failed(s, call, address, port, strerror(rc));
    *out = s;
    return AM_OK;
}

void am_store_end(am_store_server *s)
{
    if (!s)
        return;
    __atomic_store_n(&s->ending, 1, __ATOMIC_RELEASE);
    ssize_t told = write(s->wake[1], "", 1);
    (void)told; /* else it sees at the next step */
    pthread_join(s->thread, NULL);
    store_server_free(s);
}
