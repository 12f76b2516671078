// The blocks of a warp on their way to shared memory, keys and values in turn, each to the next slot of a ring with a
// barrier that its bulk copies arrive at.
#pragma once

#include "turboquant/cuda/attend_traits.cuh"
#include "turboquant/cuda/ptx.cuh"
#include "turboquant/cuda/tile_work.cuh"

namespace tq::cuda {

template <class Traits>
class BlockRing {
  public:
    // Those of the thread block's blocks whose number modulo kAttendWarps is the warp's, whatever the first.
    __device__ BlockRing(const AttendCall& call, const TileWork& work, unsigned char* stage, uint64_t* barriers)
        : key_piece_(call.in.k.records, call.key_order, call.key_block_bytes, work.head_kv),
          value_piece_(call.in.v.records, call.value_order, call.value_block_bytes, work.head_kv),
          call_(call),
          work_(work),
          stage_(stage),
          barriers_(barriers) {
        const int warp = static_cast<int>(threadIdx.x) / 32;
        first_ = work.begin + ((warp - work.begin) & (kAttendWarps - 1));
        n_ = first_ < work.end ? (work.end - first_ + kAttendWarps - 1) / kAttendWarps : 0;
    }

    __device__ int size() const { return n_; }
    __device__ int block(int i) const { return first_ + i * kAttendWarps; }

    // All lanes of the warp call these: start, then for each block keys, keys_done, values, values_done.
    __device__ void start() {
        if (threadIdx.x % 32 == 0) {
            for (int slot = 0; slot < kSlots; ++slot) barrier_init(barriers_ + slot);
            barrier_init_done();
        }
        fetch_keys(0, 0);
        fetch_values(0, 1);
        if constexpr (kSlots == 3) fetch_keys(1, 2);
    }
    __device__ const uint8_t* keys() const { return wait(); }
    __device__ const uint8_t* values() const { return wait(); }
    __device__ void keys_done(int i) {
        if constexpr (kSlots == 3)
            fetch_values(i + 1, slot_);
        else
            fetch_keys(i + 1, slot_);
        advance();
    }
    __device__ void values_done(int i) {
        if constexpr (kSlots == 3)
            fetch_keys(i + 2, slot_);
        else
            fetch_values(i + 1, slot_);
        advance();
    }

  private:
    static constexpr int kSlots = Traits::kSlots;

    __device__ const uint8_t* wait() const {
        barrier_wait(barriers_ + slot_, phase_);
        return stage_ + slot_ * Traits::kSlotBytes;
    }
    __device__ void advance() {
        if (++slot_ < kSlots) return;
        slot_ = 0;
        phase_ ^= 1;
    }
    // What the slot held has been read by all lanes. Fetches come in the order of blocks.
    __device__ void fetch_keys(int i, int slot) {
        __syncwarp();
        if (i >= n_) return;
        if (i % 32 == 0) read_table(i);
        fetch<Traits::kKeyCodes, Traits::kKeyBytes, Traits::kWholeKeyGroups>(
            key_piece_, __shfl_sync(0xffffffffu, key_record_, i % 32), slot);
    }
    __device__ void fetch_values(int i, int slot) {
        __syncwarp();
        if (i >= n_) return;
        fetch<Traits::kValueCodes, Traits::kValueBytes, Traits::kWholeValueGroups>(
            value_piece_, __shfl_sync(0xffffffffu, value_record_, i % 32), slot);
    }

    // Records of blocks i + lane: the table's entries are there before the copies that need them.
    __device__ void read_table(int i) {
        const int lane = threadIdx.x % 32;
        if (i + lane >= n_) return;
        key_record_ = record_of(call_.in.k, block(i + lane));
        value_record_ = record_of(call_.in.v, block(i + lane));
    }
    __device__ int32_t record_of(const DeviceRecords& r, int block) const {
        const int64_t at = work_.stream * r.blocks_of_stream + block;
        return r.block_table ? r.block_table[at] : static_cast<int32_t>(at);
    }

    // What a warp reads of every record: the head's codes and, behind them or behind all heads' codes, its scales.
    struct Piece {
        const uint8_t* codes;  // in record 0
        int64_t block_bytes;
        int scales_offset;      // from the codes, where heads are not whole groups
        uint32_t scales_bytes;  // there

        __device__ Piece(const uint8_t* records, const RecordOrder& order, int64_t block_bytes, int head)
            : codes(records + order.codes_offset(head)), block_bytes(block_bytes) {
            const int width = group_dims(order.side), first = head * Traits::kHeadDim / width;
            const int last = ((head + 1) * Traits::kHeadDim - 1) / width;
            scales_offset = order.scales_offset(first) - order.codes_offset(head);
            scales_bytes = static_cast<uint32_t>(last - first + 1) * kBlockCells;
        }
    };

    template <int kCodes, int kBytes, bool kWholeGroups>
    __device__ void fetch(const Piece& piece, int32_t record, int slot) const {
        if (threadIdx.x % 32 != 0) return;
        unsigned char* to = stage_ + slot * Traits::kSlotBytes;
        uint64_t* barrier = barriers_ + slot;
        const uint8_t* codes = piece.codes + record * piece.block_bytes;
        if constexpr (kWholeGroups) {
            barrier_expect(barrier, kBytes);
            copy_bulk(to, codes, kBytes, barrier);
        } else {
            barrier_expect(barrier, kCodes + piece.scales_bytes);
            copy_bulk(to, codes, kCodes, barrier);
            copy_bulk(to + kCodes, codes + piece.scales_offset, piece.scales_bytes, barrier);
        }
    }

    const Piece key_piece_, value_piece_;
    const AttendCall& call_;
    const TileWork& work_;
    unsigned char* stage_;
    uint64_t* barriers_;
    int first_, n_;
    int slot_ = 0;  // of what is read next
    uint32_t phase_ = 0;
    int32_t key_record_ = 0, value_record_ = 0;
};

}  // namespace tq::cuda
