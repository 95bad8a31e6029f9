// A byte trie in one hash table of edges: what vocabularies and added tokens are looked up in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace penstock {

// Immutable after the last insert; reading is safe from many threads.
class Trie {
 public:
  using Node = std::uint32_t;
  static constexpr Node kRoot = 0;
  static constexpr Node kNone = 0xFFFFFFFF;
  static constexpr std::int32_t kNoValue = -1;

  Trie();

  // Maps key to value (>= 0); the last value given for a key wins. The empty key matches nothing.
  void insert(std::string_view key, std::int32_t value);

  // The node one byte further, or kNone. O(1) on average.
  Node step(Node node, unsigned char byte) const noexcept {
    const std::uint64_t key = edge_key(node, byte);
    for (std::size_t at = slot_of(key);; ++at) {
      const Edge& edge = edges_[at & mask_];
      if (edge.key == key) return edge.child;
      if (edge.key == kFree) return kNone;
    }
  }

  // Value of the key that ends at this node, or kNoValue.
  std::int32_t value(Node node) const noexcept { return values_[node]; }

  // The node that the whole key leads to, or kNone.
  Node find(std::string_view key) const noexcept;

  struct Match {
    std::int32_t value;
    std::size_t size;  // bytes of text matched; 0 if nothing did
  };

  // The longest key, after `start`, that text begins with. Bytes up to the longest key are read at most.
  Match longest(std::string_view text, Node start = kRoot) const noexcept;

 private:
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};

  struct Edge {
    std::uint64_t key;
    Node child;
  };

  static std::uint64_t edge_key(Node node, unsigned char byte) noexcept {
    return static_cast<std::uint64_t>(node) << 8 | byte;
  }
  std::size_t slot_of(std::uint64_t key) const noexcept {
    return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15U) >> shift_);
  }
  void place(const Edge& edge) noexcept;
  void grow();

  std::vector<Edge> edges_;
  std::vector<std::int32_t> values_;
  std::size_t mask_;
  unsigned shift_;
};

}  // namespace penstock
