// Random operations on caches of every kind of preset: centered keys, trellis codes, channel scales, exact rows.
#include <algorithm>
#include <optional>
#include <span>

#include <gtest/gtest.h>

#include "tests/support/packed_rows.h"
#include "tests/support/random.h"
#include "tests/support/vectors.h"
#include "turboquant/base/half.h"
#include "turboquant/cache/kv_cache.h"

namespace tq::test {
namespace {

constexpr int64_t kCells = 150, kStreams = 2;  // 3 blocks
constexpr int kKeyDim = 48, kValueDim = 80, kHeads = 2;
constexpr int64_t kKeyWidth = kHeads * kKeyDim, kValueWidth = kHeads * kValueDim;
using Row = std::vector<float>;

struct CacheCase {
    const char* preset;
    bool scaled = false;
    ExactCells exact = {};
};
void PrintTo(const CacheCase& c, std::ostream* out) {
    *out << c.preset << (c.scaled ? " scaled" : "") << c.exact.name();
}
constexpr CacheCase kCases[] = {{"k8cv8"},
                                {"k5ctv5t"},
                                {"k4tv3t"},
                                {"k4v4", true},
                                {"k8cv4t", true},
                                {"k4v4", false, {3, 10, 4}},
                                {"k8cv8", true, {2, 20, 0}}};

KvCacheParams params_of(const CacheCase& c) {
    KvCacheParams params{Preset::parse(c.preset).value(), kKeyDim, kValueDim, kHeads, kCells, kStreams};
    params.exact = c.exact;
    Random random(1);
    if (c.scaled) {
        params.key_scales = random_scales(kKeyWidth, random);
        params.value_scales = random_scales(kValueWidth, random);
    }
    return params;
}

// Holds what one side of the cache should: for each cell the row that was last put there, if any.
class ModelOfSide {
  public:
    ModelOfSide(Side side, const KvCacheParams& params)
        : width_(side == Side::kKey ? kKeyWidth : kValueWidth),
          preset_(params.preset),
          side_(side),
          scales_(side == Side::kKey ? params.key_scales : params.value_scales),
          codec_({side,
                  {preset_.bits(side), is_trellis(preset_.coding(side))},
                  side == Side::kKey ? kKeyDim : kValueDim,
                  kHeads},
                 available_isas().back(), scales_),
          cells_(kStreams, std::vector<std::optional<Row>>(kCells)) {}

    int64_t width() const { return width_; }
    std::optional<Row>& at(int64_t stream, int64_t cell) { return cells_[stream][cell]; }

    void copy(int64_t from_stream, int64_t from, int64_t to_stream, int64_t to, int64_t n) {
        const std::vector<std::optional<Row>> moved(cells_[from_stream].begin() + from,
                                                    cells_[from_stream].begin() + from + n);
        std::copy(moved.begin(), moved.end(), cells_[to_stream].begin() + to);
    }

    // Centered keys are encoded again wherever their center changes; everything else is what the codec makes of the
    // row.
    void expect_holds(int64_t stream, int64_t cell, const Row& decoded) {
        const std::optional<Row>& row = cells_[stream][cell];
        if (is_centered(preset_.coding(side_))) {
            if (!row) return;  // what no one wrote decodes to the center
            EXPECT_LE(distance_of(decoded, *row), 0.15 * distance_of(*row, Row(width_))) << stream << ":" << cell;
        } else {
            EXPECT_EQ(decoded, row ? codec_.encode_decode(*row) : Row(width_)) << stream << ":" << cell;
        }
    }
    // An exact row is never another one than the cell's.
    void expect_exact(int64_t stream, int64_t cell, const uint16_t* exact) {
        if (!exact) return;
        const std::optional<Row>& row = cells_[stream][cell];
        ASSERT_TRUE(row) << stream << ":" << cell;
        for (int64_t d = 0; d < width_; ++d) ASSERT_EQ(exact[d], float_to_half((*row)[d])) << stream << ":" << cell;
    }

  private:
    // Measures with scales, as the codec sees the rows.
    double distance_of(const Row& a, const Row& b) const {
        double sum = 0;
        for (int64_t d = 0; d < width_; ++d) {
            const double difference = (double{a[d]} - b[d]) * (scales_.empty() ? 1 : scales_[d]);
            sum += difference * difference;
        }
        return std::sqrt(sum);
    }

    int64_t width_;
    Preset preset_;
    Side side_;
    Row scales_;
    PackedRows codec_;
    std::vector<std::vector<std::optional<Row>>> cells_;
};

class CacheOfPreset : public testing::TestWithParam<std::tuple<CacheCase, int>> {
  protected:
    const KvCacheParams params_ = params_of(std::get<0>(GetParam()));
    Random random_{static_cast<uint64_t>(std::get<1>(GetParam()))};
    KvCache cache_ = std::move(KvCache::create(params_, cpu_engine(available_isas().back())).value());
    ModelOfSide k_{Side::kKey, params_}, v_{Side::kValue, params_};

    void write(int64_t stream, int64_t cell, int64_t n) {
        const Row k = random_.normals(n * kKeyWidth), v = random_.normals(n * kValueWidth);
        ASSERT_TRUE(cache_.write(stream, cell, n, k.data(), v.data()).ok());
        for (int64_t i = 0; i < n; ++i) {
            k_.at(stream, cell + i) = Row(k.begin() + i * kKeyWidth, k.begin() + (i + 1) * kKeyWidth);
            v_.at(stream, cell + i) = Row(v.begin() + i * kValueWidth, v.begin() + (i + 1) * kValueWidth);
        }
    }
    void copy(int64_t from_stream, int64_t from, int64_t to_stream, int64_t to, int64_t n) {
        ASSERT_TRUE(cache_.copy(from_stream, from, to_stream, to, n).ok());
        for (ModelOfSide* side : {&k_, &v_}) side->copy(from_stream, from, to_stream, to, n);
    }
    void forget_from(int64_t stream, int64_t length, int64_t old_length) {
        for (ModelOfSide* side : {&k_, &v_}) {
            for (int64_t cell = length; cell < old_length; ++cell) side->at(stream, cell).reset();
        }
    }
    void step() {
        const int64_t stream = random_.below(kStreams), cell = random_.below(kCells), length = cache_.length(stream);
        switch (random_.below(8)) {
            case 0:
            case 1:
            case 2:
                return write(stream, length, random_.below(std::min<int64_t>(60, kCells - length + 1)));
            case 3:
                return write(stream, cell, random_.below(std::min<int64_t>(20, kCells - cell + 1)));
            case 4:
            case 5: {
                const int64_t to = random_.below(kCells);
                return copy(random_.below(kStreams), cell, stream, to, random_.below(kCells - std::max(cell, to) + 1));
            }
            case 6:
                ASSERT_TRUE(cache_.truncate(stream, cell).ok());
                return forget_from(stream, cell, length);
            default: {
                const int64_t n = std::min(random_.below(80), length), kept = length - n;
                ASSERT_TRUE(cache_.trim_front(stream, n).ok());
                for (ModelOfSide* side : {&k_, &v_}) side->copy(stream, n, stream, 0, kept);
                return forget_from(stream, kept, length);
            }
        }
    }
    void check() {
        std::vector<float> k(kCells * kKeyWidth), v(kCells * kValueWidth);
        for (int64_t stream = 0; stream < kStreams; ++stream) {
            ASSERT_TRUE(cache_.read(stream, 0, kCells, k.data(), v.data()).ok());
            for (int64_t cell = 0; cell < kCells; ++cell) {
                k_.expect_holds(stream, cell, Row(k.begin() + cell * kKeyWidth, k.begin() + (cell + 1) * kKeyWidth));
                v_.expect_holds(stream, cell,
                                Row(v.begin() + cell * kValueWidth, v.begin() + (cell + 1) * kValueWidth));
                if (!cache_.exact_keys()) continue;
                k_.expect_exact(stream, cell, cache_.exact_keys()->find(stream * kCells + cell));
                v_.expect_exact(stream, cell, cache_.exact_values()->find(stream * kCells + cell));
            }
        }
    }
};
INSTANTIATE_TEST_SUITE_P(Seeds, CacheOfPreset, testing::Combine(testing::ValuesIn(kCases), testing::Range(0, 4)));

TEST_P(CacheOfPreset, AgreesWithTheModelAfterRandomOperations) {
    for (int i = 0; i < 30; ++i) {
        step();
        check();
        if (HasFailure()) FAIL() << "after operation " << i;
    }
}

}  // namespace
}  // namespace tq::test
