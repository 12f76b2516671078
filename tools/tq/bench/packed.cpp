#include "bench/packed.h"

#include <cstring>

#include "bench/memory.h"
#include "turboquant/attention/plan.h"

namespace tq::tool {
namespace {

constexpr AttentionPhase kPhases[] = {AttentionPhase::kPrepare, AttentionPhase::kAttend, AttentionPhase::kMerge};

// The keys or the values of all layers.
struct Plane {
    RowCodec codec;
    int64_t n_embd;
    std::vector<Memory> layers;

    const float* row(const std::vector<float>& pool, int64_t cell) const {
        return pool.data() + cell % kPoolRows * n_embd;
    }
};

Result<Plane> make_plane(const Task& task, Side side, const Preset& preset, Isa isa) {
    const int64_t n_embd = side == Side::kKey ? task.shape.n_embd_k() : task.shape.n_embd_v();
    const Result<PackedLayout> layout = PackedLayout::create(preset, side, n_embd, task.depth, 1);
    if (!layout.ok()) return layout.status();
    const int head_dim = side == Side::kKey ? task.shape.head_dim_k : task.shape.head_dim_v;
    Result<RowCodec> codec = RowCodec::create(layout.value(), head_dim, isa);
    if (!codec.ok()) return codec.status();
    Plane plane{std::move(codec.value()), n_embd, {}};
    for (int64_t i = 0; i < task.n_layer; ++i) plane.layers.emplace_back(layout->bytes());
    return plane;
}

// Rows of one block share bytes: a block belongs to one thread.
void fill(Plane& plane, const std::vector<float>& pool, int64_t n_cells, ThreadTeam& team) {
    uint8_t* first = plane.layers.front().data();
    team.run([&](int thread) {
        for (int64_t cell = 0; cell < n_cells; ++cell) {
            if (cell / kBlockCells % team.size() == thread) plane.codec.encode(plane.row(pool, cell), first, 0, cell);
        }
    });
    for (Memory& layer : plane.layers) {
        if (layer.data() != first) std::memcpy(layer.data(), first, plane.codec.layout().bytes());
    }
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
          counters_(keys_.layers.size() * std::size(kPhases)) {
        fill(keys_, task.k, task.depth, team);
        fill(values_, task.v, task.depth, team);
        for (size_t i = 0; i < keys_.layers.size(); ++i) {
            AttentionInputs in = inputs_of(task, out_);
            in.k = {&keys_.codec, keys_.layers[i].data()};
            in.v = {&values_.codec, values_.layers[i].data()};
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

  private:
    // As the plugin does it: a phase is a node, its items go to whichever thread is free, a barrier closes it.
    void run_layer(size_t layer, int thread) {
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
        : task_(task), team_(team), keys_(std::move(keys)), values_(std::move(values)) {}

    // Every call writes the next cells, as generation does; over the whole depth in the end.
    double run() override {
        first_ = first_ + task_.batch > task_.depth ? 0 : first_;
        const double seconds = team_.time([this](int thread) {
            for (size_t layer = 0; layer < keys_.layers.size(); ++layer) {
                // Keys and values are one node of the plugin; threads change places between them.
                encode(keys_, task_.k, layer, thread);
                encode(values_, task_.v, layer, (thread + 1) % team_.size());
                team_.barrier();
            }
        });
        first_ += task_.batch;
        return seconds;
    }

  private:
    // Which thread takes what: as in the plugin's SetRowsTask.
    void encode(Plane& plane, const std::vector<float>& pool, size_t layer, int thread) const {
        const int n_slices = plane.codec.n_slices();
        for (int64_t cell = first_; cell < first_ + task_.batch; ++cell) {
            for (int slice = 0; slice < n_slices; ++slice) {
                if ((cell / kBlockCells * n_slices + slice) % team_.size() != thread) continue;
                plane.codec.encode_slice(plane.row(pool, cell), plane.layers[layer].data(), 0, cell, slice);
            }
        }
    }

    const Task& task_;
    ThreadTeam& team_;
    Plane keys_, values_;
    int64_t first_ = 0;
};

void describe(Contestant& contestant, const Task& task, const Preset& preset, Isa isa) {
    contestant.name = preset.name();
    contestant.isa = isa_name(isa);
    contestant.layer_bytes = packed_layer_bytes(task, preset);
    contestant.bits = 8.0 * static_cast<double>(contestant.layer_bytes) /
                      static_cast<double>(task.depth * (task.shape.n_embd_k() + task.shape.n_embd_v()));
}

}  // namespace

size_t packed_layer_bytes(const Task& task, const Preset& preset) {
    size_t bytes = 0;
    for (Side side : {Side::kKey, Side::kValue}) {
        const int64_t n_embd = side == Side::kKey ? task.shape.n_embd_k() : task.shape.n_embd_v();
        const Result<PackedLayout> layout = PackedLayout::create(preset, side, n_embd, task.depth, 1);
        if (layout.ok()) bytes += layout->bytes();
    }
    return bytes;
}

Result<std::unique_ptr<Contestant>> packed_attention(const Task& task, const Preset& preset, Isa isa,
                                                     ThreadTeam& team) {
    Result<Plane> keys = make_plane(task, Side::kKey, preset, isa);
    if (!keys.ok()) return keys.status();
    Result<Plane> values = make_plane(task, Side::kValue, preset, isa);
    if (!values.ok()) return values.status();
    const auto plan = AttentionPlan::create(task.attention_shape(team.size()), keys->codec, values->codec, isa);
    if (!plan.ok()) return plan.status();
    auto contestant =
        std::make_unique<PackedAttention>(task, std::move(keys.value()), std::move(values.value()), plan.value(), team);
    describe(*contestant, task, preset, isa);
    return std::unique_ptr<Contestant>(std::move(contestant));
}

Result<std::unique_ptr<Contestant>> packed_encode(const Task& task, const Preset& preset, Isa isa, ThreadTeam& team) {
    Result<Plane> keys = make_plane(task, Side::kKey, preset, isa);
    if (!keys.ok()) return keys.status();
    Result<Plane> values = make_plane(task, Side::kValue, preset, isa);
    if (!values.ok()) return values.status();
    auto contestant = std::make_unique<PackedEncode>(task, std::move(keys.value()), std::move(values.value()), team);
    describe(*contestant, task, preset, isa);
    return std::unique_ptr<Contestant>(std::move(contestant));
}

}  // namespace tq::tool
