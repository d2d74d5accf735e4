/* am.h — the whole C API of amlua.
 *
 * This file is the contract between the engine and everything above it: C programs include it,
 * and the build feeds the very same text (preprocessed with -DAM_CDEF) to LuaJIT's ffi.cdef.
 * Read it top to bottom: errors, dtypes and devices, tensors, scopes, ops, the tape, parameters,
 * optimizers, random numbers, memory, threads and signals. What has a family of its own is in
 * api/, and included where it belongs: ranks, files, data (rows and tokenizers), images.
 *
 * Conventions
 *   - A function that can fail returns int: AM_OK (0) or one of the codes below. The message is
 *     then in am_error_message(), per thread. Out parameters come first and are written on
 *     success only.
 *   - Objects are opaque. `am_x_new` gives the caller one reference, `am_x_release` drops it
 *     (NULL is allowed). `const` pointers returned by getters are borrowed from the object.
 *   - Sizes are int64_t in elements unless the name says bytes. Shape letters: B batch, T time,
 *     S key length, C channels, H heads, K key/value heads, D head dim, V vocabulary.
 *   - The API is called from one thread at a time. Kernels use threads of their own.
 *   - No function aborts, exits or prints on bad input.
 */
#ifndef AM_H
#define AM_H

#ifndef AM_CDEF
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)
#endif

/* ---- version --------------------------------------------------------------------------- */

enum { AM_ABI = 1 };
int am_abi(void);             /* AM_ABI of the library, to compare with the header's */
const char *am_version(void); /* "0.1.0" */
const char *am_build(void);   /* "Release, gcc 12.2.0": build type and compiler */
/* Version of "onednn", "pcre2", "utf8proc", "zlib", "zstd", "snappy", "libjpeg-turbo", "spng",
 * "webp", "giflib" or "openmp" as the library itself (Snappy, libjpeg-turbo, giflib: its header)
 * tells; NULL for other names. */
const char *am_library_version(const char *name);

/* ---- errors ---------------------------------------------------------------------------- */

enum {
    AM_OK = 0,
    AM_EINVAL,  /* an argument out of range or of the wrong kind */
    AM_ESHAPE,  /* operands do not fit */
    AM_ENOMEM,  /* out of memory or over the budget */
    AM_EIO,     /* the operating system refused */
    AM_EFORMAT, /* a file is damaged or is not what it should be */
    AM_EDEVICE, /* a device failed */
    AM_ECOMM,   /* communication between ranks failed */
    AM_ESTATE,  /* called at the wrong moment: released tensor, finished tape, … */
    AM_EUNSUP,  /* valid, but no backend does it */
    AM_EINTR    /* SIGINT or SIGTERM was received */
};
const char *am_error_message(void); /* last error of this thread; "" when there was none */
const char *am_error_name(int code);

/* ---- dtypes and devices ---------------------------------------------------------------- */

enum {
#define X(id, name, bytes, st, fl) id,
#include "dtype.def"
#undef X
    AM_DTYPE_COUNT
};
const char *am_dtype_name(int dtype); /* PyTorch's name; "?" when out of range */
int am_dtype_size(int dtype);         /* bytes an element; 0 when out of range */
/* PyTorch's or safetensors' name in any case, "torch." in front or not; half, float, … too. */
int am_dtype_find(int *dtype, const char *name);

/* A device is a small integer. 0 is "cpu"; "ref" (scalar, the oracle) and "fence" (a stand-in for
 * a GPU used by tests) are others. "cuda" is a GPU, "cuda:N" that with the number N: the one that
 * this process uses from its first use on. It needs amlua_cuda.so beside libamlua.so, or the file
 * that AMLUA_CUDA names. */
int am_device_find(int *device, const char *name); /* AM_EUNSUP names those that exist */
/* What the device is, opened if it was not: "NVIDIA H100 80GB HBM3, sm_90, …"; "" of those of the
 * host. AM_EDEVICE with the reason when it can't be used. The text is the device's. */
int am_device_about(const char **about, int device);
/* How many GPUs this process sees, 1 or more. AM_EDEVICE with the reason when it can use none: no
 * amlua_cuda.so, no driver or one that is too old. */
int am_gpu_count(int *count);
/* What amlua_cuda.so was built with: "CUDA 13.0, sm_80, …; needs the NVIDIA driver 580.65.06 or a
 * later one". AM_EDEVICE when it can't be opened. The text is the module's. */
int am_gpu_built(const char **text);
const char *am_device_name(int device);
int am_device_count(void);
int am_device_sync(int device); /* wait until all queued kernels are done */
int am_device_is_host(int device);

/* ---- tensors ---------------------------------------------------------------------------
 * A tensor is a strided view of a counted storage. Rank 0 to 8. */

typedef struct am_tensor am_tensor;
enum { AM_MAX_DIMS = 8 };

/* Uninitialised, contiguous. Registered with the innermost scope. */
int am_tensor_new(am_tensor **out, int dtype, int ndim, const int64_t *shape, int device);
void am_tensor_retain(am_tensor *t);
void am_tensor_release(am_tensor *t);
/* Let go of bytes, gradient and history now; references to the shell stay good, and using it is
 * AM_ESTATE. */
void am_tensor_drop(am_tensor *t);

/* Of NULL: not alive, dtype and device -1, no dims. */
int am_tensor_alive(const am_tensor *t); /* 0 after its storage was released by scope or tape */
int am_tensor_dtype(const am_tensor *t);
int am_tensor_device(const am_tensor *t);
int am_tensor_ndim(const am_tensor *t);
const int64_t *am_tensor_shape(const am_tensor *t);
const int64_t *am_tensor_strides(const am_tensor *t); /* in elements */
int64_t am_tensor_numel(const am_tensor *t);
int am_tensor_is_contiguous(const am_tensor *t);

/* Host address of element 0 for host devices; NULL elsewhere or when released. Valid while the
 * tensor is alive. */
void *am_tensor_data(am_tensor *t);

/* Copy whole tensors in row-major order, converting nothing. `bytes` must be numel * size. What is
 * read has been computed; what is written was taken, and src is free. */
int am_tensor_write(am_tensor *t, const void *src, size_t bytes);
int am_tensor_read(const am_tensor *t, void *dst, size_t bytes);
/* The one element of a tensor as a double, a NaN without sign and payload; waits for the device. */
int am_tensor_item(const am_tensor *t, double *value);
/* Make NaNs in n f32 or f64 values the plain one. LuaJIT takes some others, which a file may hold,
 * for pointers. */
int am_floats_canonical(void *values, int dtype, int64_t n);
/* dst[...] = src[...], broadcasting src, converting dtype, crossing devices. Not recorded. */
int am_tensor_copy(am_tensor *dst, const am_tensor *src);
int am_tensor_fill(am_tensor *t, double value); /* not recorded */
/* store[:, at : at + T] = src, for src [B, T, ...] and store [B, S, ...], converted as by
 * am_tensor_copy; *out is the view store[:, : at + T]. For key/value caches. Not recorded.
 * AM_ESHAPE when src does not fit. */
int am_tensor_append(am_tensor **out, am_tensor *store, const am_tensor *src, int64_t at);

/* t sees the elements of source (the same dtype, shape and device, dense) from now on; with NULL it
 * lets go of its own, and using it is AM_ESTATE until it gets others. t must be no op's result.
 * What backward needs of it is looked up then and not kept from forward, so the values must be back
 * and the same. A gradient that is cleared gives its memory back. As torch's `t.data = source`, for
 * parameters that are put together from shards where they are needed. */
int am_tensor_set_data(am_tensor *t, am_tensor *source);

/* Autograd. A leaf that requires grad collects its gradient in `grad`; see the tape below. */
int am_tensor_set_requires_grad(am_tensor *t, int on);
int am_tensor_requires_grad(const am_tensor *t);
int am_tensor_is_leaf(const am_tensor *t);
/* The gradient's bytes as a tensor of the innermost scope; *out = NULL while there is none. */
int am_tensor_grad(am_tensor **out, am_tensor *t);
int am_tensor_set_grad(am_tensor *t, am_tensor *grad); /* NULL clears */
/* Have backward say when the gradient of a leaf is final: AM_EV_LEAF with this id. 0: no longer. */
int am_tensor_set_grad_hook(am_tensor *t, int id);
int am_tensor_grad_hook(const am_tensor *t);
/* Same storage, no history. */
int am_tensor_detach(am_tensor **out, am_tensor *t);
/* Same storage seen as another shape and strides (elements), starting `offset` elements after
 * this tensor's first. Bounds are checked. Not recorded. */
int am_tensor_as_strided(am_tensor **out, am_tensor *t, int ndim, const int64_t *shape,
                         const int64_t *strides, int64_t offset);

/* ---- scopes ----------------------------------------------------------------------------
 * Every tensor made between push and pop loses its storage at pop, except those kept (which move
 * to the enclosing scope) and what the tape still needs (the tape has references of its own).
 * This, not a garbage collector, is what keeps memory flat. */

int am_scope_push(void);
/* A tensor of the innermost scope belongs to the enclosing one from now on; others stay. */
int am_scope_keep(am_tensor *t);
int am_scope_escape(am_tensor *t); /* belongs to no scope from now on */
int am_scope_pop(void);
/* Take the innermost scope off with what is in it, and put it back later, also into another one:
 * for tensors that belong to a tape that is set aside. It ends by pop. AM_ESTATE: there is none, or
 * it is in use. */
typedef struct am_scope am_scope;
int am_scope_set_aside(am_scope **out);
int am_scope_take_up(am_scope *s);
int am_scope_depth(void);

/* ---- ops -------------------------------------------------------------------------------- */

enum {
#define OP(name, min_in, max_in, n_out, attrs, doc) AM_OP_##name,
#include "ops/ops.def"
#undef OP
    AM_OP_COUNT
};

/* Attention masks are key ranges: query t of a row sees keys [start, end). `causal` and `window`
 * narrow the range further. See ops.def for the inputs. */
typedef struct am_attention_attrs {
    double scale;     /* of q·k; 0 means 1/sqrt(D) */
    double softcap;   /* 0 off; else cap * tanh(s / cap) */
    double dropout_p; /* of attention probabilities */
    int32_t causal;   /* query t sees keys s <= t + (S - T) */
    int32_t window;   /* 0 off; else also s > t + (S - T) - window */
    int32_t library;  /* 1: the device's library (cuDNN) may compute it, where it can */
    int32_t samples;  /* 0: nothing is known of bounds; else rows hold samples, one behind the other
                         with or without gaps, so many in all or less, and a query's range is its own
                         sample, or empty outside of them */
} am_attention_attrs;

/* How a packed weight [rows, cols] is stored: see am_pack. type is AM_PACK_*. */
typedef struct am_packing {
    int32_t type;
    int32_t nested; /* of 4 bits: the scales are in 8 bits themselves */
    int64_t rows, cols;
} am_packing;
enum { AM_PACK_NONE, AM_PACK_NF4, AM_PACK_FP4, AM_PACK_INT8, AM_PACK_COUNT };

typedef struct am_lora_attrs {
    double scale; /* alpha / r */
    double dropout_p;
    int32_t dropout_pre; /* 1: drops x before A (HF PEFT); 0: drops the scaled LoRA output */
    am_packing packing;  /* of the weight; AM_PACK_NONE: it is not packed */
} am_lora_attrs;

/* What an op takes besides tensors; which member is named by its row in ops.def. */
/* clang-format off */
typedef union am_attrs {
    struct { double value; } scalar;
    struct { double min, max; } clamp;
    struct { double p; } dropout;
    struct { double eps, offset; } norm; /* offset: what is added to the weight */
    struct { int32_t dim, keepdim; } reduce; /* dim: AM_ALL_DIMS for all */
    struct { int32_t dim; } dim;
    struct { int32_t dim, descending; } argsort;
    struct { int32_t dim0, dim1; } transpose;
    struct { int32_t dim; int64_t start, length, step; } narrow; /* step: 0 counts as 1 */
    struct { int32_t ndim; int64_t shape[AM_MAX_DIMS]; } view; /* one -1 is inferred */
    struct { int32_t ndim; int32_t dims[AM_MAX_DIMS]; } permute;
    struct { int32_t dtype; } cast;
    struct { int32_t act; } glu;
    struct { int32_t kind, dtype_scale; int64_t group; } fake_quantize; /* group 0: C */
    struct { int32_t interleaved; } rope;
    struct { int32_t recipe; } fp8; /* AM_FP8_... */
    struct { int32_t transposed; } grouped; /* the weight is [E, K, M] */
    struct { double scaling; } rope_table;
    struct { int64_t ignore_index; double softcap; } loss;
    am_attention_attrs attention;
    am_lora_attrs lora;
    am_packing packing;
    struct { int64_t padding_idx; } embedding; /* looked up without a gradient; -1: none */
} am_attrs;
/* clang-format on */
enum { AM_ALL_DIMS = -1000 };
/* fp8_linear's scales: one for each tensor; one for each row, a power of two; and the same with the
 * weight's gradient from operands that keep their dtype ("gradient of the weight in high
 * precision"). */
enum { AM_FP8_TENSORWISE, AM_FP8_ROWWISE, AM_FP8_ROWWISE_WITH_GW_HP, AM_FP8_RECIPE_COUNT };
enum {
    AM_ACT_SILU,
    AM_ACT_GELU,
    AM_ACT_GELU_TANH,
    AM_ACT_RELU,
    AM_ACT_SIGMOID,
    AM_ACT_RELU2,
    AM_ACT_QUICK_GELU,
    AM_ACT_TANH,
    AM_ACT_COUNT
};
/* What fake_quantize rounds to, as torchao's quantisation-aware training has them, dtype by dtype.
 * INT4: -8 to 7 times the group's largest absolute value through 7.5, kept in dtype_scale (f32 or
 * bf16). UINT4: tinygemm's, 0 to 15 from the group's least to its largest value; scale and middle
 * are bf16. INT8: -128 to 127 with a zero point, from the least to the largest, 0 included; f32. */
enum { AM_FQ_INT4, AM_FQ_UINT4, AM_FQ_INT8, AM_FQ_COUNT };

/* Run one op. `in` holds n_in tensors (NULL for an absent optional one), `out` receives the op's
 * outputs (new references; AM_OP_..'s n_out of them). `attrs` may be NULL for ops without any.
 * Recorded on the tape when grad mode is on and an input requires grad.
 * Errors: AM_ESHAPE, AM_EINVAL, AM_ENOMEM, AM_ESTATE (released input), AM_EUNSUP (no kernel),
 * AM_EINTR. */
int am_apply(int op, am_tensor **out, am_tensor *const *in, int n_in, const am_attrs *attrs);

const char *am_op_name(int op);
const char *am_op_doc(int op);
const char *am_op_attrs(int op); /* the member of am_attrs it takes, or "NONE" */
int am_op_find(int *op, const char *name);
int am_op_arity(int op, int *min_in, int *max_in, int *n_out);
int am_op_differentiable(int op);
/* 1 when the device's kernels cover this op for dtype. */
int am_op_supported(int op, int device, int dtype);

/* ---- the tape and backward --------------------------------------------------------------
 * One current tape records what ops do. Backward is pulled: begin, then next until AM_EV_DONE.
 * Custom ops (their forward and backward written in Lua, or in C by the caller) and recomputed
 * blocks come back as AM_EV_CUSTOM events, leaves with a grad hook as AM_EV_LEAF, so C never calls
 * Lua. */

/* AM_GRAD_ON: what needs a gradient is recorded. AM_GRAD_OFF: nothing is. AM_GRAD_INFERENCE:
 * nothing is, and linear and lora_linear with at most AM_FEW_ROWS rows read their weights once and
 * in order (kernel gemv), which is faster and rounds otherwise than they do else. A row's bits
 * depend neither on the rows beside it nor, among 1 to AM_FEW_ROWS, on how many there are. */
enum { AM_GRAD_OFF, AM_GRAD_ON, AM_GRAD_INFERENCE };
enum { AM_FEW_ROWS = 8 };
int am_grad_mode(void);
int am_grad_mode_set(int mode); /* returns the mode before */

/* Record a custom node: `out` were computed by the caller (without history) from `in`. `id` comes
 * back in the event. Outputs are marked as requiring grad if an input does and grad mode is on;
 * *recorded tells whether. AM_ESTATE while backward runs on this tape. */
int am_record_custom(int *recorded, int id, am_tensor *const *out, int n_out, am_tensor *const *in,
                     int n_in);

/* LEAF: nothing will be added to the gradient of `leaf` any more, and its values are no longer
 * read: both may be changed. Each leaf that has a hook and holds a gradient comes once in the
 * backward of a tape, but for those of pushed ones. */
enum { AM_EV_DONE, AM_EV_CUSTOM, AM_EV_LEAF };
enum { AM_CUSTOM_MAX = 8 };
typedef struct am_event {
    int32_t kind;
    int32_t id;
    int32_t n_in, n_out;
    int32_t needs_grad[AM_CUSTOM_MAX];  /* per input */
    am_tensor *grad_out[AM_CUSTOM_MAX]; /* new references, NULL where no gradient arrived */
    am_tensor *leaf;                    /* LEAF: a new reference */
} am_event;

/* Start from a scalar `loss` (gradient NULL: 1) or any tensor with a gradient of its shape. */
int am_backward_begin(am_tensor *loss, am_tensor *gradient);
/* Several outputs at once, as recomputed blocks need. */
int am_backward_begin_many(am_tensor *const *outs, am_tensor *const *gradients, int n);
int am_backward_next(am_event *ev);
/* Answer to AM_EV_CUSTOM: the gradient of input i (taken as is; the caller keeps its reference). */
int am_backward_custom_grad(int i, am_tensor *grad);

/* Set the current tape aside and begin an empty one (recomputing a block inside backward); pop
 * drops the inner tape with everything on it. */
int am_tape_push(void);
int am_tape_pop(void);
/* A tape of the caller's, for graphs that wait for their backward while others are recorded. enter
 * makes it the current one, leave sets it aside with all that is on it and goes back to the one
 * before; entered again it goes on, with more ops or with the backward of what it holds. A leaf may
 * be used on several tapes, and gets the gradients of all; a computed tensor belongs to one.
 * release frees the tape with what is on it. AM_ESTATE: entering or releasing one that is in use,
 * leaving what was not entered. */
typedef struct am_tape am_tape;
int am_tape_new(am_tape **out);
int am_tape_enter(am_tape *t);
int am_tape_leave(void);
int am_tape_release(am_tape *t); /* NULL: nothing */
/* While on, leaves that have a grad hook and are read without being recorded count as inputs of the
 * node that is recorded next: of a block that backward will compute again. */
int am_tape_note_leaves(int on);
int64_t am_tape_length(void); /* nodes on the current tape */
int am_tape_reset(void);      /* forget the current tape and free what it holds */

/* ---- matrix decompositions --------------------------------------------------------------
 * Computed in f64 and not recorded; results are new tensors of a's dtype. */

/* Of a symmetric matrix a [n, n]: eigenvalues [n], ascending, and eigenvectors [n, n], its columns.
 * AM_EINVAL when there are numbers that are not finite. */
int am_eigh(am_tensor **values, am_tensor **vectors, am_tensor *a);
/* The Q [n, n] of a square matrix's QR decomposition, as torch.linalg.qr gives it. */
int am_qr(am_tensor **q, am_tensor *a);

/* ---- weights in few bits ----------------------------------------------------------------
 * A frozen matrix as bitsandbytes keeps it, in one uint8 tensor that AM_OP_packed_linear and
 * AM_OP_lora_linear multiply by without unpacking it whole. NF4 and FP4 (Dettmers et al. 2023) have
 * a scale, its absmax, for each 64 numbers of the matrix in its order; nested scales are codes of 8
 * bits themselves, in blocks of 256 about their mean. int8 is LLM.int8's: a scale for each row. */

/* Bytes of a packed weight; AM_EINVAL for a packing that there is not, AM_ESHAPE without elements.
 */
int am_packed_bytes(const am_packing *p, int64_t *bytes);
/* *out: a new tensor uint8 [bytes] of a weight [rows, cols] of a floating dtype, packed by type and
 * nested; rows and cols of p are set. A block with a number that is not finite unpacks to NaN. */
int am_pack(am_tensor **out, am_tensor *weight, am_packing *p);
/* *out: a new tensor [rows, cols] of a floating dtype, each number rounded once. */
int am_unpack(am_tensor **out, am_tensor *packed, const am_packing *p, int dtype);

/* ---- attention in parts -----------------------------------------------------------------
 * Attention to keys that come in blocks, as from other ranks (Liu et al. 2023), not recorded. Each
 * block is AM_OP_attention's q, k, v, bounds (int32 [B, T, 2] or NULL: all of it; key ranges of the
 * block), sinks (of one block only, or NULL) and attributes without dropout. */

/* out [B, T, H, D] and lse [B, H, T], of f32 (f64 for f64), dense, take in a block. Before the
 * first one out is 0 and lse -inf. */
int am_attention_add(am_tensor *out, am_tensor *lse, am_tensor *q, am_tensor *k, am_tensor *v,
                     am_tensor *bounds, am_tensor *sinks, const am_attention_attrs *at);
/* A block's gradients are added to dq [B, T, H, D] and dk, dv [B, S, K, D], of lse's dtype. dout
 * and out, of q's dtype, and lse are those of all blocks together. */
int am_attention_add_grad(am_tensor *dq, am_tensor *dk, am_tensor *dv, am_tensor *dout,
                          am_tensor *out, am_tensor *lse, am_tensor *q, am_tensor *k, am_tensor *v,
                          am_tensor *bounds, const am_attention_attrs *at);

/* ---- parameters ------------------------------------------------------------------------
 * A named set of tensors. Sealing moves those that require grad into flat buffers, one per
 * dtype, in the order they were added and aligned to 64 bytes, with f32 gradients (for f64
 * weights f64) laid out alike; the tensors stay what they were, their storage moves. */

typedef struct am_params am_params;
int am_params_new(am_params **out);
void am_params_release(am_params *p);
int am_params_add(am_params *p, const char *name, am_tensor *t); /* retains t; names are unique */
/* Before sealing: gradients are not laid out flat. Each is a buffer of its own, made when backward
 * gets to it and freed by am_optim_update or am_params_zero_grad. */
int am_params_separate_grads(am_params *p);
int am_params_seal(am_params *p);
int64_t am_params_count(const am_params *p); /* sealed: trainable ones */
const char *am_params_name(const am_params *p, int64_t i);
int am_params_tensor(am_tensor **out, am_params *p, int64_t i); /* new reference */
int64_t am_params_numel(const am_params *p);                    /* trainable elements */
int am_params_zero_grad(am_params *p); /* marks gradients empty; nothing is written */
/* Of parameter i alone: empty its gradient, and give back its memory where gradients are separate;
 * the sum of the squares of its gradient (0 without one). */
int am_params_clear_grad(am_params *p, int64_t i);
/* For ranks that add up their gradients: which flat buffer parameter i is in (-1: out of range),
 * does it lack a gradient, and the gradients of parameters i to i + n - 1 as one vector, a view.
 * They must be in one buffer; those that lack a gradient get one of zeros. */
int am_params_flat(const am_params *p, int64_t i);
int am_params_grad_empty(const am_params *p, int64_t i);
int am_params_grads(am_tensor **out, am_params *p, int64_t i, int64_t n);
int am_params_grad_sumsq(am_params *p, int64_t i, double *value);
/* That sum of each of the am_params_count(p) parameters, for one wait for the device. */
int am_params_grad_squares(am_params *p, double *values, int64_t n);
/* L2 norm over all gradients in double, times `scale`. Same bits for a given thread count. */
int am_params_grad_norm(am_params *p, double scale, double *norm);
/* L2 norm over the weights themselves, and the sum of the squares of those of parameter i. */
int am_params_norm(am_params *p, double *norm);
int am_params_sumsq(am_params *p, int64_t i, double *value);

/* ---- optimizers ------------------------------------------------------------------------- */

enum { AM_OPTIM_ADAM, AM_OPTIM_ADAMW, AM_OPTIM_SGD, AM_OPTIM_LION };
typedef struct am_optim_config {
    int32_t kind;
    int32_t master_weights; /* keep f32 copies of bf16/f16 weights (1) or not (0) */
    /* Of the moments: AM_F32, AM_BF16, AM_U8, or -1: f32 (f64 for f64 weights whatever it says).
     * AM_U8 is 8-bit state (Dettmers et al. 2021): codes, and an f32 absmax for each 256 of a
     * parameter. */
    int32_t state_dtype;
    int32_t nesterov; /* SGD */
    int32_t amsgrad;  /* Adam and AdamW: divide by the root of the largest exp_avg_sq so far */
    int32_t no_bias_correction; /* Adam and AdamW */
    int32_t maximize;           /* go up the gradient */
    double beta1, beta2, eps;   /* Lion has no eps */
    double momentum, dampening; /* SGD */
} am_optim_config;

typedef struct am_optim am_optim;
int am_optim_new(am_optim **out, am_params *sealed, const am_optim_config *config);
void am_optim_release(am_optim *o);
/* One update. Gradients are multiplied by grad_scale (clipping, averaging) as they are read.
 * lr and weight_decay as torch.optim's; parameters without a gradient are left alone (Adam's bias
 * correction counts the optimizer's steps, torch's those of each parameter). */
int am_optim_step(am_optim *o, double lr, double weight_decay, double grad_scale);
/* The same for one parameter at a time, as gradients become final: begin counts the step, then each
 * parameter that has a gradient is updated once. *sumsq: the sum of its squares. The gradient is
 * empty afterwards, and its memory free where gradients are separate. */
int am_optim_begin(am_optim *o);
int am_optim_update(am_optim *o, double *sumsq, int64_t i, double lr, double weight_decay);
int64_t am_optim_steps(const am_optim *o);
int am_optim_set_steps(am_optim *o, int64_t steps);
/* State of parameter i as a view: "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer",
 * "master" in its shape; of 8-bit moments also "exp_avg_absmax", "exp_avg_sq_absmax",
 * "momentum_buffer_absmax" [blocks]. *out = NULL when this optimizer has no such state. */
int am_optim_state(am_tensor **out, am_optim *o, const char *what, int64_t i);
/* After weights were changed from outside: copy them into the masters. */
int am_optim_sync_masters(am_optim *o);

/* Adafactor's step on one tensor, w, whose f32 master (NULL without) is changed first, from its
 * gradient `grad`. Of tensors with two dims and more, `row` [..., rows] and `col` [..., cols] are
 * the factors of the second moment, `var` is NULL; of others var is the moment. They have grad's
 * dtype. t counts steps from 1. */
typedef struct am_adafactor_config {
    int32_t transformers; /* transformers.Adafactor's numbers (1) or torch.optim's (0): backend.h */
    int32_t scale_parameter; /* steps are relative to the size of weights */
    double rho;              /* step size: min(lr, 1 / sqrt(t)) or lr */
    double beta2_decay, eps1, eps2, d;
} am_adafactor_config;
int am_adafactor_update(am_tensor *w, am_tensor *master, am_tensor *row, am_tensor *col,
                        am_tensor *var, am_tensor *grad, const am_adafactor_config *config,
                        int64_t t, double lr, double weight_decay, double grad_scale);

#include "api/ranks.h"

#include "api/graphs.h"

/* ---- random numbers ---------------------------------------------------------------------
 * Philox4x32-10 keyed by the seed; every random op takes the next stream number, so the same
 * program draws the same numbers on every backend and thread count. */

int am_rng_seed(uint64_t seed);
int am_rng_get(uint64_t *seed, uint64_t *stream);
int am_rng_set(uint64_t seed, uint64_t stream);
int am_rng_uniform(am_tensor *t, double lo, double hi);   /* fill, [lo, hi) */
int am_rng_normal(am_tensor *t, double mean, double std); /* fill */
/* Host-side draws for shuffles and sampling: a value that depends only on its arguments. */
uint32_t am_rng_u32(uint64_t seed, uint64_t stream, uint64_t index);

#include "api/files.h"

#include "api/data.h"

#include "api/images.h"

/* ---- memory ----------------------------------------------------------------------------- */

typedef struct am_mem_stats {
    int64_t live_bytes;   /* storages in use */
    int64_t peak_bytes;   /* highest live_bytes since the last reset */
    int64_t cached_bytes; /* kept for reuse */
    int64_t live_storages;
    int64_t allocations; /* calls so far, hits of the cache included */
} am_mem_stats;
int am_mem_get(int device, am_mem_stats *stats);
int am_mem_reset_peak(int device);
int am_mem_trim(int device);                      /* give cached bytes back */
int am_mem_set_budget(int device, int64_t bytes); /* AM_ENOMEM beyond; 0: none */
int am_mem_fail_at(int64_t k);   /* tests: the k-th engine allocation from now fails; 0 off */
int am_mem_fail_from(int64_t k); /* tests: that one and all after it; 0 off */

/* ---- threads, CPU and signals ----------------------------------------------------------- */

int am_threads(void);         /* kernels' team size */
int am_threads_set(int n);    /* 1..1024 */
int am_threads_default(void); /* affinity, cgroup quota, SLURM_CPUS_PER_TASK, OMP_NUM_THREADS */
/* In use: "amx", "avx512_bf16", "avx512", "avx2" or "generic"; AMLUA_ISA lowers it. "none" where
 * that names none of this CPU's: then device "cpu" is an error. */
const char *am_cpu_isa(void);
const char *am_cpu_isa_available(void); /* the same, were AMLUA_ISA not set */
int64_t am_host_memory_available(void); /* bytes: least of MemAvailable, cgroup, ulimit */
double am_clock(void);                  /* monotonic seconds */

/* What am_threads_default and am_host_memory_available choose the least of. 0 CPUs or -1 bytes: no
 * such limit. */
typedef struct am_host_limits {
    int32_t cpus_affinity, cpus_cgroup, cpus_slurm, cpus_openmp; /* OpenMP's word goes before all */
    int64_t memory_free, memory_cgroup, memory_ulimit;           /* bytes left */
} am_host_limits;
int am_host_limits_get(am_host_limits *limits);

enum { AM_SIGNALS_OFF, AM_SIGNALS_FLAG, AM_SIGNALS_INTERRUPT };
/* OFF: the system's default. FLAG: SIGINT, SIGTERM and SIGHUP (unless it is ignored) only set the
 * flag (a recipe looks at it between steps); a closed pipe and a file size limit are errors of the
 * write, no signals. INTERRUPT: SIGINT and SIGTERM set the flag, reads that wait come back, and ops
 * return AM_EINTR (the prompt). A second SIGINT always ends the process, at the prompt a second
 * SIGTERM, too. */
int am_signals_watch(int mode);
/* In mode FLAG, until the next watch: let SIGUSR1, SIGUSR2 or SIGXCPU set the flag, too. AM_ESTATE
 * in another mode, AM_EINVAL for another signal. */
int am_signals_add(int number);
int am_signals_pending(void); /* 0, or the signal number */
void am_signals_clear(void);
/* What ops ask on entry, for loops of the caller's: AM_EINTR in mode INTERRUPT while one pends. */
int am_signals_check(void);

/* ---- profile ----------------------------------------------------------------------------
 * Between start and stop, each op forward and backward and each step of an optimizer is an event.
 * None lies within another. */

enum { AM_PHASE_FORWARD, AM_PHASE_BACKWARD, AM_PHASE_OPTIMIZER };
typedef struct am_profile_event {
    const char *what; /* an op's name, or "adam", "sgd", "sumsq" */
    int32_t phase;
    double start, seconds; /* start on am_clock */
    int64_t flops;         /* of matrix products and attention; 0 for all else */
    int64_t bytes;         /* of what goes in and comes out */
} am_profile_event;
int am_profile_start(int64_t max_events); /* what comes after that many is dropped */
/* Stop; their number. The events are the engine's until the next start. */
int64_t am_profile_stop(const am_profile_event **events);

/* Stop threads, drop caches. Safe to call more than once. */
void am_shutdown(void);

#ifndef AM_CDEF
#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
#endif
