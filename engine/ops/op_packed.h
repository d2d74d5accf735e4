/* op_packed.h — products with a packed weight, for op_packed.c and op_matmul.c. */
#ifndef AM_OP_PACKED_H
#define AM_OP_PACKED_H

#include "op.h"

/* Fails unless input 1 is a weight packed so, and input 0 has its cols last. */
int am_packed_check(const am_call *c, const am_packing *p);
/* y [m, rows] (+)= x W^T + bias when trans, else y [m, cols] (+)= x W; all dense. */
int am_packed_product(am_tensor *y, am_tensor *x, am_tensor *w, const am_packing *p, bool trans,
                      am_tensor *bias, int64_t m, int accumulate);

#endif
