/* tokenizer_lattice.c — the models that look tokens up in the word itself: Unigram takes the way
 * through the word with the highest sum of scores, WordPiece the longest token at each place. */
#include "../core/error.h"
#include "../core/mem.h"
#include "../io/json.h"
#include "tokenizer_model.h"

/* ---- Unigram ---------------------------------------------------------------------------- */

static void offer(am_way *to, double score, int32_t id, size_t start)
{
    if (to->id < 0 || score > to->score)
        *to = (am_way){score, id, (uint32_t)start};
}

/* Every byte's best way. A character that is no token may be unknown, at the lowest score less
 * ten, as in Hugging Face tokenizers. */
static int find_ways(const am_model *m, am_work *w, const char *word, size_t bytes)
{
    void *p = w->ways;
    int rc = am_grow(&p, &w->way_capacity, bytes + 1, sizeof *w->ways);
    w->ways = p;
    AM_TRY(rc);
    w->ways[0] = (am_way){0, 0, 0};
    for (size_t i = 1; i <= bytes; i++)
        w->ways[i].id = -1;
    for (size_t at = 0, step; at < bytes; at += step) {
        double here = w->ways[at].score;
        int alone = 0;
        step = (size_t)am_utf8_length(word + at, bytes - at);
        step += step == 0; /* never for valid UTF-8 */
        uint32_t node = 0;
        size_t done = 0;
        for (int32_t id; am_trie_next(&m->trie, &node, word + at, bytes - at, &done, &id);) {
            if (id < 0)
                continue;
            offer(&w->ways[at + done], m->scores[id] + here, id, at);
            alone |= done == step;
        }
        if (alone)
            continue;
        if (m->unk < 0)
            return am_fail(AM_EINVAL,
                           "the text has a character without a token ('%.*s'), and the "
                           "model has no 'unk_id'",
                           (int)step, word + at);
        offer(&w->ways[at + step], m->unk_score + here, (int32_t)m->unk, at);
    }
    return AM_OK;
}

/* What an unknown stretch becomes: its own token if it happens to be one (several characters
 * fused), else its bytes' tokens, else the unknown token. */
static int add_unknown(const am_model *m, const char *word, size_t start, size_t end, size_t base,
                       am_tokens *out)
{
    int64_t id = am_vocab_find(&m->vocab, word + start, end - start);
    int bytes = m->byte_fallback && id < 0;
    for (size_t i = start; bytes && i < end; i++)
        bytes = m->fallback_ids[(unsigned char)word[i]] >= 0;
    if (!bytes)
        return am_tokens_push(out, (int32_t)(id < 0 ? m->unk : id), base + start, base + end);
    for (size_t i = start; i < end; i++)
        AM_TRY(
            am_tokens_push(out, m->fallback_ids[(unsigned char)word[i]], base + start, base + end));
    return AM_OK;
}

int am_unigram_encode(const am_model *m, am_work *w, const char *word, size_t bytes, size_t base,
                      am_tokens *out)
{
    AM_TRY(find_ways(m, w, word, bytes));
    /* Turn the way round: each way's `id` stays, `score` is not needed any more. */
    size_t next = 0;
    for (size_t end = bytes; end > 0;) {
        size_t start = w->ways[end].start;
        w->ways[end].start = (uint32_t)next; /* where the token behind this one ends */
        next = end;
        end = start;
    }
    for (size_t start = 0, end = next; start < bytes;) {
        int32_t id = w->ways[end].id;
        size_t following = w->ways[end].start;
        if (id != m->unk) {
            AM_TRY(am_tokens_push(out, id, base + start, base + end));
        } else {
            while (m->fuse_unk && end < bytes && w->ways[following].id == m->unk) {
                end = following;
                following = w->ways[end].start;
            }
            AM_TRY(add_unknown(m, word, start, end, base, out));
        }
        start = end;
        end = following;
    }
    return AM_OK;
}

/* ---- WordPiece -------------------------------------------------------------------------- */

int am_wordpiece_encode(const am_model *m, const char *word, size_t bytes, size_t base,
                        am_tokens *out)
{
    const size_t first = out->count;
    int64_t chars = 0;
    for (size_t i = 0; i < bytes; i++)
        chars += ((unsigned char)word[i] & 0xc0) != 0x80;
    size_t at = 0;
    while (chars <= m->max_chars && at < bytes) {
        const am_trie *trie = at ? &m->tails : &m->trie;
        int32_t id = -1, found;
        size_t stop = at, done = 0;
        uint32_t node = 0;
        while (am_trie_next(trie, &node, word + at, bytes - at, &done, &found))
            if (found >= 0) {
                id = found;
                stop = at + done;
            }
        if (id < 0)
            break;
        AM_TRY(am_tokens_push(out, id, base + at, base + stop));
        at = stop;
    }
    if (at == bytes)
        return AM_OK;
    out->count = first;
    return am_tokens_push(out, (int32_t)m->unk, base, base + bytes);
}
