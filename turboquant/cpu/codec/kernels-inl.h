// The table of the codec's kernels, over Ops.
#pragma once

#include "turboquant/cpu/codec/encode-inl.h"
#include "turboquant/cpu/codec/kernels.h"
#include "turboquant/cpu/codec/rotate-inl.h"
#include "turboquant/cpu/codec/trellis-inl.h"

namespace tq::codec_impl {

template <class Ops>
constexpr CodecKernels make_kernels() {
    using R = RotateKernels<Ops>;
    return {R::rotate_row, R::rotate_query, R::rotate_inverse, encode_groups<Ops>, encode_trellis<Ops>};
}

}  // namespace tq::codec_impl
