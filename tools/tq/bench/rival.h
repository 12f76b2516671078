// ggml's own operators as contestants, on ggml's own threads.
#pragma once

#include <memory>
#include <string>

#include <ggml-cpu.h>

#include "bench/contestant.h"
#include "bench/task.h"

namespace tq::tool {

// ggml's threads, started once.
class GgmlThreads {
  public:
    GgmlThreads(ggml_backend_dev_t cpu, int n);
    ~GgmlThreads();
    GgmlThreads(const GgmlThreads&) = delete;
    GgmlThreads& operator=(const GgmlThreads&) = delete;

    const ggml_backend_t backend;

  private:
    ggml_threadpool_t pool_ = nullptr;
};

// "f16", "q8_0" or "q4_0"; error: kInvalidArgument naming what is allowed.
Result<ggml_type> rival_type(const std::string& name);

// Why llama.cpp could not use this type for the shape, or "".
std::string rival_reason(const HeadShape& shape, ggml_type type);

size_t rival_layer_bytes(const Task& task, ggml_type type);

// FLASH_ATTN_EXT on K and V of this type. task and threads must live as long.
std::unique_ptr<Contestant> ggml_attention(const Task& task, ggml_type type, GgmlThreads& threads);

// SET_ROWS of task.batch rows into K and V of this type.
std::unique_ptr<Contestant> ggml_encode(const Task& task, ggml_type type, GgmlThreads& threads);

}  // namespace tq::tool
