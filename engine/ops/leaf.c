/* leaf.c — what a caller sets and reads of a leaf: whether it requires grad, its gradient, its
 * hook. How gradients come is tape.c's. */
#include "op.h"
#include "tape.h"

int am_leaf_buffer(am_tensor *leaf)
{
    if (leaf->grad)
        return AM_OK;
    int dtype = leaf->dtype == AM_BF16 || leaf->dtype == AM_F16 ? AM_F32 : leaf->dtype;
    AM_TRY(am_tensor_make(&leaf->grad, dtype, leaf->ndim, leaf->shape, leaf->device));
    leaf->grad_empty = true;
    return AM_OK;
}

int am_tensor_set_requires_grad(am_tensor *t, int on)
{
    AM_TRY(am_tensor_check_given(t, "requires_grad"));
    if (t->computed)
        return am_fail(AM_ESTATE, "requires_grad can only be set on leaves; detach first");
    if (on && !am_dtype_is_float(t->dtype))
        return am_fail(AM_EINVAL, "a %s tensor can't require grad", am_dtype_name(t->dtype));
    t->requires_grad = on != 0;
    return AM_OK;
}

int am_tensor_set_grad_hook(am_tensor *t, int id)
{
    AM_TRY(am_tensor_check_given(t, "grad hook"));
    if (t->computed)
        return am_fail(AM_ESTATE,
                       "only a leaf can have a grad hook; this tensor is an op's result");
    t->hook = id;
    return AM_OK;
}

int am_tensor_grad_hook(const am_tensor *t)
{
    return t ? t->hook : 0;
}

int am_tensor_requires_grad(const am_tensor *t)
{
    return t && t->requires_grad;
}

int am_tensor_is_leaf(const am_tensor *t)
{
    return !t || !t->computed;
}

int am_tensor_grad(am_tensor **out, am_tensor *t)
{
    AM_TRY(am_tensor_check_given(t, "grad"));
    if (!t->grad || t->grad_empty) {
        *out = NULL;
        return AM_OK;
    }
    AM_TRY(am_tensor_alias(out, t->grad));
    am_scope_register(*out);
    return AM_OK;
}

int am_tensor_set_grad(am_tensor *t, am_tensor *grad)
{
    AM_TRY(am_tensor_check_given(t, "grad"));
    if (!grad) {
        t->grad_empty = true;
        if (t->moves) {
            am_tensor_release(t->grad);
            t->grad = NULL;
        }
        return AM_OK;
    }
    AM_TRY(am_tensor_check_alive(grad, "grad"));
    if (!am_shape_equal(grad, t) || grad->device != t->device)
        return am_fail(AM_ESHAPE, "grad: shape or device differ from the tensor's");
    if (!am_dtype_is_float(t->dtype) || !am_dtype_is_float(grad->dtype))
        return am_fail(AM_EINVAL, "grad: a %s gradient of a %s tensor", am_dtype_name(grad->dtype),
                       am_dtype_name(t->dtype));
    AM_TRY(am_leaf_buffer(t));
    AM_TRY(am_copy_kernel(t->grad, grad, 0));
    t->grad_empty = false;
    return AM_OK;
}
