/* pickle.c — the restricted reader of pickles: protocol 2, as torch.save writes it. Its stack and
 * memo hold numbers of values, so nothing is copied, nested or freed twice, and every opcode makes
 * at most one value. */
#include "pickle.h"

#include <stdio.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"

enum { PICKLE_MAX = 100000000 }; /* bytes; the cap of safetensors' headers */
enum { VALUES_MAX = 1 << 24 };   /* some 600 thousand tensors */

/* ---- names ------------------------------------------------------------------------------- */

#define STORAGE(name, as, dtype, size)                                                             \
    {                                                                                              \
        "torch", name "Storage", AM_PICKLE_TYPE, as, dtype, size                                   \
    }
#define DTYPE(name, as, dtype, size)                                                               \
    {                                                                                              \
        "torch", name, AM_PICKLE_TYPE, as, dtype, size                                             \
    }

static const am_pickle_global globals[] = {
    {"collections", "OrderedDict", AM_PICKLE_ORDERED_DICT, NULL, -1, 0},
    {"torch._utils", "_rebuild_tensor", AM_PICKLE_REBUILD, NULL, -1, 0},
    {"torch._utils", "_rebuild_tensor_v2", AM_PICKLE_REBUILD_V2, NULL, -1, 0},
    {"torch._utils", "_rebuild_tensor_v3", AM_PICKLE_REBUILD_V3, NULL, -1, 0},
    {"torch._utils", "_rebuild_parameter", AM_PICKLE_PARAMETER, NULL, -1, 0},
    STORAGE("Double", "F64", AM_F64, 8),
    STORAGE("Float", "F32", AM_F32, 4),
    STORAGE("Half", "F16", AM_F16, 2),
    STORAGE("BFloat16", "BF16", AM_BF16, 2),
    STORAGE("Long", "I64", AM_I64, 8),
    STORAGE("Int", "I32", AM_I32, 4),
    STORAGE("Short", "I16", -1, 2),
    STORAGE("Char", "I8", -1, 1),
    STORAGE("Byte", "U8", AM_U8, 1),
    STORAGE("Bool", "BOOL", AM_BOOL, 1),
    STORAGE("ComplexFloat", "C64", -1, 8),
    STORAGE("ComplexDouble", "C128", -1, 16),
    STORAGE("Untyped", NULL, -1, 1),
    {"torch.storage", "UntypedStorage", AM_PICKLE_TYPE, NULL, -1, 1},
    /* The dtypes without a storage class. */
    DTYPE("uint16", "U16", -1, 2),
    DTYPE("uint32", "U32", -1, 4),
    DTYPE("uint64", "U64", -1, 8),
    DTYPE("float8_e4m3fn", "F8_E4M3", -1, 1),
    DTYPE("float8_e5m2", "F8_E5M2", -1, 1),
    DTYPE("float8_e4m3fnuz", "F8_E4M3FNUZ", -1, 1),
    DTYPE("float8_e5m2fnuz", "F8_E5M2FNUZ", -1, 1),
    DTYPE("float8_e8m0fnu", "F8_E8M0", -1, 1),
};

const char *am_pickle_kind_name(int kind)
{
    static const char *const names[] = {"None",   "a boolean",      "an integer", "a number",
                                        "a text", "a tuple",        "a list",     "a dict",
                                        "a name", "a bare storage", "a tensor"};
    return names[kind];
}

/* ---- the machine ------------------------------------------------------------------------- */

/* A growing array of numbers of values. */
typedef struct numbers {
    uint32_t *items;
    size_t count, capacity;
} numbers;

typedef struct machine {
    am_pickle *out;
    const char *path;
    const uint8_t *start, *at, *end;
    numbers stack;
    numbers marks; /* heights of the stack */
    numbers memo;  /* a value's number + 1; 0: nothing */
} machine;

static int push_number(numbers *n, uint32_t value)
{
    void *p = n->items;
    int rc = am_grow(&p, &n->capacity, n->count + 1, sizeof *n->items);
    n->items = p;
    AM_TRY(rc);
    n->items[n->count++] = value;
    return AM_OK;
}

static int fail_damaged(const machine *m, const char *what)
{
    return am_fail(AM_EFORMAT, "%s: byte %zu of the pickle: %s: damaged", m->path,
                   (size_t)(m->at - m->start), what);
}

/* NULL after raising AM_EFORMAT. */
static const uint8_t *take(machine *m, uint64_t bytes)
{
    const uint8_t *p = m->at;
    if (bytes > (uint64_t)(m->end - m->at)) {
        (void)am_fail(AM_EFORMAT, "%s: the pickle ends inside a value: truncated or damaged",
                      m->path);
        return NULL;
    }
    m->at += bytes;
    return p;
}

static int take_unsigned(machine *m, int bytes, uint64_t *value)
{
    const uint8_t *p = take(m, (uint64_t)bytes);
    if (!p)
        return AM_EFORMAT;
    *value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        *value = *value << 8 | p[i];
    return AM_OK;
}

/* Push a new value; *out (when wanted) is good until the next one. */
static int push_new(machine *m, int kind, am_pickle_value **out)
{
    am_pickle *o = m->out;
    void *p = o->values;
    if (o->count >= VALUES_MAX)
        return am_fail(AM_EFORMAT, "%s: the pickle makes more than %d values: no state dict",
                       m->path, VALUES_MAX);
    int rc = am_grow(&p, &o->capacity, o->count + 1, sizeof *o->values);
    o->values = p;
    AM_TRY(rc);
    AM_TRY(push_number(&m->stack, (uint32_t)o->count));
    am_pickle_value *v = &o->values[o->count++];
    memset(v, 0, sizeof *v);
    v->kind = kind;
    if (out)
        *out = v;
    return AM_OK;
}

static int push_int(machine *m, int kind, int64_t value)
{
    am_pickle_value *v;
    AM_TRY(push_new(m, kind, &v));
    v->as.integer = value;
    return AM_OK;
}

/* Values above the last mark. */
static size_t available(const machine *m)
{
    return m->stack.count - (m->marks.count > 0 ? m->marks.items[m->marks.count - 1] : 0);
}

static int need(const machine *m, size_t n)
{
    return available(m) >= n ? AM_OK : fail_damaged(m, "a value is missing");
}

/* The value `depth` below the top. */
static uint32_t peek(const machine *m, size_t depth)
{
    return m->stack.items[m->stack.count - 1 - depth];
}

static am_pickle_value *value_at(const machine *m, size_t depth)
{
    return &m->out->values[peek(m, depth)];
}

/* Forget the last mark; *n values are above it. */
static int pop_mark(machine *m, size_t *n)
{
    if (m->marks.count == 0)
        return fail_damaged(m, "a mark is missing");
    *n = available(m);
    m->marks.count--;
    return AM_OK;
}

/* ---- refusing ---------------------------------------------------------------------------- */

/* A text of the file for a message: short, without control characters. */
static const char *shown(char out[100], const char *text, size_t bytes)
{
    size_t n = bytes < 99 ? bytes : 99;
    for (size_t i = 0; i < n; i++)
        out[i] = (char)((uint8_t)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i]);
    out[n] = 0;
    return out;
}

static int refuse_opcode(const machine *m, int opcode)
{
    static const struct {
        int opcode;
        const char *name;
    } names[] = {
        {'o', "OBJ"},      {0x81, "NEWOBJ"},        {0x92, "NEWOBJ_EX"}, {0x93, "STACK_GLOBAL"},
        {0x82, "EXT1"},    {0x83, "EXT2"},          {0x84, "EXT4"},      {'P', "PERSID"},
        {'B', "BINBYTES"}, {'C', "SHORT_BINBYTES"}, {0x96, "BYTEARRAY8"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].opcode == opcode)
            return am_fail(AM_EFORMAT, "%s: the pickle uses %s, which no state dict needs: refused",
                           m->path, names[i].name);
    return am_fail(AM_EFORMAT,
                   "%s: byte %zu of the pickle: opcode 0x%02x, which no state dict needs: refused",
                   m->path, (size_t)(m->at - m->start) - 1, (unsigned)opcode);
}

/* ---- names and calls --------------------------------------------------------------------- */

/* The rest of a line, and its length. */
static int take_line(machine *m, const char **text, size_t *bytes)
{
    const uint8_t *newline = memchr(m->at, '\n', (size_t)(m->end - m->at));
    *text = (const char *)m->at;
    *bytes = newline ? (size_t)(newline - m->at) : 0;
    return take(m, newline ? *bytes + 1 : SIZE_MAX) ? AM_OK : AM_EFORMAT;
}

static int same(const char *name, const char *text, size_t bytes)
{
    return strlen(name) == bytes && memcmp(name, text, bytes) == 0;
}

/* GLOBAL, and INST, whose name is never one that may be called so. */
static int op_global(machine *m, int opcode)
{
    const char *module, *name;
    size_t module_bytes, name_bytes;
    char a[100], b[100];
    AM_TRY(take_line(m, &module, &module_bytes));
    AM_TRY(take_line(m, &name, &name_bytes));
    for (size_t i = 0; opcode == 'c' && i < sizeof globals / sizeof *globals; i++)
        if (same(globals[i].module, module, module_bytes) &&
            same(globals[i].name, name, name_bytes)) {
            am_pickle_value *v;
            AM_TRY(push_new(m, AM_PICKLE_GLOBAL, &v));
            v->as.global = &globals[i];
            return AM_OK;
        }
    return am_fail(AM_EFORMAT, "%s: the pickle asks for %s.%s, which is not a tensor: refused",
                   m->path, shown(a, module, module_bytes), shown(b, name, name_bytes));
}

static int fail_call(const machine *m, const am_pickle_global *g)
{
    return am_fail(AM_EFORMAT,
                   "%s: the pickle calls %s.%s with arguments that torch.save does not write: "
                   "refused",
                   m->path, g->module, g->name);
}

static int op_reduce(machine *m)
{
    am_pickle_value *made;
    AM_TRY(need(m, 2));
    uint32_t arguments = peek(m, 0);
    const am_pickle_value *a = value_at(m, 0), *called = value_at(m, 1);
    if (called->kind != AM_PICKLE_GLOBAL)
        return am_fail(AM_EFORMAT, "%s: the pickle calls %s: refused", m->path,
                       am_pickle_kind_name(called->kind));
    const am_pickle_global *g = called->as.global;
    if (a->kind != AM_PICKLE_TUPLE || g->role == AM_PICKLE_TYPE)
        return fail_call(m, g);
    m->stack.count -= 2;
    switch (g->role) {
    case AM_PICKLE_ORDERED_DICT:
        return a->count == 0 ? push_new(m, AM_PICKLE_DICT, NULL) : fail_call(m, g);
    case AM_PICKLE_PARAMETER:
        if (a->count != 3 || am_pickle_item(m->out, a, 0)->kind != AM_PICKLE_TENSOR)
            return fail_call(m, g);
        return push_number(&m->stack, a->as.items[0]);
    default:
        AM_TRY(push_new(m, AM_PICKLE_TENSOR, &made));
        made->as.made.arguments = arguments;
        made->as.made.role = g->role;
        return AM_OK;
    }
}

/* The attributes of an object. Those of an OrderedDict (a state dict's _metadata) are versions of
 * modules, which nobody needs; nothing else has any. */
static int op_build(machine *m)
{
    AM_TRY(need(m, 2));
    if (value_at(m, 1)->kind != AM_PICKLE_DICT)
        return am_fail(AM_EFORMAT, "%s: the pickle sets attributes of %s (BUILD): refused", m->path,
                       am_pickle_kind_name(value_at(m, 1)->kind));
    m->stack.count--;
    return AM_OK;
}

static int op_persistent_id(machine *m)
{
    am_pickle_value *v;
    AM_TRY(need(m, 1));
    uint32_t id = peek(m, 0);
    if (m->out->values[id].kind != AM_PICKLE_TUPLE)
        return fail_damaged(m, "a storage is not described by a tuple");
    m->stack.count--;
    AM_TRY(push_new(m, AM_PICKLE_STORAGE, &v));
    v->as.made.arguments = id;
    return AM_OK;
}

/* ---- containers -------------------------------------------------------------------------- */

/* Move the n values at the top to the end of a container. */
static int append(machine *m, uint32_t container, size_t n)
{
    am_pickle_value *v = &m->out->values[container];
    void *p = v->as.items;
    size_t capacity = v->capacity;
    int rc = am_grow(&p, &capacity, v->count + n, sizeof *v->as.items);
    v->as.items = p;
    v->capacity = (uint32_t)capacity;
    AM_TRY(rc);
    m->stack.count -= n;
    if (n > 0)
        memcpy(v->as.items + v->count, m->stack.items + m->stack.count, n * sizeof *v->as.items);
    v->count += (uint32_t)n;
    return AM_OK;
}

static int op_tuple(machine *m, size_t n)
{
    AM_TRY(need(m, n));
    AM_TRY(push_new(m, AM_PICKLE_TUPLE, NULL));
    uint32_t tuple = peek(m, 0);
    am_pickle_value *v = &m->out->values[tuple];
    void *p;
    AM_TRY(am_alloc(&p, n * sizeof *v->as.items));
    v->as.items = p;
    v->count = v->capacity = (uint32_t)n;
    m->stack.count -= n + 1;
    if (n > 0)
        memcpy(v->as.items, m->stack.items + m->stack.count, n * sizeof *v->as.items);
    return push_number(&m->stack, tuple);
}

/* Put the n values at the top into the list or dict below them. */
static int op_put(machine *m, int kind, size_t n)
{
    AM_TRY(need(m, n + 1));
    if (value_at(m, n)->kind != kind)
        return am_fail(AM_EFORMAT, "%s: the pickle puts items into %s: refused", m->path,
                       am_pickle_kind_name(value_at(m, n)->kind));
    if (kind == AM_PICKLE_DICT && n % 2 != 0)
        return fail_damaged(m, "a key without a value");
    return append(m, peek(m, n), n);
}

/* ---- the memo ---------------------------------------------------------------------------- */

static int op_memo_put(machine *m, int bytes)
{
    uint64_t i;
    AM_TRY(take_unsigned(m, bytes, &i));
    AM_TRY(need(m, 1));
    if (i >= (uint64_t)(m->at - m->start)) /* Python counts from 0, two bytes each at least */
        return fail_damaged(m, "a place in the memo that is too far");
    while (m->memo.count <= i)
        AM_TRY(push_number(&m->memo, 0));
    m->memo.items[i] = peek(m, 0) + 1;
    return AM_OK;
}

static int op_memo_get(machine *m, int bytes)
{
    uint64_t i;
    AM_TRY(take_unsigned(m, bytes, &i));
    if (i >= m->memo.count || m->memo.items[i] == 0)
        return fail_damaged(m, "a place in the memo that is empty");
    return push_number(&m->stack, m->memo.items[i] - 1);
}

/* ---- scalars ----------------------------------------------------------------------------- */

static int op_int(machine *m, int bytes)
{
    uint64_t value;
    AM_TRY(take_unsigned(m, bytes, &value));
    return push_int(m, AM_PICKLE_INT, bytes == 4 ? (int32_t)value : (int64_t)value);
}

static int op_long(machine *m)
{
    uint64_t bytes, value = 0;
    AM_TRY(take_unsigned(m, 1, &bytes));
    if (bytes > 8)
        return am_fail(AM_EFORMAT, "%s: the pickle has an integer of %d bytes: refused", m->path,
                       (int)bytes);
    AM_TRY(take_unsigned(m, (int)bytes, &value));
    if (bytes > 0 && bytes < 8 && value >> (8 * bytes - 1)) /* negative */
        value |= UINT64_MAX << (8 * bytes);
    return push_int(m, AM_PICKLE_INT, (int64_t)value);
}

static int op_float(machine *m)
{
    return take(m, 8) ? push_new(m, AM_PICKLE_FLOAT, NULL) : AM_EFORMAT;
}

static int op_text(machine *m, int length_bytes)
{
    uint64_t bytes;
    am_pickle_value *v;
    AM_TRY(take_unsigned(m, length_bytes, &bytes));
    const uint8_t *text = take(m, bytes);
    if (!text)
        return AM_EFORMAT;
    AM_TRY(push_new(m, AM_PICKLE_TEXT, &v));
    v->as.text = (const char *)text;
    v->count = (uint32_t)bytes;
    return AM_OK;
}

static int op_protocol(machine *m)
{
    uint64_t protocol;
    AM_TRY(take_unsigned(m, 1, &protocol));
    if (protocol != 2)
        return am_fail(AM_EUNSUP, "%s: a pickle of protocol %d; 2, torch.save's default, is read",
                       m->path, (int)protocol);
    return AM_OK;
}

/* ---- running ----------------------------------------------------------------------------- */

/* One opcode other than STOP; its names are those of Python's pickletools. */
static int step(machine *m, int opcode)
{
    size_t n = 0;
    switch (opcode) {
    case 0x80: /* PROTO */
        return op_protocol(m);
    case '(': /* MARK */
        return push_number(&m->marks, (uint32_t)m->stack.count);
    case '0': /* POP */
        AM_TRY(need(m, 1));
        m->stack.count--;
        return AM_OK;
    case 'N': /* NONE */
        return push_new(m, AM_PICKLE_NONE, NULL);
    case 0x88: /* NEWTRUE */
    case 0x89: /* NEWFALSE */
        return push_int(m, AM_PICKLE_BOOL, opcode == 0x88);
    case 'K': /* BININT1 */
        return op_int(m, 1);
    case 'M': /* BININT2 */
        return op_int(m, 2);
    case 'J': /* BININT */
        return op_int(m, 4);
    case 0x8a: /* LONG1 */
        return op_long(m);
    case 'G': /* BINFLOAT */
        return op_float(m);
    case 'U': /* SHORT_BINSTRING */
        return op_text(m, 1);
    case 'T': /* BINSTRING */
    case 'X': /* BINUNICODE */
        return op_text(m, 4);
    case ')': /* EMPTY_TUPLE */
        return op_tuple(m, 0);
    case 0x85: /* TUPLE1, 2, 3 */
    case 0x86:
    case 0x87:
        return op_tuple(m, (size_t)opcode - 0x84);
    case 't': /* TUPLE */
        AM_TRY(pop_mark(m, &n));
        return op_tuple(m, n);
    case ']': /* EMPTY_LIST */
        return push_new(m, AM_PICKLE_LIST, NULL);
    case 'a': /* APPEND */
        return op_put(m, AM_PICKLE_LIST, 1);
    case 'e': /* APPENDS */
        AM_TRY(pop_mark(m, &n));
        return op_put(m, AM_PICKLE_LIST, n);
    case '}': /* EMPTY_DICT */
        return push_new(m, AM_PICKLE_DICT, NULL);
    case 's': /* SETITEM */
        return op_put(m, AM_PICKLE_DICT, 2);
    case 'u': /* SETITEMS */
        AM_TRY(pop_mark(m, &n));
        return op_put(m, AM_PICKLE_DICT, n);
    case 'q': /* BINPUT */
        return op_memo_put(m, 1);
    case 'r': /* LONG_BINPUT */
        return op_memo_put(m, 4);
    case 'h': /* BINGET */
        return op_memo_get(m, 1);
    case 'j': /* LONG_BINGET */
        return op_memo_get(m, 4);
    case 'c': /* GLOBAL */
    case 'i': /* INST */
        return op_global(m, opcode);
    case 'R': /* REDUCE */
        return op_reduce(m);
    case 'b': /* BUILD */
        return op_build(m);
    case 'Q': /* BINPERSID */
        return op_persistent_id(m);
    default:
        return refuse_opcode(m, opcode);
    }
}

static int run(machine *m)
{
    for (;;) {
        const uint8_t *opcode = take(m, 1);
        if (!opcode)
            return AM_EFORMAT;
        if (*opcode == '.') /* STOP */
            break;
        AM_TRY(step(m, *opcode));
    }
    AM_TRY(need(m, 1));
    m->out->root = peek(m, 0);
    m->out->bytes = (size_t)(m->at - m->start);
    return AM_OK;
}

int am_pickle_read(am_pickle *p, const char *path, const uint8_t *data, size_t bytes)
{
    machine m = {.out = p, .path = path, .start = data, .at = data};
    m.end = data + (bytes < PICKLE_MAX ? bytes : PICKLE_MAX);
    int rc = run(&m);
    am_free(m.stack.items);
    am_free(m.marks.items);
    am_free(m.memo.items);
    return rc;
}

void am_pickle_free(am_pickle *p)
{
    for (size_t i = 0; i < p->count; i++) {
        int kind = p->values[i].kind;
        if (kind == AM_PICKLE_TUPLE || kind == AM_PICKLE_LIST || kind == AM_PICKLE_DICT)
            am_free(p->values[i].as.items);
    }
    am_free(p->values);
    memset(p, 0, sizeof *p);
}
