// A serial schedule: what runs in which order, for how long, and by when each item must be done.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

namespace penstock {

// Stands for "no deadline", and for the slack of nothing. Far from the ends of int64, so that sums stay inside.
inline constexpr std::int64_t kNever = std::int64_t{1} << 61;

// Orders items: by rank, then by urgency, then by sequence, which makes keys unique.
struct ScheduleKey {
  std::int32_t rank;
  std::int64_t urgency_ns;
  std::int64_t sequence;
  auto operator<=>(const ScheduleKey&) const = default;
};

// A treap whose nodes know, of their subtree, the sum of costs and the least slack. The slack of an item is its
// due time less the costs of all items up to and including itself: add the time at which the schedule begins to
// compare it with a clock. So "would this item make any later one late" is one walk from the root.
//
// Every operation is O(log n) expected. Costs are at least 0; due times at most kNever; all sums must stay below
// kNever. Nodes are indices that stay valid until erased.
class DeadlineTree {
 public:
  using Node = std::int32_t;
  static constexpr Node kNone = -1;

  Node insert(const ScheduleKey& key, std::int64_t due_ns, std::int64_t cost_ns);
  void erase(Node node) noexcept;
  void update(Node node, std::int64_t due_ns, std::int64_t cost_ns) noexcept;

  const ScheduleKey& key(Node node) const noexcept { return items_[node].key; }
  std::int64_t due(Node node) const noexcept { return items_[node].due_ns; }
  std::int64_t cost(Node node) const noexcept { return items_[node].cost_ns; }

  std::int64_t total_cost() const noexcept { return sum(root_); }
  // Sum of the costs of all items before `key`.
  std::int64_t cost_before(const ScheduleKey& key) const noexcept;
  // Least slack of the items strictly between the keys; kNever if there are none.
  std::int64_t least_slack_between(const ScheduleKey& after, const ScheduleKey& before) const noexcept;
  std::int64_t least_slack_after(const ScheduleKey& key) const noexcept;
  std::int64_t least_slack_before(const ScheduleKey& key) const noexcept;

  Node first() const noexcept;
  Node next(Node node) const noexcept;
  bool empty() const noexcept { return root_ == kNone; }

 private:
  struct Item {
    ScheduleKey key;
    std::int64_t due_ns;
    std::int64_t cost_ns;
    std::int64_t sum_ns;
    std::int64_t slack_ns;
    std::uint64_t priority;
    Node left, right, parent;
  };

  std::int64_t sum(Node node) const noexcept { return node == kNone ? 0 : items_[node].sum_ns; }
  void refresh(Node node) noexcept;
  void refresh_upwards(Node node) noexcept;
  void rotate_up(Node node) noexcept;
  void replace_child(Node parent, Node old_child, Node new_child) noexcept;

  std::vector<Item> items_;
  std::vector<Node> free_;
  Node root_ = kNone;
  std::uint64_t inserted_ = 0;
};

}  // namespace penstock
