/* cases_decoder.c — cases of the decoder's own ops: embedding, RMSNorm, rotary embedding, gated
 * units, attention and the losses. */
#include "op_case.h"

#define INDEX(n, ...)   INPUT(IN_INDEX32, n, __VA_ARGS__)
#define INDEX64(n, ...) INPUT(IN_INDEX64, n, __VA_ARGS__)
#define LABEL(n, ...)   INPUT(IN_LABEL32, n, __VA_ARGS__)
#define LABEL64(n, ...) INPUT(IN_LABEL64, n, __VA_ARGS__)
#define TABLE(...)      INPUT(IN_TABLE, 0, __VA_ARGS__)
#define BOUNDS(n, ...)  INPUT(IN_BOUNDS, n, __VA_ARGS__)
#define PACK(n, ...)    INPUT(IN_PACK, n, __VA_ARGS__)

#define PADDING(i) .attrs = {.embedding = {i}}
#define NORM(...)  .attrs = {.norm = {__VA_ARGS__}} /* eps, offset */
#define ACT(a)     .attrs = {.glu = {a}}
/* kind, dtype of scales, group; what goes straight through has no differences: all are big */
#define FAKE(...) .attrs = {.fake_quantize = {__VA_ARGS__}}, .flags = CASE_BIG
#define LOSS(c)   .attrs = {.loss = {-100, c}}
/* scale, softcap, dropout, causal, window */
#define ATTN(...)             .attrs = {.attention = {__VA_ARGS__}}
#define QKV(b, t, s, h, k, d) N(b, t, h, d), N(b, s, k, d), N(b, s, k, d)

#define GLU(a)                                                                                     \
    {OPCASE(glu), .in = {N(9), N(9)}, ACT(a)}, {OPCASE(glu), .in = {N(1), N(1)}, ACT(a)},          \
        {OPCASE(glu), .in = {N(2, 3, 4), N(2, 3, 4)}, ACT(a)},                                     \
    {                                                                                              \
        OPCASE(glu), .in = {N(13, 83), N(13, 83)}, ACT(a), .flags = CASE_BIG                       \
    }

static const op_case cases[] = {
    {OPCASE(embedding), .in = {INDEX(5, 7), N(5, 3)}, PADDING(-1)},
    {OPCASE(embedding), .in = {INDEX64(5, 2, 3), N(5, 3)}, PADDING(-1)},
    {OPCASE(embedding), .in = {INDEX(3, 2, 5), N(3, 4)}, PADDING(1)},
    {OPCASE(embedding), .in = {INDEX(1, 1), N(1, 1)}, PADDING(-1)},
    {OPCASE(embedding), .in = {INDEX64(4, 0), N(4, 3)}, PADDING(-1)},
    {OPCASE(embedding), .in = {INDEX64(67, 3, 31), N(67, 37)}, PADDING(2), .flags = CASE_BIG},

    {OPCASE(rms_norm), .in = {N(3, 5), N(5)}, NORM(1e-5)},
    {OPCASE(rms_norm), .in = {N(2, 3, 7), N(7)}, NORM(1e-6)},
    {OPCASE(rms_norm), .in = {N(6), N(6)}, NORM(1e-2)},
    {OPCASE(rms_norm), .in = {N(4, 1), N(1)}, NORM(1e-1)},
    {OPCASE(rms_norm), .in = {N(0, 5), N(5)}, NORM(1e-5)},
    {OPCASE(rms_norm), .in = {N(3, 5), N(5)}, NORM(1e-5, 1)},
    {OPCASE(rms_norm), .in = {N(2, 2, 3), N(3)}, NORM(1e-5, -0.75)},
    {OPCASE(rms_norm), .in = {N(19, 131), N(131)}, NORM(1e-5, 1), .flags = CASE_BIG},
    {OPCASE(rms_norm), .in = {N(19, 131), N(131)}, NORM(1e-5), .flags = CASE_BIG},
    {OPCASE(rms_norm), .in = {N(2, 33, 64), N(64)}, NORM(1e-5), .flags = CASE_BIG},

    {OPCASE(layer_norm), .in = {N(3, 5), N(5), N(5)}, NORM(1e-5)},
    {OPCASE(layer_norm), .in = {N(2, 3, 7), N(7)}, NORM(1e-6)},
    {OPCASE(layer_norm), .in = {N(2, 3, 7)}, NORM(1e-5)},
    {OPCASE(layer_norm), .in = {N(6), ABSENT, N(6)}, NORM(1e-2, 1)},
    {OPCASE(layer_norm), .in = {N(3, 5), N(5), N(5)}, NORM(1e-5, 1)},
    {OPCASE(layer_norm), .in = {N(4, 1), N(1), N(1)}, NORM(1e-1)},
    {OPCASE(layer_norm), .in = {N(0, 5), N(5), N(5)}, NORM(1e-5)},
    {OPCASE(layer_norm), .in = {N(19, 131), N(131), N(131)}, NORM(1e-5), .flags = CASE_BIG},
    {OPCASE(layer_norm), .in = {N(2, 133, 64), N(64), N(64)}, NORM(1e-5, 1), .flags = CASE_BIG},

    {OPCASE(rope_table), .in = {INPUT(IN_POS32, 100, 2, 5), INPUT(IN_FREQ, 0, 3)},
     .attrs = {.rope_table = {1}}},
    {OPCASE(rope_table), .in = {INPUT(IN_POS32, 1, 1, 1), INPUT(IN_FREQ, 0, 1)},
     .attrs = {.rope_table = {1}}},
    {OPCASE(rope_table), .in = {INPUT(IN_POS32, 8192, 1, 67), INPUT(IN_FREQ, 0, 32)},
     .attrs = {.rope_table = {1.1386}}},
    {OPCASE(rope_table), .in = {INPUT(IN_POS32, 9, 0, 5), INPUT(IN_FREQ, 0, 3)},
     .attrs = {.rope_table = {1}}},
    {OPCASE(rope), .in = {N(1, 3, 2, 4), TABLE(1, 3, 4)}, .attrs = {.rope = {0}}},
    {OPCASE(rope), .in = {N(2, 3, 2, 6), TABLE(2, 3, 6)}, .attrs = {.rope = {1}}},
    {OPCASE(rope), .in = {N(2, 3, 1, 7), TABLE(1, 3, 4)}, .attrs = {.rope = {0}}},
    {OPCASE(rope), .in = {N(2, 3, 1, 7), TABLE(2, 3, 4)}, .attrs = {.rope = {1}}},
    {OPCASE(rope), .in = {N(1, 1, 1, 2), TABLE(1, 1, 2)}, .attrs = {.rope = {0}}},
    {OPCASE(rope), .in = {N(2, 2, 1, 3), TABLE(1, 2, 0)}, .attrs = {.rope = {0}}},
    {OPCASE(rope), .in = {N(2, 19, 3, 34), TABLE(2, 19, 34)}, .attrs = {.rope = {0}},
     .flags = CASE_BIG},

    GLU(AM_ACT_SILU),
    GLU(AM_ACT_GELU),
    GLU(AM_ACT_GELU_TANH),
    GLU(AM_ACT_SIGMOID),
    GLU(AM_ACT_QUICK_GELU),
    GLU(AM_ACT_TANH),
    {OPCASE(glu), .in = {AWAY(2, 3, 4), N(2, 3, 4)}, ACT(AM_ACT_RELU2)},
    {OPCASE(glu), .in = {AWAY(13, 83), N(13, 83)}, ACT(AM_ACT_RELU2), .flags = CASE_BIG},
    {OPCASE(glu), .in = {AWAY(2, 3, 4), N(2, 3, 4)}, ACT(AM_ACT_RELU)},
    {OPCASE(glu), .in = {AWAY(13, 83), N(13, 83)}, ACT(AM_ACT_RELU), .flags = CASE_BIG},

    {OPCASE(fake_quantize), .in = {N(3, 48)}, FAKE(AM_FQ_INT4, AM_F32, 16)},
    {OPCASE(fake_quantize), .in = {N(2, 3, 35)}, FAKE(AM_FQ_INT4, AM_BF16, 5)},
    {OPCASE(fake_quantize), .in = {N(19, 131)}, FAKE(AM_FQ_INT4, AM_BF16, 0)},
    {OPCASE(fake_quantize), .in = {N(3, 64)}, FAKE(AM_FQ_UINT4, AM_BF16, 32)},
    {OPCASE(fake_quantize), .in = {N(7, 33)}, FAKE(AM_FQ_UINT4, AM_BF16, 11)},
    {OPCASE(fake_quantize), .in = {N(2, 5, 131)}, FAKE(AM_FQ_INT8, AM_F32, 0)},
    {OPCASE(fake_quantize), .in = {N(1)}, FAKE(AM_FQ_INT8, AM_F32, 0)},
    {OPCASE(fake_quantize), .in = {N(0, 4)}, FAKE(AM_FQ_INT8, AM_F32, 2)},
    {OPCASE(fake_quantize), .in = {N(200, 260)},
     FAKE(AM_FQ_INT8, AM_F32, 0)}, /* by several threads */

    {OPCASE(attention), .in = {QKV(1, 1, 1, 1, 1, 1)}, ATTN(.causal = 1)},
    {OPCASE(attention), .in = {QKV(2, 3, 3, 2, 1, 5)}, ATTN(.causal = 1)},
    {OPCASE(attention), .in = {QKV(1, 3, 3, 2, 2, 3)}, ATTN(.causal = 0)},
    {OPCASE(attention), .in = {QKV(1, 2, 5, 2, 1, 3)}, ATTN(.causal = 1)},
    {OPCASE(attention), .in = {QKV(1, 5, 3, 1, 1, 3)}, ATTN(.causal = 1)}, /* two see nothing */
    {OPCASE(attention), .in = {QKV(1, 4, 4, 6, 2, 4)}, ATTN(.causal = 1)},
    {OPCASE(attention), .in = {QKV(1, 4, 4, 3, 1, 2)}, ATTN(.causal = 0, .scale = 0.3)},
    {OPCASE(attention), .in = {QKV(1, 6, 6, 1, 1, 3)}, ATTN(.causal = 1, .window = 2)},
    {OPCASE(attention), .in = {QKV(1, 4, 6, 1, 1, 3)}, ATTN(.causal = 0, .window = 3)},
    {OPCASE(attention), .in = {QKV(1, 4, 4, 2, 1, 3)}, ATTN(.causal = 1, .window = 1)},
    {OPCASE(attention), .in = {QKV(1, 4, 4, 2, 1, 3)}, ATTN(.causal = 1, .softcap = 1.5)},
    {OPCASE(attention), .in = {QKV(2, 4, 4, 2, 1, 3)}, ATTN(.causal = 1, .dropout_p = 0.3)},
    {OPCASE(attention), .in = {QKV(2, 4, 5, 2, 1, 3), BOUNDS(5, 2, 4, 2)}, ATTN(.causal = 0)},
    {OPCASE(attention), .in = {QKV(2, 5, 5, 2, 2, 3), PACK(2, 2, 5, 2)}, ATTN(.causal = 1)},
    {OPCASE(attention), .in = {QKV(1, 6, 6, 4, 2, 3), BOUNDS(6, 1, 6, 2)},
     ATTN(.scale = 0.7, .causal = 1, .window = 3, .softcap = 2, .dropout_p = 0.25)},
    {OPCASE(attention), .in = {QKV(2, 4, 4, 4, 2, 3), ABSENT, N(4)}, ATTN(.causal = 1)},
    {OPCASE(attention), .in = {QKV(2, 4, 5, 2, 1, 3), BOUNDS(5, 2, 4, 2), N(2)}, ATTN(.causal = 0)},
    {OPCASE(attention), .in = {QKV(1, 6, 6, 4, 2, 3), PACK(3, 1, 6, 2), N(4)},
     ATTN(.scale = 0.7, .causal = 1, .window = 2, .softcap = 2, .dropout_p = 0.25)},
    {OPCASE(attention), .in = {QKV(1, 5, 3, 1, 1, 3), ABSENT, N(1)}, ATTN(.causal = 1)},
    {OPCASE(attention), .in = {QKV(1, 3, 0, 1, 1, 2), ABSENT, N(1)}, ATTN(.causal = 0)},
    {OPCASE(attention), .in = {QKV(1, 0, 3, 2, 1, 2), ABSENT, N(2)}, ATTN(.causal = 0)},
    {OPCASE(attention), .in = {QKV(2, 1, 67, 3, 1, 32), ABSENT, N(3)}, ATTN(.causal = 1),
     .flags = CASE_BIG},
    {OPCASE(attention), .in = {QKV(2, 133, 133, 4, 2, 17), BOUNDS(133, 2, 133, 2), N(4)},
     ATTN(.causal = 1), .flags = CASE_BIG},
    {OPCASE(attention), .in = {QKV(1, 3, 0, 1, 1, 2)}, ATTN(.causal = 0)},
    {OPCASE(attention), .in = {QKV(1, 0, 3, 1, 1, 2)}, ATTN(.causal = 0)},
    {OPCASE(attention), .in = {QKV(1, 70, 70, 2, 1, 17)}, ATTN(.causal = 1), .flags = CASE_BIG},
    {OPCASE(attention), .in = {QKV(1, 131, 131, 1, 1, 8)}, ATTN(.causal = 1), .flags = CASE_BIG},
    {OPCASE(attention), .in = {QKV(1, 5, 133, 2, 1, 16)}, ATTN(.causal = 1), .flags = CASE_BIG},
    {OPCASE(attention), .in = {QKV(2, 1, 67, 3, 1, 32)}, ATTN(.causal = 1), .flags = CASE_BIG},
    {OPCASE(attention), .in = {QKV(1, 67, 67, 1, 1, 65)}, ATTN(.causal = 0), .flags = CASE_BIG},
    {OPCASE(attention), .in = {QKV(1, 71, 71, 2, 2, 12), PACK(19, 1, 71, 2)}, ATTN(.causal = 1),
     .flags = CASE_BIG},
    {OPCASE(attention), .in = {QKV(1, 67, 70, 2, 1, 10), BOUNDS(70, 1, 67, 2)},
     ATTN(.causal = 1, .window = 37, .softcap = 2, .dropout_p = 0.1), .flags = CASE_BIG},

    {OPCASE(cross_entropy), .in = {N(5, 7), LABEL(7, 5)}, LOSS(0)},
    {OPCASE(cross_entropy), .in = {N(5, 7), LABEL64(7, 5)}, LOSS(1.5)},
    {OPCASE(cross_entropy), .in = {N(4, 1), LABEL(1, 4)}, LOSS(0)},
    {OPCASE(cross_entropy), .in = {N(1, 2), INDEX64(2, 1)}, LOSS(0)},
    {OPCASE(cross_entropy), .in = {N(0, 3), LABEL(3, 0)}, LOSS(0)},
    {OPCASE(cross_entropy), .in = {N(19, 131), LABEL(131, 19)}, LOSS(0), .flags = CASE_BIG},

    {OPCASE(linear_cross_entropy), .in = {N(5, 3), N(7, 3), LABEL(7, 5)}, LOSS(0)},
    {OPCASE(linear_cross_entropy), .in = {N(5, 3), N(7, 3), LABEL64(7, 5)}, LOSS(1.5)},
    {OPCASE(linear_cross_entropy), .in = {N(4, 4), N(4, 4), LABEL(4, 4)}, LOSS(0)},
    {OPCASE(linear_cross_entropy), .in = {N(1, 1), N(2, 1), INDEX(2, 1)}, LOSS(0)},
    {OPCASE(linear_cross_entropy), .in = {N(0, 3), N(7, 3), LABEL(7, 0)}, LOSS(0)},
    {OPCASE(linear_cross_entropy), .in = {N(19, 33), N(131, 33), LABEL(131, 19)}, LOSS(0),
     .flags = CASE_BIG},
};

const case_table decoder_cases = {cases, sizeof cases / sizeof *cases};
