/* host.c — the amlua program: a LuaJIT state, the way to the Lua files, and an orderly end. The
 * only file that sees lua.h. What the arguments mean is decided in lua/am/cli/.
 *
 * The library is opened here, not linked: OpenMP reads its environment while it is loaded, and by
 * then it must know how long a waiting thread may spin. Its default, milliseconds, makes a step
 * several times slower as soon as anything else runs on the cores. */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "am.h"

/* Lua files are found beside the program: PREFIX/bin/amlua -> PREFIX/share/amlua; a build tree runs
 * from its sources. AMLUA_HOME overrides both. */
static int find_home(char home[PATH_MAX], char cdef[PATH_MAX])
{
    char exe[PATH_MAX];
    const char *set = getenv("AMLUA_HOME");
    cdef[0] = '\0';
    if (set && *set)
        return snprintf(home, PATH_MAX, "%s", set) < PATH_MAX;
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0)
        return 0;
    exe[n] = '\0';
    char *slash = strrchr(exe, '/');
    if (!slash)
        return 0;
    *slash = '\0'; /* the folder */
    if (snprintf(home, PATH_MAX, "%s/../share/amlua", exe) >= PATH_MAX)
        return 0;
    if (access(home, R_OK) == 0)
        return 1;
    if (snprintf(cdef, PATH_MAX, "%s/lua/?.lua;", exe) >= PATH_MAX)
        return 0;
    return snprintf(home, PATH_MAX, "%s", AM_SOURCE_DIR) < PATH_MAX;
}

/* package.path: ours first, then LuaJIT's own. */
static int set_path(lua_State *L)
{
    char home[PATH_MAX], cdef[PATH_MAX];
    if (!find_home(home, cdef)) {
        fprintf(stderr, "amlua: can't tell where its Lua files are; set AMLUA_HOME\n");
        return 0;
    }
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "path");
    lua_pushfstring(L, "%s%s/lua/?.lua;%s/lua/?/init.lua;%s", cdef, home, home,
                    lua_tostring(L, -1));
    lua_setfield(L, -3, "path");
    lua_pop(L, 2);
    lua_pushstring(L, home);
    lua_setglobal(L, "_AMLUA_HOME"); /* read and cleared by am.cli */
    return 1;
}

static int traceback(lua_State *L)
{
    if (!lua_isstring(L, 1))
        return 1; /* an error object says all that a user needs */
    luaL_traceback(L, L, lua_tostring(L, 1), 1);
    return 1;
}

static int run(lua_State *L, int argc, char **argv)
{
    lua_pushcfunction(L, traceback);
    int handler = lua_gettop(L);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "am.cli");
    if (lua_pcall(L, 1, 1, handler) == 0) {
        lua_getfield(L, -1, "main");
        for (int i = 0; i < argc; i++)
            lua_pushstring(L, argv[i]);
        if (lua_pcall(L, argc, 1, handler) == 0)
            return (int)lua_tointeger(L, -1);
    }
    const char *message = lua_tostring(L, -1);
    fprintf(stderr, "amlua: %s\n", message ? message : "an error without a message");
    return 1;
}

/* libamlua.so with its symbols visible to the FFI; NULL with a message. */
static void *open_library(void)
{
    setenv("GOMP_SPINCOUNT", "2000", 0);
    void *library = dlopen("libamlua.so." AM_SOVERSION, RTLD_NOW | RTLD_GLOBAL);
    if (!library) {
        fprintf(stderr, "amlua: %s\n", dlerror());
        return NULL;
    }
    int (*abi)(void);
    *(void **)&abi = dlsym(library, "am_abi");
    if (!abi || abi() != AM_ABI) {
        fprintf(stderr, "amlua: libamlua.so is of another version\n");
        return NULL;
    }
    return library;
}

int main(int argc, char **argv)
{
    void *library = open_library();
    if (!library)
        return 1;
    lua_State *L = luaL_newstate();
    if (!L) {
        fprintf(stderr, "amlua: out of memory\n");
        return 1;
    }
    luaL_openlibs(L);
    int status = set_path(L) ? run(L, argc, argv) : 1;
    lua_close(L);
    void (*end)(void);
    *(void **)&end = dlsym(library, "am_shutdown");
    if (end)
        end();
    return status;
}
