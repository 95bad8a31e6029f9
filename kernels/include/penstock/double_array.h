// A byte trie as one array that is read in place: vocabularies of every kind are looked up in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace penstock {

// A view of nodes that someone else owns (a blob). Two bases may never lead to the same node, so a step is one
// load and one compare. Reading is safe from many threads.
class DoubleArray {
 public:
  struct Node {
    std::int32_t base;   // of the children: child = base ^ byte; 0 if there are none
    std::int32_t check;  // the node that this is a child of; -1 if unused
    std::int32_t value;  // of the key that ends here, or kNoValue
  };
  using State = std::uint32_t;
  static constexpr State kRoot = 0;
  static constexpr State kNone = 0xFFFFFFFF;
  static constexpr std::int32_t kNoValue = -1;

  DoubleArray() = default;
  explicit DoubleArray(std::span<const Node> nodes) noexcept : nodes_(nodes.data()), size_(nodes.size()) {}

  // Builds the nodes for keys with values >= 0. Of equal keys the last counts; the empty key matches nothing.
  // O(total key bytes) but for searching gaps; 250,000 keys take some hundred milliseconds.
  static std::vector<Node> build(std::vector<std::pair<std::string_view, std::int32_t>> keys);

  bool empty() const noexcept { return size_ == 0; }

  // The node one byte further, or kNone. Safe for broken nodes: never reads outside the array.
  State step(State state, unsigned char byte) const noexcept {
    const auto next = static_cast<State>(nodes_[state].base) ^ byte;
    return next < size_ && nodes_[next].check == static_cast<std::int32_t>(state) ? next : kNone;
  }

  std::int32_t value(State state) const noexcept { return nodes_[state].value; }

  // The node that all of `key` leads to from `start`, or kNone.
  State find(std::string_view key, State start = kRoot) const noexcept;

  // Value of exactly this key, or kNoValue.
  std::int32_t get(std::string_view key, State start = kRoot) const noexcept {
    const State state = key.empty() ? kNone : find(key, start);
    return state == kNone ? kNoValue : value(state);
  }

  struct Match {
    std::int32_t value;
    std::size_t size;  // bytes of text matched; 0 if nothing did
  };

  // The longest key, after `start`, that text begins with.
  Match longest(std::string_view text, State start = kRoot) const noexcept;

 private:
  const Node* nodes_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace penstock
