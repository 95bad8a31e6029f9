#include "penstock/double_array.h"

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>

namespace penstock {

namespace {

using Key = std::pair<std::string_view, std::int32_t>;

constexpr std::size_t kBlock = 256;  // the children of one node lie in one block, as child = base ^ byte
// Gaps are looked for in the newest blocks only, which bounds the search; chosen: nine tenths of the nodes of
// real vocabularies are used, and more blocks gain little.
constexpr std::size_t kOpenBlocks = 24;

// Lays nodes out: hands out gaps that fit a set of children.
class Layout {
 public:
  Layout() { add_block(); }

  std::vector<DoubleArray::Node> take() && { return std::move(nodes_); }
  DoubleArray::Node& node(std::size_t index) { return nodes_[index]; }

  void occupy(std::size_t index, std::int32_t parent) {
    nodes_[index].check = parent;
    free_[index / kBlock].erase(static_cast<unsigned char>(index % kBlock));
  }

  // A base, not 0, from which all of `bytes` (sorted, distinct, not empty) lead to unused nodes.
  std::size_t find_base(std::span<const unsigned char> bytes) {
    const std::size_t first = free_.size() > kOpenBlocks ? free_.size() - kOpenBlocks : 0;
    for (std::size_t block = first; block < free_.size(); ++block) {
      if (free_[block].count() < bytes.size()) continue;
      for (unsigned low = free_[block].next(0); low < kBlock; low = free_[block].next(low + 1)) {
        const std::size_t base = block * kBlock + (low ^ bytes[0]);
        if (base != 0 && fits(block, base % kBlock, bytes)) return base;
      }
    }
    add_block();
    return (free_.size() - 1) * kBlock;
  }

 private:
  // Which nodes of a block are unused.
  class Gaps {
   public:
    Gaps() { bits_.fill(~std::uint64_t{0}); }
    std::size_t count() const { return count_; }
    bool has(unsigned low) const { return bits_[low / 64] >> (low % 64) & 1; }
    void erase(unsigned low) {
      count_ -= has(low);
      bits_[low / 64] &= ~(std::uint64_t{1} << (low % 64));
    }
    // The first unused node at or after `low`, or kBlock.
    unsigned next(unsigned low) const {
      for (; low < kBlock; low = (low / 64 + 1) * 64)
        if (const std::uint64_t rest = bits_[low / 64] >> (low % 64))
          return low + static_cast<unsigned>(__builtin_ctzll(rest));
      return kBlock;
    }

   private:
    std::array<std::uint64_t, kBlock / 64> bits_;
    std::size_t count_ = kBlock;
  };

  bool fits(std::size_t block, std::size_t low, std::span<const unsigned char> bytes) const {
    return std::all_of(bytes.begin(), bytes.end(),
                       [&](unsigned char byte) { return free_[block].has(static_cast<unsigned>(low) ^ byte); });
  }

  void add_block() {
    if (nodes_.size() + kBlock > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
      throw std::length_error("the vocabulary is too large for one trie");
    nodes_.resize(nodes_.size() + kBlock, {0, -1, DoubleArray::kNoValue});
    free_.emplace_back();
  }

  std::vector<DoubleArray::Node> nodes_;
  std::vector<Gaps> free_;
};

// The keys [begin, end) share their first `depth` bytes, which lead to `state`.
struct Branch {
  std::size_t begin;
  std::size_t end;
  std::size_t depth;
  std::size_t state;
};

// Lays out the children of one node and pushes them on `open`.
void expand(const std::vector<Key>& keys, Branch branch, Layout& layout, std::vector<Branch>& open) {
  while (branch.begin < branch.end && keys[branch.begin].first.size() == branch.depth) {
    if (branch.depth) layout.node(branch.state).value = keys[branch.begin].second;  // of equal keys the last
    ++branch.begin;
  }
  if (branch.begin == branch.end) return;

  std::array<unsigned char, kBlock> bytes;
  std::array<std::size_t, kBlock + 1> starts;
  std::size_t children = 0;
  for (std::size_t key = branch.begin; key < branch.end; ++key) {
    const auto byte = static_cast<unsigned char>(keys[key].first[branch.depth]);
    if (children && bytes[children - 1] == byte) continue;
    bytes[children] = byte;
    starts[children++] = key;
  }
  starts[children] = branch.end;

  const std::size_t base = layout.find_base({bytes.data(), children});
  layout.node(branch.state).base = static_cast<std::int32_t>(base);
  for (std::size_t child = 0; child < children; ++child) {
    const std::size_t state = base ^ bytes[child];
    layout.occupy(state, static_cast<std::int32_t>(branch.state));
    open.push_back({starts[child], starts[child + 1], branch.depth + 1, state});
  }
}

}  // namespace

std::vector<DoubleArray::Node> DoubleArray::build(std::vector<Key> keys) {
  for (const auto& [key, value] : keys)
    if (value < 0) throw std::invalid_argument("a trie's values must not be negative");
  std::stable_sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) { return a.first < b.first; });
  Layout layout;
  layout.occupy(kRoot, -1);
  std::vector<Branch> open = {{0, keys.size(), 0, kRoot}};
  while (!open.empty()) {
    const Branch branch = open.back();
    open.pop_back();
    expand(keys, branch, layout, open);
  }
  return std::move(layout).take();
}

DoubleArray::State DoubleArray::find(std::string_view key, State start) const noexcept {
  if (start >= size_) return kNone;
  State state = start;
  for (const char byte : key) {
    state = step(state, static_cast<unsigned char>(byte));
    if (state == kNone) return kNone;
  }
  return state;
}

DoubleArray::Match DoubleArray::longest(std::string_view text, State start) const noexcept {
  Match best{kNoValue, 0};
  if (start >= size_) return best;
  State state = start;
  for (std::size_t at = 0; at < text.size(); ++at) {
    state = step(state, static_cast<unsigned char>(text[at]));
    if (state == kNone) break;
    if (value(state) != kNoValue) best = {value(state), at + 1};
  }
  return best;
}

}  // namespace penstock
