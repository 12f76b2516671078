// Presets: how many bits a key value and a value value get, and how they are coded.
#pragma once

#include <string>
#include <string_view>

#include "turboquant/base/status.h"
#include "turboquant/format/coding.h"
#include "turboquant/format/exact_cells.h"

namespace tq {

struct Preset {
    int key_bits = 4;
    int value_bits = 4;
    Coding key_coding = Coding::kScalar;
    Coding value_coding = Coding::kScalar;

    int bits(Side side) const { return side == Side::kKey ? key_bits : value_bits; }
    Coding coding(Side side) const { return side == Side::kKey ? key_coding : value_coding; }
    bool operator==(const Preset&) const = default;
    std::string name() const;

    // In words, for people: "k4v4", "k4v3 centered trellis" (k4ctv3t). The words say how K and V are coded, "centered"
    // only K; where one side alone has trellis codes each has words of its own: "k4 centered trellis, v3" (k4ctv3).
    std::string describe() const;

    // "k4v4", "k5v3", ..., "k4cv4" (c: centered keys), "k4tv3t" (t: trellis codes, 3 to 5 bits), "k4ctv4t", or a number
    // of bits "2".."8", or a fraction "2.5".."7.5": K gets the floor, V the ceiling; or one of kPresetNames, of which
    // exact_cells_of_name() gives the rest.
    // Error: kInvalidArgument, listing what is valid.
    static Result<Preset> parse(std::string_view text);
};

// The names say what they give; docs/quality.md has the measurements behind the choice.
inline constexpr const char* kPresetNames[] = {"tiny", "small", "fast", "balanced", "quality", "lossless"};

// The exact cells that a name stands for, beside its codes; of any other text none.
ExactCells exact_cells_of_name(std::string_view text);

// The name that stands for these codes and exact cells; "" if none does.
std::string_view alias_of(const Preset& codes, const ExactCells& exact);

}  // namespace tq
