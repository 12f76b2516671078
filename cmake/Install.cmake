# cmake --install: the library with its CMake package and pkg-config file, and, where they are built, the plugin and tq.
# Components: library, plugin, tools.
option(TQ_INSTALL "Make install rules" ${PROJECT_IS_TOP_LEVEL})
if(NOT TQ_INSTALL)
  return()
endif()

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(TQ_CMAKE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/turboquant")
get_property(TQ_LAYER_TARGETS GLOBAL PROPERTY TQ_LAYER_TARGETS)

install(TARGETS turboquant ${TQ_LAYER_TARGETS} tq_options EXPORT turboquant-targets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT library)
# What the public headers do not include stays out: kernel bodies (-inl.h), SIMD primitives, per-ISA tables, a
# tile's bits (cell_codes.h), CPU detection.
install(DIRECTORY "${PROJECT_SOURCE_DIR}/turboquant" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT library
  FILES_MATCHING PATTERN "*.h"
  PATTERN "*-inl.h" EXCLUDE PATTERN "kernels_isa.h" EXCLUDE PATTERN "machine.h" EXCLUDE PATTERN "cell_codes.h" EXCLUDE
  PATTERN "simd" EXCLUDE)

install(EXPORT turboquant-targets NAMESPACE turboquant:: DESTINATION "${TQ_CMAKE_DIR}" COMPONENT library)
configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/turboquant-config.cmake.in"
  "${PROJECT_BINARY_DIR}/turboquant-config.cmake" INSTALL_DESTINATION "${TQ_CMAKE_DIR}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/turboquant-config-version.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/turboquant-config.cmake" "${PROJECT_BINARY_DIR}/turboquant-config-version.cmake"
  DESTINATION "${TQ_CMAKE_DIR}" COMPONENT library)

# pkg-config: relative to the .pc file, so that `cmake --install --prefix` and moved prefixes work.
cmake_path(ABSOLUTE_PATH CMAKE_INSTALL_LIBDIR BASE_DIRECTORY "${CMAKE_INSTALL_PREFIX}" NORMALIZE OUTPUT_VARIABLE pc_dir)
cmake_path(APPEND pc_dir pkgconfig)
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY "${pc_dir}" OUTPUT_VARIABLE TQ_PC_TO_PREFIX)
set(TQ_PC_LIBS "")
foreach(target IN LISTS TQ_LAYER_TARGETS)  # a static library stands before those that it uses
  get_target_property(name ${target} OUTPUT_NAME)
  string(PREPEND TQ_PC_LIBS "-l${name} ")
endforeach()
configure_file("${CMAKE_CURRENT_LIST_DIR}/turboquant.pc.in" "${PROJECT_BINARY_DIR}/turboquant.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/turboquant.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig" COMPONENT library)

if(TQ_PLUGIN)
  install(TARGETS ggml-turboquant LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT plugin)
endif()
if(TARGET tq)
  install(TARGETS tq RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT tools)
endif()
