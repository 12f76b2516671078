# cmake -DBUILD=<build tree> -DWORK=<empty folder> -DMODE=cmake|pkg-config ... -P run.cmake
# Installs the library into WORK, builds main.cpp against the installation alone, and runs it.
function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

file(REMOVE_RECURSE "${WORK}")
run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${WORK}/prefix" --component library)

if(MODE STREQUAL "cmake")
  file(MAKE_DIRECTORY "${WORK}/project")
  file(COPY_FILE "${PROJECT}" "${WORK}/project/CMakeLists.txt")
  run("${CMAKE_COMMAND}" -S "${WORK}/project" -B "${WORK}/build" -G "${GENERATOR}" "-DCMAKE_CXX_COMPILER=${CXX}"
    "-DCMAKE_CXX_FLAGS=${FLAGS}" "-DCMAKE_PREFIX_PATH=${WORK}/prefix" -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF)
  run("${CMAKE_COMMAND}" --build "${WORK}/build")
  run("${WORK}/build/consumer")
else()
  file(GLOB_RECURSE pc "${WORK}/prefix/turboquant.pc")
  get_filename_component(pc_dir "${pc}" DIRECTORY)
  set(ENV{PKG_CONFIG_PATH} "${pc_dir}")
  execute_process(COMMAND "${PKG_CONFIG}" --cflags --libs turboquant
    OUTPUT_VARIABLE flags OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(flags UNIX_COMMAND "${flags}")
  separate_arguments(more UNIX_COMMAND "${FLAGS}")
  run("${CXX}" -std=c++20 ${more} "${MAIN}" ${flags} -o "${WORK}/consumer")
  run("${WORK}/consumer")
endif()
