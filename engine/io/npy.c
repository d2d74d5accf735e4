/* npy.c — NumPy's .npy files, versions 1 and 2: magic, version, header length, a Python
 * dictionary with exactly the keys descr, fortran_order and shape, then the elements.
 * Only little endian numbers; no pickled objects, no structured types.
 * Source of the layout: numpy.lib.format. */
#include <stdio.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../core/tensor.h"
#include "file.h"

/* NumPy's names; bfloat16 has none. */
static const struct {
    const char *descr;
    int dtype;
} types[] = {{"<f4", AM_F32}, {"<f2", AM_F16}, {"<f8", AM_F64}, {"<i4", AM_I32},
             {"<i8", AM_I64}, {"|u1", AM_U8},  {"|b1", AM_BOOL}};

typedef struct npy_header {
    int dtype, fortran_order, ndim;
    int64_t shape[AM_MAX_DIMS];
    size_t data, bytes; /* where the elements begin in the file, and how many bytes they have */
} npy_header;

/* ---- the header's dictionary ------------------------------------------------------------- */

typedef struct scanner {
    const char *path, *at, *end;
} scanner;

static int fail_header(const scanner *s, const char *what)
{
    return am_fail(AM_EFORMAT, "%s: npy header: %s", s->path, what);
}

static void skip_space(scanner *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t'))
        s->at++;
}

/* Skip white space, then take c if it is next. */
static int take(scanner *s, char c)
{
    skip_space(s);
    if (s->at == s->end || *s->at != c)
        return 0;
    s->at++;
    return 1;
}

static int take_word(scanner *s, const char *word)
{
    size_t bytes = strlen(word);
    skip_space(s);
    if ((size_t)(s->end - s->at) < bytes || memcmp(s->at, word, bytes) != 0)
        return 0;
    s->at += bytes;
    return 1;
}

/* 'text' or "text" without escapes, at most 15 bytes. */
static int take_text(scanner *s, char text[16])
{
    char quote = take(s, '\'') ? '\'' : take(s, '"') ? '"' : 0;
    size_t n = 0;
    if (!quote)
        return fail_header(s, "expected a string");
    while (s->at < s->end && *s->at != quote && n < 15)
        text[n++] = *s->at++;
    text[n] = 0;
    return take(s, quote) ? AM_OK : fail_header(s, "a string that is too long");
}

static int take_size(scanner *s, int64_t *size)
{
    skip_space(s);
    const char *start = s->at;
    *size = 0;
    for (; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++)
        if (__builtin_mul_overflow(*size, (int64_t)10, size) ||
            __builtin_add_overflow(*size, (int64_t)(*s->at - '0'), size))
            return fail_header(s, "a size that is too large");
    return s->at > start ? AM_OK : fail_header(s, "expected a size");
}

static int take_shape(scanner *s, npy_header *h)
{
    if (!take(s, '('))
        return fail_header(s, "expected the shape's '('");
    while (!take(s, ')')) {
        if (h->ndim == AM_MAX_DIMS)
            return fail_header(s, "more than 8 dims");
        AM_TRY(take_size(s, &h->shape[h->ndim++]));
        if (!take(s, ',') && !(s->at < s->end && *s->at == ')'))
            return fail_header(s, "expected ',' or ')' in the shape");
    }
    return AM_OK;
}

static int take_type(scanner *s, npy_header *h)
{
    char descr[16];
    AM_TRY(take_text(s, descr));
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(descr, types[i].descr) == 0) {
            h->dtype = types[i].dtype;
            return AM_OK;
        }
    return am_fail(AM_EUNSUP,
                   "%s: elements of type '%s'%s; read are <f4, <f2, <f8, <i4, <i8, "
                   "|u1 and |b1",
                   s->path, descr, descr[0] == '>' ? " (big endian)" : "");
}

static int take_dictionary(scanner *s, npy_header *h)
{
    enum { DESCR = 1, ORDER = 2, SHAPE = 4 };
    int seen = 0, key;
    if (!take(s, '{'))
        return fail_header(s, "expected '{'");
    while (!take(s, '}')) {
        char name[16];
        AM_TRY(take_text(s, name));
        if (!take(s, ':'))
            return fail_header(s, "expected ':'");
        if (strcmp(name, "descr") == 0) {
            key = DESCR;
            AM_TRY(take_type(s, h));
        } else if (strcmp(name, "fortran_order") == 0) {
            key = ORDER;
            h->fortran_order = take_word(s, "True");
            if (!h->fortran_order && !take_word(s, "False"))
                return fail_header(s, "fortran_order is neither True nor False");
        } else if (strcmp(name, "shape") == 0 && !(seen & SHAPE)) {
            key = SHAPE;
            AM_TRY(take_shape(s, h));
        } else {
            return fail_header(s, "an unknown or repeated key");
        }
        seen |= key;
        if (!take(s, ',') && !(s->at < s->end && *s->at == '}'))
            return fail_header(s, "expected ',' or '}'");
    }
    if (seen != (DESCR | ORDER | SHAPE))
        return fail_header(s, "descr, fortran_order or shape is missing");
    return AM_OK;
}

static int read_header(npy_header *h, const am_mapping *map, const char *path)
{
    const uint8_t *file = map->data;
    if (map->bytes < 10 || memcmp(file, "\x93NUMPY", 6) != 0)
        return am_fail(AM_EFORMAT, "%s: not an npy file", path);
    if (file[6] != 1 && file[6] != 2)
        return am_fail(AM_EUNSUP, "%s: npy version %d; 1 and 2 are read", path, file[6]);
    size_t start = file[6] == 1 ? 10 : 12, length = file[8] | (size_t)file[9] << 8;
    if (file[6] == 2 && map->bytes >= 12)
        length |= (size_t)file[10] << 16 | (size_t)file[11] << 24;
    if (map->bytes < start || length > map->bytes - start)
        return am_fail(AM_EFORMAT, "%s: the npy header is cut off", path);
    scanner s = {.path = path, .at = (const char *)file + start};
    s.end = s.at + length;
    AM_TRY(take_dictionary(&s, h));
    h->data = start + length;

    int64_t bytes = am_dtype_size(h->dtype);
    for (int i = 0; i < h->ndim; i++)
        if (h->shape[i] == 0)
            bytes = 0;
    for (int i = 0; i < h->ndim; i++)
        if (__builtin_mul_overflow(bytes, h->shape[i], &bytes))
            return fail_header(&s, "a shape that is too large");
    if ((uint64_t)bytes != map->bytes - h->data)
        return am_fail(AM_EFORMAT, "%s: %zu bytes of elements, but its shape takes %lld", path,
                       map->bytes - h->data, (long long)bytes);
    h->bytes = (size_t)bytes;
    return AM_OK;
}

/* ---- loading and saving ------------------------------------------------------------------ */

/* The elements lie with the first dim fastest: a dense tensor of the reversed shape, seen with its
 * dims reversed again and copied to row-major order. */
static int from_fortran(am_tensor **out, const npy_header *h, const void *data, int device)
{
    int64_t reversed[AM_MAX_DIMS], stride[AM_MAX_DIMS], n = 1;
    am_tensor *raw = NULL, *view = NULL, *t = NULL;
    int rc;
    for (int i = 0; i < h->ndim; i++) {
        reversed[h->ndim - 1 - i] = h->shape[i];
        stride[i] = n;
        n *= h->shape[i];
    }
    AM_TRY_OUT(am_tensor_make(&raw, h->dtype, h->ndim, reversed, device));
    AM_TRY_OUT(am_tensor_write(raw, data, h->bytes));
    AM_TRY_OUT(am_tensor_view(&view, raw, h->ndim, h->shape, stride, 0));
    AM_TRY_OUT(am_tensor_make(&t, h->dtype, h->ndim, h->shape, device));
    AM_TRY_OUT(am_tensor_copy(t, view));
    *out = t;
    t = NULL;
out:
    am_tensor_release(raw);
    am_tensor_release(view);
    am_tensor_release(t);
    return rc;
}

static int from_rows(am_tensor **out, const npy_header *h, const void *data, int device)
{
    am_tensor *t;
    AM_TRY(am_tensor_make(&t, h->dtype, h->ndim, h->shape, device));
    int rc = am_tensor_write(t, data, h->bytes);
    if (rc == AM_OK)
        *out = t;
    else
        am_tensor_release(t);
    return rc;
}

int am_npy_load(am_tensor **out, const char *path, int device)
{
    am_mapping *map;
    am_tensor *t;
    npy_header h = {0};
    int rc;
    AM_TRY(am_mapping_open(&map, path));
    AM_TRY_OUT(read_header(&h, map, path));
    uint8_t *data = map->data + h.data;
    if (h.dtype == AM_BOOL) /* in the private mapping, not in the file */
        for (size_t i = 0; i < h.bytes; i++)
            data[i] = data[i] != 0;
    AM_TRY_OUT(h.fortran_order && h.ndim > 1 ? from_fortran(&t, &h, data, device)
                                             : from_rows(&t, &h, data, device));
    am_scope_register(t);
    *out = t;
out:
    am_mapping_release(map);
    return rc;
}

int am_npy_save(const char *path, const am_tensor *t)
{
    char header[512] = "\x93NUMPY\1", *dictionary = header + 10; /* at most 8 sizes of 19 digits */
    const char *descr = NULL;
    void *data = NULL;
    am_file_writer w = {0};
    int rc;
    AM_TRY(am_tensor_check_alive(t, "npy"));
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].dtype == t->dtype)
            descr = types[i].descr;
    if (!descr)
        return am_fail(AM_EUNSUP, "%s: npy files have no %s; cast to float32 first", path,
                       am_dtype_name(t->dtype));
    int n = sprintf(dictionary, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int i = 0; i < t->ndim; i++)
        n += sprintf(dictionary + n, i > 0 ? ", %lld" : "%lld", (long long)t->shape[i]);
    n += sprintf(dictionary + n, t->ndim == 1 ? ",), }" : "), }");
    while ((10 + n + 1) % 64 != 0) /* the elements begin at a multiple of 64 */
        dictionary[n++] = ' ';
    dictionary[n++] = '\n';
    header[8] = (char)(n & 0xff);
    header[9] = (char)(n >> 8);

    size_t bytes = (size_t)am_tensor_numel(t) * (size_t)am_dtype_size(t->dtype);
    AM_TRY_OUT(am_alloc(&data, bytes));
    AM_TRY_OUT(am_tensor_read(t, data, bytes));
    AM_TRY_OUT(am_file_begin(&w, path, 10 + (size_t)n + bytes));
    AM_TRY_OUT(am_file_append(&w, header, 10 + (size_t)n));
    AM_TRY_OUT(am_file_append(&w, data, bytes));
    rc = am_file_commit(&w);
out:
    am_file_discard(&w);
    am_free(data);
    return rc;
}
