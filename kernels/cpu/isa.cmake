# Compiles every file of simd/ once for each instruction set; backend_cpu.c picks one at run time.
# Their objects are ISA_OBJECTS.
# Contraction is off: the files say themselves what is fused (vfma), so that results are the same
# in a vector's body and in its tail.
file(GLOB SIMD_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cpu/simd/*.c)
set(ISAS generic)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND ISAS avx2 avx512 avx512_bf16)
    set(ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
    set(ISA_FLAGS_avx512 -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512cd -mavx512dq
        -mavx512vl)
    if(CMAKE_C_COMPILER_ID MATCHES "GNU|Clang")
        list(APPEND ISA_FLAGS_avx512 -mprefer-vector-width=512)
    endif()
    set(ISA_FLAGS_avx512_bf16 ${ISA_FLAGS_avx512} -mavx512bf16) # to round to bf16
endif()
foreach(isa ${ISAS})
    set(ISA_SOURCES_${isa} ${SIMD_SOURCES})
endforeach()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    # amx/, and what AMX has a form of its own for (AM_AMX_TILES); all else is avx512_bf16's
    list(APPEND ISAS amx)
    set(ISA_SOURCES_amx ${PROJECT_SOURCE_DIR}/kernels/cpu/amx/tile_gemm.c
        ${PROJECT_SOURCE_DIR}/kernels/cpu/simd/attention.c
        ${PROJECT_SOURCE_DIR}/kernels/cpu/simd/low_rank.c)
    set(ISA_FLAGS_amx ${ISA_FLAGS_avx512_bf16} -mamx-tile -mamx-bf16 -DAM_AMX_TILES)
    # what avx512_bf16 has another form of, for bf16 alone (AM_BF16_DOT)
    list(APPEND ISAS bf16_dot)
    set(ISA_SOURCES_bf16_dot ${PROJECT_SOURCE_DIR}/kernels/cpu/simd/attention.c)
    set(ISA_FLAGS_bf16_dot ${ISA_FLAGS_avx512_bf16} -DAM_BF16_DOT)
endif()
set(ISA_OPTIMIZE -O3)
if(AMLUA_SANITIZE) # it takes four times as long to compile under sanitizers
    set(ISA_OPTIMIZE -O1)
endif()
foreach(isa ${ISAS})
    add_library(kernels_${isa} OBJECT ${ISA_SOURCES_${isa}})
    target_include_directories(kernels_${isa} PRIVATE ${PROJECT_SOURCE_DIR}/engine)
    target_compile_definitions(kernels_${isa} PRIVATE AM_ISA=${isa})
    target_link_libraries(kernels_${isa} PRIVATE amlua_options OpenMP::OpenMP_C)
    target_compile_options(kernels_${isa} PRIVATE ${ISA_OPTIMIZE} -ffp-contract=off ${ISA_FLAGS_${isa}})
    list(APPEND ISA_OBJECTS $<TARGET_OBJECTS:kernels_${isa}>)
endforeach()
if(AMLUA_SANITIZE MATCHES fuzzer) # fuzzed are the readers: these only take long to compile for that
    set_source_files_properties(${SIMD_SOURCES} ${ISA_SOURCES_amx} PROPERTIES
        COMPILE_OPTIONS "-O0;-fno-sanitize=all")
endif()
