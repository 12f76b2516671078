// attention_blocks PRESET HEAD_DIM GROUP BLOCKS: one token's fused attention of GROUP query heads that share a KV head,
// over BLOCKS blocks of 64 cells, on the ISA that TURBOQUANT_ISA names. Everything but BLOCKS is the same in every run,
// so the difference of two runs is the blocks' alone: see scripts/arm64-instructions.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/support/packed_rows.h"
#include "tests/support/random.h"
#include "turboquant/attention/plan.h"
#include "turboquant/format/preset.h"

namespace tq::test {
namespace {

constexpr int64_t kMaxBlocks = 32;
constexpr int64_t kMaxCells = kMaxBlocks * kBlockCells;

// One block of random rows, repeated: encoding every row would take most of the run.
PackedRows make_rows(Side side, Codes coding, int head_dim, Isa isa, Random& random) {
    PackedRows rows({side, coding, head_dim, 1, kMaxCells}, isa);
    for (int64_t cell = 0; cell < kBlockCells; ++cell) {
        std::vector<float> row(rows.width());
        for (float& x : row) x = random.bell();
        rows.encode(row, cell);
    }
    for (int64_t block = 1; block < kMaxBlocks; ++block)
        std::memcpy(rows.blocks().at(block), rows.blocks().at(0), rows.codec.format().block_bytes());
    return rows;
}

void attend(const Preset& preset, int head_dim, int group, int64_t blocks, Isa isa) {
    Random random(1);
    const PackedRows keys =
        make_rows(Side::kKey, {preset.key_bits, is_trellis(preset.key_coding), is_centered(preset.key_coding)},
                  head_dim, isa, random);
    const PackedRows values =
        make_rows(Side::kValue, {preset.value_bits, is_trellis(preset.value_coding)}, head_dim, isa, random);
    std::vector<float> q(static_cast<size_t>(head_dim * group)), out(q.size());
    for (float& x : q) x = random.bell();
    const std::vector<uint16_t> mask(kMaxCells);
    AttentionInputs in;
    in.q = q.data();
    in.q_head_stride = in.out_head_stride = sizeof(float) * static_cast<size_t>(head_dim);
    in.k = keys.tensor();
    in.v = values.tensor();
    in.mask = mask.data();
    in.out = out.data();
    AttentionShape shape;
    shape.head_dim_k = shape.head_dim_v = head_dim;
    shape.n_head = group;
    shape.n_head_kv = 1;
    shape.n_tokens = 1;
    shape.n_kv = blocks * kBlockCells;
    shape.scale = 1.0f / 8;
    const AttentionPlan plan = AttentionPlan::create(shape, keys.codec, values.codec, cpu_engine(isa)).value();
    void* workspace = std::aligned_alloc(64, plan.workspace_bytes());
    plan.run_all(in, workspace);
    std::free(workspace);
}

}  // namespace
}  // namespace tq::test

int main(int argc, char** argv) {
    using namespace tq;
    const auto isa = select_isa_from_environment();
    const auto preset = Preset::parse(argc == 5 ? argv[1] : "");
    if (!isa.ok() || !preset.ok()) {
        std::fprintf(stderr, "usage: attention_blocks PRESET HEAD_DIM GROUP BLOCKS\n");
        return 2;
    }
    const int64_t blocks = std::clamp<int64_t>(std::atoll(argv[4]), 1, test::kMaxBlocks);
    test::attend(preset.value(), std::atoi(argv[2]), std::atoi(argv[3]), blocks, isa.value());
}
