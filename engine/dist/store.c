/* store.c — a rank's side of the ranks' store: joining, questions, and a thread that reads what the
 * server says, answers and bad news alike. */
#include "store.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "store_net.h"
#include "store_wire.h"

enum { SLICE = 50, LARGEST = STORE_HEAD + 255 + STORE_VALUE }; /* ms between two looks; bytes */

typedef struct question {
    struct question *next;
    uint32_t id;
    int answered, kind; /* of the answer */
    uint8_t *value;
    size_t bytes;
} question;

struct am_store {
    int fd, leaving, closed, failed;
    char address[64], place[300]; /* own, as numbers; of the server */
    uint32_t id;
    question *questions;
    char failure[AM_COMM_MESSAGE];
    pthread_t reader;
    pthread_mutex_t lock, writes; /* all of the above; sending */
    pthread_cond_t news;
};

static int fail(am_comm_call *call, const char *what, const char *why)
{
    snprintf(call->message, sizeof call->message, "%.250s: %.250s", what, why);
    return AM_ECOMM;
}

/* ---- joining ------------------------------------------------------------------------------ */

/* Waits until the socket is ready. 0: given up, or too late for this try. */
static int ready(int fd, short events, double end, const am_comm_call *call)
{
    struct pollfd p = {.fd = fd, .events = events};
    while (!am_comm_gives_up(call) && am_clock() < end) {
        int n = poll(&p, 1, SLICE);
        if (n > 0)
            return 1;
        if (n < 0 && errno != EINTR)
            return 0;
    }
    return 0;
}

/* All bytes, or nothing. */
static int receive(int fd, uint8_t *to, size_t bytes, double end, const am_comm_call *call)
{
    for (size_t got = 0; got < bytes;) {
        if (!ready(fd, POLLIN, end, call))
            return 0;
        ssize_t n = recv(fd, to + got, bytes - got, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return 0;
        got += n > 0 ? (size_t)n : 0;
    }
    return 1;
}

static int try_address(const struct addrinfo *a, double end, const am_comm_call *call)
{
    int error = 0;
    socklen_t size = sizeof error;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if ((connect(fd, a->ai_addr, a->ai_addrlen) == 0 || errno == EINPROGRESS) &&
        ready(fd, POLLOUT, end, call) && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 &&
        error == 0) {
        store_tune(fd);
        return fd;
    }
    close(fd);
    return -1;
}

enum { RETRY, JOINED, HOPELESS }; /* of a try */

static const double TRY = 5; /* seconds */

/* Each proves to the other that it knows the secret. */
static int shake_hands(am_store *s, const char *secret, const store_hello *self, am_comm_call *call)
{
    uint8_t greeting[STORE_GREETING], hello[STORE_HELLO], welcome[STORE_WELCOME];
    uint8_t nonce[STORE_NONCE];
    double end = am_clock() + TRY;
    if (!receive(s->fd, greeting, sizeof greeting, end, call))
        return RETRY;
    if (!store_read_greeting(nonce, greeting)) {
        fail(call, s->place, "what listens there is not the ranks' store");
        return HOPELESS;
    }
    store_write_hello(hello, self, secret, nonce);
    if (send(s->fd, hello, sizeof hello, MSG_NOSIGNAL) != (ssize_t)sizeof hello)
        return RETRY;
    if (!receive(s->fd, welcome, sizeof welcome, end, call)) {
        /* overloaded, ended, or: */
        fail(call, s->place, "the ranks' store refuses this rank; is the secret that of rank 0?");
        return RETRY;
    }
    if (!store_read_welcome(welcome, secret, nonce, self->nonce)) {
        fail(call, s->place, "the ranks' store there does not know the secret of this rank");
        return HOPELESS;
    }
    call->message[0] = 0;
    return JOINED;
}

/* One try of all addresses. */
static int try_once(am_store *s, const struct addrinfo *all, const char *secret,
                    const store_hello *self, am_comm_call *call)
{
    for (const struct addrinfo *a = all; a; a = a->ai_next) {
        if (!secret && !store_is_loopback(a->ai_addr)) {
            fail(call, s->place, store_no_secret);
            continue;
        }
        s->fd = try_address(a, am_clock() + TRY, call);
        if (s->fd < 0)
            continue;
        int state = shake_hands(s, secret, self, call);
        if (state != RETRY)
            return state;
        close(s->fd);
        s->fd = -1;
    }
    return RETRY;
}

static int own_address(am_store *s)
{
    struct sockaddr_storage own;
    socklen_t size = sizeof own;
    return getsockname(s->fd, (struct sockaddr *)&own, &size) == 0 &&
           getnameinfo((struct sockaddr *)&own, size, s->address, sizeof s->address, NULL, 0,
                       NI_NUMERICHOST) == 0;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = SLICE * 1000000L}, NULL);
}

static int find_server(am_store *s, const char *address, int port, const char *secret,
                       const store_hello *self, am_comm_call *call)
{
    int state = RETRY;
    char first[AM_COMM_MESSAGE] = "";
    while (state == RETRY && !am_comm_gives_up(call)) {
        struct addrinfo *all = NULL;
        int rc = store_resolve(&all, address, port); /* anew: a host may get its name later */
        if (rc != 0) {
            fail(call, s->place, gai_strerror(rc));
        } else {
            state = try_once(s, all, secret, self, call);
            freeaddrinfo(all);
        }
        if (state == RETRY)
            nap();
        if (call->message[0])
            memcpy(first, call->message, sizeof first);
    }
    if (state == JOINED) {
        if (own_address(s))
            return AM_OK;
        return fail(call, s->place, strerror(errno));
    }
    if (first[0])
        memcpy(call->message, first, sizeof first);
    else if (am_clock() > call->deadline)
        fail(call, s->place, "rank 0 does not listen there");
    return AM_ECOMM;
}

/* ---- what the server says ----------------------------------------------------------------- */

/* The lock is held. */
static void set_failure(am_store *s, const char *text)
{
    if (!s->failed)
        snprintf(s->failure, sizeof s->failure, "%s", text);
    s->failed = 1;
    pthread_cond_broadcast(&s->news);
}

static void hear(am_store *s, const store_message *m)
{
    char text[STORE_TEXT];
    store_text(text, sizeof text, m->value, m->value_bytes);
    if (m->kind == STORE_FAILED || m->kind == STORE_REFUSED) {
        char refused[AM_COMM_MESSAGE];
        snprintf(refused, sizeof refused, "rank 0 refuses this rank: %.400s", text);
        set_failure(s, m->kind == STORE_FAILED ? text : refused);
        return;
    }
    if (m->kind == STORE_CLOSED)
        s->closed = 1;
    for (question *q = s->questions; q; q = q->next) {
        if (q->id != m->id || q->answered || (m->kind != STORE_YES && m->kind != STORE_NO))
            continue;
        q->value = malloc((size_t)m->value_bytes + 1);
        q->kind = q->value ? m->kind : STORE_NO;
        if (q->value)
            memcpy(q->value, m->value, m->value_bytes);
        q->bytes = m->value_bytes;
        q->answered = 1;
    }
    pthread_cond_broadcast(&s->news);
}

static void *read_all(void *arg)
{
    am_store *s = arg;
    uint8_t *data = malloc(LARGEST); /* pages that are not used cost nothing */
    size_t have = 0;
    while (data && have < LARGEST) {
        ssize_t n = recv(s->fd, data + have, LARGEST - have, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            struct pollfd p = {.fd = s->fd, .events = POLLIN};
            poll(&p, 1, -1);
            continue;
        }
        if (n <= 0)
            break;
        have += (size_t)n;
        size_t used = 0;
        store_message m;
        long size;
        pthread_mutex_lock(&s->lock);
        while ((size = store_parse(&m, data + used, have - used)) > 0) {
            hear(s, &m);
            used += (size_t)size;
        }
        pthread_mutex_unlock(&s->lock);
        if (size < 0)
            break;
        have -= used;
        memmove(data, data + used, have);
    }
    free(data);
    pthread_mutex_lock(&s->lock);
    if (!s->leaving && !s->closed)
        set_failure(s, "rank 0, which keeps the ranks' store, is gone");
    s->closed = 1;
    pthread_cond_broadcast(&s->news);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

int am_store_join(am_store **out, const char *address, int port, const char *secret, int rank,
                  int ranks, am_comm_call *call)
{
    store_hello self = {
        .rank = (uint32_t)rank, .ranks = (uint32_t)ranks, .pid = (uint64_t)getpid()};
    am_store *s = calloc(1, sizeof *s);
    int rc = store_random(self.nonce);
    if (!s || rc != 0) {
        free(s);
        return fail(call, "joining the ranks' store", rc ? strerror(rc) : "out of memory");
    }
    if (gethostname(self.host, sizeof self.host - 1) != 0)
        snprintf(self.host, sizeof self.host, "unknown");
    s->fd = -1;
    snprintf(s->place, sizeof s->place, "%.200s, port %d", address, port);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->writes, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    rc = find_server(s, address, port, secret, &self, call);
    if (rc == AM_OK && pthread_create(&s->reader, NULL, read_all, s) != 0)
        rc = fail(call, s->place, "no thread can be started");
    if (rc != AM_OK) {
        if (s->fd >= 0)
            close(s->fd);
        free(s);
        return rc;
    }
    /* the first answer says whether this rank is welcome */
    char key[32];
    void *value;
    size_t bytes;
    snprintf(key, sizeof key, "here/%d", rank);
    rc = am_store_get(s, key, &value, &bytes, call);
    if (rc != AM_OK) {
        am_store_leave(s);
        return rc;
    }
    free(value);
    *out = s;
    return AM_OK;
}

/* ---- questions ---------------------------------------------------------------------------- */

static int send_message(am_store *s, int kind, uint32_t id, const char *key, const void *value,
                        size_t bytes)
{
    uint8_t head[STORE_HEAD];
    size_t key_bytes = strlen(key), total = STORE_HEAD + key_bytes + bytes, sent = 0;
    store_write_head(head, kind, id, key_bytes, bytes);
    uint8_t *whole = malloc(total);
    if (!whole)
        return 0;
    memcpy(whole, head, STORE_HEAD);
    memcpy(whole + STORE_HEAD, key, key_bytes);
    if (bytes > 0)
        memcpy(whole + STORE_HEAD + key_bytes, value, bytes);
    double end = am_clock() + TRY; /* the server always reads */
    pthread_mutex_lock(&s->writes);
    while (sent < total) {
        ssize_t n = send(s->fd, whole + sent, total - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            sent += (size_t)n;
        } else if (errno == EAGAIN && am_clock() < end) {
            struct pollfd p = {.fd = s->fd, .events = POLLOUT};
            poll(&p, 1, SLICE);
        } else if (errno != EINTR) {
            break;
        }
    }
    pthread_mutex_unlock(&s->writes);
    free(whole);
    return sent == total;
}

/* Wait for news; the lock is held. */
static void wait_slice(am_store *s, double seconds)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    long ns = t.tv_nsec + (long)(seconds * 1e9);
    t.tv_sec += ns / 1000000000L;
    t.tv_nsec = ns % 1000000000L;
    pthread_cond_timedwait(&s->news, &s->lock, &t);
}

/* The lock is held. */
static void end_question(am_store *s, question *q)
{
    question **at = &s->questions;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
}

static int ask(am_store *s, question *q, int kind, const char *key, const void *value, size_t bytes,
               am_comm_call *call)
{
    if (strlen(key) > 255 || bytes > STORE_VALUE)
        return fail(call, key, "a name or value is too long for the ranks' store");
    *q = (question){0};
    pthread_mutex_lock(&s->lock);
    q->id = ++s->id;
    q->next = s->questions;
    s->questions = q;
    pthread_mutex_unlock(&s->lock);
    int sent = send_message(s, kind, q->id, key, value, bytes);
    pthread_mutex_lock(&s->lock);
    while (sent && !q->answered && !s->failed && !s->closed && !am_comm_gives_up(call))
        wait_slice(s, SLICE / 1000.0);
    end_question(s, q);
    int failed = s->failed, closed = s->closed;
    if (failed && !q->answered)
        snprintf(call->message, sizeof call->message, "%s", s->failure);
    pthread_mutex_unlock(&s->lock);
    if (q->answered)
        return AM_OK;
    if (!failed && (closed || !sent))
        return fail(call, s->place, "rank 0 has left, and the ranks' store with it");
    return AM_ECOMM;
}

/* A question whose answer is yes. */
static int order(am_store *s, int kind, const char *key, const void *value, size_t bytes,
                 am_comm_call *call)
{
    question q;
    int rc = ask(s, &q, kind, key, value, bytes, call);
    if (rc == AM_OK && q.kind == STORE_NO) {
        char why[STORE_TEXT];
        store_text(why, sizeof why, q.value ? q.value : (const uint8_t *)"", q.value ? q.bytes : 0);
        rc = fail(call, key, why);
    }
    free(q.value);
    return rc;
}

int am_store_set(am_store *store, const char *key, const void *value, size_t bytes,
                 am_comm_call *call)
{
    return order(store, STORE_SET, key, value, bytes, call);
}

int am_store_remove(am_store *store, const char *key, am_comm_call *call)
{
    return order(store, STORE_REMOVE, key, NULL, 0, call);
}

int am_store_meet(am_store *store, const char *key, int ranks, am_comm_call *call)
{
    char text[16];
    snprintf(text, sizeof text, "%d", ranks);
    return order(store, STORE_MEET, key, text, strlen(text), call);
}

int am_store_abort(am_store *store, const char *why, am_comm_call *call)
{
    size_t n = strlen(why);
    return order(store, STORE_ABORT, "", why, n < STORE_TEXT ? n : STORE_TEXT, call);
}

int am_store_get(am_store *store, const char *key, void **value, size_t *bytes, am_comm_call *call)
{
    question q;
    *value = NULL;
    int rc = ask(store, &q, STORE_GET, key, NULL, 0, call);
    if (rc == AM_OK && q.kind == STORE_NO) {
        free(q.value);
        return fail(call, key, "the ranks' store can't answer");
    }
    *value = q.value;
    *bytes = q.bytes;
    return rc;
}

int am_store_look(am_store *store, const char *key, void **value, size_t *bytes, am_comm_call *call)
{
    question q;
    *value = NULL;
    int rc = ask(store, &q, STORE_LOOK, key, NULL, 0, call);
    if (rc == AM_OK && q.kind == STORE_YES)
        *value = q.value;
    else
        free(q.value);
    *bytes = q.bytes;
    return rc;
}

int am_store_failure(am_store *s, double seconds, char message[AM_COMM_MESSAGE])
{
    double end = am_clock() + seconds;
    pthread_mutex_lock(&s->lock);
    for (double left; !s->failed && (left = end - am_clock()) > 0;)
        wait_slice(s, left);
    int failed = s->failed;
    if (failed)
        memcpy(message, s->failure, AM_COMM_MESSAGE);
    pthread_mutex_unlock(&s->lock);
    return failed;
}

const char *am_store_address(const am_store *store)
{
    return store->address;
}

void am_store_leave(am_store *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->leaving = 1;
    pthread_mutex_unlock(&s->lock);
    send_message(s, STORE_BYE, 0, "", NULL, 0);
    shutdown(s->fd, SHUT_RDWR); /* the reader ends */
    pthread_join(s->reader, NULL);
    close(s->fd);
    pthread_cond_destroy(&s->news);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->writes);
    free(s);
}
