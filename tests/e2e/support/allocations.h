// This counts what the plugin allocates. A test linked with allocations.cpp has its own malloc, which looks at who
// called: an allocation is the plugin's if the plugin's code is closer on the stack than the CPU backend's, which
// allocates for itself in every run. Its tasks, run by the CPU backend's threads, count; so does what ggml-base or the
// C++ library allocates for the plugin.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tq::e2e {

// Counts while it lives, on all threads. One at a time; the plugin must be loaded.
class PluginAllocations {
  public:
    // fail_at: which of the plugin's allocations by operator new finds no memory, counted from 1; 0: none.
    explicit PluginAllocations(int64_t fail_at = 0);
    ~PluginAllocations();
    PluginAllocations(const PluginAllocations&) = delete;
    PluginAllocations& operator=(const PluginAllocations&) = delete;

    int64_t count() const;
};

// While it lives, freed memory is overwritten and not used again, so that nobody gets away with using it. Except for
// the last large block: it is what the next aligned allocation of its size gets. One at a time, and not for long.
class FreedMemory {
  public:
    FreedMemory();
    ~FreedMemory();
    FreedMemory(const FreedMemory&) = delete;
    FreedMemory& operator=(const FreedMemory&) = delete;

    // Nobody has written to what was freed.
    bool untouched() const;
};

}  // namespace tq::e2e
