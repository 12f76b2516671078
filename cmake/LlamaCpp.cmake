# llama.cpp, as the plugin and its tests need it.
#
# With LLAMA_CPP_DIR unset the pinned release (scripts/lib/pins) is fetched into build/_deps at configure time, and its
# shared libraries are built there, by its own build system, when something links with them. LLAMA_CPP_DIR may name a
# llama.cpp source checkout (built in the same place, nothing is written to the checkout) or the prefix of an install.
#
# Defines
#   ggml::base, ggml::ggml, llama::llama   imported shared libraries with their public headers
#   LLAMA_CPP_INCLUDE_DIRS                 public headers of ggml and llama
#   LLAMA_CPP_SOURCE_DIR                   the source tree; empty with an install
#   LLAMA_CPP_INTERNAL_INCLUDE_DIR         where ggml-backend-impl.h is; empty with an install
#   LLAMA_CPP_BIN_DIR                      where llama-server and the other tools are once scripts/test has built them
#   LLAMA_CPP_API2_SOURCE_DIR, LLAMA_CPP_API2_INTERNAL_INCLUDE_DIR, LLAMA_CPP_API2_BIN_DIR
#                                          the same of the second host, backend API 2; there once scripts/test has run
#   TQ_MODEL_FILE                          the pinned model; there once scripts/test or scripts/demo has run

include_guard(GLOBAL)

set(LLAMA_CPP_DIR "" CACHE PATH "llama.cpp source checkout or install prefix; empty: the pinned release")

set(TQ_SCRIPTS_LIB "${CMAKE_CURRENT_LIST_DIR}/../scripts/lib")
cmake_path(NORMAL_PATH TQ_SCRIPTS_LIB)
set(TQ_DEPS_DIR "${CMAKE_CURRENT_LIST_DIR}/../build/_deps")
cmake_path(NORMAL_PATH TQ_DEPS_DIR)

function(tq_read_pins)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${TQ_SCRIPTS_LIB}/pins")
    file(STRINGS "${TQ_SCRIPTS_LIB}/pins" lines REGEX "^[A-Z0-9_]+=")
    foreach(line IN LISTS lines)
        string(REGEX MATCH "^([A-Z0-9_]+)=(.*)$" _ "${line}")
        set("TQ_PIN_${CMAKE_MATCH_1}" "${CMAKE_MATCH_2}" PARENT_SCOPE)
    endforeach()
endfunction()

function(tq_fetch_llama_cpp)
    if(NOT EXISTS "${LLAMA_CPP_SOURCE_DIR}")
        message(STATUS "Fetching llama.cpp ${TQ_PIN_LLAMA_CPP_TAG} (37 MB, about 15 s)")
        execute_process(COMMAND "${TQ_SCRIPTS_LIB}/fetch" llama.cpp RESULT_VARIABLE status)
        if(NOT status EQUAL 0)
            message(FATAL_ERROR "llama.cpp could not be fetched. Set LLAMA_CPP_DIR to a llama.cpp source checkout or "
                                "install, or configure with -DTQ_PLUGIN=OFF for the library without the plugin.")
        endif()
    endif()
endfunction()

function(tq_import_library target location)
    if(NOT TARGET ${target})
        add_library(${target} SHARED IMPORTED GLOBAL)
        set_target_properties(${target} PROPERTIES IMPORTED_LOCATION "${location}" INTERFACE_INCLUDE_DIRECTORIES
                                                                                   "${LLAMA_CPP_INCLUDE_DIRS}")
    endif()
endfunction()

# Libraries that llama.cpp's own build makes when something here links with them.
function(tq_import_from_source)
    set(ggml_base "${LLAMA_CPP_BIN_DIR}/libggml-base.so")
    set(ggml "${LLAMA_CPP_BIN_DIR}/libggml.so")
    set(llama "${LLAMA_CPP_BIN_DIR}/libllama.so")
    add_custom_command(
        OUTPUT "${ggml_base}" "${ggml}"
        COMMAND "${TQ_SCRIPTS_LIB}/build-llama-cpp" "${LLAMA_CPP_SOURCE_DIR}" "${LLAMA_CPP_BUILD_DIR}" shared
                ggml-base ggml-cpu ggml
        COMMENT "Building ggml in ${LLAMA_CPP_BUILD_DIR}"
        USES_TERMINAL VERBATIM)
    add_custom_target(llama-cpp-ggml DEPENDS "${ggml_base}" "${ggml}")
    add_custom_command(
        OUTPUT "${llama}"
        COMMAND "${TQ_SCRIPTS_LIB}/build-llama-cpp" "${LLAMA_CPP_SOURCE_DIR}" "${LLAMA_CPP_BUILD_DIR}" shared llama
        COMMENT "Building libllama in ${LLAMA_CPP_BUILD_DIR}"
        USES_TERMINAL VERBATIM)
    add_custom_target(llama-cpp-llama DEPENDS "${llama}")
    add_dependencies(llama-cpp-llama llama-cpp-ggml)
    tq_import_library(ggml::base "${ggml_base}")
    tq_import_library(ggml::ggml "${ggml}")
    tq_import_library(llama::llama "${llama}")
    add_dependencies(ggml::base llama-cpp-ggml)
    add_dependencies(ggml::ggml llama-cpp-ggml)
    add_dependencies(llama::llama llama-cpp-llama)
endfunction()

function(tq_import_from_install)
    foreach(pair IN ITEMS ggml::base=ggml-base ggml::ggml=ggml llama::llama=llama)
        string(REPLACE "=" ";" pair "${pair}")
        list(GET pair 0 target)
        list(GET pair 1 name)
        find_library(TQ_LIB_${name} NAMES "lib${name}.so" "lib${name}.so.0" PATHS "${LLAMA_CPP_DIR}"
            PATH_SUFFIXES lib lib64 "lib/${CMAKE_LIBRARY_ARCHITECTURE}" bin NO_DEFAULT_PATH NO_CACHE)
        if(NOT TQ_LIB_${name})
            message(FATAL_ERROR "LLAMA_CPP_DIR=${LLAMA_CPP_DIR} has no shared lib${name}.so: a backend plugin needs a "
                                "llama.cpp built with BUILD_SHARED_LIBS=ON (or name its source checkout instead).")
        endif()
        tq_import_library(${target} "${TQ_LIB_${name}}")
    endforeach()
endfunction()

tq_read_pins()
set(LLAMA_CPP_SOURCE_DIR "")
set(LLAMA_CPP_INTERNAL_INCLUDE_DIR "")
if(LLAMA_CPP_DIR)
    file(REAL_PATH "${LLAMA_CPP_DIR}" llama_cpp_real_dir EXPAND_TILDE)
    if(EXISTS "${llama_cpp_real_dir}/ggml/include/ggml.h")
        set(LLAMA_CPP_SOURCE_DIR "${llama_cpp_real_dir}")
        string(MD5 llama_cpp_id "${llama_cpp_real_dir}")
        string(SUBSTRING "${llama_cpp_id}" 0 8 llama_cpp_id)
        set(LLAMA_CPP_BUILD_DIR "${TQ_DEPS_DIR}/llama.cpp-user-${llama_cpp_id}-build")
    elseif(NOT EXISTS "${llama_cpp_real_dir}/include/ggml.h")
        message(FATAL_ERROR "LLAMA_CPP_DIR=${LLAMA_CPP_DIR} is neither a llama.cpp source checkout "
                            "(ggml/include/ggml.h) nor the prefix of an install (include/ggml.h).")
    endif()
else()
    set(LLAMA_CPP_SOURCE_DIR "${TQ_DEPS_DIR}/llama.cpp-${TQ_PIN_LLAMA_CPP_TAG}")
    set(LLAMA_CPP_BUILD_DIR "${LLAMA_CPP_SOURCE_DIR}-build")
    tq_fetch_llama_cpp()
endif()

if(LLAMA_CPP_SOURCE_DIR)
    set(LLAMA_CPP_INCLUDE_DIRS "${LLAMA_CPP_SOURCE_DIR}/ggml/include" "${LLAMA_CPP_SOURCE_DIR}/include")
    set(LLAMA_CPP_INTERNAL_INCLUDE_DIR "${LLAMA_CPP_SOURCE_DIR}/ggml/src")
    set(LLAMA_CPP_BIN_DIR "${LLAMA_CPP_BUILD_DIR}/bin")
    tq_import_from_source()
else()
    set(LLAMA_CPP_INCLUDE_DIRS "${llama_cpp_real_dir}/include")
    set(LLAMA_CPP_BIN_DIR "${llama_cpp_real_dir}/bin")
    tq_import_from_install()
endif()

set(LLAMA_CPP_API2_SOURCE_DIR "${TQ_DEPS_DIR}/llama.cpp-${TQ_PIN_LLAMA_CPP_API2_TAG}")
set(LLAMA_CPP_API2_INTERNAL_INCLUDE_DIR "${LLAMA_CPP_API2_SOURCE_DIR}/ggml/src")
set(LLAMA_CPP_API2_BIN_DIR "${LLAMA_CPP_API2_SOURCE_DIR}-build/bin")
set(TQ_MODEL_FILE "${TQ_DEPS_DIR}/model-${TQ_PIN_MODEL_VERSION}/${TQ_PIN_MODEL_FILE}")
