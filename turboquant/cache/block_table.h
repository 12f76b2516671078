// Which record each block of each sequence has. Sequences may share records: a fork takes a prefix as it is, and a
// block is copied only when one of its owners writes to it. This knows no bytes: what is to be copied is returned as a
// list, so that any engine can do it.
#pragma once

#include <cstdint>
#include <vector>

#include "turboquant/base/status.h"

namespace tq {

class BlockTable {
  public:
    // Record 0 holds nothing: it stays zero, and all blocks without a record of their own have it.
    static constexpr int32_t kEmpty = 0;

    // n_records: record 0 among them.
    BlockTable(int64_t n_stream, int64_t blocks_per_stream, int64_t n_records);

    // [n_stream][blocks_per_stream] records, as PackedTensor::block_table wants them.
    const int32_t* data() const { return records_.data(); }
    int32_t record(int64_t stream, int64_t block) const { return records_[stream * blocks_per_stream_ + block]; }
    int64_t n_records() const { return static_cast<int64_t>(owners_.size()); }
    int64_t n_free() const { return static_cast<int64_t>(free_.size()); }

    // Blocks of a stream whose records no other stream has.
    int64_t n_owned(int64_t stream) const;

    // A record that begins as a copy of another (of record 0: as zeros), in every tensor of the cache.
    struct Copy {
        int32_t from, to;
    };
    // Gives blocks [first, first + n) of a stream records that no other stream has, so that they can be written to.
    // Appends the copies to make first. Error: kOutOfMemory, nothing changed.
    Status own(int64_t stream, int64_t first, int64_t n, std::vector<Copy>& copies);

    // Blocks [0, n) of a stream become those of another; its others are released.
    void share(int64_t from_stream, int64_t to_stream, int64_t n);

    // Blocks from `first` on have no record any more.
    void release(int64_t stream, int64_t first);

    // There are so many records from now on, not fewer than before.
    void grow(int64_t n_records);

  private:
    int32_t& entry(int64_t stream, int64_t block) { return records_[stream * blocks_per_stream_ + block]; }
    bool is_owned(int32_t record) const { return record != kEmpty && owners_[record] == 1; }
    void drop(int32_t& entry);

    int64_t blocks_per_stream_;
    std::vector<int32_t> records_;
    std::vector<int32_t> owners_;  // streams that have the record; of record 0 meaningless
    std::vector<int32_t> free_;    // the next to be given away last
};

}  // namespace tq
