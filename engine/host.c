/* host.c — the amlua program: a LuaJIT state, the way to the Lua files, an editor for lines typed
 * at a terminal, and an orderly end. The only file that sees lua.h. What the arguments mean is
 * decided in lua/am/cli/.
 *
 * The library is opened here, not linked: OpenMP reads its environment while it is loaded, and by
 * then it must know how long a waiting thread may spin. Its default, milliseconds, makes a step
 * several times slower as soon as anything else runs on the cores. */
#include <dlfcn.h>
#include <limits.h>
#include <locale.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "am.h"

#ifdef AM_LIBEDIT
#include <histedit.h>
#endif

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

/* ---- the line editor ---------------------------------------------------------------------
 * require "am.cli.editor" gives what is below, unless amlua was built without libedit. Tab calls a
 * Lua function, from within lua_pcall: that is why this is C and not the FFI. */
#ifdef AM_LIBEDIT

static struct {
    EditLine *el;
    History *history;
    lua_State *L;
    int completer; /* its reference in the registry */
    bool cancelled;
    char prompt[64];
} editor;

static char *prompt(EditLine *el)
{
    (void)el;
    return editor.prompt;
}

/* completer(text before the cursor) -> text to insert, lines to show above the prompt or nil. */
static unsigned char complete(EditLine *el, int key)
{
    (void)key;
    const LineInfo *line = el_line(el);
    lua_State *L = editor.L;
    int top = lua_gettop(L);
    unsigned char result = CC_REFRESH_BEEP;
    if (!lua_checkstack(L, 4))
        return CC_ERROR;
    lua_rawgeti(L, LUA_REGISTRYINDEX, editor.completer);
    lua_pushlstring(L, line->buffer, (size_t)(line->cursor - line->buffer));
    if (lua_pcall(L, 1, 2, 0) == 0) {
        const char *insert = lua_tostring(L, -2), *show = lua_tostring(L, -1);
        if (insert && *insert && el_insertstr(el, insert) == 0)
            result = CC_REFRESH;
        if (show) {
            printf("\n%s\n", show);
            result = CC_REDISPLAY;
        }
    }
    lua_settop(L, top);
    return result;
}

/* Ctrl-C and Ctrl-Z are ordinary keys while a line is edited. */
static unsigned char cancel(EditLine *el, int key)
{
    (void)el, (void)key;
    editor.cancelled = true;
    return CC_EOF;
}

static unsigned char suspend(EditLine *el, int key)
{
    (void)el, (void)key;
    raise(SIGTSTP);
    return CC_REDISPLAY;
}

/* open(completer): true, or nil when this terminal cannot be used. */
static int editor_open(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    HistEvent event;
    setlocale(LC_CTYPE, ""); /* what is a character */
    editor.el = el_init("amlua", stdin, stdout, stderr);
    editor.history = history_init();
    if (!editor.el || !editor.history)
        return 0;
    editor.L = L;
    lua_pushvalue(L, 1);
    editor.completer = luaL_ref(L, LUA_REGISTRYINDEX);
    history(editor.history, &event, H_SETSIZE, 10000);
    el_set(editor.el, EL_PROMPT, prompt);
    el_set(editor.el, EL_EDITOR, "emacs");
    el_set(editor.el, EL_SIGNAL, 1);
    el_set(editor.el, EL_HIST, history, editor.history);
    el_set(editor.el, EL_ADDFN, "am-complete", "Complete a name", complete);
    el_set(editor.el, EL_ADDFN, "am-cancel", "Give the line up", cancel);
    el_set(editor.el, EL_ADDFN, "am-suspend", "Stop until the shell says fg", suspend);
    el_set(editor.el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(editor.el, EL_BIND, "\033[3~", "ed-delete-next-char", NULL);
    el_source(editor.el, NULL); /* ~/.editrc */
    el_set(editor.el, EL_BIND, "^I", "am-complete", NULL);
    el_set(editor.el, EL_BIND, "^C", "am-cancel", NULL);
    el_set(editor.el, EL_BIND, "^Z", "am-suspend", NULL);
    el_set(editor.el, EL_SETTY, "-d", "-isig", NULL);
    lua_pushboolean(L, 1);
    return 1;
}

/* read(prompt): a line; false when Ctrl-C gave it up; nil at the end of the input. SIGTERM ends the
 * process here, whatever the engine made of it before. */
static int editor_read(lua_State *L)
{
    int n;
    snprintf(editor.prompt, sizeof editor.prompt, "%s", luaL_checkstring(L, 1));
    editor.cancelled = false;
    signal(SIGTERM, SIG_DFL);
    el_set(editor.el, EL_PREP_TERM, 1); /* before the prompt is seen and keys are pressed */
    const char *line = el_gets(editor.el, &n);
    if (editor.cancelled) {
        printf("^C\n");
        lua_pushboolean(L, 0);
    } else if (!line || n <= 0) {
        lua_pushnil(L);
    } else {
        lua_pushlstring(L, line, (size_t)(line[n - 1] == '\n' ? n - 1 : n));
    }
    return 1;
}

/* remember(line): for the arrow keys. */
static int editor_remember(lua_State *L)
{
    HistEvent event;
    history(editor.history, &event, H_ENTER, luaL_checkstring(L, 1));
    return 0;
}

static int editor_module(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"open", editor_open}, {"read", editor_read}, {"remember", editor_remember}, {NULL, NULL}};
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    lua_pushfstring(L, "%d.%d", LIBEDIT_MAJOR, LIBEDIT_MINOR);
    lua_setfield(L, -2, "version");
    return 1;
}

static void editor_offer(lua_State *L)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, editor_module);
    lua_setfield(L, -2, "am.cli.editor");
    lua_pop(L, 2);
}

static void editor_close(void)
{
    if (editor.history)
        history_end(editor.history);
    if (editor.el)
        el_end(editor.el);
}

#else

static void editor_offer(lua_State *L)
{
    (void)L;
}

static void editor_close(void)
{
}

#endif

/* ---- the program ------------------------------------------------------------------------- */

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
    editor_offer(L);
    int status = set_path(L) ? run(L, argc, argv) : 1;
    editor_close();
    lua_close(L);
    void (*end)(void);
    *(void **)&end = dlsym(library, "am_shutdown");
    if (end)
        end();
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == 0) {
        fprintf(stderr, "amlua: not all of the output could be written\n");
        status = 1;
    }
    return status;
}
