/* files.h — the part of am.h about files: safetensors, GGUF, PyTorch's and NumPy's, compressed
 * ones, Parquet, digests. Include am.h. */
#ifndef AM_H
#error "include am.h, which this is a part of"
#endif

/* ---- files ------------------------------------------------------------------------------
 * An archive is a safetensors, GGUF or PyTorch file (what torch.save writes for a state dict,
 * pytorch_model.bin) mapped into memory; its header is checked before anything else. Nothing in a
 * PyTorch file is run: what it asks for beyond tensors is an error. Tensors of host devices share
 * the mapping where the dtype allows; two of a PyTorch file that share bytes share them here. */

typedef struct am_archive am_archive;
int am_archive_open(am_archive **out, const char *path); /* kind by content */
void am_archive_release(am_archive *a);           /* tensors that share the mapping keep it alive */
const char *am_archive_kind(const am_archive *a); /* "safetensors", "gguf" or "pytorch" */
int64_t am_archive_count(const am_archive *a);
const char *am_archive_name(const am_archive *a, int64_t i);
int64_t am_archive_find(const am_archive *a, const char *name); /* -1: absent */
/* dtype is what am_archive_tensor gives by default (F32 for quantised GGUF types), or -1 for a type
 * that cannot be read; stored_as names the type in the file ("F32", "BF16", "Q4_1", …). shape has
 * room for AM_MAX_DIMS and is in row-major order for GGUF too. */
int am_archive_info(const am_archive *a, int64_t i, int *dtype, const char **stored_as, int *ndim,
                    int64_t *shape);
/* dtype -1: as stored. Host devices share the mapping when nothing needs converting and the tensor
 * is aligned for its dtype. Shared tensors are copy-on-write: writing to them never changes the
 * file. AM_EUNSUP for a type that cannot be read. Registered with the innermost scope. */
int am_archive_tensor(am_tensor **out, am_archive *a, int64_t i, int dtype, int device);
/* Metadata as a JSON object: safetensors' __metadata__, all GGUF key-values (arrays of more than 64
 * items are left out), {} for a PyTorch file. */
const char *am_archive_metadata(const am_archive *a);

/* Write a safetensors file: names in the given order, metadata a JSON object of strings (NULL:
 * {"format":"pt"}). Their bytes follow in the same order, larger dtypes first, so that each is
 * aligned. Strided tensors and other devices' are fine. Written beside `path`, synced, then renamed
 * over it; on error nothing is left and the old file stays. */
int am_safetensors_save(const char *path, int64_t n, const char *const *names,
                        am_tensor *const *tensors, const char *metadata);

/* A safetensors file in parts, each written by the process that has it, in any order: one of them
 * makes the file with its header, and when it has returned the others open it, all with the same
 * specs and metadata. It has its name at once, so it belongs into a folder that means nothing yet.
 * A file that one process writes alone is byte for byte what am_safetensors_save writes. */
typedef struct am_parts am_parts;
typedef struct am_parts_spec { /* of a whole tensor */
    const char *name;
    int dtype, ndim;
    int64_t shape[AM_MAX_DIMS];
} am_parts_spec;
enum {
    AM_PARTS_MAKE = 1,  /* make the file; else it is there, with the size that it will have */
    AM_PARTS_LATER = 2, /* put keeps tensors (shares their bytes, which must stay as they are) */
    AM_PARTS_DIGEST = 4 /* finish reads the file again: of files that this process writes alone */
};
/* AM_EINVAL for names or metadata that the format can't hold, AM_EIO for what the system refuses.
 */
int am_parts_open(am_parts **out, const char *path, int64_t n, const am_parts_spec *specs,
                  const char *metadata, int flags);
/* Rows [row, row + t's first dim) of tensor i, which t has the dtype and the further dims of; a
 * tensor of rank 0 has row 0 alone. Any device and strides, but with LATER dense and on the host.
 */
int am_parts_put(am_parts *p, int64_t i, int64_t row, am_tensor *t);
/* Write what waits, sync and close. digest (room for AM_HASH_BYTES, or NULL): with DIGEST the
 * file's, as am_hash_file has it. Asked again, it says the digest again. */
int am_parts_finish(am_parts *p, uint8_t *digest);
int64_t am_parts_size(const am_parts *p); /* of the file when it is whole, bytes */
void am_parts_release(am_parts *p);       /* the file stays; NULL may be */

/* Finish files, one after the other, in a thread beside the program, and then sync further files
 * and folders by their paths. Until wait has returned they
 * are the thread's; they outlive this. wait: the error of the file that could not be written, which
 * those behind it are not either. It may be called again. Release waits, too. */
typedef struct am_writing am_writing;
int am_writing_begin(am_writing **out, int64_t n, am_parts *const *files, int64_t n_paths,
                     const char *const *paths);
int am_writing_done(const am_writing *w); /* 1: wait returns at once */
int am_writing_wait(am_writing *w);
void am_writing_release(am_writing *w);

/* Writing GGUF (version 3), tensor by tensor. metadata: a JSON object of {"type": value} or
 * {"type": [value, …]}, type being u8 … i64, f32, f64, bool or string. Tensor i has the name
 * names[i] (at most 63 bytes), the type types[i] (F32, F16, BF16, Q8_0, Q4_0, Q5_0, Q4_K) and
 * ndims[i] (1 to 4) dims from shapes[i * AM_MAX_DIMS]; rows must divide into the type's blocks.
 * Quantising is that of ggml's reference. Then add all tensors in that order: any float dtype,
 * device and strides. commit syncs the file, which was written beside `path`, and renames it over
 * that. Release in any case: what was not committed is removed, and the old file stays. */
typedef struct am_gguf_writer am_gguf_writer;
int am_gguf_writer_begin(am_gguf_writer **out, const char *path, const char *metadata, int64_t n,
                         const char *const *names, const char *const *types, const int *ndims,
                         const int64_t *shapes);
int am_gguf_writer_add(am_gguf_writer *w, am_tensor *t);
int am_gguf_writer_commit(am_gguf_writer *w);
void am_gguf_writer_release(am_gguf_writer *w);

/* NumPy's .npy, versions 1 and 2, little endian f4 f2 f8 i4 i8 u1 b1; Fortran order is read too.
 * What is saved has the bytes numpy.save would write. Loading registers with the scope. */
int am_npy_load(am_tensor **out, const char *path, int device);
int am_npy_save(const char *path, const am_tensor *t);

/* Write bytes the same safe way (sidecar, fsync, rename). A symbolic link is replaced. */
int am_file_save(const char *path, const void *data, size_t bytes);
int am_file_sync_dir(const char *dir);

/* What a file's first bytes (four are enough) say that it is compressed by. */
enum { AM_COMPRESSION_NONE, AM_COMPRESSION_GZIP, AM_COMPRESSION_ZSTD };
int am_compression(const void *data, size_t bytes);
/* Decompress a file (of one or more gzip members or zstd frames) to one without a name, in the
 * folder of `beside` ("folder/rows"), and open it for reading: *fd is the caller's to close.
 * AM_EFORMAT when the data is damaged or cut off, or becomes more than 64 MiB and more than 250
 * times as large. */
int am_file_decompress(int *fd, const char *path, const char *beside);

/* BLAKE2b digests of 32 bytes: of bytes, and of a file's. */
enum { AM_HASH_BYTES = 32 };
void am_hash(uint8_t *digest, const void *data, size_t bytes);
int am_hash_file(uint8_t *digest, const char *path);

/* ---- Parquet ----------------------------------------------------------------------------
 * The rows of a Parquet file, which is mapped. A page of each column is decoded at a time, so rows
 * are fastest in order; others may be read in any order, at the price of a page of each column.
 * Read are the codecs UNCOMPRESSED, SNAPPY, GZIP and ZSTD, all encodings, and pages of both
 * versions; checksums are compared where a file has them. */

typedef struct am_parquet am_parquet;
int am_parquet_open(am_parquet **out, const char *path);
void am_parquet_release(am_parquet *p);
int64_t am_parquet_rows(const am_parquet *p);
/* The schema as JSON: {"name": …, "kind": "struct" | "list" | "map" | "value", "children": […]} of
 * the row, whose children are the columns. A list has one child, a map two. */
const char *am_parquet_schema(const am_parquet *p);
/* Which columns of the row to read, a byte for each (not 0: read). All are read before that. */
int am_parquet_select(am_parquet *p, const uint8_t *wanted, int64_t columns);

/* A row is its columns, one after the other: a value; or a list and then its items; or a map and
 * then a key and a value for each of its items; or a struct and then all of its fields. Numbers are
 * the nearest double; NaN and infinities are null. Dates and timestamps are milliseconds since 1970
 * (UTC), times of day, decimals and UUIDs are text. */
enum {
    AM_PARQUET_NULL,
    AM_PARQUET_FALSE,
    AM_PARQUET_TRUE,
    AM_PARQUET_NUMBER,
    AM_PARQUET_TEXT,
    AM_PARQUET_LIST,
    AM_PARQUET_MAP,
    AM_PARQUET_STRUCT
};
typedef struct am_parquet_value {
    int32_t kind;
    int32_t count; /* bytes of a text, items of a list or map */
    union {
        double number;
        const char *text; /* not ended by a NUL; UTF-8 where the file says that it is text */
    };
} am_parquet_value;
/* Row i from 0. The values are good until the next call. A row has at most 2^23 values and 64 MiB
 * of text. */
int am_parquet_row(am_parquet *p, int64_t i, const am_parquet_value **values, int64_t *count);
/* Let go of the pages that the last row was read from. */
void am_parquet_rest(am_parquet *p);
