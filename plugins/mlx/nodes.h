// The graph nodes behind append(), attend() and decode(). Their CPU side lies beside those functions; the GPU side in
// nodes_metal.cpp, or nodes_no_gpu.cpp in a build without one.
#pragma once

#include <string>
#include <vector>

#include <mlx/primitives.h>

#include "append.h"
#include "attend.h"
#include "decode.h"
#include "turboquant/attention/plan.h"

namespace tq::mlx_plugin {

// What they have in common: they neither have gradients nor map over a batch axis, and say so.
class Node : public mx::Primitive {
  public:
    Node(mx::Stream stream, const char* name, LayerCodecPtr codec)
        : Primitive(stream), codec_(std::move(codec)), name_(name) {}
    const char* name() const override { return name_; }
    std::vector<mx::array> jvp(const std::vector<mx::array>&, const std::vector<mx::array>&,
                               const std::vector<int>&) override;
    std::vector<mx::array> vjp(const std::vector<mx::array>&, const std::vector<mx::array>&, const std::vector<int>&,
                               const std::vector<mx::array>&) override;
    std::pair<std::vector<mx::array>, std::vector<int>> vmap(const std::vector<mx::array>&,
                                                             const std::vector<int>&) override;

  protected:
    const LayerCodecPtr codec_;

  private:
    const char* name_;
};

// Inputs: records, rows; on a CPU exact rows, if there are any (on a GPU MLX's own operations keep them). Outputs:
// records, exact rows.
class Append : public Node {
  public:
    Append(mx::Stream stream, LayerCodecPtr codec, AppendCall call)
        : Node(stream, "turboquant.Append", std::move(codec)), call_(std::move(call)) {}

    void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
    void eval_gpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;

    // Records before and after, as bytes; from_bytes and to_bytes of each stream.
    struct Records {
        bool in_place = false;
        const uint8_t* from = nullptr;
        uint8_t* to = nullptr;
        size_t block_bytes = 0, from_bytes = 0, to_bytes = 0;
    };

  private:
    bool takes_over(const mx::array& records) const;
    Records records_of(const mx::array& records, mx::array& out) const;

    AppendCall call_;
};

class Attend : public Node {
  public:
    // Which of the inputs is what; those that a call has not got are missing from the list.
    struct Order {
        size_t q = 0, keys = 1, values = 2;
        // 0: none. `exact` is the first of four on a CPU (ExactSide of keys, of values), of two on a GPU
        // (gather_exact).
        size_t mask = 0, sinks = 0, exact = 0;
    };

    Attend(mx::Stream stream, LayerCodecPtr codec, AttendCall call, AttentionPlan plan, Order order)
        : Node(stream, "turboquant.Attend", std::move(codec)),
          call_(std::move(call)),
          plan_(std::move(plan)),
          order_(order) {}

    void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
    void eval_gpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;

  private:
    AttentionInputs library_inputs(const std::vector<mx::array>& inputs, mx::array& out) const;

    AttendCall call_;
    AttentionPlan plan_;
    Order order_;
};

class Decode : public Node {
  public:
    Decode(mx::Stream stream, LayerCodecPtr codec, DecodeCall call)
        : Node(stream, "turboquant.Decode", std::move(codec)), call_(std::move(call)) {}

    void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
    void eval_gpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;

  private:
    DecodeCall call_;
};

// Why a GPU cannot store or decode the codec's rows, or attend to them with such heads; "" if it can.
std::string gpu_unsupported_reason(const LayerCodec& codec);
std::string gpu_unsupported_reason(const LayerCodec& codec, const AttentionShape& shape);

}  // namespace tq::mlx_plugin
