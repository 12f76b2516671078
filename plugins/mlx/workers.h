// Threads for the CPU's share of a graph node. MLX runs a node's CPU work on one thread of its stream; the items of a
// node are shared out among these.
#pragma once

#include <cstdint>
#include <functional>

namespace tq::mlx_plugin {

// TURBOQUANT_THREADS, or as many as the machine runs at once.
int n_workers();

// Calls item(i, thread) for every i in [0, n), thread in [0, n_workers()), and returns when all are done. Calls of one
// `thread` never overlap. Several callers may do this at the same time.
void run_items(int64_t n, const std::function<void(int64_t item, int thread)>& item);

}  // namespace tq::mlx_plugin
