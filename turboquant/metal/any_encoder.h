// The encoder of scalar codes or of trellis codes.
#pragma once

#include "turboquant/metal/encode.h"
#include "turboquant/metal/encode_trellis.h"

namespace tq {

// The encoder of a kind of codes, from the memory that either kind needs.
template <bool trellis>
struct EncoderOf;
template <>
struct EncoderOf<false> {
    using Type = Encoder;
    static Encoder make(int bits, bool unbiased, threadgroup uchar* levels, threadgroup uchar* codes,
                        threadgroup float* errors, threadgroup uchar*, threadgroup uchar*) {
        Encoder encoder;
        encoder.bits = bits;
        encoder.unbiased = unbiased;
        encoder.level = levels;
        encoder.code = codes;
        encoder.errors = errors;
        return encoder;
    }
};
template <>
struct EncoderOf<true> {
    using Type = TrellisEncoder;
    static TrellisEncoder make(int bits, bool, threadgroup uchar* levels, threadgroup uchar* inner,
                               threadgroup float* errors, threadgroup uchar* last_state, threadgroup uchar* from_high) {
        TrellisEncoder encoder;
        encoder.bits = bits;
        encoder.level = reinterpret_cast<threadgroup char*>(levels);
        encoder.inner = inner;
        encoder.errors = errors;
        encoder.last_state = last_state;
        encoder.from_high = from_high;
        return encoder;
    }
};

}  // namespace tq
