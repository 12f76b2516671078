# The engine for NVIDIA GPUs (cmake/Cuda.cmake looks for its compiler). The order of records and the geometry of plans are plain C++ and always built; the rest needs a CUDA
# compiler.
set(TQ_CUDA_HEAD_DIMS "64;80;96;112;128;256" CACHE STRING "Head sizes to build attention kernels for")
set(TQ_CUDA_PRESETS "k2v2;k3v3;k4v4;k5v5;k8v8" CACHE STRING "Bits of keys and values to build attention kernels for")

tq_add_layer(cuda_geometry USES tq_attention SOURCES cuda/attention_geometry.cpp cuda/plain_records.cpp)

if(NOT TQ_CUDA_FOUND)
  return()
endif()

# One file for each attention kernel, and a table of them.
set(instances "")
set(TQ_ATTEND_INSTANCES "")
foreach(TQ_HEAD_DIM IN LISTS TQ_CUDA_HEAD_DIMS)
  foreach(preset IN LISTS TQ_CUDA_PRESETS)
    if(NOT preset MATCHES "^k([2-8])v([2-8])$")
      message(FATAL_ERROR "TQ_CUDA_PRESETS: '${preset}' is not k<2-8>v<2-8>")
    endif()
    set(TQ_KEY_BITS ${CMAKE_MATCH_1})
    set(TQ_VALUE_BITS ${CMAKE_MATCH_2})
    set(instance "${CMAKE_CURRENT_BINARY_DIR}/cuda/attend_${TQ_HEAD_DIM}_${preset}.cu")
    configure_file(cuda/attend_instance.cu.in "${instance}" @ONLY)
    list(APPEND instances "${instance}")
    string(APPEND TQ_ATTEND_INSTANCES "    {${TQ_HEAD_DIM}, ${TQ_KEY_BITS}, ${TQ_VALUE_BITS}, launch_attend<${TQ_HEAD_DIM}, ${TQ_KEY_BITS}, ${TQ_VALUE_BITS}>, prepare_attend<${TQ_HEAD_DIM}, ${TQ_KEY_BITS}, ${TQ_VALUE_BITS}>},\n")
  endforeach()
endforeach()
configure_file(cuda/attend_instances.cpp.in "${CMAKE_CURRENT_BINARY_DIR}/cuda/attend_instances.cpp" @ONLY)

add_library(tq_cuda STATIC cuda/attention.cpp cuda/codec.cpp cuda/decode.cu cuda/device.cpp cuda/encode.cu ${instances}
  "${CMAKE_CURRENT_BINARY_DIR}/cuda/attend_instances.cpp")
add_library(turboquant::cuda ALIAS tq_cuda)
set_target_properties(tq_cuda PROPERTIES OUTPUT_NAME turboquant-cuda)
# The codec's sums have to be the CPU's: products and sums are fused where the code says so, and nowhere else.
target_compile_options(tq_cuda PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-fmad=false;-diag-suppress=554>")
target_link_libraries(tq_cuda PUBLIC tq_cuda_geometry CUDA::cudart_static PRIVATE $<BUILD_INTERFACE:tq_warnings>)
