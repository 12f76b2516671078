#include "turboquant/cache/exact_rows.h"

#include <algorithm>
#include <cstring>

#include "turboquant/base/half.h"

namespace tq {
namespace {

constexpr float kLargestHalf = 65504;

uint16_t to_half(float x) {
    return x == x ? float_to_half(std::clamp(x, -kLargestHalf, kLargestHalf)) : uint16_t{0};
}

}  // namespace

size_t ExactRows::bytes(const ExactCells& cells, int64_t n_embd, int64_t n_cells, int64_t n_stream) {
    return sizeof(uint16_t) * static_cast<size_t>(cells.fitted(n_cells).n_slots() * n_embd * n_stream);
}

ExactRows::ExactRows(const ExactCells& cells, int64_t n_embd, int64_t n_cells, int64_t n_stream, uint16_t* slots)
    : own_(std::make_unique<ExactIndex>(cells, n_cells, n_stream)),
      index_(own_.get()),
      n_embd_(n_embd),
      slots_(slots),
      staging_(n_stream, nullptr) {}

ExactRows::ExactRows(ExactIndex& index, int64_t n_embd, uint16_t* slots)
    : index_(&index), n_embd_(n_embd), slots_(slots), staging_(index.n_stream(), nullptr) {}

void ExactRows::reserve(int64_t n) {
    rows_.reserve(n);
    if (own_) own_->reserve(n);
}

void ExactRows::begin(std::span<const int64_t> cells, uint16_t* staging) {
    index_->begin(cells);
    follow(index_->moves());
    stage(cells, staging);
}

void ExactRows::stage(std::span<const int64_t> cells, uint16_t* staging) {
    rows_.assign(cells.size(), nullptr);
    for (size_t i = 0; i < cells.size(); ++i) {
        const int64_t stream = cells[i] / index_->n_cells(), row = static_cast<int64_t>(i);
        if (cells[i] < 0 || stream >= index_->n_stream()) continue;
        staging_[stream] = staging;
        const ExactPlace place = index_->place(row);
        if (!place.none()) rows_[i] = place.is_slot() ? slot_at(stream, place.slot()) : staging + row * n_embd_;
    }
}

void ExactRows::follow(std::span<const ExactIndex::Move> moves) {
    for (const auto& [stream, row, slot] : moves)
        std::memcpy(slot_at(stream, slot), staging_[stream] + row * n_embd_, sizeof(uint16_t) * n_embd_);
}

uint16_t* ExactRows::adopt(int64_t cell) {
    const ExactPlace place = index_->adopt(cell);
    follow(index_->moves());
    return place.is_slot() ? slot_at(cell / index_->n_cells(), place.slot()) : nullptr;
}

void ExactRows::store(int64_t i, const float* row) {
    if (rows_[i]) convert(row, n_embd_, rows_[i]);
}

void ExactRows::convert(const float* row, int64_t n, uint16_t* halves) {
    for (int64_t d = 0; d < n; ++d) halves[d] = to_half(row[d]);
}

uint16_t* ExactRows::find(int64_t cell) const {
    const ExactPlace place = index_->find(cell);
    return place.is_slot() ? slot_at(cell / index_->n_cells(), place.slot()) : nullptr;
}

ExactRows::Kept ExactRows::kept(int64_t stream, const ExactIndex::Kept& kept) const {
    if (kept.place.none()) return {kept.cell, nullptr};
    if (kept.place.is_slot()) return {kept.cell, slot_at(stream, kept.place.slot())};
    return {kept.cell, staging_[stream] + kept.place.row() * n_embd_};
}

}  // namespace tq
