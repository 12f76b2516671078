#include "lanes.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <boost/context/detail/fcontext.hpp>

#include "source_line.h"

namespace tq::lanes {
namespace {

using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

// Whoever goes on stores where the one before stopped.
void go(Context& from, const Context& to) {
    const transfer_t back = jump_fcontext(to.fibre, &from);
    static_cast<Context*>(back.data)->fibre = back.fctx;
}

void lane_entry(transfer_t from) {
    static_cast<Context*>(from.data)->fibre = from.fctx;
    Threadgroup::running()->lane_body();
}

// Compilers make one call of two where they can, and several of one function that is inlined: both must agree.
bool same_place(const msl_place& a, const msl_place& b) {
    return a.address == b.address && a.line == b.line;
}

const char* base_name(const char* path) {
    const char* slash = std::strrchr(path, '/');
    return slash != nullptr ? slash + 1 : path;
}

std::string text_of(const msl_place& place) {
    return std::string(place.operation) + " (" + base_name(place.file) + ":" + std::to_string(place.line) + ")";
}

}  // namespace

Threadgroup*& Threadgroup::running() {
    thread_local Threadgroup* threadgroup = nullptr;
    return threadgroup;
}

Stacks::Stacks() {
    void* memory = mmap(nullptr, kBytes * kMaxThreadsPerThreadgroup, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("stacks of lanes");
        std::abort();
    }
    begin_ = reinterpret_cast<uintptr_t>(memory);
}
Stacks::~Stacks() {
    munmap(reinterpret_cast<void*>(begin_), kBytes * kMaxThreadsPerThreadgroup);
}

Threadgroup::Threadgroup(Memory& memory, std::vector<Report>& reports, int max_reports, uint64_t seed)
    : memory_(memory),
      reports_(reports),
      max_reports_(max_reports),
      random_(seed),
      arena_(kThreadgroupMemoryBytes + 16),
      arena_history_(std::make_shared<History>(kThreadgroupMemoryBytes)) {}

void Threadgroup::report(Fault fault, const std::string& text) {
    if (static_cast<int>(reports_.size()) < max_reports_) reports_.push_back({fault, text});
}

std::string Threadgroup::where(int lane) const {
    return "lane " + std::to_string(lane % kMslSimdWidth) + " of SIMD group " + std::to_string(lane / kMslSimdWidth) +
           ", threadgroup (" + std::to_string(what_.position.x) + ", " + std::to_string(what_.position.y) + ", " +
           std::to_string(what_.position.z) + ")";
}

void Threadgroup::start(const ThreadgroupRun& what) {
    what_ = what;
    memory_.forget_threadgroup();
    variables_.clear();
    arena_used_ = 0;
    std::fill(arena_.begin(), arena_.end(), 0xff);  // NaNs
    std::fill(std::begin(barriers_), std::end(barriers_), 0);
    const int count = static_cast<int>(what.size.x * what.size.y * what.size.z);
    lanes_.assign(static_cast<size_t>(count), Lane{});
    groups_.resize(static_cast<size_t>((count + kMslSimdWidth - 1) / kMslSimdWidth));
    for (int i = 0; i < count; ++i) {
        // Stacks that start at the same offset of a page would compete for the same cache sets.
        const uintptr_t top = stacks_.begin(i) + Stacks::kBytes - static_cast<uintptr_t>(i % 61) * 64;
        lanes_[static_cast<size_t>(i)].context.fibre =
            make_fcontext(reinterpret_cast<void*>(top), Stacks::kBytes - 61 * 64, lane_entry);
    }
    for (size_t g = 0; g < groups_.size(); ++g) {
        SimdGroup& group = groups_[g];
        group.first = static_cast<int>(g) * kMslSimdWidth;
        group.count = std::min(kMslSimdWidth, count - group.first);
        group.order.resize(static_cast<size_t>(group.count));
        for (int i = 0; i < group.count; ++i) group.order[static_cast<size_t>(i)] = group.first + i;
        std::shuffle(group.order.begin(), group.order.end(), random_);
        std::fill(std::begin(group.barriers), std::end(group.barriers), 0);
        for (auto& slots : group.slots) {
            slots.active = 0;
            slots.has_result = false;
            slots.rotation = static_cast<uint32_t>(random_() % kMslSimdWidth);
        }
        group.turn = 0;
    }
}

// Lanes of a SIMD group hand over to one another, and the last one to the scheduler.
void Threadgroup::run_next(Context& from) {
    SimdGroup& group = *current_group_;
    while (group.next < group.count) {
        const int lane = group.order[static_cast<size_t>(group.next++)];
        if (lanes_[static_cast<size_t>(lane)].finished) continue;
        current_ = lane;
        go(from, lanes_[static_cast<size_t>(lane)].context);
        return;
    }
    if (&from != &scheduler_) go(from, scheduler_);
}

void Threadgroup::suspend() {
    run_next(lanes_[static_cast<size_t>(current_)].context);
}

void Threadgroup::lane_body() {
    Lane& lane = lanes_[static_cast<size_t>(current_)];
    what_.kernel->call(lane.arguments);
    lane.finished = true;
    lane.waits = MSL_NO_SYNC;
    lane.place = {};
    suspend();  // for good
}

// Whether these lanes all wait at the same place, or have all returned.
bool Threadgroup::meet(const std::vector<int>& lanes, Fault* fault, std::string* text) const {
    int first = -1;
    for (const int i : lanes) {
        const Lane& lane = lanes_[static_cast<size_t>(i)];
        if (lane.stopped) continue;
        if (first < 0) {
            first = i;
            continue;
        }
        const Lane& other = lanes_[static_cast<size_t>(first)];
        if (lane.waits == other.waits && same_place(lane.place, other.place)) continue;
        const bool simd = lane.waits != MSL_THREADGROUP_BARRIER && other.waits != MSL_THREADGROUP_BARRIER &&
                          (lane.waits == MSL_SIMD_OPERATION || other.waits == MSL_SIMD_OPERATION);
        *fault = simd ? Fault::kDivergentSimdOperation : Fault::kDivergentBarrier;
        const auto doing = [](const Lane& one) {
            return one.finished ? "has returned" : "is at " + text_of(one.place);
        };
        *text =
            std::string("divergence: ") + where(first) + ", " + doing(other) + ", and " + where(i) + " " + doing(lane);
        return false;
    }
    return true;
}

bool Threadgroup::run_simd_group(SimdGroup& group) {
    while (true) {
        current_group_ = &group;
        group.next = 0;
        run_next(scheduler_);
        if (refused_) return false;
        Fault fault;
        std::string text;
        if (!meet(group.order, &fault, &text)) {
            report(fault, text);
            return false;
        }
        const auto living = std::find_if(group.order.begin(), group.order.end(),
                                         [&](int i) { return !lanes_[static_cast<size_t>(i)].stopped; });
        if (living == group.order.end()) return true;
        const Lane& lane = lanes_[static_cast<size_t>(*living)];
        if (lane.finished || lane.waits == MSL_THREADGROUP_BARRIER) return true;
        if (lane.waits == MSL_SIMDGROUP_BARRIER) {
            for (int space = 0; space < kOrderedSpaces; ++space)
                if ((lane.memory >> space) & 1u) ++group.barriers[space];
        } else {
            group.turn ^= 1;
            group.slots[group.turn].active = 0;
            group.slots[group.turn].has_result = false;
        }
    }
}

bool Threadgroup::run_lanes() {
    running() = this;
    std::vector<size_t> order(groups_.size());
    for (size_t g = 0; g < order.size(); ++g) order[g] = g;
    std::vector<int> all(lanes_.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
    while (true) {
        std::shuffle(order.begin(), order.end(), random_);
        for (const size_t g : order) {
            if (!run_simd_group(groups_[g])) return false;
        }
        Fault fault;
        std::string text;
        if (!meet(all, &fault, &text)) {
            report(fault, text);
            return false;
        }
        const auto living = std::find_if(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return !lane.finished; });
        if (living == lanes_.end()) return true;
        for (int space = 0; space < kOrderedSpaces; ++space)
            if ((living->memory >> space) & 1u) ++barriers_[space];
    }
}

msl_exchange_slots* Threadgroup::exchange(const void* value, size_t bytes, const msl_place& place) {
    Lane& lane = lanes_[static_cast<size_t>(current_)];
    msl_exchange_slots& slots = current_group_->slots[current_group_->turn];
    const int index = lane_in_simd_group();
    std::memcpy(slots.values[index], value, bytes);
    slots.active |= 1u << index;
    lane.waits = MSL_SIMD_OPERATION;
    lane.place = place;
    suspend();
    return &slots;
}

void Threadgroup::barrier(msl_sync scope, unsigned memory, const msl_place& place) {
    Lane& lane = lanes_[static_cast<size_t>(current_)];
    lane.waits = scope;
    lane.place = place;
    lane.memory = memory;
    suspend();
}

// The current lane goes no further; others do.
void Threadgroup::stop_lane() {
    Lane& lane = lanes_[static_cast<size_t>(current_)];
    lane.finished = lane.stopped = true;
    suspend();
}

void Threadgroup::access(uintptr_t address, size_t size, Access access, const void* code) {
    if (!what_.check || size == 0) return;
    if (address - stacks_.begin(current_) < Stacks::kBytes) return;  // the lane's own: registers
    const bool threadgroup = address - arena_begin() < kThreadgroupMemoryBytes;
    const auto space = static_cast<size_t>(threadgroup ? Space::kThreadgroup : Space::kDevice);
    Moment now;
    now.group = what_.number + 1;
    now.lane = static_cast<uint16_t>(current_);
    now.barriers = barriers_[space];
    now.simd_barriers = current_group_->barriers[space];
    const auto found = memory_.access(address, size, access, now);
    if (!found) return;
    report(found->fault, found->text + ", " + where(current_) + line_of(code));
    // What would touch other memory must not happen.
    if (found->fault == Fault::kOutOfBoundsRead || found->fault == Fault::kOutOfBoundsWrite ||
        found->fault == Fault::kReadOnlyWrite)
        stop_lane();
}

void Threadgroup::undefined(const char* what, const char* file, uint32_t line, bool stops) {
    if (!what_.check) return;
    report(Fault::kUndefinedBehavior, std::string("undefined behaviour: ") + what + ", " + where(current_) + " (" +
                                          base_name(file) + ":" + std::to_string(line) + ")");
    if (stops) stop_lane();
}

uintptr_t Threadgroup::arena_begin() const {
    return (reinterpret_cast<uintptr_t>(arena_.data()) + 15) / 16 * 16;
}

void* Threadgroup::threadgroup_memory(const char* name, const void* id, size_t bytes) {
    for (const Variable& variable : variables_)
        if (variable.id == id) return variable.address;
    const size_t begin = arena_used_, end = arena_used_ + (bytes + 15) / 16 * 16;
    if (end > kThreadgroupMemoryBytes) {
        if (!refused_)
            report(Fault::kLaunch, std::string(name) + " would be the end of " + std::to_string(end) +
                                       " bytes of threadgroup memory; " + std::to_string(kThreadgroupMemoryBytes) +
                                       " are allowed");
        refused_ = true;
        stop_lane();
    }
    arena_used_ = end;
    Region region;
    region.name = std::string("threadgroup memory ") + name;
    region.space = Space::kThreadgroup;
    region.begin = arena_begin() + begin;
    region.bytes = bytes;
    region.writable = true;
    region.history = arena_history_;
    region.history_offset = begin;
    variables_.push_back({id, reinterpret_cast<void*>(region.begin)});
    memory_.add(std::move(region));
    return variables_.back().address;
}

}  // namespace tq::lanes
