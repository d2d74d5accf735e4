/* op_check.h — what a case's results must be: a device's against another's, and gradients against
 * finite differences. Every failure ends the running test. */
#ifndef OP_CHECK_H
#define OP_CHECK_H

#include "op_run.h"

/* ---- against another device --------------------------------------------------------------- */

/* `ref` computes in double and rounds once. A backend may compute f32, bf16 and f16 in f32, so it
 * may be off by
 *   f64   1e-12 of the tensor's largest value: sums in another order
 *   f32   4e-6 of the largest: 32 roundings of 2^-23, for sums over up to 131 products
 *   bf16  2^-7 of the value, or of a quarter of the largest: one step of the last place where both
 *         round the same number from different sides, and what that moves in a gradient
 *   f16   2^-10, likewise
 * Attention in bf16 and f16 may round probabilities and their gradients, as matrix units take them,
 * so its output may be a step of the last place off. Gradients are differences of sums with that
 * output, which the step may move by more than they are: 2^-6 of the largest, in f16 2^-9.
 * (Rounding by hand in f64 gives the errors that AMX has.) */
typedef struct case_dtype {
    int dtype;
    tolerance tol;
} case_dtype;
enum { CASE_DTYPES = 4 };
extern const case_dtype case_dtypes[CASE_DTYPES];

/* Of a case in case_dtypes[d]. */
tolerance case_tolerance(const op_case *c, int d);

/* Output and gradients are close to `want`'s; dropout has the same mask. `how` is for messages. */
void check_agrees(const op_case *c, const char *how, const run_result *r, const run_result *want,
                  tolerance tol);
/* They are the same bits. */
void check_bits(const op_case *c, const char *how, const run_result *r, const run_result *want);

/* ---- against differences ------------------------------------------------------------------ */

/* The scalar is the sum of the outputs times fixed weights. Differences are central of fourth order
 * with h = 1e-3: (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h, whose own error is about 1e-12.
 * A gradient may be off by this of the larger of itself, a hundredth of its tensor's largest, and
 * 1e-3. */
extern const tolerance by_difference;

/* The gradients of a case in f64 on a device, by differences at `most` elements of an input. It is
 * run again with other layouts, each input alone requiring grad, computed inputs, two applications
 * before one backward, two backwards into the same gradients, and one tensor in two places; these
 * must give the same numbers (times two where they add up). AM_EUNSUP from the device comes back,
 * and nothing was compared. A case without gradients, or CASE_BIG, is AM_OK. */
int check_gradients(const op_case *c, int device, int most);

#endif
