/* optim_steps.h — the steps that the tests of optimizers' kernels take; a case adds its operands
 * and their dtypes. */
#ifndef OPTIM_STEPS_H
#define OPTIM_STEPS_H

#include "backend.h"

static inline am_adam_args adam_step(int64_t n, int decoupled)
{
    return (am_adam_args){.decoupled = decoupled,
                          .n = n,
                          .lr = 1e-2,
                          .beta1 = 0.9,
                          .beta2 = 0.999,
                          .eps = 1e-8,
                          .weight_decay = 0.1,
                          .bias1 = 0.19,
                          .bias2 = 0.002,
                          .grad_scale = 0.7};
}

/* mode: 2 scale_parameter, 4 as transformers' */
static inline am_adafactor_args adafactor_step(int64_t batch, int64_t rows, int64_t cols, int mode)
{
    return (am_adafactor_args){.scale_parameter = mode >> 1 & 1,
                               .transformers = mode >> 2 & 1,
                               .batch = batch,
                               .rows = rows,
                               .cols = cols,
                               .lr = 0.1,
                               .rho = 0.1,
                               .fresh = 0.3,
                               .eps1 = 1e-3,
                               .eps2 = 1e-2,
                               .d = 0.5,
                               .weight_decay = 0.1,
                               .grad_scale = 0.5};
}

#endif
