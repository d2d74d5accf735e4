/* table.c — the kernels of one instruction set. What is missing here is ref's; gemm is asked for
 * thin products only (gemm.c). */
#include "vec.h"

#define USE(name) .name = AM_SIMD(name)

const am_cpu_kernels AM_PASTE(am_cpu_kernels, AM_ISA) = {
    USE(fill),
    USE(copy),
    USE(unary),
    USE(unary_bwd),
    USE(binary),
    USE(binary_bwd),
    USE(dropout),
    USE(random),
    USE(reduce),
    USE(softmax),
    USE(softmax_bwd),
    USE(argsort),
    USE(gather),
    USE(gather_bwd),
    USE(gemm),
    USE(gemv),
    USE(low_rank),
    USE(rms_norm),
    USE(rms_norm_bwd),
    USE(layer_norm),
    USE(layer_norm_bwd),
    USE(rope_table),
    USE(rope),
    USE(glu),
    USE(glu_bwd),
    USE(attention),
    USE(attention_bwd),
    USE(cross_entropy),
    USE(cross_entropy_bwd),
    USE(sumsq),
    USE(adam),
    USE(sgd),
    USE(lion),
    USE(adafactor),
    USE(eigh),
    USE(qr),
};
