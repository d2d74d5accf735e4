/* test_engine.c — an engine of communicators (amlua_gloo.so, amlua_mpi.so) by itself, without
 * comm.c. test_engine MODULE          this process is one rank, begun by a launcher; the checks
 * that hold for every engine test_engine MODULE fork     ranks are forked here: the same on 1 to 5
 * ranks, then what happens when ranks are late, killed or strangers (Gloo's ways) test_engine
 * MODULE time     forks two ranks, and says how long an all_reduce takes Prints TAP. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine_checks.h"

enum { RANKS = 5 };

/* What ranks tell this process, in memory that all share. */
typedef struct report {
    int ready, rc;
    double ended; /* on am_clock */
    char message[AM_COMM_MESSAGE];
    uint8_t here[RANKS];
} report;

typedef struct family {
    const char *module, *address, *secret;
    int size, port;
    double timeout;
    report *reports;
    pid_t pids[RANKS];
} family;

typedef int (*part)(const family *f, int rank);

static int count, failed;

static void tap(int holds, const char *what)
{
    printf("%sok %d - %s\n", holds ? "" : "not ", ++count, what);
    fflush(stdout);
    failed += !holds;
}

/* Seconds; it takes 0.1 where nothing else runs, and tests run beside others. */
static const double SOON = 5;

static void nap(double seconds)
{
    usleep((useconds_t)(seconds * 1e6));
}

/* ---- ranks ------------------------------------------------------------------------------------
 */

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&a, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &size) != 0)
        perror("a free port");
    close(fd);
    return ntohs(a.sin_port);
}

static family new_family(const char *module, int size)
{
    family f = {.module = module, .address = "127.0.0.1", .secret = "open sesame"};
    f.size = size;
    f.port = free_port();
    f.timeout = 60;
    f.reports = mmap(NULL, RANKS * sizeof *f.reports, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return f;
}

static void begin_rank(family *f, int rank, part run)
{
    fflush(NULL);
    f->pids[rank] = fork();
    if (f->pids[rank] == 0) {
        alarm(100);         /* nothing here takes as long */
        exit(run(f, rank)); /* and leaks are looked for */
    }
}

static void begin(family *f, part run)
{
    for (int r = 0; r < f->size; r++)
        begin_rank(f, r, run);
}

/* The exit status, or 128 and the signal. */
static int end_rank(family *f, int rank)
{
    int status = 0;
    waitpid(f->pids[rank], &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int end(family *f)
{
    int sum = 0;
    for (int r = 0; r < f->size; r++)
        sum += end_rank(f, r);
    return sum;
}

static const am_comm_engine *join(const family *f, int rank, void **group)
{
    const am_comm_engine *e = engine_load(f->module);
    report *own = &f->reports[rank];
    if (!e)
        return NULL;
    am_comm_options o = {.rank = rank,
                         .size = f->size,
                         .address = f->address,
                         .port = f->port,
                         .secret = f->secret,
                         .timeout = f->timeout};
    am_comm_call call = engine_call(f->timeout);
    own->rc = e->open(group, &o, &call);
    own->ended = am_clock();
    memcpy(own->message, call.message, sizeof own->message);
    if (own->rc != AM_OK)
        return NULL;
    __atomic_store_n(&own->ready, 1, __ATOMIC_RELEASE);
    return e;
}

/* Wait until these ranks have joined. */
static void joined(const family *f, int first, int last)
{
    double limit = am_clock() + 30;
    for (int r = first; r <= last; r++)
        while (!__atomic_load_n(&f->reports[r].ready, __ATOMIC_ACQUIRE) && am_clock() < limit)
            nap(0.01);
}

/* ---- what each rank does ----------------------------------------------------------------------
 */

static int check_all(const family *f, int rank)
{
    void *group;
    const am_comm_engine *e = join(f, rank, &group);
    if (!e) {
        fprintf(stderr, "rank %d: %s\n", rank, f->reports[rank].message);
        return 1;
    }
    int failures = engine_checks(e, group);
    e->close(group);
    return failures > 0;
}

static int time_all(const family *f, int rank)
{
    void *group;
    const am_comm_engine *e = join(f, rank, &group);
    int failures = e ? engine_times(e, group) : 1;
    if (e)
        e->close(group);
    return failures > 0;
}

/* All-reduces of 8 MB until one fails. */
static int reduce_on(const family *f, int rank)
{
    enum { N = 2 << 20 };
    static float x[N];
    void *group;
    report *own = &f->reports[rank];
    const am_comm_engine *e = join(f, rank, &group);
    for (int64_t number = 1; e && own->rc == AM_OK; number++) {
        am_comm_call call = engine_call(f->timeout);
        call.dtype = AM_F32;
        call.op = AM_MAX;
        call.number = number;
        own->rc = e->all_reduce(group, x, N, &call);
        own->ended = am_clock();
        memcpy(own->message, call.message, sizeof own->message);
    }
    if (e)
        e->close(group);
    return 0;
}

/* The last rank does not come to the second barrier. */
static int come_late(const family *f, int rank)
{
    void *group;
    report *own = &f->reports[rank];
    const am_comm_engine *e = join(f, rank, &group);
    if (!e)
        return 1;
    for (int64_t number = 1; number <= 2; number++) {
        if (number == 2 && rank == f->size - 1) {
            nap(3);
            break;
        }
        am_comm_call call = engine_call(number == 1 ? 30 : 0.7);
        call.number = number;
        own->rc = e->barrier(group, &call);
        own->ended = am_clock() - call.deadline;
        memcpy(own->message, call.message, sizeof own->message);
        if (number == 2)
            e->where_are(group, own->here, number, 1);
    }
    e->close(group);
    return 0;
}

/* Rank 1 ends too early, and is waited for. */
static int leave(const family *f, int rank)
{
    void *group;
    report *own = &f->reports[rank];
    const am_comm_engine *e = join(f, rank, &group);
    if (!e)
        return 1;
    am_comm_call call = engine_call(30);
    call.number = 1;
    if (rank == 0) {
        own->rc = e->barrier(group, &call);
        memcpy(own->message, call.message, sizeof own->message);
    }
    e->close(group);
    return 0;
}

/* Rank 1 gives up, the others wait for it. */
static int give_up(const family *f, int rank)
{
    void *group;
    report *own = &f->reports[rank];
    const am_comm_engine *e = join(f, rank, &group);
    if (!e)
        return 1;
    am_comm_call call = engine_call(30);
    if (rank == 1) {
        nap(0.3);
        e->abort(3, "no space left in /data");
    }
    own->rc = e->barrier(group, &call);
    own->ended = am_clock();
    memcpy(own->message, call.message, sizeof own->message);
    e->close(group);
    return 0;
}

static int only_join(const family *f, int rank)
{
    void *group;
    const am_comm_engine *e = join(f, rank, &group);
    if (e)
        e->close(group);
    return e == NULL;
}

/* Barriers for two seconds, with other processes at the door. */
static int go_on(const family *f, int rank)
{
    void *group;
    if (rank == 0) { /* the log */
        char path[64];
        snprintf(path, sizeof path, "/tmp/test_engine.%d", f->port);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, 2);
    }
    const am_comm_engine *e = join(f, rank, &group);
    if (!e)
        return 1;
    uint8_t *stop = f->reports[0].here; /* rank 0 says when */
    int rc = AM_OK;
    for (int64_t number = 1; rc == AM_OK; number++) {
        int over = __atomic_load_n(stop, __ATOMIC_RELAXED);
        am_comm_call call = engine_call(20);
        call.dtype = AM_I32;
        call.op = AM_MAX;
        call.number = number;
        rc = e->all_reduce(group, &over, 1, &call);
        if (rc == AM_OK && over)
            break;
        nap(0.002);
    }
    e->close(group);
    return rc != AM_OK;
}

/* ---- what is expected of them -----------------------------------------------------------------
 */

static int says(const report *r, const char *text)
{
    int holds = r->rc == AM_ECOMM && strstr(r->message, text);
    if (!holds)
        printf("# rc %d: %s\n", r->rc, r->message);
    return holds;
}

static void collectives(const char *module)
{
    for (int size = 1; size <= RANKS; size++) {
        char what[80];
        family f = new_family(module, size);
        if (size == 1)
            f.secret = NULL; /* at a loopback address nobody needs one */
        begin(&f, check_all);
        snprintf(what, sizeof what, "collectives and groups on %d rank%s", size,
                 size > 1 ? "s" : "");
        tap(end(&f) == 0, what);
    }
}

static void killed(const char *module, int victim)
{
    char name[32], what[80];
    family f = new_family(module, 4);
    begin(&f, reduce_on);
    joined(&f, 0, 3);
    nap(0.4);
    double when = am_clock();
    kill(f.pids[victim], SIGKILL);
    end(&f);
    int named = 1;
    double longest = 0;
    snprintf(name, sizeof name, "rank %d", victim);
    for (int r = 0; r < 4; r++) {
        if (r == victim)
            continue;
        named &= says(&f.reports[r], name);
        double took = f.reports[r].ended - when;
        longest = took > longest ? took : longest;
    }
    snprintf(what, sizeof what, "rank %d killed in an all_reduce is named by the others", victim);
    tap(named, what);
    printf("# after %.2f s\n", longest);
    tap(longest < SOON, "long before the time is over");
}

static void late(const char *module)
{
    family f = new_family(module, 3);
    begin(&f, come_late);
    end(&f);
    int empty = 1, soon = 1, found = 1;
    for (int r = 0; r < 2; r++) {
        const report *own = &f.reports[r];
        empty &= says(own, "") && !own->message[0];
        soon &= own->ended < SOON;
        found &= own->here[0] == 1 && own->here[1] == 1 && own->here[2] == 0;
    }
    tap(empty && soon, "a call is given up when its time is over");
    tap(found, "where_are knows who waits and who does not");
}

static void gives_up(const char *module)
{
    family f = new_family(module, 3);
    begin(&f, give_up);
    int status = 0;
    for (int r = 0; r < 3; r++)
        status = r == 1 ? end_rank(&f, r) : (end_rank(&f, r), status);
    tap(status == 3, "abort ends the rank with its status");
    tap(says(&f.reports[0], "rank 1 ") && says(&f.reports[2], "gave up: no space left in /data"),
        "the others hear why");
}

static void leaves(const char *module)
{
    family f = new_family(module, 2);
    begin(&f, leave);
    end(&f);
    tap(says(&f.reports[0], "rank 1 has left"), "a rank that left is named by those who wait");
}

/* Both give up at about the same time, and whoever is second must still say why. */
static void absent(const char *module)
{
    family f = new_family(module, 3);
    f.timeout = 1.5;
    double start = am_clock();
    begin_rank(&f, 0, only_join);
    begin_rank(&f, 2, only_join);
    int rc = end_rank(&f, 0) + end_rank(&f, 2);
    tap(rc == 2 && says(&f.reports[0], "rank 1") && says(&f.reports[2], "rank 1"),
        "joining names the rank that never came");
    tap(f.reports[0].ended - start < f.timeout + SOON &&
            f.reports[2].ended - start < f.timeout + SOON,
        "when the time is over");
}

static int connect_to(const family *f)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                            .sin_port = htons((uint16_t)f->port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    for (int i = 0; i < 200 && connect(fd, (struct sockaddr *)&a, sizeof a) != 0; i++)
        nap(0.02);
    return fd;
}

/* A process that joins as `rank` with other options than the family's. */
static report intrude(const family *f, int rank, int size, const char *secret)
{
    family other = *f;
    other.size = size;
    other.secret = secret;
    other.timeout = 1;
    other.reports = new_family(f->module, 1).reports;
    begin_rank(&other, rank, only_join);
    end_rank(&other, rank);
    return other.reports[rank];
}

static int log_says(const family *f, const char *text)
{
    char path[64], all[8192];
    snprintf(path, sizeof path, "/tmp/test_engine.%d", f->port);
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, all, sizeof all - 1);
    close(fd);
    all[n > 0 ? n : 0] = 0;
    return strstr(all, text) != NULL;
}

static void strangers(const char *module)
{
    enum { FLOOD = 300 };
    static int fds[FLOOD];
    char path[64];
    family f = new_family(module, 2);
    begin_rank(&f, 0, go_on);
    for (int i = 0; i < FLOOD; i++)
        fds[i] = connect_to(&f); /* and no word */
    report r = intrude(&f, 1, 2, "another");
    tap(says(&r, "secret"), "a rank with another secret is refused");
    tap(log_says(&f, "it does not know the secret"), "and logged");
    begin_rank(&f, 1, go_on);
    joined(&f, 0, 1);
    tap(f.reports[0].ready && f.reports[1].ready, "ranks join among 300 that say nothing");
    for (int i = 0; i < FLOOD; i++) {
        char garbage[400];
        memset(garbage, i, sizeof garbage);
        (void)!send(fds[i], garbage, (size_t)(1 + i), MSG_NOSIGNAL);
        int fresh = connect_to(&f);
        (void)!send(fresh, i % 2 ? garbage : "amrank_1", i % 2 ? sizeof garbage : 8, MSG_NOSIGNAL);
        close(fds[i]);
        fds[i] = fresh;
    }
    r = intrude(&f, 1, 2, NULL);
    tap(says(&r, "secret"), "a rank without a secret is refused");
    r = intrude(&f, 1, 2, f.secret);
    tap(says(&r, "has joined before"), "a rank that is there already is refused");
    r = intrude(&f, 1, 3, f.secret);
    tap(says(&r, "3 ranks"), "another number of ranks is refused");
    f.reports[0].here[0] = 1;
    tap(end(&f) == 0, "and the ranks go on");
    tap(log_says(&f, "refused 127.0.0.1 port "), "strangers are logged with their address");
    for (int i = 0; i < FLOOD; i++)
        close(fds[i]);
    snprintf(path, sizeof path, "/tmp/test_engine.%d", f.port);
    unlink(path);
}

static void no_secret(const char *module)
{
    family f = new_family(module, 1);
    f.secret = NULL;
    f.address = "0.0.0.0";
    begin(&f, only_join);
    end(&f);
    tap(says(&f.reports[0], "without a secret"), "without a secret only loopback addresses do");
}

static void ipv6(const char *module)
{
    family f = new_family(module, 2);
    f.address = "::1";
    begin(&f, check_all);
    tap(end(&f) == 0, "collectives at an IPv6 address");
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    const char *how = argc > 2 ? argv[2] : "here";
    if (strcmp(how, "fork") == 0) {
        collectives(argv[1]);
        ipv6(argv[1]);
        late(argv[1]);
        killed(argv[1], 2);
        killed(argv[1], 0);
        gives_up(argv[1]);
        leaves(argv[1]);
        for (int i = 0; i < 3; i++)
            absent(argv[1]);
        strangers(argv[1]);
        no_secret(argv[1]);
    } else if (strcmp(how, "time") == 0) {
        family f = new_family(argv[1], 2);
        begin(&f, time_all);
        tap(end(&f) == 0, "two ranks reduce");
    } else {
        void *group;
        am_comm_options o = {0};
        am_comm_call call = engine_call(60);
        const am_comm_engine *e = engine_load(argv[1]);
        if (!e || e->open(&group, &o, &call) != AM_OK) {
            printf("Bail out! %s\n", call.message);
            return 1;
        }
        failed = engine_checks(e, group);
        int rank = e->rank(group);
        e->close(group);
        if (rank > 0)
            return failed > 0;
        tap(failed == 0, "collectives and groups");
    }
    printf("1..%d\n", count);
    return failed > 0;
}
