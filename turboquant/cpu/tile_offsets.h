// Where tiles and scales lie in a record, in bytes from its begin: one source for CPUs and for Metal's shaders
// (cpu/record.h says what is in them). Size: size_t on CPUs, 32 bits in shaders.
#pragma once

#include "turboquant/format/coding.h"

namespace tq {

template <class Size>
TQ_FORMAT_FN Size bytes_of_tile(int bits) {
    return Size(128) * static_cast<Size>(bits);
}
template <class Size>
TQ_FORMAT_FN Size offset_of_group(Side side, int bits, Size group) {
    return group * (static_cast<Size>(group_steps(side)) * bytes_of_tile<Size>(bits) + static_cast<Size>(kBlockCells));
}
template <class Size>
TQ_FORMAT_FN Size offset_of_tile(Side side, int bits, Size step) {
    const Size group = step >> group_steps_log2(side);
    return offset_of_group(side, bits, group) +
           (step - group * static_cast<Size>(group_steps(side))) * bytes_of_tile<Size>(bits);
}
// n_steps: steps of a row. The last group may be narrower.
template <class Size>
TQ_FORMAT_FN Size offset_of_scales(Side side, int bits, Size group, Size n_steps) {
    const Size first_step = group * static_cast<Size>(group_steps(side)), rest = n_steps - first_step,
               whole = static_cast<Size>(group_steps(side));
    return offset_of_group(side, bits, group) + (rest < whole ? rest : whole) * bytes_of_tile<Size>(bits);
}

}  // namespace tq
