# What `cmake --install` puts under a prefix, all of it relocatable, and the Debian package by CPack:
#   cmake --install build --prefix ~/x
#   cd build && cpack -G DEB
include(CMakePackageConfigHelpers)

set_target_properties(amlua_lib PROPERTIES EXPORT_NAME amlua) # amlua::amlua for find_package(amlua)
install(TARGETS amlua RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS amlua_lib EXPORT amlua LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET amlua_gloo)
    install(TARGETS amlua_gloo LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
if(TARGET amlua_mpi)
    install(TARGETS amlua_mpi LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
if(TARGET amlua_cuda)
    install(TARGETS amlua_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(FILES engine/am.h engine/dtype.def DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/amlua)
install(DIRECTORY engine/api DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/amlua)
install(FILES engine/ops/ops.def DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/amlua/ops)
set(AMLUA_LUADIR ${CMAKE_INSTALL_DATADIR}/amlua/lua CACHE STRING "Where the Lua modules go")
install(DIRECTORY lua/ DESTINATION ${AMLUA_LUADIR})
install(FILES ${CDEF} DESTINATION ${AMLUA_LUADIR}/am/core)
install(DIRECTORY recipes examples DESTINATION ${CMAKE_INSTALL_DATADIR}/amlua
        PATTERN "*.sh" EXCLUDE) # they belong to a source tree

# ---- for programs that embed libamlua
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig
           OUTPUT_VARIABLE AMLUA_PC_TO_PREFIX)
configure_file(packaging/amlua.pc.in amlua.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/amlua.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(EXPORT amlua NAMESPACE amlua:: FILE amlua-config.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/amlua)
write_basic_package_version_file(amlua-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/amlua-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/amlua)

# ---- for people
install(FILES packaging/amlua.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES packaging/completion.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
        RENAME amlua)
install(FILES README.md CHANGELOG.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs)

# ---- the Debian package
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_CONTACT "amlua developers")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "lua-yaml, lua-cjson")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "libcurl4 | libcurl4t64, ca-certificates")
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_STRIP_FILES ON)
include(CPack)
