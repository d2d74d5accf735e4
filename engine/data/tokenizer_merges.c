/* tokenizer_merges.c — the merges behind a vocabulary that has ranks or scores only: every pair of
 * tokens that makes a token, in the order that Hugging Face's converters give them. */
#include <stdlib.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "tokenizer_import.h"

enum { MOST_MERGES = 1 << 24 };

typedef struct sortable {
    double score;
    am_found_merge merge;
    int longest;
} sortable;

static int by_score(const void *a, const void *b)
{
    const sortable *x = a, *y = b;
    const am_found_merge *m = &x->merge, *n = &y->merge;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (x->longest && m->left_chars != n->left_chars)
        return m->left_chars > n->left_chars ? -1 : 1;
    if (m->token != n->token)
        return m->token < n->token ? -1 : 1;
    return m->left != n->left ? (m->left < n->left ? -1 : 1) : m->right < n->right ? -1 : 1;
}

/* The ways to cut one token in two. */
static int find_ways(sortable **list, size_t *count, size_t *capacity, const am_import *im,
                     const am_vocab *vocab, uint32_t id, int longest)
{
    const am_import_token *t = &im->tokens[id];
    uint32_t chars = 0;
    for (size_t cut = 1; cut < t->bytes; cut++) {
        chars += ((unsigned char)t->text[cut - 1] & 0xc0) != 0x80;
        if (!im->raw_bytes && ((unsigned char)t->text[cut] & 0xc0) == 0x80)
            continue;
        int64_t left = am_vocab_find(vocab, t->text, cut);
        int64_t right = left < 0 ? -1 : am_vocab_find(vocab, t->text + cut, t->bytes - cut);
        if (right < 0)
            continue;
        if (*count >= MOST_MERGES)
            return am_fail(AM_EUNSUP, "the vocabulary has more than %d merges", MOST_MERGES);
        void *p = *list;
        int rc = am_grow(&p, capacity, *count + 1, sizeof **list);
        *list = p;
        AM_TRY(rc);
        (*list)[(*count)++] = (sortable){
            t->score, {id, (uint32_t)cut, (int32_t)left, (int32_t)right, chars}, longest};
    }
    return AM_OK;
}

int am_find_merges(am_found_merge **out, size_t *count, const am_import *im, int longest)
{
    am_vocab vocab = {0};
    sortable *list = NULL;
    size_t capacity = 0;
    void *merges = NULL;
    int rc = AM_OK;
    *count = 0;
    for (size_t i = 0; i < im->count; i++)
        if (im->tokens[i].kind == AM_TOKEN_NORMAL)
            AM_TRY_OUT(am_vocab_add(&vocab, im->tokens[i].text, im->tokens[i].bytes, (int64_t)i));
    for (size_t i = 0; i < im->count; i++)
        if (im->tokens[i].kind == AM_TOKEN_NORMAL)
            AM_TRY_OUT(find_ways(&list, count, &capacity, im, &vocab, (uint32_t)i, longest));
    if (*count > 1)
        qsort(list, *count, sizeof *list, by_score);
    AM_TRY_OUT(am_alloc(&merges, *count * sizeof **out));
    for (size_t i = 0; i < *count; i++)
        ((am_found_merge *)merges)[i] = list[i].merge;
    *out = merges;
out:
    am_vocab_free(&vocab);
    am_free(list);
    return rc;
}
