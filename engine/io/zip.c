/* zip.c — reading a zip file's directory. Layout: PKWARE's APPNOTE.TXT; sections are named as
 * there. No comment may follow the end record, and none does in what torch.save writes. */
#include "zip.h"

#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"

enum {
    LOCAL_HEADER = 30, /* bytes of each record without what varies in length */
    CENTRAL_HEADER = 46,
    ZIP64_END = 56,
    ZIP64_LOCATOR = 20,
    END = 22
};

static uint64_t load(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static int is(const uint8_t *p, const char *signature)
{
    return memcmp(p, signature, 4) == 0;
}

static int fail_damaged(const am_zip *z, const char *what)
{
    return am_fail(AM_EFORMAT, "%s: %s: the zip file is truncated or damaged", z->path, what);
}

/* 4.3.14 to 4.3.16: where the directory begins, how long it is, and of how many entries. */
static int read_end(am_zip *z, uint64_t *begin, uint64_t *bytes, uint64_t *count)
{
    const uint8_t *file = z->map->data;
    size_t size = z->map->bytes;
    if (size < END || !is(file + size - END, "PK\5\6"))
        return fail_damaged(z, "it has no end record");
    size_t end = size - END;
    *count = load(file + end + 10, 2);
    *bytes = load(file + end + 12, 4);
    *begin = load(file + end + 16, 4);
    if (end >= ZIP64_LOCATOR && is(file + end - ZIP64_LOCATOR, "PK\6\7")) {
        uint64_t at = load(file + end - ZIP64_LOCATOR + 8, 8);
        if (at > end || end - at < ZIP64_END || !is(file + at, "PK\6\6"))
            return fail_damaged(z, "its ZIP64 end record is not where it should be");
        *count = load(file + at + 32, 8);
        *bytes = load(file + at + 40, 8);
        *begin = load(file + at + 48, 8);
        end = (size_t)at;
    }
    if (*begin > end || *bytes > end - *begin || *count > *bytes / CENTRAL_HEADER)
        return fail_damaged(z, "its directory reaches beyond the end");
    return AM_OK;
}

/* 4.5.3: sizes and place that do not fit the header's 32 bits, in this order. */
static int read_zip64(const am_zip *z, const uint8_t *extra, size_t bytes, uint64_t *values[3])
{
    while (bytes >= 4) {
        size_t id = load(extra, 2), length = load(extra + 2, 2);
        extra += 4;
        bytes -= 4;
        if (length > bytes)
            break;
        for (int i = 0; i < 3 && id == 1; i++)
            if (*values[i] == UINT32_MAX && length >= 8) {
                *values[i] = load(extra, 8);
                extra += 8;
                bytes -= 8;
                length -= 8;
            }
        extra += length;
        bytes -= length;
    }
    for (int i = 0; i < 3; i++)
        if (*values[i] == UINT32_MAX)
            return fail_damaged(z, "an entry lacks its ZIP64 sizes");
    return AM_OK;
}

/* 4.3.12; *at moves behind it, *names behind the copy of its name. */
static int read_entry(const am_zip *z, am_zip_entry *e, const uint8_t **at, const uint8_t *end,
                      char **names)
{
    const uint8_t *p = *at;
    if (end - p < CENTRAL_HEADER || !is(p, "PK\1\2"))
        return fail_damaged(z, "an entry of its directory is none");
    size_t name = load(p + 28, 2), extra = load(p + 30, 2), comment = load(p + 32, 2);
    uint64_t compressed = load(p + 20, 4);
    e->flags = (int)load(p + 8, 2);
    e->method = (int)load(p + 10, 2);
    e->bytes = load(p + 24, 4);
    e->header = load(p + 42, 4);
    p += CENTRAL_HEADER;
    if (name + extra + comment > (size_t)(end - p))
        return fail_damaged(z, "an entry of its directory reaches beyond the end");
    if (memchr(p, 0, name))
        return fail_damaged(z, "a zero byte in the name of an entry");
    memcpy(*names, p, name);
    e->name = *names;
    *names += name + 1;
    AM_TRY(read_zip64(z, p + name, extra, (uint64_t *[]){&e->bytes, &compressed, &e->header}));
    if (e->method == 0 && e->bytes != compressed)
        return fail_damaged(z, "an entry has two sizes");
    *at = p + name + extra + comment;
    return AM_OK;
}

int am_zip_read(am_zip *z, const am_mapping *map, const char *path)
{
    uint64_t begin = 0, bytes = 0, count = 0;
    void *p;
    *z = (am_zip){.map = map, .path = path};
    AM_TRY(read_end(z, &begin, &bytes, &count));
    z->end = (size_t)begin;
    AM_TRY(am_alloc(&p, count * sizeof *z->entries));
    z->entries = p;
    AM_TRY(am_alloc(&p, bytes)); /* a name and its NUL take less than its entry */
    z->names = p;
    const uint8_t *at = map->data + begin, *end = at + bytes;
    char *names = z->names;
    for (; z->count < count; z->count++)
        AM_TRY(read_entry(z, &z->entries[z->count], &at, end, &names));
    return AM_OK;
}

void am_zip_free(am_zip *z)
{
    am_free(z->entries);
    am_free(z->names);
}

int am_zip_locate(const am_zip *z, const am_zip_entry *e, size_t *offset)
{
    const uint8_t *file = z->map->data;
    if (e->method != 0 || (e->flags & 1))
        return am_fail(AM_EUNSUP, "%s: %.100s is %s; entries must be stored, as torch.save does",
                       z->path, e->name, e->flags & 1 ? "encrypted" : "compressed");
    if (e->header > z->end || z->end - e->header < LOCAL_HEADER || /* 4.3.7 */
        !is(file + e->header, "PK\3\4"))
        return fail_damaged(z, e->name);
    const uint8_t *local = file + e->header;
    size_t name = load(local + 26, 2), extra = load(local + 28, 2);
    size_t left = z->end - (size_t)e->header - LOCAL_HEADER;
    if (name + extra > left || e->bytes > left - name - extra || name != strlen(e->name) ||
        memcmp(local + LOCAL_HEADER, e->name, name) != 0)
        return fail_damaged(z, e->name);
    *offset = (size_t)e->header + LOCAL_HEADER + name + extra;
    return AM_OK;
}
