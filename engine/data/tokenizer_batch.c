/* tokenizer_batch.c — many texts at once, each encoded by one of a team of threads. */
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "tokenizer.h"

/* Where a text's ids lie: in which thread's list. */
typedef struct place {
    size_t start, count;
    int thread;
} place;

/* The first text that failed. */
typedef struct failure {
    int64_t text; /* -1: none */
    int rc;
    char message[512];
} failure;

static int grow_team(am_tokenizer *t, size_t count)
{
    void *p = t->team;
    if (count <= t->team_count)
        return AM_OK;
    AM_TRY(am_realloc(&p, count * sizeof *t->team));
    t->team = p;
    memset(t->team + t->team_count, 0, (count - t->team_count) * sizeof *t->team);
    t->team_count = count;
    return AM_OK;
}

static void encode_all(am_tokenizer *t, const char *const *texts, const size_t *bytes, int64_t n,
                       int flags, place *places, failure *first)
{
#pragma omp parallel for schedule(dynamic, 1) num_threads(am_threads()) if (n > 1)
    for (int64_t i = 0; i < n; i++) {
        int thread = omp_get_thread_num();
        am_encoder *e = &t->team[thread];
        places[i] = (place){e->tokens.count, 0, thread};
        int rc = am_encoder_run(e, t, texts[i], bytes[i], flags & AM_ENCODE_SPECIAL);
        places[i].count = e->tokens.count - places[i].start;
        if (rc) {
#pragma omp critical(am_tokenizer_failure)
            if (first->text < 0 || i < first->text) {
                first->text = i;
                first->rc = rc;
                snprintf(first->message, sizeof first->message, "%s", am_error_message());
            }
        }
    }
}

/* The lists of the threads as one, in the order of the texts. */
static int gather(am_tokenizer *t, int64_t n, const place *places)
{
    void *p = t->offsets;
    int rc = am_grow(&p, &t->offsets_capacity, (size_t)n + 1, sizeof *t->offsets);
    t->offsets = p;
    AM_TRY(rc);
    size_t total = 0;
    for (int64_t i = 0; i < n; i++) {
        t->offsets[i] = (int64_t)total;
        total += places[i].count;
    }
    t->offsets[n] = (int64_t)total;
    p = t->batch_ids;
    rc = am_grow(&p, &t->batch_capacity, total + 1, sizeof *t->batch_ids);
    t->batch_ids = p;
    AM_TRY(rc);
    for (int64_t i = 0; i < n; i++)
        if (places[i].count)
            memcpy(t->batch_ids + t->offsets[i],
                   t->team[places[i].thread].tokens.ids + places[i].start,
                   places[i].count * sizeof *t->batch_ids);
    return AM_OK;
}

int am_tokenizer_encode_batch(am_tokenizer *t, const char *const *texts, const size_t *bytes,
                              int64_t n, int flags, const int32_t **ids, const int64_t **rows)
{
    failure first = {-1, AM_OK, ""};
    void *places = NULL;
    int rc;
    AM_TRY_OUT(am_alloc(&places, (size_t)n * sizeof(place)));
    AM_TRY_OUT(grow_team(t, (size_t)am_threads()));
    for (size_t i = 0; i < t->team_count; i++)
        t->team[i].tokens.count = 0;
    encode_all(t, texts, bytes, n, flags, places, &first);
    if (first.text >= 0) {
        rc = am_fail(first.rc, "text %lld: %s", (long long)first.text + 1, first.message);
        goto out;
    }
    AM_TRY_OUT(gather(t, n, places));
    *ids = t->batch_ids;
    *rows = t->offsets;
out:
    am_free(places);
    return rc;
}
