#include "bench/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <thread>

namespace tq::tool {
namespace {

constexpr size_t kAssumedCache = size_t{32} << 20;  // bytes assumed where the system does not say
constexpr size_t kAssumedMemory = size_t{4} << 30;

// The value of the first "key : value" line.
std::string field(const char* file, const std::string& key) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        if (!line.starts_with(key)) continue;
        const size_t colon = line.find(':');
        const size_t value = colon == std::string::npos ? colon : line.find_first_not_of(" \t", colon + 1);
        if (value != std::string::npos) return line.substr(value);
    }
    return "";
}

// "32768K"
size_t size_of(const std::string& text) {
    size_t end = 0;
    const size_t number = std::stoul(text, &end);
    const char unit = end < text.size() ? text[end] : ' ';
    return unit == 'K' ? number << 10 : unit == 'M' ? number << 20 : number;
}

// sysfs rather than sysconf, which in virtual machines may give the host's sum over all its cores.
size_t largest_cache() {
    size_t largest = 0;
    for (int index = 0; index < 8; ++index) {
        std::ifstream in("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
        std::string text;
        if (in >> text && text[0] >= '0' && text[0] <= '9') largest = std::max(largest, size_of(text));
    }
    if (largest > 0) return largest;
    const long size = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return size > 0 ? static_cast<size_t>(size) : kAssumedCache;
}

size_t available_memory() {
    const std::string text = field("/proc/meminfo", "MemAvailable");
    return text.empty() ? kAssumedMemory : std::stoul(text) << 10;  // kB
}

}  // namespace

int usable_cores() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    return static_cast<int>(std::thread::hardware_concurrency());
}

Machine this_machine() {
    Machine machine;
    machine.cpu = field("/proc/cpuinfo", "model name");
    if (machine.cpu.empty()) machine.cpu = "unknown";
    machine.cores = usable_cores();
    machine.l3_bytes = largest_cache();
    machine.available_bytes = available_memory();
    return machine;
}

}  // namespace tq::tool
