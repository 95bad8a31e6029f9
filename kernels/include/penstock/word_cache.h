// What a word became last time: a cache from the bytes of a word to its tokens, for the fast paths.
//
// Two tables of fixed size. Short entries (32 bytes, two to a cache line) hold words of up to 15 bytes that
// became up to 3 tokens: nearly everything in running text. Long entries (128 bytes) hold words of up to 47
// bytes and 12 tokens. A hit is a comparison of whole words, never of hashes, so that a cached word has
// exactly the tokens it was inserted with. What fits neither is computed each time.
//
// Meant for two passes over some dozens of words: the first makes keys and hashes and prefetches, the second
// looks up and emits; the tables are larger than the caches close to the core, and this way their latencies
// overlap. A word that is not there is computed and inserted; of the two entries that share a hash the one
// inserted last but one is dropped.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace penstock {

__extension__ typedef unsigned __int128 Uint128;  // what multiplying two words gives

// A word of 1 to 15 bytes: its bytes, zeros, and its size in the last byte. What the bytes stand for (raw or
// normalised text) is up to the caller, as long as equal keys mean equal tokens.
struct ShortKey {
  std::uint64_t low;
  std::uint64_t high;

  bool operator==(const ShortKey&) const = default;
};

// Tokens of a short word. They lie side by side: each begins where the one before it ends, the first at 0.
// ids and what follows are 16 bytes, which may be stored at once.
struct ShortEntry {
  static constexpr std::size_t kBytesMax = 15;
  static constexpr std::size_t kTokensMax = 3;

  ShortKey key;
  std::int32_t ids[kTokensMax];
  std::uint8_t ends[kTokensMax];  // of each token within the word, in code points
  std::uint8_t count;             // tokens; 0 if the word leaves nothing
};

struct alignas(64) ShortBucket {
  ShortEntry entries[2];  // the first was inserted last
};

// Tokens of a longer word, of one that became more tokens, or of one whose tokens overlap or leave gaps.
struct alignas(64) LongEntry {
  static constexpr std::size_t kBytesMax = 47;
  static constexpr std::size_t kTokensMax = 12;

  char bytes[kBytesMax];  // zeros behind the word
  std::uint8_t size;
  std::int32_t ids[kTokensMax];
  std::uint8_t begins[kTokensMax];  // of each token within the word, in code points
  std::uint8_t ends[kTokensMax];
  std::uint8_t count;
  std::uint8_t unused[7];
};

static_assert(sizeof(ShortEntry) == 32 && sizeof(ShortBucket) == 64 && sizeof(LongEntry) == 128);
static_assert(std::endian::native == std::endian::little, "keys have their size in the last byte");

// Belongs to one thread. Memory is taken at construction, in huge pages where the system has them, and never
// grows.
class WordCache {
 public:
  // Holds at most `bytes`, but two buckets of each table if that is too little; both tables are powers of two
  // in size. 6 MiB are 131,072 short entries and 16,384 long ones. Throws std::bad_alloc.
  explicit WordCache(std::size_t bytes);
  ~WordCache();
  WordCache(const WordCache&) = delete;
  WordCache& operator=(const WordCache&) = delete;

  // Bytes of both tables.
  std::size_t bytes() const noexcept { return bytes_; }
  std::size_t short_entries() const noexcept { return std::size_t{2} << (64 - short_shift_); }

  // Forgets all words.
  void clear() noexcept;

  // The key of 1 to 15 bytes.
  static ShortKey short_key(std::string_view word) noexcept {
    ShortKey key{0, 0};
    std::memcpy(&key, word.data(), word.size());
    key.high |= static_cast<std::uint64_t>(word.size()) << 56;
    return key;
  }

  // The multipliers are odd and otherwise of no meaning; only the highest bits of the sum are used.
  static std::uint64_t hash(ShortKey key) noexcept {
    return key.low * 0x9E3779B97F4A7C15U + key.high * 0xD6E8FEB86659FD93U;
  }
  // Of any word.
  static std::uint64_t hash(std::string_view word) noexcept;

  // Where a word of this hash would be.
  ShortBucket& bucket(std::uint64_t hash) const noexcept { return short_[hash >> short_shift_]; }
  const ShortBucket* buckets() const noexcept { return short_; }
  unsigned short_shift() const noexcept { return short_shift_; }

  static void prefetch(const ShortBucket& bucket) noexcept { __builtin_prefetch(&bucket); }
  void prefetch_long(std::uint64_t hash) const noexcept {
    const char* pair = reinterpret_cast<const char*>(long_pair(hash));
    for (int line = 0; line < 4; ++line) __builtin_prefetch(pair + 64 * line);
  }

  // The entry, or null. Valid until the next insert.
  static const ShortEntry* find(const ShortBucket& bucket, ShortKey key) noexcept {
    for (const ShortEntry& entry : bucket.entries)
      if (entry.key == key) return &entry;
    return nullptr;
  }
  // `hash` is that of the word. Words of more than LongEntry::kBytesMax bytes are never there.
  const LongEntry* find_long(std::string_view word, std::uint64_t hash) const noexcept;

  // The word must not be there yet.
  void insert(ShortBucket& bucket, const ShortEntry& entry) noexcept {
    bucket.entries[1] = bucket.entries[0];
    bucket.entries[0] = entry;
  }
  // A place for a word of at most LongEntry::kBytesMax bytes that is not there yet: bytes and size are set,
  // the caller fills in the rest.
  LongEntry& insert_long(std::string_view word, std::uint64_t hash) noexcept;

 private:
  LongEntry* long_pair(std::uint64_t hash) const noexcept { return long_ + 2 * (hash >> long_shift_); }

  ShortBucket* short_;
  LongEntry* long_;
  unsigned short_shift_;
  unsigned long_shift_;
  std::size_t bytes_;
  char* memory_;
};

inline std::uint64_t WordCache::hash(std::string_view word) noexcept {
  std::uint64_t sum = word.size() * 0x9E3779B97F4A7C15U;
  const auto mix = [&sum](std::uint64_t low, std::uint64_t high) noexcept {
    const auto product = static_cast<Uint128>(sum ^ low ^ 0x9E3779B97F4A7C15U) *
                         (high ^ 0xD6E8FEB86659FD93U ^ std::rotl(sum, 32));
    sum = static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
  };
  std::uint64_t low, high;
  std::size_t at = 0;
  for (; at + 16 <= word.size(); at += 16) {
    std::memcpy(&low, word.data() + at, 8);
    std::memcpy(&high, word.data() + at + 8, 8);
    mix(low, high);
  }
  if (at < word.size()) {
    char rest[16] = {};
    std::memcpy(rest, word.data() + at, word.size() - at);
    std::memcpy(&low, rest, 8);
    std::memcpy(&high, rest + 8, 8);
    mix(low, high);
  }
  return sum;
}

inline const LongEntry* WordCache::find_long(std::string_view word, std::uint64_t hash) const noexcept {
  const LongEntry* pair = long_pair(hash);
  for (int i = 0; i < 2; ++i)
    if (pair[i].size == word.size() && std::memcmp(pair[i].bytes, word.data(), word.size()) == 0) return pair + i;
  return nullptr;
}

inline LongEntry& WordCache::insert_long(std::string_view word, std::uint64_t hash) noexcept {
  LongEntry* pair = long_pair(hash);
  pair[1] = pair[0];
  std::memset(pair[0].bytes, 0, sizeof pair[0].bytes);
  std::memcpy(pair[0].bytes, word.data(), word.size());
  pair[0].size = static_cast<std::uint8_t>(word.size());
  return pair[0];
}

}  // namespace penstock
