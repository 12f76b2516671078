#include "nodes.h"

namespace tq::mlx_plugin {

std::vector<mx::array> Node::jvp(const std::vector<mx::array>&, const std::vector<mx::array>&,
                                 const std::vector<int>&) {
    throw std::runtime_error(std::string(name_) + " has no derivative: packed codes are not differentiable");
}

std::vector<mx::array> Node::vjp(const std::vector<mx::array>&, const std::vector<mx::array>&, const std::vector<int>&,
                                 const std::vector<mx::array>&) {
    throw std::runtime_error(std::string(name_) +
                             " has no gradient: packed codes are not differentiable; train with mlx-lm's own cache");
}

std::pair<std::vector<mx::array>, std::vector<int>> Node::vmap(const std::vector<mx::array>&, const std::vector<int>&) {
    throw std::runtime_error(std::string(name_) + " has no vmap: give all sequences at once, it takes a batch of them");
}

}  // namespace tq::mlx_plugin
