/* cases_matrix.c — cases of op_matmul.c: matmul, linear, lora_linear, and of fp8_linear.
 */
#include "op_case.h"

#define LORA(s, p, pre) .attrs = {.lora = {s, p, pre}}

#define FP8(recipe) .attrs = {.fp8 = {AM_FP8_##recipe}}

#define GROUPS(n, ...) INPUT(IN_GROUPS, n, __VA_ARGS__)
#define TRANSPOSED     .attrs = {.grouped = {1}}

static const op_case cases[] = {
    {OPCASE(matmul), .in = {N(2, 3), N(3, 4)}},
    {OPCASE(matmul), .in = {N(1, 1), N(1, 1)}},
    {OPCASE(matmul), .in = {N(3, 3), N(3, 3)}},
    {OPCASE(matmul), .in = {N(5, 1), N(1, 7)}},
    {OPCASE(matmul), .in = {N(1, 5), N(5, 1)}},
    {OPCASE(matmul), .in = {N(2, 3, 4), N(2, 4, 5)}},
    {OPCASE(matmul), .in = {N(2, 3, 4), N(4, 5)}},
    {OPCASE(matmul), .in = {N(3, 4), N(2, 4, 5)}},
    {OPCASE(matmul), .in = {N(2, 1, 2, 3), N(3, 3, 2)}},
    {OPCASE(matmul), .in = {N(3, 2, 3), N(2, 1, 3, 2)}},
    {OPCASE(matmul), .in = {N(0, 3), N(3, 4)}},
    {OPCASE(matmul), .in = {N(2, 0), N(0, 4)}},
    {OPCASE(matmul), .in = {N(0, 2, 3), N(3, 4)}},
    {OPCASE(matmul), .in = {N(17, 33), N(33, 65)}, .flags = CASE_BIG},
    {OPCASE(matmul), .in = {N(3, 31, 19), N(19, 37)}, .flags = CASE_BIG},
    {OPCASE(matmul), .in = {N(2, 1, 7, 66), N(3, 66, 5)}, .flags = CASE_BIG},

    {OPCASE(linear), .in = {N(3, 5), N(4, 5)}},
    {OPCASE(linear), .in = {N(3, 5), N(4, 5), N(4)}},
    {OPCASE(linear), .in = {N(3, 5), N(4, 5), ABSENT}},
    {OPCASE(linear), .in = {N(5), N(4, 5), N(4)}},
    {OPCASE(linear), .in = {N(2, 3, 5), N(7, 5), N(7)}},
    {OPCASE(linear), .in = {N(1, 1), N(1, 1), N(1)}},
    {OPCASE(linear), .in = {N(3, 3), N(3, 3), N(3)}},
    {OPCASE(linear), .in = {N(0, 5), N(4, 5), N(4)}},
    {OPCASE(linear), .in = {N(3, 0), N(4, 0), N(4)}},
    {OPCASE(linear), .in = {N(33, 65), N(37, 65), N(37)}, .flags = CASE_BIG},
    {OPCASE(linear), .in = {N(1, 131), N(19, 131)}, .flags = CASE_BIG},
    {OPCASE(linear), .in = {N(2, 35, 16), N(64, 16), N(64)}, .flags = CASE_BIG},

    {OPCASE(fp8_linear), .in = {N(3, 5), N(4, 5)}, FP8(TENSORWISE)},
    {OPCASE(fp8_linear), .in = {N(3, 5), N(4, 5)}, FP8(ROWWISE)},
    {OPCASE(fp8_linear), .in = {N(3, 5), N(4, 5)}, FP8(ROWWISE_WITH_GW_HP)},
    {OPCASE(fp8_linear), .in = {N(5), N(4, 5)}, FP8(ROWWISE)},
    {OPCASE(fp8_linear), .in = {N(2, 3, 5), N(7, 5)}, FP8(TENSORWISE)},
    {OPCASE(fp8_linear), .in = {N(1, 1), N(1, 1)}, FP8(ROWWISE)},
    {OPCASE(fp8_linear), .in = {N(0, 5), N(4, 5)}, FP8(TENSORWISE)},
    {OPCASE(fp8_linear), .in = {N(0, 5), N(4, 5)}, FP8(ROWWISE)},
    {OPCASE(fp8_linear), .in = {N(3, 0), N(4, 0)}, FP8(ROWWISE_WITH_GW_HP)},
    {OPCASE(fp8_linear), .in = {N(33, 65), N(37, 65)}, FP8(TENSORWISE), .flags = CASE_BIG},
    {OPCASE(fp8_linear), .in = {N(2, 35, 16), N(64, 16)}, FP8(ROWWISE), .flags = CASE_BIG},
    {OPCASE(fp8_linear), .in = {N(67, 131), N(19, 131)}, FP8(ROWWISE_WITH_GW_HP),
     .flags = CASE_BIG},

    {OPCASE(lora_linear), .in = {N(3, 5), N(4, 5), N(2, 5), N(4, 2)}, LORA(0.5, 0, 0)},
    {OPCASE(lora_linear), .in = {N(3, 5), N(4, 5), N(2, 5), N(4, 2), N(4)}, LORA(2, 0, 1)},
    {OPCASE(lora_linear), .in = {N(2, 3, 5), N(5, 5), N(1, 5), N(5, 1), N(5)}, LORA(1, 0, 0)},
    {OPCASE(lora_linear), .in = {N(3, 5), N(4, 5), N(2, 5), N(4, 2), N(4)}, LORA(2, 0.4, 1)},
    {OPCASE(lora_linear), .in = {N(3, 5), N(4, 5), N(2, 5), N(4, 2), ABSENT}, LORA(2, 0.4, 0)},
    {OPCASE(lora_linear), .in = {N(3, 5), N(4, 5), N(2, 5), N(4, 2)}, LORA(2, 1, 1)},
    {OPCASE(lora_linear), .in = {N(3, 3), N(3, 3), N(3, 3), N(3, 3), N(3)}, LORA(0.7, 0, 0)},
    {OPCASE(lora_linear), .in = {N(1), N(1, 1), N(1, 1), N(1, 1), N(1)}, LORA(1, 0, 0)},
    {OPCASE(lora_linear), .in = {N(0, 5), N(4, 5), N(2, 5), N(4, 2), N(4)}, LORA(1, 0, 0)},
    {OPCASE(lora_linear), .in = {N(31, 67), N(35, 67), N(7, 67), N(35, 7), N(35)},
     LORA(0.25, 0.1, 1), .flags = CASE_BIG},
    {OPCASE(lora_linear), .in = {N(31, 67), N(35, 67), N(7, 67), N(35, 7)}, LORA(0.25, 0.1, 0),
     .flags = CASE_BIG},

    {OPCASE(grouped_linear), .in = {N(7, 5), N(4, 3, 5), GROUPS(7, 5), N(4, 3)},
     .attrs = {.grouped = {0}}},
    {OPCASE(grouped_linear), .in = {N(7, 5), N(4, 5, 3), GROUPS(7, 5), N(4, 3)}, TRANSPOSED},
    {OPCASE(grouped_linear), .in = {N(9, 2), N(6, 2, 2), GROUPS(9, 7)}, .attrs = {.grouped = {0}}},
    {OPCASE(grouped_linear), .in = {N(3, 4), N(1, 2, 4), GROUPS(3, 2)}, .attrs = {.grouped = {0}}},
    {OPCASE(grouped_linear), .in = {N(1, 1), N(3, 1, 1), GROUPS(1, 4), N(3, 1)}, TRANSPOSED},
    {OPCASE(grouped_linear), .in = {N(0, 3), N(2, 4, 3), GROUPS(0, 3), N(2, 4)},
     .attrs = {.grouped = {0}}},
    {OPCASE(grouped_linear), .in = {N(401, 65), N(5, 37, 65), GROUPS(401, 6), N(5, 37)},
     .attrs = {.grouped = {0}}, .flags = CASE_BIG},
    {OPCASE(grouped_linear), .in = {N(301, 40), N(7, 40, 67), GROUPS(301, 8), N(7, 67)}, TRANSPOSED,
     .flags = CASE_BIG},
    {OPCASE(grouped_linear), .in = {N(600, 33), N(2, 530, 33), GROUPS(600, 3)},
     .attrs = {.grouped = {0}}, .flags = CASE_BIG},
};

const case_table matrix_cases = {cases, sizeof cases / sizeof *cases};
