// Segments: runs of blocks of cells that one thread block attends to, and whose result is merged with the others'.
// Their borders depend on the cell alone, never on the batch or the length, so that a row's bits do not either.
//
// 64 segments of 1024 cells each, then 32 for every doubling of the context: a million cells have 192.
#pragma once

#include "turboquant/format/coding.h"

namespace tq::cuda {

TQ_FORMAT_TABLE int kSegmentBlocks = 16;
TQ_FORMAT_TABLE int kEvenSegments = 64;  // so many of kSegmentBlocks each
TQ_FORMAT_TABLE int kEvenBlocks = kEvenSegments * kSegmentBlocks;

TQ_FORMAT_FN int64_t first_block_of_segment(int segment) {
    if (segment <= kEvenSegments) return int64_t{segment} * kSegmentBlocks;
    constexpr int kPerDoubling = kEvenSegments / 2;
    const int doublings = (segment - kEvenSegments) / kPerDoubling, rest = (segment - kEvenSegments) % kPerDoubling;
    return (int64_t{kEvenBlocks} + int64_t{rest} * 2 * kSegmentBlocks) << doublings;
}

TQ_FORMAT_FN int segment_of_block(int64_t block) {
    if (block < kEvenBlocks) return static_cast<int>(block) / kSegmentBlocks;
    int doublings = 0;
    while (block >> (doublings + 1) >= kEvenBlocks) ++doublings;
    const int64_t rest = (block >> doublings) - kEvenBlocks;
    return kEvenSegments + doublings * (kEvenSegments / 2) + static_cast<int>(rest) / (2 * kSegmentBlocks);
}

// Segments of n_cells cells.
TQ_FORMAT_FN int n_segments(int64_t n_cells) {
    return n_cells <= 0 ? 0 : segment_of_block((n_cells - 1) / kBlockCells) + 1;
}

}  // namespace tq::cuda
