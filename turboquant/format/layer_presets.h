// A preset for most layers, others for some, and which cells are kept exact:
// "k4ctv4t+0:k8cv8+22-23:k5ctv5t+sink4+recent64".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "turboquant/format/exact_cells.h"
#include "turboquant/format/preset.h"

namespace tq {

inline constexpr int kMaxLayer = 9999;
inline constexpr const char* kDefaultPresets = "fast";  // what a user gets who names none

class LayerPresets {
  public:
    LayerPresets(const Preset& base = {}) : base_(base) {}  // NOLINT: every preset is one for all layers

    // A preset (a name has exact cells too), and behind it any number of +LAYER:PRESET and +FIRST-LAST:PRESET, +sinkN
    // and +recentN (or +sinks=N, +window=N); the last one holds where there are several for a layer or of a kind.
    // Error: kInvalidArgument, saying what is valid.
    static Result<LayerPresets> parse(std::string_view text);

    const Preset& base() const { return base_; }
    const Preset& of(int layer) const;
    const ExactCells& exact() const { return exact_; }  // the same for all layers
    bool is_uniform() const { return exceptions_.empty(); }
    std::string name() const;  // compact; parse() takes it

    // In words, for people: "k4v4 centered, sinks=1 window=15; layer 0: k8v8 centered".
    std::string describe() const;
    // What to call it: the name that stands for it ("fast"), or else name().
    std::string label() const;
    // The label, and what it means where it does not say so itself: "fast (k4v4 centered, sinks=1 window=15)".
    std::string title() const;

  private:
    struct Exception {
        int first, last;
        Preset preset;
        std::string layers() const;  // "0", "22-23"
    };
    static Result<Exception> parse_exception(std::string_view text);
    Status add(std::string_view text);

    Preset base_;
    std::vector<Exception> exceptions_;
    ExactCells exact_;
};

}  // namespace tq
