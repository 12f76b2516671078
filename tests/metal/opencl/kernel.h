// What translate.py --opencl writes refers to these.
#pragma once

namespace msl {

// `threadgroup T name[n];` in a kernel: a template is none to this compiler, which allows such variables in kernels
// alone.
template <class T>
__local T& threadgroup_variable();

bool is_defined();  // a function constant

}  // namespace msl
