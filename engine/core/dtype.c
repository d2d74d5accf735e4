/* dtype.c — the table of element types: names and sizes. Conversions are in dtype.h. */
#include "../dtype.h"

#include <strings.h>

#include "error.h"

static const struct {
    const char *name, *safetensors;
    int bytes, is_float;
} table[AM_DTYPE_COUNT] = {
#define X(id, name, bytes, st, fl) [id] = {name, st, bytes, fl},
#include "../dtype.def"
#undef X
};

const char *am_dtype_name(int dtype)
{
    return dtype >= 0 && dtype < AM_DTYPE_COUNT ? table[dtype].name : "?";
}

int am_dtype_size(int dtype)
{
    return dtype >= 0 && dtype < AM_DTYPE_COUNT ? table[dtype].bytes : 0;
}

int am_dtype_is_float(int dtype)
{
    return dtype >= 0 && dtype < AM_DTYPE_COUNT && table[dtype].is_float;
}

const char *am_dtype_safetensors(int dtype)
{
    return dtype >= 0 && dtype < AM_DTYPE_COUNT ? table[dtype].safetensors : "?";
}

int am_dtype_find(int *dtype, const char *name)
{
    static const struct {
        const char *name;
        int dtype;
    } aliases[] = {
        {"half", AM_F16}, {"float", AM_F32}, {"double", AM_F64}, {"long", AM_I64}, {"int", AM_I32}};
    const char *n = name ? name : "";
    if (strncasecmp(n, "torch.", 6) == 0)
        n += 6;
    for (int i = 0; i < AM_DTYPE_COUNT; i++)
        if (strcasecmp(n, table[i].name) == 0 || strcasecmp(n, table[i].safetensors) == 0) {
            *dtype = i;
            return AM_OK;
        }
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (strcasecmp(n, aliases[i].name) == 0) {
            *dtype = aliases[i].dtype;
            return AM_OK;
        }
    return am_fail(AM_EINVAL,
                   "unknown dtype \"%s\"; known are float32, bfloat16, float16, float64, int32, "
                   "int64, uint8, bool",
                   name ? name : "");
}
