// Presets: how many bits a key value and a value value get.
#pragma once

#include <string>
#include <string_view>

#include "turboquant/base/status.h"

namespace tq {

enum class Side { kKey, kValue };

inline constexpr int kMinBits = 2;
inline constexpr int kMaxBits = 8;

struct Preset {
    int key_bits = 4;
    int value_bits = 4;

    int bits(Side side) const { return side == Side::kKey ? key_bits : value_bits; }
    std::string name() const { return "k" + std::to_string(key_bits) + "v" + std::to_string(value_bits); }

    // "k4v4", "k5v3", ..., or a number of bits "2".."8", or a fraction "2.5".."7.5": K gets the floor, V the ceiling.
    // Error: kInvalidArgument, listing what is valid.
    static Result<Preset> parse(std::string_view text);
};

inline constexpr const char* kDefaultPreset = "k4v4";

}  // namespace tq
