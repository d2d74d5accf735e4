/* op_attention.h — what attention as one op and in parts share. */
#ifndef AM_OP_ATTENTION_H
#define AM_OP_ATTENTION_H

#include "op.h"

/* Of in = {q, k, v, bounds or NULL, sinks or NULL} and the attributes. */
int am_attention_check(am_call *c);
/* t with a dense last dim, as kernels want it; other strides are free. */
int am_attention_dense(am_temps *temps, am_tensor **out, am_tensor *t);
/* The sinks, dense and of a dtype. */
int am_attention_sinks(am_call *c, am_tensor **out, int dtype);
am_attention_shape am_attention_shape_of(const am_attention_attrs *at, const am_tensor *q,
                                         const am_tensor *k, const am_tensor *v, uint64_t seed,
                                         uint64_t stream);

#endif
