/* params.h — the flat buffers as the optimizer sees them. */
#ifndef AM_PARAMS_H
#define AM_PARAMS_H

#include <stdbool.h>
#include "../core/tensor.h"

/* One flat buffer: all trainable parameters of a dtype and device. */
typedef struct am_flat {
    int dtype, dtype_grad, device;
    int64_t n; /* elements, padding included */
    am_tensor *weights, *grads;
} am_flat;

typedef struct am_param {
    char *name;
    am_tensor *t;
    int flat;       /* index; -1 while not sealed */
    int64_t offset; /* elements into the flat buffer */
} am_param;

struct am_params {
    int refs;
    bool sealed;
    am_param *items;
    size_t n, cap;
    am_flat *flats;
    size_t n_flats, cap_flats;
};

#endif
