/* archive.h — what an open archive is made of, for its readers (safetensors.c, gguf.c,
 * pytorch.c). */
#ifndef AM_ARCHIVE_H
#define AM_ARCHIVE_H

#include "file.h"
#include "json.h"

/* One tensor of the file. The reader has checked that offset and bytes lie inside the mapping and
 * that bytes is what shape, type and strides need (unless the type is unknown: dtype -1). */
typedef struct am_archive_entry {
    const char *name;      /* owned by the reader's part of the archive */
    const char *stored_as; /* the file's name for the type */
    int dtype;             /* AM_*, or -1: the engine does not read this type */
    int ndim;
    int64_t shape[AM_MAX_DIMS];
    size_t offset, bytes; /* in the file */
    int strided; /* 1: its elements lie `stride` elements apart, none of them after `bytes` */
    int64_t stride[AM_MAX_DIMS];
    /* Blocks to f32, exactly as many as `bytes` holds; NULL: the bytes are dtype's own. */
    void (*dequantize)(float *out, const uint8_t *blocks, size_t n_blocks);
    size_t block_bytes;
} am_archive_entry;

/* Names in strcmp order with the number of the thing named. */
typedef struct am_name {
    const char *name;
    int64_t number;
} am_name;
/* Sort in place; *twice is a name that occurs twice, or NULL. */
void am_names_sort(am_name *names, int64_t n, const char **twice);
int64_t am_names_find(const am_name *names, int64_t n, const char *name); /* number, -1: absent */

struct am_archive {
    am_mapping *map;
    char *path; /* for messages */
    const char *kind;
    am_archive_entry *entries;
    am_name *names;
    int64_t count;
    am_buffer metadata;
    am_json_doc *header;  /* safetensors */
    struct am_gguf *gguf; /* GGUF: key-values, see gguf.c */
    char *name_text;      /* PyTorch: the names of the entries */
};

/* Readers: fill the archive from its mapping; on error the caller releases it. */
int am_safetensors_read(am_archive *a);
enum { AM_SAFETENSORS_HEADER_MAX = 100000000 }; /* the reference implementation's cap */
extern const char *const am_safetensors_types[AM_DTYPE_COUNT]; /* its names of dtypes */
int am_gguf_read(am_archive *a);
void am_gguf_release(struct am_gguf *g);
int am_pytorch_is(const am_archive *a); /* by the first bytes; a zip file of any kind too */
int am_pytorch_read(am_archive *a);

/* Room for n entries. */
int am_archive_reserve(am_archive *a, int64_t n);
/* Put "path: tensor name" before an error that was raised, keep the code. */
int am_archive_blame(const am_archive *a, const am_archive_entry *e, int code);
/* Product of the shape; -1 when it does not fit int64_t. */
int64_t am_archive_numel(const am_archive_entry *e);
/* Refuse tensors that share bytes; with `dense` also bytes between `start` and the end of the file
 * that belong to no tensor. Zero-size tensors are left out of the former. */
int am_archive_check_layout(am_archive *a, size_t start, int dense);

#endif
