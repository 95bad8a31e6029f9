#include "penstock/word_cache.h"

#include <algorithm>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace penstock {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLine = 64;

#ifdef __linux__

// Zeroed memory that begins at a huge page, if it is as large as one; the kernel is asked for huge pages before
// any of it is touched. It ends where it should: else the last of them would reach beyond the end.
void* take(std::size_t bytes) {
  const std::size_t spare = bytes >= kHugePage ? kHugePage : 0;
  void* memory = mmap(nullptr, bytes + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  if (!spare) return memory;
  char* const mapped = static_cast<char*>(memory);
  const std::size_t before = -reinterpret_cast<std::uintptr_t>(mapped) % kHugePage;
  if (before) munmap(mapped, before);
  munmap(mapped + before + bytes, spare - before);
  madvise(mapped + before, bytes, MADV_HUGEPAGE);
  return mapped + before;
}
void give_back(void* memory, std::size_t bytes) noexcept { munmap(memory, bytes); }

#else

void* take(std::size_t bytes) {
  void* memory = ::operator new(bytes, std::align_val_t{kLine});
  std::memset(memory, 0, bytes);
  return memory;
}
void give_back(void* memory, std::size_t) noexcept { ::operator delete(memory, std::align_val_t{kLine}); }

#endif

// log2 of the buckets in a table; at least 1, so that hashes are shifted by less than 64.
unsigned bucket_bits(std::size_t bytes, std::size_t bucket_bytes) noexcept {
  return std::max(1U, static_cast<unsigned>(std::bit_width(bytes / bucket_bytes)) - (bytes >= bucket_bytes));
}

}  // namespace

WordCache::WordCache(std::size_t bytes) {
  const unsigned short_bits = bucket_bits(bytes / 5 * 4, sizeof(ShortBucket));
  const std::size_t short_bytes = sizeof(ShortBucket) << short_bits;
  const unsigned long_bits = bucket_bits(bytes > short_bytes ? bytes - short_bytes : 0, 2 * sizeof(LongEntry));
  const std::size_t long_bytes = 2 * sizeof(LongEntry) << long_bits;
  bytes_ = short_bytes + long_bytes;
  memory_ = static_cast<char*>(take(bytes_));
  short_ = reinterpret_cast<ShortBucket*>(memory_);
  long_ = reinterpret_cast<LongEntry*>(memory_ + short_bytes);
  short_shift_ = 64 - short_bits;
  long_shift_ = 64 - long_bits;
}

WordCache::~WordCache() { give_back(memory_, bytes_); }

void WordCache::clear() noexcept {
  std::memset(static_cast<void*>(short_), 0, bytes_);  // the long entries follow the short ones
}

}  // namespace penstock
