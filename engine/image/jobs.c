/* jobs.c — plans as jobs: a queue, threads that take from it, and waiting for one. Threads begin
 * with the first job and end with am_shutdown. A copy of the process (fork) begins with an empty
 * queue and no threads: jobs of before are its parent's. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "../core/mem.h"
#include "image.h"
#include "jobs.h"

enum { MAX_THREADS = 256, DEFAULT_THREADS = 1, MESSAGE = 1024 };
enum { QUEUED, RUNNING, DONE, TAKEN };

struct am_image_job {
    am_image_source source;
    char *path, *name; /* copies that source points to */
    void *data;
    am_image_step *steps;
    int64_t n_steps, n_floats;
    float *out; /* NULL until it runs on a thread */
    int state, rc;
    int abandoned; /* released while it ran: the thread frees it */
    unsigned generation;
    char message[MESSAGE];
    am_image_job *next;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t queued, done;
    am_image_job *first, *last;
    pthread_t threads[MAX_THREADS];
    int wanted, running, stopping;
    unsigned generation; /* of the process: one more in each copy */
    int watches_forks;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .queued = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER,
          .wanted = DEFAULT_THREADS};

/* ---- a job */

static void job_free(am_image_job *job)
{
    am_free(job->path);
    am_free(job->name);
    am_free(job->data);
    am_free(job->steps);
    am_free(job->out);
    am_free(job);
}

static int copy_bytes(void **to, const void *from, size_t bytes)
{
    AM_TRY(am_alloc(to, bytes));
    if (bytes)
        memcpy(*to, from, bytes);
    return AM_OK;
}

static int job_fill(am_image_job *job, const am_image_source *source, const am_image_step *steps,
                    int64_t n_steps)
{
    job->source = *source;
    if (source->path) {
        AM_TRY(am_strdup(&job->path, source->path));
        job->source.path = job->path;
    } else {
        AM_TRY(copy_bytes(&job->data, source->data, source->data ? source->bytes : 0));
        job->source.data = source->data ? job->data : NULL;
    }
    if (source->name) {
        AM_TRY(am_strdup(&job->name, source->name));
        job->source.name = job->name;
    }
    AM_TRY(copy_bytes((void **)&job->steps, steps, (size_t)n_steps * sizeof *steps));
    job->n_steps = n_steps;
    return AM_OK;
}

/* All of a job; `out` is zeroed. */
static int job_run(const am_image_job *job, float *out)
{
    am_picture p = {0, 0, NULL};
    int rc = am_image_decode(&p, &job->source);
    if (rc == AM_OK)
        rc = am_plan_run(&p, job->steps, job->n_steps, out, job->n_floats);
    return am_image_fail(rc, &job->source);
}

/* ---- threads */

static void unlink_job(am_image_job *job)
{
    am_image_job **at = &pool.first, *before = NULL;
    while (*at != job) {
        before = *at;
        at = &before->next;
    }
    *at = job->next;
    if (pool.last == job)
        pool.last = before;
    job->next = NULL;
}

static void run_on_thread(am_image_job *job)
{
    void *out = NULL;
    int rc = am_alloc(&out, (size_t)job->n_floats * sizeof(float));
    if (rc == AM_OK)
        rc = job_run(job, out);
    else
        rc = am_image_fail(rc, &job->source);
    job->out = out;
    job->rc = rc;
    if (rc != AM_OK)
        snprintf(job->message, sizeof job->message, "%s", am_error_message());
}

static void *work(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&pool.lock);
    while (!pool.stopping) {
        am_image_job *job = pool.first;
        if (!job) {
            pthread_cond_wait(&pool.queued, &pool.lock);
            continue;
        }
        unlink_job(job);
        job->state = RUNNING;
        pthread_mutex_unlock(&pool.lock);
        run_on_thread(job);
        pthread_mutex_lock(&pool.lock);
        job->state = DONE;
        if (job->abandoned)
            job_free(job);
        pthread_cond_broadcast(&pool.done);
    }
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

static void before_fork(void)
{
    pthread_mutex_lock(&pool.lock);
}

static void after_fork_parent(void)
{
    pthread_mutex_unlock(&pool.lock);
}

static void after_fork_child(void)
{
    pool.first = pool.last = NULL;
    pool.running = 0;
    pool.generation++;
    pthread_cond_init(&pool.queued, NULL);
    pthread_cond_init(&pool.done, NULL);
    pthread_mutex_unlock(&pool.lock);
}

/* Signals are the main thread's to receive; what a thread does to itself is not held back. */
static int start_thread(pthread_t *thread)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&blocked, own[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int rc = pthread_create(thread, NULL, work, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* With the lock held. Fewer threads than wanted will do: am_image_wait runs what none has begun. */
static void start_threads(void)
{
    if (!pool.watches_forks)
        pool.watches_forks = pthread_atfork(before_fork, after_fork_parent, after_fork_child) == 0;
    while (pool.running < pool.wanted && pool.watches_forks &&
           start_thread(&pool.threads[pool.running]) == 0)
        pool.running++;
}

void am_image_shutdown(void)
{
    pthread_mutex_lock(&pool.lock);
    int running = pool.running;
    pool.stopping = 1;
    pool.running = 0;
    pthread_cond_broadcast(&pool.queued);
    pthread_mutex_unlock(&pool.lock);
    for (int i = 0; i < running; i++)
        pthread_join(pool.threads[i], NULL);
    pool.stopping = 0;
}

int am_image_threads(void)
{
    return pool.wanted;
}

int am_image_threads_set(int n)
{
    if (n < 0 || n > MAX_THREADS)
        return am_fail(AM_EINVAL, "%d threads: 0 to %d are possible", n, MAX_THREADS);
    if (n < pool.running)
        am_image_shutdown(); /* the next submit starts as many as are wanted */
    pool.wanted = n;
    return AM_OK;
}

/* ---- the caller's side */

int am_image_submit(am_image_job **out, const am_image_source *source, const am_image_step *steps,
                    int64_t n_steps, int64_t n_floats)
{
    AM_TRY(am_plan_check(steps, n_steps, n_floats));
    void *memory = NULL;
    AM_TRY(am_alloc(&memory, sizeof(am_image_job)));
    am_image_job *job = memory;
    job->n_floats = n_floats;
    int rc = job_fill(job, source, steps, n_steps);
    if (rc != AM_OK) {
        job_free(job);
        return rc;
    }
    pthread_mutex_lock(&pool.lock);
    start_threads();
    job->generation = pool.generation;
    if (pool.last)
        pool.last->next = job;
    else
        pool.first = job;
    pool.last = job;
    pthread_cond_signal(&pool.queued);
    pthread_mutex_unlock(&pool.lock);
    *out = job;
    return AM_OK;
}

int am_image_wait(am_image_job *job, float *out)
{
    if (job->generation != pool.generation)
        return am_fail(AM_ESTATE, "an image's job of another process");
    pthread_mutex_lock(&pool.lock);
    int mine = job->state == QUEUED;
    if (mine)
        unlink_job(job);
    while (!mine && job->state == RUNNING)
        pthread_cond_wait(&pool.done, &pool.lock);
    int taken = job->state == TAKEN;
    job->state = TAKEN;
    pthread_mutex_unlock(&pool.lock);
    if (taken)
        return am_fail(AM_ESTATE, "an image's job was waited for twice");
    size_t bytes = (size_t)job->n_floats * sizeof(float);
    if (mine) {
        memset(out, 0, bytes);
        return job_run(job, out);
    }
    if (job->rc != AM_OK)
        return am_fail(job->rc, "%s", job->message);
    memcpy(out, job->out, bytes);
    am_free(job->out);
    job->out = NULL;
    return AM_OK;
}

void am_image_release(am_image_job *job)
{
    if (!job)
        return;
    pthread_mutex_lock(&pool.lock);
    int ours = job->generation == pool.generation;
    if (ours && job->state == QUEUED)
        unlink_job(job);
    int running = ours && job->state == RUNNING;
    job->abandoned = running;
    pthread_mutex_unlock(&pool.lock);
    if (!running)
        job_free(job);
}
