# Cross-compiling to 64-bit ARM Linux with Debian's g++-aarch64-linux-gnu; tests run in qemu-user-static.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
find_program(TQ_QEMU qemu-aarch64-static DOC "QEMU's user mode for AArch64")
if(NOT TQ_QEMU)
  message(FATAL_ERROR "qemu-aarch64-static not found: install qemu-user-static and g++-aarch64-linux-gnu")
endif()
# `max` has every extension that QEMU knows, dot products and i8mm among them.
set(CMAKE_CROSSCOMPILING_EMULATOR "${TQ_QEMU};-cpu;max;-L;/usr/aarch64-linux-gnu")
# The build machine's programs, but only the target's headers and libraries.
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
