#include "penstock/word_cache.h"

#include <string>

#include "check.h"

using namespace penstock;

namespace {

ShortEntry short_entry(const std::string& word, std::int32_t id) {
  return {WordCache::short_key(word), {id, id + 1, id + 2}, {1, 2, 3}, 3};
}

void remember(WordCache& cache, const std::string& word, std::int32_t id) {
  ShortBucket& bucket = cache.bucket(WordCache::hash(WordCache::short_key(word)));
  if (!WordCache::find(bucket, WordCache::short_key(word))) cache.insert(bucket, short_entry(word, id));
}

const ShortEntry* find(const WordCache& cache, const std::string& word) {
  const ShortKey key = WordCache::short_key(word);
  return WordCache::find(cache.bucket(WordCache::hash(key)), key);
}

void words_are_found_with_their_own_tokens_only() {
  WordCache cache(64 * 1024);
  for (int i = 0; i < 20000; ++i) remember(cache, "word" + std::to_string(i), i);
  int found = 0;
  for (int i = 0; i < 20000; ++i) {
    const ShortEntry* entry = find(cache, "word" + std::to_string(i));
    if (entry) CHECK(entry->ids[0] == i && entry->count == 3);
    found += entry != nullptr;
  }
  // The table is nearly full of what was inserted last.
  CHECK(static_cast<std::size_t>(found) > cache.short_entries() * 9 / 10);
  CHECK(find(cache, "word19999") && !find(cache, "wor") && !find(cache, "never"));
}

void sizes_are_part_of_keys() {
  WordCache cache(0);
  const std::string with_zero("a\0", 2);
  CHECK(!(WordCache::short_key("a") == WordCache::short_key(with_zero)));
  remember(cache, "a", 1);
  CHECK(!find(cache, with_zero));
  const ShortKey full = WordCache::short_key("123456789012345");
  CHECK(full.high >> 56 == 15);
}

void long_words_are_compared_byte_by_byte() {
  WordCache cache(1 << 20);
  for (std::size_t size = 1; size <= LongEntry::kBytesMax; ++size) {
    const std::string word(size, 'x');
    const std::uint64_t hash = WordCache::hash(std::string_view(word));
    CHECK(!cache.find_long(word, hash));
    LongEntry& entry = cache.insert_long(word, hash);
    entry.ids[0] = static_cast<std::int32_t>(size);
    entry.count = 1;
    CHECK(cache.find_long(word, hash)->ids[0] == static_cast<std::int32_t>(size));
    std::string other = word;
    other.back() = 'y';
    CHECK(!cache.find_long(other, hash));
  }
  CHECK(!cache.find_long(std::string(300, 'x'), WordCache::hash(std::string_view("xxx"))));
}

void the_last_but_one_makes_room() {
  WordCache cache(0);
  ShortBucket& bucket = cache.bucket(0);
  for (const char* word : {"one", "two", "three"}) cache.insert(bucket, short_entry(word, 5));
  CHECK(!WordCache::find(bucket, WordCache::short_key("one")));
  CHECK(WordCache::find(bucket, WordCache::short_key("two")) && WordCache::find(bucket, WordCache::short_key("three")));
}

void memory_stays_within_what_was_allowed() {
  for (const std::size_t bytes : {std::size_t{4096}, std::size_t{1} << 16, std::size_t{5} << 20, std::size_t{7000000}}) {
    const WordCache cache(bytes);
    CHECK(cache.bytes() <= bytes && cache.bytes() >= bytes / 2);
  }
  const WordCache cache(std::size_t{5} << 20);
  CHECK(cache.bytes() == std::size_t{5} << 20 && cache.short_entries() == 131072);
}

void clearing_forgets_everything() {
  WordCache cache(1 << 16);
  remember(cache, "one", 1);
  cache.insert_long("one", 3).count = 0;
  cache.clear();
  CHECK(!find(cache, "one") && !cache.find_long("one", 3));
}

}  // namespace

int main() {
  words_are_found_with_their_own_tokens_only();
  sizes_are_part_of_keys();
  long_words_are_compared_byte_by_byte();
  the_last_but_one_makes_room();
  memory_stays_within_what_was_allowed();
  clearing_forgets_everything();
}
