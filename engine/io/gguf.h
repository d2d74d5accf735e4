/* gguf.h — key-values of an open GGUF archive, for the parts of the engine that need more than
 * am_archive_metadata gives (the tokenizer's big arrays). Everything was checked at open time;
 * pointers are borrowed from the archive. */
#ifndef AM_GGUF_H
#define AM_GGUF_H

#include <stddef.h>
#include <stdint.h>
#include "../am.h"

/* Value types, numbered as in the file. */
enum {
    AM_GGUF_U8,
    AM_GGUF_I8,
    AM_GGUF_U16,
    AM_GGUF_I16,
    AM_GGUF_U32,
    AM_GGUF_I32,
    AM_GGUF_F32,
    AM_GGUF_BOOL,
    AM_GGUF_STRING,
    AM_GGUF_ARRAY,
    AM_GGUF_U64,
    AM_GGUF_I64,
    AM_GGUF_F64,
    AM_GGUF_TYPE_COUNT
};
/* Its name ("u8", …) and bytes, 0 where it has a length of its own. */
const char *am_gguf_value_type(int type, int *bytes);

/* 1 when the archive is a GGUF file with this key. */
int am_gguf_has(const am_archive *a, const char *key);

/* Scalars. An absent key leaves *value as it is (set it to the default before); a value of another
 * type is AM_EFORMAT. Integers of every width are read by _int, both float widths by _double
 * (integers too). */
int am_gguf_int(int64_t *value, const am_archive *a, const char *key);
int am_gguf_double(double *value, const am_archive *a, const char *key);
int am_gguf_bool(int *value, const am_archive *a, const char *key);
/* Not NUL-terminated, not checked to be UTF-8. */
int am_gguf_string(const char **text, size_t *bytes, const am_archive *a, const char *key);

typedef struct am_gguf_array am_gguf_array;
/* *out = NULL when the key is absent; AM_EFORMAT when it is no array. */
int am_gguf_array_find(const am_gguf_array **out, const am_archive *a, const char *key);
int am_gguf_array_type(const am_gguf_array *array); /* of the items, AM_GGUF_* */
int64_t am_gguf_array_count(const am_gguf_array *array);
/* Item i, 0 <= i < count. _string only for AM_GGUF_STRING; _int for integers and booleans;
 * _double for all numbers. Constant time. */
const char *am_gguf_array_string(const am_gguf_array *array, int64_t i, size_t *bytes);
int64_t am_gguf_array_int(const am_gguf_array *array, int64_t i);
double am_gguf_array_double(const am_gguf_array *array, int64_t i);

#endif
