// Presets: how many bits a key value and a value value get, and how they are coded.
#pragma once

#include <string>
#include <string_view>

#include "turboquant/base/status.h"
#include "turboquant/codec/exact_cells.h"

namespace tq {

enum class Side { kKey, kValue };

inline constexpr int kMinBits = 2;
inline constexpr int kMaxBits = 8;
inline constexpr int kMinTrellisBits = 3;
inline constexpr int kMaxTrellisBits = 5;

struct Preset {
    int key_bits = 4;
    int value_bits = 4;
    bool key_trellis = false;  // trellis codes (codec/trellis.h) instead of one code for each value
    bool value_trellis = false;
    bool key_centered = false;  // keys around a center of their block (codec/layout.h)

    int bits(Side side) const { return side == Side::kKey ? key_bits : value_bits; }
    bool trellis(Side side) const { return side == Side::kKey ? key_trellis : value_trellis; }
    bool centered(Side side) const { return side == Side::kKey && key_centered; }
    std::string name() const;

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

}  // namespace tq
