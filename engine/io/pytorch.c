/* pytorch.c — what torch.save writes for a state dict (pytorch_model.bin): a zip file of a pickle
 * (TOP/data.pkl) and the bytes of each storage (TOP/data/KEY); before PyTorch 1.6 five pickles in a
 * row, then the storages. pickle.c reads the pickles without running anything; here its tensors
 * become entries of the archive, each checked to lie inside its storage, each storage inside the
 * file. */
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "archive.h"
#include "pickle.h"
#include "zip.h"

/* The pickles of a magic number and of the protocol's that an old file begins with. */
#define LEGACY_MAGIC    "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
#define LEGACY_PROTOCOL "\x80\x02M\xe9\x03."
enum { LEGACY_BEGIN = sizeof LEGACY_MAGIC - 1 + sizeof LEGACY_PROTOCOL - 1, KEY_MAX = 255 };

/* Where the bytes of a storage lie in the file. */
typedef struct place {
    size_t offset, bytes;
} place;

typedef struct reader {
    am_archive *archive;
    am_zip zip;
    am_pickle pickle;
    am_pickle before, after; /* old files: on the system, and the storages in their order */
    am_name *keys;           /* of storages, with the number of their place */
    place *places;
    int64_t count;
    char *text; /* old files: the keys' */
} reader;

static int is_text(const am_pickle_value *v, const char *text)
{
    return v->kind == AM_PICKLE_TEXT && v->count == strlen(text) &&
           memcmp(v->as.text, text, v->count) == 0;
}

/* The value of a key, or NULL. */
static const am_pickle_value *dict_find(const am_pickle *p, const am_pickle_value *dict,
                                        const char *key)
{
    for (uint32_t i = 0; i < dict->count; i += 2)
        if (is_text(am_pickle_item(p, dict, i), key))
            return am_pickle_item(p, dict, i + 1);
    return NULL;
}

/* Room for the keys and places of n storages. */
static int reserve_places(reader *r, size_t n)
{
    void *p;
    AM_TRY(am_alloc(&p, n * sizeof *r->keys));
    r->keys = p;
    AM_TRY(am_alloc(&p, n * sizeof *r->places));
    r->places = p;
    return AM_OK;
}

static place *find_place(const reader *r, const am_pickle_value *key)
{
    char name[KEY_MAX + 1];
    if (key->count > KEY_MAX)
        return NULL;
    memcpy(name, key->as.text, key->count);
    name[key->count] = 0;
    int64_t i = am_names_find(r->keys, r->count, name);
    return i < 0 ? NULL : &r->places[i];
}

/* ---- tensors ----------------------------------------------------------------------------- */

/* ("storage", type, key, device, number of elements[, view]) */
typedef struct storage {
    const am_pickle_global *type;
    const am_pickle_value *key;
    int64_t numel;
} storage;

static int read_storage(const reader *r, const am_pickle_value *v, storage *s)
{
    const am_pickle *p = &r->pickle;
    const am_pickle_value *id = &p->values[v->as.made.arguments];
    if (id->count < 5 || id->count > 6 || !is_text(am_pickle_item(p, id, 0), "storage") ||
        am_pickle_item(p, id, 1)->kind != AM_PICKLE_GLOBAL ||
        am_pickle_item(p, id, 1)->as.global->role != AM_PICKLE_TYPE ||
        am_pickle_item(p, id, 2)->kind != AM_PICKLE_TEXT ||
        am_pickle_item(p, id, 4)->kind != AM_PICKLE_INT || am_pickle_item(p, id, 4)->as.integer < 0)
        return am_fail(AM_EFORMAT, "its storage is not described as torch.save does: damaged");
    if (id->count == 6 && am_pickle_item(p, id, 5)->kind != AM_PICKLE_NONE)
        return am_fail(AM_EUNSUP, "its storage is a part of another, which is not read");
    s->type = am_pickle_item(p, id, 1)->as.global;
    s->key = am_pickle_item(p, id, 2);
    s->numel = am_pickle_item(p, id, 4)->as.integer;
    return AM_OK;
}

static int read_sizes(const reader *r, am_archive_entry *e, const am_pickle_value *shape,
                      const am_pickle_value *stride)
{
    if (shape->kind != AM_PICKLE_TUPLE || stride->kind != AM_PICKLE_TUPLE ||
        shape->count != stride->count)
        return am_fail(AM_EFORMAT, "its shape and strides are not tuples of the same length");
    if (shape->count > AM_MAX_DIMS)
        return am_fail(AM_EUNSUP, "%u dims, more than %d", shape->count, AM_MAX_DIMS);
    e->ndim = (int)shape->count;
    for (uint32_t i = 0; i < shape->count; i++) {
        const am_pickle_value *size = am_pickle_item(&r->pickle, shape, i);
        const am_pickle_value *step = am_pickle_item(&r->pickle, stride, i);
        if (size->kind != AM_PICKLE_INT || size->as.integer < 0 || step->kind != AM_PICKLE_INT ||
            step->as.integer < 0)
            return am_fail(AM_EFORMAT, "dim %u of its shape or strides is not a size", i);
        e->shape[i] = size->as.integer;
        e->stride[i] = step->as.integer;
    }
    return AM_OK;
}

/* Whether the strides leave gaps or another order than row-major. */
static int is_strided(const am_archive_entry *e)
{
    int64_t expected = 1;
    for (int i = e->ndim - 1; i >= 0; i--) {
        if (e->shape[i] != 1 && e->stride[i] != expected)
            return 1;
        expected *= e->shape[i]; /* am_archive_numel did not overflow */
    }
    return 0;
}

/* Bytes from the first element to the end of the last, all of them in a storage of `numel` elements
 * of which the tensor begins with the one numbered `first`. */
static int read_extent(const reader *r, am_archive_entry *e, int64_t first, int64_t numel,
                       int64_t size)
{
    int64_t n = am_archive_numel(e), last = first, step, dense;
    if (n < 0 || __builtin_mul_overflow(n, size, &dense))
        return am_fail(AM_EFORMAT, "its shape is too large");
    if (first < 0)
        return am_fail(AM_EFORMAT, "begins before its storage");
    if (n == 0)
        return AM_OK;
    for (int i = 0; i < e->ndim; i++)
        if (__builtin_mul_overflow(e->shape[i] - 1, e->stride[i], &step) ||
            __builtin_add_overflow(last, step, &last))
            return am_fail(AM_EFORMAT, "its shape and strides are too large");
    if (last >= numel)
        return am_fail(AM_EFORMAT, "its element %lld is outside its storage of %lld",
                       (long long)last, (long long)numel);
    if ((uint64_t)dense > r->archive->map->bytes) /* strides of 0 cost a file nothing */
        return am_fail(AM_EFORMAT, "repeats its elements to %lld bytes, more than the file has",
                       (long long)dense);
    e->offset += (size_t)(first * size);
    e->bytes = (size_t)((last - first + 1) * size);
    e->strided = is_strided(e);
    return AM_OK;
}

/* The dtype of _rebuild_tensor_v3; metadata, the last argument, marks tensors whose elements are
 * not what their storage has (conjugated or negated). */
static int read_rest(const reader *r, const am_pickle_value *arguments, int role,
                     const am_pickle_global **type)
{
    uint32_t least = role == AM_PICKLE_REBUILD ? 4 : role == AM_PICKLE_REBUILD_V2 ? 6 : 7;
    uint32_t most = role == AM_PICKLE_REBUILD ? least : least + 1;
    if (arguments->count < least || arguments->count > most)
        return am_fail(AM_EFORMAT, "%u arguments to rebuild it: damaged", arguments->count);
    if (role == AM_PICKLE_REBUILD_V3) {
        const am_pickle_value *v = am_pickle_item(&r->pickle, arguments, 6);
        if (v->kind != AM_PICKLE_GLOBAL || v->as.global->role != AM_PICKLE_TYPE)
            return am_fail(AM_EFORMAT, "its dtype is %s", am_pickle_kind_name(v->kind));
        *type = v->as.global;
    }
    if (arguments->count > least) {
        const am_pickle_value *v = am_pickle_item(&r->pickle, arguments, least);
        if (v->kind != AM_PICKLE_DICT || v->count > 0)
            return am_fail(AM_EUNSUP, "a conjugated or negated view, which is not read; save what "
                                      "resolve_conj() and resolve_neg() give");
    }
    return AM_OK;
}

static int read_tensor(const reader *r, am_archive_entry *e, const am_pickle_value *v)
{
    const am_pickle *p = &r->pickle;
    const am_pickle_value *arguments = &p->values[v->as.made.arguments];
    storage s;
    const am_pickle_global *type = NULL;
    AM_TRY(read_rest(r, arguments, v->as.made.role, &type));
    const am_pickle_value *from = am_pickle_item(p, arguments, 0);
    const am_pickle_value *first = am_pickle_item(p, arguments, 1);
    if (from->kind != AM_PICKLE_STORAGE || first->kind != AM_PICKLE_INT)
        return am_fail(AM_EFORMAT, "made of %s at %s: damaged", am_pickle_kind_name(from->kind),
                       am_pickle_kind_name(first->kind));
    AM_TRY(read_storage(r, from, &s));
    AM_TRY(read_sizes(r, e, am_pickle_item(p, arguments, 2), am_pickle_item(p, arguments, 3)));
    if (!type)
        type = s.type;
    if (!type->stored_as)
        return am_fail(AM_EFORMAT, "bytes without a dtype: damaged");
    e->dtype = type->dtype;
    e->stored_as = type->stored_as;

    const place *at = find_place(r, s.key);
    int64_t bytes;
    if (!at)
        return am_fail(AM_EFORMAT, "its storage \"%.*s\" is not in the file",
                       s.key->count < 40 ? (int)s.key->count : 40, s.key->as.text);
    if (__builtin_mul_overflow(s.numel, (int64_t)s.type->size, &bytes) ||
        (uint64_t)bytes > at->bytes)
        return am_fail(AM_EFORMAT, "its storage of %lld elements is stored in %zu bytes: damaged",
                       (long long)s.numel, at->bytes);
    e->offset = at->offset;
    return read_extent(r, e, first->as.integer, bytes / type->size, type->size);
}

/* ---- the state dict ---------------------------------------------------------------------- */

/* Number of tensors directly in a dict, and the bytes of their names with NULs. */
static int64_t count_tensors(const am_pickle *p, const am_pickle_value *dict, size_t *name_bytes)
{
    int64_t n = 0;
    *name_bytes = 0;
    for (uint32_t i = 0; dict->kind == AM_PICKLE_DICT && i < dict->count; i += 2)
        if (am_pickle_item(p, dict, i + 1)->kind == AM_PICKLE_TENSOR) {
            *name_bytes += (size_t)am_pickle_item(p, dict, i)->count + 1;
            n++;
        }
    return n;
}

/* The dict of tensors: all of the file, or what training scripts put beside their own state. */
static int find_state_dict(const reader *r, const am_pickle_value **dict)
{
    static const char *const keys[] = {"state_dict", "model"};
    const am_pickle *p = &r->pickle;
    const am_pickle_value *root = &p->values[p->root];
    size_t bytes;
    *dict = root;
    if (root->kind != AM_PICKLE_DICT)
        return am_fail(AM_EFORMAT, "%s: the pickle is %s, not a state dict", r->archive->path,
                       am_pickle_kind_name(root->kind));
    if (root->count == 0 || count_tensors(p, root, &bytes) > 0)
        return AM_OK;
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        const am_pickle_value *v = dict_find(p, root, keys[k]);
        if (v && count_tensors(p, v, &bytes) > 0) {
            *dict = v;
            return AM_OK;
        }
    }
    return am_fail(AM_EFORMAT,
                   "%s: no tensors, neither in the outermost dict nor under its \"state_dict\" or "
                   "\"model\"",
                   r->archive->path);
}

/* The entries of the archive. What else is in the dict (numbers, texts) is passed over. */
static int read_state_dict(const reader *r)
{
    am_archive *a = r->archive;
    const am_pickle *p = &r->pickle;
    const am_pickle_value *dict;
    size_t name_bytes;
    void *names;
    AM_TRY(find_state_dict(r, &dict));
    AM_TRY(am_archive_reserve(a, count_tensors(p, dict, &name_bytes)));
    AM_TRY(am_alloc(&names, name_bytes));
    a->name_text = names;
    char *to = a->name_text;
    for (uint32_t i = 0; i < dict->count; i += 2) {
        const am_pickle_value *key = am_pickle_item(p, dict, i),
                              *v = am_pickle_item(p, dict, i + 1);
        if (v->kind != AM_PICKLE_TENSOR)
            continue;
        if (key->kind != AM_PICKLE_TEXT || memchr(key->as.text, 0, key->count))
            return am_fail(AM_EFORMAT, "%s: the name of a tensor is %s", a->path,
                           key->kind == AM_PICKLE_TEXT ? "a text with a zero byte"
                                                       : am_pickle_kind_name(key->kind));
        am_archive_entry *e = &a->entries[a->count++];
        memcpy(to, key->as.text, key->count);
        e->name = to;
        to += key->count + 1;
        int rc = read_tensor(r, e, v);
        if (rc != AM_OK)
            return am_archive_blame(a, e, rc);
    }
    return AM_OK;
}

/* ---- zip files --------------------------------------------------------------------------- */

/* The entry called `top` (of n bytes) and `rest`, or NULL. */
static const am_zip_entry *zip_find(const am_zip *z, const char *top, size_t n, const char *rest)
{
    for (size_t i = 0; i < z->count; i++)
        if (strncmp(z->entries[i].name, top, n) == 0 && strcmp(z->entries[i].name + n, rest) == 0)
            return &z->entries[i];
    return NULL;
}

/* TOP/data.pkl, and the length of TOP. */
static const am_zip_entry *find_pickle(const am_zip *z, size_t *top)
{
    for (size_t i = 0; i < z->count; i++) {
        const char *slash = strchr(z->entries[i].name, '/');
        *top = slash ? (size_t)(slash - z->entries[i].name) : 0;
        if (slash && strcmp(slash, "/data.pkl") == 0)
            return &z->entries[i];
    }
    return NULL;
}

static int check_byte_order(const reader *r, const char *top, size_t n)
{
    const am_zip_entry *e = zip_find(&r->zip, top, n, "/byteorder"); /* newer than the format */
    size_t offset;
    if (!e)
        return AM_OK;
    AM_TRY(am_zip_locate(&r->zip, e, &offset));
    if (e->bytes != 6 || memcmp(r->archive->map->data + offset, "little", 6) != 0)
        return am_fail(AM_EUNSUP, "%s: its byte order is not little endian", r->archive->path);
    return AM_OK;
}

static int read_zip(reader *r)
{
    am_archive *a = r->archive;
    am_zip *z = &r->zip;
    size_t n, offset;
    const char *twice;
    AM_TRY(am_zip_read(z, a->map, a->path));
    const am_zip_entry *pickle = find_pickle(z, &n);
    if (!pickle)
        return am_fail(AM_EFORMAT,
                       "%s: a zip file without data.pkl, which torch.save did not write", a->path);
    const char *top = pickle->name;
    AM_TRY(check_byte_order(r, top, n));
    AM_TRY(reserve_places(r, z->count));
    for (size_t i = 0; i < z->count; i++) {
        const am_zip_entry *e = &z->entries[i];
        if (strncmp(e->name, top, n) != 0 || strncmp(e->name + n, "/data/", 6) != 0)
            continue;
        place *at = &r->places[r->count];
        AM_TRY(am_zip_locate(z, e, &at->offset));
        at->bytes = (size_t)e->bytes;
        r->keys[r->count] = (am_name){e->name + n + 6, r->count};
        r->count++;
    }
    am_names_sort(r->keys, r->count, &twice);
    if (twice)
        return am_fail(AM_EFORMAT, "%s: storage \"%.100s\" occurs twice", a->path, twice);
    AM_TRY(am_zip_locate(z, pickle, &offset));
    AM_TRY(am_pickle_read(&r->pickle, a->path, a->map->data + offset, (size_t)pickle->bytes));
    return read_state_dict(r);
}

/* ---- files from before PyTorch 1.6 ------------------------------------------------------- */

/* The keys of the storages in the order of the file; their place is not known yet. */
static int read_keys(reader *r)
{
    const am_pickle_value *list = &r->after.values[r->after.root];
    const char *twice;
    size_t bytes = 0;
    void *p;
    if (list->kind != AM_PICKLE_LIST)
        return am_fail(AM_EFORMAT, "%s: %s instead of a list of storages: damaged",
                       r->archive->path, am_pickle_kind_name(list->kind));
    for (uint32_t i = 0; i < list->count; i++) {
        const am_pickle_value *key = am_pickle_item(&r->after, list, i);
        if (key->kind != AM_PICKLE_TEXT || key->count > KEY_MAX ||
            memchr(key->as.text, 0, key->count))
            return am_fail(AM_EFORMAT, "%s: the key of storage %u is not a short text: damaged",
                           r->archive->path, i);
        bytes += key->count + 1;
    }
    AM_TRY(reserve_places(r, list->count));
    AM_TRY(am_alloc(&p, bytes));
    r->text = p;
    char *to = r->text;
    for (; r->count < list->count; r->count++) {
        const am_pickle_value *key = am_pickle_item(&r->after, list, (uint32_t)r->count);
        memcpy(to, key->as.text, key->count);
        r->keys[r->count] = (am_name){to, r->count};
        to += key->count + 1;
    }
    am_names_sort(r->keys, r->count, &twice);
    if (twice)
        return am_fail(AM_EFORMAT, "%s: storage \"%.100s\" occurs twice", r->archive->path, twice);
    return AM_OK;
}

/* Where each storage lies: its number of elements (8 bytes), then these. How long an element is
 * only the tensors say; `bytes` holds that until the place is known. */
static int read_places(reader *r, size_t at)
{
    const am_pickle *p = &r->pickle;
    const uint8_t *file = r->archive->map->data;
    size_t end = r->archive->map->bytes;
    for (size_t i = 0; i < p->count; i++) {
        storage s;
        if (p->values[i].kind != AM_PICKLE_STORAGE)
            continue;
        int rc = read_storage(r, &p->values[i], &s);
        if (rc != AM_OK)
            return am_fail_context(rc, "%s: a tensor", r->archive->path);
        place *found = find_place(r, s.key);
        if (found && found->bytes > 0 && found->bytes != (size_t)s.type->size)
            return am_fail(AM_EUNSUP, "%s: a storage has two types, which is not read",
                           r->archive->path);
        if (found)
            found->bytes = (size_t)s.type->size;
    }
    for (int64_t i = 0; i < r->count; i++) {
        place *to = &r->places[i];
        uint64_t numel = 0;
        for (int k = 7; k >= 0 && end - at >= 8; k--)
            numel = numel << 8 | file[at + (size_t)k];
        if (to->bytes == 0)
            return am_fail(AM_EFORMAT, "%s: storage %lld belongs to no tensor: damaged",
                           r->archive->path, (long long)i);
        if (end - at < 8 || numel > (end - at - 8) / to->bytes)
            return am_fail(AM_EFORMAT,
                           "%s: the file ends inside storage %lld: truncated or damaged",
                           r->archive->path, (long long)i);
        to->offset = at + 8;
        to->bytes *= (size_t)numel;
        at = to->offset + to->bytes;
    }
    return AM_OK;
}

static int read_legacy(reader *r)
{
    am_archive *a = r->archive;
    const uint8_t *file = a->map->data;
    size_t bytes = a->map->bytes, at = LEGACY_BEGIN;
    AM_TRY(am_pickle_read(&r->before, a->path, file + at, bytes - at));
    at += r->before.bytes;
    const am_pickle_value *system = &r->before.values[r->before.root];
    const am_pickle_value *little =
        system->kind == AM_PICKLE_DICT ? dict_find(&r->before, system, "little_endian") : NULL;
    if (!little || little->kind != AM_PICKLE_BOOL || !little->as.integer)
        return am_fail(AM_EUNSUP, "%s: its byte order is not little endian", a->path);
    AM_TRY(am_pickle_read(&r->pickle, a->path, file + at, bytes - at));
    at += r->pickle.bytes;
    AM_TRY(am_pickle_read(&r->after, a->path, file + at, bytes - at));
    at += r->after.bytes;
    AM_TRY(read_keys(r));
    AM_TRY(read_places(r, at));
    return read_state_dict(r);
}

/* ---- both -------------------------------------------------------------------------------- */

int am_pytorch_is(const am_archive *a)
{
    static const char legacy[] = LEGACY_MAGIC LEGACY_PROTOCOL;
    const uint8_t *file = a->map->data;
    return (a->map->bytes >= 4 && memcmp(file, "PK\3\4", 4) == 0) ||
           (a->map->bytes >= LEGACY_BEGIN && memcmp(file, legacy, LEGACY_BEGIN) == 0);
}

int am_pytorch_read(am_archive *a)
{
    reader r = {.archive = a};
    a->kind = "pytorch";
    am_buffer_put(&a->metadata, "{}", 2);
    int rc = a->metadata.rc;
    if (rc == AM_OK)
        rc = a->map->data[0] == 'P' ? read_zip(&r) : read_legacy(&r);
    am_zip_free(&r.zip);
    am_pickle_free(&r.pickle);
    am_pickle_free(&r.before);
    am_pickle_free(&r.after);
    am_free(r.keys);
    am_free(r.places);
    am_free(r.text);
    return rc;
}
