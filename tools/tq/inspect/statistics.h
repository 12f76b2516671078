// This measures what the keys or values of a layer look like, and what a codec makes of them.
#pragma once

#include "inspect/capture.h"
#include "turboquant/format/preset.h"

namespace tq::tool {

// Statistics of the heads of one layer and side, averaged over heads and tokens.
struct RowStatistics {
    double rms = 0;              // root mean square of a value
    double mean_share = 0;       // share of the energy that a fixed center, the mean over the tokens, would take away
    double largest_channel = 0;  // rms of the largest channel, relative to rms
    double dimensions = 0;       // dimensions that the energy is spread over: tr(C)^2 / tr(C^2), at most head_dim
};

RowStatistics row_statistics(const CapturedLayer& layer, Side side);

struct CodecDistortion {
    double relative = 0;   // |x - decoded|^2 / |x|^2
    double logit_rms = 0;  // keys: of q (k - decoded) / sqrt(head_dim) over the layer's queries; 0 for values
};

// Error: where the codec does not take the rows.
Result<CodecDistortion> codec_distortion(const CapturedLayer& layer, Side side, const Preset& preset);

}  // namespace tq::tool
