/* table.c — the kernels of one instruction set. What is missing here is ref's. */
#include "vec.h"

#define USE(name) .name = AM_SIMD(name)

const am_cpu_kernels AM_PASTE(am_cpu_kernels, AM_ISA) = {
    USE(fill),       USE(copy),    USE(unary),  USE(unary_bwd), USE(binary),
    USE(binary_bwd), USE(dropout), USE(random), USE(attention), USE(attention_bwd),
    USE(adam),       USE(sgd),     USE(sumsq),
};
