#include "nodes.h"

namespace tq::mlx_plugin {
namespace {

constexpr const char* kReason = "this build of turboquant_cpp has no GPU: its MLX has no Metal";

}  // namespace

std::string gpu_unsupported_reason(const LayerCodec&) {
    return kReason;
}

std::string gpu_unsupported_reason(const LayerCodec&, const AttentionShape&) {
    return kReason;
}

void Append::eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) {
    throw std::runtime_error(kReason);
}

void Attend::eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) {
    throw std::runtime_error(kReason);
}

void Decode::eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) {
    throw std::runtime_error(kReason);
}

}  // namespace tq::mlx_plugin
