/* fuzz_json.c — what parses must write and parse again to the same text. */
#include <stdlib.h>
#include <string.h>

#include "io/json.h"

static char *rewrite(const char *text, size_t bytes, int flags, size_t *written)
{
    am_json_doc *doc;
    am_buffer b = {0};
    if (am_json_parse(&doc, text, bytes, flags) != AM_OK)
        return NULL;
    am_json_put_value(&b, am_json_root(doc));
    am_json_free(doc);
    if (b.rc != AM_OK)
        abort();
    char *copy = malloc(b.bytes);
    memcpy(copy, b.data, b.bytes);
    *written = b.bytes;
    am_buffer_free(&b);
    return copy;
}

/* Every member must be found by its key. */
static void look_up(const am_json *v)
{
    for (uint32_t i = 0; v->kind == AM_JSON_ARRAY && i < v->count; i++)
        look_up(&v->as.items[i]);
    for (uint32_t i = 0; v->kind == AM_JSON_OBJECT && i < v->count; i++) {
        const am_json_member *m = &v->as.members[i];
        if (!am_json_get_bytes(v, m->key, m->bytes))
            abort();
        look_up(&m->value);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    size_t n = 0, n2 = 0, n3 = 0;
    char *once = rewrite((const char *)data, bytes, 0, &n);
    char *unique = rewrite((const char *)data, bytes, AM_JSON_UNIQUE_KEYS, &n3);
    if (unique && !once)
        abort();
    if (once) {
        am_json_doc *doc;
        char *twice = rewrite(once, n, 0, &n2);
        if (!twice || n != n2 || memcmp(once, twice, n) != 0)
            abort();
        if (am_json_parse(&doc, once, n, 0) != AM_OK)
            abort();
        look_up(am_json_root(doc));
        am_json_free(doc);
        free(twice);
    }
    free(once);
    free(unique);
    return 0;
}
