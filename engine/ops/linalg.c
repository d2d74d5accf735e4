/* linalg.c — matrix decompositions for optimizers that precondition. They are no ops: nothing is
 * recorded, and two results have no place there. The arithmetic is f64, in the kernels (eigh and qr
 * in kernels.def). */
#include "op.h"

/* An f64 copy of a square matrix, or of its transpose, and `extra` rows of work behind another. */
static int prepare(am_tensor *a, int transposed, int64_t extra, am_tensor **copy, am_tensor **work)
{
    int dtype = am_tensor_dtype(a);
    AM_TRY(am_tensor_check_alive(a, "matrix"));
    if (a->ndim != 2 || a->shape[0] != a->shape[1])
        return am_fail(AM_ESHAPE, "a square matrix is needed");
    if (dtype != AM_F32 && dtype != AM_F64 && dtype != AM_BF16 && dtype != AM_F16)
        return am_fail(AM_EINVAL, "a matrix of %s can't be decomposed", am_dtype_name(dtype));
    AM_TRY(am_device_settle(a->device)); /* the host reads it */
    int64_t n = a->shape[0], stride[] = {a->stride[1], a->stride[0]}, all = n * (n + extra);
    am_tensor *from = a;
    if (transposed)
        AM_TRY(am_tensor_view(&from, a, 2, a->shape, stride, 0));
    int rc = am_tensor_make(copy, AM_F64, 2, a->shape, a->device);
    if (rc == AM_OK)
        rc = am_copy_kernel(*copy, from, 0);
    if (rc == AM_OK)
        rc = am_tensor_make(work, AM_F64, 1, &all, a->device);
    if (transposed)
        am_tensor_release(from);
    return rc;
}

/* The transpose of an f64 matrix, in a's dtype. */
static int finish(am_tensor **out, const am_tensor *a, am_tensor *rows)
{
    int64_t n = a->shape[0], stride[] = {1, n};
    am_tensor *view;
    AM_TRY(am_tensor_view(&view, rows, 2, a->shape, stride, 0));
    int rc = am_tensor_new(out, a->dtype, 2, a->shape, a->device);
    if (rc == AM_OK && (rc = am_copy_kernel(*out, view, 0)) != AM_OK) {
        am_tensor_release(*out);
        *out = NULL;
    }
    am_tensor_release(view);
    return rc;
}

int am_eigh(am_tensor **values, am_tensor **vectors, am_tensor *a)
{
    am_tensor *copy = NULL, *work = NULL, *d = NULL;
    *values = *vectors = NULL;
    int rc = prepare(a, 0, 4, &copy, &work);
    if (rc == AM_OK)
        rc = am_tensor_make(&d, AM_F64, 1, a->shape, a->device);
    if (rc == AM_OK && a->shape[0] > 0)
        rc = am_launch_eigh(a->device, &(am_eigh_args){.vectors = am_tensor_ptr(copy),
                                                       .values = am_tensor_ptr(d),
                                                       .work = am_tensor_ptr(work),
                                                       .n = a->shape[0]});
    if (rc == AM_OK)
        rc = am_tensor_new(values, a->dtype, 1, a->shape, a->device);
    if (rc == AM_OK)
        rc = am_copy_kernel(*values, d, 0);
    if (rc == AM_OK)
        rc = finish(vectors, a, copy);
    if (rc != AM_OK) {
        am_tensor_release(*values);
        *values = NULL;
    }
    am_tensor_release(copy);
    am_tensor_release(work);
    am_tensor_release(d);
    return rc;
}

int am_qr(am_tensor **q, am_tensor *a)
{
    am_tensor *copy = NULL, *work = NULL;
    *q = NULL;
    int rc = prepare(a, 1, 1, &copy, &work);
    if (rc == AM_OK && a->shape[0] > 0)
        rc = am_launch_qr(
            a->device,
            &(am_qr_args){.q = am_tensor_ptr(copy), .work = am_tensor_ptr(work), .n = a->shape[0]});
    if (rc == AM_OK)
        rc = finish(q, a, copy);
    am_tensor_release(copy);
    am_tensor_release(work);
    return rc;
}
