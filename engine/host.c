/* host.c — the amlua program: a LuaJIT state, the way to the Lua files, an editor for lines typed
 * at a terminal, and an orderly end. The only file that sees lua.h. What the arguments mean is
 * decided in lua/am/cli/.
 *
 * The library is opened here, not linked: OpenMP reads its environment while it is loaded, and by
 * then it must know how long a waiting thread may spin. Its default, milliseconds, makes a step
 * several times slower as soon as anything else runs on the cores. */
#include <dlfcn.h>
#include <errno.h>
#include <langinfo.h>
#include <limits.h>
#include <locale.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <unistd.h>
#include <wchar.h>

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

/* True, and said, when AMLUA_HOME is set to a folder without Lua files. */
static bool wrong_home(void)
{
    char file[PATH_MAX];
    const char *set = getenv("AMLUA_HOME");
    if (!set || !*set)
        return false;
    if (snprintf(file, sizeof file, "%s/lua/am/cli/init.lua", set) < PATH_MAX &&
        access(file, R_OK) == 0)
        return false;
    fprintf(stderr, "amlua: AMLUA_HOME is %s, and there is no lua/am/cli/init.lua there\n", set);
    return true;
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
    } else if (wrong_home()) {
        return 1;
    }
    const char *message = lua_tostring(L, -1);
    fprintf(stderr, "amlua: %s\n", message ? message : "an error without a message");
    return 1;
}

/* ---- the reserve -------------------------------------------------------------------------
 * require "am.cli.reserve": memory of Lua's own allocator, for the prompt to go on with when a
 * typed line took all there was. Outside the collector: a slice is free at once. */
enum { SLICES = 8, SLICE = 1 << 20, ROOM = 2 * SLICES * SLICE };

static void *slices[SLICES];

/* fill(): take the slices that are missing, if that leaves as much again. */
static int reserve_fill(lua_State *L)
{
    void *context;
    lua_Alloc allocate = lua_getallocf(L, &context);
    if (slices[SLICES - 1])
        return 0;
    void *room = allocate(context, NULL, 0, ROOM);
    if (!room)
        return 0;
    allocate(context, room, ROOM, 0);
    for (int i = 0; i < SLICES; i++)
        if (!slices[i])
            slices[i] = allocate(context, NULL, 0, SLICE);
    return 0;
}

/* release(): let a slice go; false when none is left. */
static int reserve_release(lua_State *L)
{
    void *context;
    lua_Alloc allocate = lua_getallocf(L, &context);
    int i = SLICES - 1;
    while (i >= 0 && !slices[i])
        i--;
    if (i >= 0) {
        allocate(context, slices[i], SLICE, 0);
        slices[i] = NULL;
    }
    lua_pushboolean(L, i >= 0);
    return 1;
}

/* wait(): until there is input, or a signal that the engine watches came, also before the call. */
static int input_wait(lua_State *L)
{
    int (*pending)(void);
    sigset_t block, before;
    fd_set in;
    (void)L;
    *(void **)&pending = dlsym(RTLD_DEFAULT, "am_signals_pending");
    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    sigaddset(&block, SIGTERM);
    FD_ZERO(&in);
    FD_SET(STDIN_FILENO, &in);
    sigprocmask(SIG_BLOCK, &block, &before);
    if (pending && !pending())
        (void)pselect(STDIN_FILENO + 1, &in, NULL, NULL, NULL, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return 0;
}

static int host_module(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"fill", reserve_fill}, {"release", reserve_release}, {"wait", input_wait}, {NULL, NULL}};
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}

static void offer(lua_State *L, const char *name, lua_CFunction module)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, module);
    lua_setfield(L, -2, name);
    lua_pop(L, 2);
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
    sigset_t before; /* signals that were blocked before a line is edited */
    char prompt[64];
} editor;

static char *prompt(EditLine *el)
{
    (void)el;
    return editor.prompt;
}

/* ---- signals and keys. While a line is edited signals are let in only where a key is waited for,
 * so that none is missed or strikes inside libedit. Its own handling (EL_SIGNAL) ends the line. */
enum { WATCHED = 5 };
static const int watched[WATCHED] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGCONT};
static volatile sig_atomic_t came[WATCHED];

static void on_signal(int number)
{
    for (int i = 0; i < WATCHED; i++)
        if (watched[i] == number)
            came[i] = 1;
}

/* Watch what is not ignored; what was before goes to `old`. */
static void signals_begin(struct sigaction old[WATCHED])
{
    struct sigaction act = {.sa_handler = on_signal}; /* no SA_RESTART: the wait ends */
    sigset_t block;
    sigemptyset(&act.sa_mask);
    sigemptyset(&block);
    for (int i = 0; i < WATCHED; i++)
        sigaddset(&block, watched[i]);
    sigprocmask(SIG_BLOCK, &block, &editor.before);
    for (int i = 0; i < WATCHED; i++) {
        came[i] = 0;
        sigaction(watched[i], NULL, &old[i]);
        if (old[i].sa_handler != SIG_IGN)
            sigaction(watched[i], &act, NULL);
    }
}

static void signals_end(const struct sigaction old[WATCHED])
{
    for (int i = 0; i < WATCHED; i++)
        sigaction(watched[i], &old[i], NULL);
    sigprocmask(SIG_SETMASK, &editor.before, NULL);
}

/* What SIGTERM does by default, with the terminal as it was; whatever the engine made of it before.
 */
static void end_by(int number)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    el_set(editor.el, EL_PREP_TERM, 0);
    signal(number, SIG_DFL);
    raise(number);
    sigprocmask(SIG_UNBLOCK, &one, NULL);
}

/* True when SIGINT came. */
static bool take_signals(void)
{
    bool interrupted = false;
    for (int i = 0; i < WATCHED; i++) {
        if (!came[i])
            continue;
        came[i] = 0;
        if (watched[i] == SIGINT) {
            interrupted = true;
        } else if (watched[i] == SIGWINCH) {
            el_resize(editor.el);
        } else if (watched[i] == SIGCONT) {
            el_set(editor.el, EL_PREP_TERM, 1);
            el_set(editor.el, EL_REFRESH);
        } else {
            end_by(watched[i]);
        }
    }
    return interrupted;
}

/* Text was pasted, not typed: more than a quick Enter waits behind the key. */
static bool pasted(void)
{
    int waiting = 0;
    return ioctl(STDIN_FILENO, FIONREAD, &waiting) == 0 && waiting > 1;
}

/* The next character for libedit: 1, 0 at the end of the input, -1. SIGINT is the key Ctrl-C. */
static int next_character(EditLine *el, wchar_t *c)
{
    mbstate_t state = {0};
    (void)el;
    while (!take_signals()) {
        fd_set in;
        char byte;
        FD_ZERO(&in);
        FD_SET(STDIN_FILENO, &in);
        if (pselect(STDIN_FILENO + 1, &in, NULL, NULL, NULL, &editor.before) < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return (int)n;
        size_t used = mbrtowc(c, &byte, 1, &state);
        if (used == (size_t)-1)
            memset(&state, 0, sizeof state); /* no character: left out */
        else if (used != (size_t)-2)
            return 1;
    }
    *c = L'\003';
    return 1;
}

/* completer(text before the cursor) -> text to insert, lines to show above the prompt or nil. */
static unsigned char complete(EditLine *el, int key)
{
    (void)key;
    if (pasted())
        return el_insertstr(el, "\t") == 0 ? CC_REFRESH : CC_ERROR;
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
    el_set(el, EL_PREP_TERM, 0);
    raise(SIGTSTP);
    el_set(el, EL_PREP_TERM, 1);
    return CC_REDISPLAY;
}

/* What terminals send for keys that libedit does not bind by itself. */
static void bind_keys(EditLine *el)
{
    static const char *const keys[][2] = {
        {"\033[1~", "ed-move-to-beg"},      {"\033[7~", "ed-move-to-beg"},
        {"\033[H", "ed-move-to-beg"},       {"\033OH", "ed-move-to-beg"},
        {"\033[4~", "ed-move-to-end"},      {"\033[8~", "ed-move-to-end"},
        {"\033[F", "ed-move-to-end"},       {"\033OF", "ed-move-to-end"},
        {"\033[3~", "ed-delete-next-char"}, {"\033[3;5~", "em-delete-next-word"},
        {"\033[1;5D", "ed-prev-word"},      {"\033[1;5C", "em-next-word"},
        {"\033[1;3D", "ed-prev-word"},      {"\033[1;3C", "em-next-word"},
        {"\033[5D", "ed-prev-word"},        {"\033[5C", "em-next-word"},
        {"\033Od", "ed-prev-word"},         {"\033Oc", "em-next-word"},
        {"\033[5~", "ed-prev-history"},     {"\033[6~", "ed-next-history"},
        {"\033[2~", "ed-ignore"},           {"^R", "em-inc-search-prev"}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        el_set(el, EL_BIND, keys[i][0], keys[i][1], NULL);
}

/* Lua's text is UTF-8, and so is a terminal's whose locale does not say: in the C locale libedit
 * would drop what is not ASCII. */
static void set_characters(void)
{
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        (void)setlocale(LC_CTYPE, "C.UTF-8");
}

/* open(completer): true, or nil when this terminal cannot be used. */
static int editor_open(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    HistEvent event;
    set_characters();
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
    el_set(editor.el, EL_GETCFN, next_character);
    el_set(editor.el, EL_HIST, history, editor.history);
    el_set(editor.el, EL_ADDFN, "am-complete", "Complete a name", complete);
    el_set(editor.el, EL_ADDFN, "am-cancel", "Give the line up", cancel);
    el_set(editor.el, EL_ADDFN, "am-suspend", "Stop until the shell says fg", suspend);
    bind_keys(editor.el);
    el_source(editor.el, NULL); /* ~/.editrc */
    el_set(editor.el, EL_BIND, "^I", "am-complete", NULL);
    el_set(editor.el, EL_BIND, "^C", "am-cancel", NULL);
    el_set(editor.el, EL_BIND, "^Z", "am-suspend", NULL);
    el_set(editor.el, EL_SETTY, "-d", "-isig", NULL);
    lua_pushboolean(L, 1);
    return 1;
}

/* read(prompt): a line; false when Ctrl-C gave it up; nil at the end of the input. SIGTERM ends the
 * process here. */
static int editor_read(lua_State *L)
{
    int n;
    struct sigaction old[WATCHED];
    snprintf(editor.prompt, sizeof editor.prompt, "%s", luaL_checkstring(L, 1));
    editor.cancelled = false;
    signals_begin(old);
    el_set(editor.el, EL_PREP_TERM, 1); /* before the prompt is seen and keys are pressed */
    const char *line = el_gets(editor.el, &n);
    signals_end(old);
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

static void editor_close(void)
{
    if (editor.history)
        history_end(editor.history);
    if (editor.el)
        el_end(editor.el);
}

#else

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
    offer(L, "am.cli.host", host_module);
#ifdef AM_LIBEDIT
    offer(L, "am.cli.editor", editor_module);
#endif
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
