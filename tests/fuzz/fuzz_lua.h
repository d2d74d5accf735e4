/* fuzz_lua.h — a reader that is written in Lua, as a libFuzzer target. The readers are in
 * readers.lua; an error that is not one of amlua's error objects is a finding. The fuzzer sees no
 * Lua code, so a hook counts the lines that run: they are its coverage. */
#ifndef FUZZ_LUA_H
#define FUZZ_LUA_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

enum { COUNTERS = 1 << 15 };
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t counters[COUNTERS];

/* LeakSanitizer does not see what LuaJIT's heap refers to. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static void count_line(lua_State *L, lua_Debug *at)
{
    (void)lua_getinfo(L, "S", at);
    uint32_t hash = (uint32_t)at->currentline * 2654435761u;
    for (const char *c = at->short_src; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 16777619u;
    counters[hash % COUNTERS]++;
}

static void stop(lua_State *L)
{
    lua_getglobal(L, "tostring"); /* of an error object */
    lua_insert(L, -2);
    lua_call(L, 1, 1);
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    abort();
}

/* Have the reader of this name read an input. */
static int read_in_lua(const char *reader, const uint8_t *data, size_t bytes)
{
    static lua_State *L;
    if (!L) {
        L = luaL_newstate();
        luaL_openlibs(L);
        if (luaL_dostring(L, "jit.off() package.path = 'lua/?.lua;lua/?/init.lua;' .. package.path "
                             "return dofile 'tests/fuzz/readers.lua'"))
            stop(L);
        lua_sethook(L, count_line, LUA_MASKLINE, 0);
    }
    lua_getfield(L, 1, reader);
    lua_pushlstring(L, (const char *)data, bytes);
    if (lua_pcall(L, 1, 0, 0))
        stop(L);
    return 0;
}

#endif
