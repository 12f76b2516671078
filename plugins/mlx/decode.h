// The graph node that decodes packed rows to dense ones, for whatever the fused attention does not take.
#pragma once

#include <optional>

#include "append.h"

namespace tq::mlx_plugin {

// The cells [0, n) of each stream: (n_stream, n_head_kv, n, head_dim) of `type`; cells behind a stream's length are
// what their records hold. exact: cells whose rows are kept exactly are these rows; of stream s those from
// first_exact[s] to length[s], and the sinks.
struct DecodeCall {
    Side side = Side::kKey;
    int64_t n = 0;
    std::vector<int64_t> length, first_exact;  // of each stream
};

mx::array decode(const LayerCodecPtr& codec, const DecodeCall& call, const mx::array& records, mx::Dtype type,
                 const std::optional<mx::array>& exact);

}  // namespace tq::mlx_plugin
