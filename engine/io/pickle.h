/* pickle.h — a Python pickle of tensors as plain values. A pickle is a program that may call
 * anything; this reader runs none of it: it knows the few names that torch.save writes for a state
 * dict, keeps what they are called with, and refuses every other name and every other way to make
 * an object. What the values mean as tensors is for pytorch.c to check. */
#ifndef AM_PICKLE_H
#define AM_PICKLE_H

#include <stddef.h>
#include <stdint.h>

enum {
    AM_PICKLE_NONE,
    AM_PICKLE_BOOL,
    AM_PICKLE_INT,
    AM_PICKLE_FLOAT, /* its value is not kept */
    AM_PICKLE_TEXT,
    AM_PICKLE_TUPLE,
    AM_PICKLE_LIST,
    AM_PICKLE_DICT,   /* OrderedDict too */
    AM_PICKLE_GLOBAL, /* a name that is known */
    AM_PICKLE_STORAGE,
    AM_PICKLE_TENSOR
};

/* What a known name is good for. */
enum {
    AM_PICKLE_ORDERED_DICT,
    AM_PICKLE_REBUILD,    /* (storage, offset, size, stride) */
    AM_PICKLE_REBUILD_V2, /* (…, requires_grad, hooks[, metadata]) */
    AM_PICKLE_REBUILD_V3, /* (…, requires_grad, hooks, dtype[, metadata]) */
    AM_PICKLE_PARAMETER,  /* (tensor, requires_grad, hooks) */
    AM_PICKLE_TYPE        /* of a storage's elements, or a dtype */
};

typedef struct am_pickle_global {
    const char *module, *name;
    int role;
    /* Of a type: its name in safetensors, or NULL for bytes without a type; the engine's dtype, -1
     * when it has none; bytes of an element. */
    const char *stored_as;
    int dtype, size;
} am_pickle_global;

typedef struct am_pickle_value {
    int kind;
    uint32_t count; /* bytes of a text, items of a tuple or list, keys and values of a dict */
    uint32_t capacity;
    union {
        int64_t integer;  /* also of a bool */
        const char *text; /* in the pickle's bytes; no NUL, not checked to be UTF-8 */
        uint32_t *items;  /* numbers of values; of a dict key, value, key, value … */
        const am_pickle_global *global;
        struct {
            uint32_t arguments; /* the tuple that it is made of */
            int role;           /* of the name that a tensor is rebuilt by */
        } made;
    } as;
} am_pickle_value;

typedef struct am_pickle {
    am_pickle_value *values;
    size_t count, capacity;
    uint32_t root;
    size_t bytes; /* of the pickle, which may be followed by more */
} am_pickle;

/* Read the pickle that begins at data. `path` is for messages. *p is zeroed before and freed by the
 * caller in any case; its texts are those of data. Values may contain one another, themselves too.
 */
int am_pickle_read(am_pickle *p, const char *path, const uint8_t *data, size_t bytes);
void am_pickle_free(am_pickle *p);

/* Item i of a tuple, list or dict. */
static inline const am_pickle_value *am_pickle_item(const am_pickle *p, const am_pickle_value *v,
                                                    uint32_t i)
{
    return &p->values[v->as.items[i]];
}
const char *am_pickle_kind_name(int kind); /* "a dict", "an integer", … for messages */

#endif
