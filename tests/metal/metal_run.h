// Carries out launches on the lanes, as an encoder does on a GPU.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "lanes/dispatch.h"
#include "turboquant/metal/launch.h"

namespace tq::test {

// Memory of one operand.
struct MetalArray {
    void* data = nullptr;
    size_t bytes = 0;
    uint8_t* defined = nullptr;
};

// Faults that a test plants in launches, and what is reported of them.
struct MetalFaults {
    std::function<void(lanes::Launch&)> change;
    std::vector<lanes::Report> reports;
};

class MetalRun {
  public:
    explicit MetalRun(const msl_library& library, MetalFaults* faults = nullptr) : library_(library), faults_(faults) {}

    std::map<int, MetalArray> arrays;  // by operand

    void give(int operand, const void* data, size_t bytes) {
        arrays[operand] = {const_cast<void*>(data), bytes, nullptr};
    }
    template <class T>
    void give(int operand, const std::vector<T>& values) {
        give(operand, values.data(), sizeof(T) * values.size());
    }
    // Memory that the kernels write before they read it.
    void make(int operand, size_t bytes) {
        memory_.emplace_back(bytes, uint8_t{0xcd});
        defined_.emplace_back(bytes, uint8_t{0});
        arrays[operand] = {memory_.back().data(), bytes, defined_.back().data()};
    }

    void launch(const MetalLaunch& l) {
        lanes::Launch launch;
        launch.kernel = l.kernel;
        for (const MetalBinding& b : l.bindings) {
            const MetalArray& array = arrays.at(b.operand);
            launch.buffers.push_back({b.index, array.data, array.bytes, b.written, array.defined});
        }
        launch.threadgroups({l.grid[0], l.grid[1], l.grid[2]}, {l.threads[0], l.threads[1], l.threads[2]});
        launch.check = check;
        if (faults_ != nullptr) faults_->change(launch);
        for (const lanes::Report& report : lanes::run(library_, launch)) {
            if (faults_ != nullptr) {
                faults_->reports.push_back(report);
            } else {
                ADD_FAILURE() << l.kernel << ": " << report.text;
            }
        }
    }

    bool check = true;

  private:
    const msl_library& library_;
    MetalFaults* faults_;
    std::vector<std::vector<uint8_t>> memory_, defined_;
};

}  // namespace tq::test
