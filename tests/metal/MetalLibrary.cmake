# Shaders as a library that lanes/dispatch.h runs. Needs TQ_METAL_CLANG and the target tq_lanes.

# tq_add_metal_library(<name> [PLAIN] [OPTIONS <preprocessor options>] FILES <file.metal>...): a library with
# msl_library_<name>, and the test metal.rules.<name>. PLAIN: loads and stores cannot be checked, and are faster.
function(tq_add_metal_library name)
  cmake_parse_arguments(ARG "PLAIN" "" "OPTIONS;FILES" ${ARGN})
  set(here ${CMAKE_CURRENT_FUNCTION_LIST_DIR})
  cmake_path(SET root NORMALIZE ${here}/../..)
  set(flags -std=c++14 -O2 -g1 -fPIC -fno-exceptions -fno-rtti -march=native -ffp-contract=fast-honor-pragmas -ftrivial-auto-var-init=pattern
    -fno-strict-aliasing
    -Wall -Wextra -Werror=global-constructors -Werror=vla -Wno-unknown-attributes -Wno-ignored-attributes -Wno-unknown-pragmas
    -Wno-duplicate-decl-specifier -Wno-unused-function -Wno-unused-const-variable -Wno-unused-parameter
    -Wno-pass-failed)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")   # halves give the same bits on every machine, rounded each time
    list(APPEND flags -mno-avx512fp16 -Xclang -ffloat16-excess-precision=none)
  endif()
  if(NOT ARG_PLAIN)   # every load and store calls a function of hooks.cpp first
    list(APPEND flags -fno-vectorize -fno-slp-vectorize -fsanitize=kernel-address
      -mllvm -asan-instrumentation-with-call-threshold=0 -mllvm -asan-stack=0 -mllvm -asan-globals=0
      -mllvm -asan-opt-same-temp=0 -mllvm -asan-kernel-mem-intrinsic-prefix=1
      -mllvm -asan-memory-access-callback-prefix=msl_ -fsanitize-recover=all
      -fsanitize=array-bounds,shift-exponent,integer-divide-by-zero,signed-integer-overflow,float-cast-overflow)
  endif()
  list(TRANSFORM ARG_FILES PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/" REGEX "^[^/]")
  set(output ${CMAKE_CURRENT_BINARY_DIR}/${name}.metal.cpp)
  file(GLOB_RECURSE shim CONFIGURE_DEPENDS ${here}/msl/* ${here}/opencl/*)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${root}/turboquant/metal/* ${root}/turboquant/format/*.h
    ${root}/turboquant/attention/*.h ${root}/turboquant/cpu/record.h)
  add_custom_command(OUTPUT ${output}
    COMMAND ${here}/translate.sh ${TQ_METAL_CLANG} ${root} ${name} ${output} ${ARG_OPTIONS} -- ${ARG_FILES}
    DEPENDS ${ARG_FILES} ${headers} ${here}/translate.sh ${here}/translate.py ${here}/msl/preprocess/metal_stdlib VERBATIM)
  add_custom_command(OUTPUT ${output}.o
    COMMAND ${TQ_METAL_CLANG} ${flags} -isystem ${here} -c ${output} -o ${output}.o
    DEPENDS ${output} ${shim} ${here}/lanes/abi.h VERBATIM)
  add_library(${name} STATIC ${output}.o)
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(${name} PUBLIC tq_lanes)
  add_test(NAME metal.rules.${name} COMMAND python3 ${here}/rules.py ${TQ_METAL_CLANG} ${output})
  set_tests_properties(metal.rules.${name} PROPERTIES LABELS unit)
endfunction()
