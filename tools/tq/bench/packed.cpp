#include "bench/packed.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>

#include "bench/memory.h"
#include "turboquant/attention/plan.h"
#include "turboquant/cache/exact_rows.h"
#include "turboquant/cpu/codec/row_codec.h"
#include "turboquant/cpu/engine.h"
#include "turboquant/format/fingerprint.h"

namespace tq::tool {
namespace {

constexpr AttentionPhase kPhases[] = {AttentionPhase::kPrepare, AttentionPhase::kAttend, AttentionPhase::kMerge};

// The exact rows of one layer's keys or values: slots for those that are kept, staging memory for a batch.
struct ExactLayer {
    ExactLayer(const ExactCells& cells, int64_t n_embd, int64_t depth, int64_t batch)
        : slots(ExactRows::bytes(cells, n_embd, depth, 1)),
          staging(sizeof(uint16_t) * static_cast<size_t>(batch * n_embd)),
          rows(cells, n_embd, depth, 1, reinterpret_cast<uint16_t*>(slots.data())) {
        rows.reserve(batch);
    }
    void begin(std::span<const int64_t> cells) { rows.begin(cells, reinterpret_cast<uint16_t*>(staging.data())); }

    Memory slots, staging;
    ExactRows rows;
};

// The keys or the values of all layers.
struct Plane {
    RowCodec codec;
    int64_t n_embd, n_cells;
    int64_t n_layer;
    Memory records;                 // the layers' one after another, as in a buffer of the plugin
    std::vector<ExactLayer> exact;  // exact rows of each layer; empty: the preset keeps none

    const float* row(const std::vector<float>& pool, int64_t cell) const {
        return pool.data() + cell % kPoolRows * n_embd;
    }
    size_t bytes() const { return static_cast<size_t>(blocks_of_cells(n_cells)) * codec.format().block_bytes(); }
    PackedTensor tensor(int64_t layer) const {
        return {&codec, layer_data(layer), blocks_of_cells(n_cells), n_cells, 1};
    }
    uint8_t* layer_data(int64_t layer) const { return records.data() + static_cast<size_t>(layer) * bytes(); }
    ExactRows* exact_rows(int64_t layer) { return exact.empty() ? nullptr : &exact[layer].rows; }
};

int64_t n_embd_of(const Task& task, Side side) {
    return side == Side::kKey ? task.shape.n_embd_k() : task.shape.n_embd_v();
}

Result<Plane> make_plane(const Task& task, Side side, const BenchPreset& preset, Isa isa) {
    const int64_t n_embd = n_embd_of(task, side);
    const Result<RowFormat> format = RowFormat::create(preset.codes, side, n_embd);
    if (!format.ok()) return format.status();
    const int head_dim = side == Side::kKey ? task.shape.head_dim_k : task.shape.head_dim_v;
    Result<RowCodec> codec = RowCodec::create(format.value(), head_dim, isa);
    if (!codec.ok()) return codec.status();
    Plane plane{std::move(codec.value()), n_embd, task.depth, task.n_layer, {}, {}};
    plane.records = Memory(plane.bytes() * static_cast<size_t>(task.n_layer));
    const int64_t staged = std::max(task.batch, preset.exact.fitted(task.depth).n_slots());
    for (int64_t i = 0; i < task.n_layer; ++i) {
        if (preset.exact.any()) plane.exact.emplace_back(preset.exact, n_embd, task.depth, staged);
    }
    return plane;
}

// Encodes cells [first, first + n): this thread's share of them. Cells of one block and slice share bytes, and the
// center of a block depends on the block before: of centered keys a thread has a slice in all blocks, as in the plugin.
void encode_share(const Plane& plane, const std::vector<float>& pool, int64_t first, int64_t n, uint8_t* packed,
                  int thread, int n_threads) {
    const RowCodec& codec = plane.codec;
    for (int64_t cell = first; cell < first + n; ++cell) {
        const int64_t block = codec.format().centered() ? 0 : cell / kBlockCells;
        const int64_t at = cell % kBlockCells, rest = std::min(first + n - cell, kBlockCells - at);
        const uint64_t to_come = ~uint64_t{0} >> (kBlockCells - rest) << at;
        for (int slice = 0; slice < codec.n_slices(); ++slice) {
            if ((block * codec.n_slices() + slice) % n_threads != thread) continue;
            codec.encode_slice(plane.row(pool, cell), Blocks{packed, codec.format().block_bytes()}, cell, slice,
                               to_come);
        }
    }
}

// Announces cells [first, first + n) to the layer and stores their rows.
void keep_exact(Plane& plane, const std::vector<float>& pool, size_t layer, int64_t first, int64_t n) {
    std::vector<int64_t> cells(static_cast<size_t>(n));
    std::iota(cells.begin(), cells.end(), first);
    plane.exact[layer].begin(cells);
    for (int64_t i = 0; i < n; ++i) plane.exact[layer].rows.store(i, plane.row(pool, first + i));
}

// Exact rows as they are when the batch is attended to: sinks and the rows before the batch in their slots, those of
// the batch still staged.
void fill_exact(Plane& plane, const std::vector<float>& pool, int64_t layer, const Task& task) {
    const ExactCells& cells = plane.exact[layer].rows.cells();
    const int64_t before = task.depth - task.batch, n_kept = std::min(cells.n_kept(), before);
    keep_exact(plane, pool, layer, 0, std::min<int64_t>(cells.n_sink, before));
    keep_exact(plane, pool, layer, before - n_kept, n_kept);
    keep_exact(plane, pool, layer, before, task.batch);
}

void fill(Plane& plane, const std::vector<float>& pool, const Task& task, ThreadTeam& team) {
    uint8_t* first = plane.layer_data(0);
    team.run([&](int thread) { encode_share(plane, pool, 0, task.depth, first, thread, team.size()); });
    for (int64_t layer = 1; layer < plane.n_layer; ++layer) std::memcpy(plane.layer_data(layer), first, plane.bytes());
    for (size_t layer = 0; layer < plane.exact.size(); ++layer) fill_exact(plane, pool, layer, task);
}

AttentionInputs inputs_of(const Task& task, const Memory& out) {
    const HeadShape& s = task.shape;
    AttentionInputs in;
    in.q = task.q.data();
    in.q_head_stride = sizeof(float) * s.head_dim_k;
    in.q_token_stride = in.q_head_stride * s.n_head;
    in.mask = task.mask.data();
    in.mask_token_stride = sizeof(uint16_t) * task.depth;
    in.out = out.floats();
    in.out_head_stride = sizeof(float) * s.head_dim_v;
    in.out_token_stride = in.out_head_stride * s.n_head;
    return in;
}

class PackedAttention : public Contestant {
  public:
    PackedAttention(const Task& task, Plane keys, Plane values, const AttentionPlan& plan, ThreadTeam& team)
        : plan_(plan),
          team_(team),
          keys_(std::move(keys)),
          values_(std::move(values)),
          out_floats_(task.batch * task.shape.n_head * task.shape.head_dim_v),
          out_(sizeof(float) * out_floats_),
          workspace_(plan.workspace_bytes()),
          counters_(keys_.n_layer * std::size(kPhases)) {
        fill(keys_, task.k, task, team);
        fill(values_, task.v, task, team);
        for (int64_t i = 0; i < keys_.n_layer; ++i) {
            AttentionInputs in = inputs_of(task, out_);
            in.k = keys_.tensor(i);
            in.v = values_.tensor(i);
            in.exact_k = keys_.exact_rows(i);
            in.exact_v = values_.exact_rows(i);
            inputs_.push_back(in);
        }
    }

    double run() override {
        for (ItemCounter& counter : counters_) counter.next = 0;
        return team_.time([this](int thread) {
            for (size_t layer = 0; layer < inputs_.size(); ++layer) run_layer(layer, thread);
        });
    }

    std::vector<float> output() const override { return {out_.floats(), out_.floats() + out_floats_}; }
    std::optional<uint64_t> digest() override {
        Hash hash;
        hash.add(out_.data(), sizeof(float) * out_floats_);
        return hash.value();
    }

  private:
    // Does it as the plugin does: a phase is a node, its items go to whichever thread is free, a barrier closes it.
    void run_layer(int64_t layer, int thread) {
        for (size_t phase = 0; phase < std::size(kPhases); ++phase) {
            const int64_t n = plan_.n_items(kPhases[phase]);
            if (n == 0) continue;
            std::atomic<int64_t>& next = counters_[layer * std::size(kPhases) + phase].next;
            for (int64_t item = next++; item < n; item = next++) {
                plan_.run(kPhases[phase], item, thread, inputs_[layer], workspace_.data());
            }
            team_.barrier();
        }
    }

    AttentionPlan plan_;
    ThreadTeam& team_;
    Plane keys_, values_;
    size_t out_floats_;
    Memory out_, workspace_;
    std::vector<ItemCounter> counters_;
    std::vector<AttentionInputs> inputs_;
};

class PackedEncode : public Contestant {
  public:
    PackedEncode(const Task& task, Plane keys, Plane values, ThreadTeam& team)
        : task_(task),
          team_(team),
          keys_(std::move(keys)),
          values_(std::move(values)),
          cells_(static_cast<size_t>(task.batch)) {}

    // Every call writes the next cells, as generation does; over the whole depth in the end.
    double run() override {
        first_ = first_ + task_.batch > task_.depth ? 0 : first_;
        std::iota(cells_.begin(), cells_.end(), first_);
        const double seconds = team_.time([this](int thread) {
            for (int64_t layer = 0; layer < keys_.n_layer; ++layer) encode_layer(layer, thread);
        });
        first_ += task_.batch;
        return seconds;
    }

    // It digests the first layer, written from the beginning.
    std::optional<uint64_t> digest() override {
        for (Plane* plane : {&keys_, &values_}) {
            std::memset(plane->layer_data(0), 0, plane->bytes());
        }
        for (first_ = 0; first_ + task_.batch <= task_.depth; first_ += task_.batch) {
            std::iota(cells_.begin(), cells_.end(), first_);
            team_.run([this](int thread) { encode_layer(0, thread); });
        }
        Hash hash;
        for (const Plane* plane : {&keys_, &values_}) {
            hash.add(plane->layer_data(0), plane->bytes());
        }
        return hash.value();
    }

  private:
    void encode_layer(int64_t layer, int thread) {
        if (!keys_.exact.empty()) announce_exact(layer, thread);
        // Keys and values are one node of the plugin; threads change places between them.
        encode(keys_, task_.k, layer, thread);
        encode(values_, task_.v, layer, (thread + 1) % team_.size());
        team_.barrier();
    }

    // A node of its own in the plugin, before that of the codes.
    void announce_exact(int64_t layer, int thread) {
        if (thread == 0) {
            keys_.exact[layer].begin(cells_);
            values_.exact[layer].begin(cells_);
        }
        team_.barrier();
    }

    void encode(Plane& plane, const std::vector<float>& pool, int64_t layer, int thread) {
        encode_share(plane, pool, first_, task_.batch, plane.layer_data(layer), thread, team_.size());
        if (plane.exact.empty()) return;
        for (int64_t i = thread; i < task_.batch; i += team_.size()) {
            plane.exact[layer].rows.store(i, plane.row(pool, first_ + i));
        }
    }

    const Task& task_;
    ThreadTeam& team_;
    Plane keys_, values_;
    std::vector<int64_t> cells_;  // cells that the batch is written to
    int64_t first_ = 0;
};

// Bytes of a layer's exact rows that one query takes.
size_t exact_bytes_read(const Task& task, const BenchPreset& preset) {
    const int64_t rows = preset.exact.fitted(task.depth).n_per_query();
    return sizeof(uint16_t) * static_cast<size_t>(rows * (task.shape.n_embd_k() + task.shape.n_embd_v()));
}

size_t code_bytes(const Task& task, const BenchPreset& preset) {
    size_t bytes = 0;
    for (Side side : {Side::kKey, Side::kValue}) {
        const auto format = RowFormat::create(preset.codes, side, n_embd_of(task, side));
        if (format.ok()) bytes += static_cast<size_t>(blocks_of_cells(task.depth)) * format->block_bytes();
    }
    return bytes;
}

void describe(Contestant& contestant, const Task& task, const BenchPreset& preset, Isa isa) {
    contestant.name = preset.name();
    contestant.label = preset.label;
    contestant.description = preset.description;
    contestant.isa = isa_name(isa);
    contestant.layer_bytes = code_bytes(task, preset) + exact_bytes_read(task, preset);
    contestant.bits = 8.0 * static_cast<double>(packed_layer_bytes(task, preset)) /
                      static_cast<double>(task.depth * (task.shape.n_embd_k() + task.shape.n_embd_v()));
}

}  // namespace

size_t packed_layer_bytes(const Task& task, const BenchPreset& preset) {
    size_t bytes = code_bytes(task, preset);
    for (Side side : {Side::kKey, Side::kValue}) {
        bytes += ExactRows::bytes(preset.exact, n_embd_of(task, side), task.depth, 1);
    }
    return bytes;
}

Result<std::unique_ptr<Contestant>> packed_attention(const Task& task, const BenchPreset& preset, Isa isa,
                                                     ThreadTeam& team) {
    Result<Plane> keys = make_plane(task, Side::kKey, preset, isa);
    if (!keys.ok()) return keys.status();
    Result<Plane> values = make_plane(task, Side::kValue, preset, isa);
    if (!values.ok()) return values.status();
    AttentionShape shape = task.attention_shape(team.size());
    shape.n_exact = preset.exact.fitted(task.depth).n_per_query();
    const auto plan = AttentionPlan::create(shape, keys->codec, values->codec, cpu_engine(isa));
    if (!plan.ok()) return plan.status();
    auto contestant =
        std::make_unique<PackedAttention>(task, std::move(keys.value()), std::move(values.value()), plan.value(), team);
    describe(*contestant, task, preset, isa);
    return std::unique_ptr<Contestant>(std::move(contestant));
}

Result<std::unique_ptr<Contestant>> packed_encode(const Task& task, const BenchPreset& preset, Isa isa,
                                                  ThreadTeam& team) {
    Result<Plane> keys = make_plane(task, Side::kKey, preset, isa);
    if (!keys.ok()) return keys.status();
    Result<Plane> values = make_plane(task, Side::kValue, preset, isa);
    if (!values.ok()) return values.status();
    auto contestant = std::make_unique<PackedEncode>(task, std::move(keys.value()), std::move(values.value()), team);
    describe(*contestant, task, preset, isa);
    return std::unique_ptr<Contestant>(std::move(contestant));
}

}  // namespace tq::tool
