// Attention of one query row to cells that have exact rows (f16, as they came): in float, a block of rows at a time.
#pragma once

#include <cstdint>

#include "turboquant/attention/exact_list.h"
#include "turboquant/cpu/attention/softmax-inl.h"

namespace tq::attention_impl {

// A running softmax, as the rows of RunningRows: maximum (base 2), sum, output relative to it. Outputs are not rotated.
struct ExactSums {
    float max;
    float sum;
    alignas(64) float out[kMaxHeadDim];
};

template <class Ops>
struct ExactAttention {
    using F = typename Ops::F;
    using Soft = Softmax<Ops>;
    static constexpr int kRows = 64;  // rows that go through the softmax together; their order alone decides the result

    // A query of one head needs these. k_offset, v_offset: where its KV head begins in a row.
    struct Query {
        const float* q;
        int head_dim_k, head_dim_v;
        int64_t k_offset, v_offset;
        float logit_scale;  // scales logits to base 2, or not yet with a softcap
        float softcap;
        float mask_scale;  // the ALiBi slope times log2 e
    };

    static void attend(const Query& query, const ExactList& list, ExactSums& sums) {
        sums.max = -kInfinity;
        sums.sum = 0;
        for (int d = 0; d < query.head_dim_v; d += 16) Ops::store(sums.out + d, Ops::set1(0));
        for (int64_t first = 0; first < list.count; first += kRows) {
            add_rows(query, list.rows + first, static_cast<int>(smaller<int64_t>(kRows, list.count - first)), sums);
        }
    }

  private:
    static void add_rows(const Query& query, const ExactList::Row* rows, int n, ExactSums& sums) {
        alignas(64) float p[kRows];
        F largest = Ops::set1(sums.max);
        for (int i = 0; i < kRows; i += 16) {
            const F x = i < n ? logits(query, rows + i, smaller(16, n - i)) : Ops::set1(-kInfinity);
            Ops::store(p + i, x);
            largest = Ops::max(largest, x);
        }
        const float top = Ops::reduce_max(largest), keep = Soft::exp2(sums.max - top);
        F total = Ops::set1(0);
        for (int i = 0; i < kRows; i += 16) {
            const F x = Soft::exp2(Ops::sub(Ops::load(p + i), Ops::set1(top)));
            Ops::store(p + i, x);
            total = Ops::add(total, x);
        }
        sums.max = top;
        sums.sum = __builtin_fmaf(sums.sum, keep, Ops::reduce_add(total));
        for (int d = 0; d < query.head_dim_v; d += 16) {
            F out = Ops::mul(Ops::load(sums.out + d), Ops::set1(keep));
            for (int i = 0; i < n; ++i)
                out = Ops::fma(Ops::load_half(rows[i].v + query.v_offset + d), Ops::set1(p[i]), out);
            Ops::store(sums.out + d, out);
        }
    }

    // Base-2 logits of up to 16 rows, a lane each; -infinity behind them.
    static F logits(const Query& query, const ExactList::Row* rows, int n) {
        F dots[16];
        alignas(64) float masks[16];
        for (int r = 0; r < 16; ++r) {
            dots[r] = Ops::set1(0);
            masks[r] = r < n ? rows[r].mask * query.mask_scale : -kInfinity;
            for (int d = 0; r < n && d < query.head_dim_k; d += 16) {
                dots[r] = Ops::fma(Ops::load(query.q + d), Ops::load_half(rows[r].k + query.k_offset + d), dots[r]);
            }
        }
        return Soft::finish_logit(query.softcap, Ops::reduce_add_16(dots), query.logit_scale, Ops::load(masks));
    }
};

}  // namespace tq::attention_impl
