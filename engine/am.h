/* am.h — the whole C API of amlua.
 *
 * This file is the contract between the engine and everything above it: C programs include it,
 * and the build feeds the very same text (preprocessed with -DAM_CDEF) to LuaJIT's ffi.cdef.
 * Read it top to bottom: errors, dtypes and devices, tensors, scopes, ops, the tape, parameters,
 * optimizers, ranks, random numbers, files, Parquet, token rows, tokenizer, patterns, images,
 * memory, threads and signals.
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
 * a GPU used by tests) are others. */
int am_device_find(int *device, const char *name); /* AM_EUNSUP names those that exist */
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

/* Copy whole tensors in row-major order, converting nothing. `bytes` must be numel * size. Waits
 * for the device. */
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
} am_attention_attrs;

typedef struct am_lora_attrs {
    double scale; /* alpha / r */
    double dropout_p;
    int32_t dropout_pre; /* 1: drops x before A (HF PEFT); 0: drops the scaled LoRA output */
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
    struct { int32_t interleaved; } rope;
    struct { int32_t transposed; } grouped; /* the weight is [E, K, M] */
    struct { double scaling; } rope_table;
    struct { int64_t ignore_index; double softcap; } loss;
    am_attention_attrs attention;
    am_lora_attrs lora;
    struct { int64_t padding_idx; } embedding; /* looked up without a gradient; -1: none */
} am_attrs;
/* clang-format on */
enum { AM_ALL_DIMS = -1000 };
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
 * read: both may be changed. Each leaf that has a hook and holds a gradient comes once, on the
 * outermost tape. */
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
/* L2 norm over all gradients in double, times `scale`. Same bits for a given thread count. */
int am_params_grad_norm(am_params *p, double scale, double *norm);
/* L2 norm over the weights themselves. */
int am_params_norm(am_params *p, double *norm);

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

/* ---- ranks ------------------------------------------------------------------------------
 * Processes that share a run, and what they tell one another. All ranks of a group call its
 * collectives in the same order, with tensors of the same dtype and size; groups are independent
 * of one another. A collective begins at once, behind the group's earlier ones, on a thread of the
 * group's own, and gives back a work; until am_work_wait ends it, its tensors must neither be
 * changed nor, where they are written, be read. Tensors are dense, in host memory.
 *
 * All ranks get the same bits. Sums of bf16 and f16 are computed in f32 and rounded once.
 *
 * A collective that is not done after the time-out, or whose engine fails, fails with AM_ECOMM and
 * names the ranks that did not come, where they can be told. Every later one fails likewise. */
typedef struct am_comm am_comm; /* a group, seen from this rank */
typedef struct am_work am_work; /* a collective under way */
enum { AM_SUM, AM_MAX, AM_MIN };

typedef struct am_comm_options {
    int32_t rank, size;  /* gloo: this rank, and how many there are. mpi knows */
    const char *address; /* gloo: of the host that rank 0 runs on */
    int32_t port;        /* gloo: where rank 0 listens */
    const char *secret;  /* gloo: what ranks know each other by; NULL: nothing */
    double timeout;      /* seconds of a collective, and of joining; 0: 600 */
    const char *module;  /* file of the engine; NULL: amlua_NAME.so beside libamlua.so */
} am_comm_options;

/* Join: the group of all ranks. engine: "self" (one rank), "mpi" or "gloo". Once a process for mpi
 * and gloo, and what is forked afterwards must not use it. */
int am_comm_open(am_comm **out, const char *engine, const am_comm_options *options);
/* Waits for what is under way. Groups that were split off go before the one of all ranks, with
 * which the process leaves the others. */
void am_comm_release(am_comm *c);
int am_comm_rank(const am_comm *c);
int am_comm_size(const am_comm *c);
/* The place of one of its ranks among all ranks; -1 when out of range. */
int am_comm_world_rank(const am_comm *c, int rank);
/* A group of the ranks of one color (at least 0), in the order of their keys. name: for messages.
 */
int am_comm_split(am_comm **out, am_comm *c, int color, int key, const char *name);

int am_comm_all_reduce(am_work **out, am_comm *c, am_tensor *t, int op); /* in place */
/* from [size n], the ranks' parts one after another -> to [n], this rank's part of the sum. */
int am_comm_reduce_scatter(am_work **out, am_comm *c, am_tensor *to, am_tensor *from, int op);
int am_comm_all_gather(am_work **out, am_comm *c, am_tensor *to, am_tensor *from); /* the reverse */
int am_comm_broadcast(am_work **out, am_comm *c, am_tensor *t, int root);
/* Elements for each rank, one after another, and those from each. */
int am_comm_all_to_all(am_work **out, am_comm *c, am_tensor *to, const int64_t *to_counts,
                       am_tensor *from, const int64_t *from_counts);
/* A group's works are done one after another: of ranks that send in a ring, one receives first. */
int am_comm_send(am_work **out, am_comm *c, am_tensor *t, int to, int tag);
int am_comm_recv(am_work **out, am_comm *c, am_tensor *t, int from, int tag);
int am_comm_barrier(am_work **out, am_comm *c);
int am_work_wait(am_work *w);       /* ends and frees it, also when it returns an error */
int am_work_done(const am_work *w); /* would waiting return at once? */

/* What this rank's collectives of a group were: calls, and bytes of the tensors that it gave. */
enum {
    AM_COMM_ALL_REDUCE,
    AM_COMM_REDUCE_SCATTER,
    AM_COMM_ALL_GATHER,
    AM_COMM_BROADCAST,
    AM_COMM_ALL_TO_ALL,
    AM_COMM_SEND,
    AM_COMM_RECV,
    AM_COMM_BARRIER,
    AM_COMM_KINDS
};
typedef struct am_comm_counts {
    int64_t calls[8], bytes[8]; /* by AM_COMM_… */
} am_comm_counts;
int am_comm_count(am_comm_counts *out, const am_comm *c);

/* End all ranks, with this exit status; does not return. Nothing is printed here: `why` is for the
 * ranks that wait (gloo). */
void am_comm_abort(am_comm *c, int status, const char *why);

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

/* ---- files ------------------------------------------------------------------------------
 * An archive is a safetensors, GGUF or PyTorch file (what torch.save writes for a state dict,
 * pytorch_model.bin) mapped into memory; its header is checked before anything else. Nothing in a
 * PyTorch file is run: what it asks for beyond tensors is an error. Tensors of host devices share
 * the mapping where the dtype allows; two of a PyTorch file that share bytes share them here. */

typedef struct am_archive am_archive;
int am_archive_open(am_archive **out, const char *path); /* kind by content */
void am_archive_release(am_archive *a);           /* tensors that share the mapping keep it alive */
const char *am_archive_kind(const am_archive *a); /* "safetensors", "gguf" or "pytorch" */
int64_t am_archive_count(const am_archive *a);
const char *am_archive_name(const am_archive *a, int64_t i);
int64_t am_archive_find(const am_archive *a, const char *name); /* -1: absent */
/* dtype is what am_archive_tensor gives by default (F32 for quantised GGUF types), or -1 for a type
 * that cannot be read; stored_as names the type in the file ("F32", "BF16", "Q4_1", …). shape has
 * room for AM_MAX_DIMS and is in row-major order for GGUF too. */
int am_archive_info(const am_archive *a, int64_t i, int *dtype, const char **stored_as, int *ndim,
                    int64_t *shape);
/* dtype -1: as stored. Host devices share the mapping when nothing needs converting and the tensor
 * is aligned for its dtype. Shared tensors are copy-on-write: writing to them never changes the
 * file. AM_EUNSUP for a type that cannot be read. Registered with the innermost scope. */
int am_archive_tensor(am_tensor **out, am_archive *a, int64_t i, int dtype, int device);
/* Metadata as a JSON object: safetensors' __metadata__, all GGUF key-values (arrays of more than 64
 * items are left out), {} for a PyTorch file. */
const char *am_archive_metadata(const am_archive *a);

/* Write a safetensors file: names in the given order, metadata a JSON object of strings (NULL:
 * {"format":"pt"}). Their bytes follow in the same order, larger dtypes first, so that each is
 * aligned. Strided tensors and other devices' are fine. Written beside `path`, synced, then renamed
 * over it; on error nothing is left and the old file stays. */
int am_safetensors_save(const char *path, int64_t n, const char *const *names,
                        am_tensor *const *tensors, const char *metadata);

/* Writing GGUF (version 3), tensor by tensor. metadata: a JSON object of {"type": value} or
 * {"type": [value, …]}, type being u8 … i64, f32, f64, bool or string. Tensor i has the name
 * names[i] (at most 63 bytes), the type types[i] (F32, F16, BF16, Q8_0, Q4_0, Q5_0, Q4_K) and
 * ndims[i] (1 to 4) dims from shapes[i * AM_MAX_DIMS]; rows must divide into the type's blocks.
 * Quantising is that of ggml's reference. Then add all tensors in that order: any float dtype,
 * device and strides. commit syncs the file, which was written beside `path`, and renames it over
 * that. Release in any case: what was not committed is removed, and the old file stays. */
typedef struct am_gguf_writer am_gguf_writer;
int am_gguf_writer_begin(am_gguf_writer **out, const char *path, const char *metadata, int64_t n,
                         const char *const *names, const char *const *types, const int *ndims,
                         const int64_t *shapes);
int am_gguf_writer_add(am_gguf_writer *w, am_tensor *t);
int am_gguf_writer_commit(am_gguf_writer *w);
void am_gguf_writer_release(am_gguf_writer *w);

/* NumPy's .npy, versions 1 and 2, little endian f4 f2 f8 i4 i8 u1 b1; Fortran order is read too.
 * What is saved has the bytes numpy.save would write. Loading registers with the scope. */
int am_npy_load(am_tensor **out, const char *path, int device);
int am_npy_save(const char *path, const am_tensor *t);

/* Write bytes the same safe way (sidecar, fsync, rename). A symbolic link is replaced. */
int am_file_save(const char *path, const void *data, size_t bytes);
int am_file_sync_dir(const char *dir);

/* What a file's first bytes (four are enough) say that it is compressed by. */
enum { AM_COMPRESSION_NONE, AM_COMPRESSION_GZIP, AM_COMPRESSION_ZSTD };
int am_compression(const void *data, size_t bytes);
/* Decompress a file (of one or more gzip members or zstd frames) to one without a name, in the
 * folder of `beside` ("folder/rows"), and open it for reading: *fd is the caller's to close.
 * AM_EFORMAT when the data is damaged or cut off, or becomes more than 64 MiB and more than 250
 * times as large. */
int am_file_decompress(int *fd, const char *path, const char *beside);

/* BLAKE2b digests of 32 bytes: of bytes, and of a file's. */
enum { AM_HASH_BYTES = 32 };
void am_hash(uint8_t *digest, const void *data, size_t bytes);
int am_hash_file(uint8_t *digest, const char *path);

/* ---- Parquet ----------------------------------------------------------------------------
 * The rows of a Parquet file, which is mapped. A page of each column is decoded at a time, so rows
 * are fastest in order; others may be read in any order, at the price of a page of each column.
 * Read are the codecs UNCOMPRESSED, SNAPPY, GZIP and ZSTD, all encodings, and pages of both
 * versions; checksums are compared where a file has them. */

typedef struct am_parquet am_parquet;
int am_parquet_open(am_parquet **out, const char *path);
void am_parquet_release(am_parquet *p);
int64_t am_parquet_rows(const am_parquet *p);
/* The schema as JSON: {"name": …, "kind": "struct" | "list" | "map" | "value", "children": […]} of
 * the row, whose children are the columns. A list has one child, a map two. */
const char *am_parquet_schema(const am_parquet *p);
/* Which columns of the row to read, a byte for each (not 0: read). All are read before that. */
int am_parquet_select(am_parquet *p, const uint8_t *wanted, int64_t columns);

/* A row is its columns, one after the other: a value; or a list and then its items; or a map and
 * then a key and a value for each of its items; or a struct and then all of its fields. Numbers are
 * the nearest double; NaN and infinities are null. Dates and timestamps are milliseconds since 1970
 * (UTC), times of day, decimals and UUIDs are text. */
enum {
    AM_PARQUET_NULL,
    AM_PARQUET_FALSE,
    AM_PARQUET_TRUE,
    AM_PARQUET_NUMBER,
    AM_PARQUET_TEXT,
    AM_PARQUET_LIST,
    AM_PARQUET_MAP,
    AM_PARQUET_STRUCT
};
typedef struct am_parquet_value {
    int32_t kind;
    int32_t count; /* bytes of a text, items of a list or map */
    union {
        double number;
        const char *text; /* not ended by a NUL; UTF-8 where the file says that it is text */
    };
} am_parquet_value;
/* Row i from 0. The values are good until the next call. A row has at most 2^23 values and 64 MiB
 * of text. */
int am_parquet_row(am_parquet *p, int64_t i, const am_parquet_value **values, int64_t *count);
/* Let go of the pages that the last row was read from. */
void am_parquet_rest(am_parquet *p);

/* ---- token rows -------------------------------------------------------------------------
 * Rows of a data set once they are tokenised: a file that is written in one go and then mapped, so
 * that memory does not grow with the number of rows. */

typedef struct am_token_row {
    const int32_t *input_ids, *labels;            /* [n] */
    const int32_t *attention_mask, *position_ids; /* [n], or NULL */
    int64_t n;                                    /* 0 to 2^31 - 1 */
    int64_t label_tokens;                         /* labels that are learnt */
    int64_t file, number; /* where it came from, for messages: a file's number, a row's in it */
} am_token_row;

/* Begin a file. `key`, 32 bytes, stands for all that the rows depend on. It replaces `path` when it
 * is finished; `unnamed`: it never gets a name, and is gone with the rows (path names the folder:
 * "folder/rows"). */
typedef struct am_token_rows_writer am_token_rows_writer;
int am_token_rows_create(am_token_rows_writer **out, const char *path, const uint8_t *key,
                         int unnamed);
int am_token_rows_add(am_token_rows_writer *w, const am_token_row *row);
/* Write the rest with a text of the caller's, sync, put in place, and map. The writer is left
 * empty. After an error nothing is left, and `path` is as it was. */
typedef struct am_token_rows am_token_rows;
int am_token_rows_finish(am_token_rows **out, am_token_rows_writer *w, const char *metadata,
                         size_t bytes);
void am_token_rows_discard(am_token_rows_writer *w); /* also once finished */

/* Open a file. AM_EFORMAT when it is not whole, not of this version or not of this key: every byte
 * is compared with the checksum. */
int am_token_rows_open(am_token_rows **out, const char *path, const uint8_t *key);
void am_token_rows_release(am_token_rows *r);
int64_t am_token_rows_count(const am_token_rows *r);
const char *am_token_rows_metadata(const am_token_rows *r, size_t *bytes);
/* Row i from 0. Its arrays are the mapping's. */
int am_token_rows_get(am_token_row *row, am_token_rows *r, int64_t i);

/* ---- tokenizer --------------------------------------------------------------------------
 * Exact with Hugging Face `tokenizers` for what a file uses, or AM_EUNSUP naming the part. */

typedef struct am_tokenizer am_tokenizer;
/* JSON text of a tokenizer.json. */
int am_tokenizer_from_json(am_tokenizer **out, const char *text, size_t bytes);
/* The vocabulary in a GGUF file's metadata: models gpt2, llama, gemma4, t5 and bert. */
int am_tokenizer_from_gguf(am_tokenizer **out, am_archive *gguf);
/* The bytes of a SentencePiece model, of type BPE or Unigram. */
int am_tokenizer_from_sentencepiece(am_tokenizer **out, const void *bytes, size_t n);
/* The text of a tiktoken file (a line for each token: base64, space, rank). It does not say how a
 * text is cut: `cut` names the encoding (cl100k_base, o200k_base, qwen, llama3, …). */
int am_tokenizer_from_tiktoken(am_tokenizer **out, const char *text, size_t bytes, const char *cut);
/* The text of mistral's tekken.json. */
int am_tokenizer_from_tekken(am_tokenizer **out, const char *text, size_t bytes);
void am_tokenizer_release(am_tokenizer *t);
/* Ids of `text`, which should be UTF-8: in byte-level tokenizers other bytes pass through
 * unchanged, in others they are AM_EINVAL. SPECIAL: with what the file's post-processor puts around
 * a text. OFFSETS: so that am_tokenizer_offsets can be asked, which takes longer. Truncation and
 * padding of the file are not applied. *ids belongs to the tokenizer and is overwritten by the next
 * encode. */
enum { AM_ENCODE_SPECIAL = 1, AM_ENCODE_OFFSETS = 2 };
int am_tokenizer_encode(am_tokenizer *t, const char *text, size_t bytes, int flags,
                        const int32_t **ids, int64_t *n);
/* Byte range in `text` that each id of the last encode (with OFFSETS; its text must still be there)
 * came from: [2 n], start and end, whole characters, without white space where the file's
 * trim_offsets says so; 0, 0 for ids that the post-processor put. */
int am_tokenizer_offsets(am_tokenizer *t, const int64_t **offsets, int64_t *n);
/* Many texts, on am_threads() threads; the same ids as one by one. Those of text i are
 * (*ids)[(*rows)[i]] to (*ids)[(*rows)[i + 1] - 1]; both arrays belong to the tokenizer until the
 * next call with it. flags: AM_ENCODE_SPECIAL. An error names the first text (from 1) that has one.
 */
int am_tokenizer_encode_batch(am_tokenizer *t, const char *const *texts, const size_t *bytes,
                              int64_t n, int flags, const int32_t **ids, const int64_t **rows);
/* What the file says about truncation and padding; encoding does not apply it. */
typedef struct am_tokenizer_limits {
    int64_t max_length; /* ids of a text, those around it included; -1: no truncation */
    int truncate_left;
    int padding;        /* 0: none */
    int64_t pad_length; /* -1: to the longest of the batch */
    int64_t pad_to_multiple_of, pad_id;
    int pad_left;
} am_tokenizer_limits;
int am_tokenizer_limits_get(const am_tokenizer *t, am_tokenizer_limits *out);
/* Text of ids; owned by the tokenizer until the next decode. Unknown ids are AM_EINVAL. As in
 * Hugging Face tokenizers, bytes that are not UTF-8 become U+FFFD; with RAW a byte-level tokenizer
 * gives the bytes themselves. */
enum { AM_DECODE_SKIP_SPECIAL = 1, AM_DECODE_RAW = 2 };
int am_tokenizer_decode(am_tokenizer *t, const int32_t *ids, int64_t n, int flags,
                        const char **text, size_t *bytes);
int64_t am_tokenizer_size(const am_tokenizer *t); /* highest id + 1, added tokens included */
int64_t am_tokenizer_id(const am_tokenizer *t, const char *token); /* -1: absent */
const char *am_tokenizer_token(const am_tokenizer *t, int64_t id); /* NULL: absent */
int am_tokenizer_is_special(const am_tokenizer *t, int64_t id);
/* The equivalent tokenizer.json (what was loaded, or built from GGUF); owned by the tokenizer. */
int am_tokenizer_to_json(am_tokenizer *t, const char **text, size_t *bytes);

/* ---- patterns ---------------------------------------------------------------------------
 * Regular expressions of a configuration, searched as Python's re.search does, in PCRE2's syntax.
 * AM_EFORMAT: no regular expression, no UTF-8, or a search that took more steps than allowed. */

typedef struct am_pattern am_pattern;
int am_pattern_new(am_pattern **out, const char *text, size_t bytes);
void am_pattern_release(am_pattern *p);
int am_pattern_search(am_pattern *p, const char *text, size_t bytes, int *found);

/* ---- images -----------------------------------------------------------------------------
 * JPEG, PNG, WebP and a GIF's first frame, decoded to 8-bit RGB as Pillow's open, exif_transpose
 * and convert("RGB") do, and made into a model's input by a plan: a list of steps over pictures in
 * numbered slots. Slot 0 is the decoded picture. A plan runs on a background thread or on that of
 * the caller, with the same bits. Images may be damaged or hostile: sizes are checked before
 * anything is decoded. */

enum { AM_IMAGE_JPEG, AM_IMAGE_PNG, AM_IMAGE_WEBP, AM_IMAGE_GIF };
enum {
    AM_IMAGE_MAX_PIXELS = 178956970, /* Pillow's limit */
    AM_IMAGE_MAX_SIDE = 1 << 20,
    AM_IMAGE_SLOTS = 256
};

/* Where an image comes from. Everything is borrowed for the call (submit copies it). */
typedef struct am_image_source {
    const char *path;   /* a file; NULL: the bytes that follow */
    const void *data;   /* the bytes of a file */
    size_t bytes;       /* of data */
    const char *name;   /* what messages call it; NULL: the path, or "image" */
    int64_t max_pixels; /* larger pictures are AM_EFORMAT; 0: AM_IMAGE_MAX_PIXELS */
    int32_t background; /* 0xRRGGBB under transparent pixels; -1: alpha is left off */
} am_image_source;

typedef struct am_image_info {
    int32_t format;
    int32_t width, height; /* as decoded: after `orientation` */
    int32_t channels;      /* in the file: 1 grey or palette, 2 grey and alpha, 3, 4 */
    int32_t has_alpha;     /* an alpha channel or a transparent colour */
    int32_t orientation;   /* EXIF's, 1 to 8 */
} am_image_info;

/* What the header says, without decoding. AM_EIO: the file cannot be read; AM_EUNSUP: none of the
 * four formats, or a kind of them that is not read; AM_EFORMAT: damaged, or too large. */
int am_image_header(am_image_info *info, const am_image_source *source);

/* RESIZE: slot dst = slot src at width x height by `filter`, with the rounding of `backend`.
 * CROP: slot dst = the width x height pixels of slot src from (x, y), which may lie outside it:
 * there it is `fill`.
 * EMIT: write slot src as f32 to the output from `offset` (in floats) on. A value v becomes
 * v * rescale (where do_rescale), less mean[c], over std[c] (where do_normalize), in the order
 * and precision in which `backend` computes it.
 *   CHW      [3, frame_height, frame_width], of which the picture fills the upper left part; what
 *            no step writes is 0. A frame of 0 x 0 is the picture's size.
 *   PATCHES  Qwen's rows, [height/patch * width/patch, 3 * temporal_patch * patch * patch]: patches
 *            in squares of merge x merge, the picture repeated temporal_patch times. height and
 *            width must be multiples of patch * merge. */
enum { AM_IMAGE_RESIZE, AM_IMAGE_CROP, AM_IMAGE_EMIT };
/* Filters are numbered as `resample` in preprocessor_config.json. */
enum { AM_IMAGE_NEAREST, AM_IMAGE_LANCZOS, AM_IMAGE_BILINEAR, AM_IMAGE_BICUBIC, AM_IMAGE_BOX };
enum { AM_IMAGE_PIL, AM_IMAGE_TORCHVISION };
enum { AM_IMAGE_CHW, AM_IMAGE_PATCHES };
typedef struct am_image_step {
    int32_t kind;
    int32_t dst, src;      /* slots; EMIT has no dst */
    int32_t width, height; /* RESIZE, CROP */
    int32_t x, y;          /* CROP */
    int32_t fill;          /* CROP: 0xRRGGBB */
    int32_t filter;        /* RESIZE */
    int32_t backend;       /* RESIZE, EMIT */
    int32_t layout;        /* EMIT, and what follows */
    int32_t frame_width, frame_height;
    int32_t patch, temporal_patch, merge;
    int32_t do_rescale, do_normalize;
    int64_t offset;
    double rescale, mean[3], std[3];
} am_image_step;

/* Queue a plan, whose output is n_floats f32. The steps are copied and checked as far as they can
 * be before the picture is there (AM_EINVAL). Any number of jobs may be under way. */
typedef struct am_image_job am_image_job;
int am_image_submit(am_image_job **out, const am_image_source *source, const am_image_step *steps,
                    int64_t n_steps, int64_t n_floats);
/* Wait for a job (a job that no thread has begun runs on the caller's) and write its output to
 * `out`, n_floats. Once only. The message of an error begins with the source's name: those of
 * am_image_header, AM_EINVAL for a step that does not fit the picture, AM_ENOMEM. */
int am_image_wait(am_image_job *job, float *out);
void am_image_release(am_image_job *job); /* also before its end: what has not begun never runs */
/* Background threads, started by the first submit: 0 to 256; 0 runs all jobs in am_image_wait. */
int am_image_threads(void);
int am_image_threads_set(int n);

/* The picture within a square of `side` pixels (smaller ones keep their size) as a JPEG file, for
 * reports; *data is the caller's, to be given to am_image_bytes_release. */
int am_image_thumbnail(uint8_t **data, size_t *bytes, const am_image_source *source, int side);
void am_image_bytes_release(uint8_t *data);

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
