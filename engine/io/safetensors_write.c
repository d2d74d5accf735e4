/* safetensors_write.c — writing the safetensors format: whole files, and files in parts, each by
 * the process that has it, or by a thread while the program goes on. Reading is safetensors.c's. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../core/tensor.h"
#include "archive.h"
#include "hash.h"

enum { CHUNK = 8 << 20 }; /* bytes copied at a time when a tensor can't be written in place */

/* ---- the header -------------------------------------------------------------------------- */

/* A tensor of a file, and where its bytes are after the header. */
typedef struct placed {
    const char *name; /* borrowed */
    int dtype, ndim;
    int64_t shape[AM_MAX_DIMS];
    uint64_t begin, end;
} placed;

/* The bytes of a tensor; -1 when they are too many, or it has a dim below 0. */
static int64_t bytes_of(const placed *p)
{
    int64_t bytes = am_dtype_size(p->dtype);
    for (int d = 0; d < p->ndim; d++)
        if (p->shape[d] < 0 || __builtin_mul_overflow(bytes, p->shape[d], &bytes))
            return -1;
    return bytes;
}

/* Larger dtypes first, otherwise as given: then every tensor is aligned for its dtype, which
 * readers that map the file need. The bytes of all go to *total. */
static int place(placed *places, int64_t n, uint64_t *total)
{
    int64_t at = 0;
    for (int size = 8; size > 0; size /= 2)
        for (int64_t i = 0; i < n; i++) {
            placed *p = &places[i];
            if (am_dtype_size(p->dtype) != size)
                continue;
            int64_t bytes = bytes_of(p), end;
            if (bytes < 0 || __builtin_add_overflow(at, bytes, &end) || end > INT64_MAX / 2)
                return am_fail(AM_EINVAL, "tensor \"%.120s\": its shape is too large", p->name);
            p->begin = (uint64_t)at;
            p->end = (uint64_t)end;
            at = end;
        }
    *total = (uint64_t)at;
    return AM_OK;
}

static int put_metadata(am_buffer *b, const char *metadata)
{
    am_json_doc *doc = NULL;
    if (!metadata)
        metadata = "{\"format\":\"pt\"}";
    int rc = am_json_parse(&doc, metadata, strlen(metadata), AM_JSON_UNIQUE_KEYS);
    if (rc != AM_OK)
        return am_fail_context(rc == AM_EFORMAT ? AM_EINVAL : rc, "safetensors metadata");
    const am_json *root = am_json_root(doc);
    int strings = root->kind == AM_JSON_OBJECT;
    for (uint32_t i = 0; strings && i < root->count; i++)
        strings = root->as.members[i].value.kind == AM_JSON_STRING;
    if (strings) {
        am_json_put_key(b, "__metadata__", 12);
        am_json_put_value(b, root);
    } else {
        rc = am_fail(AM_EINVAL, "safetensors metadata is not a JSON object of strings");
    }
    am_json_free(doc);
    return rc;
}

static int check_name(const char *name)
{
    size_t bytes = strlen(name);
    if (strcmp(name, "__metadata__") == 0)
        return am_fail(AM_EINVAL, "a tensor cannot be named __metadata__");
    for (size_t i = 0; i < bytes;) {
        int n = am_utf8_length(name + i, bytes - i);
        if (n == 0)
            return am_fail(AM_EINVAL, "the tensor name \"%.120s\" is not UTF-8", name);
        i += (size_t)n;
    }
    return AM_OK;
}

/* Length and header; parsed again at the end, which finds names that occur twice. */
static int put_header(am_buffer *b, const placed *places, int64_t n, const char *metadata)
{
    uint8_t length[8] = {0};
    am_buffer_put(b, length, sizeof length);
    am_json_put_open(b, '{');
    AM_TRY(put_metadata(b, metadata));
    for (int64_t i = 0; i < n; i++) {
        const placed *p = &places[i];
        AM_TRY(check_name(p->name));
        const char *type = am_safetensors_types[p->dtype];
        am_json_put_key(b, p->name, strlen(p->name));
        am_json_put_open(b, '{');
        am_json_put_key(b, "dtype", 5);
        am_json_put_string(b, type, strlen(type));
        am_json_put_key(b, "shape", 5);
        am_json_put_open(b, '[');
        for (int d = 0; d < p->ndim; d++)
            am_json_put_int(b, p->shape[d]);
        am_json_put_close(b, ']');
        am_json_put_key(b, "data_offsets", 12);
        am_json_put_open(b, '[');
        am_json_put_uint(b, p->begin);
        am_json_put_uint(b, p->end);
        am_json_put_close(b, ']');
        am_json_put_close(b, '}');
    }
    am_json_put_close(b, '}');
    while (b->rc == AM_OK && b->bytes % 8 != 0)
        am_buffer_put(b, " ", 1);
    AM_TRY(b->rc);

    uint64_t header = b->bytes - 8;
    if (header > AM_SAFETENSORS_HEADER_MAX)
        return am_fail(AM_EINVAL, "a header of %llu bytes, more than readers accept (%d)",
                       (unsigned long long)header, AM_SAFETENSORS_HEADER_MAX);
    for (int i = 0; i < 8; i++)
        b->data[i] = (char)(header >> 8 * i & 0xff);
    am_json_doc *doc = NULL;
    int rc = am_json_parse(&doc, b->data + 8, (size_t)header, AM_JSON_UNIQUE_KEYS);
    am_json_free(doc);
    return rc == AM_EFORMAT ? am_fail_context(AM_EINVAL, "tensor names") : rc;
}

/* ---- tensors' bytes ---------------------------------------------------------------------- */

/* Where bytes go, in order: into a file that is replaced, or into a place in one that is shared. */
typedef struct output {
    am_file_writer *whole; /* or NULL, and */
    int fd;
    uint64_t at;
    const char *path;
    const char *name; /* of the tensor at hand, for messages */
    void *chunk;      /* CHUNK bytes */
} output;

static int emit(output *o, const void *data, size_t bytes)
{
    if (o->whole)
        return am_file_append(o->whole, data, bytes);
    AM_TRY(am_file_write_at(o->fd, o->path, data, bytes, o->at));
    o->at += bytes;
    return AM_OK;
}

/* The error of reading a tensor (those of the file name it themselves). */
static int fail_reading(const output *o, int rc)
{
    return am_fail_context(rc, "%s: tensor \"%.120s\"", o->path, o->name);
}

/* Elements [from, from + n) of a dense tensor, through the chunk. */
static int emit_part(output *o, const am_tensor *t, int64_t from, int64_t n)
{
    am_tensor *part;
    int64_t one = 1;
    size_t bytes = (size_t)n * (size_t)am_dtype_size(t->dtype);
    int rc = am_tensor_view(&part, t, 1, &n, &one, from);
    if (rc != AM_OK)
        return fail_reading(o, rc);
    rc = am_tensor_read(part, o->chunk, bytes);
    am_tensor_release(part);
    return rc == AM_OK ? emit(o, o->chunk, bytes) : fail_reading(o, rc);
}

/* Host memory is written in place, other memory through the chunk. */
static int emit_dense(output *o, am_tensor *t)
{
    int rc = am_device_sync(t->device);
    if (rc != AM_OK)
        return fail_reading(o, rc);
    const void *data = am_tensor_data(t);
    if (data)
        return emit(o, data, (size_t)am_tensor_bytes(t));
    int64_t numel = am_tensor_numel(t), step = CHUNK / am_dtype_size(t->dtype);
    for (int64_t from = 0; from < numel; from += step)
        AM_TRY(emit_part(o, t, from, numel - from < step ? numel - from : step));
    return AM_OK;
}

/* A tensor's elements in row-major order; strided tensors are made dense first. */
static int emit_tensor(output *o, am_tensor *t)
{
    if (am_tensor_dense(t))
        return emit_dense(o, t);
    am_tensor *dense;
    int rc = am_tensor_make(&dense, t->dtype, t->ndim, t->shape, t->device);
    if (rc != AM_OK)
        return fail_reading(o, rc);
    rc = am_tensor_copy(dense, t);
    rc = rc == AM_OK ? emit_dense(o, dense) : fail_reading(o, rc);
    am_tensor_release(dense);
    return rc;
}

/* ---- whole files ------------------------------------------------------------------------- */

int am_safetensors_save(const char *path, int64_t n, const char *const *names,
                        am_tensor *const *tensors, const char *metadata)
{
    am_file_writer file = {0};
    output o = {.whole = &file, .path = path};
    am_buffer header = {0};
    void *places = NULL;
    uint64_t total;
    int rc;
    for (int64_t i = 0; i < n; i++)
        AM_TRY(am_tensor_check_alive(tensors[i], names[i]));
    AM_TRY_OUT(am_alloc(&places, (size_t)n * sizeof(placed)));
    AM_TRY_OUT(am_alloc(&o.chunk, CHUNK));
    for (int64_t i = 0; i < n; i++) {
        placed *p = (placed *)places + i;
        *p = (placed){.name = names[i], .dtype = tensors[i]->dtype, .ndim = tensors[i]->ndim};
        memcpy(p->shape, tensors[i]->shape, sizeof p->shape);
    }
    rc = place(places, n, &total);
    rc = rc == AM_OK ? put_header(&header, places, n, metadata) : rc;
    if (rc != AM_OK) {
        am_fail_context(rc, "%s", path);
        goto out;
    }
    AM_TRY_OUT(am_file_begin(&file, path, header.bytes + total));
    AM_TRY_OUT(am_file_append(&file, header.data, header.bytes));
    for (int size = 8; size > 0; size /= 2)
        for (int64_t i = 0; i < n; i++)
            if (am_dtype_size(tensors[i]->dtype) == size) {
                o.name = names[i];
                AM_TRY_OUT(emit_tensor(&o, tensors[i]));
            }
    rc = am_file_commit(&file);
out:
    am_file_discard(&file);
    am_buffer_free(&header);
    am_free(places);
    am_free(o.chunk);
    return rc;
}

/* ---- files in parts ---------------------------------------------------------------------- */

/* A part that waits to be written. */
typedef struct waiting {
    am_tensor *tensor; /* keeps the bytes */
    const void *data;
    size_t bytes;
    uint64_t at;
} waiting;

struct am_parts {
    char *path;
    int fd, flags; /* fd -1: closed */
    placed *places;
    char *names; /* text of places' names */
    int64_t n;
    uint64_t data, size; /* where tensors' bytes begin; of the file */
    waiting *waiting;
    size_t n_waiting, room;
    void *chunk;
    int busy; /* a thread has it */
    uint8_t digest[AM_HASH_BYTES];
};

static int copy_specs(am_parts *p, const am_parts_spec *specs)
{
    size_t bytes = 0;
    void *places, *text;
    for (int64_t i = 0; i < p->n; i++)
        bytes += strlen(specs[i].name) + 1;
    AM_TRY(am_alloc(&places, (size_t)p->n * sizeof(placed)));
    p->places = places;
    AM_TRY(am_alloc(&text, bytes));
    p->names = text;
    char *at = text;
    for (int64_t i = 0; i < p->n; i++) {
        const am_parts_spec *s = &specs[i];
        if (s->dtype < 0 || s->dtype >= AM_DTYPE_COUNT || s->ndim < 0 || s->ndim > AM_MAX_DIMS)
            return am_fail(AM_EINVAL, "tensor \"%.120s\": dtype %d, %d dims", s->name, s->dtype,
                           s->ndim);
        p->places[i] = (placed){.name = at, .dtype = s->dtype, .ndim = s->ndim};
        memcpy(p->places[i].shape, s->shape, sizeof s->shape);
        at = stpcpy(at, s->name) + 1;
    }
    return AM_OK;
}

/* Make the file, or open it, and write its header. */
static int open_parts(am_parts *p, const char *path, const am_parts_spec *specs,
                      const char *metadata)
{
    am_buffer header = {0};
    uint64_t total;
    int rc;
    AM_TRY(am_strdup(&p->path, path));
    AM_TRY(copy_specs(p, specs));
    rc = place(p->places, p->n, &total);
    rc = rc == AM_OK ? put_header(&header, p->places, p->n, metadata) : rc;
    if (rc != AM_OK) {
        am_fail_context(rc, "%s", path);
        goto out;
    }
    p->data = header.bytes;
    p->size = header.bytes + total;
    if (p->flags & AM_PARTS_MAKE) {
        AM_TRY_OUT(am_file_make_sized(&p->fd, path, p->size));
        rc = am_file_write_at(p->fd, path, header.data, header.bytes, 0);
    } else {
        rc = am_file_open_sized(&p->fd, path, p->size);
    }
out:
    am_buffer_free(&header);
    return rc;
}

int am_parts_open(am_parts **out, const char *path, int64_t n, const am_parts_spec *specs,
                  const char *metadata, int flags)
{
    void *q;
    AM_TRY(am_alloc(&q, sizeof(am_parts)));
    am_parts *p = q;
    *p = (am_parts){.fd = -1, .flags = flags, .n = n};
    int rc = open_parts(p, path, specs, metadata);
    if (rc != AM_OK) {
        am_parts_release(p);
        return rc;
    }
    *out = p;
    return AM_OK;
}

/* Are these rows of the file's tensor, and where do they go? */
static int find_rows(const am_parts *p, int64_t i, int64_t row, const am_tensor *t, uint64_t *at)
{
    if (i < 0 || i >= p->n)
        return am_fail(AM_EINVAL, "%s: there is no tensor %lld of %lld", p->path, (long long)i,
                       (long long)p->n);
    const placed *to = &p->places[i];
    AM_TRY(am_tensor_check_alive(t, to->name));
    int same = t->dtype == to->dtype && t->ndim == to->ndim;
    for (int d = 1; same && d < t->ndim; d++)
        same = t->shape[d] == to->shape[d];
    if (same && t->ndim > 0)
        same = row >= 0 && row <= to->shape[0] && t->shape[0] <= to->shape[0] - row;
    else
        same = same && row == 0;
    if (!same) {
        char have[96], want[96];
        return am_fail(AM_ESHAPE, "%s: tensor \"%.120s\" is %s %s; rows from %lld of %s %s are not",
                       p->path, to->name, am_dtype_name(to->dtype),
                       am_shape_text(want, to->ndim, to->shape), (long long)row,
                       am_dtype_name(t->dtype), am_shape_text(have, t->ndim, t->shape));
    }
    uint64_t rows = t->ndim > 0 && to->shape[0] > 0 ? (uint64_t)to->shape[0] : 1;
    *at = p->data + to->begin + (to->end - to->begin) / rows * (uint64_t)row;
    return AM_OK;
}

/* Keep a part until it is written. */
static int keep(am_parts *p, am_tensor *t, uint64_t at, const char *name)
{
    const void *data = am_tensor_data(t);
    if (!am_tensor_dense(t) || !data)
        return am_fail(AM_EINVAL,
                       "%s: tensor \"%.120s\": what is written later must be dense, and in the "
                       "host's memory",
                       p->path, name);
    void *items = p->waiting;
    AM_TRY(am_grow(&items, &p->room, p->n_waiting + 1, sizeof *p->waiting));
    p->waiting = items;
    waiting *w = &p->waiting[p->n_waiting];
    AM_TRY(am_tensor_alias(&w->tensor, t));
    w->data = data;
    w->bytes = (size_t)am_tensor_bytes(t);
    w->at = at;
    p->n_waiting++;
    return AM_OK;
}

int am_parts_put(am_parts *p, int64_t i, int64_t row, am_tensor *t)
{
    uint64_t at = 0;
    if (p->busy) /* then the rest is the thread's */
        return am_fail(AM_ESTATE, "%s: it is being written", p->path);
    if (p->fd < 0)
        return am_fail(AM_ESTATE, "%s: it is written already", p->path);
    AM_TRY(find_rows(p, i, row, t, &at));
    if (am_tensor_numel(t) == 0)
        return AM_OK;
    if (p->flags & AM_PARTS_LATER)
        return keep(p, t, at, p->places[i].name);
    if (!p->chunk)
        AM_TRY(am_alloc(&p->chunk, CHUNK));
    output o = {
        .fd = p->fd, .at = at, .path = p->path, .name = p->places[i].name, .chunk = p->chunk};
    return emit_tensor(&o, t);
}

static int hash_piece(void *state, const void *data, size_t bytes)
{
    am_hash_update(state, data, bytes);
    return AM_OK;
}

/* Write what waits, sync, digest, close. A thread may do so: it allocates nothing, and asks for no
 * signals. */
static int write_out(am_parts *p)
{
    for (size_t k = 0; k < p->n_waiting; k++) {
        const waiting *w = &p->waiting[k];
        AM_TRY(am_file_write_at(p->fd, p->path, w->data, w->bytes, w->at));
    }
    AM_TRY(am_file_sync_fd(p->fd, p->path));
    if (p->flags & AM_PARTS_DIGEST) {
        am_hash_state s;
        am_hash_begin(&s);
        AM_TRY(am_file_scan_fd(p->fd, p->path, p->size, hash_piece, &s));
        am_hash_end(&s, p->digest);
    }
    int fd = p->fd;
    p->fd = -1;
    return am_file_close_fd(fd, p->path);
}

int am_parts_finish(am_parts *p, uint8_t *digest)
{
    if (p->busy)
        return am_fail(AM_ESTATE, "%s: it is being written", p->path);
    if (p->fd >= 0)
        AM_TRY(write_out(p));
    if (digest)
        memcpy(digest, p->digest, AM_HASH_BYTES);
    return AM_OK;
}

int64_t am_parts_size(const am_parts *p)
{
    return (int64_t)p->size;
}

void am_parts_release(am_parts *p)
{
    if (!p)
        return;
    if (p->fd >= 0)
        am_file_system.close(p->fd);
    for (size_t k = 0; k < p->n_waiting; k++)
        am_tensor_release(p->waiting[k].tensor);
    am_free(p->waiting);
    am_free(p->places);
    am_free(p->names);
    am_free(p->path);
    am_free(p->chunk);
    am_free(p);
}

/* ---- beside the program ------------------------------------------------------------------ */

struct am_writing {
    pthread_t thread;
    am_parts **files;
    int64_t n, n_paths;
    char *paths; /* one after the other, each with its NUL */
    int done;    /* atomic: the thread sets it last */
    int joined, rc;
    char message[1024];
};

static void *write_files(void *context)
{
    am_writing *w = context;
    const char *path = w->paths;
    for (int64_t i = 0; i < w->n && w->rc == AM_OK; i++)
        w->rc = write_out(w->files[i]);
    for (int64_t i = 0; i < w->n_paths && w->rc == AM_OK; i++, path += strlen(path) + 1)
        w->rc = am_file_sync_path(path);
    if (w->rc != AM_OK)
        snprintf(w->message, sizeof w->message, "%s", am_error_message());
    __atomic_store_n(&w->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* Signals are for the threads that there were. */
static int start(am_writing *w)
{
    sigset_t all, before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&w->thread, NULL, write_files, w);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? am_fail(AM_EIO, "cannot start a thread that writes: %s", strerror(error))
                 : AM_OK;
}

static int copy_paths(am_writing *w, int64_t n, const char *const *paths)
{
    size_t bytes = 0;
    void *text;
    for (int64_t i = 0; i < n; i++)
        bytes += strlen(paths[i]) + 1;
    AM_TRY(am_alloc(&text, bytes));
    w->paths = text;
    w->n_paths = n;
    char *at = text;
    for (int64_t i = 0; i < n; i++)
        at = stpcpy(at, paths[i]) + 1;
    return AM_OK;
}

int am_writing_begin(am_writing **out, int64_t n, am_parts *const *files, int64_t n_paths,
                     const char *const *paths)
{
    void *q, *list = NULL;
    int rc;
    for (int64_t i = 0; i < n; i++)
        if (files[i]->busy || files[i]->fd < 0)
            return am_fail(AM_ESTATE, "%s: it is written already", files[i]->path);
    AM_TRY(am_alloc(&q, sizeof(am_writing)));
    am_writing *w = q;
    AM_TRY_OUT(am_alloc(&list, (size_t)n * sizeof *w->files));
    w->files = list;
    w->n = n;
    if (n > 0)
        memcpy(w->files, files, (size_t)n * sizeof *w->files);
    AM_TRY_OUT(copy_paths(w, n_paths, paths));
    AM_TRY_OUT(start(w));
    for (int64_t i = 0; i < n; i++)
        files[i]->busy = 1;
    *out = w;
    return AM_OK;
out:
    am_free(list);
    am_free(w->paths);
    am_free(w);
    return rc;
}

int am_writing_done(const am_writing *w)
{
    return __atomic_load_n(&w->done, __ATOMIC_ACQUIRE);
}

int am_writing_wait(am_writing *w)
{
    if (!w->joined) {
        (void)pthread_join(w->thread, NULL);
        w->joined = 1;
        for (int64_t i = 0; i < w->n; i++)
            w->files[i]->busy = 0;
    }
    return w->rc == AM_OK ? AM_OK : am_fail(w->rc, "%s", w->message);
}

void am_writing_release(am_writing *w)
{
    if (!w)
        return;
    (void)am_writing_wait(w);
    am_free(w->files);
    am_free(w->paths);
    am_free(w);
}
