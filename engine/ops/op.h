/* op.h — how an op is written. A family file (op_norm.c, …) holds, for each of its ops, the checks
 * and shape rule, the forward and the backward beside one another, and ends in a descriptor:
 *
 *     AM_OP(rms_norm, .forward = rms_norm_forward, .backward = rms_norm_backward,
 *           .kernels = {AM_KERNEL(rms_norm), AM_KERNEL(rms_norm_bwd)});
 *
 * The row itself is in ops.def. Host code never touches device memory: it launches kernels. */
#ifndef AM_OP_H
#define AM_OP_H

#include <stdbool.h>
#include <stddef.h>
#include "../backend.h"
#include "../core/device.h"
#include "../core/error.h"
#include "../core/profile.h"
#include "../core/tensor.h"
#include "../dtype.h"

enum { AM_OP_IN = 8, AM_OP_OUT = 1, AM_OP_SAVED = 7, AM_OP_TEMPS = 16, AM_OP_KERNELS = 6 };

/* Tensors that live as long as one op's forward or backward; freed for it. */
typedef struct am_temps {
    am_tensor *t[AM_OP_TEMPS];
    int n;
} am_temps;
int am_temp_new(am_temps *temps, am_tensor **out, int dtype, int ndim, const int64_t *shape,
                int device);
/* t itself when dense, else a dense copy that belongs to temps. */
int am_temp_dense(am_temps *temps, am_tensor **out, am_tensor *t);
void am_temps_free(am_temps *temps);

/* One running forward. */
typedef struct am_call {
    int op, n_in, device;
    am_tensor *const *in;
    am_attrs attrs;
    uint64_t rng_seed, rng_stream; /* set by ops that draw; backward gets the same */
    bool needs[AM_OP_IN];          /* this input takes part in a recorded gradient */
    bool record;                   /* some input does */
    am_tensor *out[AM_OP_OUT];
    am_tensor *saved[AM_OP_SAVED]; /* what backward will see; use am_save */
    am_temps temps;
} am_call;

/* Make output 0. */
int am_out(am_call *c, int dtype, int ndim, const int64_t *shape);
/* Keep t for backward in a slot, when something is recorded. */
int am_save(am_call *c, int slot, am_tensor *t);

/* One running backward. `dout` is dense. Saved tensors are as they were. */
typedef struct am_bwd {
    int op, n_in, device;
    const am_attrs *attrs;
    uint64_t rng_seed, rng_stream;
    bool needs[AM_OP_IN];
    am_tensor *dout;
    am_tensor *const *saved;
    const struct am_var *in[AM_OP_IN]; /* shapes and dtypes of the inputs that need a gradient */
    struct am_tape *tape;
    const struct am_node *node;
    bool open[AM_OP_IN]; /* between am_grad_begin and am_grad_end */
    am_temps temps;
} am_bwd;

/* Where the gradient of input i is to be written, dense, in the input's shape. An op whose kernel
 * can add (`can_accumulate`) gets the true destination: add when g->accumulate, and its dtype may
 * be f32 where the input is bf16 or f16. Others get a buffer of the input's dtype to overwrite.
 * Call am_grad_end when it is written. Several inputs may be begun before the first is ended, also
 * when they are the same tensor. */
typedef struct am_grad {
    am_tensor *t;
    int accumulate;
    bool direct; /* t is where the gradient stays */
} am_grad;
int am_grad_begin(am_bwd *b, int i, bool can_accumulate, am_grad *g);
int am_grad_end(am_bwd *b, int i, am_grad *g);
/* Hand over a finished gradient (any strides, right shape; the callee takes its own reference).
 * The tensor must not be written afterwards. */
int am_grad_give(am_bwd *b, int i, am_tensor *g);

#define AM_KERNEL(k) offsetof(am_backend, k)
/* What a family file says of its op; the rest is its row in ops.def. */
typedef struct am_op_impl {
    int (*forward)(am_call *c);
    int (*backward)(am_bwd *b); /* NULL: not differentiable */
    /* Fill `out` as forward did, from what it saved. An op that has this is cheap, and backward
     * calls it where another op saved its output, which then need not be kept. May be NULL. */
    int (*recompute)(const am_bwd *b, am_tensor *out);
    size_t kernels[AM_OP_KERNELS]; /* vtable slots it needs, by AM_KERNEL; 0 ends */
} am_op_impl;
#define AM_OP(name, ...) const am_op_impl am_op_impl_##name = {__VA_ARGS__}

/* Launchers: am_launch_gemm(device, &args) runs the device's gemm or says that it has none. */
#define K(name, pointers)                                                                          \
    static inline int am_launch_##name(int device, const am_##name##_args *args)                   \
    {                                                                                              \
        const am_backend *be;                                                                      \
        am_stream *stream;                                                                         \
        AM_TRY(am_device_open(device, &be, &stream));                                              \
        if (!be->name)                                                                             \
            return am_fail(AM_EUNSUP, "device %s has no kernel " #name, am_device_name(device));   \
        if (am_profiling)                                                                          \
            am_profile_flops += AM_FLOPS(args);                                                    \
        int rc = be->name(stream, args);                                                           \
        if (rc == AM_EUNSUP) /* by rule for a dtype, and without a message */                      \
            return am_fail(rc, "kernel " #name " of device %s does not do this dtype",             \
                           am_device_name(device));                                                \
        return rc;                                                                                 \
    }
#include "../kernels.def"
#undef K

/* ---- small helpers that families share -------------------------------------------------- */

/* All of these put the op's name in front of the message. */
int am_check_float(const am_call *c, int i);
int am_check_int(const am_call *c, int i);
int am_check_same_dtype(const am_call *c, int i, int j);
int am_check_bias(const am_call *c, int i, int64_t n); /* input i, where it is there: [n] */
/* dim counted from the end when negative; AM_ESHAPE when out of range. */
int am_check_dim(const am_call *c, int ndim, int dim, int *out);

/* Rows of x [..., k]. */
static inline int64_t am_rows_of(const am_tensor *x)
{
    return x->ndim ? am_shape_numel(x->ndim - 1, x->shape) : 1;
}

/* Fill nd from tensors (operand order) that all broadcast to `shape`; collapses dims. */
int am_nd_make(am_nd *nd, int ndim, const int64_t *shape, int n, am_tensor *const *operands);
/* dst = src (any strides, broadcast, dtypes); accumulate adds. Same device. */
int am_copy_kernel(am_tensor *dst, am_tensor *src, int accumulate);
/* Give input i the gradient g of a broadcast shape, summed down to the input's shape. */
int am_grad_give_summed(am_bwd *b, int i, am_tensor *g);

#endif
