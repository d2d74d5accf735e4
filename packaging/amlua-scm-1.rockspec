-- The Lua modules and libamlua.so as a rock, for stock LuaJIT: luarocks make packaging/amlua-scm-1.rockspec
-- What libamlua.so is built from must be there: the packages of README.md.
rockspec_format = "3.0"
package = "amlua"
version = "scm-1"
source = { url = "git+file://." }
description = {
    summary = "Fine-tune Hugging Face models: tensors, gradients, modules, models, tokenizers",
    license = "Apache-2.0",
}
dependencies = { "lua == 5.1" }
build = {
    type = "cmake",
    variables = {
        CMAKE_BUILD_TYPE = "Release",
        CMAKE_PLATFORM_NO_VERSIONED_SONAME = "ON", -- rocks cannot hold links
        CMAKE_INSTALL_PREFIX = "$(PREFIX)",
        CMAKE_INSTALL_LIBDIR = "$(LIBDIR)",
        AMLUA_LUADIR = "$(LUADIR)",
    },
}
