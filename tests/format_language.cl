// The format's headers as C++ for OpenCL, the nearest relative of Metal's language that has a compiler on every machine.
// It is compiled, not run: constants are compared by the compiler.
#include "turboquant/attention/super_chunk.h"
#include "turboquant/attention/visible_cells.h"
#include "turboquant/cpu/tile_offsets.h"
#include "turboquant/format/coding.h"
#include "turboquant/format/levels.h"
#include "turboquant/format/rotation_signs.h"
#include "turboquant/format/scale_search.h"
#include "turboquant/format/trellis_path.h"

static_assert(tq::group_dims(tq::Side::kKey) == 32 && tq::group_dims(tq::Side::kValue) == 64, "groups");
static_assert(tq::is_centered(tq::Coding::kCenteredTrellis) && !tq::is_trellis(tq::Coding::kCentered), "codings");
static_assert(tq::scalar_level(4, 15) == 127 && tq::scalar_level(4, 0) == -127 && tq::scalar_level(8, 3) == -125, "levels");
static_assert(tq::sorted_trellis_level(4, 16) == 2 && tq::sorted_trellis_level(4, 0) == -127, "levels of trellis codes");
static_assert(tq::scale_from_code(0x8a) == 0.078125f && tq::scale_from_code(7) == 7 * 0x1p-23f, "scales");
static_assert(tq::scale_window(5.0498f, 9.75f, 127 / 2.7325896f).low == 136, "the search of docs/codec.md's example");
static_assert(tq::offset_of_tile<uint>(tq::Side::kKey, 4, 14u) == 7616, "tiles");
static_assert(tq::visible_cells(true, 8, 100, 2, 0).first == 91 && tq::super_chunk_of(65536 + 1024) == 129, "cells");
static_assert(tq::trellis_subset(tq::next_trellis_state(0, 1), 1) == 0, "paths");

// One key value from its codes, as a kernel would decode it.
kernel void decode(global const uchar* codes, global const uchar* scales, global float* values, int bits) {
    const size_t i = get_global_id(0);
    const float sign = tq::rotation_sign_is_negative(64, 0, static_cast<int>(i)) ? -1.0f : 1.0f;
    values[i] = sign * tq::scale_from_code(scales[i / 32]) * tq::scalar_level(bits, codes[i]);
}
