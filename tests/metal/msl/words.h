// Words of address spaces, and scalar types, in C++.
#pragma once

#include "lanes/abi.h"

// C++ has one address space: the words mean nothing here (C++ for OpenCL checks them), but for `constant`, which nobody
// may write to.
#define device
#define threadgroup
#define thread
#define constant const
#define kernel

using uchar = unsigned char;
using ushort = unsigned short;
using uint = unsigned int;
using ulong = unsigned long;
using int8_t = signed char;
using half = _Float16;
using ptrdiff_t = long;
