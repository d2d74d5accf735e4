/* params.h — the flat buffers as the optimizer sees them. */
#ifndef AM_PARAMS_H
#define AM_PARAMS_H

#include <stdbool.h>
#include "../core/tensor.h"

/* One flat buffer: all trainable parameters of a dtype and device. */
typedef struct am_flat {
    int dtype, dtype_grad, device;
    int64_t n;                  /* elements, padding included */
    am_tensor *weights, *grads; /* grads: NULL where they are separate */
} am_flat;

typedef struct am_param {
    char *name;
    am_tensor *t;
    int flat;       /* index; -1 while not sealed */
    int64_t offset; /* elements into the flat buffer */
} am_param;

struct am_params {
    int refs;
    bool sealed, separate_grads;
    am_param *items;
    size_t n, cap;
    am_flat *flats;
    size_t n_flats, cap_flats;
};

/* Of a parameter that has a gradient: sum of its squares. */
int am_param_grad_sumsq(const am_param *q, double *value);
/* Make it empty, and give its memory back where it has some of its own. */
void am_param_clear_grad(const am_params *p, am_param *q);

#endif
