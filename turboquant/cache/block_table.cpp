#include "turboquant/cache/block_table.h"

#include <algorithm>
#include <string>

namespace tq {

BlockTable::BlockTable(int64_t n_stream, int64_t blocks_per_stream, int64_t n_records)
    : blocks_per_stream_(blocks_per_stream), records_(n_stream * blocks_per_stream, kEmpty), owners_(1, 0) {
    grow(n_records);
}

void BlockTable::grow(int64_t n_records) {
    const int64_t before = this->n_records();
    if (n_records <= before) return;
    owners_.resize(n_records, 0);
    free_.reserve(n_records);
    // New records are given away after those that are free already, the lowest first: neighbours stay neighbours.
    std::vector<int32_t> fresh;
    for (int64_t record = n_records - 1; record >= before; --record) fresh.push_back(static_cast<int32_t>(record));
    free_.insert(free_.begin(), fresh.begin(), fresh.end());
}

int64_t BlockTable::n_owned(int64_t stream) const {
    const auto first = records_.begin() + stream * blocks_per_stream_;
    return std::count_if(first, first + blocks_per_stream_, [this](int32_t record) { return is_owned(record); });
}

Status BlockTable::own(int64_t stream, int64_t first, int64_t n, std::vector<Copy>& copies) {
    int64_t wanted = 0;
    for (int64_t block = first; block < first + n; ++block) wanted += !is_owned(record(stream, block));
    if (wanted > n_free()) {
        return Status(Error::kOutOfMemory, "no block records left: " + std::to_string(wanted) + " wanted, " +
                                               std::to_string(n_free()) + " of " + std::to_string(n_records() - 1) +
                                               " free");
    }
    for (int64_t block = first; block < first + n; ++block) {
        int32_t& at = entry(stream, block);
        if (is_owned(at)) continue;
        const Copy copy{at, free_.back()};
        free_.pop_back();
        copies.push_back(copy);
        drop(at);
        at = copy.to;
        owners_[copy.to] = 1;
    }
    return {};
}

void BlockTable::share(int64_t from_stream, int64_t to_stream, int64_t n) {
    if (from_stream == to_stream) return;
    release(to_stream, 0);
    for (int64_t block = 0; block < n; ++block) {
        const int32_t shared = record(from_stream, block);
        entry(to_stream, block) = shared;
        if (shared != kEmpty) ++owners_[shared];
    }
}

void BlockTable::release(int64_t stream, int64_t first) {
    for (int64_t block = blocks_per_stream_ - 1; block >= first; --block) drop(entry(stream, block));
}

void BlockTable::drop(int32_t& entry) {
    if (entry != kEmpty && --owners_[entry] == 0) free_.push_back(entry);
    entry = kEmpty;
}

}  // namespace tq
