#include "penstock/double_array.h"

#include <algorithm>
#include <map>
#include <random>
#include <stdexcept>

#include "check.h"

using namespace penstock;

namespace {

using Keys = std::vector<std::pair<std::string_view, std::int32_t>>;

void keys_are_found_and_nothing_else() {
  const auto nodes = DoubleArray::build({{"ab", 1}, {"abc", 2}, {"b", 0}, {std::string_view("\0\xff", 2), 3}});
  const DoubleArray trie(nodes);
  CHECK(trie.get("ab") == 1 && trie.get("abc") == 2 && trie.get("b") == 0);
  CHECK(trie.get(std::string_view("\0\xff", 2)) == 3);
  for (const char* absent : {"", "a", "abcd", "c", "ba"}) CHECK(trie.get(absent) == DoubleArray::kNoValue);
}

void the_longest_key_wins() {
  const auto nodes = DoubleArray::build({{"a", 1}, {"abc", 2}, {"##b", 3}, {"##bcd", 4}});
  const DoubleArray trie(nodes);
  CHECK(trie.longest("abd").value == 1 && trie.longest("abd").size == 1);
  CHECK(trie.longest("abcd").value == 2 && trie.longest("abcd").size == 3);
  CHECK(trie.longest("bc").size == 0 && trie.longest("").size == 0);
  const DoubleArray::State inside = trie.find("##");
  CHECK(trie.longest("bcde", inside).value == 4 && trie.longest("bcx", inside).value == 3);
  CHECK(trie.longest("bc", trie.find("absent")).size == 0);
}

void of_equal_keys_the_last_counts_and_the_empty_one_never() {
  const auto nodes = DoubleArray::build({{"a", 7}, {"", 5}, {"a", 6}});
  const DoubleArray trie(nodes);
  CHECK(trie.get("a") == 6 && trie.get("") == DoubleArray::kNoValue);
  CHECK(trie.value(DoubleArray::kRoot) == DoubleArray::kNoValue);
}

void nothing_is_found_in_nothing() {
  const DoubleArray unset;
  CHECK(unset.empty() && unset.get("a") == DoubleArray::kNoValue && unset.longest("a").size == 0);
  const auto nodes = DoubleArray::build({});
  CHECK(DoubleArray(nodes).get("a") == DoubleArray::kNoValue);
}

void negative_values_are_refused() {
  bool refused = false;
  try {
    DoubleArray::build({{"a", -1}});
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  CHECK(refused);
}

std::map<std::string, std::int32_t> random_keys(std::mt19937& random, std::size_t count, unsigned letters) {
  std::map<std::string, std::int32_t> keys;
  for (std::size_t i = 0; i < count; ++i) {
    std::string key(1 + random() % 9, '\0');
    for (char& byte : key) byte = static_cast<char>(random() % letters);
    keys[key] = static_cast<std::int32_t>(i);
  }
  return keys;
}

void it_agrees_with_a_map_on_random_keys() {
  std::mt19937 random(20);
  for (const unsigned letters : {2U, 20U, 256U}) {
    const auto keys = random_keys(random, 20000, letters);
    Keys listed(keys.begin(), keys.end());
    std::shuffle(listed.begin(), listed.end(), random);
    const auto nodes = DoubleArray::build(listed);
    const DoubleArray trie(nodes);
    for (const auto& [key, value] : keys) CHECK(trie.get(key) == value);
    for (const auto& [key, value] : random_keys(random, 20000, letters)) {
      const auto known = keys.find(key);
      CHECK(trie.get(key) == (known == keys.end() ? DoubleArray::kNoValue : known->second));
    }
  }
}

void a_key_of_a_megabyte_needs_no_stack() {
  const std::string key(1 << 20, 'a');
  const auto nodes = DoubleArray::build({{key, 1}});
  CHECK(DoubleArray(nodes).longest(key + "b").size == key.size());
}

void broken_nodes_are_never_left() {
  std::mt19937 random(21);
  std::vector<DoubleArray::Node> nodes(300);
  for (auto& node : nodes) {
    node.base = static_cast<std::int32_t>(random() % 4 ? random() % 600 : random());
    node.check = static_cast<std::int32_t>(random() % 4 ? random() % 300 : random());
    node.value = static_cast<std::int32_t>(random());
  }
  for (const auto& [key, value] : random_keys(random, 5000, 256)) DoubleArray(nodes).longest(key);
}

}  // namespace

int main() {
  keys_are_found_and_nothing_else();
  the_longest_key_wins();
  of_equal_keys_the_last_counts_and_the_empty_one_never();
  nothing_is_found_in_nothing();
  negative_values_are_refused();
  it_agrees_with_a_map_on_random_keys();
  a_key_of_a_megabyte_needs_no_stack();
  broken_nodes_are_never_left();
}
