// Segments: blocks of cells whose result one thread block works out, to be merged with the others' in the order of
// cells.
#pragma once

#include "turboquant/format/coding.h"

namespace tq::cuda {

TQ_FORMAT_TABLE int kSegmentBlocks = 16;
TQ_FORMAT_TABLE int kEvenSegments = 64;  // so many of kSegmentBlocks each
TQ_FORMAT_TABLE int kEvenBlocks = kEvenSegments * kSegmentBlocks;

// Either segments of so many blocks each, as a plan finds best; or (0) such whose borders depend on the cell alone,
// never on the batch or the length, so that a row's bits do not either: 64 of 1024 cells, then 32 for every doubling of
// the context. A million cells have 192.
struct Segments {
    int even_blocks;

    TQ_FORMAT_FN int64_t first_block(int segment) const {
        if (even_blocks > 0) return int64_t{segment} * even_blocks;
        if (segment <= kEvenSegments) return int64_t{segment} * kSegmentBlocks;
        constexpr int kPerDoubling = kEvenSegments / 2;
        const int doublings = (segment - kEvenSegments) / kPerDoubling, rest = (segment - kEvenSegments) % kPerDoubling;
        return (int64_t{kEvenBlocks} + int64_t{rest} * 2 * kSegmentBlocks) << doublings;
    }
    // block: below 2^31.
    TQ_FORMAT_FN int of_block(int64_t block) const {
        const auto b = static_cast<uint32_t>(block);
        if (even_blocks > 0) return static_cast<int>(b / static_cast<uint32_t>(even_blocks));
        if (b < kEvenBlocks) return static_cast<int>(b) / kSegmentBlocks;
        int doublings = 0;
        while (b >> (doublings + 1) >= kEvenBlocks) ++doublings;
        const uint32_t rest = (b >> doublings) - kEvenBlocks;
        return kEvenSegments + doublings * (kEvenSegments / 2) + static_cast<int>(rest) / (2 * kSegmentBlocks);
    }
    // Of n_cells cells.
    TQ_FORMAT_FN int count(int64_t n_cells) const {
        return n_cells <= 0 ? 0 : of_block((n_cells - 1) / kBlockCells) + 1;
    }
};

}  // namespace tq::cuda
