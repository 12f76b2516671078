// Encoding over Ops (cpu/simd/ops_*.h): the scale search and the codes. Written once, compiled per ISA.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "turboquant/base/inline.h"
#include "turboquant/cpu/codec/kernels.h"
#include "turboquant/cpu/codec/rotate-inl.h"
#include "turboquant/format/row_format.h"
#include "turboquant/format/scale_search.h"

namespace tq::codec_impl {

// Scales and inverses by code; what follows the last repeats it, for vectors that reach beyond.
struct Scales {
    float scale[kMaxScaleCode + 1 + kMaxCandidates], inverse[kMaxScaleCode + 1 + kMaxCandidates];
};
inline constexpr Scales kScales = [] {
    Scales scales{};
    for (int i = 0; i < kMaxScaleCode + 1 + kMaxCandidates; ++i) {
        const int code = i < kMaxScaleCode ? i : kMaxScaleCode;
        scales.scale[i] = scale_from_code(static_cast<uint8_t>(code));
        scales.inverse[i] = code == 0 ? 0 : 1.0f / scales.scale[i];
    }
    return scales;
}();

// Zeros, then as many infinities.
struct Beyond {
    float value[2 * kMaxCandidates];
};
inline constexpr Beyond kBeyond = [] {
    Beyond beyond{};
    for (int i = kMaxCandidates; i < 2 * kMaxCandidates; ++i) beyond.value[i] = INFINITY;
    return beyond;
}();

struct Peak {
    float energy;  // sum of squares
    float top;     // largest magnitude
};

struct Output {
    uint8_t* codes;   // a byte for each value
    uint8_t* scales;  // a code for each group
};

// Says how a magnitude 0..127 finds its level.
enum class Levels {
    kFew,   // 2-4 bits: the table changes at most once in a run of 8
    kMany,  // 5-7 bits
    kAll,   // 8 bits: each magnitude is a level
};

inline constexpr int kFewGroups = 4;  // groups that are encoded together: those of keys of a head of 128

// Quantizes groups. `vectors` is a group's width in vectors of 16: 1 to 4.
template <class Ops, Levels levels>
struct GroupEncoder {
    using F = typename Ops::F;
    using I = typename Ops::I;
    static constexpr bool kStepped = levels == Levels::kFew;

    // A group on its way to codes.
    struct Group {
        const float* y;
        alignas(64) float magnitudes[64];
        Peak peak;
        ScaleWindow window;
        F errors[kMaxCandidates];  // squared errors of candidates in units of the scale, to be added up over lanes
        alignas(64) float squared_errors[kMaxCandidates];
        uint32_t close;  // bits of candidates among which the winner is
    };

    // |value| / scale, unrounded.
    template <int vectors>
    static TQ_INLINE void scale_magnitudes(const float* magnitudes, float inverse_scale, F* scaled) {
        const F inverse = Ops::set1(inverse_scale);
        for (int v = 0; v < vectors; ++v) scaled[v] = Ops::mul(Ops::load(magnitudes + 16 * v), inverse);
    }

    // The nearest centroids' magnitudes.
    template <int n>
    static TQ_INLINE void quantize(const Codebook& book, const F (&scaled)[n], F (&centroids)[n]) {
        if constexpr (levels == Levels::kAll) {
            const F high = Ops::set1(kCentroidMax);
            for (int v = 0; v < n; ++v) centroids[v] = Ops::to_float(Ops::round_to_int(Ops::min(scaled[v], high)));
        } else {
            I rounded[n];
            for (int v = 0; v < n; ++v) rounded[v] = Ops::round_to_int(scaled[v]);
            Ops::template lookup_floats<kStepped>(book.nearest, rounded, centroids);
        }
    }

    // Squared errors of some candidates in units of the scale, not yet added up over the lanes.
    template <int vectors, int candidates>
    static TQ_INLINE void add_errors(const Codebook& book, const float* magnitudes, const float* inverses, F* sums) {
        constexpr int n = vectors * candidates;
        F scaled[n], centroids[n];
        for (int c = 0; c < candidates; ++c) scale_magnitudes<vectors>(magnitudes, inverses[c], scaled + vectors * c);
        quantize(book, scaled, centroids);
        for (int c = 0; c < candidates; ++c) {
            F sum = Ops::set1(0);
            for (int v = vectors * c; v < vectors * (c + 1); ++v) {
                const F error = Ops::sub(scaled[v], centroids[v]);
                sum = Ops::fma(error, error, sum);
            }
            sums[c] = sum;
        }
    }

    // Takes as many candidates at once as make four vectors: independent work side by side. Errors of what follows the
    // last candidate are 0 up to a multiple of 16.
    template <int vectors>
    static TQ_INLINE void find_errors(const Codebook& book, Group& group) {
        constexpr int candidates = 4 / vectors;
        const ScaleWindow w = group.window;
        int i = 0;
        for (; i < w.count; i += candidates) {
            add_errors<vectors, candidates>(book, group.magnitudes, kScales.inverse + w.low + i, group.errors + i);
        }
        for (; i % 16 != 0; ++i) group.errors[i] = Ops::set1(0);
    }

    // Infinite beyond the last candidate.
    static TQ_INLINE void add_up(Group& group) {
        const ScaleWindow w = group.window;
        for (int i = 0; i < kMaxCandidates; i += 16) {
            F error = Ops::load(kBeyond.value + kMaxCandidates - w.count + i);
            if (i < w.count) {
                const F scale = Ops::load(kScales.scale + w.low + i);
                const F sum = Ops::mul(Ops::mul(Ops::reduce_add_16(group.errors + i), scale), scale);
                error = Ops::max(Ops::max(sum, Ops::set1(group.peak.energy * kNegligibleError)), error);
            }
            Ops::store(group.squared_errors + i, error);
        }
    }

    // A bit for every candidate whose error, times kClearlyLess, is at most the least: no other can win.
    static TQ_INLINE uint32_t close_to_best(const float* squared_errors) {
        const F low = Ops::load(squared_errors), high = Ops::load(squared_errors + 16);
        const float least = -Ops::reduce_max(Ops::sub(Ops::set1(0), Ops::min(low, high)));
        const F factor = Ops::set1(kClearlyLess);
        return Ops::lanes_at_most(Ops::mul(low, factor), least) | Ops::lanes_at_most(Ops::mul(high, factor), least)
                                                                      << 16;
    }

    // The code of the best scale, 0 if there are no candidates.
    template <int vectors>
    static TQ_INLINE int choose_scale(const Codebook& book, const Group& group) {
        if (group.window.count == 0) return 0;
        const int code = group.window.low + __builtin_ctz(group.close);
        if ((group.close & (group.close - 1)) == 0 && is_admissible<vectors>(book, group, code)) return code;
        return choose_in_order<vectors>(book, group);
    }

    template <int vectors>
    static int choose_in_order(const Codebook& book, const Group& group) {
        int best = group.window.low;
        float best_error = INFINITY;
        for (int i = 0; i < group.window.count; ++i) {
            const int code = group.window.low + i;
            if (group.squared_errors[i] < best_error * kClearlyLess && is_admissible<vectors>(book, group, code)) {
                best_error = group.squared_errors[i];
                best = code;
            }
        }
        return best;
    }

    // Does what quantize does, to one value.
    static TQ_INLINE int centroid(const Codebook& book, float scaled) {
        constexpr float round_to_even = 0x1.8p23f;
        const float clipped = scaled < kCentroidMax ? scaled : kCentroidMax;
        return elements(book.nearest.byte)[static_cast<int>((clipped + round_to_even) - round_to_even)];
    }

    // A scale is admissible if the encoder, given the decoded values, would look at it again: then encoding what was
    // decoded gives the same bytes. Scales that clip always are (the largest centroid is 127), and the window has one.
    template <int vectors>
    static bool is_admissible(const Codebook& book, const Group& group, int code) {
        if (centroid(book, group.peak.top * kScales.inverse[code]) >= kReachCentroid) return true;
        F sum = Ops::set1(0), c[vectors];
        scale_magnitudes<vectors>(group.magnitudes, kScales.inverse[code], c);
        quantize(book, c, c);
        for (int v = 0; v < vectors; ++v) sum = Ops::fma(c[v], c[v], sum);
        const float sigma_energy = book.sigma_units * book.sigma_units * static_cast<float>(16 * vectors);
        return Ops::reduce_add(sum) * (kWindowHigh * kWindowHigh) >= sigma_energy;
    }

    template <int vectors>
    static int unbiased_scale(const Codebook& book, const Group& group, int best) {
        F projection = Ops::set1(0), c[vectors];  // <y, c>
        scale_magnitudes<vectors>(group.magnitudes, kScales.inverse[best], c);
        quantize(book, c, c);
        for (int v = 0; v < vectors; ++v) projection = Ops::fma(Ops::load(group.magnitudes + 16 * v), c[v], projection);
        return scale_code_nearest(group.peak.energy / Ops::reduce_add(projection));
    }

    template <int vectors>
    static TQ_INLINE void write_codes(const Codebook& book, const float* y, int scale_code, uint8_t* codes) {
        const F inverse = Ops::set1(kScales.inverse[scale_code]);
        if constexpr (levels == Levels::kAll) {
            const F high = Ops::set1(kCentroidMax), low = Ops::set1(-kCentroidMax);
            for (int i = 0; i < 16 * vectors; i += 16) {
                const F scaled = Ops::max(Ops::min(Ops::mul(Ops::load(y + i), inverse), high), low);
                Ops::store_bytes(codes + i, Ops::add_int(Ops::round_to_int(scaled), Ops::set1_int(128)));
            }
        } else {
            const auto flip = static_cast<uint8_t>((1 << book.bits) - 1);
            F value[vectors];
            I rounded[vectors];
            for (int v = 0; v < vectors; ++v) {
                value[v] = Ops::load(y + 16 * v);
                rounded[v] = Ops::round_to_int(Ops::mul(Ops::abs(value[v]), inverse));
            }
            Ops::template store_codes<kStepped>(codes, book.code, rounded, value, flip);
        }
    }

    // Fills magnitudes.
    template <int vectors>
    static TQ_INLINE Peak measure(const float* y, float* magnitudes) {
        F sum = Ops::set1(0), top = Ops::set1(0);
        for (int i = 0; i < 16 * vectors; i += 16) {
            const F v = Ops::load(y + i), magnitude = Ops::abs(v);
            Ops::store(magnitudes + i, magnitude);
            sum = Ops::fma(v, v, sum);
            top = Ops::max(top, magnitude);
        }
        return {Ops::reduce_add(sum), Ops::reduce_max(top)};
    }

    template <int vectors>
    static TQ_INLINE ScaleWindow make_window(const Codebook& book, const Peak& peak) {
        return scale_window(__builtin_sqrtf(peak.energy / (16 * vectors)), peak.top, book.sigma_units);
    }

    // Returns the code of the scale to store.
    template <int vectors>
    static TQ_INLINE uint8_t finish(const Codebook& book, bool unbiased, const Group& group, int best, uint8_t* codes) {
        int stored = 0;
        if (best > 0) {
            stored = unbiased ? unbiased_scale<vectors>(book, group, best) : best;
            write_codes<vectors>(book, group.y, best, codes);
        }
        // The codes are those of zero-filled memory, not the signs of rounding errors.
        if (stored == 0) std::memset(codes, 0, 16 * vectors);
        return static_cast<uint8_t>(stored);
    }

    // Each step is a loop over the groups: while the results of one are under way, the processor works on the next.
    template <int vectors>
    static void encode_few(const Codebook& book, const float* y, int n_groups, bool unbiased, Output out) {
        constexpr int width = 16 * vectors;
        Group groups[kFewGroups];
        int best[kFewGroups];
        for (int g = 0; g < n_groups; ++g) groups[g].y = y + width * g;
        for (int g = 0; g < n_groups; ++g) groups[g].peak = measure<vectors>(groups[g].y, groups[g].magnitudes);
        for (int g = 0; g < n_groups; ++g) groups[g].window = make_window<vectors>(book, groups[g].peak);
        for (int g = 0; g < n_groups; ++g) find_errors<vectors>(book, groups[g]);
        for (int g = 0; g < n_groups; ++g) add_up(groups[g]);
        for (int g = 0; g < n_groups; ++g) groups[g].close = close_to_best(groups[g].squared_errors);
        for (int g = 0; g < n_groups; ++g) best[g] = choose_scale<vectors>(book, groups[g]);
        for (int g = 0; g < n_groups; ++g) {
            out.scales[g] = finish<vectors>(book, unbiased, groups[g], best[g], out.codes + width * g);
        }
    }

    template <int vectors>
    static void encode_run(const Codebook& book, const float* y, int n_groups, bool unbiased, Output out) {
        constexpr int width = 16 * vectors;
        for (int g = 0; g < n_groups; g += kFewGroups) {
            const int n = smaller(n_groups - g, kFewGroups);
            encode_few<vectors>(book, y + width * g, n, unbiased, {out.codes + width * g, out.scales + g});
        }
    }

    static void encode(const Codebook& book, const float* y, int n, int width, bool unbiased, Output out) {
        const int whole = n / width, done = whole * width;
        if (width == 32)
            encode_run<2>(book, y, whole, unbiased, out);
        else
            encode_run<4>(book, y, whole, unbiased, out);
        const Output rest{out.codes + done, out.scales + whole};
        switch ((n - done) / 16) {
            case 1:
                return encode_run<1>(book, y + done, 1, unbiased, rest);
            case 2:
                return encode_run<2>(book, y + done, 1, unbiased, rest);
            case 3:
                return encode_run<3>(book, y + done, 1, unbiased, rest);
            default:
                return;
        }
    }
};

template <class Ops>
void encode_groups(const Codebook& book, const float* y, int n, int width, bool unbiased, uint8_t* codes,
                   uint8_t* scales) {
    const Output out{codes, scales};
    if (book.bits <= 4) return GroupEncoder<Ops, Levels::kFew>::encode(book, y, n, width, unbiased, out);
    if (book.bits < kMaxBits) return GroupEncoder<Ops, Levels::kMany>::encode(book, y, n, width, unbiased, out);
    return GroupEncoder<Ops, Levels::kAll>::encode(book, y, n, width, unbiased, out);
}

}  // namespace tq::codec_impl
