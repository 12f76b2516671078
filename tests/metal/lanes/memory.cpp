#include "memory.h"

#include <algorithm>

namespace tq::lanes {
namespace {

// Whether what happened `before` is done for good when the other one happens.
bool ordered(const Moment& before, const Moment& now, Space space) {
    if (before.group == 0) return true;
    if (before.group != now.group) return space == Space::kThreadgroup;
    if (!before.several_lanes && before.lane == now.lane) return true;
    if (before.barriers < now.barriers) return true;
    const bool one_simd_group = !before.several_simd_groups && before.lane / kMslSimdWidth == now.lane / kMslSimdWidth;
    return one_simd_group && before.simd_barriers < now.simd_barriers;
}

// One moment for two that are not ordered: a write conflicts with it if it conflicts with either.
Moment merged(const Moment& before, const Moment& now) {
    Moment both = now;
    both.several_lanes = true;
    both.several_simd_groups = before.several_simd_groups || before.group != now.group ||
                               before.lane / kMslSimdWidth != now.lane / kMslSimdWidth;
    // Nothing in this dispatch comes after what several threadgroups did.
    if (before.group != now.group || before.barriers == UINT16_MAX) both.barriers = both.simd_barriers = UINT16_MAX;
    return both;
}

std::string place(const Moment& moment) {
    return "lane " + std::to_string(moment.lane % kMslSimdWidth) + " of SIMD group " +
           std::to_string(moment.lane / kMslSimdWidth) + " of threadgroup " + std::to_string(moment.group - 1);
}

Report race(const char* what, const Region& region, size_t offset, const Moment& before) {
    return {region.space == Space::kThreadgroup ? Fault::kThreadgroupRace : Fault::kDeviceRace,
            std::string("race, ") + what + ": " + region.name + " at +" + std::to_string(offset) +
                ", touched before by " + place(before) + (before.several_lanes ? " and others" : "")};
}

bool is_written(const Region& region, size_t offset, const History::Byte* byte, const Moment& by) {
    if (region.space != Space::kThreadgroup) return region.defined == nullptr || region.defined[offset] != 0;
    return byte->writer.group == by.group || byte->atomic.group == by.group;  // others' threadgroup memory is gone
}

// One byte's part of an access.
std::optional<Report> touch(Region& region, size_t offset, Access access, const Moment& by) {
    History::Byte* byte = region.history ? &(*region.history)[region.history_offset + offset] : nullptr;
    std::optional<Report> report;
    if (access.reads && !is_written(region, offset, byte, by))
        report = {Fault::kUninitializedRead,
                  "read of uninitialized memory: " + region.name + " at +" + std::to_string(offset)};
    if (byte == nullptr) return report;
    const auto against = [&](const Moment& before, const char* what) {
        if (!report && !ordered(before, by, region.space)) report = race(what, region, offset, before);
    };
    against(byte->writer, access.writes ? "write after write" : "read after write");
    if (!access.atomic) against(byte->atomic, "plain access after an atomic one");
    if (access.writes) against(byte->reader, "write after read");
    Moment& record = access.atomic ? byte->atomic : access.writes ? byte->writer : byte->reader;
    record = ordered(record, by, region.space) ? by : merged(record, by);
    if (access.writes && region.defined != nullptr) region.defined[offset] = 1;
    return report;
}

}  // namespace

void Memory::add(Region region) {
    if (region.writable && !region.history) region.history = std::make_shared<History>(region.bytes);
    // A buffer may be bound twice, to read and to write: what is known of it is then in the writable region.
    const auto place = region.writable ? regions_.begin() : regions_.end();
    regions_.insert(place, std::make_unique<Region>(std::move(region)));
}

void Memory::forget_threadgroup() {
    last_ = nullptr;
    regions_.erase(std::remove_if(regions_.begin(), regions_.end(),
                                  [](const auto& region) { return region->space == Space::kThreadgroup; }),
                   regions_.end());
}

Region* Memory::find(uintptr_t address, size_t size) {
    if (last_ != nullptr && last_->has(address, size)) return last_;
    for (const auto& region : regions_) {
        if (region->has(address, size)) return last_ = region.get();
    }
    return nullptr;
}

std::string Memory::nearest(uintptr_t address) const {
    const Region* best = nullptr;
    uintptr_t best_distance = UINTPTR_MAX;
    for (const auto& region : regions_) {
        const uintptr_t end = region->begin + region->bytes;
        const uintptr_t distance = address < region->begin ? region->begin - address
                                   : address >= end        ? address - end
                                                           : 0;
        if (distance < best_distance) {
            best_distance = distance;
            best = region.get();
        }
    }
    if (best == nullptr || best_distance > (1u << 20)) return "an address that is in no memory of the kernel";
    const auto offset = static_cast<intptr_t>(address - best->begin);
    return best->name + " (" + std::to_string(best->bytes) + " bytes) at " + (offset < 0 ? "" : "+") +
           std::to_string(offset);
}

std::optional<Report> Memory::access(uintptr_t address, size_t size, Access access, const Moment& by) {
    Region* region = find(address, size);
    if (region == nullptr) {
        return Report{access.writes ? Fault::kOutOfBoundsWrite : Fault::kOutOfBoundsRead,
                      std::string("out-of-bounds ") + (access.writes ? "write of " : "read of ") +
                          std::to_string(size) + " bytes: " + nearest(address)};
    }
    const size_t offset = address - region->begin;
    if (access.writes && !region->writable)
        return Report{Fault::kReadOnlyWrite,
                      "write to read-only memory: " + region->name + " at +" + std::to_string(offset)};
    if (region->defined == nullptr && !region->history) return std::nullopt;
    std::optional<Report> first;
    for (size_t i = offset; i < offset + size; ++i) {
        auto report = touch(*region, i, access, by);
        if (report && !first) first = std::move(report);
    }
    return first;
}

}  // namespace tq::lanes
