/* ref_packed.c — reference kernels of weights in few bits: one number after another, products by a
 * weight that is unpacked whole. */
#include "packed.h"
#include "ref.h"

int am_ref_pack(am_stream *s, const am_pack_args *args)
{
    const am_packing *p = &args->packing;
    am_packed_parts to = am_packed_parts_of(args->packed, p);
    int64_t n = p->rows * p->cols, run = p->type == AM_PACK_INT8 ? p->cols : AM_PACK_BLOCK;
    float *x = am_scratch(5, (size_t)run * sizeof *x), *scales = args->work ? args->work : to.scale;
    (void)s;
    if (!is_float(args->dtype))
        return AM_EUNSUP;
    if (!x)
        return am_kernel_fail(AM_ENOMEM, "pack: no scratch memory");
    for (int64_t first = 0; first < n; first += run) {
        int64_t count = n - first < run ? n - first : run;
        for (int64_t i = 0; i < count; i++)
            x[i] = (float)load(args->a, args->dtype, first + i);
        if (p->type == AM_PACK_INT8) {
            for (int64_t i = 0; i < count; i++)
                x[i] = am_f16_to_f32(am_f32_to_f16(x[i]));
            scales[first / run] = am_pack_int8_row((int8_t *)to.codes + first, x, count);
        } else {
            scales[first / run] = am_pack_block(to.codes + first / 2, x, count, p->type);
        }
    }
    if (args->work)
        am_pack_scales(&to, scales, am_packing_blocks(p));
    return AM_OK;
}

/* Number i of a packed matrix. */
static float number_at(const am_packed_parts *w, const am_packing *p, int64_t i)
{
    if (p->type == AM_PACK_INT8)
        return am_packed_int8((int8_t)w->codes[i], w->scale[i / p->cols]);
    int code = i % 2 ? w->codes[i / 2] & 15 : w->codes[i / 2] >> 4;
    return am_packed_table(p)[code] * am_packed_scale(w, i / AM_PACK_BLOCK);
}

int am_ref_unpack(am_stream *s, const am_unpack_args *args)
{
    const am_packing *p = &args->packing;
    am_packed_parts from = am_packed_parts_of(args->packed, p);
    (void)s;
    if (!is_float(args->dtype))
        return AM_EUNSUP;
    for (int64_t r = 0; r < args->rows; r++)
        for (int64_t c = 0; c < args->cols; c++) {
            int64_t i = (args->row + r) * p->cols + args->col + c;
            store(args->out, args->dtype, r * args->cols + c, (double)number_at(&from, p, i));
        }
    return AM_OK;
}

int am_ref_packed_gemm(am_stream *s, const am_packed_gemm_args *args)
{
    const am_packing *p = &args->packing;
    size_t size = args->dtype == AM_F64 ? 8 : args->dtype == AM_F32 ? 4 : 2;
    void *w = am_scratch(5, (size_t)(p->rows * p->cols) * size);
    if (!w)
        return am_kernel_fail(AM_ENOMEM, "packed_gemm: no scratch memory");
    int rc = am_ref_unpack(s, &(am_unpack_args){.out = w,
                                                .packed = args->w,
                                                .dtype = args->dtype,
                                                .packing = *p,
                                                .rows = p->rows,
                                                .cols = p->cols});
    if (rc != AM_OK)
        return rc;
    int64_t n = args->trans ? p->rows : p->cols, k = args->trans ? p->cols : p->rows;
    return am_ref_gemm(s, &(am_gemm_args){.c = args->c,
                                          .a = args->a,
                                          .b = w,
                                          .bias = args->bias,
                                          .dtype_ab = args->dtype,
                                          .dtype_c = args->dtype_c,
                                          .trans_b = args->trans,
                                          .accumulate = args->accumulate,
                                          .alpha = 1,
                                          .m = args->m,
                                          .n = n,
                                          .k = k,
                                          .lda = k,
                                          .ldb = p->cols,
                                          .ldc = n,
                                          .batch = 1});
}
