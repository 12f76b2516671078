// A byte for every magnitude 0..127, in the forms in which the lookups of cpu/simd/ops_*.h want it.
#pragma once

#include <array>
#include <cstdint>

namespace tq {

inline constexpr int kMagnitudes = 128;
inline constexpr int kMagnitudeRun = 8;  // magnitudes that share an entry of the stepped form

struct MagnitudeTable {
    alignas(64) std::array<uint8_t, kMagnitudes> byte{};
    // byte[i] ^ byte[i - 16]: all entries i, i - 16, i - 32, ... together are byte[i].
    alignas(64) std::array<uint8_t, kMagnitudes> change{};
    // The stepped form, where no run of 8 changes more than once (2 to 4 bits): byte[i] is above[i / 8] for
    // i > border[i / 8], else below[i / 8].
    std::array<uint8_t, kMagnitudes / kMagnitudeRun> below{}, above{}, border{};
};

// The other forms of `byte`.
constexpr MagnitudeTable magnitude_table(const std::array<uint8_t, kMagnitudes>& byte) {
    MagnitudeTable table{byte};
    for (int i = 0; i < kMagnitudes; ++i) {
        const int run = i / kMagnitudeRun;
        table.change[i] = i < 16 ? byte[i] : static_cast<uint8_t>(byte[i] ^ byte[i - 16]);
        if (i % kMagnitudeRun == 0) table.below[run] = byte[i];
        if (byte[i] == table.below[run]) table.border[run] = static_cast<uint8_t>(i);
        table.above[run] = byte[i];
    }
    return table;
}

}  // namespace tq
