// Faults planted in the shipped shaders and in how they are launched: each is reported.
#include "shader_faults.h"

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "metal_attention.h"
#include "metal_run.h"
#include "tests/support/rows.h"

TQ_METAL_LIBRARY(metal_removable);

namespace tq::test {
namespace {

using lanes::Fault;
using lanes::Launch;

const char* const kBarriers[] = {
#include "metal_removable.h"
};

using Change = std::function<void(Launch&)>;

void attend(const AttentionCase& c, MetalFaults& faults) {
    MetalOptions options;
    options.faults = &faults;
    run_on_metal(msl_library_metal_removable, AttentionProblem(c), options);
}

// A prompt, cells that begin a block anew, and cells within one.
void append_and_decode(const PackedShape& shape, MetalFaults& faults) {
    PackedRows records(shape, Isa::kScalar);
    Random random(3);
    const std::vector<float> rotation = metal_rotation({records.codec.rotation(0)});
    for (const auto& plan : {plan_metal_append(metal_rows(shape)), plan_metal_decode(metal_rows(shape))}) {
        std::vector<float> rows = random.normals(shape.n_cells * records.width(), 1);
        for (const std::vector<int32_t>& cells : {std::vector<int32_t>{0, 190}, {128, 3}, {60, 6}}) {
            MetalRun run(msl_library_metal_removable, &faults);
            run.give(kBufferParams, &plan.value().params, sizeof(RowsParams));
            run.give(kBufferLengths, cells);
            run.give(kBufferRows, rows);
            run.give(kBufferRecords, records.bytes);
            run.give(kBufferRotation, rotation);
            run.launch(plan.value().launch);
        }
    }
}

using Call = std::function<void(MetalFaults&)>;

std::vector<Call> all_calls() {
    std::vector<Call> calls;
    for (const AttentionCase& c : shader_fault_attention_cases())
        calls.push_back([c](MetalFaults& faults) { attend(c, faults); });
    for (const PackedShape& shape : shader_fault_row_shapes())
        calls.push_back([shape](MetalFaults& faults) { append_and_decode(shape, faults); });
    return calls;
}

// Runs calls, each launch as `change` leaves it, until one has something reported.
std::vector<lanes::Report> first_reports(const std::vector<Call>& calls, const Change& change) {
    MetalFaults faults;
    faults.change = change;
    for (const Call& call : calls) {
        call(faults);
        if (!faults.reports.empty()) break;
    }
    return faults.reports;
}

Change without_barrier(const int& barrier) {
    return [&](Launch& launch) { launch.constants = {{999, &barrier, sizeof(barrier)}}; };
}
const int kNoBarrier = -1;

TEST(MetalShaderFaults, NoneIsReportedWhereNoneIsPlanted) {
    for (const lanes::Report& report : first_reports(all_calls(), without_barrier(kNoBarrier)))
        ADD_FAILURE() << report.text;
}

TEST(MetalShaderFaults, EveryBarrierIsMissed) {
    for (int barrier = 0; barrier < static_cast<int>(std::size(kBarriers)); ++barrier) {
        // A reader that comes before the writer finds nothing written; one that comes after it makes a race.
        const auto reports = first_reports(all_calls(), without_barrier(barrier));
        const bool found = std::any_of(reports.begin(), reports.end(), [](const lanes::Report& report) {
            return report.fault == Fault::kThreadgroupRace || report.fault == Fault::kDeviceRace ||
                   report.fault == Fault::kUninitializedRead;
        });
        EXPECT_TRUE(found) << "nothing is reported without the barrier at " << kBarriers[barrier];
    }
}

// For each array that a kernel gets: spoils all bindings of it (an index that a call does not use has another's array),
// and expects one of `faults` for it. `spoil` says whether there was something to spoil.
void spoil_each_array(const std::set<Fault>& faults, const std::function<bool(lanes::Buffer&)>& spoil) {
    int spoilt = 0;
    for (const Call& call : all_calls()) {
        std::set<std::pair<std::string, int>> firsts;  // kernels, and the least index of each array
        first_reports({call}, [&](Launch& launch) {
            without_barrier(kNoBarrier)(launch);
            std::set<void*> seen;
            for (lanes::Buffer buffer : launch.buffers)
                if (seen.insert(buffer.data).second && spoil(buffer)) firsts.insert({launch.kernel, buffer.index});
        });
        for (const auto& [kernel, index] : firsts) {
            const auto reports = first_reports({call}, [&, kernel = kernel, index = index](Launch& launch) {
                without_barrier(kNoBarrier)(launch);
                if (launch.kernel != kernel) return;
                void* array = nullptr;
                for (const lanes::Buffer& buffer : launch.buffers)
                    if (buffer.index == index) array = buffer.data;
                for (lanes::Buffer& buffer : launch.buffers)
                    if (buffer.data == array) spoil(buffer);
            });
            ASSERT_FALSE(reports.empty()) << kernel << ": nothing is reported of buffer " << index;
            EXPECT_TRUE(faults.count(reports[0].fault)) << reports[0].text;
            ++spoilt;
        }
    }
    EXPECT_GT(spoilt, 10);
    std::printf("%d arrays of kernels\n", spoilt);
}

TEST(MetalShaderFaults, EveryArrayIsReadOrWrittenBeyondHalfOfIt) {
    spoil_each_array({Fault::kOutOfBoundsRead}, [](lanes::Buffer& buffer) {
        buffer.bytes /= 2;
        return !buffer.writable;
    });
    spoil_each_array({Fault::kOutOfBoundsRead, Fault::kOutOfBoundsWrite}, [](lanes::Buffer& buffer) {
        buffer.bytes /= 2;
        return buffer.writable;
    });
}

TEST(MetalShaderFaults, EveryResultIsWritten) {
    spoil_each_array({Fault::kReadOnlyWrite},
                     [](lanes::Buffer& buffer) { return std::exchange(buffer.writable, false); });
}

TEST(MetalShaderFaults, EveryOperandIsRead) {
    std::vector<uint8_t> nothing(1 << 20);
    spoil_each_array({Fault::kUninitializedRead}, [&](lanes::Buffer& buffer) {
        if (buffer.writable) return false;
        EXPECT_LE(buffer.bytes, nothing.size());
        buffer.defined = nothing.data();
        return true;
    });
}

}  // namespace
}  // namespace tq::test
