# The CUDA backend, amlua_cuda.so: built where nvcc is found. CUDA 13 makes code for sm_80 to sm_120 and PTX for later
# ones; a toolkit from 12.4 on what it knows of them.
set(AMLUA_CUDA AUTO CACHE STRING "Build amlua_cuda.so: AUTO (where nvcc is found), ON or OFF")
set_property(CACHE AMLUA_CUDA PROPERTY STRINGS AUTO ON OFF)
file(GLOB CUDA_KERNELS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cu)
file(GLOB CUDA_HOST CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.c)
# The codes of 8-bit moments, and of weights in few bits, are the CPU's.
list(APPEND CUDA_HOST ${PROJECT_SOURCE_DIR}/kernels/cpu/dynamic_map.c ${PROJECT_SOURCE_DIR}/kernels/cpu/packed_tables.c)

if(NOT AMLUA_CUDA STREQUAL "OFF")
    find_package(CUDAToolkit 12.4 QUIET)
    if(NOT CUDAToolkit_NVCC_EXECUTABLE)
        if(AMLUA_CUDA STREQUAL "ON")
            message(FATAL_ERROR "AMLUA_CUDA is ON, and no nvcc from CUDA 12.4 on was found: put it on the PATH, or "
                                "set CUDAToolkit_ROOT")
        endif()
        message(STATUS "nvcc from CUDA 12.4 on was not found: there will be no amlua_cuda.so")
    endif()
endif()

if(NOT AMLUA_CUDA STREQUAL "OFF" AND CUDAToolkit_NVCC_EXECUTABLE)
    set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
        if(CUDAToolkit_VERSION VERSION_LESS 12.8)
            set(CMAKE_CUDA_ARCHITECTURES 80-real 89-real 90)
        else()
            set(CMAKE_CUDA_ARCHITECTURES 80-real 89-real 90-real 100-real 120)
        endif()
    endif()
    enable_language(CUDA)
    set(CMAKE_CUDA_STANDARD 17)
    set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -lineinfo -DNDEBUG")
    if(CUDAToolkit_VERSION VERSION_GREATER_EQUAL 12.8) # else the module has 110 MB, for lines mostly
        string(APPEND CMAKE_CUDA_FLAGS_RELEASE " --compress-mode=size")
    endif()
    add_library(amlua_cuda MODULE ${CUDA_HOST} ${CUDA_KERNELS})
    set_target_properties(amlua_cuda PROPERTIES PREFIX "" CUDA_VISIBILITY_PRESET hidden)
    target_include_directories(amlua_cuda PRIVATE ${PROJECT_SOURCE_DIR}/engine ${PROJECT_SOURCE_DIR}/kernels/cuda
                               ${PROJECT_SOURCE_DIR}/kernels/cuda/gpu)
    target_link_libraries(amlua_cuda PRIVATE CUDA::cudart CUDA::cublasLt)
    target_compile_definitions(amlua_cuda PRIVATE _GNU_SOURCE)
endif()
