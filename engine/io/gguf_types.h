/* gguf_types.h — the tensor types of GGUF: their blocks and how they become f32. */
#ifndef AM_GGUF_TYPES_H
#define AM_GGUF_TYPES_H

#include <stddef.h>
#include <stdint.h>

/* A row of a tensor is cut into blocks of `items` elements, `bytes` bytes each. A type is read as
 * it is (dtype >= 0, dequantize NULL), as f32 through dequantize, or not at all (dtype -1). */
typedef struct am_gguf_type {
    const char *name;
    int items, bytes, dtype;
    void (*dequantize)(float *out, const uint8_t *blocks, size_t n_blocks);
} am_gguf_type;

/* By the number in the file; NULL for numbers without a meaning. */
const am_gguf_type *am_gguf_type_find(uint32_t number);

#endif
