/* tensor.h — what a tensor is made of, for the engine's own files.
 *
 *   am_tensor (shell: dtype, shape, strides, offset) ──> am_storage (bytes, counted) ──> device
 *
 * Shells are cheap; the bytes belong to the storage, which is freed when the last shell that sees
 * it lets go. A scope (or release) takes the storage from a shell while Lua still holds the shell:
 * using it then is AM_ESTATE, not a crash. */
#ifndef AM_TENSOR_H
#define AM_TENSOR_H

#include <stdbool.h>
#include "../am.h"

typedef struct am_storage {
    int refs, device, pool; /* am_mem_pool */
    void *data;
    size_t bytes;
    bool exact;                   /* without slack: am_device_alloc_exact */
    void (*release)(void *owner); /* bytes owned by someone else: called at the end */
    void *owner;
} am_storage;

struct am_tensor {
    int refs, dtype, ndim, device;
    int64_t shape[AM_MAX_DIMS], stride[AM_MAX_DIMS]; /* strides in elements */
    int64_t offset;                                  /* of element 0 in the storage, elements */
    am_storage *storage;                             /* NULL once released */

    /* autograd: see ops/tape.c */
    bool requires_grad;
    bool grad_empty; /* grad has a buffer but nothing was written to it yet */
    bool moves;      /* its bytes come and go (am_tensor_set_data): keep the shell, not the bytes */
    uint64_t tape;   /* id of the tape that `var` belongs to; 0: none */
    int64_t var;
    bool computed;   /* an op's result (not a leaf) */
    am_tensor *grad; /* of leaves */
    int32_t hook;    /* of leaves: the id of the event that says that grad is final; 0: none */

    am_scope *scope; /* list of the scope it was made in */
    am_tensor *scope_prev, *scope_next;
};

/* Constructors of the engine; none of these registers with a scope. */
int am_tensor_make(am_tensor **out, int dtype, int ndim, const int64_t *shape, int device);
/* The same for what stays, as weights do: with not a byte of slack, and back to the system at once.
 */
int am_tensor_make_exact(am_tensor **out, int dtype, int ndim, const int64_t *shape, int device);
int am_tensor_alias(am_tensor **out, const am_tensor *t); /* same storage, no history */
int am_tensor_view(am_tensor **out, const am_tensor *t, int ndim, const int64_t *shape,
                   const int64_t *stride, int64_t offset); /* offset from t's own */
/* Bytes that someone else owns; release(owner) when the last view goes. Not counted as live. */
int am_tensor_from_memory(am_tensor **out, int dtype, int ndim, const int64_t *shape, int device,
                          void *data, void (*release)(void *owner), void *owner);
/* A host value as a tensor with one element and rank 0. */
int am_tensor_scalar(am_tensor **out, int dtype, double value, int device);
/* Make t see other bytes from now on (parameters moving into flat buffers); same shape. */
void am_tensor_reseat(am_tensor *t, am_storage *storage, int64_t offset);
void am_scope_register(am_tensor *t); /* with the innermost scope, if any */

int am_tensor_check_given(const am_tensor *t, const char *what); /* not NULL */
int am_tensor_check_alive(const am_tensor *t, const char *what);
bool am_tensor_dense(const am_tensor *t); /* row-major without gaps */
int64_t am_shape_numel(int ndim, const int64_t *shape);
int64_t am_tensor_bytes(const am_tensor *t); /* of its elements; the storage may be larger */
bool am_shape_equal(const am_tensor *a, const am_tensor *b);
/* "[2,3]" into a buffer of 96, for messages; returns it. */
const char *am_shape_text(char text[96], int ndim, const int64_t *shape);
void *am_tensor_ptr(const am_tensor *t); /* device address of element 0 */

#endif
