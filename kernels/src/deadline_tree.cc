#include "penstock/deadline_tree.h"

#include <algorithm>
#include <limits>

namespace penstock {
namespace {

constexpr ScheduleKey kFirstKey{std::numeric_limits<std::int32_t>::min(), 0, 0};
constexpr ScheduleKey kLastKey{std::numeric_limits<std::int32_t>::max(), 0, 0};

// splitmix64: priorities as good as random, the same in every run.
std::uint64_t scramble(std::uint64_t value) noexcept {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

}  // namespace

void DeadlineTree::refresh(Node node) noexcept {
  Item& item = items_[node];
  const std::int64_t until = sum(item.left) + item.cost_ns;
  item.sum_ns = until + sum(item.right);
  item.slack_ns = item.due_ns - until;
  if (item.left != kNone) item.slack_ns = std::min(item.slack_ns, items_[item.left].slack_ns);
  if (item.right != kNone) item.slack_ns = std::min(item.slack_ns, items_[item.right].slack_ns - until);
}

void DeadlineTree::refresh_upwards(Node node) noexcept {
  for (; node != kNone; node = items_[node].parent) refresh(node);
}

void DeadlineTree::replace_child(Node parent, Node old_child, Node new_child) noexcept {
  if (parent == kNone) {
    root_ = new_child;
  } else if (items_[parent].left == old_child) {
    items_[parent].left = new_child;
  } else {
    items_[parent].right = new_child;
  }
  if (new_child != kNone) items_[new_child].parent = parent;
}

// Puts a node in its parent's place; sums of both are right afterwards, those above are unchanged.
void DeadlineTree::rotate_up(Node node) noexcept {
  const Node parent = items_[node].parent;
  replace_child(items_[parent].parent, parent, node);
  if (items_[parent].left == node) {
    const Node moved = items_[node].right;
    items_[parent].left = moved;
    if (moved != kNone) items_[moved].parent = parent;
    items_[node].right = parent;
  } else {
    const Node moved = items_[node].left;
    items_[parent].right = moved;
    if (moved != kNone) items_[moved].parent = parent;
    items_[node].left = parent;
  }
  items_[parent].parent = node;
  refresh(parent);
  refresh(node);
}

DeadlineTree::Node DeadlineTree::insert(const ScheduleKey& key, std::int64_t due_ns, std::int64_t cost_ns) {
  Node node;
  if (free_.empty()) {
    // Erasing must not need memory.
    if (free_.capacity() <= items_.size()) free_.reserve(2 * items_.size() + 16);
    node = static_cast<Node>(items_.size());
    items_.emplace_back();
  } else {
    node = free_.back();
    free_.pop_back();
  }
  Node parent = kNone;
  for (Node at = root_; at != kNone; at = key < items_[at].key ? items_[at].left : items_[at].right) parent = at;
  items_[node] = {key, due_ns, cost_ns, 0, 0, scramble(inserted_++), kNone, kNone, parent};
  if (parent == kNone) {
    root_ = node;
  } else if (key < items_[parent].key) {
    items_[parent].left = node;
  } else {
    items_[parent].right = node;
  }
  refresh_upwards(node);
  while (items_[node].parent != kNone && items_[items_[node].parent].priority < items_[node].priority) {
    rotate_up(node);
  }
  return node;
}

void DeadlineTree::erase(Node node) noexcept {
  while (items_[node].left != kNone || items_[node].right != kNone) {
    const Node left = items_[node].left, right = items_[node].right;
    const bool raise_left = right == kNone || (left != kNone && items_[left].priority > items_[right].priority);
    rotate_up(raise_left ? left : right);
  }
  const Node parent = items_[node].parent;
  replace_child(parent, node, kNone);
  refresh_upwards(parent);
  free_.push_back(node);
}

void DeadlineTree::update(Node node, std::int64_t due_ns, std::int64_t cost_ns) noexcept {
  items_[node].due_ns = due_ns;
  items_[node].cost_ns = cost_ns;
  refresh_upwards(node);
}

std::int64_t DeadlineTree::cost_before(const ScheduleKey& key) const noexcept {
  std::int64_t before = 0;
  for (Node at = root_; at != kNone;) {
    const Item& item = items_[at];
    if (item.key < key) {
      before += sum(item.left) + item.cost_ns;
      at = item.right;
    } else {
      at = item.left;
    }
  }
  return before;
}

// Two walks below the node at which the ways to both ends part: subtrees that hang inwards lie inside whole.
std::int64_t DeadlineTree::least_slack_between(const ScheduleKey& after, const ScheduleKey& before) const noexcept {
  std::int64_t until = 0;  // costs before the subtree of `top`
  Node top = root_;
  while (top != kNone && !(after < items_[top].key && items_[top].key < before)) {
    const Item& item = items_[top];
    if (item.key <= after) {
      until += sum(item.left) + item.cost_ns;
      top = item.right;
    } else {
      top = item.left;
    }
  }
  if (top == kNone) return kNever;
  const Item& root = items_[top];
  const std::int64_t middle = until + sum(root.left) + root.cost_ns;
  std::int64_t slack = root.due_ns - middle;
  std::int64_t passed = until;
  for (Node at = root.left; at != kNone;) {
    const Item& item = items_[at];
    const std::int64_t done = passed + sum(item.left) + item.cost_ns;
    if (after < item.key) {
      slack = std::min(slack, item.due_ns - done);
      if (item.right != kNone) slack = std::min(slack, items_[item.right].slack_ns - done);
      at = item.left;
    } else {
      passed = done;
      at = item.right;
    }
  }
  passed = middle;
  for (Node at = root.right; at != kNone;) {
    const Item& item = items_[at];
    const std::int64_t done = passed + sum(item.left) + item.cost_ns;
    if (item.key < before) {
      slack = std::min(slack, item.due_ns - done);
      if (item.left != kNone) slack = std::min(slack, items_[item.left].slack_ns - passed);
      passed = done;
      at = item.right;
    } else {
      at = item.left;
    }
  }
  return slack;
}

std::int64_t DeadlineTree::least_slack_after(const ScheduleKey& key) const noexcept {
  return least_slack_between(key, kLastKey);
}

std::int64_t DeadlineTree::least_slack_before(const ScheduleKey& key) const noexcept {
  return least_slack_between(kFirstKey, key);
}

DeadlineTree::Node DeadlineTree::first() const noexcept {
  Node at = root_;
  while (at != kNone && items_[at].left != kNone) at = items_[at].left;
  return at;
}

DeadlineTree::Node DeadlineTree::next(Node node) const noexcept {
  if (items_[node].right != kNone) {
    Node at = items_[node].right;
    while (items_[at].left != kNone) at = items_[at].left;
    return at;
  }
  Node parent = items_[node].parent;
  while (parent != kNone && items_[parent].right == node) {
    node = parent;
    parent = items_[node].parent;
  }
  return parent;
}

}  // namespace penstock
