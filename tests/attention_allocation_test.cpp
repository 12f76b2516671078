// AttentionPlan::run allocates nothing.
#include <atomic>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "tests/support/attention_cases.h"

namespace {
std::atomic<int64_t> n_allocations{0};
}

// Not inlined: GCC would see free() on what it knows to come from new.
[[gnu::noinline]] void* operator new(size_t bytes) {
    ++n_allocations;
    if (void* p = std::malloc(bytes)) return p;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
    std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept {
    std::free(p);
}

namespace tq::test {
namespace {

class AttentionAllocation : public testing::TestWithParam<AttentionCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, AttentionAllocation, testing::ValuesIn(attention_cases()));

int64_t allocations_of_run(const AttentionProblem& problem, Isa isa, int n_threads) {
    int64_t during = 0;
    problem.run(isa, n_threads, [&](const AttentionPlan& plan, const AttentionInputs& in, void* workspace) {
        const int64_t before = n_allocations;
        plan.run_all(in, workspace);
        during = n_allocations - before;
    });
    return during;
}

TEST_P(AttentionAllocation, RunAllocatesNothing) {
    const AttentionProblem problem(GetParam());
    for (Isa isa : available_isas())
        for (int n_threads : {1, 8}) EXPECT_EQ(allocations_of_run(problem, isa, n_threads), 0) << isa_name(isa);
}

TEST(AttentionAllocation, TheCounterCounts) {
    const int64_t before = n_allocations;
    delete new AttentionProblem({});
    EXPECT_GT(n_allocations, before);
}

}  // namespace
}  // namespace tq::test
