// The center of a block's keys in a slice: chosen, stored, and what the block's other cells hold encoded again around
// it (cpu/codec/centers.cpp). Every function is called by all threads of a threadgroup.
#pragma once

#include "turboquant/metal/center_choice.h"
#include "turboquant/metal/encode.h"
#include "turboquant/metal/slice_writer.h"

namespace tq {

struct BlockCenter {
    SliceWriter writer;
    Encoder encoder;            // of centers
    threadgroup float* values;  // [n_dims] of the slice: the current center
    threadgroup float* moved;   // [n_dims]: what the last choice has changed it by, negated
    threadgroup uchar* live;    // [kBlockCells]
    threadgroup int* changed;   // [SIMD group]
    uint simd, lane;

    int thread_index() const { return int(simd * 32 + lane); }
    int threads() const { return 32 * writer.simd_groups; }
    // Threads read of a record what others have written.
    static metal::mem_flags everything() { return metal::mem_flags::mem_threadgroup | metal::mem_flags::mem_device; }

    bool is_chosen(CenteredRecord own) const {
        return own.center_scales()[writer.first_dim / group_dims(Side::kKey)] != 0;
    }

    // Of block `block` of the sequence. from: the record of the block before; of block 0 its own.
    void choose(device uchar* record, CenteredRecord own, CenteredRecord from, int64_t block) const {
        for (int i = thread_index(); i < kBlockCells; i += threads())
            live[i] = uchar(from.is_live(writer.first_dim, writer.n_dims, i) ? 1 : 0);
        threadgroup_barrier(everything());
        for (int i = thread_index(); i < writer.n_dims; i += threads()) {
            writer.values[i] = block > 0 ? mean_of_dim(from, block - 1, writer.first_dim + i, live) : estimate(from, i);
            moved[i] = own.center(writer.first_dim + i);
        }
        threadgroup_barrier(everything());
        const Encoder of_center = encoder;  // in the thread's own memory, wherever this object is
        if (simd == 0) writer.encode(of_center, simd, lane);
        threadgroup_barrier(everything());
        store(record + offset_of_center(bits_of(own.codes), own.row_steps));
        threadgroup_barrier(everything());
    }

    // After a choice: encodes again what the block's cells hold, but for cells [begin, end), which are about to be
    // written, and those before first_centered.
    template <class AnyEncoder>
    void move_cells(thread const AnyEncoder& cell_encoder, device uchar* record, CenteredRecord own, int begin, int end,
                    int first_centered) const {
        if (!has_changed(own, begin, end, first_centered)) return;
        for (int i = 0; i < kBlockCells; ++i) {
            if (live[i] == 0) continue;
            if (simd == 0) {
                for (int d = int(lane); d < writer.n_dims; d += 32)
                    writer.values[d] = own.difference(writer.first_dim + d, i) + moved[d];
                writer.encode(cell_encoder, simd, lane);
            }
            threadgroup_barrier(everything());
            writer.store(record, i, 1, simd, lane);
            threadgroup_barrier(everything());
        }
    }

    void load(CenteredRecord own) const {
        for (int i = thread_index(); i < writer.n_dims; i += threads()) values[i] = own.center(writer.first_dim + i);
        threadgroup_barrier(everything());
    }

  private:
    float estimate(CenteredRecord record, int i) const {
        if (live[1] == 0) return 0;
        const int dim = writer.first_dim + i, begin = dim / group_dims(Side::kKey) * group_dims(Side::kKey);
        return estimate_of_dim(record, dim, begin,
                               metal::min(record.row_steps * kStepDims - begin, group_dims(Side::kKey)));
    }

    // The codes that SIMD group 0 has made, and scales: 0 would say that none is chosen, and 1 is next to nothing.
    void store(device uchar* center) const {
        device uchar* scales = center + writer.row_steps * kStepDims * kCenterBits / 8;
        for (int i = thread_index(); i < writer.n_dims / 2; i += threads()) {
            const int low = i / 4 * 8 + i % 4;
            center[writer.first_dim / 2 + i] = uchar(writer.codes[low] | writer.codes[low + 4] << kCenterBits);
        }
        for (int g = thread_index(); g < writer.groups(); g += threads())
            scales[writer.first_dim / group_dims(Side::kKey) + g] = metal::max(writer.scales[g], uchar(1));
    }

    // Says whether the center is another than before, and finds by what, and which cells keep what they hold.
    bool has_changed(CenteredRecord own, int begin, int end, int first_centered) const {
        bool differs = false;
        for (int i = thread_index(); i < writer.n_dims; i += threads()) {
            const float now = own.center(writer.first_dim + i);
            differs = differs || bits_of_float(now) != bits_of_float(moved[i]);
            moved[i] -= now;
        }
        for (int i = thread_index(); i < kBlockCells; i += threads()) {
            const bool kept = (i < begin || i >= end) && i >= first_centered;
            live[i] = uchar(kept && own.is_live(writer.first_dim, writer.n_dims, i) ? 1 : 0);
        }
        const bool any = metal::simd_any(differs);
        if (lane == 0) changed[simd] = any ? 1 : 0;
        threadgroup_barrier(everything());
        bool in_some_group = false;
        for (int i = 0; i < writer.simd_groups; ++i) in_some_group = in_some_group || changed[i] != 0;
        return in_some_group;
    }
};

}  // namespace tq
