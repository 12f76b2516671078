// Large memory that is read from one end to the other reads faster in pages of 2 MB: far fewer addresses to translate.
#pragma once

#include <cstddef>

namespace tq {

// Asks the system for such pages in [memory, memory + bytes), before anything was written there. It is a hint: where
// the system has none, or does not leave it to programs, nothing happens. Pages are still taken when they are first
// written to, 2 MB of them at a time.
void prefer_huge_pages(void* memory, size_t bytes);

}  // namespace tq
